"""Packages that have the name of a public function: `metarl.export` is both, whatever was imported first."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


def callable_package(package: str, home: str) -> None:
    """Let a package be called, as the function of its last name in the module `home`.

    Python sets a package as an attribute of its parent when it is first imported, over the function of that name.
    """
    name = package.rpartition(".")[2]

    class Callable(ModuleType):
        def __call__(self, *arguments: Any, **words: Any) -> Any:
            return getattr(importlib.import_module(home), name)(*arguments, **words)

    sys.modules[package].__class__ = Callable
