"""The text of a report: numbers formatted for people, and captions that say what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

Content = Mapping[str, Any]


def number(value: int | float, signed: bool = False, digits: int | None = None) -> str:
    """Format a number with three significant digits, or as a whole number: `−21.4`, `1,652`."""
    text = f"{abs(value):,.{_digits(value) if digits is None else digits}f}"
    if float(text.replace(",", "")) == 0:
        return text
    return ("−" if value < 0 else "+" if signed else "") + text


def _digits(value: int | float) -> int:
    return 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2


def interval(point: Content, signed: bool = False) -> tuple[str, str]:
    """Format an estimate and its interval with the same number of digits."""
    digits = _digits(max(abs(point["low"]), abs(point["high"])))
    value, low, high = (number(point[key], signed, digits) for key in ("value", "low", "high"))
    return value, f"[{low}, {high}]"


def facts(content: Content) -> str:
    """Say in a sentence how much training is reported."""
    count, steps, seconds = (content["totals"][key] for key in ("runs", "steps", "seconds"))
    length = f"{seconds / 3600.0:.1f} hours" if seconds >= 3600.0 else f"{seconds / 60.0:.1f} minutes"
    total = f"{steps / 1e6:.3g} million" if steps >= 1e6 else f"{steps:,.0f}"
    return f"{'One training' if count == 1 else f'{count} trainings'}: {total} control steps, {length} in all."


def adaptation_caption(family: Content, split: str) -> str:
    """Say what each method gains from its first to its last episode."""
    parts = []
    for method in family["methods"]:
        for evaluation in method["evaluations"]:
            if evaluation["split"] == split and evaluation["episodes"] > 1:
                (first, _), (last, _) = interval(evaluation["iqm"][0]), interval(evaluation["iqm"][-1])
                actions = ", sampled actions" if evaluation["actions"] == "sampled" else ""
                words = (
                    f"{method['label']}{actions}: {first} in episode 1 and {last} in episode {evaluation['episodes']}"
                )
                if evaluation["gain"] is None:
                    parts.append(f"{words}, which were not played in the same way.")
                else:
                    gain, bounds = interval(evaluation["gain"], signed=True)
                    parts.append(f"{words}, {gain} {bounds} gained on the same task.")
    return " ".join(parts)


def learning_caption(family: Content) -> str:
    """Say which return each training reached at its end."""
    parts = []
    for method in family["methods"]:
        if method["learning"]:
            ends = [run["last"][-1] for run in method["learning"]["steps"]["runs"].values()]
            seeds = f"{len(ends)} seeds" if len(ends) > 1 else "one seed"
            reached = number(ends[0]) if len(ends) == 1 else f"{number(min(ends))} to {number(max(ends))}"
            parts.append(f"{method['label']}, {seeds}: {reached} at the end.")
    return " ".join(parts)


def parameter_caption(parameter: Content) -> str:
    """Say what the parameter is, its range in training, and the mean returns within and beyond it."""
    words = parameter["help"][:1].upper() + parameter["help"][1:]
    train, ood = parameter["train"], parameter["ood"]
    if parameter["categories"]:
        train = ", ".join(label for _, label, trained in parameter["categories"] if trained)
        ood = ", ".join(label for _, label, trained in parameter["categories"] if not trained) if ood else None
    if train:
        words += f"{'; ' if words else ''}trained on {train}" + (f", ood {ood}." if ood else ".")
    means: dict[str, list[str]] = {}
    for returns in parameter["returns"]:
        means.setdefault(returns["label"], []).append(f"{number(fmean(returns['last']))} on {returns['split']}")
    return " ".join([words, *(f"{label}: {', '.join(parts)}." for label, parts in means.items())]).strip()


def headroom_sentence(family: Content) -> str:
    """Say what knowing the task is worth on a family, and what is recovered of it."""
    found = family["headroom"]
    value, bounds = interval(found["headroom"]["value"], signed=True)
    words = f"{family['name']}: {found['oracle']} has {value} {bounds} on {found['memoryless']}, the headroom of a task"
    if found["headroom"]["value"]["low"] <= 0.0:
        return f"{words}: no headroom measured."
    share, limits = _percent(found["headroom"]["share"])
    parts = [f"{words}, {share} {limits} of the oracle's return."]
    for label, own in found["recovered"].items():
        share, limits = _percent(own["value"])
        seeds = (
            f" ({', '.join(f'{100 * one:.0f} %' for one in own['by_seed']).replace('-', '−')})"
            if len(own["by_seed"]) > 1
            else ""
        )
        parts.append(f"{label} recovers {share} {limits}{seeds}.")
    return " ".join(parts)


def _percent(point: Content) -> tuple[str, str]:
    value, low, high = (f"{100 * point[key]:.0f}".replace("-", "−") for key in ("value", "low", "high"))
    return f"{value} %", f"[{low}, {high}]"


def reward_caption(lines: Sequence[Content]) -> str:
    """Say which reward each method has at the begin and at the end of what is shown."""
    ends = [f"{one['label']}: {number(one['first'][0])}, then {number(one['first'][-1])}" for one in lines]
    seconds = lines[0]["seconds"][-1]
    return f"Reward of a step at the begin of the first episode, and {seconds:.1f} s on. {'; '.join(ends)}."


def recovery_caption(lines: Sequence[Content]) -> str:
    """Say how long each method takes to recover."""
    parts = [
        f"{one['label']}: {'not recovered' if one['to_recover'] is None else format(one['to_recover'], '.2g') + ' s'} "
        f"({one['onsets']} faults)"
        for one in lines
    ]
    return f"Time to recover 90 % of {lines[0]['of']}. {'; '.join(parts)}. Nothing is earned any more after a fall."


def error_caption(lines: Sequence[Content]) -> str:
    """Say how wrong each method's beliefs are at first and at last."""
    parts = [f"{one['label']}: {number(one['error'][0])} at first, {number(one['error'][-1])} at last" for one in lines]
    return f"Root mean square error over that of guessing the mean of all tasks. {'; '.join(parts)}."


def control_sentence(method: Content, evaluation: Content, control: Content) -> str:
    """Say what a control left of the return."""
    value, bounds = interval(control["return"])
    words = f"{method['label']}, {evaluation['split']} tasks, {control['label']}: {value} {bounds} in the last episode"
    if control["cost"] is None:
        return f"{words}."
    cost, limits = interval(control["cost"], signed=True)
    return f"{words}, which costs {cost} {limits}."


def comparison_sentence(family: Content, found: Content) -> str:
    """Say how likely one method returns more than another."""
    better, than, values = found["better"], found["than"], [found[key] for key in ("probability", "low", "high")]
    if values[0] < 0.5:
        better, than, values = than, better, [1 - values[0], 1 - values[2], 1 - values[1]]
    mixed = " (one acts by its mean, the other draws)" if len(found["actions"]) > 1 else ""
    chance, low, high = (f"{100 * value:.0f}" for value in values)
    return (
        f"{family['name']}: in the last episode of a test task {better} returns more than {than} with probability "
        f"{chance} % [{low}, {high}]{mixed}."
    )
