"""Mirror images for RMA and VariBAD: that they are what the robot would have met, and what is learnt from them.

RL²'s are in test_rl2.py.
"""

import dataclasses

import pytest
import torch
from test_rl2 import MirroredSign, Sign
from test_rma import CONFIG as RMA
from test_varibad import CONFIG as VARIBAD

from metarl.agents.rma import Rma
from metarl.agents.varibad import VariBad
from metarl.core import seeding
from metarl.core.mirror import reflect
from metarl.core.tasks import Tasks
from metarl.core.types import Transition
from metarl.run.collect import Stepper, collect
from metarl.sim.mujoco.mujoco_env import MujocoEnv

LEARNERS = pytest.mark.parametrize(("kind", "config"), [(Rma, RMA), (VariBad, VARIBAD)], ids=["rma", "varibad"])


def make(kind, config, family=None, num_worlds=6, **changes):
    env = MujocoEnv(family or MirroredSign(), num_worlds, episodes_per_trial=2, threads=1)
    config = dataclasses.replace(config, **{"mirror": True} | changes)
    return env, kind(config, env.info, seeding.generator(0, "init"))


def play(env, learner, number, sign, policy=None):
    tasks = Tasks({"sign": torch.full((env.num_worlds,), sign, dtype=torch.float64)})
    wants = {"record": learner.record, "privileged": learner.wants_privileged}
    return collect(env, policy or learner.behaviour, tasks, seeding.key(0, "collect", number), **wants)


def segments(env, learner, length, number):
    tasks = env.family.space.sample("train", env.num_worlds, seeding.rng(0, "tasks"))
    stepper = Stepper(env, learner.behaviour, tasks, 0, next_tasks=lambda: (tasks, torch.arange(env.num_worlds)))
    for _ in range(number):
        yield stepper.segment(learner.behaviour, length, learner.record, privileged=learner.wants_privileged)


def mirrored_memories(learner, segment, state):
    """Of worlds that are fed each transition with left and right exchanged: before each step, and the last."""
    mirror, policy, before = learner.policy.info.mirror, learner.policy, []
    for t in range(len(segment.reward)):
        state = policy.initial_state(segment.reward.shape[1]) if bool(segment.trial_start[t].all()) else state
        before.append(state.memory)
        obs, final = (reflect(rows[t], mirror.observation) for rows in (segment.obs, segment.final_obs))
        nothing = torch.zeros(segment.reward.shape[1], dtype=torch.bool)
        action = reflect(segment.action[t], mirror.action)
        state = policy.observe(state, Transition(obs, action, segment.reward[t], final, nothing))
    return torch.stack(before), state


def test_the_teacher_is_taught_what_its_image_was_told():
    env, learner = make(Rma, RMA)
    chunks, _ = learner.prepare(play(env, learner, 0, 1.0))
    segment = play(env, learner, 0, 1.0)
    number = segment.reward.numel()
    told = torch.cat((-segment.obs, -segment.privileged), dim=-1).flatten(0, 1)
    state, noise = learner.teacher.initial_state(number), torch.zeros(number, 1)
    mean, _ = learner.teacher.act(told, state, noise, deterministic=True)
    evaluated, _, _ = learner._evaluate(chunks)
    torch.testing.assert_close(evaluated[0, number:], mean)
    assert torch.equal(chunks.action[0, number:], -segment.action.flatten(0, 1))
    for name in ("log_prob", "advantage", "target"):
        assert torch.equal(*getattr(chunks, name).chunk(2, dim=1))


def test_the_student_is_taught_by_the_memory_that_its_image_would_have():
    """From segment to segment, and anew with each trial."""
    env, learner = make(Rma, RMA, student_share=0.5, segment_steps=8)
    for number in range(2):
        learner.update(play(env, learner, number, 1.0), seeding.generator(0, "update", number), number / 2)
    assert learner.behaviour is learner.policy
    state = None
    for segment in segments(env, learner, 8, 4):
        before, state = mirrored_memories(learner, segment, state)
        image = dataclasses.replace(
            segment,
            obs=-segment.obs,
            final_obs=-segment.final_obs,
            action=-segment.action,
            privileged=-segment.privileged,
        )
        _, memory, target = learner.lessons(image, acted=False)
        torch.testing.assert_close(memory, before[::4].flatten(0, 1), rtol=0, atol=1e-6)
        assert torch.equal(target[:, :6], learner.teacher.latent(learner.teacher.known(-segment.privileged))[:4])


def test_the_policy_is_taught_by_the_belief_that_its_image_would_have():
    env, learner = make(VariBad, VARIBAD, segment_steps=8)
    learner.update(play(env, learner, 0, 1.0), seeding.generator(0, "update", 0), 0.0)
    learner._image_memory = type(learner._image_memory)(learner.config.encoder_size)
    state = None
    for segment in segments(env, learner, 8, 4):
        before, state = mirrored_memories(learner, segment, state)
        with torch.no_grad():
            belief = torch.cat(learner.policy.encoder.believed(before), dim=-1)
            features = learner.policy.features(-segment.obs, belief)
            own = learner.policy.encoder(learner.policy.context(segment), segment.initial_state.memory)
            chunks, _ = learner.prepare(segment, torch.cat(own, dim=-1))
        context, image = learner._image(segment, chunks, learner.policy.info.mirror)
        torch.testing.assert_close(image.inputs[0], features.flatten(0, 1), rtol=0, atol=1e-6)
        assert torch.equal(image.action, -chunks.action)
        size = segment.obs.shape[2]
        assert torch.equal(context[..., :size], learner.policy.obs_norm(-segment.obs))


@pytest.mark.parametrize("mirror", [False, True])
@LEARNERS
def test_what_is_learnt_to_the_right_is_known_to_the_left(kind, config, mirror):
    """Trained with sign 1 alone, only who learns from mirror images does well with sign -1."""
    own = {"student_learning_rate": 1e-2, "student_share": 0.5} if kind is Rma else {}
    env, learner = make(kind, config, num_worlds=16, mirror=mirror, batch_size=32, learning_rate=1e-2, **own)
    for number in range(20):
        learner.update(play(env, learner, number, 1.0), seeding.generator(0, "update", number), number / 20)
    found = float(play(env, learner, 100, -1.0, learner.policy).episode_returns(2)[:, 1].mean())
    assert (found > 1.0) == mirror


def test_a_student_goes_on_from_what_its_images_held():
    """In mid-trial; where the teacher takes over again, nothing is kept of them, as nothing is of its own trials."""
    env, learner = make(Rma, RMA, student_share=0.5, segment_steps=8)
    for number, segment in enumerate(segments(env, learner, 8, 3)):
        learner.update(segment, seeding.generator(0, "update", number), 0.9)
        assert ("mirrored/memory" in learner.state_dict()) == (number == 2), "the second trial has begun with the third"
    state, other = learner.state_dict(), make(Rma, RMA)[1]
    other.load_state_dict(state)
    assert torch.equal(other.state_dict()["mirrored/memory"], state["mirrored/memory"])
    with pytest.raises(ValueError, match=r"the memory of mirrored worlds is \(6, 3\), not of 16 numbers each"):
        other.load_state_dict(state | {"mirrored/memory": torch.zeros(6, 3)})
    for progress in (0.1, 0.1):
        learner.update(segment, seeding.generator(0, "update", 3), progress)
    assert "mirrored/memory" not in learner.state_dict()


@LEARNERS
def test_a_family_without_a_symmetry_has_no_mirror_images(kind, config):
    states = []
    for mirror in (False, True):
        env, learner = make(kind, config, Sign(), mirror=mirror)
        learner.update(play(env, learner, 0, 1.0), seeding.generator(0, "update", 0), 0.0)
        states.append(learner.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
