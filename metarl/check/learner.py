"""What every learner must do, tried on a tiny family: said at once, and not after a training whose work is lost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import mujoco
import torch
from jaxtyping import Float, Int64
from safetensors.torch import load, save
from torch import Tensor

from metarl.core import seeding
from metarl.core.config import train_defaults
from metarl.core.errors import UserError
from metarl.core.info import Part
from metarl.core.registry import learner_class, learner_config_class
from metarl.core.seeding import WorldRandom
from metarl.core.tasks import Choice, Parameter, Tasks, TaskSpace
from metarl.core.types import Segment, Transition
from metarl.rl.learner import Learner
from metarl.rl.policy import Policy
from metarl.rl.state import load_policy, load_state, policy_alone, state_tensors
from metarl.run.collect import Stepper, collect
from metarl.sim.env import TrialEnv
from metarl.sim.family import MujocoFamily
from metarl.sim.make import make_env
from metarl.sim.mujoco.physics import Physics

Finding = tuple[str, bool, str]
"""What was tried, whether it is right, and one sentence."""

_WORLDS = 4
_SLIDER = """<mujoco><option timestep="0.05" gravity="0 0 0"/><worldbody><body>
<joint name="x" type="slide" axis="1 0 0"/><joint name="y" type="slide" axis="0 1 0"/><geom size="0.1" mass="1"/>
</body></worldbody><actuator><motor joint="x" ctrlrange="-1 1"/><motor joint="y" ctrlrange="-1 1"/></actuator></mujoco>
"""
_SMALL = {"initial_steps": 0, "num_updates": 3, "num_epochs": 1}
"""Fields that would make an update long, where a configuration has them; what is tried does not depend on them."""


class Sign(MujocoFamily):
    """A slider that is paid for pushing one way, or the other: the sign is the task."""

    space = TaskSpace({"sign": Parameter(Choice((-1.0, 1.0)), unit="1")})
    observation = (Part("position", 2, "m"), Part("velocity", 2, "m/s"))
    control_step, episode_steps = 0.05, 5

    def spec(self) -> mujoco.MjSpec:
        """Two sliders, without gravity."""
        return mujoco.MjSpec.from_string(_SLIDER)

    def reset(self, physics: Physics, worlds: Int64[Tensor, "n"], tasks: Tasks, random: WorldRandom) -> None:
        """Near the middle."""
        physics.bind("qpos")[worlds] = random.uniform(-0.01, 0.01, 2)

    def observe(self, physics: Physics, tasks: Tasks) -> Mapping[str, Float[Tensor, "N size"]]:
        """Return its position and velocity."""
        return {"position": physics.bind("qpos"), "velocity": physics.bind("qvel")}

    def reward(
        self, physics: Physics, before: Tensor, action: Float[Tensor, "N A"], tasks: Tasks
    ) -> Mapping[str, Float[Tensor, "N"]]:
        """The push along x, times the sign."""
        return {"push": tasks["sign"] * action[:, 0]}


class _Problem(Exception):  # noqa: N818
    """What a learner got wrong, as a sentence."""


def check_learner(name: str, config: Any = None) -> list[Finding]:
    """Try the learner called `name`, as a table's or `path/to/file.py:Class`; seconds, and it needs no family.

    Args:
        name: As `metarl train` takes it.
        config: Its configuration; the default one, with short updates, if None.
    """
    tried = _Tried(name, config)
    return [tried.finding(what, check) for what, check in tried.checks().items()]


class _Tried:
    """A learner under test, with what makes it and a trial."""

    def __init__(self, name: str, config: Any) -> None:
        self._class, config_class = learner_class(name), learner_config_class(name)
        self._config = config or _shortened(config_class)
        episodes, shown = (
            train_defaults(config_class).get("episodes_per_trial", 2),
            bool(getattr(config_class, "task_visible", False)),
        )
        self._env: TrialEnv = make_env(Sign(), _WORLDS, episodes_per_trial=episodes, task_visible=shown, threads=1)

    def checks(self) -> dict[str, Callable[[], str]]:
        """Each returns what is right, or raises `_Problem`."""
        return {
            "protocol": self._protocol,
            "actions": self._actions,
            "state": self._state,
            "metrics": self._metrics,
            "resumption": self._resumption,
            "policy alone": self._alone,
            "copies": self._copies,
            "device": self._device,
        }

    @staticmethod
    def finding(what: str, check: Callable[[], str]) -> Finding:
        """The check's sentence."""
        try:
            return what, True, check()
        except _Problem as problem:
            return what, False, str(problem)
        except UserError as error:
            return what, False, f"it stops with: {error}"
        except Exception as error:
            return what, False, f"it raises {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"

    def _make(self, seed: int = 0, **words: Any) -> Learner:
        return self._class(self._config, self._env.info, seeding.generator(seed, "init"), **words)

    def _segment(self, learner: Learner, number: int) -> Segment:
        """The `number`-th trial, or as many steps as a segment has, of ever the same tasks."""
        tasks = self._env.family.space.fixed("train", _WORLDS)
        key, record, wants = seeding.key(0, "collect", number), learner.record, learner.wants_privileged
        if learner.segment_steps is None:
            return collect(self._env, learner.behaviour, tasks, key, record=record, privileged=wants)
        numbers = torch.arange(_WORLDS)
        stepper = Stepper(self._env, learner.behaviour, tasks, key, next_tasks=lambda: (tasks, numbers))
        return stepper.segment(learner.behaviour, learner.segment_steps, record, privileged=wants)

    def _train(self, learner: Learner, *numbers: int) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for number in numbers:
            metrics = learner.update(self._segment(learner, number), seeding.generator(0, "update", number), 0.1)
        return metrics

    # --------------------------------------------------------------------------------------------------- the checks

    def _protocol(self) -> str:
        learner = self._make()
        for thing, protocol in ((learner, Learner), (learner.policy, Policy), (learner.behaviour, Policy)):
            words = {*vars(protocol), *getattr(protocol, "__annotations__", {})}
            missing = sorted(word for word in words if word[0] != "_" and not hasattr(thing, word))
            if missing:
                raise _Problem(f"{type(thing).__name__} lacks {', '.join(missing)}, which {protocol.__name__} asks for")
        steps = learner.segment_steps
        if steps is not None and (not isinstance(steps, int) or steps < 1):
            raise _Problem(f"segment_steps is {steps!r}: it must be a number of steps, or None for whole trials")
        return "learner and policy have all that the protocols ask for"

    def _actions(self) -> str:
        policy, info = self._make().policy, self._env.info
        for deterministic in (False, True):
            state = policy.initial_state(3, "cpu")
            obs, noise = torch.zeros(3, info.observation_size), torch.randn(3, policy.noise_size)
            action, _ = policy.act(obs, state, noise, deterministic)
            if tuple(action.shape) != (3, info.action_size):
                raise _Problem(f"actions of 3 worlds have shape {tuple(action.shape)}, not {(3, info.action_size)}")
            if action.dtype != torch.float32 or not bool(torch.isfinite(action).all()):
                raise _Problem(f"actions are not finite numbers of type float32: {action.dtype}, {action.tolist()[0]}")
        return f"actions are finite, {info.action_size} per world"

    def _state(self) -> str:
        """Stored in a file in the middle of a trial, and taken up again by another copy of the policy."""
        learner, info = self._make(), self._env.info
        policy = learner.policy
        state = policy.initial_state(3, "cpu")
        if not isinstance(state, tuple) or not hasattr(state, "_asdict"):
            raise _Problem(f"the adaptation state is a {type(state).__name__}: it must be a NamedTuple of tensors")
        for name, value in state._asdict().items():
            if not isinstance(value, Tensor):
                raise _Problem(f"the adaptation state's {name} is a {type(value).__name__}, not a tensor")
            if value.dim() < 1 or len(value) != 3:
                shape = tuple(value.shape)
                raise _Problem(f"the adaptation state's {name} has shape {shape} for 3 worlds: it needs a row for each")
        self._train(learner, 0)
        noise = seeding.normal(3, torch.arange(3), 0, 4 * info.episode_steps, policy.noise_size, "cpu")
        stored = _play(policy, policy.initial_state(3, "cpu"), noise[: len(noise) // 2], info.episode_steps)[1]
        blob = save(state_tensors(stored))
        expected = _play(policy, stored, noise[len(noise) // 2 :], info.episode_steps)[0]
        again = load_state(policy, load(blob))
        got = _play(policy, again, noise[len(noise) // 2 :], info.episode_steps)[0]
        if not torch.equal(expected, got):
            raise _Problem(
                "actions after its state was stored and loaded are others: something is kept beside the state"
            )
        return "the adaptation state is tensors, and a trial goes on from a stored one exactly"

    def _metrics(self) -> str:
        metrics = self._train(self._make(), 0)
        for name, value in metrics.items():
            if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
                raise _Problem(f"the metric '{name}' is {value!r}: it must be a finite number")
        return f"{len(metrics)} metrics, all finite numbers"

    def _resumption(self) -> str:
        """Two updates in one go, and with a save between them; the second learner starts from other weights."""
        whole, stopped = self._make(), self._make(seed=1)
        self._train(whole, 0)
        stored = whole.state_dict()
        for name, value in stored.items():
            if not isinstance(value, Tensor):
                raise _Problem(f"state_dict holds '{name}', a {type(value).__name__}: it must hold tensors only")
        stopped.load_state_dict(load(save({name: value.contiguous() for name, value in stored.items()})))
        first = _differences(stored, stopped.state_dict())
        if first:
            raise _Problem(f"load_state_dict does not bring back {first[0]}")
        self._train(whole, 1)
        self._train(stopped, 1)
        later = _differences(whole.state_dict(), stopped.state_dict())
        if later:
            raise _Problem(
                f"after one more update {later[0]} is not what it is without the interruption: state_dict lacks "
                "something, as an optimiser's moments or a counter"
            )
        return "an interrupted training goes on exactly as one never stopped"

    def _alone(self) -> str:
        learner, other = self._make(), self._make(seed=1)
        self._train(learner, 0)
        kept, info = policy_alone(learner.state_dict()), self._env.info
        if not kept and learner.state_dict():
            raise _Problem("state_dict has no tensors named 'policy/...': those that acting needs are to be named so")
        load_policy(other.policy, kept)
        noise = seeding.normal(4, torch.arange(3), 0, 2 * info.episode_steps, learner.policy.noise_size, "cpu")
        actions = [
            _play(policy, policy.initial_state(3, "cpu"), noise, info.episode_steps)[0]
            for policy in (learner.policy, other.policy)
        ]
        if not torch.equal(*actions):
            raise _Problem("a policy loaded from 'policy/...' alone acts otherwise than the learner's own")
        return "the tensors named 'policy/...' suffice for acting"

    def _copies(self) -> str:
        learner = self._make()
        self._train(learner, 0)
        state = learner.state_dict()
        before = {name: value.clone() for name, value in state.items()}
        self._train(learner, 1)
        if _differences(before, state):
            raise _Problem(f"training on changes a state_dict taken before, as its {_differences(before, state)[0]}")
        return "state_dict is a copy"

    def _device(self) -> str:
        learner = self._make(device=torch.device("cpu"))
        state = learner.policy.initial_state(2, torch.device("cpu"))
        elsewhere = [name for name, value in state._asdict().items() if value.device.type != "cpu"]
        if elsewhere:
            raise _Problem(f"the state's {elsewhere[0]} is not on the device that was asked for")
        return "it takes the device it is to be on"


def _shortened(config_class: type[Any]) -> Any:
    known = {field.name for field in dataclasses.fields(config_class)}
    return config_class(**{name: value for name, value in _SMALL.items() if name in known})


def _play(policy: Policy[Any], state: Any, noise: Tensor, episode_steps: int) -> tuple[Tensor, Any]:
    """Actions on made-up observations, which answer to the noise only; episodes end on time, and by a fall."""
    actions = []
    for t, drawn in enumerate(noise):
        obs = torch.linspace(-1.0, 1.0, 3 * policy.info.observation_size).reshape(3, -1) * (t % 7 - 3)
        action, state = policy.act(obs, state, drawn, True)
        reward, fallen = torch.linspace(-1.0, 1.0, 3) * (t % 5), torch.tensor([t % 4 == 3, False, False])
        state = policy.observe(state, Transition(obs, action, reward, obs + 0.1, fallen))
        ended = fallen | ((t + 1) % episode_steps == 0)
        if bool(ended.any()):
            state = policy.end_episode(state, ended)
        actions.append(action)
    return torch.stack(actions), state


def _differences(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors that are not the same in both."""
    names = sorted(one.keys() | other.keys())
    return [name for name in names if name not in one or name not in other or not _same(one[name], other[name])]


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and bool(torch.equal(one, other))
