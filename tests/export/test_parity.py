"""Every learner's policy: written as programs, C and ONNX, and run by each of them as torch runs it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from metarl.agents import LEARNERS
from metarl.core.config import configure
from metarl.core.errors import UserError
from metarl.core.registry import make_family
from metarl.export.bundle import runtimes_of
from metarl.export.compiled import compiler
from metarl.export.contract import read_out
from metarl.export.parity import AS_TRAINED, ROUNDING, TOLERANCE, compare, numpy_calls
from metarl.export.trace import traced
from metarl.rl.normalize import RunningNorm
from metarl.rl.policy import PolicyModule
from metarl.run.run import make_learner
from metarl.sim.make import make_env

FAMILY = "hopper-params"
SMALL = {"hidden_size": 8}
CASES = {
    "rl2": {**SMALL},
    "rl2 gru": {**SMALL, "cell": "gru"},
    "rl2 lru": {**SMALL, "cell": "lru"},
    "rl2 transformer": {**SMALL, "cell": "transformer", "window": 8},
    "rl2 memory": {**SMALL, "cell": "memory"},
    "rl2 hyper": {**SMALL, "policy_head": "hyper"},
    "rl2 belief": {**SMALL, "policy_head": "belief"},
    "rl2 action": {**SMALL, "feedback": "action"},
    "rl2 none": {**SMALL, "feedback": "none", "memory_steps": 10},
    "rl2 beliefs": {**SMALL, "task_weight": 1.0},
    "rma": {**SMALL, "student_size": 8},
    "varibad": {**SMALL, "encoder_size": 8},
    "pearl": {**SMALL, "encoder_size": 8, "prior_episodes": 1},
    "pearl prototypes": {**SMALL, "encoder_size": 8, "prior_episodes": 1, "belief": "prototype"},
    "maml-trpo": {**SMALL, "shots": 1},
    "maml-trpo learned": {**SMALL, "shots": 1, "inner_step_size": "learned", "inner_objective": "lvc"},
    "maml-trpo recurrent": {**SMALL, "shots": 2, "learned_optimizer": True, "adapted_layers": "last"},
    "maml-trpo steps": {**SMALL, "shots": 2, "shots_in": "steps", "inner_steps": 2},
    "ppo": {**SMALL},
    "ppo frames": {**SMALL, "history": 3},
    "ppo-oracle": {**SMALL},
    "recurrent-ppo": {**SMALL},
    "sac": {**SMALL},
}


WATCHED = {
    "rma": lambda parts: [{"name": "z", "size": 8}],
    "rl2 beliefs": lambda parts: [
        *({"name": p.name, "size": p.size, "meaning": p.help, "low": -1.0, "high": 1.0} for p in parts),
        *({"name": f"{p.name} ±", "size": p.size} for p in parts),
    ],
}
"""What the contract says can be watched, by the numbers that an oracle is told."""


@pytest.fixture(scope="module")
def env():
    with make_env(make_family(FAMILY), 1, episodes_per_trial=3, episode_steps=40, threads=1) as made:
        yield made


def small_policy(agent, options, info):
    """A policy whose weights and normalisers are no longer those of the beginning."""
    torch.manual_seed(0)
    policy = make_learner(configure(agent, FAMILY, options, None, False), info).policy
    for parameter in policy.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    for module in policy.modules():
        if isinstance(module, RunningNorm):
            module.update(torch.randn(50, *module.mean.shape) * 2.0 + 0.3)
    if hasattr(policy, "prototypes"):
        policy.known[:5] = True
        policy.prototypes[:5] = torch.nn.functional.normalize(torch.randn(5, policy.prototypes.shape[1]))
    return policy


def test_every_learner_of_the_table_is_among_them():
    assert {case.split()[0] for case in CASES} == set(LEARNERS)


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[pytest.mark.slow] * (" " in c or c == "maml-trpo")) for c in CASES]
)
def test_every_runtime_does_what_torch_does(case, env, tmp_path):
    policy = small_policy(case.split()[0], CASES[case], env.info)
    written = traced(policy)
    if case in WATCHED:
        assert read_out(policy, written.programs) == WATCHED[case](env.info.privileged)
    runtimes, remarks = runtimes_of(tmp_path, written)
    assert set(runtimes) == {"numpy", "onnxruntime", *(["c"] if compiler() else [])}, remarks
    played, parity = compare(policy, env, runtimes, steps=130)
    assert played.tasks > 1 and played.falls > 0 and played.episodes > 4
    assert (AS_TRAINED in parity) == case.startswith(("maml", "pearl"))  # parts of these are exported in float64
    for name, one in parity.items():
        assert max(one.action, one.state) <= (ROUNDING if name == AS_TRAINED else TOLERANCE), name
    expected = case not in ("rl2 action", "rl2 none") and case.split()[0] not in ("ppo", "ppo-oracle", "sac")
    told_at_the_end = case.startswith("maml")  # it remembers the reward, and adapts later
    assert written.programs["observe"].needs("reward") == (expected or told_at_the_end)


class Looking(PolicyModule):
    """Does one thing or the other, by what it sees."""

    def act(self, obs, state, noise, deterministic=False):
        return (obs[:, :3] if bool(obs.sum() > 0.0) else -obs[:, :3]), state


class Strange(Looking):
    """Does what no program has an operation for."""

    def act(self, obs, state, noise, deterministic=False):
        return torch.linalg.qr(obs[:, :3])[0], state


@pytest.mark.parametrize("kind", [Looking, Strange])
def test_what_no_program_can_do_is_refused_in_a_sentence(kind, env):
    with pytest.raises(UserError, match=f"cannot be exported: {kind.__name__} does what no program can"):
        traced(kind(env.info))


def test_a_runtime_that_strays_is_noticed(env):
    policy = small_policy("ppo", SMALL, env.info)
    written = traced(policy)
    changed = {**written.constants, "const.0": written.constants["const.0"] + np.float32(1e-3)}
    _, parity = compare(policy, env, {"numpy": numpy_calls(replace(written, constants=changed))}, steps=20)
    assert math.isfinite(parity["numpy"].action) and parity["numpy"].action > TOLERANCE
