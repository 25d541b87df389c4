"""Files of evaluations, of this version and of older ones, read back checked: see `EvaluationRecord.from_json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from metarl.core.registry import known_adapting, known_oracle, samples_first
from metarl.core.tasks import Tasks
from metarl.run.control import Control
from metarl.run.headroom import Headroom, Recovered
from metarl.run.records import Against, Controlled, EvaluationRecord, Origin, Standing
from metarl.run.recovery import Recovery
from metarl.run.statistics import AdaptationTime, Interval, Summary, worst_counted

_PROVENANCE = ("command", "started", "versions", "git_commit", "machine")
_HUGE, _LONGEST = 10**15, 10**7


def record_of(content: Mapping[str, Any], source: Path | None) -> EvaluationRecord:
    """The record in the content of a file; `ValueError`, `KeyError` and their like where something is wrong with it.

    Formats 1 and 2 took what a diverged task had earned for its return, and the gain of a policy that samples first
    from episodes that were not played in the same way: both are put right.
    """
    rows, version = content["tasks"], content.get("format", 1)
    returns = _returns(content, "returns", len(rows))
    diverged = content.get("diverged")
    if diverged is not None:
        diverged = np.array(diverged, np.int64).reshape(len(returns))
        if version < 3:
            returns = worst_counted(returns, diverged > 0)
            if not np.isfinite(returns).all():
                raise ValueError("the physics of all its tasks diverged: no return was measured")
    standing, recovery = content.get("standing"), content.get("recovery")
    record = EvaluationRecord(
        **vars(_origin(content)),
        tasks=Tasks.from_rows(rows),
        returns=returns,
        control_step=_number(content, "control_step"),
        num_diverged=_count(content, "num_diverged"),
        diverged=diverged,
        sampled=_returns(content, "sampled", *returns.shape) if content.get("sampled") is not None else None,
        controls=tuple(_controlled(one, returns) for one in content.get("controls", ())),
        standing=None if standing is None else _standing(standing),
        recovery=None if recovery is None else Recovery.from_json(recovery),
        success=None if content.get("success") is None else np.array(content["success"], bool).reshape(returns.shape),
        falls=None if content.get("falls") is None else np.array(content["falls"], np.int64).reshape(len(returns)),
        split=_text(content, "split"),
        held_out=_flag(content, "held_out"),
        seed=_count(content, "seed"),
        deterministic=_flag(content, "deterministic"),
        against=_against(content["against"]) if content.get("against") else None,
        provenance={key: content[key] for key in _PROVENANCE if key in content}
        if version == 1
        else dict(content["provenance"]),
        source=source,
    )
    known: dict[str, Any] = {}
    if reward := content.get("reward_by_step"):
        if (length := record.episode_steps * returns.shape[1]) > _LONGEST:
            raise ValueError(f"a trial of {length:,} steps is too long")
        starts, ends = record.stretches(length)
        known["reward_by_step"] = np.repeat(np.array(reward["reward"], np.float64), ends - starts)
        time = content["time_to_adapt"]
        known["time_to_adapt"] = time and AdaptationTime(
            float(time["episodes"]), int(time["steps"]), float(time["seconds"])
        )
    if version < 3 and (record.paired is None or record.failed.any()):
        known.pop("time_to_adapt", None)
    elif "iqm" in content:
        known["summary"] = Summary.from_json(content)
    vars(record).update(known)  # as measured: not to be computed again, and from thinned data
    return record


def _returns(content: Mapping[str, Any], name: str, *shape: int) -> Float64[np.ndarray, "N K"]:
    found = np.array(content[name], np.float64)
    if found.ndim != 2 or 0 in found.shape or found.shape[: len(shape)] != shape or not np.isfinite(found).all():
        raise ValueError(f"{name} must hold a row of finite numbers for each task, and one number per episode")
    return found


def _controlled(content: Mapping[str, Any], like: Float64[np.ndarray, "N K"]) -> Controlled:
    control = Control(content["kind"], float(content["seconds"]), _flag(content, "once"))
    return Controlled(control.kind, control.seconds, control.once, _returns(content, "returns", *like.shape))


def _standing(content: Mapping[str, Any]) -> Standing:
    low, high = (tuple(map(str, content[name])) for name in ("memoryless", "oracle"))
    last, first = (Recovered.from_json(content[name]) for name in ("recovered", "recovered_first"))
    seconds = None if content.get("seconds_to_recover") is None else _number(content, "seconds_to_recover")
    return Standing(low, high, Headroom.from_json(content["headroom"]), last, first, seconds)


def _origin(content: Mapping[str, Any]) -> Origin:
    agent = str(content.get("agent", ""))
    return Origin(
        agent=agent,
        family=str(content.get("family", "")),
        train_seed=_count(content, "train_seed") if content.get("train_seed") is not None else None,
        train_steps=_count(content, "train_steps"),
        train_seconds=_number(content, "train_seconds"),
        iteration=_count(content, "iteration"),
        episode_steps=_count(content, "episode_steps"),
        task_visible=bool(content.get("task_visible", known_oracle(agent))),
        adapts=bool(content.get("adapts", known_adapting(agent))),
        samples_first=bool(content.get("samples_first", samples_first(agent))),
        gradient_steps=_count(content, "gradient_steps"),
    )


def _against(content: Mapping[str, Any]) -> Against:
    chances = tuple(Interval.from_json(chance) for chance in content["probability_of_improvement"])
    return Against(str(content["run"]), _origin(content), chances)


def _count(content: Mapping[str, Any], name: str) -> int:
    return int(_number(content, name))


def _number(content: Mapping[str, Any], name: str) -> float:
    value = content.get(name, 0)
    return float(_checked(name, value, type(value) in (int, float) and 0 <= value < _HUGE, "a number of at least 0"))


def _text(content: Mapping[str, Any], name: str) -> str:
    return str(_checked(name, content[name], isinstance(content[name], str), "a text"))


def _flag(content: Mapping[str, Any], name: str) -> bool:
    return bool(_checked(name, content[name], isinstance(content[name], bool), "true or false"))


def _checked(name: str, value: Any, holds: bool, allowed: str) -> Any:
    if not holds:
        raise ValueError(f"{name} must be {allowed}, and is {value!r}")
    return value
