"""Soft actor-critic without memory (Haarnoja et al. 2018, arXiv:1812.05905), Stable-Baselines3's, over all tasks.

The off-policy counterpart of `ppo`: domain randomisation that needs fewer steps and more gradient steps. Networks,
replay buffer, losses and gradient steps are SB3's. A time limit is no end of the world, a fall is; steps in which the
physics diverged are not learnt from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import stable_baselines3
import torch
from jaxtyping import Float32
from stable_baselines3.sac.policies import Actor
from torch import Tensor

from metarl.agents.baseline_configs import SACConfig
from metarl.agents.sb3 import build, guard, optimizers, update
from metarl.core.info import PolicyInfo
from metarl.core.types import Metrics, Segment
from metarl.rl.learner import BaseLearner
from metarl.rl.policy import NoState, PolicyModule
from metarl.rl.scripted import RandomPolicy
from metarl.rl.state import part_of, renamed

_COLUMNS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
_FIRST_TEMPERATURE = 0.2


class SACPolicy(PolicyModule):
    """SB3's actor."""

    def __init__(self, network: Actor, info: PolicyInfo) -> None:
        super().__init__(replace(info, adapts=False))
        self.network = network

    @torch.no_grad()
    def act(
        self, obs: Float32[Tensor, "N O"], state: NoState, noise: Float32[Tensor, "N A"], deterministic: bool = False
    ) -> tuple[Float32[Tensor, "N A"], NoState]:
        """Sample the squashed Gaussian, or take tanh of its mean."""
        mean, log_std, _ = self.network.get_action_dist_params(obs)
        if not deterministic:
            mean = mean + log_std.exp() * noise
        return torch.tanh(mean), state


class SAC(BaseLearner):
    """SB3's SAC, fed by metarl's collector."""

    policy: SACPolicy

    def __init__(
        self, config: SACConfig, info: PolicyInfo, generator: torch.Generator, device: torch.device | str = "cpu"
    ) -> None:
        self.config = config
        model = stable_baselines3.SAC(
            "MlpPolicy",
            None,
            learning_rate=config.learning_rate,
            buffer_size=config.replay_size,
            tau=config.target_rate,
            gamma=config.discount,
            ent_coef=config.temperature or f"auto_{_FIRST_TEMPERATURE}",
            target_entropy=-float(info.action_size),
            policy_kwargs={"net_arch": [config.hidden_size] * 2},
            device=str(device),
            _init_setup_model=False,
        )
        self.model = build(model, info.observation_size, info.action_size, generator)
        self.policy = SACPolicy(self.model.actor, info)
        self._exploration = RandomPolicy(info)  # what fills the buffer at first, as in SB3
        self._steps = torch.zeros((), dtype=torch.long)
        self._guards = guard(self.model)

    @property
    def behaviour(self) -> PolicyModule:
        """Uniformly random at first."""
        return self._exploration if int(self._steps) < self.config.initial_steps else self.policy

    def update(self, segment: Segment, generator: torch.Generator, progress: float) -> Metrics:
        """Put whole trials into the buffer, then `num_updates` gradient steps once it is filled."""
        config, model = self.config, self.model
        self.store(segment)
        if int(self._steps) < config.initial_steps or not model.replay_buffer.size():  # type: ignore[union-attr]
            return {}
        train = partial(model.train, config.num_updates, config.batch_size)
        return update(model, train, generator, self._guards)

    def store(self, segment: Segment) -> None:
        """Put a trial into SB3's buffer, step by step and world by world, as its `_store_transition` does.

        A step that ended an episode leads to that episode's last observation, not to the next one's first.
        """
        buffer = self.model.replay_buffer
        assert buffer is not None
        healthy = ~segment.diverged
        fields = (segment.obs, segment.final_obs, segment.action, segment.reward, segment.ended)
        rows = [field[healthy].cpu().numpy() for field in fields]
        timeouts = segment.truncated[healthy].tolist()
        for obs, final_obs, action, reward, ended, timeout in zip(*rows, timeouts, strict=True):
            buffer.add(obs, final_obs, action, reward, ended, [{"TimeLimit.truncated": timeout}])
        self._steps += segment.reward.numel()

    # ------------------------------------------------------------------------------------------------------ the state

    def remarks(self, total_steps: int) -> list[str]:
        """What the buffer takes, and what checkpoints do."""
        buffer = self.model.replay_buffer
        memory = sum(getattr(buffer, name).nbytes for name in _COLUMNS) / 2**20
        refilled = f"leave it out: a resumed run first fills it anew for {self.config.initial_steps:,} steps"
        saved = "hold what of it is filled" if self.config.save_buffer else refilled
        return [f"the buffer takes up to {memory:,.0f} MiB; checkpoints {saved}"]

    def modules(self) -> Mapping[str, torch.nn.Module]:
        """Actor, critics and target critics."""
        return {"policy": self.policy, "critic": self.model.critic, "target": self.model.critic_target}

    def optimizers(self) -> Mapping[str, tuple[torch.optim.Optimizer, Sequence[str]]]:
        """SB3's."""
        names = {
            name: [parameter for parameter, _ in getattr(self.model, name).named_parameters()]
            for name in ("actor", "critic")
        } | {"temperature": ["log_temperature"]}
        return {f"adam/{name}": (optimizer, names[name]) for name, optimizer in optimizers(self.model).items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Networks, temperature, optimisers; with `save_buffer` the buffer, and how far its filling got."""
        state = super().state_dict()
        if self.model.log_ent_coef is not None:
            state["log_temperature"] = self.model.log_ent_coef.detach().cpu().clone()
        return state | (self._buffer_state() if self.config.save_buffer else {})

    def _buffer_state(self) -> dict[str, Tensor]:
        buffer = self.model.replay_buffer
        assert buffer is not None
        columns = {name: torch.from_numpy(getattr(buffer, name)[: buffer.size(), 0].copy()) for name in _COLUMNS}
        place = torch.tensor((buffer.pos, int(buffer.full)))
        return {f"replay/{name}": value for name, value in columns.items()} | {
            "replay/place": place,
            "steps": self._steps.clone(),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state_dict`; reads what version 0.1 wrote, too."""
        state = renamed(state)
        expected = ["log_temperature"] if self.model.log_ent_coef is not None else []
        expected += ["steps", "replay/place", *(f"replay/{name}" for name in _COLUMNS)] * self.config.save_buffer
        missing = [name for name in expected if name not in state]
        if missing:
            raise ValueError(f"tensors are missing: {', '.join(missing)}")
        if self.model.log_ent_coef is not None:
            self.model.log_ent_coef.data.copy_(state["log_temperature"])
        super().load_state_dict(state)
        if self.config.save_buffer:
            self._load_buffer(part_of(state, "replay/"))
            self._steps = state["steps"].clone()

    def _load_buffer(self, columns: Mapping[str, Tensor]) -> None:
        buffer = self.model.replay_buffer
        assert buffer is not None
        for name in _COLUMNS:
            own, saved = getattr(buffer, name), columns[name].numpy()
            if saved.shape[1:] != own[:, 0].shape[1:] or len(saved) > len(own):
                raise ValueError(f"size mismatch for the replay buffer's {name}: {saved.shape}")
            own[: len(saved), 0] = saved
        position, full = columns["place"].tolist()
        buffer.pos, buffer.full = position, bool(full)
