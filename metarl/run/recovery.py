"""What a fault in mid-episode costs, and how long it takes to recover from it; NumPy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64

SHARE = 0.9
"""Share of the earlier reward that counts as recovered."""
WINDOW = 0.5
"""Length of the running mean of the reward [s]."""
_BEFORE, _AFTER = 1.0, 6.0
"""What is kept of a trial around a fault's onset [s]."""


@dataclass(frozen=True, eq=False)
class Recovery:
    """Reward around the onset of a fault, a mean over all onsets in all worlds."""

    onset: int
    """Place of the fault's first step in `reward`."""
    reward: Float64[np.ndarray, "T"]
    """Reward per second at each control step; nothing is earned any more in an episode that has ended in a fall."""
    control_step: float
    """Length of a control step [s]."""
    num_onsets: int
    """Onsets that the mean is over."""

    def seconds(self, oracle: Recovery | None = None) -> float | None:
        """Time to recover 90 % of the reward before the fault, or of what an oracle reaches after it [s]."""
        level = None if oracle is None else reached(oracle.reward, oracle.onset)
        steps = time_to_recover(self.reward, self.onset, max(1, round(WINDOW / self.control_step)), level)
        return None if steps is None else steps * self.control_step

    def to_json(self) -> dict[str, Any]:
        """Plain data, with the time to recover."""
        return asdict(self) | {"reward": self.reward.tolist(), "seconds": self.seconds()}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Recovery:
        """Inverse of `to_json`."""
        reward = np.array(content["reward"], np.float64).reshape(-1)
        onset, num_onsets = int(content["onset"]), int(content["num_onsets"])
        if not (0 < onset < len(reward) and np.isfinite(reward).all()):
            raise ValueError("the reward around a fault must be finite numbers, with steps before it and after")
        return Recovery(onset, reward, float(content["control_step"]), num_onsets)


def pooled(seeds: Sequence[Recovery]) -> Recovery | None:
    """The mean of several seeds, on the same family; None of none."""
    if not seeds:
        return None
    reward = np.mean([seed.reward for seed in seeds], axis=0)
    return replace(seeds[0], reward=reward, num_onsets=sum(seed.num_onsets for seed in seeds))


def time_to_recover(
    reward: Float[np.ndarray, "T"], onset: int, window: int, level: float | None = None, share: float = SHARE
) -> int | None:
    """Control steps from a fault's onset until a running mean of the reward is back at 90 % of its level.

    F(t) is the mean reward of the `window` steps from t on, and the level is that of all steps before `onset`, or
    `level`, as an oracle's after the fault. Where F falls below 90 % of the level (0.1 |level| under it, where that is
    negative), it is the first t at or after the lowest F at which it is above again: what a fault costs may show only
    after a while. 0 where it never falls below, None where it does not recover.
    """
    level = float(reward[:onset].mean()) if level is None else level
    total = np.concatenate(([0.0], np.cumsum(reward[onset:], dtype=np.float64)))
    ahead = (total[window:] - total[:-window]) / window
    if len(ahead) < 1:
        raise ValueError(f"a window of {window} steps is longer than the {len(reward) - onset} after the fault")
    enough = ahead >= level - (1.0 - share) * abs(level) - 1e-9 * abs(level)
    if enough.all():
        return 0
    lowest = int(ahead.argmin())
    later = np.flatnonzero(enough[lowest:])
    return lowest + int(later[0]) if len(later) else None


def reached(reward: Float[np.ndarray, "T"], onset: int) -> float:
    """Level of the reward that is reached after a fault: its mean over the later half of the steps since."""
    return float(reward[onset + (len(reward) - onset) // 2 :].mean())


def around_onsets(
    reward: Float[np.ndarray, "T N"],
    fault: Bool[np.ndarray, "T N"],
    ended: Bool[np.ndarray, "T N"],
    control_step: float,
    episode_steps: int,
) -> Recovery | None:
    """Mean reward around all onsets of a fault: a step with the fault that follows one of the same episode without.

    `fault` is what was there before a step, and `ended` marks the last step of each episode. After it a world earns
    nothing more for that fault. Onsets too close to an episode's begin or time limit are left out, those close
    to a fall are not; None where none is left. At most half of an episode's time limit after the onset is kept.
    """
    before, after = (max(1, round(seconds / control_step)) for seconds in (_BEFORE, _AFTER))
    after = min(after, episode_steps // 2)
    rows = []
    for world in range(reward.shape[1]):
        starts = np.concatenate(([0], np.flatnonzero(ended[:, world]) + 1))
        for start, stop in zip(starts, np.append(starts[1:], len(reward)), strict=True):
            on = fault[start:stop, world]
            first = np.flatnonzero(on[1:] & ~on[:-1])
            onset = start + 1 + int(first[0]) if len(first) else -1
            if onset - before < start or onset + after > min(len(reward), start + episode_steps):
                continue
            row = np.zeros(before + after)
            end = min(stop, onset + after)
            row[: before + end - onset] = reward[onset - before : end, world]
            rows.append(row)
    if not rows:
        return None
    return Recovery(before, np.mean(rows, axis=0) / control_step, control_step, len(rows))
