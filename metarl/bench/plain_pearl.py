"""A gradient step of PEARL as one would write it first, and as it was published: separate critics and a value network.

What `metarl bench` compares the learner with: buffers as a list of arrays, a Python loop over tasks to draw from them
and to multiply their Gaussians, a target value network, and every loss back-propagated through all it touches.
"""

from __future__ import annotations

import copy
import math
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from metarl.agents.configs import PearlConfig

_RATE = 0.005


def _net(inputs: int, hidden: int, layers: int, outputs: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [nn.Linear(inputs, hidden), nn.ReLU()]
        inputs = hidden
    return nn.Sequential(*parts, nn.Linear(hidden, outputs))


class PlainPearl:
    """Networks, optimisers, and a full buffer of each task: rows of observation, action, reward, next, terminated."""

    def __init__(self, config: PearlConfig, obs_size: int, action_size: int, buffers: list[np.ndarray]) -> None:
        self.config, self.obs_size, self.action_size, self.buffers = config, obs_size, action_size, buffers
        latent, hidden, layers = config.latent_size, config.hidden_size, config.hidden_layers
        self.encoder = _net(obs_size + action_size + 1, config.encoder_size, config.encoder_layers, 2 * latent)
        self.policy = _net(obs_size + latent, hidden, layers, 2 * action_size)
        self.critics = [_net(obs_size + action_size + latent, hidden, layers, 1) for _ in range(2)]
        self.value = _net(obs_size + latent, hidden, layers, 1)
        self.target = copy.deepcopy(self.value)
        trained = (self.encoder, *self.critics, self.value, self.policy)
        self.optimizers = [torch.optim.Adam(net.parameters(), lr=config.learning_rate) for net in trained]
        self.rng = np.random.default_rng(0)

    def step(self) -> None:
        """One gradient step."""
        config, count = self.config, self.config.meta_batch
        tasks: list[int] = self.rng.choice(len(self.buffers), count).tolist()
        context = torch.stack([self._draw(task, config.context_size) for task in tasks])
        rows = torch.stack([self._draw(task, config.batch_size) for task in tasks]).view(count * config.batch_size, -1)
        o, a = self.obs_size, self.action_size
        obs, action, reward = rows[:, :o], rows[:, o : o + a], rows[:, o + a : o + a + 1]
        following, terminated = rows[:, o + a + 1 : -1], rows[:, -1:]
        mean, variance = self._posterior(context[..., : o + a + 1])
        z = mean + variance.sqrt() * torch.randn_like(mean)
        z = torch.cat([row.repeat(config.batch_size, 1) for row in z])
        seen = torch.cat((obs, z.detach()), dim=1)
        drawn, log_prob = self._act(seen)

        for optimizer in self.optimizers:
            optimizer.zero_grad()
        kl = 0.5 * (variance + mean**2 - 1.0 - variance.log()).sum(dim=1).mean()
        torch.autograd.backward(config.kl_weight * kl, retain_graph=True)
        with torch.no_grad():
            later = self.target(torch.cat((following, z), dim=1))
            goal = config.reward_scale * reward + (1.0 - terminated) * config.discount * later
        errors = [critic(torch.cat((obs, action, z), dim=1)) - goal for critic in self.critics]
        torch.autograd.backward((errors[0] ** 2).mean() + (errors[1] ** 2).mean())
        for optimizer in self.optimizers[:3]:
            optimizer.step()

        tried = torch.cat((obs, drawn, z.detach()), dim=1)
        lower = torch.min(self.critics[0](tried), self.critics[1](tried))
        value_loss = ((self.value(seen) - (lower - log_prob).detach()) ** 2).mean()
        torch.autograd.backward(value_loss)
        self.optimizers[3].step()
        for slow, fast in zip(self.target.parameters(), self.value.parameters(), strict=True):
            slow.data.mul_(1.0 - _RATE).add_(_RATE * fast.data)
        torch.autograd.backward((log_prob - lower).mean())
        self.optimizers[4].step()

    def _draw(self, task: int, count: int) -> Tensor:
        buffer = self.buffers[task]
        return torch.from_numpy(buffer[self.rng.integers(0, len(buffer), count)])

    def _posterior(self, context: Tensor) -> tuple[Tensor, Tensor]:
        means, variances = [], []
        for task in self.encoder(context):
            mean, raw = task.chunk(2, dim=1)
            squared = softplus(raw).clamp(min=1e-7)
            variance = 1.0 / (1.0 / squared).sum(dim=0)
            means.append(variance * (mean / squared).sum(dim=0))
            variances.append(variance)
        return torch.stack(means), torch.stack(variances)

    def _act(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = cast(Tensor, self.policy(seen)).chunk(2, dim=1)
        log_std = log_std.clamp(-20.0, 2.0)
        noise = torch.randn_like(mean)
        action = torch.tanh(mean + log_std.exp() * noise)
        density = -0.5 * noise**2 - log_std - 0.5 * math.log(2.0 * math.pi)
        return action, (density - (1.0 - action**2 + 1e-6).log()).sum(dim=1, keepdim=True)
