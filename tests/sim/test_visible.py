"""What an oracle sees of a task, in every kind of trials."""

import math

import pytest
import torch
from external_family import CartGoal
from families import ALL_FAMILIES, Rail, columns

from metarl.core import seeding
from metarl.core.info import PolicyInfo
from metarl.core.registry import make_family
from metarl.core.tasks import Angle, Ball, Choice, Disc, LogUniform, Parameter, TaskSpace, Uniform
from metarl.rl.scripted import RandomPolicy
from metarl.run.collect import Stepper
from metarl.sim.make import make_env
from metarl.sim.mujoco.mujoco_env import MujocoEnv
from metarl.sim.task_code import code_parts, task_code


@pytest.mark.parametrize(
    ("parameter", "values", "code"),
    [
        (Parameter(Uniform(1.0, 3.0), "1"), [1.0, 2.0, 3.0, 4.0], [[-1.0], [0.0], [1.0], [2.0]]),
        (Parameter(Uniform(0.0, 2.0, size=2), "1"), [[0.0, 2.0]], [[-1.0, 1.0]]),
        (Parameter(LogUniform(0.5, 2.0), "1"), [0.5, 1.0, 2.0, 4.0], [[-1.0], [0.0], [1.0], [2.0]]),
        (Parameter(Choice((0.0, 10.0)), "1"), [0.0, 10.0], [[-1.0], [1.0]]),
        (Parameter(Choice((7.0,)), "1"), [7.0], [[7.0]]),
        (Parameter(Angle(), "rad"), [0.0, math.pi / 2], [[1.0, 0.0], [0.0, 1.0]]),
        (Parameter(Disc(2.0), "m"), [[1.0, -2.0]], [[0.5, -1.0]]),
        (Parameter(Ball(0.5), "m"), [[0.5, 0.0, 0.25]], [[1.0, 0.0, 0.5]]),
        (Parameter(Choice((-1.0, 1.0)), "index", labels=("a", "b")), [-1.0, 1.0, 0.0], [[0, 0], [0, 1], [1, 0]]),
    ],
)
def test_the_code_of_a_parameter(parameter, values, code):
    found = task_code(TaskSpace({"it": parameter}), columns(it=values))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor(code, dtype=torch.float32), atol=1e-6, rtol=0)


def test_a_ratio_of_zero_has_a_finite_code():
    space = TaskSpace({"strength": Parameter(LogUniform(0.5, 2.0), "1")})
    assert bool(task_code(space, columns(strength=[0.0, -1.0])).isfinite().all())


@pytest.mark.parametrize("name", ALL_FAMILIES)
def test_the_codes_of_training_tasks_are_of_unit_size_and_tell_them_apart(name):
    space = make_family(name).space
    tasks = space.sample("train", 50, seeding.rng(0, "test"))
    code = task_code(space, tasks)
    assert float(code.abs().max()) <= 1.0 + 1e-6
    rows = [str(row) for row in tasks.rows()]
    for i, j in [(0, k) for k in range(1, 50)]:
        assert torch.equal(code[i], code[j]) == (rows[i] == rows[j])


def play(env, tasks, steps):
    obs, seen = env.begin(tasks, key=1), []
    push = torch.tensor([[1.0], [0.0]])
    for _ in range(steps):
        step = env.step(push)
        seen.append((obs, step.final_obs, step))
        obs = step.obs
    return seen


def test_a_visible_task_stands_behind_every_observation_and_changes_nothing_else():
    """Falls and time limits included: the pushed cart falls in its second step."""
    tasks = columns(goal=[0.25, -0.75])
    hidden_env = MujocoEnv(Rail(), 2, episodes_per_trial=2, threads=1)
    env = make_env(Rail(), 2, episodes_per_trial=2, task_visible=True, threads=1)
    assert (hidden_env.observation_size, env.observation_size) == (2, 3)
    for (obs, final, step), (plain, plain_final, plain_step) in zip(
        play(env, tasks, 8), play(hidden_env, tasks, 8), strict=True
    ):
        assert obs[:, 2].tolist() == final[:, 2].tolist() == [0.25, -0.75]
        assert torch.equal(obs[:, :2], plain)
        assert torch.equal(final[:, :2], plain_final)
        assert torch.equal(step.reward, plain_step.reward)
        assert torch.equal(step.terminated, plain_step.terminated)


def test_the_task_is_visible_in_a_diverged_step():
    """What is zeroed is what the simulator observed; the task is known all the same."""
    env = MujocoEnv(Rail(edge=1e9), 2, episodes_per_trial=2, task_visible=True, threads=1)
    env.begin(columns(goal=[0.5, -0.5]), key=0)
    env.physics.bind("qpos")[0] = float("nan")
    step = env.step(torch.zeros(2, 1))
    assert step.diverged.tolist() == [True, False]
    assert step.final_obs[0].tolist() == [0.0, 0.0, 0.5]


def test_the_task_of_an_external_environment_is_visible():
    with make_env(CartGoal(), 2, episodes_per_trial=2, task_visible=True, threads=1) as env:
        hidden = sum(part.size for part in env.info.observation if part.name != "task")
        assert env.observation_size == hidden + 1
        obs = env.begin(columns(goal=[-0.5, 0.25]), key=0)
        for _ in range(7):  # past the end of the first episode
            assert obs[:, hidden:].tolist() == [[-1.0], [0.5]]
            step = env.step(torch.zeros(2, 1))
            assert step.final_obs[:, hidden:].tolist() == [[-1.0], [0.5]]
            obs = step.obs


@pytest.mark.parametrize("name", ALL_FAMILIES)
def test_the_privileged_numbers_are_described_part_by_part(name):
    space = make_family(name).space
    parts = code_parts(space)
    assert [part.name for part in parts] == list(space.parameters)
    assert sum(part.size for part in parts) == task_code(space, space.nominal()).shape[1]


def test_privileged_numbers_follow_the_worlds_tasks_and_are_what_an_oracle_sees():
    """Recorded with a segment of two trials: each step has those of the task that its observation belongs to."""
    seen = {}
    for shown in (False, True):
        env = MujocoEnv(Rail(), 2, episodes_per_trial=2, task_visible=shown, threads=1)
        first, second = (Rail.space.sample("train", 2, seeding.rng(0, "tasks", n)) for n in (0, 1))
        policy, queued = RandomPolicy(env.info), (second, torch.zeros(2, dtype=torch.long))
        stepper = Stepper(env, policy, first, 1, next_tasks=lambda queued=queued: queued)
        seen[shown] = stepper.segment(policy, 2 * env.trial_steps, privileged=True)
        assert PolicyInfo.from_json(env.info.to_json()).privileged_size == 1
    known = seen[False].privileged
    assert torch.equal(known[: env.trial_steps], task_code(Rail.space, first).expand(env.trial_steps, -1, -1))
    assert torch.equal(known[env.trial_steps :], task_code(Rail.space, second).expand(env.trial_steps, -1, -1))
    assert torch.equal(seen[True].obs[..., -1:], known)
    assert seen[False].obs.shape[-1] == seen[True].obs.shape[-1] - 1
