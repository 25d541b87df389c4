"""Every operation of the table, in torch, NumPy, C and onnxruntime: one policy that uses them all."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, softplus

from metarl.core.registry import make_family
from metarl.export.bundle import runtimes_of
from metarl.export.parity import TOLERANCE, compare
from metarl.export.runtime import OPERATIONS
from metarl.export.trace import traced
from metarl.rl.policy import PolicyModule
from metarl.sim.make import make_env


class Kinds(NamedTuple):
    """A tensor of each kind of number."""

    count: Tensor
    flag: Tensor
    table: Tensor


class Everything(PolicyModule):
    """Does each thing that a program can, and keeps the results."""

    def initial_state(self, n, device="cpu"):
        return Kinds(
            torch.zeros(n, dtype=torch.long), torch.ones(n, dtype=torch.bool), torch.arange(24.0).view(n, 6, 4)
        )

    def act(self, obs, state, noise, deterministic=False):
        x, y = obs[:, :4] / 3.0, obs[:, 4:8] / 3.0
        size, place = x.abs() + 0.5, state.count % 4
        alike = (x == y) | ((x != y) & ~(x < y)), x <= y, x > y, x >= y
        rows = [
            *(x + y, x - y, x * y, x / (y.abs() + 1.0), -x, x.abs(), x.clamp(max=1.0).exp(), size.log(), size.sqrt()),
            *(size.rsqrt(), size.reciprocal(), x.tanh(), x.sigmoid(), x.relu(), softplus(x), x.sin(), x.cos()),
            *(torch.erf(x), x.floor(), gelu(x), torch.maximum(x, y), torch.minimum(x, y), x.clamp(-0.5, 0.5)),
            *(torch.where(x > y, x, 2.0 * y), *(mask.float() for mask in alike), x.softmax(1), x.cumsum(1)),
            *(x.sum(1, keepdim=True).expand(1, 4), x.mean(1, keepdim=True) - y, x.amax(1)[:, None] + y),
            *(x.amin(1, keepdim=True) * y, x.gather(1, place[:, None].expand(1, 4)), x.double().square().float()),
            *(
                state.table[0].index_select(0, state.count.clamp(max=5)),
                (x.T @ y)[1:2],
                torch.cat((x[:, ::2], y[:, 1::2]), dim=1),
            ),
        ]
        table = state.table.scatter(1, place[:, None, None].expand(1, 1, 4), x[:, None])
        mixed = torch.cat((*rows, torch.zeros(1, 20)), dim=1) @ torch.linspace(-0.1, 0.1, 4 * len(rows) + 20)[:, None]
        action = torch.tanh(mixed) * torch.ones(1, self.info.action_size)
        return action, Kinds(state.count + 1, ~state.flag, 0.9 * table + 0.1 * torch.cat(rows[:6]))


def test_every_operation_is_the_same_everywhere(tmp_path):
    with make_env(make_family("hopper-params"), 1, episodes_per_trial=2, episode_steps=30, threads=1) as env:
        policy = Everything(env.info)
        written = traced(policy)
        used = {one.op for program in written.programs.values() for one in program.operations}
        assert used == set(OPERATIONS)
        runtimes, _ = runtimes_of(tmp_path, written)
        _, parity = compare(policy, env, runtimes, steps=70)
    for name, one in parity.items():
        assert max(one.action, one.state) <= TOLERANCE, name
