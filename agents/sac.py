"""Soft actor-critic without memory (Haarnoja et al. 2018, arXiv:1812.05905), Stable-Baselines3's, over all tasks.

The off-policy counterpart of `ppo`: domain randomisation that needs fewer steps and more gradient steps. Networks,
replay buffer, losses and gradient steps are SB3's. A time limit is no end of the world, a fall is; steps in which the
physics diverged are not learnt from.
"""

from __future__ import annotations

from collections.abc import Mapping

import stable_baselines3
import torch
from jaxtyping import Float32
from stable_baselines3.sac.policies import Actor
from torch import Tensor

from metarl.agents.baseline_configs import SACConfig
from metarl.agents.sb3 import MemorylessPolicy, build, update
from metarl.core.types import Metrics, Rollout
from metarl.rl.learner import Collect
from metarl.rl.state import load_module, load_optimizer, module_tensors, optimizer_tensors, part_of

_COLUMNS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
_FIRST_TEMPERATURE = 0.2


class SACPolicy(MemorylessPolicy):
    """SB3's actor."""

    def __init__(self, network: Actor) -> None:
        super().__init__()
        self.network = network

    @torch.no_grad()
    def act(
        self, obs: Float32[Tensor, "N O"], belief: torch.Generator, deterministic: bool = False
    ) -> tuple[Float32[Tensor, "N A"], torch.Generator, Mapping[str, Tensor]]:
        """Sample the squashed Gaussian, or take tanh of its mean."""
        mean, log_std, _ = self.network.get_action_dist_params(obs)
        if not deterministic:
            mean = mean + log_std.exp() * torch.randn(mean.shape, generator=belief)
        return torch.tanh(mean), belief, {}


class UniformPolicy(MemorylessPolicy):
    """Actions from U[-1, 1]: what fills the buffer at first, as in SB3."""

    def __init__(self, action_size: int) -> None:
        super().__init__()
        self.action_size = action_size

    def act(
        self, obs: Float32[Tensor, "N O"], belief: torch.Generator, deterministic: bool = False
    ) -> tuple[Float32[Tensor, "N A"], torch.Generator, Mapping[str, Tensor]]:
        """Drawn anew at every step."""
        return torch.rand(len(obs), self.action_size, generator=belief) * 2.0 - 1.0, belief, {}


class SAC:
    """SB3's SAC, fed by metarl's collector."""

    def __init__(self, config: SACConfig, obs_size: int, action_size: int, generator: torch.Generator) -> None:
        self.config = config
        model = stable_baselines3.SAC(
            "MlpPolicy",
            None,
            learning_rate=config.learning_rate,
            buffer_size=config.replay_size,
            tau=config.target_rate,
            gamma=config.discount,
            ent_coef=config.temperature or f"auto_{_FIRST_TEMPERATURE}",
            target_entropy=-float(action_size),
            policy_kwargs={"net_arch": [config.hidden_size] * 2},
            device="cpu",
            _init_setup_model=False,
        )
        self.model = build(model, obs_size, action_size, generator)
        self.policy = SACPolicy(self.model.actor)
        self._exploration = UniformPolicy(action_size)
        self._steps = torch.zeros((), dtype=torch.long)

    def train_step(self, collect: Collect, generator: torch.Generator, progress: float) -> Metrics:
        """Collect one trial per world into the buffer, then `num_updates` gradient steps once it is filled."""
        config, first = self.config, int(self._steps) < self.config.initial_steps
        rollout = collect(self._exploration if first else self.policy)
        self.store(rollout)
        if int(self._steps) < config.initial_steps or not self.model.replay_buffer.size():  # type: ignore[union-attr]
            return {}
        return update(self.model, lambda: self.model.train(config.num_updates, config.batch_size), generator)

    def store(self, rollout: Rollout) -> None:
        """Put a trial into SB3's buffer, step by step and world by world, as its `_store_transition` does.

        A step that ended an episode leads to that episode's last observation, not to the next one's first.
        """
        buffer = self.model.replay_buffer
        assert buffer is not None
        healthy = ~rollout.diverged
        fields = (rollout.obs, rollout.final_obs, rollout.action, rollout.reward, rollout.ended)
        rows = [field[healthy].numpy() for field in fields]
        timeouts = rollout.truncated[healthy].tolist()
        for obs, final_obs, action, reward, ended, timeout in zip(*rows, timeouts, strict=True):
            buffer.add(obs, final_obs, action, reward, ended, [{"TimeLimit.truncated": timeout}])
        self._steps += rollout.reward.numel()

    # ------------------------------------------------------------------------------------------------------ the state

    def remarks(self, total_steps: int) -> list[str]:
        """What the buffer takes, and what checkpoints do."""
        buffer = self.model.replay_buffer
        memory = sum(getattr(buffer, name).nbytes for name in _COLUMNS) / 2**20
        refilled = f"leave it out: a resumed run first fills it anew for {self.config.initial_steps:,} steps"
        saved = "hold what of it is filled" if self.config.save_buffer else refilled
        return [f"the buffer takes up to {memory:,.0f} MiB; checkpoints {saved}"]

    def _optimizers(self) -> dict[str, tuple[torch.optim.Optimizer, list[str]]]:
        """Optimisers with the names of their parameters."""
        model = self.model
        found = {
            name: (module.optimizer, [parameter for parameter, _ in module.named_parameters()])
            for name, module in (("actor", model.actor), ("critic", model.critic))
        }
        if model.ent_coef_optimizer is not None:
            found["temperature"] = (model.ent_coef_optimizer, ["log_temperature"])
        return found

    def state_dict(self) -> dict[str, Tensor]:
        """Networks, temperature, optimisers; with `save_buffer` the buffer, and how far its filling got."""
        state = module_tensors(self.model.policy, "networks")
        if self.model.log_ent_coef is not None:
            state["log_temperature"] = self.model.log_ent_coef.detach().clone()
        for part, (optimizer, names) in self._optimizers().items():
            state |= optimizer_tensors(optimizer, names, f"adam/{part}")
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
        """Inverse of `state_dict`."""
        load_module(self.model.policy, state, "networks")
        expected = ["log_temperature"] if self.model.log_ent_coef is not None else []
        expected += ["steps", "replay/place", *(f"replay/{name}" for name in _COLUMNS)] * self.config.save_buffer
        missing = [name for name in expected if name not in state]
        if missing:
            raise ValueError(f"tensors are missing: {', '.join(missing)}")
        if self.model.log_ent_coef is not None:
            self.model.log_ent_coef.data.copy_(state["log_temperature"])
        for part, (optimizer, names) in self._optimizers().items():
            load_optimizer(optimizer, names, state, f"adam/{part}")
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
