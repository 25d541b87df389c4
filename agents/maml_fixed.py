"""MAML's adaptation of one world by work of a fixed size: what an export can write out as plain operations.

`MamlPolicy` adapts the worlds that are due from the steps that there are. Here the step is always taken, from all the
rows that there is room for, and kept where it is due; recursions over time go by doubling, and the baseline's least
squares by elimination without a choice of pivots, as the matrix is symmetric and positive definite. All of it is in
float64: a gradient is a difference of large sums, and the adapted parameters are to be the same on every machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from metarl.core.types import Transition
from metarl.rl import baseline
from metarl.rl.inner_loop import Stage
from metarl.rl.objectives import gaussian_log_prob
from metarl.rl.state import select_rows

if TYPE_CHECKING:
    from metarl.agents.maml_policy import MamlPolicy, MamlState


class FixedMaml:
    """The policy with another `observe` and `end_episode`, which give the same results to rounding."""

    def __init__(self, policy: MamlPolicy) -> None:
        self._policy, self.info, self.noise_size = policy, policy.info, policy.noise_size
        self.initial_state, self.act, self.read_out = policy.initial_state, policy.act, policy.read_out

    def observe(self, state: MamlState, transition: Transition) -> MamlState:
        """See `MamlPolicy.observe`. Once adapted, what is written is what was there."""
        adapting, room = self._policy.adapting(state), state.reward.shape[1] - 1
        world, place = torch.arange(1), torch.where(adapting, state.num_steps.clamp(max=room), room)
        for rows, new in (
            (state.obs, transition.obs),
            (state.action, transition.action),
            (state.reward, transition.reward),
        ):
            mask = adapting.view(1, *[1] * (new.dim() - 1))
            rows[world, place] = torch.where(mask, new, rows[world, place])
        return state._replace(num_steps=(state.num_steps + adapting.long()).clamp(max=room))

    def end_episode(self, state: MamlState, worlds: Bool[Tensor, "1"]) -> MamlState:
        """See `MamlPolicy.end_episode`."""
        inner = self._policy.inner
        state, due = self._policy.ended(state, worlds)
        before, remembered = state.parameters[0].double(), state.memory[0].double()
        made = inner.step(inner.read().double(), before, remembered, _stage(self._policy, state, before))
        adapted, memory = (value.float() for value in made)
        finite = torch.isfinite(torch.cat((adapted, memory.flatten()))).to(adapted.dtype).amin() > 0.0
        adapted, memory = (
            torch.where(finite, adapted, state.parameters[0]),
            torch.where(finite, memory, state.memory[0]),
        )
        after = state._replace(
            parameters=adapted[None],
            memory=memory[None],
            num_adapted=state.num_adapted + 1,
            num_episodes=torch.zeros_like(state.num_episodes),
            num_steps=torch.zeros_like(state.num_steps),
            ended=torch.zeros_like(state.ended),
        )
        return select_rows(due, after, state)


def _stage(policy: MamlPolicy, state: MamlState, parameters: Float64[Tensor, "P"]) -> Stage:
    """What is remembered as a stage: see `rl.stages.make_stage`, whose padding and episodes are masks here."""
    config, room = policy.config, state.reward.shape[1] - 1
    obs, own = policy.obs_norm(state.obs[0, :room].double()), state.action[0, :room].double() * config.action_scale
    mean, log_std = policy.inner.policy(parameters, obs)
    log_prob = gaussian_log_prob(mean, log_std, own)

    kept = (torch.arange(room, device=obs.device) < state.num_steps).to(obs.dtype)
    goes_on = (~state.ended[0, :room]).to(obs.dtype)
    reward, discount = state.reward[0, :room].double() * kept, config.discount * goes_on
    returns = scan_back(discount, reward)
    before = torch.cat((torch.zeros_like(goes_on[:1]), goes_on[:-1]))
    inputs = baseline.features(obs, scan(before, before))
    value = (inputs @ fit(inputs, returns, kept)[:, None])[:, 0] * kept
    following = torch.cat((value[1:], torch.zeros_like(value[:1])))
    advantage = scan_back(discount * config.gae_lambda, reward + discount * following - value)
    weight = kept / kept.sum(dim=0, keepdim=True).clamp(min=1.0)
    mean_advantage = (weight * advantage).sum()
    spread = (weight * (advantage - mean_advantage).square()).sum().sqrt()
    return Stage(obs, own, log_prob, (advantage - mean_advantage) / (spread + 1e-8) * kept, weight)


def scan(rate: Float[Tensor, "T"], x: Float[Tensor, "T"]) -> Float[Tensor, "T"]:
    """y_t = x_t + rate_t y_{t−1}, by doubling."""
    stride = 1
    while stride < len(x):
        x = torch.cat((x[:stride], x[stride:] + rate[stride:] * x[:-stride]))
        rate = torch.cat((rate[:stride], rate[stride:] * rate[:-stride]))
        stride *= 2
    return x


def scan_back(rate: Float[Tensor, "T"], x: Float[Tensor, "T"]) -> Float[Tensor, "T"]:
    """y_t = x_t + rate_t y_{t+1}, by doubling."""
    stride = 1
    while stride < len(x):
        x = torch.cat((x[:-stride] + rate[:-stride] * x[stride:], x[-stride:]))
        rate = torch.cat((rate[:-stride] * rate[stride:], rate[-stride:]))
        stride *= 2
    return x


def fit(inputs: Float[Tensor, "B F"], target: Float[Tensor, "B"], weight: Float[Tensor, "B"]) -> Float[Tensor, "F"]:
    """`rl.baseline.fit` of one task, by its first ridge alone; zeros where that gives no finite numbers."""
    x, y, w = inputs.double(), target.double()[:, None], weight.double()[:, None]
    gram = (x * w).T @ x + baseline.RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
    solution = solved(torch.cat((gram, (x * w).T @ y), dim=1))
    return torch.nan_to_num(solution, nan=0.0, posinf=0.0, neginf=0.0).to(inputs.dtype)


def solved(system: Float64[Tensor, "F F1"]) -> Float64[Tensor, "F"]:
    """The solution x of A x = b from [A, b], by Gauss-Jordan elimination along the diagonal."""
    eye = torch.eye(len(system), dtype=system.dtype)
    for k in range(len(system)):
        row = system[k : k + 1] / system[k : k + 1, k : k + 1]
        system = system - (system[:, k : k + 1] - eye[:, k : k + 1]) * row
    return system[:, -1]
