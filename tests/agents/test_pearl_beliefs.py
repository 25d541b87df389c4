"""PEARL's heads: where prototypes put a task, which are chosen, and whether tasks are recognised by either head."""

import dataclasses

import pytest
import torch
from test_pearl import CONFIG, make, moved, objectives, trial
from test_rl2 import FragileSign, Sign

from metarl.agents.pearl import Pearl
from metarl.agents.pearl_metrics import identification
from metarl.core import seeding
from metarl.core.registry import make_family
from metarl.core.types import Segment, Transition
from metarl.rl.prototypes import direction
from metarl.run.collect import collect, trial_steps
from metarl.run.evaluate import evaluate
from metarl.sim.mujoco.mujoco_env import MujocoEnv

HEADS = pytest.mark.parametrize("belief", ["posterior", "prototype"])


def know(policy, prototypes):
    """Give the first slots these prototypes, and no other slot one."""
    policy.prototypes[: len(prototypes)] = direction(prototypes)
    policy.known = torch.arange(len(policy.known)) < len(prototypes)


def belief_of(policy, vectors, episode):
    """The belief of worlds whose factors' vectors sum up to `vectors`."""
    state = drawn(policy, policy.initial_state(len(vectors)))
    return state._replace(
        weighted=vectors, precision=torch.ones_like(vectors), episode=torch.full((len(vectors),), episode)
    )


def drawn(policy, state, seed=0):
    """The state once the policy has acted, and drawn z where an episode began."""
    noise = torch.randn(len(state.z), policy.noise_size, generator=torch.Generator().manual_seed(seed))
    return policy.act(torch.zeros(len(state.z), 2), state, noise)[1]


# ------------------------------------------------------------------------------------------------------ the belief


def test_the_belief_is_the_sum_of_the_encoder_s_vectors_in_any_order():
    """By hand, step by step and shuffled; the embedding is where the sum points, at length √3."""
    _, learner = make(belief="prototype")
    policy, random = learner.policy, torch.Generator().manual_seed(1)
    rows = torch.randn(30, 2, 6, generator=random)
    sums = []
    for order in (torch.arange(30), torch.randperm(30, generator=random)):
        belief = policy.initial_state(2)
        for obs, action, reward, final_obs in (torch.split(row, [2, 1, 1, 2], dim=1) for row in rows[order]):
            belief = policy.observe(belief, Transition(obs, action, reward[:, 0], final_obs, torch.zeros(2).bool()))
        sums.append(belief.weighted)
        assert torch.equal(belief.precision, torch.full((2, 3), 30.0))
    by_hand = policy.encoder(rows[..., :4]).detach().sum(dim=0)
    for got in sums:
        torch.testing.assert_close(got, by_hand, rtol=1e-4, atol=1e-5)
    embedding = policy.place(sums[0], torch.ones(2, 3))
    torch.testing.assert_close(embedding, 3**0.5 * by_hand / by_hand.norm(dim=1, keepdim=True), rtol=1e-4, atol=1e-5)


def test_after_the_prior_episodes_z_is_the_prototype_nearest_by_angle():
    _, learner = make(belief="prototype")
    know(learner.policy, torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-1.0, -1.0, 0.0]]))
    vectors = torch.tensor([[9.0, 8.0, 0.0], [0.01, 0.02, 0.01], [-1.0, 0.1, 0.0], [0.1, -5.0, 0.0]])
    belief = belief_of(learner.policy, vectors, episode=1)
    after = drawn(learner.policy, learner.policy.end_episode(belief, torch.tensor([True, True, True, False])))
    assert torch.equal(after.z[:3], learner.policy.prototypes[[0, 1, 2]])
    assert torch.equal(after.z[3], belief.z[3])


def test_exploration_draws_every_known_prototype_evenly_and_no_other():
    """1500 worlds, three prototypes among eight slots: 500 each, standard deviation 18."""
    _, learner = make(belief="prototype")
    policy = learner.policy
    learner.policy.prototypes[:] = direction(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)))
    policy.known[[1, 4, 6]] = True
    begun = drawn(policy, policy.initial_state(1500), 1)
    later = drawn(policy, policy.end_episode(begun, torch.ones(1500, dtype=torch.bool)), 2)
    for z in (begun.z, later.z):
        count = (z[:, None] == policy.prototypes).all(dim=2).sum(dim=0)
        assert count[[0, 2, 3, 5, 7]].sum() == 0
        assert (count[[1, 4, 6]] - 500).abs().max() < 80
    assert not torch.equal(begun.z, later.z)


def test_an_unknown_prototype_is_never_the_nearest():
    """It is zero, or what an earlier task left in the slot: here the very embedding."""
    _, learner = make(belief="prototype")
    know(learner.policy, torch.eye(3))
    learner.policy.forget(torch.tensor([0]))
    belief = belief_of(learner.policy, torch.tensor([[1.0, 0.2, 0.0]]), episode=1)
    after = drawn(learner.policy, learner.policy.end_episode(belief, torch.tensor([True])))
    assert torch.equal(after.z[0], learner.policy.prototypes[1])


def test_without_any_prototype_z_is_a_direction():
    env, learner = make(belief="prototype")
    tasks = env.family.space.fixed("train", 4)
    for now in trial_steps(env, learner.policy, tasks, seeding.key(0, "collect")):
        torch.testing.assert_close(now.state.z.norm(dim=1), torch.full((4,), 3**0.5))


# --------------------------------------------------------------------------------------------------- the learning


@pytest.mark.parametrize("family", [Sign(), FragileSign()], ids=["sign", "fragile"])
def test_only_the_contrastive_loss_moves_the_encoder(family):
    env, learner = make(family, belief="prototype")
    learner.store(trial(env, learner))
    loss, contrastive, actor = objectives(learner)
    assert moved(learner, actor) == {"actor"}
    assert moved(learner, loss) == {"critic"}
    assert moved(learner, contrastive) == {"encoder"}


def test_actor_and_critics_see_the_prototypes_of_their_tasks():
    env, learner = make(belief="prototype")
    learner.store(trial(env, learner))
    slots, random = torch.tensor([3, 0, 3]), torch.Generator().manual_seed(0)
    context = learner.context.sample(slots, 8, random)
    batch = learner.replay.sample(slots, 5, random).flatten(0, 1)
    drawn, noise, _ = learner.noise(slots, context, batch, random)
    z = learner.critic_objective(slots, context, batch, drawn, noise)[2]
    assert torch.equal(z, learner.policy.prototypes[[3] * 5 + [0] * 5 + [3] * 5])
    assert learner.policy.known.tolist() == [True, False, False, True] + [False] * 4


def test_a_slot_s_new_task_does_not_inherit_its_prototype():
    env, learner = make(belief="prototype")
    learner.store(trial(env, learner, task_number=torch.arange(4)))
    random = torch.Generator().manual_seed(0)
    drawn = [part[0] for part in learner.draw(torch.arange(4), 1, random)]
    learner.gradient_step(*drawn, learner.noise(*drawn, random))
    learner.store(trial(env, learner, task_number=torch.tensor([8, 1, 2, 3])))
    assert learner.policy.known.tolist() == [False, True, True, True] + [False] * 4


# ------------------------------------------------------------------------------------------------- identification


def synthetic(rewards, seed, steps=60):
    """A trial of one world per entry of `rewards`: prior episodes in which the reward alone depends on the task."""
    random, n = torch.Generator().manual_seed(seed), len(rewards)
    reward = torch.as_tensor(rewards) + 0.1 * torch.randn(steps, n, generator=random)
    no, obs = torch.zeros(steps, n, dtype=torch.bool), torch.randn(steps, n, 2, generator=random)
    action = torch.rand(steps, n, 1, generator=random) * 2 - 1
    numbers, extras = torch.arange(n).expand(steps, n), {"prior": ~no}
    return Segment(obs, obs, action, reward, no, no, no, no, no, no, obs[0], numbers, extras, None, None)


@HEADS
def test_identification_is_certain_where_rewards_tell_tasks_apart(belief):
    _, learner = make(belief=belief, meta_batch=8, num_updates=100, learning_rate=3e-3, kl_weight=1e-3)
    told = torch.linspace(-4.0, 4.0, 8)
    first = learner.update(synthetic(told, 0), seeding.generator(0, "update", 0), 0.0)
    assert "train/identification" not in first
    second = learner.update(synthetic(told, 1), seeding.generator(0, "update", 1), 0.0)
    assert second["train/identification"] == 1.0
    assert learner._identification(synthetic(told.flip(0), 2))["train/identification"] == 0.0


@HEADS
def test_identification_is_by_chance_where_nothing_tells_tasks_apart(belief):
    """Eight tasks, 320 trials: 1/8 with a standard deviation of 0.02."""
    _, learner = make(belief=belief, meta_batch=8, num_updates=50)
    learner.update(synthetic(torch.zeros(8), 0), seeding.generator(0, "update"), 0.0)
    shares = [learner._identification(synthetic(torch.zeros(8), n))["train/identification"] for n in range(1, 41)]
    assert sum(shares) / 40 == pytest.approx(1 / 8, abs=0.08)


def test_identification_counts_only_tasks_that_were_met():
    _, learner = make(belief="prototype")
    know(learner.policy, torch.eye(3))
    segment = synthetic(torch.zeros(4), 0)
    own = [int(x) for x in (learner.policy.prototypes[:3] @ learner.policy.explored(segment).T).argmax(dim=0)]
    places = (torch.arange(3), learner.policy.prototypes[:3])
    other = (own[1] + 1) % 3
    slot = torch.tensor([own[0], other, -1, -1])
    assert identification(learner.policy, segment, slot, places) == {"train/identification": 0.5}
    assert identification(learner.policy, segment, torch.full((4,), -1), places) == {}


@HEADS
def test_what_was_explored_is_what_the_belief_was_when_the_prior_episodes_ended(belief):
    env, learner = make(FragileSign(), belief=belief)
    tasks, ended = env.family.space.fixed("train", 4), torch.zeros(4, 3)
    for now in trial_steps(env, learner.policy, tasks, seeding.key(0, "collect")):
        place = learner.policy.place(now.state.weighted, now.state.precision)
        prior = learner.policy.exploring(now.before)
        ended[prior] = place[prior]
    segment = collect(env, learner.policy, tasks, seeding.key(0, "collect"), record=learner.record)
    torch.testing.assert_close(learner.policy.explored(segment), ended, rtol=1e-3, atol=1e-4)


@HEADS
def test_goals_are_recognised_and_the_belief_helps_on_held_out_ones(belief):
    """Point-goal: the goal is named above chance, and the third episode beats the first on new goals.

    Of 80 trials with 20 goals to choose from, chance names 0.05 with a standard deviation of 0.024.
    """
    family = make_family("point-goal")
    env = MujocoEnv(family, 20, episodes_per_trial=4, threads=1)
    changes = {"hidden_size": 64, "encoder_size": 32, "num_updates": 100, "meta_batch": 8, "batch_size": 16}
    changes |= {"num_slots": 20, "learning_rate": 3e-3, "discount": 0.9, "kl_weight": 0.01, "initial_steps": 1600}
    learner = Pearl(dataclasses.replace(CONFIG, belief=belief, **changes), env.info, seeding.generator(0, "init"))
    goals, shares = family.space.fixed("train", 20), []
    for number in range(10):
        segment = collect(env, learner.policy, goals, seeding.key(0, "collect", number), record=learner.record)
        metrics = learner.update(segment, seeding.generator(0, "update", number), 0.0)
        shares.append(metrics.get("train/identification", 0.0))
    assert sum(shares[-4:]) / 4 > 0.05 + 4 * 0.024
    returns = evaluate(learner.policy, family, family.space.fixed("test", 50), 3).returns
    gain = returns[:, 2] - returns[:, 0]
    assert gain.mean() > 3.0 * gain.std() / len(gain) ** 0.5
