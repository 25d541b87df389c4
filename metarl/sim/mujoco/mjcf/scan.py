"""MJCF files from strangers: read within one folder, compiled in a child process with limits, and only then here.

Every file is read once, here, after a scan of the XML that refuses entities and whatever leads out of the folder. What
the scan takes for a reference and what MuJoCo does need not agree: the child can open no file at all.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from stat import S_ISREG
from xml.parsers import expat

import mujoco

from metarl.core.errors import UserError
from metarl.sim.mujoco.mjcf.sandbox import MEMORY_LIMIT, Mjcf, Report, examine, printable

XML_LIMIT = 16 << 20  # [bytes] of one XML file
READ_LIMIT = 256 << 20  # [bytes] of all files together
FILE_LIMIT = 4096
"""Files of one model."""
_RULE = "only files in the model's folder are read, or in a wider one that --folder names"
_URDF = (
    "it is a URDF file, which has no actuators: convert it by `mujoco.MjSpec.from_file('robot.urdf').to_xml()`, "
    "and add actuators with a ctrlrange"
)


def load(path: Path | str, folder: Path | str | None = None, memory: int = MEMORY_LIMIT) -> mujoco.MjSpec:
    """The model in a MJCF file, once a child process has compiled it; `UserError` says what is wrong with it.

    Files it refers to are read where they lie in `folder`, by default the file's own. `memory` [bytes]
    limits the child.
    """
    mjcf = read(path, folder)
    _approved(mjcf, memory)
    return mjcf.spec()


@functools.lru_cache(maxsize=8)
def _approved(mjcf: Mjcf, memory: int) -> Report:
    return examine(mjcf, memory=memory)


def read(path: Path | str, folder: Path | str | None = None) -> Mjcf:
    """Read a MJCF file and all it refers to, in `folder` or below; `UserError` where that is refused or impossible."""
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a MJCF file")
    name = os.path.join(os.path.realpath(path.parent), path.name)
    scan = _Scan(os.path.realpath(path.parent if folder is None else folder), path)
    if not os.path.lexists(name):
        raise UserError(f"there is no file {path}")
    scan.document(name, os.path.dirname(name), (), "")
    scan.find_assets()
    if not name.endswith(".xml"):
        scan.xmls[f"{name}.xml"] = scan.xmls.pop(name)
        name += ".xml"
    return Mjcf(str(path), name, tuple(scan.xmls.items()), tuple(scan.assets.items()))


class _Scan:
    """Collects the files of a model, looking for them where MuJoCo may."""

    def __init__(self, root: str, path: Path) -> None:
        self.xmls: dict[str, bytes] = {}
        self.assets: dict[str, bytes] = {}
        self._root, self._path, self._base = root, path, os.path.realpath(path.parent)
        self._contents: dict[str, bytes] = {}
        self._scanned: set[tuple[str, str]] = set()
        self._folders = [""]  # of the compiler: meshdir and so on
        self._strip = False
        self._wanted: list[tuple[str, list[str], str]] = []

    def document(self, name: str, model: str, ancestors: tuple[str, ...], where: str) -> None:
        """Scan an XML file that belongs to the model in the folder `model`, and those it refers to."""
        here = self._shown(name)
        if name in ancestors:
            chain = " includes ".join(map(self._shown, (*ancestors[ancestors.index(name) :], name)))
            raise UserError(f"{where}: the files include each other without end: {chain}")
        if (name, model) in self._scanned:
            return
        self._scanned.add((name, model))
        self.xmls[name] = self._content(name, where, XML_LIMIT)
        for line, tag, attributes in _elements(self.xmls[name], here, is_model=not ancestors):
            at = f"{here}, line {line}"
            for key, value in attributes.items():
                if tag == "compiler" and key in ("meshdir", "texturedir", "assetdir"):
                    self._folders.append(_relative(value, at))
                elif tag == "compiler" and key == "strippath":
                    self._strip = value == "true"
                elif key.startswith("file"):
                    bases = list(dict.fromkeys((model, os.path.dirname(name))))
                    if tag not in ("include", "model"):
                        self._wanted.append((value, bases, at))
                        continue
                    found, places = self._find(_relative(value, at), bases, [""], at)
                    base = model if tag == "include" else os.path.dirname(found)
                    self.document(found, base, (*ancestors, name), at)
                    self._alias(self.xmls, found, places)

    def find_assets(self) -> None:
        """Read what is not XML: by now all folders of the compiler are known."""
        for value, bases, at in self._wanted:
            file = os.path.basename(value.replace("\\", "/")) if self._strip else _relative(value, at)
            found, places = self._find(file, bases, self._folders, at)
            self.assets[found] = self._content(found, at, READ_LIMIT)
            self._alias(self.assets, found, places)

    def _find(self, file: str, bases: list[str], folders: list[str], at: str) -> tuple[str, list[str]]:
        """The file's first place in the root that exists, and all places in which MuJoCo may look for it."""
        places = [os.path.normpath(os.path.join(base, folder, file)) for base in bases for folder in reversed(folders)]
        inside = [place for place in dict.fromkeys(places) if self._holds(place)]
        for place in inside:
            if os.path.lexists(place):
                return place, inside
        outside = next((place for place in places if not self._holds(place)), None)
        if outside is not None:
            name = f"there is no file '{file}' in the folder, and {self._shown(outside)}" if inside else f"'{file}'"
            raise UserError(f"{at}: {name} lies outside: {_RULE}")
        raise UserError(f"{at}: there is no file '{file}'")

    def _alias(self, files: dict[str, bytes], found: str, places: list[str]) -> None:
        """MuJoCo takes any file of the same name that it was given; let it find this one wherever it looks."""
        base = os.path.basename(found)
        others = [data for name, data in files.items() if os.path.basename(name) == base]
        if any(data is not files[found] for data in others):
            for place in places:
                if not os.path.lexists(place):
                    files.setdefault(place, files[found])

    def _content(self, name: str, where: str, limit: int) -> bytes:
        """Of a regular file inside the root, symbolic links followed."""
        real, shown = os.path.realpath(name), self._shown(name)
        prefix = f"{where}: " if where else ""
        if real in self._contents:
            return self._contents[real]
        if not self._holds(real):
            raise UserError(f"{prefix}{shown} is a link that leads outside: {_RULE}")
        try:
            if not S_ISREG(os.stat(real).st_mode):
                raise UserError(f"{prefix}{shown} is not a regular file")
            flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            with open(os.open(real, flags | getattr(os, "O_BINARY", 0)), "rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise UserError(f"{prefix}{shown} cannot be read: {error.strerror}") from None
        self._contents[real] = data
        if len(data) > limit or sum(map(len, self._contents.values())) > READ_LIMIT:
            raise UserError(
                f"{prefix}{shown} is too large: an XML file may have {XML_LIMIT >> 20} MiB, all of a model "
                f"together {READ_LIMIT >> 20} MiB"
            )
        if len(self._contents) > FILE_LIMIT:
            raise UserError(f"{self._path} refers to more than {FILE_LIMIT} files")
        return data

    def _holds(self, place: str) -> bool:
        return os.path.commonpath((self._root, place)) == self._root

    def _shown(self, name: str) -> str:
        """As seen from where the user is."""
        return printable(str(self._path.parent / os.path.relpath(name, self._base)))


def _relative(value: str, at: str) -> str:
    """A relative path with slashes; `UserError` for any other, and for MuJoCo's resource providers."""
    path = value.replace("\\", "/")
    if path.startswith("/") or ":" in path:
        raise UserError(f"{at}: '{printable(value)}' is not a relative path: {_RULE}")
    return path


def _elements(data: bytes, here: str, *, is_model: bool) -> list[tuple[int, str, dict[str, str]]]:
    """Line, tag and attributes of every element of an XML file, entities refused."""
    found: list[tuple[int, str, dict[str, str]]] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        if is_model and not found and tag != "mujoco":
            problem = _URDF if tag == "robot" else f"its root is <{printable(tag)}>, not <mujoco>"
            raise UserError(f"{here}, line {parser.CurrentLineNumber}: {problem}")
        found.append((parser.CurrentLineNumber, tag, attributes))

    def refuse(*_: object) -> None:
        raise UserError(
            f"{here}, line {parser.CurrentLineNumber}: it declares a document type, which MJCF has no use for"
        )

    parser = expat.ParserCreate("utf-8")  # as MuJoCo, whatever the file declares
    parser.StartElementHandler, parser.StartDoctypeDeclHandler = start, refuse
    if not data.strip():
        raise UserError(f"{here} is empty")
    try:
        parser.Parse(_without_comments(data), True)
    except expat.ExpatError as error:
        raise UserError(f"{here}, line {error.lineno}: no well-formed XML: {expat.ErrorString(error.code)}") from None
    return found


def _without_comments(data: bytes) -> bytes:
    """Comments may hold what XML forbids (two hyphens) and MuJoCo allows; lines keep their numbers."""
    parts, begin = [], 0
    while (at := data.find(b"<!--", begin)) >= 0 and (end := data.find(b"-->", at + 4)) >= 0:
        parts += [data[begin:at], b"\n" * data.count(b"\n", at, end)]
        begin = end + 3
    return b"".join([*parts, data[begin:]])
