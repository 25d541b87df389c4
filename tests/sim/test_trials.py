import mujoco
import pytest
import torch
from families import RAIL, Rail, columns

from metarl.core.errors import UserError
from metarl.core.types import Step
from metarl.sim.external.external_env import ExternalFamily
from metarl.sim.family import MujocoFamily
from metarl.sim.mujoco.mujoco_env import MujocoEnv, RewardError

GOALS = columns(goal=[0.0, 0.1, 0.2])
FALLS_IN_2 = torch.tensor([[1.0], [0.0], [0.0]])  # world 0 passes the edge at its second step, the others never move
STILL = torch.zeros(3, 1)


def make(family=None, *, tasks=GOALS, key=0, episodes=2):
    env = MujocoEnv(family or Rail(), len(tasks), episodes_per_trial=episodes, threads=1)
    return env, env.begin(tasks, key)


def run(env, actions) -> list[Step]:
    return [env.step(action) for action in actions]


def flags(steps, name, world):
    return [int(getattr(step, name)[world]) for step in steps]


# episodes and trials


def test_an_early_end_restarts_the_world_on_its_task_and_no_step_idles():
    """The module's diagram, with a fall at every second step of world 0."""
    env, _ = make()
    steps = run(env, [FALLS_IN_2] * 8)
    assert flags(steps, "terminated", 0) == [0, 1, 0, 1, 0, 1, 0, 1]
    assert flags(steps, "truncated", 0) == [0] * 8
    assert flags(steps, "episode_start", 0) == [0, 1, 0, 1, 0, 1, 0, 1]
    assert flags(steps, "terminated", 1) == [0] * 8
    assert flags(steps, "truncated", 1) == [0, 0, 0, 1, 0, 0, 0, 1]
    assert flags(steps, "episode_start", 1) == [0, 0, 0, 1, 0, 0, 0, 1]
    for world in range(3):
        assert flags(steps, "trial_start", world) == [0] * 7 + [1]
    assert env.tasks.rows() == GOALS.rows()


def test_the_episode_after_a_fall_has_its_full_length():
    """Fall at step 2, then 4 steps to the limit, then the trial's end cuts the third episode at 2."""
    env, _ = make()
    steps = run(env, [FALLS_IN_2] * 2 + [STILL] * 6)
    assert flags(steps, "terminated", 0) == [0, 1, 0, 0, 0, 0, 0, 0]
    assert flags(steps, "truncated", 0) == [0, 0, 0, 0, 0, 1, 0, 1]
    assert flags(steps, "episode_start", 0) == [0, 1, 0, 0, 0, 1, 0, 1]
    assert flags(steps, "truncated", 1) == [0, 0, 0, 1, 0, 0, 0, 1]


def counting(num_steps, pushed, **changes):
    """`lost` of world 0, which falls at every second of the `pushed` steps, in trials worth K = 2 episodes."""
    env = MujocoEnv(Rail(), 3, episodes_per_trial=2, threads=1, **changes)
    env.begin(GOALS, 0)
    steps = run(env, [FALLS_IN_2 if t in pushed else STILL for t in range(num_steps)])
    assert not any(flags(steps, "lost", 1))
    return flags(steps, "lost", 0)


def test_every_kth_episode_that_ends_by_a_fall_is_lost():
    assert counting(8, range(8), trial="episodes") == [0, 0, 0, 1, 0, 0, 0, 1]
    assert counting(8, range(8), trial="falls") == counting(8, range(8)) == [0, 1] * 4
    assert counting(8, range(8), trial="steps") == [0] * 8


def test_a_kth_episode_that_reaches_its_time_limit_is_not_lost_and_others_are_counted_anew():
    """Falls at steps 2 and 8, and at step 6 the second episode's limit: the last fall ends the first of two more."""
    assert counting(8, (0, 1, 6, 7), trial="episodes") == [0] * 8


def test_a_family_says_what_its_trials_are_worth():
    class Strict(Rail):
        trial = "episodes"

    assert (MujocoFamily.trial, ExternalFamily.trial) == ("falls", "steps"), "Gymnasium's may end by success"
    assert MujocoEnv(Strict(), 1, threads=1).trial == "episodes"
    assert MujocoEnv(Strict(), 1, threads=1, trial="steps").trial == "steps"


def test_a_new_trial_counts_its_episodes_from_none():
    env = MujocoEnv(Rail(), 3, episodes_per_trial=3, threads=1, trial="episodes")
    env.begin(GOALS, 0)
    env.queue(GOALS)
    steps = run(env, [FALLS_IN_2] * 24)
    assert [t + 1 for t, lost in enumerate(flags(steps, "lost", 0)) if lost] == [6, 12, 18, 24]
    env.begin(GOALS, 0, clock=torch.tensor([8, 8, 8]))  # its third episode
    assert flags(run(env, [FALLS_IN_2] * 2), "lost", 0) == [0, 1]


def test_a_fall_at_the_time_limit_is_terminated_and_not_truncated():
    env, _ = make(Rail(edge=0.3))
    steps = run(env, [FALLS_IN_2] * 4)
    assert flags(steps, "terminated", 0) == [0, 0, 0, 1]
    assert flags(steps, "truncated", 0) == [0, 0, 0, 0]
    assert flags(steps, "truncated", 1) == [0, 0, 0, 1]


def test_the_ending_step_returns_the_next_first_and_its_own_last_observation():
    env, first = make()
    one, two = run(env, [FALLS_IN_2] * 2)
    assert torch.equal(one.obs, one.final_obs)
    assert two.final_obs[0, 0] > 0.05
    assert two.obs[0, 0].abs() < 0.01
    assert two.obs[0, 1] == 0.0
    assert two.obs[0, 0] != first[0, 0]
    assert torch.equal(two.obs[1:], two.final_obs[1:])
    three = env.step(FALLS_IN_2)  # the reset has eaten no step: the next action moves the new episode
    assert 0.02 < three.obs[0, 0] < 0.04


def test_the_reward_of_an_ending_step_is_that_of_its_last_state():
    env, _ = make()
    two = run(env, [FALLS_IN_2] * 2)[1]
    torch.testing.assert_close(two.reward, -(two.final_obs[:, 0] - GOALS["goal"]).abs().float() - FALLS_IN_2[:, 0])


def test_a_reward_term_may_be_a_view_of_the_state():
    class Place(Rail):
        def reward(self, physics, before, action, tasks):
            return {"place": physics.bind("qpos")[:, 0]}

    env, _ = make(Place())
    steps = run(env, [FALLS_IN_2] * 3)
    for step in steps:
        assert torch.equal(step.reward_terms["place"].float(), step.reward)
        assert torch.equal(step.reward, step.final_obs[:, 0])


class Remembering(Rail):
    """Counts its steps in `userdata`, and is rewarded with the count."""

    def spec(self):
        return mujoco.MjSpec.from_string(RAIL.replace("<worldbody>", '<size nuserdata="1"/><worldbody>').format("-1 1"))

    def advance(self, physics, tasks):
        physics.bind("userdata").add_(1.0)

    def reward(self, physics, before, action, tasks):
        return {"count": physics.bind("userdata")[:, 0]}


def test_what_a_family_remembers_is_of_the_episode_and_current_when_it_rewards():
    env, _ = make(Remembering())
    counts = torch.stack([step.reward for step in run(env, [FALLS_IN_2] * 8)], dim=1).tolist()
    assert counts[0] == [1, 2, 1, 2, 1, 2, 1, 2]
    assert counts[1] == counts[2] == [1, 2, 3, 4, 1, 2, 3, 4]
    state = env.physics.get_state()
    env.begin(GOALS, 1)
    env.physics.set_state(state)
    assert env.step(STILL).reward.tolist() == [3, 5, 5]


@pytest.mark.parametrize("episodes", [1, 3])
def test_a_trial_lasts_exactly_k_episodes(episodes):
    env, _ = make(episodes=episodes)
    assert env.trial_steps == 4 * episodes
    steps = run(env, [FALLS_IN_2] * env.trial_steps)
    assert [step.trial_start.any().item() for step in steps] == [False] * (4 * episodes - 1) + [True]
    with pytest.raises(RuntimeError, match="the trial is over"):
        env.step(STILL)
    env.begin(GOALS, 1)
    assert not env.step(STILL).episode_start.any()


def test_a_step_without_a_trial_is_refused():
    with pytest.raises(RuntimeError, match="no trial is running"):
        MujocoEnv(Rail(), 1, threads=1).step(torch.zeros(1, 1))


def test_begin_wants_one_task_of_the_family_per_world():
    env, _ = make()
    with pytest.raises(ValueError, match="3 worlds need as many tasks, got 1"):
        env.begin(columns(goal=[0.0]), 0)
    with pytest.raises(UserError, match=r"parameters \['mass'\], the family has \['goal'\]"):
        env.begin(columns(mass=[1.0, 1.0, 1.0]), 0)


def test_a_new_trial_forgets_the_old_one():
    env, first = make()
    run(env, [FALLS_IN_2] * 5)
    assert torch.equal(env.begin(GOALS, 0), first)
    fresh, _ = make()
    for a, b in zip(run(env, [FALLS_IN_2] * 8), run(fresh, [FALLS_IN_2] * 8), strict=True):
        assert torch.equal(a.obs, b.obs)
        assert torch.equal(a.episode_start, b.episode_start)


# what a reset draws


def test_a_reset_depends_only_on_key_world_and_episode():
    """World 0 falls early and so is ahead by an episode: the others' draws, and its own by number, stay the same."""
    falling, still = make()[0], make()[0]
    fallen, steady = run(falling, [FALLS_IN_2] * 4), run(still, [STILL] * 4)
    assert torch.equal(fallen[3].obs[1:], steady[3].obs[1:])
    assert torch.equal(fallen[1].obs[0], steady[3].obs[0])  # episode 2 of world 0, whenever it begins


def test_a_world_resets_the_same_in_a_batch_of_any_size():
    env, first = make()
    alone, alone_first = make(tasks=GOALS.select(torch.tensor([0])))
    assert torch.equal(first[:1], alone_first)
    steps = zip(run(env, [FALLS_IN_2] * 5), run(alone, [FALLS_IN_2[:1]] * 5), strict=True)
    assert all(torch.equal(a.obs[:1], b.obs) for a, b in steps)


def test_key_world_and_episode_each_change_the_reset():
    env, first = make()
    starts = [first, env.begin(GOALS, 1), run(env, [STILL] * 4)[3].obs]
    assert torch.cat(starts)[:, 0].unique().numel() == 9


# actions


def test_actions_beyond_one_are_clipped():
    outcomes = []
    for scale in (1.0, 7.0):
        env, _ = make(Rail(edge=9.0))
        step = env.step(torch.tensor([[scale], [-scale], [0.5]]))
        outcomes.append((step.obs, step.reward))
    assert torch.equal(outcomes[0][0], outcomes[1][0])
    assert torch.equal(outcomes[0][1], outcomes[1][1])
    assert env.physics.bind("ctrl")[:, 0].tolist() == [1.0, -1.0, 0.5]


def test_actions_map_onto_the_control_range():
    env, _ = make(Rail(edge=9.0, ctrlrange="-2 6"))
    env.step(torch.tensor([[-1.0], [0.0], [1.0]]))
    assert env.physics.bind("ctrl")[:, 0].tolist() == [-2.0, 2.0, 6.0]


def test_an_actuator_without_a_range_is_refused():
    class Unlimited(Rail):
        def spec(self):
            spec = super().spec()
            spec.actuators[0].ctrlrange, spec.actuators[0].ctrllimited = [0.0, 0.0], mujoco.mjtLimited.mjLIMITED_FALSE
            return spec

    with pytest.raises(UserError, match="actuator 'push' needs a ctrlrange"):
        make(Unlimited())


def test_a_control_step_must_be_a_multiple_of_the_timestep():
    class Uneven(Rail):
        control_step = 0.025

    with pytest.raises(UserError, match=r"0\.025 s is not a whole multiple of the timestep 0\.01 s"):
        make(Uneven())


# what goes wrong


def test_a_bad_reward_names_the_term_and_the_task():
    class Bad(Rail):
        def reward(self, physics, before, action, tasks):
            return {"fine": action[:, 0], "root": (0.15 - tasks["goal"]).sqrt()}

    env, _ = make(Bad())
    run(env, [STILL] * 2)
    with pytest.raises(RewardError, match=r"'root' is nan for the task \{'goal': 0\.2\}$"):
        env.check()


@pytest.mark.parametrize("speed", [1e20, 1e9], ids=["MuJoCo notices", "MuJoCo would notice a step later"])
@pytest.mark.parametrize("when", [1, 4])
def test_divergence_ends_the_episode_of_its_world_alone(when, speed):
    """In the middle of an episode, and in the step that ends it anyway."""
    disturbed, calm = make()[0], make()[0]
    push = torch.tensor([[0.2], [0.1], [0.4]])  # world 1 never falls, the others do
    a, b = run(disturbed, [push] * (when - 1)), run(calm, [push] * (when - 1))
    disturbed.physics.bind("qvel")[1] = speed
    a, b = a + run(disturbed, [push] * (9 - when)), b + run(calm, [push] * (9 - when))
    bad = a[when - 1]
    assert bad.diverged.tolist() == [False, True, False]
    assert bad.terminated[1]
    assert not bad.truncated[1]
    assert bad.episode_start[1]
    assert bad.reward[1] == 0.0
    assert sum(term[1] for term in bad.reward_terms.values()) == 0.0
    assert bad.obs[1, 0].abs() < 0.01
    assert sum(step.diverged.sum().item() for step in a) == 1
    for mine, theirs in zip(a, b, strict=True):
        for name in ("obs", "final_obs", "reward", "terminated", "truncated", "episode_start"):
            assert torch.equal(getattr(mine, name)[[0, 2]], getattr(theirs, name)[[0, 2]])


def test_an_action_that_is_no_number_ends_the_episode_and_poisons_nothing():
    env, _ = make()
    step = env.step(torch.tensor([[0.0], [float("nan")], [0.0]]))
    assert step.diverged.tolist() == [False, True, False]
    assert torch.isfinite(step.reward).all()
    assert not env.step(STILL).diverged.any()


def test_a_field_first_read_by_the_reward_is_current_in_the_first_step():
    class Derived(Rail):
        def reward(self, physics, before, action, tasks):
            return {"place": physics.bind("xpos")[:, 1, 0].clone()}

    env, _ = make(Derived())
    step = env.step(FALLS_IN_2)
    torch.testing.assert_close(step.reward, step.final_obs[:, 0])


def test_the_first_trial_of_an_environment_is_like_any_later_one():
    """Fields that depend on the acceleration would differ where they are first bound within the trial."""

    class Forced(Rail):
        def spec(self):
            return mujoco.MjSpec.from_string(RAIL.format("-1 1").replace("slide", 'slide" damping="5'))

        def reward(self, physics, before, action, tasks):
            return {"acceleration": physics.bind("qacc")[:, 0]}

    env, _ = make(Forced())
    action = torch.tensor([[0.1], [0.2], [0.3]])
    first = run(env, [action] * 8)
    env.begin(GOALS, 0)
    assert all(torch.equal(a.reward, b.reward) for a, b in zip(first, run(env, [action] * 8), strict=True))
