"""The words of a report: numbers as people read them, and captions that say what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Content = Mapping[str, Any]


def number(value: int | float, signed: bool = False, digits: int | None = None) -> str:
    """Three significant digits or whole numbers, with a proper minus: `−21.4`, `1,652`."""
    if digits is None:
        digits = _digits(value)
    text = f"{abs(value):,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        return text
    return ("−" if value < 0 else "+" if signed else "") + text


def _digits(value: int | float) -> int:
    size = abs(value)
    return 0 if size >= 100 else 1 if size >= 10 else 2


def interval(point: Content, signed: bool = False) -> tuple[str, str]:
    """An estimate and its interval, all to the same digit."""
    digits = _digits(max(abs(point["low"]), abs(point["high"])))
    value, low, high = (number(point[key], signed, digits) for key in ("value", "low", "high"))
    return value, f"[{low}, {high}]"


def facts(content: Content) -> str:
    """The size of what is reported, in a sentence."""
    totals = content["totals"]
    hours = totals["seconds"] / 3600.0
    length = f"{hours:.1f} hours" if hours >= 1 else f"{totals['seconds'] / 60.0:.1f} minutes"
    runs = "One training" if totals["runs"] == 1 else f"{totals['runs']} trainings"
    return f"{runs}: {_count(totals['steps'])} control steps, {length} in all."


def _count(value: int | float) -> str:
    return f"{value / 1e6:.3g} million" if value >= 1e6 else f"{value:,.0f}"


def adaptation_caption(family: Content, split: str) -> str:
    """What each method gains from its first to its last episode."""
    parts = []
    for method in family["methods"]:
        for evaluation in method["evaluations"]:
            if evaluation["split"] != split or evaluation["episodes"] < 2:
                continue
            (first, _), (last, _) = interval(evaluation["iqm"][0]), interval(evaluation["iqm"][-1])
            gain, bounds = interval(evaluation["gain"], signed=True)
            actions = ", sampled actions" if evaluation["actions"] == "sampled" else ""
            parts.append(
                f"{method['label']}{actions}: {first} in episode 1 and {last} in episode {evaluation['episodes']}, "
                f"a difference of {gain} {bounds} on the same task."
            )
    return " ".join(parts)


def learning_caption(family: Content) -> str:
    """Where each training ended, and after how much."""
    parts = []
    for method in family["methods"]:
        curve = method["learning"].get("steps")
        if curve:
            seeds = f"{len(curve['runs'])} seeds" if len(curve["runs"]) > 1 else "one seed"
            ends = [run["last"][-1] for run in curve["runs"].values()]
            reached = number(ends[0]) if len(ends) == 1 else f"{number(min(ends))} to {number(max(ends))}"
            parts.append(f"{method['label']}, {seeds}: {reached} at the end.")
    return " ".join(parts)


def parameter_caption(parameter: Content) -> str:
    """What the parameter is and what it was in training, and how far the returns reach beyond."""
    words = parameter["help"][:1].upper() + parameter["help"][1:]
    train, ood = parameter["train"], parameter["ood"]
    if parameter["categories"]:
        train, others = (
            ", ".join(label for _, label, trained in parameter["categories"] if trained == wanted)
            for wanted in (True, False)
        )
        ood = others if ood else None
    if train:
        words += f"{'; ' if words else ''}trained on {train}" + (f", ood {ood}." if ood else ".")
    for label in dict.fromkeys(returns["label"] for returns in parameter["returns"]):
        means = {
            returns["split"]: sum(returns["last"]) / len(returns["last"])
            for returns in parameter["returns"]
            if returns["label"] == label
        }
        words += f" {label}: " + ", ".join(f"{number(mean)} on {split}" for split, mean in means.items()) + "."
    return str(words).strip()


def comparison_sentence(family: Content, found: Content) -> str:
    """How likely one method returns more than another."""
    better, than, values = found["better"], found["than"], {k: found[k] for k in ("probability", "low", "high")}
    if values["probability"] < 0.5:
        better, than = than, better
        values = {"probability": 1 - found["probability"], "low": 1 - found["high"], "high": 1 - found["low"]}
    mixed = " (one acts by its mean, the other draws)" if len(found["actions"]) > 1 else ""
    chance, low, high = (f"{100 * values[key]:.0f}" for key in ("probability", "low", "high"))
    return (
        f"{family['name']}: in the last episode of a test task {better} returns more than {than} with probability "
        f"{chance} % [{low}, {high}]{mixed}."
    )
