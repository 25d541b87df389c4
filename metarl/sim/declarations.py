"""What a family declares, tested when it is made: an author's slip is one sentence, whatever the verb."""

from __future__ import annotations

import inspect
import math
import reprlib
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metarl.core import seeding
from metarl.core.errors import UserError, unknown_name
from metarl.core.info import Part
from metarl.core.tasks import Choice, Distribution, Parameter, TaskSpace
from metarl.sim.disturbance_files import disturbed, with_disturbances
from metarl.sim.external.external_env import ExternalFamily
from metarl.sim.family import Family, MujocoFamily
from metarl.sim.variation import Variation, no_index

_PARTS = "as observation = (Part('joint_position', 2, 'rad'), ...) with Part of metarl.core.info"
_KINDS = "Uniform, LogUniform, Choice, Angle, Disc, Ball, or your own with sample, contains and describe"
_DRAWS = 100  # of an index that is drawn from no finite list


def make(name: str, found: object, disturbances: str = "") -> Family:
    """The family of the class `found`, with a file's disturbances; `UserError` says what it declares that cannot be."""
    if not (inspect.isclass(found) and issubclass(found, MujocoFamily | ExternalFamily)):
        raise UserError(
            f"'{name}' is not a family: it must be a subclass of metarl.sim.family.MujocoFamily, or of "
            "metarl.sim.external.external_env.ExternalFamily for a Gymnasium environment"
        )
    fields = (
        "space",
        "control_step",
        "episode_steps",
        *(("environment",) if issubclass(found, ExternalFamily) else ()),
    )
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    missing += [field for field in fields if not hasattr(found, field)]
    if missing:
        raise UserError(f"family '{name}' does not define {', '.join(missing)}")
    family = _made(name, found)
    for problem in _problems(family):
        raise UserError(f"family '{name}': {problem}")
    return disturbed(family, disturbances)


def require_parameters(family: MujocoFamily) -> None:
    """`UserError` for a variation that reads a task parameter the family does not have."""
    for variation in family.variations:
        for name in variation.parameters:
            if name not in family.space.parameters:
                error = unknown_name("task parameter", name, family.space.parameters)
                raise UserError(f"the variation {type(variation).__name__} reads the {error}")


def _made(name: str, found: type[MujocoFamily | ExternalFamily]) -> MujocoFamily | ExternalFamily:
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    arguments = list(inspect.signature(found.__init__).parameters.values())[1:]  # but for self
    needed = [one.name for one in arguments if one.default is one.empty and one.kind not in variadic]
    if needed:
        raise UserError(
            f"family '{name}': __init__ needs {', '.join(needed)}, but a family is made without arguments: give "
            "defaults, or a subclass for each choice"
        )
    try:
        return found()
    except UserError as error:
        raise UserError(f"family '{name}': {error}") from None
    except Exception as error:  # whatever a user's constructor raises
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno}, in {frame.name}"
        raise UserError(f"family '{name}' cannot be made: {type(error).__name__}: {error} ({where})") from None


def _problems(family: MujocoFamily | ExternalFamily) -> Iterator[str]:
    """The checks, ordered so that each may rely on those before it."""
    declared: Any = family  # whatever the annotations say
    yield from _space(declared.space)
    yield from _robot(family) if isinstance(family, MujocoFamily) else _environment(family)
    steps, seconds = declared.episode_steps, declared.control_step
    if not _is_whole(steps) or steps < 1:
        yield f"episode_steps = {_short(steps)} must be a whole number (int), at least 1"
    if not _is_number(seconds) or not 0 < seconds < math.inf:
        yield f"control_step = {_short(seconds)} must be a positive number (float) of seconds"
    yield from _observation(family)
    try:
        with_disturbances(family, family.disturbances)
    except UserError as error:
        yield str(error)


def _observation(family: MujocoFamily | ExternalFamily) -> Iterator[str]:
    parts: Any = family.observation
    if not isinstance(parts, list | tuple) or not all(isinstance(part, Part) for part in parts):
        yield f"observation = {_short(parts)} must be a tuple of Parts, {_PARTS}"
        return
    if not parts and isinstance(family, MujocoFamily):
        yield f"it declares no observation: write one, {_PARTS}, and let observe return a mapping from their names"
    named = [part.name for part in parts]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        yield f"observation declares the part '{twice[0]}' twice"
    constant: Any = family.constant_observations
    if not isinstance(constant, list | tuple | range) or not all(_is_whole(index) for index in constant):
        yield f"constant_observations = {_short(constant)} must be a tuple of whole numbers, as (18,)"


def _robot(family: MujocoFamily) -> Iterator[str]:
    declared: Any = family
    yield from _variations(declared.variations)
    try:
        require_parameters(family)
    except UserError as error:
        yield str(error)
    yield from _indices(family)
    if not isinstance(declared.camera, str | None):
        yield f"camera = {_short(declared.camera)} must be the name of a camera, or None"


def _environment(family: ExternalFamily) -> Iterator[str]:
    declared: Any = family
    if not isinstance(declared.environment, str) or not declared.environment:
        yield (
            f"environment = {_short(declared.environment)} must be a string: a Gymnasium id, module:function or "
            "path/to/file.py:function"
        )
    if not isinstance(declared.python, str | None):
        yield f"python = {_short(declared.python)} must be the path of an interpreter, or None"
    if not _is_number(declared.time_limit) or not 0 < declared.time_limit < math.inf:
        yield f"time_limit = {_short(declared.time_limit)} must be a positive number (float) of seconds"


def _space(space: object) -> Iterator[str]:
    if not isinstance(space, TaskSpace):
        yield f"space = {_short(space)} must be a TaskSpace, as TaskSpace({{'mass': Parameter(...)}})"
        return
    parameters: Any = space.parameters
    if not isinstance(parameters, Mapping) or not parameters:
        yield f"space = TaskSpace({_short(parameters)}) must map at least one name to its Parameter"
        return
    for name, parameter in parameters.items():
        if not isinstance(name, str):
            yield f"the task parameter {_short(name)} must be named by a string"
        elif not isinstance(parameter, Parameter):
            yield f"the task parameter '{name}' = {_short(parameter)} must be a Parameter, as Parameter(Uniform(0, 1))"
        else:
            yield from (f"the task parameter '{name}': {problem}" for problem in _parameter(parameter))


def _parameter(parameter: Any) -> Iterator[str]:
    for field in ("unit", "help"):
        if not isinstance(getattr(parameter, field), str):
            yield f"{field} = {_short(getattr(parameter, field))} must be a string"
    if isinstance(parameter.labels, str) or not all(isinstance(label, str) for label in parameter.labels):
        yield f"labels = {_short(parameter.labels)} must be a tuple of strings"
    lengths = {}
    for split in ("train", "ood"):
        support = getattr(parameter, split)
        if split == "ood" and support is None:
            continue
        if inspect.isclass(support) or not isinstance(support, Distribution):
            yield f"{split} = {_short(support)} must be a distribution: {_KINDS}"
            return
        try:
            draw = np.asarray(support.sample(1, seeding.rng(0, "declared")), np.float64)
        except Exception as error:  # whatever a user's distribution raises
            yield f"{split} cannot be drawn from: {type(error).__name__}: {error}"
            return
        if draw.ndim not in (1, 2) or len(draw) != 1 or not np.isfinite(draw).all():
            yield f"one draw from {split} is {_short(draw.tolist())}, it must be a finite array (1,) or (1, size)"
            return
        lengths[split] = draw.shape[1:]
    if len(set(lengths.values())) > 1:
        yield f"train draws {_numbers(lengths['train'])}, ood {_numbers(lengths['ood'])}: they must agree"
    if parameter.nominal is not None and not _is_value(parameter.nominal, lengths["train"]):
        yield f"nominal = {_short(parameter.nominal)} must be like what train draws, {_numbers(lengths['train'])}"


def _variations(variations: Any) -> Iterator[str]:
    if not isinstance(variations, list | tuple):
        kind = f"a single {type(variations).__name__}" if isinstance(variations, Variation) else _short(variations)
        yield f"variations is {kind}, it must be a tuple of them, with a comma after a single one: (BodyMass('mass'),)"
        return
    for variation in variations:
        if inspect.isclass(variation) or not isinstance(variation, Variation):
            yield (
                f"{_short(variation)} among the variations must be an object with parameters, fields and apply, "
                "as BodyMass('mass')"
            )
            return
        for field in ("parameters", "fields"):
            names: Any = getattr(variation, field)
            if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
                kind = type(variation).__name__
                yield f"`{field}` of the variation {kind} is {_short(names)}, it must be a tuple of names, as ('mass',)"
                return


def _indices(family: MujocoFamily) -> Iterator[str]:
    """Task parameters that are an index, and may be drawn where a variation has nothing of that index."""
    for variation in family.variations:
        for name, allowed in getattr(variation, "indices", {}).items():
            parameter, kind = family.space.parameters[name], type(variation).__name__
            nominal: Any = parameter.nominal
            nominal = None if nominal is None else Choice((nominal,))
            for split, support in (("nominal", nominal), ("train", parameter.train), ("ood", parameter.ood)):
                if support is not None:
                    rng = seeding.rng(0, "declared")
                    drawn = support.values if isinstance(support, Choice) else support.sample(_DRAWS, rng)
                    for value in [value for value in np.ravel(drawn).tolist() if value not in allowed][:1]:
                        yield f"the task parameter '{name}': {split} has {value:g}, which to {kind} {no_index(allowed)}"
            if parameter.labels and len(parameter.labels) != allowed.stop:
                number = len(parameter.labels)
                yield f"the task parameter '{name}' has {number} labels, but {kind} chooses among {allowed.stop}"


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_value(value: object, shape: tuple[int, ...]) -> bool:
    """A finite number, or as many as `shape` says."""
    numbers = list(value) if isinstance(value, list | tuple) else [value]
    found = (len(numbers),) if isinstance(value, list | tuple) else ()
    return found == shape and all(isinstance(x, int | float) and math.isfinite(x) for x in numbers)


def _numbers(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} numbers" if shape else "one number"


def _short(value: object) -> str:
    return " ".join(reprlib.repr(value).split())
