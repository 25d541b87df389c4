"""A learner of your own: a transformer over the last steps of a trial, trained by REINFORCE (Williams 1992).

metarl check --agent examples/own_learner.py:Reinforce
metarl train examples/own_learner.py:Reinforce half-cheetah-dir --num-worlds 64 --total-steps 500_000
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from metarl.rl.learner import BaseLearner
from metarl.rl.policy import PolicyModule
from metarl.rl.state import load_module, load_optimizer, module_tensors, optimizer_tensors

WINDOW, WIDTH = 16, 32  # steps that it remembers, and numbers in which it thinks of each


@dataclass(frozen=True)
class Config:
    """Hyperparameters: options of `metarl train`."""

    learning_rate: float = 3e-4


class Seen(NamedTuple):
    """The adaptation state."""

    tokens: Tensor  # (N, WINDOW, O + A + 1): what was observed, and done and earned just before, oldest first
    last: Tensor  # (N, A + 1): the last action and its reward


class Transformer(PolicyModule):
    """A Gaussian about what a transformer makes of the window."""

    def __init__(self, info):
        super().__init__(info)
        self.size = info.observation_size + info.action_size + 1
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 2 * WIDTH, dropout=0.0, batch_first=True)
        last = nn.Linear(WINDOW * WIDTH, info.action_size)
        self.mean = nn.Sequential(nn.Linear(self.size, WIDTH), layer, nn.Flatten(), last)
        self.log_std = nn.Parameter(torch.full((info.action_size,), -0.5))

    def initial_state(self, n, device="cpu"):
        tokens = torch.zeros(n, WINDOW, self.size, device=device)
        return Seen(tokens, tokens.new_zeros(n, self.info.action_size + 1))

    @torch.no_grad()
    def act(self, obs, state, noise, deterministic=False):
        tokens = torch.cat((state.tokens[:, 1:], torch.cat((obs, state.last), dim=1)[:, None]), dim=1)
        return self.mean(tokens) + (not deterministic) * self.log_std.exp() * noise, Seen(tokens, state.last)

    def observe(self, state, transition):
        return Seen(state.tokens, torch.cat((transition.action, transition.reward[:, None]), dim=1))


class Reinforce(BaseLearner):
    """∇J = E[Σ_t ∇log π(a_t | window_t) (Σ_{s ≥ t} r_s − b_t)] over whole trials, b_t the mean over worlds."""

    Config = Config

    def __init__(self, config, info, generator, device="cpu"):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        self.policy = Transformer(info).to(device)
        self.names = list(dict(self.policy.named_parameters()))
        self.optimizer = torch.optim.Adam(self.policy.parameters(), config.learning_rate)

    def record(self, obs, state, noise, action, next_state):
        return {"window": next_state.tokens}

    def update(self, segment, generator, progress):
        advantage = segment.reward.flip(0).cumsum(0).flip(0)
        advantage -= advantage.mean(dim=1, keepdim=True)
        mean = self.policy.mean(segment.extras["window"].flatten(0, 1)).view_as(segment.action)
        log_prob = torch.distributions.Normal(mean, self.policy.log_std.exp()).log_prob(segment.action).sum(dim=2)
        loss = -(log_prob * advantage / (advantage.std() + 1e-6)).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": float(loss.detach())}

    def state_dict(self):
        return module_tensors(self.policy, "policy") | optimizer_tensors(self.optimizer, self.names, "adam")

    def load_state_dict(self, state):
        load_module(self.policy, state, "policy")
        load_optimizer(self.optimizer, self.names, state, "adam")
