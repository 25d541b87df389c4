"""Trials that follow one another in each world at a time of its own, and episodes that begin within one."""

import pytest
import torch
from external_family import CartGoal
from families import Rail, columns

from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.core.registry import make_family
from metarl.sim.make import make_env
from metarl.sim.mujoco.mujoco_env import MujocoEnv, RewardError

FIRST, SECOND = columns(goal=[0.0, 0.1, 0.2]), columns(goal=[-0.5, 0.5, 0.75])
CLOCK = torch.tensor([0, 3, 5])  # trials of 8 steps end after 8, 5 and 3
LOST = torch.tensor([False])
FIELDS = ("obs", "final_obs", "reward", "terminated", "truncated", "episode_start", "trial_start")
PUSH = torch.tensor([[1.0], [0.0], [-0.1]])


def rail(**words):
    env = MujocoEnv(Rail(), 3, episodes_per_trial=2, threads=1, **words)
    return env, env.begin(FIRST, 7, clock=CLOCK)


def flags(steps, name):
    return torch.stack([getattr(step, name) for step in steps]).int().T.tolist()


def test_each_world_begins_its_next_trial_when_its_own_is_over():
    env, _ = rail()
    env.queue(SECOND)
    steps = [env.step(torch.zeros(3, 1)) for _ in range(8)]
    assert flags(steps, "trial_start") == [[0, 0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0, 0]]
    episodes = [[0, 0, 0, 1, 0, 0, 0, 1], [1, 0, 0, 0, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0, 1, 0]]
    assert flags(steps, "truncated") == flags(steps, "episode_start") == episodes
    for t, step in enumerate(steps):
        goal = torch.where(t >= 8 - CLOCK, SECOND["goal"], FIRST["goal"])
        torch.testing.assert_close(step.reward, -(step.final_obs[:, 0] - goal).abs().float())
    assert env.tasks.rows() == SECOND.rows()


def test_a_fall_does_not_move_the_end_of_a_trial():
    env, _ = rail()
    env.queue(SECOND)
    steps = [env.step(PUSH) for _ in range(8)]
    assert flags(steps, "terminated")[0] == [0, 1, 0, 1, 0, 1, 0, 1]
    assert flags(steps, "trial_start")[0] == [0] * 7 + [1]


def test_a_second_trial_has_draws_of_its_own_whatever_the_batch():
    env, first = rail()
    env.queue(SECOND)
    steps = [env.step(torch.zeros(3, 1)) for _ in range(8)]
    starts = torch.cat((first[:, 0], *(step.obs[step.episode_start][:, 0] for step in steps)))
    assert len(starts.unique()) == len(starts) == 9
    alone = MujocoEnv(Rail(), 1, episodes_per_trial=2, threads=1)
    assert torch.equal(alone.begin(FIRST.select(torch.tensor([2])), 7, torch.tensor([2]), CLOCK[2:]), first[2:])
    alone.queue(SECOND.select(torch.tensor([2])))
    for step in steps:
        assert torch.equal(alone.step(torch.zeros(1, 1)).obs, step.obs[2:])


def test_whole_trials_begin_anew_as_queued_ones_when_all_worlds_are_in_step():
    """Without staggered clocks a queue changes nothing in the first trial."""
    ours, plain = (MujocoEnv(Rail(), 3, episodes_per_trial=2, threads=1) for _ in range(2))
    assert torch.equal(ours.begin(FIRST, 3), plain.begin(FIRST, 3))
    ours.queue(SECOND)
    for t in range(8):
        one, other = ours.step(PUSH), plain.step(PUSH)
        for name in FIELDS:
            if t < 7 or name != "obs":
                assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_without_a_queue_or_with_one_that_is_used_up_a_trials_end_asks_for_begin():
    env, _ = rail()
    steps = [env.step(torch.zeros(3, 1)) for _ in range(3)]
    assert steps[-1].trial_start.tolist() == [False, False, True]
    assert torch.equal(steps[-1].obs[2], steps[-1].final_obs[2])
    with pytest.raises(RuntimeError, match="the trial is over: call begin"):
        env.step(torch.zeros(3, 1))
    env.begin(FIRST, 7, clock=CLOCK)
    env.queue(SECOND)
    for _ in range(11):  # the third world's trials end after 3 and 11 steps
        env.step(torch.zeros(3, 1))
    with pytest.raises(RuntimeError, match="or queue"):
        env.step(torch.zeros(3, 1))


def test_a_queue_and_a_clock_are_checked():
    env, _ = rail()
    with pytest.raises(ValueError, match="3 worlds need as many tasks, got 1"):
        env.queue(columns(goal=[0.0]))
    with pytest.raises(UserError, match=r"parameters \['mass'\]"):
        env.queue(columns(mass=[1.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match="from 0 to 7"):
        env.begin(FIRST, 0, clock=torch.tensor([0, 8, 0]))


@pytest.mark.parametrize("name", ["half-cheetah-body", "quadruped-body"])
def test_a_world_that_changes_its_body_disturbs_no_neighbour(name):
    """World 1 takes another body after three steps, or after five, or keeps the one it has."""
    family, outcomes = make_family(name), {}
    first, other = (family.space.sample("train", 3, seeding.rng(0, "test", number)) for number in range(2))
    env = MujocoEnv(family, 3, episodes_per_trial=2, episode_steps=4, threads=2)
    actions = 2 * torch.rand(9, 3, env.action_size, generator=seeding.generator(0, "test")) - 1
    for case, (clock, queued) in {"early": (5, other), "late": (3, other), "same": (5, first)}.items():
        env.begin(first, 0, clock=torch.tensor([0, clock, 1]))
        env.queue(queued)
        outcomes[case] = [env.step(action) for action in actions[:6]]
        mass = [env.physics.model_of(world).body_mass.tolist() for world in range(3)]
        assert [step.trial_start[1].item() for step in outcomes[case]].index(True) == 7 - clock
    env.begin(other, 0)
    assert env.physics.model_of(1).body_mass.tolist() != mass[1]
    for one, two, three in zip(*outcomes.values(), strict=True):
        for field in FIELDS:
            kept = [getattr(step, field)[[0, 2]] for step in (one, two, three)]
            assert torch.equal(kept[0], kept[1]), field
            assert torch.equal(kept[0], kept[2]), field


def test_a_queued_body_is_that_of_a_trial_begun_on_it():
    family = make_family("quadruped-body")
    first, other = (family.space.sample("train", 3, seeding.rng(0, "test", number)) for number in range(2))
    env, reference = (MujocoEnv(family, 3, episodes_per_trial=1, episode_steps=4, threads=1) for _ in range(2))
    env.begin(first, 0, clock=torch.tensor([0, 2, 0]))
    env.queue(other)
    for _ in range(2):
        env.step(torch.zeros(3, env.action_size))
    for world, tasks in enumerate((first, other, first)):
        reference.begin(tasks, 0)
        for field in ("body_mass", "body_inertia", "body_invweight0", "geom_friction", "actuator_gainprm"):
            mine, theirs = (getattr(each.physics.model_of(world), field) for each in (env, reference))
            assert mine.tolist() == theirs.tolist(), field


def test_a_visible_task_changes_with_the_trial():
    env, first = rail(task_visible=True)
    env.queue(SECOND)
    assert first[:, 2].tolist() == FIRST["goal"].float().tolist()
    steps = [env.step(torch.zeros(3, 1)) for _ in range(3)]
    assert steps[-1].final_obs[:, 2].tolist() == FIRST["goal"].float().tolist()
    assert steps[-1].obs[:, 2].tolist() == [*FIRST["goal"].float().tolist()[:2], 0.75]


def test_external_environments_roll_too():
    with make_env(CartGoal(), 3, episodes_per_trial=2, threads=2) as env:
        ends = env.trial_steps
        env.begin(columns(goal=[-0.25, 0.25, -0.5]), 0, clock=torch.tensor([0, ends - 2, 1]))
        env.queue(columns(goal=[0.5, -0.75, 0.5]))
        steps = [env.step(torch.zeros(3, 1)) for _ in range(3)]
        assert flags(steps, "trial_start") == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
        assert env.tasks["goal"].tolist() == [-0.25, -0.75, -0.5]


@pytest.mark.parametrize("looks", [True, False])
def test_a_fault_is_told_with_the_task_it_happened_on(looks):
    """Also where the world has taken another since, and where only float32 cannot hold the reward."""

    class Bad(Rail):
        def reward(self, physics, before, action, tasks):
            return {"fine": action[:, 0], "huge": 1e39 * (tasks["goal"] == 0.2).double()}

    env = MujocoEnv(Bad(), 3, episodes_per_trial=2, threads=1)
    env._looks = looks
    env.begin(FIRST, 7, clock=CLOCK)
    env.queue(SECOND)
    steps = [env.step(torch.zeros(3, 1)) for _ in range(5)]
    assert steps[0].reward[2] == float("inf")
    with pytest.raises(RewardError, match=r"'huge' is 1e\+39 for the task \{'goal': 0\.2\}, too large for float32$"):
        env.begin(FIRST, 0)
    env.check()  # it has been told


def test_terms_that_only_together_are_too_large_are_named_as_their_sum():
    class Bad(Rail):
        def reward(self, physics, before, action, tasks):
            return dict.fromkeys("ab", torch.full((3,), 3e38, dtype=torch.float64))

    with pytest.raises(RewardError, match=r"^the sum of the reward terms is inf for the task \{'goal': 0\.0\}$"):
        MujocoEnv(Bad(), 3, threads=1)


@pytest.mark.parametrize("looks", [True, False])
def test_a_first_observation_within_a_trial_is_checked(looks):
    class Lost(Rail):
        def observe(self, physics, tasks):
            lost = (physics.bind("qvel") == 0.0) & LOST[0]
            return {**super().observe(physics, tasks), "position": physics.bind("qpos").masked_fill(lost, float("nan"))}

    family, LOST[0] = Lost(), False
    env = MujocoEnv(family, 3, episodes_per_trial=2, threads=1)
    env._looks = looks
    env.begin(FIRST, 0)
    env.step(torch.ones(3, 1))
    LOST[0] = True
    env.step(torch.ones(3, 1))
    with pytest.raises(UserError, match=r"element 0 of the first observation is nan for the task \{'goal': 0\.0\}"):
        env.check()
