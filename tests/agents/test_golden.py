"""Policies that come with metarl act as they did in version 0.1, which recorded their trials."""

from pathlib import Path

import numpy as np
import pytest
import torch

from metarl.core.types import Transition
from metarl.run.subject import trained

FILES = sorted((Path(__file__).parents[1] / "golden" / "pretrained").glob("*.npz"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_mean_actions_from_the_same_observations_and_rewards_are_the_recorded_ones(path):
    """Within 1e-5, where nothing was sampled: not MAML's before it adapted, and not PEARL's, which sampled its z."""
    rows = {name: torch.from_numpy(value) for name, value in np.load(path).items()}
    policy = trained(Path(f"pretrained:{path.stem}")).policy
    state, last, ends, compared = policy.initial_state(1), None, iter(rows["ended_obs"]), 0
    for t, obs in enumerate(rows["obs"]):
        noise = torch.zeros(1, policy.noise_size)
        action, state = policy.act(obs[None], state, noise, True)
        sampled = policy.info.samples_first and not bool(state.num_adapted.all())
        if not sampled and "pearl" not in path.stem:
            torch.testing.assert_close(action[0], rows["action"][t], rtol=0, atol=1e-5)
            compared += 1
        over = t + 1 == len(rows["obs"])
        last = rows["last_final"] if over else next(ends) if rows["ended"][t] else rows["obs"][t + 1]
        now = (rows[name][t][None] for name in ("action", "reward"))
        state = policy.observe(state, Transition(obs[None], *now, last[None], rows["terminated"][t][None]))
        if rows["ended"][t] and not over:
            state = policy.end_episode(state, torch.tensor([True]))
    assert compared > 0 or "pearl" in path.stem
    if "memory" in rows:
        torch.testing.assert_close(torch.cat((state.memory, state.cell), dim=1), rows["memory"], rtol=0, atol=1e-5)
