"""VariBAD: the bound and its parts, what the encoder learns, and that the policy adapts by it."""

import dataclasses

import pytest
import torch
from test_rl2 import FragileSign, Sign

from metarl.agents.configs import VariBadConfig
from metarl.agents.varibad import VariBad
from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.rl.elbo import kl_to_previous, negative_elbo
from metarl.rl.objectives import gaussian_log_prob
from metarl.run.collect import Stepper, collect
from metarl.sim.mujoco.mujoco_env import MujocoEnv

CONFIG = VariBadConfig(
    latent_size=2, encoder_size=16, decoder_size=16, hidden_size=16, batch_size=64, num_epochs=2, initial_std=0.6
)


def make(family, num_worlds=6, **changes):
    env = MujocoEnv(family, num_worlds, episodes_per_trial=2, threads=1)
    return env, VariBad(dataclasses.replace(CONFIG, **changes), env.info, seeding.generator(0, "init"))


def trial(env, learner, number=0, deterministic=False):
    tasks = env.family.space.sample("train", env.num_worlds, seeding.rng(0, "tasks", number))
    key = seeding.key(0, "collect", number)
    return collect(env, learner.policy, tasks, key, record=learner.record, deterministic=deterministic)


def train(env, learner, iterations):
    for number in range(iterations):
        metrics = learner.update(trial(env, learner, number), seeding.generator(0, "update", number), 0.0)
    return metrics


@torch.no_grad()
def beliefs(learner, segment):
    return torch.cat(learner.policy.encoder(learner.policy.context(segment)), dim=-1)


def test_the_divergence_is_that_of_each_posterior_from_the_one_before():
    mean, log_std = torch.tensor([0.0, 1.0, 1.0]).view(3, 1, 1), torch.tensor([0.0, 0.0, -1.0]).view(3, 1, 1)
    sharper = 1.0 + 0.5 * float(torch.exp(torch.tensor(-2.0))) - 0.5
    assert kl_to_previous(mean, log_std)[:, 0].tolist() == pytest.approx([0.0, 0.5, sharper])


def test_the_bound_counts_every_step_of_the_trial():
    error, kl = torch.full((2, 5, 3), 4.0), torch.ones(2, 3)
    assert float(negative_elbo(error, 10, kl, 0.5)) == pytest.approx(0.5 * 10 * 4.0 + 0.5)


@pytest.mark.parametrize("family", [Sign(), FragileSign()], ids=["sign", "fragile"])
def test_the_update_sees_exactly_what_the_policy_saw(family):
    env, learner = make(family)
    train(env, learner, 2)
    segment = trial(env, learner, 7)
    believed = beliefs(learner, segment)
    chunks, _ = learner.prepare(segment, believed)
    mean, _, _ = learner._evaluate(chunks)
    log_prob = gaussian_log_prob(mean, learner.policy.network.log_std, chunks.action)
    torch.testing.assert_close(log_prob, chunks.log_prob, rtol=0, atol=2e-5)
    torch.testing.assert_close(believed[-1], learner.policy.belief(segment.final_state), rtol=0, atol=1e-5)


def by_segments(env, learner, number, count):
    """Segments of trials that all worlds begin together, one after the other."""
    tasks = env.family.space.sample("train", env.num_worlds, seeding.rng(0, "tasks", number))
    stepper = Stepper(env, learner.policy, tasks, seeding.key(0, "collect", number))
    for _ in range(count):
        yield stepper.segment(learner.policy, learner.segment_steps, learner.record)


def test_in_the_course_of_a_trial_it_updates_the_policy_and_at_its_end_the_encoder():
    env, learner = make(Sign(), segment_steps=4)
    train(env, learner, 1)
    assert learner.segment_steps == 4
    for part, segment in enumerate(by_segments(env, learner, 7, 4)):
        context = learner.policy.context(segment)
        with torch.no_grad():
            believed = torch.cat(learner.policy.encoder(context, segment.initial_state.memory), dim=-1)
        chunks, _ = learner.prepare(segment, believed)
        mean, _, _ = learner._evaluate(chunks)
        log_prob = gaussian_log_prob(mean, learner.policy.network.log_std, chunks.action)
        torch.testing.assert_close(log_prob, chunks.log_prob, rtol=0, atol=2e-5)
        metrics = learner.update(segment, seeding.generator(0, "update", part), 0.0)
        assert ("train/reward_error" in metrics) == (part == 3)
        assert len(learner._seen) == (part + 1) % 4
    drawn = [learner.draw(400, 3, seeding.generator(0, "draw", number)) for number in range(40)]
    assert {seen for seen, *_ in drawn} == {400, 200, 100, 50, 25}
    for seen, beliefs, steps, _ in drawn:
        assert beliefs[0] == 0 and bool((beliefs[1:] >= 1).all() & (beliefs <= seen).all())
        assert int(steps.max()) > 300, "of the whole trial, past and future"


def test_trials_that_worlds_do_not_begin_together_are_refused():
    env, learner = make(Sign())
    segment = trial(env, learner)
    start = segment.trial_start.clone()
    start[3, 2] = True
    with pytest.raises(UserError, match="staggered = True: varibad learns from trials that all worlds begin together"):
        learner.update(dataclasses.replace(segment, trial_start=start), seeding.generator(0, "update"), 0.0)


def test_the_policy_s_loss_does_not_train_the_encoder_nor_the_bound_the_policy():
    env, learner = make(Sign(), encoder_steps=1)
    segment = trial(env, learner)

    def trained(learn):
        before = learner.state_dict()
        learn()
        changed = [k for k, x in learner.state_dict().items() if k in before and not torch.equal(x, before[k])]
        return {name.split(".")[0] for name in changed if "adam" not in name}

    chunks, _ = learner.prepare(segment, beliefs(learner, segment))
    assert trained(lambda: learner._ppo.update(chunks, seeding.generator(0, "update"), 0.0)) == {"policy/network"}
    context = learner.policy.context(segment)
    learnt = trained(lambda: learner._learn(context, seeding.generator(0, "update"), 1.0))
    assert learnt == {"policy/encoder", "decoders/reward", "decoders/state"}
    config = learner.config
    shorter = config.final_learning_rate / config.learning_rate
    assert learner._adam.param_groups[0]["lr"] == pytest.approx(config.encoder_learning_rate * shorter), "at the end"


def test_it_infers_the_task_and_adapts():
    """The sign is unknown at first and clear after one reward: the second episode must be near its best, 8."""
    env, learner = make(Sign(), num_worlds=32, learning_rate=1e-2, encoder_learning_rate=1e-2)
    metrics = train(env, learner, 16)
    segment = trial(env, learner, 1000, deterministic=True)
    returns = segment.episode_returns(2).mean(0)
    assert returns[1] > 3.0
    assert returns[1] > returns[0]
    assert metrics["train/reward_error"] < 0.7, "of a variance of one"
    sign, mean = env.tasks["sign"], learner.policy.read_out(segment.final_state)["posterior"]
    apart = mean[sign > 0].mean(0) - mean[sign < 0].mean(0)
    assert float((apart / mean.std(0)).abs().max()) > 1.5
