"""Families as Gymnasium environments: the checkers of Gymnasium and SB3, seeds, tasks, equality with `MujocoEnv`."""

import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import stable_baselines3.common.env_checker as sb3_checker
import torch
from families import Rail, columns
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from short_family import ShortDir
from stable_baselines3.common.env_util import make_vec_env

from metarl.core.errors import UserError
from metarl.core.registry import make_family
from metarl.core.seeding import _GOLDEN
from metarl.envs import FAMILIES
from metarl.gym import environment_id, register
from metarl.sim.adapters.gymnasium import TaskEnv, TaskVectorEnv
from metarl.sim.mujoco.mujoco_env import EXPLODED, MujocoEnv

PUSH, STAY = np.ones(1, np.float32), np.zeros(1, np.float32)
FAR = 10.0  # [m]: a rail no cart falls off

families = pytest.mark.parametrize("name", FAMILIES)


def sync(make, num_envs=3):
    return SyncVectorEnv([make] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)


def identical(one, other):
    return data_equivalence(one, other, exact=True)


@families
def test_the_checkers_of_gymnasium_and_sb3_find_nothing(name):
    """Warnings are errors in this project's tests."""
    env = gymnasium.make(environment_id(name)).unwrapped
    check_env(env)
    sb3_checker.check_env(env)
    assert env.observation_space.dtype == np.float32
    assert np.all(env.observation_space.high == EXPLODED)
    assert env.action_space == gymnasium.spaces.Box(-1.0, 1.0, env.action_space.shape)
    assert env.spec.max_episode_steps == make_family(name).episode_steps


@families
def test_an_episode_is_a_trial_envs(name):
    """On the key that its stream amounts to, bit for bit, up to its end or 20 steps."""
    env = TaskEnv(make_family(name))
    obs, info = env.reset(seed=11)
    trials = MujocoEnv(make_family(name), 1, episodes_per_trial=1, threads=1)
    key = (env._worlds._streams * _GOLDEN).item()
    assert np.array_equal(obs, trials.begin(env._worlds.tasks, key)[0].numpy())
    env.action_space.seed(0)
    for _ in range(20):
        action = env.action_space.sample()
        obs, reward, terminated, truncated, info = env.step(action)
        step = trials.step(torch.from_numpy(action)[None])
        assert np.array_equal(obs, step.final_obs[0].numpy())
        assert (reward, terminated, truncated) == (step.reward[0], step.terminated[0], step.truncated[0])
        assert sum(info["reward_terms"].values()) == pytest.approx(reward, rel=1e-5, abs=1e-6)
        if terminated or truncated:
            break


@families
def test_a_vector_environment_equals_gymnasiums_own_of_single_ones(name):
    """Bit for bit, infos too, up to the first end of an episode or 15 steps."""
    envs = gymnasium.make_vec(environment_id(name), num_envs=3)
    singles = sync(lambda: TaskEnv(make_family(name)))
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert (envs.num_envs, envs.single_action_space) == (3, singles.single_action_space)
    assert (envs.observation_space, envs.action_space) == (singles.observation_space, singles.action_space)
    assert identical(envs.reset(seed=5), singles.reset(seed=5))
    envs.action_space.seed(0)
    for _ in range(15):
        actions = envs.action_space.sample()
        ours, theirs = envs.step(actions), singles.step(actions)
        if (ours[2] | ours[3]).any():
            break
        assert identical(ours, theirs)


def test_through_time_limits_too_where_no_episode_ends_early():
    """Final observations and infos, and the tasks that follow; point-goal's are points, the rail's numbers."""
    for make in (lambda: Rail(FAR), lambda: make_family("point-goal")):
        envs, singles = TaskVectorEnv(make(), 3), sync(lambda make=make: TaskEnv(make()))
        ours = envs.reset(seed=[4, 9, 2])
        assert identical(ours, singles.reset(seed=[4, 9, 2]))
        assert envs.np_random_seed == singles.np_random_seed == (4, 9, 2)
        for i in range(45):
            actions = np.full(envs.action_space.shape, 0.1 * (i % 3), np.float32)
            ours = envs.step(actions)
            assert identical(ours, singles.step(actions))
        assert identical(envs.reset(), singles.reset())  # without a seed, the generators go on


def test_a_world_that_falls_restarts_on_its_task_until_the_time_limit():
    """Pushed fully, a cart is past the edge (0.05 m) after its second step; episodes are of four steps."""
    envs = TaskVectorEnv(Rail(), 2)
    goal = envs.reset(seed=0)[1]["task"]["goal"]
    actions = np.array([[1.0], [0.0]], np.float32)
    envs.step(actions)
    obs, _, terminated, truncated, infos = envs.step(actions)
    assert (terminated.tolist(), truncated.tolist()) == ([True, False], [False, False])
    assert infos["_final_obs"].tolist() == infos["_final_info"].tolist() == [True, False]
    assert infos["final_obs"][0][0] > 0.05 >= obs[0, 0]
    assert infos["final_obs"][1] is None
    assert infos["final_info"]["reward_terms"]["effort"].tolist() == [-1.0, 0.0]
    assert infos["_reward_terms"].tolist() == [False, True]
    assert np.array_equal(infos["task"]["goal"], goal)
    envs.step(0 * actions)
    _, _, terminated, truncated, infos = envs.step(0 * actions)
    assert (terminated.tolist(), truncated.tolist()) == ([False, False], [True, True])
    assert np.array_equal(infos["final_info"]["task"]["goal"], goal)
    assert not np.isin(infos["task"]["goal"], goal).any()


def test_a_worlds_seed_is_its_own():
    """What the others are seeded with changes nothing; a fall in one leaves the others as they are."""
    first, second = TaskVectorEnv(Rail(), 2), TaskVectorEnv(Rail(), 2)
    assert np.array_equal(first.reset(seed=[1, 2])[0][1], second.reset(seed=[7, 2])[0][1])
    for _ in range(8):
        ours, theirs = first.step(np.array([PUSH, STAY])), second.step(np.array([STAY, STAY]))
        assert np.array_equal(ours[0][1], theirs[0][1])
        assert ours[1][1] == theirs[1][1]


def test_the_same_seed_is_the_same_trajectory_and_the_next_reset_another():
    def trajectory(env, **seed):
        return [env.reset(**seed), *(env.step(STAY) for _ in range(4))]

    env = TaskEnv(Rail())
    once = trajectory(env, seed=3)
    assert identical(once, trajectory(TaskEnv(Rail()), seed=3))
    after = trajectory(env)
    assert not identical(once, after)
    assert identical(once, trajectory(env, seed=3))
    assert identical(after, trajectory(env))
    assert [step[2:4] for step in once[1:]] == [(False, False)] * 3 + [(False, True)]


def test_the_end_of_an_episode_asks_for_a_reset():
    env, envs = TaskEnv(Rail()), TaskVectorEnv(Rail(), 1)
    for before in (env, envs):
        with pytest.raises(ResetNeeded):
            before.step(STAY)
    env.reset(seed=0)
    env.step(PUSH)
    obs, _, terminated, truncated, _ = env.step(PUSH)
    assert (terminated, truncated) == (True, False)
    assert obs[0] > 0.05  # where the fall led to
    with pytest.raises(ResetNeeded):
        env.step(PUSH)


def test_a_task_may_be_asked_for():
    env = TaskEnv(Rail())
    assert env.reset(options={"task": {"goal": 0.25}})[1] == {"task": {"goal": 0.25}}
    assert env.step(STAY)[4]["task"] == {"goal": 0.25}
    assert env.reset(options={"task": {"goal": 2.5}})[1]["task"]["goal"] == 2.5  # an ood one
    assert -1 <= env.reset()[1]["task"]["goal"] <= 1
    assert env.reset(options={"split": "ood"})[1]["task"]["goal"] >= 2
    assert TaskEnv(Rail(), split="ood").reset()[1]["task"]["goal"] >= 2
    info = TaskEnv(make_family("point-goal")).reset(seed=0)[1]
    again = TaskEnv(make_family("point-goal")).reset(options=info)[1]
    assert identical(info, again)


def test_what_a_task_leaves_out_is_drawn():
    env = TaskEnv(make_family("walker-params"))
    names = list(env.family.space.parameters)
    drawn = env.reset(seed=1)[1]["task"]
    some = env.reset(seed=2, options={"task": {names[0]: drawn[names[0]]}})[1]["task"]
    assert identical(some[names[0]], drawn[names[0]])
    assert not identical(some[names[1]], drawn[names[1]])


def test_worlds_may_be_given_one_task_or_one_each_until_their_tasks_change():
    envs = TaskVectorEnv(Rail(), 2, split="ood")
    assert envs.reset(options={"task": {"goal": 0.5}})[1]["task"]["goal"].tolist() == [0.5, 0.5]
    infos = envs.reset(seed=0, options={"task": [{"goal": 0.5}, {"goal": -0.5}]})[1]
    assert infos["task"]["goal"].tolist() == [0.5, -0.5]
    for _ in range(4):
        infos = envs.step(np.zeros((2, 1)))[4]
    assert infos["final_info"]["task"]["goal"].tolist() == [0.5, -0.5]
    assert (infos["task"]["goal"] >= 2).all()
    assert (envs.reset(options={"split": "train"})[1]["task"]["goal"] <= 1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tusk": {}}, "unknown reset option 'tusk' (did you mean 'task'?); available: split, task"),
        ({"split": "tset"}, "unknown split 'tset' (did you mean 'test'?); available: ood, test, train"),
        ({"task": {"gaol": 1.0}}, "unknown task parameter 'gaol' (did you mean 'goal'?); available: goal"),
        ({"task": {"goal": 1.5}}, "task parameter 'goal' = 1.5 is out of range: it must be U(-1, 1) or U(2, 3)"),
        ({"task": {"goal": [0.5, 0.5]}}, "task parameter 'goal' = [0.5, 0.5] is out of range: it must be U(-1, 1)"),
        ({"task": {"goal": np.nan}}, "task parameter 'goal' = nan is out of range"),
        ({"task": {"goal": "far"}}, "task parameter 'goal' = 'far' is no number: it must be U(-1, 1) or U(2, 3)"),
        ({"task": 0.5}, "the task 0.5 must map task parameters to values: goal"),
    ],
)
def test_a_mistake_in_options_is_one_sentence_and_changes_nothing(options, message):
    for env in (TaskEnv(Rail()), TaskVectorEnv(Rail(), 2)):
        env.reset(seed=0)
        with pytest.raises(UserError) as error:
            env.reset(seed=1, options=options)
        assert message in str(error.value)
        assert np.ravel(env.np_random_seed)[0] == 0


def test_other_mistakes():
    envs = TaskVectorEnv(Rail(), 2)
    with pytest.raises(UserError, match="2 worlds need as many tasks, or one for all, got 1"):
        envs.reset(options={"task": [{"goal": 0.5}]})
    with pytest.raises(UserError, match="2 worlds need as many seeds, got 3"):
        envs.reset(seed=[1, 2, 3])
    with pytest.raises(UserError, match="unknown split 'tests'"):
        TaskEnv(Rail(), split="tests")
    with pytest.raises(UserError, match="max_episode_steps is the family's, 200, not 7"):
        gymnasium.make_vec("metarl/HalfCheetahVel-v0", num_envs=2, max_episode_steps=7)
    envs.reset()
    with pytest.raises(UserError, match=r"an action here has shape \(2, 1\), not \(2,\)"):
        envs.step(np.zeros(2))


def test_a_physics_that_diverges_ends_the_episode():
    class Exploding(Rail):
        def advance(self, physics, tasks):
            physics.bind("qvel")[:] = 1e9 * (physics.bind("ctrl") > 0.5)

    env = TaskEnv(Exploding(FAR))
    env.reset(seed=0)
    assert env.step(STAY)[4]["diverged"] is False
    obs, reward, terminated, _, info = env.step(PUSH)
    assert (terminated, info["diverged"], reward) == (True, True, 0.0)
    assert obs in env.observation_space


def test_specs_make_the_environment_again():
    env = gymnasium.make("metarl/HalfCheetahVel-v0", split="test")
    again = gymnasium.make(env.spec)
    assert again.unwrapped.split == "test"
    assert identical(env.reset(seed=0), again.reset(seed=0))
    envs = gymnasium.make_vec(env.spec, num_envs=2)
    assert (envs.num_envs, envs.split) == (2, "test")
    assert identical(gymnasium.make_vec(envs.spec).reset(seed=0), envs.reset(seed=0))


def test_the_wrappers_of_gymnasium_and_sb3s_make_vec_env_take_them():
    envs = RecordEpisodeStatistics(TaskVectorEnv(Rail(FAR), 2))
    envs.reset(seed=0)
    for _ in range(4):
        infos = envs.step(np.zeros((2, 1)))[4]
    assert infos["episode"]["l"].tolist() == [4, 4]
    envs = make_vec_env("metarl/HalfCheetahVel-v0", n_envs=2, seed=0)  # makes them with pictures
    assert envs.reset().shape == (2, *envs.observation_space.shape)


# ------------------------------------------------------------------------------------- restarting in the next step


def test_restarting_in_the_next_step_is_gymnasiums_own_where_no_episode_ends_early():
    envs = TaskVectorEnv(Rail(FAR), 2, autoreset_mode="NextStep")
    singles = SyncVectorEnv([lambda: TaskEnv(Rail(FAR))] * 2, autoreset_mode=AutoresetMode.NEXT_STEP)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert identical(envs.reset(seed=5), singles.reset(seed=5))
    for number in range(12):
        actions = np.full((2, 1), 0.1 * (number % 3), np.float32)
        assert identical(envs.step(actions), singles.step(actions)), number


def test_a_world_that_falls_ignores_the_action_of_the_step_in_which_it_restarts():
    """Pushed fully, a cart is past the edge after its second step, and pushed on it stays at rest for the third."""
    envs = TaskVectorEnv(Rail(), 2, autoreset_mode=AutoresetMode.NEXT_STEP)
    envs.reset(seed=0)
    actions = np.array([[1.0], [0.0]], np.float32)
    envs.step(actions)
    obs, _, terminated, truncated, _ = envs.step(actions)
    assert obs[0, 0] > 0.05 and (terminated.tolist(), truncated.tolist()) == ([True, False], [False, False])
    obs, reward, terminated, truncated, infos = envs.step(actions)
    assert abs(obs[0, 0]) < 0.02 and obs[0, 1] == 0.0 and reward[0] == 0.0 and not (terminated | truncated).any()
    assert infos["_reward_terms"].tolist() == [False, True]
    *_, truncated, _ = envs.step(actions)
    assert truncated.tolist() == [True, True]
    with pytest.raises(UserError, match="unknown autoreset mode 'Never'; available: NextStep, SameStep"):
        TaskVectorEnv(Rail(), 2, autoreset_mode="Never")


def test_a_family_is_named_by_its_file():
    name = f"{Path(__file__).parent.parent / 'families.py'}:Rail"
    env = gymnasium.make("metarl.gym:metarl/Family-v0", family=name, split="ood")
    assert env.reset(seed=0)[1]["task"]["goal"] >= 2 and env.spec.max_episode_steps == Rail.episode_steps
    envs = gymnasium.make_vec("metarl/Family-v0", num_envs=3, family=name, autoreset_mode="NextStep")
    assert RecordEpisodeStatistics(envs).reset(seed=0)[0].shape == (3, 2)
    register({"my-rail": name})
    assert gymnasium.make_vec("metarl/MyRail-v0", num_envs=2).num_envs == 2


# ------------------------------------------------------------------------------------------------------- pictures


def test_a_world_is_drawn_as_it_is_now():
    env = gymnasium.make("metarl.gym:metarl/HalfCheetahVel-v0", render_mode="rgb_array")
    assert (env.metadata["render_modes"], env.metadata["render_fps"]) == (["rgb_array"], 20)
    env.reset(seed=0)
    before = env.render()
    assert (before.shape, before.dtype) == ((320, 480, 3), np.uint8)
    kept = before.copy()
    for _ in range(10):
        env.step(np.ones(6, np.float32))
    after = env.render()
    assert np.array_equal(before, kept), "a picture is the caller's own"
    assert (after != before).any(axis=2).mean() > 0.01
    env.reset(seed=0)
    assert np.array_equal(env.render(), before)
    env.close()


def test_drawing_changes_no_trajectory_and_needs_its_mode():
    drawn = TaskEnv(make_family("half-cheetah-body"), render_mode="rgb_array", width=96, height=64)
    blind = TaskEnv(make_family("half-cheetah-body"))
    assert identical(drawn.reset(seed=3), blind.reset(seed=3))
    for _ in range(5):
        assert drawn.render().shape == (64, 96, 3)
        assert identical(drawn.step(np.ones(6)), blind.step(np.ones(6)))
    assert blind.render() is None
    drawn.close()
    with pytest.raises(UserError, match="unknown render mode 'human'; available: rgb_array"):
        TaskEnv(Rail(), render_mode="human")


def test_many_worlds_are_drawn_one_picture_each_across_the_end_of_a_trial():
    """As `SyncVectorEnv` shows single environments, which have the same cameras."""
    size = {"render_mode": "rgb_array", "width": 96, "height": 64}
    envs = TaskVectorEnv(ShortDir(), 2, **size)
    singles = sync(lambda: TaskEnv(ShortDir(), **size), 2)
    assert identical(envs.reset(seed=0), singles.reset(seed=0))
    seen = []
    for _ in range(ShortDir.episode_steps + 2):
        seen.append(envs.render())
        assert len(seen[-1]) == 2
        assert all(np.array_equal(*pair) for pair in zip(seen[-1], singles.render(), strict=True))
        actions = np.array([np.ones(6), -np.ones(6)])
        assert identical(envs.step(actions), singles.step(actions))
    assert not np.array_equal(*seen[2]), "each world moves in its own way"
    assert not np.array_equal(seen[2][0], seen[3][0])
    assert TaskVectorEnv(Rail(), 2).render() is None
    envs.close()
    singles.close()


def test_in_worker_processes():
    envs = AsyncVectorEnv([lambda: TaskEnv("metarl.envs.half_cheetah:HalfCheetahVel")] * 2, context="spawn")
    singles = sync(lambda: TaskEnv("metarl.envs.half_cheetah:HalfCheetahVel"), 2)
    assert identical(envs.reset(seed=0), singles.reset(seed=0))
    actions = np.ones(envs.action_space.shape, np.float32)
    assert identical(envs.step(actions), singles.step(actions))
    envs.close()


def test_a_user_may_register_a_family_of_their_own(tmp_path):
    """In a fresh Python that imports Gymnasium alone; that import brings no torch and no MuJoCo."""
    (tmp_path / "carts.py").write_text(
        "from metarl.envs.half_cheetah import HalfCheetahVel\nclass MyCheetah(HalfCheetahVel): episode_steps = 7\n"
    )
    program = """
import sys, gymnasium
assert not {"torch", "mujoco", "metarl"} & set(sys.modules)
env = gymnasium.make("metarl.gym:metarl/HalfCheetahVel-v0")
assert "metarl.envs.ant" not in sys.modules
from metarl.gym import register
register({"my-cheetah": "carts:MyCheetah"})
assert gymnasium.make("metarl/MyCheetah-v0").spec.max_episode_steps == 7
assert gymnasium.make_vec("metarl/MyCheetah-v0", num_envs=64).num_envs == 64
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, cwd=tmp_path)


def test_rails_goal_reaches_the_reward():
    env = TaskEnv(Rail(FAR))
    env.reset(seed=0, options={"task": {"goal": 0.5}})
    trials = MujocoEnv(Rail(FAR), 1, episodes_per_trial=1, threads=1)
    trials.begin(columns(goal=[0.5]), key=(env._worlds._streams * _GOLDEN).item())
    assert env.step(PUSH)[1] == trials.step(torch.ones(1, 1)).reward[0]
