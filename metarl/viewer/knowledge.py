"""What is told of a robot that adapts: figures made of what a player remembers of the trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from metarl.core.info import Part, PolicyInfo
from metarl.core.tasks import Parameter, TaskSpace
from metarl.rl.policy import BAND
from metarl.run.statistics import Interval
from metarl.sim.task_code import decoder, trained_range
from metarl.viewer.charts import BLUE, COLORS, GREEN, ORANGE, Line, bars, chances, chart, trail
from metarl.viewer.player import Instant

_BAND = 1.6448536  # standard deviations: a 90 % interval of a Gaussian
_SHARE_OF_PLOT = 400  # steps of the past that a plot shows
_SHOWN = 300  # states of the past that are shown as points
_SAMPLE = 64  # rows by which a plane is chosen
_FEW = 12  # numbers that are drawn as lines of their own; of more a few


class Told(NamedTuple):
    """What the figures are made of: one world of a trial so far."""

    past: Sequence[Instant]
    world: int
    info: PolicyInfo
    """Of the worlds: what the privileged numbers are."""
    space: TaskSpace
    returns: Sequence[float]
    """Of the trial's episodes that ended."""
    expected: Sequence[Interval]
    """Returns per episode of the policy's evaluation; empty where it was not evaluated."""


def of_the_present(told: Told) -> Told:
    """Only what happened since the policy that acts now took over."""
    past = told.past
    return told._replace(past=[one for one in past if one.policies == past[-1].policies])


def _row(told: Told, get: Callable[[Instant], np.ndarray]) -> np.ndarray:
    return np.array([get(instant)[told.world] for instant in told.past])


def _time(told: Told) -> Float[np.ndarray, "T"]:
    return np.array([instant.time for instant in told.past])


# ------------------------------------------------------------------------------------------------------ the returns


def returns(told: Told) -> str:
    """The return of each episode of the trial, beside what the evaluation measured."""
    if not told.past:
        return ""
    done, now = list(told.returns), float(told.past[-1].total[told.world])
    if told.past[-1].episode[told.world] >= len(done):
        done.append(now)
    scale = [abs(point.value) for point in told.expected] + [abs(value) for value in done]
    rows: list[tuple[str, float, str]] = []
    for number in range(max(len(done), len(told.expected)) if len(done) <= 8 else len(done))[-8:]:
        if number < len(done):
            last = number == len(done) - 1
            rows.append((f"episode {number + 1}" + (", so far" if last else ""), done[number], BLUE))
        if number < len(told.expected):
            point = told.expected[number]
            half = (point.high - point.low) / 2
            rows.append((f"   evaluation ±{half:.3g}", point.value, "#b9c2cb"))
    return bars(
        rows,
        title="return of the episode",
        note="beside the mean over held-out tasks" if told.expected else "",
        full=max(scale),
    )


def reward_terms(told: Told) -> str:
    """Mean of each of the reward's terms over the last second."""
    recent = _recent(told, 1.0)
    if not recent:
        return ""
    means = {name: float(np.mean([one.terms[name][told.world] for one in recent])) for name in recent[-1].terms}
    rows = [(name, value, GREEN if value >= 0 else ORANGE) for name, value in means.items()]
    return bars(rows, title="reward, term by term", note="per step, mean of 1 s", full=0.1)


def _recent(told: Told, seconds: float) -> list[Instant]:
    if not told.past:
        return []
    since = told.past[-1].time - seconds
    return [one for one in list(told.past)[-200:] if one.time > since]


# -------------------------------------------------------------------------------------------------------- the task


def knowledge(told: Told) -> list[str]:
    """What the policy says of its task: a band for each number, or whatever can be read out of its state."""
    if not told.past:
        return []
    if told.past[-1].mean is not None:
        return _beliefs(told)
    figures = []
    for name, value in told.past[-1].reading.items():
        if name.endswith(BAND) or (value.shape[1] > 4 * _FEW and told.past[-1].memory is not None):
            continue
        rows = _row(told, lambda one, name=name: one.reading[name])  # type: ignore[misc]
        deviation = name + BAND
        known = deviation in told.past[-1].reading
        bands = _row(told, lambda one, name=deviation: one.reading[name]) if known else None  # type: ignore[misc]
        figures.append(_numbers(_time(told), rows, bands, name))
    return figures


def _numbers(x: np.ndarray, rows: np.ndarray, bands: np.ndarray | None, name: str) -> str:
    spread = rows.std(axis=0)
    chosen = sorted(np.argsort(-spread, kind="stable")[:6].tolist())
    lines = [
        Line(
            rows[:, i],
            COLORS[place % len(COLORS)],
            low=None if bands is None else rows[:, i] - bands[:, i],
            high=None if bands is None else rows[:, i] + bands[:, i],
        )
        for place, i in enumerate(chosen)
    ]
    note = f"{len(chosen)} of {rows.shape[1]} numbers" if rows.shape[1] > len(chosen) else ""
    return chart(x, lines, title=f"what it keeps of the trial: {name}", note=note)


def _beliefs(told: Told) -> list[str]:
    x, truth = _time(told), _row(told, lambda one: one.truth)
    mean = _row(told, lambda one: one.mean)  # type: ignore[arg-type,return-value]
    deviation = _row(told, lambda one: one.deviation)  # type: ignore[arg-type,return-value]
    figures, first = [], 0
    for part in told.info.privileged:
        here = slice(first, first + part.size)
        parameter = told.space.parameters.get(part.name.removeprefix("present_"))
        figures.append(_belief(x, part, parameter, truth[:, here], mean[:, here], deviation[:, here]))
        first += part.size
    return figures


def _belief(
    x: np.ndarray, part: Part, parameter: Parameter | None, truth: np.ndarray, mean: np.ndarray, deviation: np.ndarray
) -> str:
    if part.size > 1 and parameter is not None and parameter.labels:
        true = truth[-1].argmax() if truth[-1].max() > 0.5 else -1
        rows = [(name, float(mean[-1, i]), i == true) for i, name in enumerate(part.elements)]
        rows = sorted(rows, key=lambda row: (not row[2], -row[1]))[:6] if len(rows) > 8 else rows
        return chances(rows, title=f"{part.name}: what it believes", note="▸ is true")
    back = decoder(parameter)
    low, high = back(mean - _BAND * deviation), back(mean + _BAND * deviation)
    truth, mean = back(truth), back(mean)
    lines = []
    for i in range(min(part.size, 4)):
        color = BLUE if part.size == 1 else COLORS[i]
        lines.append(Line(mean[:, i], color, low=low[:, i], high=high[:, i]))
        lines.append(Line(truth[:, i], GREEN if part.size == 1 else color, dashed=True, width=1.8))
    unit = f" [{parameter.unit}]" if parameter is not None and parameter.unit != "1" else ""
    trained = trained_range(parameter)
    return chart(
        x,
        lines,
        title=f"{part.name}{unit}: belief, 90 % band",
        note="dashed: the truth · grey: trained range" if trained else "dashed: the truth",
        least=trained,
        zones=[trained] if trained else [],
    )


# ------------------------------------------------------------------------------------------------------- its state


def state_plane(told: Told) -> str:
    """The adaptation state in the plane of its two widest directions in this trial, a colour for each episode."""
    if not told.past or told.past[-1].memory is None:
        return ""
    past = list(told.past)
    shown = told._replace(past=[*past[: -1 : -(-len(past) // _SHOWN)], past[-1]])
    rows = _row(shown, lambda one: one.memory)  # type: ignore[arg-type,return-value]
    number = rows.shape[1]
    return trail(
        plane(rows),
        [int(one.episode[told.world]) for one in shown.past],
        title="its adaptation state, as a point",
        note=f"{number} numbers on two axes · a colour per episode",
    )


def plane(rows: Float[np.ndarray, "T D"]) -> Float[np.ndarray, "T 2"]:
    """Rows on their two principal components; each axis points where its largest coefficient is positive.

    The axes are those of a sample of the rows: an adaptation state may have thousands of numbers. By torch, whose
    products stay on this thread: NumPy's take every core for a matrix of this size, and ten times its time.
    """
    centred = torch.from_numpy(rows - rows.mean(axis=0)).double()
    if len(rows) < 3 or rows.shape[1] < 2:
        return np.pad(centred[:, :2].numpy(), ((0, 0), (0, max(0, 2 - centred.shape[1]))))
    sample = centred[:: -(-len(rows) // _SAMPLE)]
    axes = torch.nn.functional.normalize(sample.T @ torch.linalg.eigh(sample @ sample.T)[1][:, -2:].flip(1), dim=0)
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    found: np.ndarray = (centred @ (axes * largest.sign())).numpy()
    return found


# --------------------------------------------------------------------------------------------- velocity and sensors


def velocities(told: Told) -> list[str]:
    """Commanded and actual speed and turn rate over the last seconds."""
    recent = told._replace(past=list(told.past)[-_SHARE_OF_PLOT:])
    if not recent.past:
        return []
    x, wanted, actual = _time(recent), _row(recent, lambda one: one.wanted), _row(recent, lambda one: one.actual)
    figures = []
    for i, title in enumerate(("speed along the wanted direction [m/s]", "turn rate [rad/s]")):
        if i == 1 and not np.isfinite(wanted[:, i]).any():
            continue
        lines = [Line(actual[:, i], BLUE)]
        if np.isfinite(wanted[:, i]).any():
            lines.append(Line(wanted[:, i], GREEN, dashed=True, width=1.8))
        figures.append(
            chart(x, lines, title=title, note="dashed: asked for" if len(lines) > 1 else "", least=(0.0, 0.1))
        )
    return figures


def sensors(told: Told, parts: Sequence[Part], name: str) -> str:
    """One part of the observation over the last seconds."""
    recent = told._replace(past=list(told.past)[-_SHARE_OF_PLOT:])
    first = 0
    for part in parts:
        if part.name == name and recent.past:
            rows = _row(recent, lambda one: one.obs)[:, first : first + part.size]
            chosen = list(range(min(part.size, _FEW)))
            lines = [Line(rows[:, i], COLORS[i % len(COLORS)], width=1.1) for i in chosen]
            unit = f" [{part.unit}]" if part.unit != "1" else ""
            return chart(_time(recent), lines, title=f"{part.name}{unit}", note=part.help)
        first += part.size
    return ""
