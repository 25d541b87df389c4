"""`metarl train`: meta-train a learner on a family."""

from __future__ import annotations

import dataclasses
import shutil

from metarl.cli.parsing import parse_training
from metarl.cli.resume import execute
from metarl.core.errors import UserError


def run(words: list[str]) -> int:
    """Meta-train; a run that fails before its first iteration leaves no folder behind."""
    options = parse_training(list(words))
    from metarl.core.registry import absolute, make_family
    from metarl.run import run as folder
    from metarl.run.train import Training

    config = options.training
    make_family(config.family)
    config = dataclasses.replace(config, agent=absolute(config.agent), family=absolute(config.family))
    run = folder.RunFolder(options.output or folder.default_path(config))
    training = Training(run, config)
    folder.create(run.path, config, ["train", *words])
    print(f"training {config.agent} on {config.family}, seed {config.seed}, in {run.path}", flush=True)
    try:
        return execute(training, config.max_minutes)
    except (UserError, KeyboardInterrupt):
        if training.iteration == 0:  # nothing is lost, and the corrected command can use the same folder
            shutil.rmtree(run.path, ignore_errors=True)
        raise
