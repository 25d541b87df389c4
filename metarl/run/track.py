"""The one adapter to trackers that have the interface of Weights & Biases. Nothing is sent unless it is asked for."""

from __future__ import annotations

import hashlib
import importlib
import io
import warnings
from typing import Any

from metarl.core.errors import UserError, unknown_name
from metarl.core.types import Metrics
from metarl.run.run import Run

TRACKERS = ("wandb", "trackio")
"""Modules of that interface: `init(project=, name=, config=, resume=)`, `run.log(numbers, step=)`, `run.finish()`."""


class Tracker:
    """Hands a run's numbers and pictures on."""

    def __init__(self, name: str, run: Run) -> None:
        """`UserError` where the module `name` is none of `TRACKERS`, is not installed, or refuses."""
        if name not in TRACKERS:
            raise unknown_name("tracker", name, TRACKERS)
        try:
            self._module: Any = importlib.import_module(name)
        except ModuleNotFoundError:
            raise UserError(f"--track {name} needs the package {name}: pip install {name}") from None
        options: dict[str, Any] = {"name": run.name, "config": run.config_values, "resume": "allow"}
        if name == "wandb":  # a run that goes on is known by an id
            begun = f"{run.name} {run.provenance().get('started')}"
            options |= {"id": hashlib.sha256(begun.encode()).hexdigest()[:12], "dir": str(run.path)}
        try:
            self._run = self._module.init(project="metarl", **options)
        except Exception as error:  # nobody is logged in, nobody answers: whatever the module raises
            raise UserError(f"--track {name}: {error}") from None
        self._name = name

    def write(self, total_steps: int, metrics: Metrics, picture: bytes = b"") -> None:
        """An iteration's numbers, and a PNG where there is one. A tracker that fails is left alone from then on."""
        if self._run is None:
            return
        shown = {}
        try:
            if picture:
                import imageio.v3 as iio

                shown = {"evaluation/pictures": self._module.Image(iio.imread(io.BytesIO(picture)))}
            self._run.log({**metrics, **shown}, step=total_steps)
        except Exception as error:
            warnings.warn(f"{self._name} is told no more: {error}", stacklevel=2)
            self._run = None

    def close(self) -> None:
        """The run's session is over."""
        if self._run is not None:
            self._run.finish()
            self._run = None
