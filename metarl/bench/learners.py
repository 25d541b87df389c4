"""What `metarl bench` trains: collecting and whole iterations of learners, and the updates of two by themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from metarl.agents.maml_trpo import MamlTrpo
from metarl.agents.pearl import Pearl
from metarl.bench import plain_maml
from metarl.bench.measure import Done, Work
from metarl.bench.plain_maml import PlainTask
from metarl.bench.plain_pearl import PlainPearl
from metarl.bench.worlds import Place, mujoco_family, stepping
from metarl.core import seeding
from metarl.core.config import configure
from metarl.core.info import Part, PolicyInfo
from metarl.core.types import Segment
from metarl.rl.learner import Learner
from metarl.run.run import Run, make_learner
from metarl.run.train import Training

_FAMILY = "half-cheetah-body"
"""Collection and training are measured here."""
_LEARNERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "RL² GRU 128": ("rl2", {"cell": "gru", "hidden_size": 128}),
    "RL² LSTM 128": ("rl2", {"cell": "lstm", "hidden_size": 128}),
    "MAML-TRPO, 1 shot": ("maml-trpo", {"shots": 1, "episodes_per_trial": 2}),
}
"""Who is measured, with which settings."""
_SHOTS, _TASKS, _HORIZON = 20, 40, 100  # the published size of a meta-update
_HELD = 1000  # transitions per task in PEARL's buffers
PEARL = {"hidden_size": 300, "hidden_layers": 3, "encoder_size": 200, "encoder_layers": 3, "context_size": 100}
PEARL |= {"meta_batch": 16, "batch_size": 256, "replay_size": _HELD}
"""The published size of a gradient step."""


def contests(worlds: tuple[int, ...], place: Place) -> Iterator[tuple[str, int, dict[str, Work]]]:
    """Family, number of worlds and contenders of each comparison; the first contender is what the others are held to.

    MAML's meta-update is compared with a plain loop over tasks, and PEARL's gradient step (gradient steps per second)
    with one written plainly, which is on the CPU everywhere.
    """
    for num_worlds in worlds:
        work = stepping(mujoco_family(_FAMILY), num_worlds, place)
        for name in _LEARNERS:
            work |= learning(name, _FAMILY, num_worlds, place)
        yield _FAMILY, num_worlds, work
    yield _FAMILY, _TASKS, meta_updates(_FAMILY, place)
    yield _FAMILY, 16, gradient_steps(place.device)


def learning(name: str, family: str, num_worlds: int, place: Place, **fields: Any) -> dict[str, Work]:
    """A learner collecting what it trains on in an iteration, and training on it; `fields` are settings of its own."""
    agent, settings = _LEARNERS[name]
    training = _training(agent, family, place, num_worlds=num_worlds, **settings | fields)
    return {
        f"{name}: collection": lambda: Done(sum(segment.reward.numel() for segment in _segments(training))),
        f"{name}: training iteration": partial(_train, training),
    }


def _training(agent: str, family: str, place: Place, **fields: Any) -> Training:
    """A training that is nowhere on disk."""
    return Training(Run(Path()), configure(agent, family, vars(place) | fields))


def _segments(training: Training) -> Iterator[Segment]:
    """What an iteration learns from, one after the other."""
    for part in range(training.fleet.parts(training.learner.segment_steps)):
        yield training.collect(part)[0]


def _train(training: Training) -> Done:
    steps, times, begun = 0, dict[str, float](), time.perf_counter()
    for segment in _segments(training):
        spent = {"collect": time.perf_counter() - begun} | _update(training.learner, segment)
        times |= {part: times.get(part, 0.0) + seconds for part, seconds in spent.items()}
        steps, begun = steps + segment.reward.numel(), time.perf_counter()
    return Done(steps, times)


def _update(agent: Learner, segment: Segment) -> dict[str, float]:
    """Time of each phase of an update [s]."""
    begun = time.perf_counter()
    metrics = agent.update(segment, seeding.generator(0, "bench"), progress=0.0)
    parts = {name.removeprefix("time/"): value for name, value in metrics.items() if name.startswith("time/")}
    return parts or {"update": time.perf_counter() - begun}


def meta_updates(family: str, place: Place, **fields: Any) -> dict[str, Work]:
    """A meta-update of MAML-TRPO on one trial of the published size, by a plain loop over tasks and by the learner.

    The plain loop is given stages and advantages; the learner computes them too. Both run on one thread.
    """
    size = {"shots": _SHOTS, "num_worlds": _TASKS, "episodes_per_trial": 2 * _SHOTS, "episode_steps": _HORIZON}
    work: dict[str, Work] = {}
    for exact in ({"fisher_stride": 1}, {}):
        training = _training("maml-trpo", family, place, **size | exact | fields)
        agent, segment = cast(MamlTrpo, training.learner), training.collect()[0]
        if not work:
            work["plain loop over tasks"] = _plain(agent, segment)
        same = "" if exact else f", Fisher matrix of every {agent.config.fisher_stride}th step"
        work[f"MAML-TRPO meta-update{same}"] = partial(_again, agent, agent.state_dict(), segment)
    return work


def _again(agent: Learner, state: dict[str, torch.Tensor], segment: Segment) -> Done:
    agent.load_state_dict(state)
    return Done(segment.reward.numel(), _update(agent, segment))


def _plain(agent: MamlTrpo, segment: Segment) -> Work:
    config, (stages, sampled) = agent.config, agent.stages(segment)[:2]
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
    steps = segment.reward.numel()

    def work() -> Done:
        rate = float(config.inner_step_size)
        plain_maml.update(weights, tasks, rate, config.max_kl, config.cg_iterations, config.cg_damping)
        return Done(steps)

    return work


def gradient_steps(device: str, **fields: Any) -> dict[str, Work]:
    """Gradient steps of PEARL at the published size on half-cheetah's sizes, written plainly and by the learner.

    Each on the threads that torch is set to. What is counted are gradient steps, not control steps.
    """
    steps = 1 if device == "cpu" else 200  # a GPU takes them in blocks
    config = configure("pearl", _FAMILY, {"device": device, "num_updates": steps} | PEARL | fields)
    info = PolicyInfo((Part("observation", 20, "1"),), tuple("abcdef"), 0.05, 200, 5)
    agent, held = cast(Pearl, make_learner(config, info, device)), config.learner.replay_size
    rows = torch.randn(
        config.learner.num_slots, held, agent.replay.rows.shape[2], generator=seeding.generator(0, "rows")
    )
    rows[..., -1] = 0.0  # no falls
    slots = torch.arange(len(rows), device=device)
    for buffer in (agent.replay, agent.context):
        buffer.add(slots.repeat_interleave(held), rows.flatten(0, 1).to(device))
    draws = seeding.generator(0, "draws")

    def ours() -> Done:
        agent.gradient_steps(draws).tolist()  # waits for the device
        return Done(config.learner.num_updates)

    plain = PlainPearl(config.learner, 20, 6, list(rows.numpy()))

    def theirs() -> Done:
        plain.step()
        return Done(1)

    return {"PEARL gradient step, written plainly": theirs, "PEARL gradient step": ours}
