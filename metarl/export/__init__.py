"""Policies that leave the house: bundles, and what runs them on a robot.

The package is also what `metarl.export(run, output)` calls: a function of that name would be hidden by the package once a
module of it is imported.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, run: Any, output: Any, *, checkpoint: str | None = None, trust_code: bool = False) -> Any:
        """See `metarl.api.export`."""
        api = importlib.import_module("metarl.api")
        return api.export(run, output, checkpoint=checkpoint, trust_code=trust_code)


sys.modules[__name__].__class__ = _Callable
