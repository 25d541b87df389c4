"""Meta-World's benchmarks as families, by name: `metaworld:ML1-reach`, `metaworld:ML10`, `metaworld:ML45`.

Meta-World pins MuJoCo 3.3, so it has a Python of its own, in `$XDG_DATA_HOME/metarl/metaworld`; what runs there is
`metaworld_worker.py`. (Were this file called metaworld.py, it would hide the package from the worker beside it.)
Yu et al. 2020, arXiv 1910.10897; version 3.1.1 of the package.
"""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import cast

from metarl.core.distributions import Choice
from metarl.core.errors import UserError
from metarl.core.info import Part
from metarl.core.tasks import Parameter, TaskSpace
from metarl.sim.external.external_env import ExternalFamily
from metarl.sim.external.pool import Setting

PREFIX = "metaworld:"
KINDS = {"ML1": (1, 0), "ML10": (10, 5), "ML45": (45, 5)}
"""Kinds of tasks to train on, and those held out, of each benchmark."""
GOALS = 50
"""Tasks of a kind, which differ in where goal and object are."""
_SEED_HINT = "the tasks are those of seed 1"


def home() -> Path:
    """The virtual environment that has Meta-World."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "metarl" / "metaworld"


class MetaWorld(ExternalFamily):
    """A benchmark of Meta-World: a Sawyer arm at a table, whose goal only the reward tells.

    Meta-World's training tasks are the splits `train` and `test`, its test tasks the split `ood`: of ML1 other goals,
    of ML10 and ML45 other kinds of tasks. Rewards are its version 2, 0 to 10 per step of 500.
    """

    control_step, episode_steps = 0.0125, 500
    observation = (Part("observation", 39, "1", help="hand, gripper, objects, those of the step before; goal hidden"),)

    def setting(self, episode_steps: int, pictures: bool) -> Setting:
        """Raises `UserError` that says how Meta-World is installed, where it is not."""
        if not os.path.exists(str(self.python)):
            raise UserError(
                f"Meta-World needs a Python of its own: python3 -m venv {home()} && "
                f"{home()}/bin/pip install metaworld==3.1.1 packaging"
            )
        return super().setting(episode_steps, pictures)


def is_benchmark(name: str) -> bool:
    """Whether a family's name is meant to be one of these."""
    return name.startswith(PREFIX)


def _numbers(first: int, end: int) -> Choice:
    return Choice(tuple(float(number) for number in range(first, end)))


@functools.cache
def benchmark(name: str) -> type[MetaWorld]:
    """The family called `metaworld:ML10`; `UserError` says which there are."""
    found = re.fullmatch(r"(ML10|ML45)|ML1-([a-z-]+?)(-v3)?", name.removeprefix(PREFIX))
    if found is None:
        raise UserError(
            f"unknown benchmark '{name}': there are metaworld:ML1-TASK (as ML1-reach), metaworld:ML10, ML45"
        )
    kind = found[1] or "ML1"
    train, held_out = KINDS[kind]
    variation = Parameter(
        _numbers(0, GOALS),
        ood=_numbers(GOALS, 2 * GOALS) if kind == "ML1" else None,
        unit="1",
        help="which of the kind's tasks: where goal and object are",
    )
    own = {"variation": variation}
    if kind != "ML1":
        of_kind = Parameter(
            _numbers(0, train), ood=_numbers(train, train + held_out), unit="1", help="kind of task, by number"
        )
        own |= {"kind": of_kind}  # last: a split's fixed list takes the kinds in turn
    called = f"{kind}_{found[2].replace('-', '_')}" if found[2] else kind
    fields = {
        "__doc__": f"Meta-World's {name.removeprefix(PREFIX)}; goals are hidden, and {_SEED_HINT}.",
        "__module__": __name__,
        "space": TaskSpace(own),
        "environment": f"metaworld_worker.py:{called}",
        "python": str(home() / "bin" / "python"),
        "constant_observations": (36, 37, 38),
    }
    return cast("type[MetaWorld]", type(called, (MetaWorld,), fields))
