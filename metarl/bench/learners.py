"""What `metarl bench` trains: collecting and whole iterations of the learners, and MAML's meta-update by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import torch

from metarl.agents.configs import MamlTrpoConfig, PearlConfig, RL2Config
from metarl.agents.maml_trpo import MamlTrpo
from metarl.agents.pearl import Pearl
from metarl.agents.rl2 import RL2
from metarl.bench import plain_maml
from metarl.bench.measure import Done, Work
from metarl.bench.plain_maml import PlainTask
from metarl.bench.plain_pearl import PlainPearl
from metarl.bench.worlds import mujoco_family, stepping
from metarl.core import seeding
from metarl.core.info import Part, PolicyInfo
from metarl.core.types import Metrics, Segment
from metarl.rl.learner import Learner
from metarl.run.collect import collect
from metarl.sim.family import MujocoFamily
from metarl.sim.mujoco.mujoco_env import MujocoEnv

_FAMILY = "half-cheetah-body"
"""Collection and training are measured here."""
_SHOTS, _TASKS, _HORIZON = 20, 40, 100  # the published size of a meta-update
_HELD = 1000  # transitions per task in PEARL's buffers


def contests(worlds: tuple[int, ...], threads: int) -> Iterator[tuple[str, int, dict[str, Work]]]:
    """Family, number of worlds and contenders of each comparison; the first contender is what the others are held to.

    MAML's meta-update is compared with a plain loop over tasks, and PEARL's gradient step (gradient steps per second)
    with one written plainly; on CUDA too where there is one.
    """
    for num_worlds in worlds:
        yield _FAMILY, num_worlds, learning(mujoco_family(_FAMILY), num_worlds, threads)
    yield _FAMILY, _TASKS, meta_updates(_FAMILY, threads)
    gradient, cuda = gradient_steps(), torch.cuda.is_available()
    if cuda:
        gradient |= {f"{name} (CUDA)": work for name, work in list(gradient_steps("cuda").items())[1:]}
    yield _FAMILY, 16, gradient
    if cuda:
        on_device = meta_updates(_FAMILY, threads, "cuda")
        yield _FAMILY, _TASKS, {f"{name} (CUDA)": work for name, work in on_device.items()}


def learning(family: MujocoFamily, num_worlds: int, threads: int) -> dict[str, Work]:
    """Bare physics, our environment, and on top of it each learner collecting a trial, and training on one."""
    env = MujocoEnv(family, num_worlds, episodes_per_trial=2, threads=threads)
    work = stepping(family, num_worlds, threads)
    for name, agent in _agents(env).items():
        work[f"{name}: collection"] = partial(_collect, env, agent)
        work[f"{name}: training iteration"] = partial(_train, env, agent)
    return work


def _agents(env: MujocoEnv) -> dict[str, Learner]:
    cells: tuple[Literal["gru", "lstm"], ...] = ("gru", "lstm")
    agents: dict[str, Learner] = {}
    for cell in cells:
        config = RL2Config(cell=cell, hidden_size=128)
        agents[f"RL² {cell.upper()} 128"] = RL2(config, env.info, seeding.generator(0, "bench"))
    agents["MAML-TRPO, 1 shot"] = MamlTrpo(MamlTrpoConfig(shots=1), env.info, seeding.generator(0, "bench"))
    return agents


def _tasks(env: MujocoEnv) -> Any:
    return env.family.space.sample("train", env.num_worlds, seeding.rng(0, "bench"))


def _segment(env: MujocoEnv, agent: Learner) -> Segment:
    return collect(env, agent.behaviour, _tasks(env), seeding.key(0, "bench"), record=agent.record)


def _collect(env: MujocoEnv, agent: Learner) -> Done:
    return Done(_segment(env, agent).reward.numel())


def _train(env: MujocoEnv, agent: Learner) -> Done:
    begun = time.perf_counter()
    segment = _segment(env, agent)
    times = {"collect": time.perf_counter() - begun}
    return Done(segment.reward.numel(), times | _update(agent, segment))


def _update(agent: Learner, segment: Segment) -> dict[str, float]:
    """Time of each phase of an update [s]."""
    begun = time.perf_counter()
    metrics = agent.update(segment, seeding.generator(0, "bench"), progress=0.0)
    parts = _times(metrics)
    return parts or {"update": time.perf_counter() - begun}


def _times(metrics: Metrics) -> dict[str, float]:
    return {name.removeprefix("time/"): value for name, value in metrics.items() if name.startswith("time/")}


def meta_updates(family_name: str, threads: int, device: Literal["cpu", "cuda"] = "cpu") -> dict[str, Work]:
    """A meta-update of MAML-TRPO on one trial of the published size, by a plain loop over tasks and by the learner.

    The plain loop is given stages and advantages; the learner computes them too. Both run on one thread.
    """
    family = mujoco_family(family_name)
    env = MujocoEnv(family, _TASKS, episodes_per_trial=2 * _SHOTS, episode_steps=_HORIZON, threads=threads)
    work: dict[str, Work] = {}
    for stride in (1, MamlTrpoConfig.fisher_stride):
        config = MamlTrpoConfig(shots=_SHOTS, fisher_stride=stride)
        agent = MamlTrpo(config, env.info, seeding.generator(0, "bench"), device)
        segment = _segment(env, agent)
        if not work:
            work["plain loop over tasks"] = _plain(agent, *agent.stages(segment)[:2])
        same = "" if stride == 1 else f", Fisher matrix of every {stride}th step"
        work[f"MAML-TRPO meta-update{same}"] = partial(_again, agent, agent.state_dict(), segment)
    return work


def _again(agent: MamlTrpo, state: dict[str, torch.Tensor], segment: Segment) -> Done:
    agent.load_state_dict(state)
    return Done(segment.reward.numel(), _update(agent, segment))


def _plain(agent: MamlTrpo, stages: Any, sampled: Any) -> Work:
    config = agent.config
    named = agent.policy.inner.policy.named(agent.policy.inner.read())
    weights = [value for name, value in named.items() if name != "raw_log_std"] + [named["raw_log_std"]]
    weights = [weight.clone().requires_grad_() for weight in weights]
    fields = [stage._asdict() for stage in stages]
    after = sampled.stage._asdict() | {"mean": sampled.mean, "log_std": sampled.log_std}
    tasks = [
        PlainTask(
            [{k: v[i] for k, v in stage.items()} for stage in fields],
            {k: v[i] for k, v in after.items()},
        )
        for i in range(len(sampled.mean))
    ]
    steps = 2 * _TASKS * _SHOTS * _HORIZON

    def work() -> Done:
        rate = float(config.inner_step_size)
        plain_maml.update(weights, tasks, rate, config.max_kl, config.cg_iterations, config.cg_damping)
        return Done(steps)

    return work


def gradient_steps(device: Literal["cpu", "cuda"] = "cpu") -> dict[str, Work]:
    """A gradient step of PEARL at the published size on half-cheetah's sizes, written plainly and by the learner.

    Each on the threads that torch is set to. What is counted are gradient steps, not control steps.
    """
    config = PearlConfig(
        hidden_size=300,
        hidden_layers=3,
        encoder_size=200,
        encoder_layers=3,
        meta_batch=16,
        batch_size=256,
        context_size=100,
        replay_size=_HELD,
    )
    random = seeding.generator(0, "bench")
    info = PolicyInfo((Part("observation", 20, "1"),), tuple("abcdef"), 0.05, 200, 5)
    agent = Pearl(config, info, random, device)
    rows = torch.randn(config.num_slots, _HELD, agent.replay.rows.shape[2], generator=random)
    rows[..., -1] = 0.0  # no falls
    slots = torch.arange(config.num_slots, device=device)
    for buffer in (agent.replay, agent.context):
        buffer.add(slots.repeat_interleave(_HELD), rows.flatten(0, 1).to(device))
    draws = torch.Generator(device).manual_seed(0)

    def ours() -> Done:
        chosen, context, batch = (part[0] for part in agent.draw(slots, 1, draws))
        loss = agent.gradient_step(chosen, context, batch, agent.noise(chosen, context, batch, draws))
        assert loss is not None
        loss.tolist()  # waits for the device
        return Done(1)

    plain = PlainPearl(config, 20, 6, list(rows.numpy()))

    def theirs() -> Done:
        plain.step()
        return Done(1)

    return {"PEARL gradient step, written plainly": theirs, "PEARL gradient step": ours}
