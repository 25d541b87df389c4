"""Numbers and intervals as the tables have them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metarl.run.statistics import Interval


def as_number(value: float, largest: float, sign: str = "") -> str:
    """Small returns have a decimal."""
    return f"{value:{sign}.{1 if largest < 20 else 0}f}".replace("-", "−")


def as_rounded(value: float) -> str:
    """With two digits that tell: `0.25`, `200`."""
    return f"{float(f'{value:.2g}'):g}"


def as_mean(seeds: Sequence[float]) -> str:
    """Mean of the seeds' means."""
    value = float(np.mean(seeds))
    return as_number(value, abs(value))


def as_interval(interval: Interval, sign: str = "") -> str:
    """`12 [10, 14]`."""
    value, low, high = (as_number(each, max(map(abs, interval)), sign) for each in interval)
    return f"{value} [{low}, {high}]"


def as_percent(share: float) -> str:
    """`25 %`."""
    return f"{100 * share:.0f} %".replace("-", "−")


def as_share(interval: Interval) -> str:
    """`25 % [20, 30]`."""
    value, low, high = (f"{100 * each:.0f}".replace("-", "−") for each in interval)
    return f"{value} % [{low}, {high}]"
