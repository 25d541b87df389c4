"""RMA: who sees the task and who does not, the two phases, what the student learns from, and that it adapts."""

import dataclasses

import pytest
import torch
from test_rl2 import FragileSign, Sign

from metarl.agents.baseline_configs import RmaConfig
from metarl.agents.rma import Rma
from metarl.check.learner import check_learner
from metarl.core import seeding
from metarl.rl.objectives import gaussian_log_prob
from metarl.run.collect import Stepper, collect
from metarl.sim.mujoco.mujoco_env import MujocoEnv

CONFIG = RmaConfig(
    latent_size=2, student_size=16, hidden_size=16, batch_size=64, num_epochs=2, initial_std=0.6, chunk_steps=4
)
FAMILIES = pytest.mark.parametrize("family", [Sign(), FragileSign()], ids=["sign", "fragile"])


def make(family, num_worlds=6, **changes):
    env = MujocoEnv(family, num_worlds, episodes_per_trial=2, threads=1)
    return env, Rma(dataclasses.replace(CONFIG, **changes), env.info, seeding.generator(0, "init"))


def trial(env, learner, number=0, policy=None, deterministic=False):
    tasks = env.family.space.sample("train", env.num_worlds, seeding.rng(0, "tasks", number))
    wants = {"record": learner.record, "privileged": True, "deterministic": deterministic}
    return collect(env, policy or learner.behaviour, tasks, seeding.key(0, "collect", number), **wants)


def train(env, learner, progress):
    for number, done in enumerate(progress):
        metrics = learner.update(trial(env, learner, number), seeding.generator(0, "update", number), done)
    return metrics


def changed(learner, learn):
    before = learner.state_dict()
    learn()
    after = learner.state_dict().items()
    moved = {name for name, x in after if name not in before or not torch.equal(x, before[name])}
    return {name.split("." if "." in name else "/")[0] for name in moved}


@FAMILIES
def test_the_update_sees_exactly_what_the_teacher_saw(family):
    env, learner = make(family)
    train(env, learner, [0.0, 0.0])
    chunks, _ = learner.prepare(trial(env, learner, 7))
    mean, _, _ = learner._evaluate(chunks)
    log_prob = gaussian_log_prob(mean, learner.policy.network.log_std, chunks.action)
    torch.testing.assert_close(log_prob, chunks.log_prob, rtol=0, atol=2e-5)


@FAMILIES
def test_the_student_is_taught_by_the_memories_that_it_had(family):
    """Chunk by chunk from the stored memories, its estimates are those that it acted by; trials begin with none."""
    env, learner = make(family, chunk_steps=4)
    train(env, learner, [0.0, 0.9])
    segment = trial(env, learner, 7)
    context, before, target = learner.lessons(segment)
    encoder = learner.policy.encoder
    memories = encoder.memories(context, before)
    assert torch.equal(before[:6], torch.zeros(6, 16))
    torch.testing.assert_close(memories[-1, :6], segment.extras["memory"][3], rtol=0, atol=1e-6)
    torch.testing.assert_close(memories[-1, -6:], segment.final_state.memory, rtol=0, atol=1e-6)
    z = learner.teacher.latent(learner.teacher.norm(segment.privileged))
    assert torch.equal(target[:, :6], z[:4])
    wrong = torch.cat((encoder.estimate(before)[None] - target[:1], encoder.estimate(memories[1:]) - target))
    torch.testing.assert_close(learner.error(context, before, target), wrong.square().mean())


def test_only_the_teacher_sees_the_task():
    """In the same state and by the same noise the teacher acts on the task, and the student does not."""
    env, learner = make(Sign())
    train(env, learner, [0.0] * 4)
    for policy, alike in ((learner.policy, True), (learner.teacher, False)):
        first = []
        for sign in (-1.0, 1.0):
            tasks = dataclasses.replace(
                env.family.space.fixed("train", 6), values={"sign": torch.full((6,), sign, dtype=torch.float64)}
            )
            first.append(collect(env, policy, tasks, 3, record=learner.record).action[0])
        assert torch.equal(*first) == alike
    assert not learner.policy.told


def test_the_phases_train_what_is_theirs_and_the_second_begins_where_it_is_due():
    env, learner = make(Sign(), student_share=0.25)
    assert learner.behaviour is learner.teacher
    taught = {"policy/network", "policy/obs_norm", "policy/reward_norm", "return_norm", "teacher_norm"}
    taught |= {"teacher_encoder/0", "teacher_encoder/2", "teacher_encoder/4", "adam/network", "adam/encoder"}
    assert changed(learner, lambda: train(env, learner, [0.74])) == taught
    assert learner.behaviour is learner.teacher
    assert changed(learner, lambda: train(env, learner, [0.75])) == taught | {"second_phase"}
    assert learner.behaviour is learner.policy
    student = {"policy/encoder", "student_adam/embed", "student_adam/memory", "student_adam/latent"}
    assert changed(learner, lambda: train(env, learner, [0.9])) == student
    train(env, learner, [0.5])  # trained further, by the share of the new length
    assert learner.behaviour is learner.teacher


def test_both_phases_keep_the_contract_of_learners():
    """The table's own check stays in the first."""
    config = dataclasses.replace(CONFIG, student_share=0.95, num_epochs=1)
    assert [said for _, right, said in check_learner("rma", config) if not right] == []


@pytest.mark.parametrize("feedback", ["full", "action"])
def test_the_student_is_told_of_rewards_where_it_may(feedback):
    env, learner = make(Sign(), feedback=feedback)
    segment = trial(env, learner)
    richer = dataclasses.replace(segment, reward=segment.reward + 1.0)
    told = not torch.equal(learner.policy.context(segment), learner.policy.context(richer))
    assert told == (feedback == "full")


def test_trials_that_run_on_from_segment_to_segment_are_learnt_from_in_both_phases():
    env, learner = make(Sign(), segment_steps=4, student_share=0.5)
    tasks = env.family.space.sample("train", 6, seeding.rng(0, "tasks"))
    stepper = Stepper(env, learner.behaviour, tasks, 0, next_tasks=lambda: (tasks, torch.arange(6)))
    for number in range(9):
        segment = stepper.segment(learner.behaviour, 4, learner.record, privileged=True, every=learner.kept_every)
        if number > 5:
            context, before, _ = learner.lessons(segment)
            after = learner.policy.encoder.memories(context, before)[-1]
            torch.testing.assert_close(after, segment.extras["memory"][-1], rtol=0, atol=1e-6)
            assert bool(before.any()) == (number < 8), "the third trial begins with the ninth segment"
        learner.update(segment, seeding.generator(0, "update", number), number / 8)


def test_the_student_adapts_as_its_teacher_would():
    """The sign is unknown at first and clear after a reward or two: by the second episode it acts as if told."""
    env, learner = make(Sign(), num_worlds=32, learning_rate=1e-2, student_learning_rate=1e-2, student_share=0.5)
    metrics = train(env, learner, [number / 14 for number in range(14)])
    segment = trial(env, learner, 1000, learner.policy)
    returns, told = (x.episode_returns(2).mean(0) for x in (segment, trial(env, learner, 1000, learner.teacher)))
    assert told[1] > 5.0
    assert returns[0] < 0.85 * told[0]
    assert returns[1] > 0.9 * told[1]
    z = learner.teacher.latent(learner.teacher.known(segment.privileged[-1])).detach()
    assert float((learner.policy.read_out(segment.final_state)["z"] - z).abs().mean()) < 0.2
    assert metrics["train/latent_error"] < 0.3


def test_a_student_that_cannot_tell_does_not_adapt():
    """Without rewards, in a world whose motion says nothing of the sign, nothing is left to adapt by."""
    env, learner = make(Sign(), num_worlds=32, learning_rate=1e-2, student_share=0.5, feedback="action")
    train(env, learner, [number / 14 for number in range(14)])
    returns = trial(env, learner, 1000, learner.policy).episode_returns(2).mean(0)
    assert returns.abs().max() < 2.5
