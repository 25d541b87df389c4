"""Robots that one interferes with while they act: no page, no clock."""

import numpy as np
import pytest
import torch

from metarl.core.errors import UserError
from metarl.rl.scripted import ZeroPolicy
from metarl.run.subject import subject_of
from metarl.viewer import knowledge
from metarl.viewer.player import Player


@pytest.fixture(scope="module")
def subject():
    return subject_of("pretrained:quadruped-command-rl2")


@pytest.fixture
def player(subject):
    made = Player(subject.family, 2, episode_steps=20)
    made.use(subject.policy, "rl2")
    made.new_trial()
    yield made
    made.close()


def steps(player, number):
    for _ in range(number):
        player.step()


def test_it_plays_as_an_evaluation_does(player, subject):
    """With no hand on it, bit for bit: the controls that are laid over the family change nothing."""
    from metarl.core import seeding
    from metarl.run.collect import Stepper
    from metarl.sim.make import make_env

    steps(player, 15)
    with make_env(subject.family, 2, episode_steps=20) as env:
        stepper = Stepper(env, subject.policy, subject.family.space.fixed("test", 2), seeding.key(0, "evaluate"))
        for now in stepper.steps(subject.policy, 15, deterministic=True):
            last = now
    assert np.array_equal(player.past[-1].obs, last.obs.numpy())


def test_a_changed_task_holds_at_once_in_the_chosen_world(player):
    steps(player, 2)
    before = player.tasks["velocity"].tolist()
    player.set("velocity", 1.3, worlds=[1])
    steps(player, 1)
    assert player.past[-1].wanted[:, 0].tolist() == pytest.approx([before[0], 1.3])
    assert player.past[-1].truth[1, 0] > 1.0  # beyond what it was trained on


def test_a_hand_on_the_robot_changes_its_model_and_lets_go_again(player):
    model = player.env.physics.model
    trunk, friction = model.body("trunk").id, model.geom_friction.copy()
    steps(player, 1)
    player.grip(payload=3.0, friction=0.5, motor=player.hand.motors.index("FL_knee"), way=0)
    steps(player, 1)
    own = player.env.physics.model_of(1)
    assert own.body_mass[trunk] == pytest.approx(model.body_mass[trunk] + 3.0)
    assert own.actuator_gainprm[2, 0] == 0.0 and own.actuator_gainprm[5, 0] > 0.0
    assert np.allclose(own.geom_friction[:, 0], 0.5 * friction[:, 0])
    player.grip(payload=0.0, friction=1.0, motor=-1)
    steps(player, 1)
    own = player.env.physics.model_of(1)
    assert own.body_mass[trunk] == model.body_mass[trunk] and own.actuator_gainprm[2, 0] > 0.0


def test_commands_come_late_by_as_much_as_is_asked_for(subject):
    """Two robots that start alike part when the first late command would have arrived, and not before."""
    heights = []
    for latency in (0.0, 0.1):
        player = Player(subject.family, 1, episode_steps=20)
        player.use(subject.policy)
        player.new_trial()
        player.grip(latency=latency)
        steps(player, 3)
        heights.append(float(player.env.physics.bind("qpos")[0, 9]))
        player.close()
    assert heights[0] != heights[1]


def test_a_push_is_worth_its_velocity(player):
    def speed():
        return player.env.physics.bind("qvel")[:, 0].clone()

    player.use(ZeroPolicy(player.env.info))
    steps(player, 5)
    before = speed()
    player.push(1.0, 0.0, worlds=[0])
    steps(player, 5)
    gained = speed() - before
    assert gained[0] > 0.3 and abs(float(gained[1])) < 0.3
    assert not player.pushing() or player.env.physics.bind("xfrc_applied").abs().max() > 0
    steps(player, 2)
    assert float(player.env.physics.bind("xfrc_applied").abs().max()) == 0.0


def test_new_episodes_keep_what_is_known_and_new_tasks_do_not(player):
    steps(player, 5)
    known = player.past[-1].memory.copy()
    player.new_episode()
    steps(player, 1)
    assert player.past[-1].episode.tolist() == [1, 1] and len(player.returns[0]) == 1
    assert player.past[-1].time == pytest.approx(6 * player.dt)
    fresh = Player(player.family, 2, episode_steps=20)
    fresh.use(player.policy)
    fresh.step()
    assert np.abs(player.past[-1].memory - known).max() < np.abs(fresh.past[-1].memory - known).max()
    fresh.close()
    ids = player.tasks.ids
    player.new_trial()
    assert player.tasks.ids != ids and len(player.past) == 0
    player.same_task = True
    ids = player.tasks.ids
    player.new_trial()
    assert player.tasks.ids == ids


def test_trials_follow_each_other(player):
    steps(player, 40)
    assert player.over and [len(row) for row in player.returns] == [2, 2]
    ids = player.tasks.ids
    steps(player, 1)
    assert player.tasks.ids != ids and len(player.past) == 1


def test_another_policy_goes_on_in_the_same_worlds(player):
    steps(player, 3)
    place = player.env.physics.bind("qpos").clone()
    player.use(ZeroPolicy(player.env.info), "zero")
    assert torch.equal(player.env.physics.bind("qpos"), place)
    steps(player, 1)
    assert player.past[-1].memory is None and player.past[-1].time == pytest.approx(4 * player.dt)
    player.use(ZeroPolicy(player.env.info), "another")
    steps(player, 2)
    space, info = player.family.space, player.env.info
    told = knowledge.of_the_present(knowledge.Told(player.past, 0, info, space, [], ()))
    assert [instant.policies for instant in told.past] == [told.past[-1].policies] * 2
    assert knowledge.knowledge(told) == [] and knowledge.state_plane(told) == ""
    player.use(subject_of("pretrained:quadruped-command-rl2").policy, "back")
    steps(player, 2)
    told = knowledge.of_the_present(knowledge.Told(player.past, 0, info, space, [], ()))
    assert len(told.past) == 2 and "its adaptation state" in knowledge.state_plane(told)


@pytest.mark.parametrize(
    ("name", "numbers"), [("half-cheetah-dir-maml", 5900), ("half-cheetah-vel-pearl", 5), ("quadruped-body-ppo", 0)]
)
def test_every_kind_of_adaptation_state_is_shown(name, numbers):
    subject = subject_of(f"pretrained:{name}")
    player = Player(subject.family, 2, episode_steps=5, episodes=4)
    player.use(subject.policy)
    steps(player, 17)
    told = knowledge.Told(player.past, 1, player.env.info, player.space, [], ())
    drawn = knowledge.state_plane(told)
    assert (f"{numbers} numbers on two axes" in drawn) if numbers else drawn == ""
    assert bool(knowledge.knowledge(told)) == bool(numbers)
    player.close()


def test_a_policy_of_another_robot_is_refused(player):
    policy = subject_of("pretrained:half-cheetah-dir-rl2").policy
    with pytest.raises(UserError, match="observes 20 numbers and commands 6: this robot has 42"):
        player.use(policy, "the cheetah's")
