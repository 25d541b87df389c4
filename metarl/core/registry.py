"""Names to classes: the tables of `metarl.envs` and `metarl.agents`, plug-ins, and `path/to/file.py:Class`."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, cast

from metarl.agents import LEARNERS
from metarl.core.errors import UserError, printable, unknown_name
from metarl.core.files import read_bytes
from metarl.envs import FAMILIES

if TYPE_CHECKING:
    from metarl.rl.learner import Learner
    from metarl.sim.family import Family

_FAMILY_GROUP, _LEARNER_GROUP = "metarl.families", "metarl.learners"
_METAWORLD = "metaworld:"
"""Begins the names of Meta-World's benchmarks: see `metarl.sim.external.metaworld_suite`."""
MAX_CODE = 2**24
"""No file of Python is larger [bytes]."""


def family_names() -> list[str]:
    """Names of the families of tasks: metarl's own first, then those of installed plug-ins."""
    return [*FAMILIES, *sorted(_plugins(_FAMILY_GROUP))]


def learner_names() -> list[str]:
    """Names of the learners: metarl's own first, then those of installed plug-ins."""
    return [*LEARNERS, *sorted(_plugins(_LEARNER_GROUP))]


def make_family(name: str, disturbances: str = "", ranges: Sequence[str] = ()) -> Family:
    """The family called `name`, with the text of a file of disturbances.

    `NAME+joint_friction` has one more task parameter: see `metarl.sim.extended`. `ranges` narrow some, as
    `payload=1.5:1.9`. `UserError` names the nearest known one, or what an author got wrong.
    """
    own, *added = _parts(name)
    found = _find(own, "family", dict(FAMILIES), _FAMILY_GROUP)
    from metarl.sim.declarations import make

    if added:
        from metarl.sim.extended import with_parameters

        found = with_parameters(own, found, added)
    family = make(name, found, disturbances)
    if ranges:
        from metarl.sim.extended import narrowed

        return narrowed(family, ranges)
    return family


def names_family(name: str) -> bool:
    """Whether this is the name of a known family, or could be one in a file."""
    return ".py:" in name or name.startswith(_METAWORLD) or _parts(name)[0] in family_names()


def _parts(name: str) -> list[str]:
    """A family's name, and those of the parameters added to it."""
    file, colon, last = name.rpartition(":")
    first, *added = last.split("+")
    return [f"{file}{colon}{first}", *added]


def learner_class(name: str) -> type[Learner]:
    """The learner called `name`; `UserError` names the nearest known one."""
    table = {key: entry.learner for key, entry in LEARNERS.items()}
    found = _find(name, "agent", table, _LEARNER_GROUP)
    if not inspect.isclass(found):
        raise UserError(f"agent '{name}' is no class but a {type(found).__name__}")
    return cast("type[Learner]", found)


def samples_first(name: str) -> bool:
    """Whether the table says of a learner that it samples before it adapts; False for those of others."""
    return name in LEARNERS and LEARNERS[name].samples_first


def known_adapting(name: str) -> bool:
    """Whether a learner's policy keeps what it learns of its task: True, unless the table says otherwise."""
    return name not in LEARNERS or LEARNERS[name].adapts


def known_oracle(name: str) -> bool:
    """Whether the table says of a learner that it is always shown the task."""
    return name in LEARNERS and LEARNERS[name].oracle


def learner_config_class(name: str) -> type[Any]:
    """The configuration class of the learner: from the table, else the learner's attribute `Config`."""
    if name in LEARNERS:
        return cast("type[Any]", _load(LEARNERS[name].config))
    config_class = getattr(learner_class(name), "Config", None)
    if not inspect.isclass(config_class) or not dataclasses.is_dataclass(config_class):
        raise UserError(f"agent '{name}' has no attribute Config, the dataclass of its hyperparameters")
    return cast("type[Any]", config_class)


def agents_with(option: str) -> list[str]:
    """Our own learners whose configuration has an option of that name."""
    return [
        name for name in LEARNERS if option in [field.name for field in dataclasses.fields(learner_config_class(name))]
    ]


def reference(family: str | type[Family] | Family) -> str:
    """A family's name, or `path/to/file.py:ClassName` of a class: what a run's configuration can hold."""
    if isinstance(family, str):
        return family
    cls = family if isinstance(family, type) else type(family)
    try:
        return f"{Path(inspect.getfile(cls)).resolve()}:{cls.__qualname__}"
    except (OSError, TypeError):
        raise UserError(
            f"{cls.__qualname__} is not defined in a file: save it in one, and name it 'path/to/file.py:{cls.__name__}'"
        ) from None


def file_of(name: str) -> Path | None:
    """The file of `path/to/file.py:Class`, links followed; None for the name of an installed class."""
    if ".py:" not in name:
        return None
    try:
        return Path(name.rpartition(":")[0]).resolve()
    except (OSError, ValueError, RuntimeError):  # a NUL in the name, or links in a circle
        raise UserError(f"there is no file {printable(name)}") from None


def absolute(name: str) -> str:
    """The same name, with a file's path made absolute, so that a run can be used from any folder."""
    path = file_of(name)
    return f"{path}:{name.rpartition(':')[2]}" if path else name


def _find(name: str, kind: str, table: dict[str, str], group: str) -> Any:
    if name in table:
        return _load(table[name])
    if kind == "family" and name.startswith(_METAWORLD):
        from metarl.sim.external.metaworld_suite import benchmark

        return benchmark(name)
    if (path := file_of(name)) is not None:
        return _from_file(path, *name.rsplit(":", 1))
    if name.endswith(".py"):
        raise UserError(f"'{name}' must name the class too: {name}:ClassName")
    plugins = _plugins(group)
    if name in plugins:
        try:
            return plugins[name].load()
        except Exception as error:
            raise UserError(f"the plug-in '{name}' does not import: {type(error).__name__}: {error}") from None
    raise unknown_name(kind, name, [*table, *plugins])


def _plugins(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def _load(reference: str) -> Any:
    module, attribute = reference.split(":")
    return getattr(importlib.import_module(module), attribute)


def _from_file(path: Path, location: str, attribute: str) -> Any:
    """The class in `path/to/file.py:Class`; `location` is the path as it was written."""
    if not os.path.isfile(path):  # unlike Path's, False too for a name that is too long
        raise UserError(f"there is no file {location}")
    module = _import_file(path)
    if not hasattr(module, attribute):
        classes = [key for key, value in vars(module).items() if inspect.isclass(value)]
        raise UserError(f"{location}: {unknown_name('class', attribute, classes)}")
    return getattr(module, attribute)


class _SourceLoader(SourceFileLoader):
    """Compiles the file that was read and agreed to; Python's own takes what lies in `__pycache__` beside it."""

    def get_code(self, fullname: str) -> CodeType:
        """The code of the source."""
        return self.source_to_code(read_bytes(Path(self.path), MAX_CODE), self.path)


@functools.cache
def _import_file(path: Path) -> ModuleType:
    """The file as a module, run once: a class asked for twice is the same class."""
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    name = f"metarl_user_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_SourceLoader(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    _let_siblings_be_imported(path.parent)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f", line {lines[-1]}" if lines else ""
        raise UserError(f"{path} does not import: {type(error).__name__}: {error}{where}") from None
    return module


_sibling_folders: list[str] = []
"""Folders of files named by a user, that were put on Python's path for the modules beside them."""


def _let_siblings_be_imported(folder: Path) -> None:
    """Put a folder at the end of Python's path: `helper.py` in it can be imported, and hides no installed package.

    A module of the same name that came from another such folder is forgotten, so that each file meets its own.
    """
    own = str(folder)
    if own not in sys.path:
        _sibling_folders.append(own)
    if own in _sibling_folders:
        sys.path[:] = [*(entry for entry in sys.path if entry not in _sibling_folders), own]
        sys.path += [entry for entry in _sibling_folders if entry != own]
    for name, module in list(sys.modules.items()):
        home = os.path.dirname((getattr(module, "__file__", None) or "").removesuffix("/__init__.py"))
        if "." not in name and home in _sibling_folders and home != own and _holds(folder, name):
            for loaded in [other for other in sys.modules if f"{other}.".startswith(f"{name}.")]:
                del sys.modules[loaded]


def _holds(folder: Path, module: str) -> bool:
    """Whether a folder has a module or a package of that name."""
    return (folder / f"{module}.py").is_file() or (folder / module / "__init__.py").is_file()
