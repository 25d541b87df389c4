"""`metarl train`: meta-train a learner on a family."""

from __future__ import annotations

import dataclasses

from metarl.cli.parsing import TrainOptions, parse_training
from metarl.cli.resume import execute, launched


def run(words: list[str]) -> int:
    """Meta-train; a run that fails before its first iteration leaves no folder behind."""
    options = parse_training(list(words))
    if options.processes > 1:
        from metarl.run.folder import default_path

        given = [] if options.output else ["--output", str(default_path(options.training))]
        return launched(["train", *words, *given], options.processes, options.training)
    from metarl.run.launch import as_one

    return as_one(lambda: _train(options, words))


def _train(options: TrainOptions, words: list[str]) -> int:
    from metarl.core.registry import absolute, make_family
    from metarl.run.sessions import around, started

    config = options.training
    if options.tasks is not None:
        family, ranges = around(options.tasks, absolute(config.family))
        config = dataclasses.replace(config, family=family, task_ranges=(*ranges, *config.task_ranges))
    make_family(config.family, config.disturbances, config.task_ranges)
    config = dataclasses.replace(config, agent=absolute(config.agent), family=absolute(config.family))
    with started(options.output, config, ["train", *words]) as training:
        print(f"training {config.agent} on {config.family}, seed {config.seed}, in {training.run}", flush=True)
        return execute(training, config.max_minutes, options.track)
