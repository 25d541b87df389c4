"""RL²: each trap of the field's implementations has a test here, on a toy whose trials take milliseconds."""

import dataclasses

import mujoco
import pytest
import torch
from as_on_a_gpu import on_a_gpu
from families import ALL_FAMILIES

from metarl.agents.configs import RL2Config
from metarl.agents.rl2 import RL2
from metarl.core import seeding
from metarl.core.errors import Diverged, UserError
from metarl.core.info import Part
from metarl.core.mirror import Symmetry, signed
from metarl.core.registry import make_family
from metarl.core.tasks import Choice, Parameter, Tasks, TaskSpace
from metarl.core.types import Transition
from metarl.rl.estimator import Regression
from metarl.rl.images import ImageMemory
from metarl.rl.objectives import gaussian_log_prob
from metarl.rl.policy import Believing
from metarl.rl.ppo import advantages, chunk_length
from metarl.run.calibration import recalibrated
from metarl.run.collect import Stepper, collect
from metarl.sim.family import MujocoFamily
from metarl.sim.mujoco.mujoco_env import MujocoEnv

SLIDER = """<mujoco><option timestep="0.05" gravity="0 0 0"/>
<worldbody><body><joint name="x" type="slide" axis="1 0 0"/>
<geom size="0.1" mass="1"/></body></worldbody><actuator><motor joint="x" ctrlrange="-1 1"/></actuator></mujoco>"""


class Sign(MujocoFamily):
    """The reward is d · a for an unknown sign d; a world whose slider passes 0.02 m falls, where `fragile`."""

    space = TaskSpace({"sign": Parameter(Choice((-1.0, 1.0)), unit="1")})
    observation = (Part("position", 1, "m"), Part("velocity", 1, "m/s"))
    control_step, episode_steps = 0.05, 8
    limit = float("inf")

    def spec(self):
        return mujoco.MjSpec.from_string(SLIDER)

    def reset(self, physics, worlds, tasks, random):
        physics.bind("qpos")[worlds] = random.uniform(-0.01, 0.01, 1)

    def observe(self, physics, tasks):
        return {"position": physics.bind("qpos"), "velocity": physics.bind("qvel")}

    def reward(self, physics, before, action, tasks):
        return {"sign": tasks["sign"] * action[:, 0]}

    def terminated(self, physics, tasks):
        return physics.bind("qpos")[:, 0] > self.limit


class FragileSign(Sign):
    limit = 0.02


SMALL = RL2Config(hidden_size=16, chunk_steps=4, minibatch_chunks=8, num_epochs=2, learning_rate=3e-3, initial_std=0.6)
CONFIG = dataclasses.replace(SMALL, privileged_critic=False, task_weight=0.0)  # where a test does not ask for them
NETS = ("gru", "lstm", "lru", "transformer", "memory")
FAMILIES = pytest.mark.parametrize("family", [Sign(), FragileSign()], ids=["sign", "fragile"])


def make(family, num_worlds=6, **changes):
    env = MujocoEnv(family, num_worlds, episodes_per_trial=2, threads=1)
    config = dataclasses.replace(CONFIG, **changes)
    return env, RL2(config, env.info, seeding.generator(0, "init"))


def trial(env, learner, number=0, deterministic=False):
    tasks = env.family.space.sample("train", env.num_worlds, seeding.rng(0, "tasks", number))
    key = seeding.key(0, "collect", number)
    wants = {"record": learner.record, "privileged": learner.wants_privileged}
    return collect(env, learner.behaviour, tasks, key, deterministic=deterministic, **wants)


def warm(env, learner, iterations=2):
    """Train a little, so that normalisers and weights are no longer at their initial values."""
    for number in range(iterations):
        learner.update(trial(env, learner, number), seeding.generator(0, "update", number), 0.0)


@pytest.mark.parametrize(
    "words",
    [
        *({"cell": cell} for cell in NETS),
        {"policy_head": "hyper"},
        {"policy_head": "belief", "task_weight": 0.1},
        {"feedback": "action"},
        {"feedback": "none"},
    ],
    ids=str,
)
@FAMILIES
def test_the_update_sees_exactly_what_the_policy_saw(words, family):
    """Inputs, stored memories and normalisation agree: before the first gradient step every ratio is one."""
    env, learner = make(family, **words)
    warm(env, learner)
    chunks, _ = learner.prepare(trial(env, learner, 7))
    mean, _, _ = learner.policy.network(chunks.inputs, chunks.obs, chunks.memory)
    log_prob = gaussian_log_prob(mean, learner.policy.network.log_std, chunks.action)
    torch.testing.assert_close(log_prob, chunks.log_prob, rtol=0, atol=2e-5)


@FAMILIES
def test_an_episodes_first_step_is_fed_the_last_action_and_reward_and_the_flag(family):
    """Traps (a) and (b): no zeros at a reset, and the flag is set after time limits as after falls."""
    env, learner = make(family)
    warm(env, learner)
    segment = trial(env, learner, 7)
    _, inputs = learner.inputs(segment)
    starts = segment.episode_start.clone()
    assert bool(starts[0].all())
    assert bool(starts[8].all()) or family.limit < 1
    starts[0] = False
    assert bool(starts.any())
    expected_reward = learner.policy.reward_norm(segment.reward.roll(1, dims=0))
    torch.testing.assert_close(inputs[..., -2][starts], expected_reward[starts])
    torch.testing.assert_close(inputs[..., 2][starts], segment.action.roll(1, dims=0)[..., 0].clamp(-1, 1)[starts])
    assert torch.equal(inputs[..., -1], segment.episode_start.float())
    assert torch.equal(segment.episode_start[1:], segment.ended[:-1])


def test_memory_survives_episode_ends_and_dies_at_trial_ends():
    env, learner = make(Sign())
    warm(env, learner)
    segment = trial(env, learner, 7)
    before = learner._memory_before(segment, 1)
    assert bool((before[0] == 0).all())
    assert bool((before[8] != 0).any(dim=1).all())
    again = trial(env, learner, 8)
    assert bool((learner._memory_before(again, 1)[0] == 0).all())


def test_chunks_start_from_the_stored_memory():
    env, learner = make(Sign())
    segment = trial(env, learner)
    chunks, _ = learner.prepare(segment)
    for name, part in zip(("memory", "cell"), chunks.memory.reshape(4, 6, 2, 16).unbind(2), strict=True):
        assert torch.equal(part[1:], segment.extras[name][3:-1:4])
        assert not part[0].any()


def test_advantages_cross_episode_ends_but_not_the_trial_s():
    """Trap (d): the reward of the second episode reaches the first one's steps, discounted, falls or not."""
    fallen, over = torch.tensor([[False], [True], [False], [True]]), torch.tensor([[False], [False], [True], [True]])
    reward, value, after = torch.tensor([[0.0], [0.0], [1.0], [1.0]]), torch.zeros(4, 1), torch.full((4, 1), 10.0)
    found = advantages(reward, fallen, over, value, after * over, 0.5, 1.0)
    assert found[:, 0].tolist() == [0.25 * 6.0, 0.5 * 6.0, 1.0 + 0.5 * 10.0, 1.0]


def test_a_later_reward_reaches_the_first_episode_s_targets():
    """Through the whole preparation: with λ = 1, a reward n steps on adds γⁿ to the target, across the episode end."""
    env, learner = make(Sign(), gae_lambda=1.0)
    segment = trial(env, learner)
    richer = segment.reward.clone()
    richer[10] += 1.0
    targets = [
        learner.prepare(dataclasses.replace(segment, reward=reward))[0].target.reshape(4, 4, 6)
        for reward in (segment.reward, richer)
    ]
    gain = (targets[1] - targets[0]).transpose(0, 1).reshape(16, 6)[:11, 0]  # (L, chunk) to time
    expected = CONFIG.discount ** torch.arange(10, -1, -1)
    torch.testing.assert_close(gain, expected, rtol=0, atol=1e-5)


def test_no_reward_counts_after_a_fall_that_uses_up_the_episodes():
    """With `trial` = "episodes", and K = 2 of them; with "steps" all rewards of a trial count."""

    class Falling(Sign):
        limit = 0.0

    config = dataclasses.replace(CONFIG, gae_lambda=1.0)
    for kind in ("episodes", "steps"):
        env = MujocoEnv(Falling(), 6, episodes_per_trial=2, threads=1, trial=kind)
        learner = RL2(config, env.info, seeding.generator(0, "init"))
        segment = trial(env, learner)
        assert bool(segment.lost.any()) == (kind == "episodes")
        if kind == "episodes":
            t, world = segment.lost[:-1].nonzero()[0].tolist()
        richer = segment.reward.clone()
        richer[t + 1 :] += 1.0
        before, after = (
            learner.prepare(dataclasses.replace(segment, reward=reward))[0].target.reshape(4, 4, 6).transpose(0, 1)
            for reward in (segment.reward, richer)
        )
        gained = (after - before).reshape(16, 6)[: t + 1, world]
        assert bool((gained > 0).all()) if kind == "steps" else not bool(gained.any())


def test_the_trials_time_limit_is_bootstrapped_from_the_final_observation():
    env, learner = make(Sign())
    warm(env, learner)
    segment = trial(env, learner, 7)
    chunks, _ = learner.prepare(dataclasses.replace(segment, reward=torch.zeros_like(segment.reward)))
    reward = learner.policy.reward_norm(torch.zeros(6))
    value_after = learner.policy.value(segment.final_obs[-1], segment.final_state._replace(last_reward=reward))
    target = chunks.target.reshape(4, 4, 6)[-1, -1]  # (L, S) with S = chunk · N + world
    torch.testing.assert_close(target, CONFIG.discount * value_after)
    assert bool((segment.final_state.episode_start == 0).all())


def test_the_reward_input_is_normalised():
    """Trap (e): with rewards a thousand times larger, the input stays of order one."""
    env, learner = make(Sign())
    segment = trial(env, learner)
    learner.update(dataclasses.replace(segment, reward=segment.reward * 1000.0), seeding.generator(0, "update"), 0.0)
    transition = Transition(
        segment.obs[0], segment.action[0], segment.reward[0] * 1000.0, segment.final_obs[0], segment.terminated[0]
    )
    fed = learner.policy.observe(learner.policy.initial_state(6), transition)
    assert fed.last_reward.abs().max() > 0.0
    assert fed.last_reward.abs().max() < 5.0


def test_it_evaluates_beyond_the_trained_number_of_episodes():
    """Trap (g)."""
    _, learner = make(Sign())
    longer = MujocoEnv(Sign(), 6, episodes_per_trial=5, threads=1)
    assert trial(longer, learner).episode_returns(5).shape == (6, 5)


@pytest.mark.parametrize(
    ("iterations", "reached", "words"),
    [
        (12, 3.0, {"cell": "gru"}),
        (25, 6.0, {"cell": "lstm"}),
        (25, 6.0, {"cell": "lru", "learning_rate": 4e-3}),
        (12, 3.0, {"cell": "transformer"}),
        (12, 3.0, {"cell": "memory"}),
        (30, 6.0, {"policy_head": "hyper", "learning_rate": 2e-2}),
        (25, 6.0, {"policy_head": "belief", "task_weight": 0.1}),
    ],
    ids=str,
)
def test_it_learns_to_adapt(iterations, reached, words):
    """The sign is unknown at first and clear after one reward: the second episode must be near its best, 8."""
    env, learner = make(Sign(), num_worlds=32, minibatch_chunks=32, **{"learning_rate": 1e-2, **words})
    before = trial(env, learner, 1000, deterministic=True).episode_returns(2).mean(0)
    warm(env, learner, iterations)
    after = trial(env, learner, 1000, deterministic=True).episode_returns(2).mean(0)
    assert before[1].abs() < 2.0
    assert after[1] > reached
    assert after[1] > after[0]


def test_the_same_seed_gives_the_same_parameters_whatever_the_number_of_threads():
    states = []
    for threads in (1, 2, 4):
        env, learner = make(FragileSign())
        env = MujocoEnv(FragileSign(), 6, threads=threads)
        warm(env, learner, 3)
        states.append(learner.state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
        assert torch.equal(value, states[2][name]), name


@pytest.mark.parametrize("words", [{}, {"task_weight": 0.1, "estimator_size": 8, "segment_steps": 8}], ids=str)
def test_state_dict_restores_everything_the_next_iterations_need(words):
    env, learner = make(Sign(), **words)
    warm(env, learner, 3)
    _, copy = make(Sign(), **words)
    copy.load_state_dict(learner.state_dict())
    for one in (learner, copy):
        one.update(trial(env, one, 9), seeding.generator(0, "update", 9), 0.0)
    for name, value in learner.state_dict().items():
        assert torch.equal(value, copy.state_dict()[name]), name


def test_a_foreign_state_is_refused():
    _, learner = make(Sign())
    _, other = make(Sign(), hidden_size=8)
    with pytest.raises(ValueError, match="size mismatch"):
        learner.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match="optimiser"):
        learner.load_state_dict(learner.state_dict() | {"adam/network.actor.0.bias/step": torch.ones(())})


def test_a_gradient_that_is_not_finite_is_skipped():
    env, learner = make(Sign())
    chunks, _ = learner.prepare(trial(env, learner))
    poisoned = dataclasses.replace(chunks, advantage=torch.full_like(chunks.advantage, float("nan")))
    before = [parameter.clone() for parameter in learner.policy.parameters()]
    for _ in range(2):
        assert learner._ppo.step(poisoned, torch.arange(8)) is None
    with pytest.raises(Diverged, match="of 3 update steps in a row were not finite; try a lower learning_rate"):
        learner._ppo.step(poisoned, torch.arange(8))
    assert all(torch.equal(a, b) for a, b in zip(before, learner.policy.parameters(), strict=True))


def test_the_standard_deviation_never_leaves_its_range_in_training():
    env, learner = make(Sign())
    torch.nn.init.constant_(learner.policy.network.raw_log_std, -40.0)
    warm(env, learner)
    assert learner.policy.network.raw_log_std.min() >= -5.0


@pytest.mark.parametrize(
    ("trial", "longest", "length"), [(400, 50, 50), (40, 50, 40), (16, 5, 4), (14, 5, 2), (7, 5, 1)]
)
def test_a_chunk_is_the_largest_part_of_the_trial_that_is_not_too_long(trial, longest, length):
    assert chunk_length(trial, longest) == length


def test_a_trial_that_the_chunks_do_not_divide_is_trained_on_shorter_ones():
    env, learner = make(Sign(), chunk_steps=5)
    warm(env, learner, 1)


@pytest.mark.parametrize("name", ALL_FAMILIES)
def test_the_default_chunks_fit_the_trials_of_every_family(name):
    assert chunk_length(2 * make_family(name).episode_steps, RL2Config().chunk_steps) >= 20


# ------------------------------------------------------------------------------------------------ privileged numbers


def test_actions_are_the_same_with_and_without_a_privileged_critic():
    """The value head alone sees the task: the first trial, before any update, is the same."""
    actions = [trial(*make(Sign(), privileged_critic=shown)).action for shown in (False, True)]
    assert torch.equal(*actions)


def test_a_privileged_critic_tells_tasks_apart_where_the_memory_cannot_yet():
    """Of the first step, ahead of any reward, only who sees the sign knows the value: its error falls by far."""
    errors = []
    for shown in (False, True):
        env, learner = make(Sign(), num_worlds=32, privileged_critic=shown, minibatch_chunks=32, learning_rate=1e-2)
        warm(env, learner, iterations=10)
        chunks, _ = learner.prepare(trial(env, learner, 100))
        first = chunks.select(torch.arange(32))
        _, value, _ = learner.policy.network(first.inputs, first.obs, first.memory, first.privileged)
        errors.append(float((value[0].detach() - first.target[0]).square().mean() / first.target[0].var()))
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("segment_steps", [0, 8])
def test_values_beyond_a_segments_end_are_those_of_the_worlds_own_tasks(segment_steps):
    """The next step's value, and where a trial or the segment ends that of going on, which the task moves."""
    env, learner = make(Sign(), privileged_critic=True, segment_steps=segment_steps)
    tasks = env.family.space.sample("train", 6, seeding.rng(0, "tasks"))
    following = (lambda: (tasks, torch.arange(6))) if segment_steps else None
    stepper = Stepper(env, learner.policy, tasks, 0, next_tasks=following)
    segment = stepper.segment(learner.policy, segment_steps or 16, learner.record, privileged=True)
    known = learner.policy.privileged_norm(segment.privileged)
    value = learner.policy.network.value(
        torch.cat((segment.extras["memory"], learner.policy.obs_norm(segment.obs)), dim=-1), known
    )
    after = learner._next_value(segment, value, known)
    other = learner._next_value(segment, value, -known)
    assert torch.equal(after[:-1], value[1:])
    assert bool((after[-1] != other[-1]).all())


@pytest.mark.parametrize(("estimator", "told", "iterations"), [(0, "memory", 16), (16, "estimator", 40)])
def test_what_is_believed_of_the_task_is_in_its_own_units_and_right_once_a_reward_has_told(estimator, told, iterations):
    words = {"minibatch_chunks": 32, "learning_rate": 1e-2, "estimator_size": estimator}
    env, learner = make(Sign(), num_worlds=32, task_weight=1.0, **words)
    warm(env, learner, iterations)
    segment = trial(env, learner, 100)
    sign = segment.privileged[0]
    assert set(sign.flatten().tolist()) == {-1.0, 1.0}
    mean, std = learner.policy.beliefs(segment.final_state)
    assert mean.shape == std.shape == (32, 1)
    assert float((mean - sign).abs().mean()) < 0.2
    policy, empty = learner.policy, learner.policy.initial_state(32)
    _, first = policy.act(segment.obs[0], empty, torch.zeros(32, 1))
    first = segment.final_state._replace(**{told: getattr(first, told)})
    unknown, wide = learner.policy.beliefs(first)
    assert float((unknown - sign).square().mean()) > 0.5
    assert float(wide.mean()) > 5.0 * float(std.mean())


def test_deviations_are_corrected_by_tasks_that_no_training_draws():
    """Of a policy that is far too sure of itself, and what the correction is not part of: its loss."""
    env, learner = make(Sign(), num_worlds=32, task_weight=1.0, estimator_size=0)
    segment, policy = trial(env, learner), learner.policy
    mean, log_std = policy.network.beliefs(segment.final_state.memory)
    error, found = policy.mistaken(segment.final_state, segment.privileged[-1])
    torch.testing.assert_close(error, mean - policy.privileged_norm(segment.privileged[-1]))
    assert torch.equal(found, log_std)
    torch.nn.init.constant_(policy.network.belief[-1].bias, -3.0)
    chunks, _ = learner.prepare(segment)
    loss, (_, before) = learner._evaluate(chunks)[2], policy.beliefs(segment.final_state)
    (name, factor), *others = recalibrated(policy, env.family, segment_tasks(env), 2, threads=1).items()
    assert not others
    assert float(factor.max()) > 1.0
    learner.load_state_dict(learner.state_dict() | {name: factor})
    assert bool((policy.beliefs(segment.final_state)[1] > 2.0 * before).all())
    assert torch.equal(loss, learner._evaluate(chunks)[2])
    assert recalibrated(make(Sign())[1].policy, env.family, segment_tasks(env), 2, threads=1) == {}, (
        "it believes nothing"
    )


def segment_tasks(env):
    return env.family.space.sample("train", 32, seeding.rng(0, "validation"))


def test_predicting_the_task_trains_the_memory_and_a_policy_without_it_believes_nothing():
    env, learner = make(Sign(), task_weight=1.0, value_weight=0.0)
    chunks, _ = learner.prepare(trial(env, learner))
    _, _, loss = learner._evaluate(chunks)
    loss.backward()
    assert bool(learner.policy.network.memory.weight_ih_l0.grad.any())
    assert learner.policy.network.critic[0].weight.grad is None
    assert isinstance(learner.policy, Believing)
    assert not isinstance(make(Sign())[1].policy, Believing)
    after = learner.policy.read_out(trial(env, learner).final_state)
    assert list(after) == ["sign", "sign ±"]


BELIEVES = {"task_weight": 0.1, "estimator_size": 8}


@pytest.mark.parametrize("mirror", [False, True])
def test_an_estimator_changes_nothing_of_how_the_policy_acts_and_learns(mirror):
    learnt = []
    for size in (0, 8):
        env, learner = make(MirroredSign(), mirror=mirror, task_weight=0.1, estimator_size=size)
        warm(env, learner)
        learnt.append(learner.state_dict())
    without, with_one = learnt
    assert all(torch.equal(value, with_one[name]) for name, value in without.items())
    own = set(with_one) - set(without)
    assert {name.split("/")[0] for name in own} == {"estimator", "policy"}
    assert all("estimator" in name for name in own)


def test_where_nothing_is_to_be_said_of_a_task_there_is_no_estimator():
    env, _ = make(Sign())
    nothing = dataclasses.replace(env.info, privileged=())
    learner = RL2(dataclasses.replace(CONFIG, **BELIEVES), nothing, seeding.generator(0, "init"))
    assert not any("estimator" in name for name in learner.state_dict())


@pytest.mark.parametrize("words", [{}, {"cell": "transformer"}, {"memory_steps": 2}], ids=str)
@pytest.mark.parametrize("segment_steps", [0, 8])
def test_an_estimator_s_memory_in_training_is_what_it_would_be_in_acting(words, segment_steps):
    """Before every chunk, of segments over which it is carried, as long as its parameters stay."""
    env, learner = make(FragileSign(), segment_steps=segment_steps, **BELIEVES, **words)
    length = segment_steps or 16
    tasks = env.family.space.sample("train", 6, seeding.rng(0, "tasks"))
    stepper = Stepper(env, learner.policy, tasks, 0, next_tasks=lambda: (tasks, torch.arange(6)))
    regression = Regression(learner.policy.estimator)
    for _ in range(32 // length):
        segment = stepper.segment(learner.policy, length, learner.record, privileged=True)
        chunks, _ = learner.prepare(segment)
        steps = len(chunks.inputs)
        starts, ended = segment.trial_start[::steps], bool(segment.trial_end[-1].all())
        first = regression._before(chunks.inputs, starts, ended)[:6]
        torch.testing.assert_close(first, segment.initial_state.estimator * ~segment.trial_start[0, :, None])
        if not ended:
            torch.testing.assert_close(regression._held, segment.final_state.estimator)
        assert (regression._held is None) == ended


def test_an_estimator_knows_the_mirror_image_as_what_it_would_have_met():
    """Its memory of a segment's image is that of the segment that would have been collected."""
    env, learner = make(MirroredSign(), mirror=True, **BELIEVES)
    warm(env, learner)
    segment = trial(env, learner, 7)
    chunks, _ = learner.prepare(segment)
    regression = Regression(learner.policy.estimator)
    before = regression._before(chunks.inputs, segment.trial_start[::4], True)
    policy, state = learner.policy, learner.policy.initial_state(6)
    for t in range(16):
        if t % 4 == 0:
            torch.testing.assert_close(state.estimator, before[24 + t // 4 * 6 :][:6])
        _, state = policy.act(-segment.obs[t], state, torch.zeros(6, 1))
        step = Transition(segment.obs[t], -segment.action[t], segment.reward[t], segment.final_obs[t], segment.ended[t])
        state = policy.end_episode(policy.observe(state, step), segment.ended[t])


def test_an_estimator_that_is_fed_what_is_not_finite_learns_nothing_of_it():
    env, learner = make(Sign(), **BELIEVES)
    segment = trial(env, learner)
    chunks, _ = learner.prepare(segment)
    before = {name: value.clone() for name, value in learner.policy.estimator.state_dict().items()}
    bad = dataclasses.replace(chunks, privileged=chunks.privileged * torch.nan)
    with pytest.raises(Diverged):
        learner._regression.update(bad, segment.trial_start[::4], True, 0.0)
    assert all(torch.equal(value, before[name]) for name, value in learner.policy.estimator.state_dict().items())


@pytest.mark.parametrize(
    ("feedback", "told"), [("full", (True, True)), ("action", (True, False)), ("none", (False, False))]
)
def test_a_memory_is_fed_what_it_is_to_know(feedback, told):
    _, learner = make(Sign(), feedback=feedback)
    policy, changed = learner.policy, []
    for action, reward in ((0.5, 0.0), (0.0, 5.0)):
        after = []
        for share in (0.0, 1.0):
            transition = Transition(
                torch.zeros(1, 2),
                torch.full((1, 1), share * action),
                torch.full((1,), share * reward),
                torch.zeros(1, 2),
                torch.zeros(1, dtype=torch.bool),
            )
            state = policy.observe(policy.initial_state(1), transition)
            after.append(policy.act(torch.zeros(1, 2), state, torch.zeros(1, 1), True)[0])
        changed.append(not torch.equal(*after))
    assert tuple(changed) == told
    assert policy.info.adapts
    assert not make(Sign(), memory_steps=1)[1].policy.info.adapts


# ------------------------------------------------------------------------------------------------------- other memories


@pytest.mark.parametrize("cell", [cell for cell in NETS if cell != "transformer"])
@pytest.mark.parametrize(("steps", "length"), [(1, 1), (3, 2), (4, 4), (100, 4)])
def test_a_memory_that_is_cut_is_emptied_alike_in_acting_and_in_training(steps, length, cell):
    env, learner = make(FragileSign(), cell=cell, memory_steps=steps)
    warm(env, learner)
    segment = trial(env, learner, 7)
    chunks, _ = learner.prepare(segment)
    assert len(chunks.inputs) == length
    mean, _, _ = learner.policy.network(chunks.inputs, chunks.obs, chunks.memory)
    log_prob = gaussian_log_prob(mean, learner.policy.network.log_std, chunks.action)
    torch.testing.assert_close(log_prob, chunks.log_prob, rtol=0, atol=2e-5)


def test_a_transformer_is_not_cut():
    """Its states are kept of segments' begins only, and there is nothing for the chunks between to begin with."""
    with pytest.raises(UserError, match=r"memory_steps = 4 .* 0 for a transformer, which looks back over its window"):
        dataclasses.replace(CONFIG, cell="transformer", memory_steps=4)


def test_a_memory_that_is_cut_knows_nothing_of_before():
    """What was met two steps ago and more changes no action; without a cut it does."""
    for steps, same in ((2, True), (0, False)):
        _, learner = make(Sign(), memory_steps=steps)
        policy, actions = learner.policy, []
        for reward in (0.0, 5.0):
            state = policy.initial_state(2)
            for t in range(5):
                obs = torch.full((2, 2), float(t))
                action, state = policy.act(obs, state, torch.zeros(2, 1), True)
                told = torch.full((2,), reward if t < 2 else 0.0)
                state = policy.observe(state, Transition(obs, action * 0, told, obs, torch.zeros(2, dtype=torch.bool)))
            actions.append(action)
        assert torch.equal(*actions) == same


@pytest.mark.parametrize("cell", ["lru", "transformer"])
def test_what_is_learnt_from_does_not_depend_on_where_segments_are_cut(cell):
    """A trial at once, and in two segments with the memory carried over: values and targets (λ = 0) agree."""
    prepared = []
    for segment_steps in (16, 8):
        env, learner = make(Sign(), cell=cell, gae_lambda=0.0, segment_steps=segment_steps, window=6)
        tasks = env.family.space.sample("train", 6, seeding.rng(0, "tasks"))
        stepper = Stepper(env, learner.policy, tasks, 0, next_tasks=lambda: (tasks, torch.arange(6)))  # noqa: B023
        parts = [
            learner.prepare(stepper.segment(learner.policy, segment_steps, learner.record))[0]
            for _ in range(16 // segment_steps)
        ]
        length, columns = len(parts[0].target), [part.target.reshape(len(part.target), -1, 6) for part in parts]
        prepared.append(torch.cat([column.transpose(0, 1).reshape(-1, 6) for column in columns]))
        for part in parts:
            mean, _, _ = learner.policy.network(part.inputs, part.obs, part.memory)
            log_prob = gaussian_log_prob(mean, learner.policy.network.log_std, part.action)
            torch.testing.assert_close(log_prob, part.log_prob, rtol=0, atol=2e-5)
        assert length == (segment_steps if cell == "transformer" else 4)
    torch.testing.assert_close(*prepared, rtol=0, atol=1e-5)


def test_a_transformer_looks_back_over_the_whole_trial_unless_told():
    for window, found in ((0, 16), (6, 6), (40, 40)):
        assert make(Sign(), cell="transformer", window=window)[1].policy.network.memory.window == found


def test_a_transformer_goes_over_a_segment_again_only_in_worlds_whose_trial_ends_there(monkeypatch):
    env, learner = make(Sign(), cell="transformer", segment_steps=8)
    tasks = env.family.space.sample("train", 6, seeding.rng(0, "tasks"))
    stepper = Stepper(env, learner.policy, tasks, 0, next_tasks=lambda: (tasks, torch.arange(6)))
    first, second = (stepper.segment(learner.policy, 8, learner.record) for _ in range(2))
    memory, numbers = learner.policy.network.memory, []
    sequence = memory.sequence
    monkeypatch.setattr(memory, "sequence", lambda x, state: numbers.append(x.shape[1]) or sequence(x, state))
    learner.prepare(first)
    assert numbers == []
    learner.prepare(second)
    some = torch.tensor([4, 1])
    torch.testing.assert_close(
        learner._last_cell(second, some), learner._last_cell(second, torch.arange(6))[some], rtol=1e-4, atol=1e-5
    )
    assert numbers == [6, 2, 6]


@pytest.mark.parametrize(("asked", "steps"), [(6, 4), (100, 16), (16, 16), (0, None), (9, 8), (7, 4)])
def test_segments_divide_a_trial_of_16_steps(asked, steps):
    assert make(Sign(), segment_steps=asked)[1].segment_steps == steps


# -------------------------------------------------------------------------------------------------------- mirror image


class MirroredSign(Sign):
    mirror = Symmetry(
        action=signed(-1),
        state={"qpos": signed(-1), "qvel": signed(-1), "ctrl": signed(-1)},
        parts={"position": signed(-1), "velocity": signed(-1)},
        parameters={"sign": signed(-1)},
    )


@pytest.mark.parametrize("segment_steps", [16, 8])
def test_the_mirror_image_is_what_the_policy_would_have_met(segment_steps):
    """Played again step by step with left and right exchanged: the same inputs, memories and privileged numbers."""
    env, learner = make(MirroredSign(), mirror=True, privileged_critic=True, segment_steps=segment_steps, num_epochs=1)
    warm(env, learner)
    policy, tasks = learner.policy, env.family.space.sample("train", 6, seeding.rng(0, "tasks"))
    learner._image_memory = ImageMemory(policy.network.memory.state_size)
    stepper = Stepper(env, policy, tasks, 0, next_tasks=lambda: (tasks, torch.arange(6)))
    state = policy.initial_state(6)
    for _ in range(2 * 16 // segment_steps):
        segment = stepper.segment(policy, segment_steps, learner.record, privileged=True)
        chunks, _ = learner.prepare(segment)
        number = len(chunks.memory) // 2
        for t in range(segment_steps):
            state = policy.initial_state(6) if bool(segment.trial_start[t].all()) else state
            place, own = t % 4, slice(number + t // 4 * 6, number + t // 4 * 6 + 6)
            if place == 0:
                torch.testing.assert_close(torch.cat((state.memory, state.cell), dim=1), chunks.memory[own])
            _, state = policy.act(-segment.obs[t], state, torch.zeros(6, 1))
            torch.testing.assert_close(policy.obs_norm(-segment.obs[t]), chunks.obs[place, own])
            assert torch.equal(chunks.action[place, own], -segment.action[t])
            torch.testing.assert_close(
                policy.privileged_norm(-segment.privileged[t]), chunks.privileged[place, own], rtol=0, atol=1e-6
            )
            nothing = torch.zeros(6, dtype=torch.bool)
            step = Transition(segment.obs[t], -segment.action[t], segment.reward[t], segment.final_obs[t], nothing)
            state = policy.observe(state, step)
            state = policy.end_episode(state, segment.ended[t] & ~segment.trial_end[t])
    for name in ("log_prob", "advantage", "target"):
        assert torch.equal(*getattr(chunks, name).chunk(2, dim=1))


@pytest.mark.parametrize(("mirror", "iterations"), [(False, 8), (True, 26)])
def test_what_is_learnt_to_the_right_is_known_to_the_left(mirror, iterations):
    """Trained with sign 1 alone, only who learns from mirror images does well with sign -1."""
    env, learner = make(MirroredSign(), num_worlds=16, mirror=mirror, minibatch_chunks=32, learning_rate=1e-2)
    ones = torch.ones(16, dtype=torch.float64)

    def play(number, sign, deterministic=False):
        tasks, key = Tasks({"sign": sign * ones}), seeding.key(0, "collect", number)
        return collect(env, learner.policy, tasks, key, record=learner.record, deterministic=deterministic)

    for number in range(iterations):
        learner.update(play(number, 1.0), seeding.generator(0, "update", number), 0.0)
    found = float(play(100, -1.0, deterministic=True).episode_returns(2)[:, 1].mean())
    assert (found > 1.0) == mirror


def test_normalisers_see_the_mirror_images_too():
    """Else a number that is the same in all of training, as the sign is here, is an outlier in its image."""
    env, learner = make(MirroredSign(), mirror=True, privileged_critic=True)
    tasks = Tasks({"sign": torch.ones(env.num_worlds, dtype=torch.float64)})
    for number in range(2):
        wants = {"record": learner.record, "privileged": True}
        segment = collect(env, learner.policy, tasks, seeding.key(0, "collect", number), **wants)
        learner.update(segment, seeding.generator(0, "update", number), 0.0)
    policy = learner.policy
    ones = policy.privileged_norm(segment.privileged)
    torch.testing.assert_close(ones.abs(), torch.ones_like(ones))
    torch.testing.assert_close(policy.privileged_norm(-segment.privileged), -ones)
    torch.testing.assert_close(policy.obs_norm(-segment.obs), -policy.obs_norm(segment.obs))


def test_a_family_without_a_symmetry_has_no_mirror_images():
    states = []
    for mirror in (False, True):
        env, learner = make(Sign(), mirror=mirror)
        warm(env, learner)
        states.append(learner.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize("words", [{"cell": "lstm"}, {"cell": "gru"}, BELIEVES], ids=str)
def test_gradient_steps_replayed_as_on_a_gpu_are_the_steps(words):
    """Over updates of different rates, and after all was read anew; the last minibatch of an epoch is short."""
    config = dataclasses.replace(CONFIG, minibatch_chunks=10, **words)
    env = MujocoEnv(Sign(), 6, episodes_per_trial=2, threads=1)
    states = []
    for captures in (False, True):
        with on_a_gpu(captures):
            learner = RL2(config, env.info, seeding.generator(0, "init"))
            for number in range(4):
                tasks = env.family.space.sample("train", 6, seeding.rng(0, "tasks", number))
                wants = {"record": learner.record, "privileged": learner.wants_privileged}
                segment = collect(env, learner.behaviour, tasks, seeding.key(0, "collect", number), **wants)
                metrics = learner.update(segment, seeding.generator(0, "update", number), number / 4)
                replays = {size: step._replay.replays for size, step in learner._ppo._steps.items()}
                if number == 1:
                    assert replays == {10: captures, 4: captures}
                    learner.load_state_dict(learner.state_dict())
            states.append(learner.state_dict() | {f"metric/{k}": torch.tensor(v) for k, v in metrics.items()})
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
