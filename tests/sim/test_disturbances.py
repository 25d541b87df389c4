"""Disturbances: what they do to commands, robots, sensors and tasks, in one world and never in another."""

from contextlib import nullcontext

import pytest
import torch
from disturbed import EVERYTHING, Cart, Everywhere, Floater
from families import columns
from scipy.spatial.transform import Rotation
from test_no_wait import NoWait

from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.core.tasks import Choice, Disc, Uniform
from metarl.sim.altered import Altered
from metarl.sim.declarations import make
from metarl.sim.disturbances import (
    ActionLatency,
    Drift,
    EachWorld,
    EncoderOffset,
    Fault,
    Force,
    ImuTilt,
    Kick,
    Redrawn,
    Sensor,
    drawn,
)
from metarl.sim.mujoco.mujoco_env import MujocoEnv
from metarl.sim.variations import BodyMass, MotorStrength, Payload

NOMINAL = {"goal": 0.0, "late": 0.0, "strength": 1.0, "mass": 1.0}


def start(family, num_worlds=3, key=7, streams=None, episode=None, **values):
    """An environment at the start of a trial on nominal tasks but for `values`, one per world."""
    env = MujocoEnv(family, num_worlds, threads=1, episode_steps=episode)
    env.begin(columns(**{name: values.get(name, [v] * num_worlds) for name, v in NOMINAL.items()}), key, streams)
    return env


def velocities(env, actions):
    """Of the cart after each step."""
    found = []
    for action in actions:
        env.step(torch.full((env.num_worlds, 1), float(action)))
        found.append(env.physics.bind("qvel")[:, 0].clone())
    return torch.stack(found)


# commands


def test_a_command_takes_effect_on_the_physics_step_on_which_it_arrives():
    """The cart gains 1 m/s in each of the two physics steps of a control step."""
    env = start(Cart(ActionLatency("late")), 4, late=[0.0, 0.01, 0.02, 0.05])
    expected = [[2, 1, 0, 0], [2, 2, 2, 0], [4, 3, 2, 1], [4, 4, 4, 2]]
    torch.testing.assert_close(velocities(env, [1, 0, 1, 0]), torch.tensor(expected).double())


@pytest.mark.parametrize("looks", [True, False])
def test_a_latency_of_zero_is_none(looks):
    env, plain = start(Cart(ActionLatency("late"))), start(Cart())
    env._looks = looks
    assert torch.equal(velocities(env, [1, -0.5, 0.25]), velocities(plain, [1, -0.5, 0.25]))


def test_before_the_first_command_arrives_the_one_of_the_reset_is_in_force():
    class Pushed(Cart):
        def reset(self, physics, worlds, tasks, random):
            physics.bind("ctrl")[worlds] = 0.5

    env = start(Pushed(ActionLatency(0.02)))
    assert velocities(env, [-1, -1])[:, 0].tolist() == [1.0, -1.0]


def test_after_a_step_the_control_is_the_command_and_not_what_arrived():
    env = start(Cart(ActionLatency(0.06)))
    velocities(env, [1, -0.5])
    assert env.physics.bind("ctrl").tolist() == [[-0.5]] * 3


def test_of_lost_commands_the_last_that_came_stays_in_force():
    env = start(Cart(ActionLatency(0.0, lost=0.5)), 200)
    gained = velocities(env, [1, -1]).diff(dim=0, prepend=torch.zeros(1, 200))
    assert 0.35 < (gained[0] == 0).double().mean() < 0.65  # nothing came, nothing was in force
    assert set(map(tuple, gained.T.tolist())) == {(0.0, 0.0), (0.0, -2.0), (2.0, 2.0), (2.0, -2.0)}


def test_jitter_delays_each_command_by_its_own_time_and_no_older_one_overtakes():
    env = start(Cart(ActionLatency(0.03, jitter=0.03)), 50)
    sent = torch.linspace(0.1, 1.0, 10)
    gained = velocities(env, sent.tolist()).diff(dim=0, prepend=torch.zeros(1, 50))
    assert bool((gained.diff(dim=0) >= -1e-9).all())  # commands grow, and so does what is in force
    assert len(gained[4].unique()) > 3


# sensors


def test_noise_is_white_and_the_same_for_a_world_in_any_batch():
    env, few = start(Cart(Sensor("position", noise=0.5)), 300), start(Cart(Sensor("position", noise=0.5)), 2)
    clean = start(Cart(), 300)
    seen, noise = [], []
    for _ in range(3):
        step, plain, own = (each.step(torch.zeros(each.num_worlds, 1)).obs for each in (env, clean, few))
        assert torch.equal(step[:2], own)
        assert torch.equal(step[:, 1], plain[:, 1])
        seen.append(step)
        noise.append(step[:, 0] - plain[:, 0])
    noise = torch.stack(noise)
    assert noise.std() == pytest.approx(0.5, rel=0.1)
    assert noise.mean().abs() < 0.06
    assert torch.corrcoef(noise)[0, 1].abs() < 0.2


def test_a_bias_lasts_for_an_episode_and_oracles_see_it():
    env, clean = start(Cart(Sensor("position", bias=Uniform(-0.2, 0.2)))), start(Cart())
    found = []
    for _ in range(52):  # past the end of an episode
        found.append(env.step(torch.zeros(3, 1)).obs[:, 0] - clean.step(torch.zeros(3, 1)).obs[:, 0])
        torch.testing.assert_close(0.2 * env.privileged()[:, -1], found[-1], atol=1e-6, rtol=0)
    first, second = found[0], found[-1]
    torch.testing.assert_close(torch.stack(found[:49]), first.expand(49, 3), atol=1e-6, rtol=0)
    assert bool((first != second).all())
    assert env.info.privileged[-1].name == "position_bias"


def test_a_late_sensor_shows_what_was_interpolated_between_steps():
    env, clean = start(Cart(Sensor("velocity", latency="late")), 3, late=[0.0, 0.02, 0.03]), start(Cart())
    truth = [clean.step(torch.ones(3, 1)).obs[0, 1] for _ in range(4)]
    seen = [env.step(torch.ones(3, 1)).obs[:, 1] for _ in range(4)]
    assert truth == [2.0, 4.0, 6.0, 8.0]
    assert torch.stack(seen).tolist() == [[2, 0, 0], [4, 2, 1], [6, 4, 3], [8, 6, 5]]


def test_a_late_sensor_forgets_the_episode_before():
    env = start(Cart(Sensor("velocity", latency=0.02), edge=0.05))
    for _ in range(4):
        step = env.step(torch.tensor([[1.0], [0.0], [0.0]]))
        assert step.terminated.tolist()[1:] == [False, False]
        if bool(step.terminated[0]):
            break
    assert step.obs[0, 1] == 0.0
    assert step.final_obs[0, 1] > 0.0
    assert env.step(torch.zeros(3, 1)).obs[0, 1] == 0.0


def test_of_lost_samples_the_last_one_is_seen_again():
    env = start(Cart(Sensor("velocity", lost=0.5)), 100)
    seen = torch.stack([env.step(torch.ones(100, 1)).obs[:, 1] for _ in range(6)])
    repeated = seen.diff(dim=0) == 0
    assert 0.3 < repeated.double().mean() < 0.7
    fresh = seen[1:][~repeated]
    assert torch.equal(fresh, torch.arange(4.0, 14.0, 2.0)[:, None].expand(5, 100)[~repeated])


def test_an_encoder_offset_misleads_policy_and_servo_alike():
    """At rest the servo holds its target by its own encoder: that is what is seen, and the joint is off."""
    env = start(Floater(EncoderOffset(offset=0.2)))
    for _ in range(49):
        step = env.step(torch.full((3, 1), 0.5))
    torch.testing.assert_close(step.obs[:, 3], torch.full((3,), 0.5), atol=1e-2, rtol=0)
    assert env.physics.bind("qpos")[:, 7] == pytest.approx(0.3, abs=1e-2)


def test_a_tilted_sensor_measures_in_a_frame_that_is_rolled_and_pitched():
    env = start(Floater(ImuTilt(Uniform(-0.5, 0.5), parts=("place",))))
    env.physics.bind("qpos")[:, :3] = torch.tensor([1.0, 2.0, 3.0])
    seen = env.step(torch.zeros(3, 1)).obs[:, :3]
    angles = 0.5 * env.privileged()[:, -2:].double().numpy()
    frames = Rotation.from_euler("XY", angles)
    torch.testing.assert_close(seen.double(), torch.from_numpy(frames.inv().apply([1.0, 2.0, 3.0])), atol=1e-5, rtol=0)


# faults


def strength(env):
    return [float(env.physics.model_of(world).actuator_gainprm[0, 0]) for world in range(env.num_worlds)]


def test_a_fault_begins_lasts_and_leaves_the_robot_as_it_was():
    fault = Fault(("strength",), onset=0.04, duration=0.06)
    env = start(Cart(fault), strength=[0.0, 0.5, 1.0])
    pristine = strength(env)[2]
    gained = velocities(env, [1] * 7).diff(dim=0, prepend=torch.zeros(1, 3))
    assert gained.T.tolist() == [[2, 2, 0, 0, 0, 2, 2], [2, 2, 1, 1, 1, 2, 2], [2] * 7]
    assert strength(env) == [pristine] * 3


def test_oracles_see_whether_a_fault_is_on_and_nobody_else_does():
    family = Cart(Fault(("strength",), onset=0.04, duration=0.06))
    env, oracle = start(family, strength=[0.0] * 3), MujocoEnv(family, 3, task_visible=True, threads=1)
    assert [part.name for part in env.info.privileged][-1] == "fault"
    assert env.info.observation_size == 2
    obs, seen = oracle.begin(columns(**{name: [value] * 3 for name, value in NOMINAL.items()}), 7), []
    for _ in range(6):
        seen.append((float(obs[0, -1]), float(env.privileged()[0, -1])))
        obs = oracle.step(torch.zeros(3, 1)).obs
        env.step(torch.zeros(3, 1))
    assert seen == [(0, 0), (0, 0), (1, 1), (1, 1), (1, 1), (0, 0)]  # of the step about to be taken


def test_of_several_faults_oracles_see_each_and_whether_there_is_one():
    env = start(Cart(Fault(("strength",), onset=0.02), Fault(("mass",), onset=0.04)))
    seen = []
    for _ in range(3):
        seen.append(env.privileged()[0, -3:].tolist())
        env.step(torch.zeros(3, 1))
    assert seen == [[0, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert [(part.name, part.size) for part in env.info.privileged[-2:]] == [("fault", 1), ("faults", 2)]


def test_a_share_of_faults_is_there_from_the_start():
    env = start(Cart(Fault(("strength",), onset=Uniform(0.2, 0.4), at_start=0.3)), 200, strength=[0.0] * 200)
    early = torch.tensor(strength(env)) == 0
    assert 0.2 < early.double().mean() < 0.4
    velocities(env, [0] * 22)
    assert strength(env) == [0.0] * 200


def test_onsets_are_drawn_for_each_episode_and_world():
    env, onsets = start(Cart(Fault(("strength",), onset=Uniform(0.1, 0.9))), strength=[0.0] * 3), []
    for episode in range(2):
        on = [strength(env)] + [strength(env) for _ in range(49) if env.step(torch.zeros(3, 1)) is not None]
        onsets += (torch.tensor(on) != 0).sum(dim=0).tolist()
        env.step(torch.zeros(3, 1)) if episode == 0 else None
        if episode == 0:
            assert 0.0 not in strength(env)
    assert len(set(onsets)) >= 5
    assert all(5 <= onset <= 46 for onset in onsets)


def test_a_mass_put_on_in_mid_episode_slows_the_robot():
    env = start(Cart(Fault(("mass",), onset=0.02)), mass=[1.0, 2.0, 4.0])
    gained = velocities(env, [1, 1]).diff(dim=0)
    torch.testing.assert_close(gained[0], torch.tensor([2.0, 1.0, 0.5]).double())


# conditions that change


def test_a_parameter_is_redrawn_from_the_split_of_the_tasks_own():
    """At rest close to zero, so that goals are told to within a hundredth; those of `ood` lie from 2 to 3."""
    own = [0.5] * 100 + [2.5] * 100
    env = start(Cart(Redrawn(("goal",), every=Uniform(0.1, 0.3))), 200, goal=own)
    told = env.info.privileged[-1]
    assert (told.name, told.size) == ("present_goal", 1)
    shown = torch.cat([env.privileged()[None, :, -1]])
    distance = [-env.step(torch.zeros(200, 1)).reward_terms["goal"] for _ in range(48)]
    shown_last = env.privileged()[:100, -1].abs().double()
    distance = torch.stack([*distance, -env.step(torch.zeros(200, 1)).reward_terms["goal"]])
    assert distance[:4] == pytest.approx(torch.tensor(own).expand(4, 200), abs=0.02)
    assert torch.equal(shown[0], torch.tensor(own))
    late = distance[-1]
    assert late[:100].max() < 1.02
    assert 1.98 < late[100:].min() < late[100:].max() < 3.02
    changes = ((distance.diff(dim=0)).abs() > 1e-9).sum(dim=0)
    assert set(changes.tolist()) <= set(range(2, 9))
    torch.testing.assert_close(shown_last, late[:100], atol=0.02, rtol=0)


def test_ground_changes_with_the_place_and_is_the_same_on_the_way_back():
    env = start(Floater(Redrawn(("goal",), every=1.0, of="distance")), goal=[0.5] * 3)
    place, seen = env.physics.bind("qpos"), []
    for x in (0.0, 0.4, 0.6, 1.4, 1.6, 0.9, 0.2):
        place[:, 0] = x
        env.step(torch.zeros(3, 1))
        seen.append(env.privileged()[:, -1])
    seen = torch.stack(seen)
    assert torch.equal(seen[0], torch.full((3,), 0.5))
    for same, other in ((0, 1), (2, 3), (0, 6), (2, 5)):
        assert torch.equal(seen[same], seen[other])
    assert bool((seen[[0, 2, 4]].diff(dim=0) != 0).all())


def test_a_battery_sags_step_by_step():
    env = start(Cart(Drift(("strength",), to=0.5, seconds=0.2, every=0.1)))
    gained = velocities(env, [1] * 15).diff(dim=0, prepend=torch.zeros(1, 3))[:, 0]
    torch.testing.assert_close(gained, torch.tensor([2.0] * 5 + [1.5] * 5 + [1.0] * 5).double())


# pushes


def test_any_robot_is_altered_by_a_draw_of_each_episode_upon_what_its_task_says():
    env = start(Cart(Altered(MotorStrength("motors"), Uniform(0.5, 1.0))), 2, strength=[1.0, 0.5])
    first = strength(env)
    told = 0.75 + 0.25 * env.privileged()[:, -1].double()  # its draw, from -1 to 1
    assert first == pytest.approx((told * torch.tensor([1.0, 0.5])).tolist())
    assert env.info.privileged[-1].name == "motors_value"
    for _ in range(50):
        assert strength(env) == first
        env.step(torch.zeros(2, 1))
    assert all(now != before for now, before in zip(strength(env), first, strict=True))


def test_an_alteration_within_an_episode_is_a_fault_that_is_over_again():
    env = start(Cart(Altered(BodyMass("load"), 3.0, onset=0.04, duration=0.04)), mass=[1.0, 1.0, 2.0])
    mass, seen, fault = env.physics.expand("body_mass")[:, 1], [], []
    for _ in range(6):
        seen.append(mass[::2].tolist())
        fault.append(float(env.privileged()[0, -1]))
        env.step(torch.zeros(3, 1))
    assert env.info.privileged[-1].name == "fault"
    assert fault == [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    assert [now[0] / seen[0][0] for now in seen] == [1.0, 1.0, 3.0, 3.0, 1.0, 1.0]
    assert all(now[1] == 2.0 * now[0] for now in seen)


def test_an_alteration_grows_to_its_value():
    """Of 1 s, in steps of 0.5 s: 25 control steps."""
    env = start(Cart(Altered(MotorStrength("battery"), 0.6, over=1.0)), episode=60)
    found = []
    for _ in range(60):
        found.append(float(strength(env)[0]))
        env.step(torch.zeros(3, 1))
    assert found == pytest.approx([1.0] * 25 + [0.8] * 25 + [0.6] * 10)


def test_each_world_may_have_a_magnitude_of_its_own():
    env = start(Cart(Altered(MotorStrength("motors"), EachWorld((1.0, 0.5, 0.0)))))
    assert strength(env) == [1.0, 0.5, 0.0]
    assert env.info.privileged[-1].name == "mass"  # nothing is drawn that could be told
    with pytest.raises(UserError, match="has 3 values for 2 worlds"):
        start(Cart(Altered(MotorStrength("motors"), EachWorld((1.0, 0.5, 0.0)))), 2)


def test_an_alteration_that_no_model_can_have_is_refused_before_any_step():
    with pytest.raises(UserError, match="must not be negative"):
        start(Cart(Altered(MotorStrength("motors"), Uniform(-0.5, 1.0))))
    loaded = Altered(Payload("load", "cart", (0.0, 0.0, 0.0), aside=("late",)), 1.0)
    with pytest.raises(UserError, match="reads load, late, it may read one number only"):
        make("slip", type("Slip", (Cart,), {"__init__": lambda self: Cart.__init__(self, loaded)}))


def test_a_force_lasts_as_long_as_is_said():
    env = start(Floater(Force("hull", 2.0, onset=0.04, duration=0.02)))
    gained = []
    for _ in range(4):
        before = env.physics.bind("qvel")[0, 1].clone()
        env.step(torch.zeros(3, 1))
        gained.append(float(env.physics.bind("qvel")[0, 1] - before))
    assert [abs(one) > 1e-3 for one in gained] == [False, False, True, False]


def test_a_force_pushes_sideways_and_is_drawn_anew():
    env = start(Floater(Force("hull", Uniform(-10.0, 10.0), hold=0.1)))
    speeds = [env.physics.bind("qvel")[:, :2].clone()]
    told = [env.privileged()[:, -1]]
    for _ in range(10):
        env.step(torch.zeros(3, 1))
        speeds.append(env.physics.bind("qvel")[:, :2].clone())
        told.append(env.privileged()[:, -1])
    pushed = torch.stack(speeds).diff(dim=0) * 2.01 / 0.02
    torch.testing.assert_close(pushed[:, :, 1].float(), 10.0 * torch.stack(told[:-1]), rtol=0.05, atol=0.1)
    assert len(torch.stack(told[:-1])[:, 0].unique()) == 2


def test_a_kick_comes_when_it_is_due_and_goes_anywhere():
    env = start(Floater(Kick(speed=0.5, every=0.06)), 100)
    speeds = []
    for _ in range(7):
        env.step(torch.zeros(100, 1))
        speeds.append(env.physics.bind("qvel")[:, :2].clone())
    change = torch.stack(speeds).diff(dim=0, prepend=torch.zeros(1, 100, 2))
    sizes = change.norm(dim=2)
    assert sizes[[0, 1, 2, 4, 5]].max() < 1e-6
    torch.testing.assert_close(sizes[[3, 6]], torch.full((2, 100), 0.5).double(), rtol=0.01, atol=0)
    angles = torch.atan2(change[3, :, 1], change[3, :, 0])
    assert angles.min() < -2.0
    assert angles.max() > 2.0


# all together
def played(env, actions, disturb=None):
    seen = []
    for t, action in enumerate(actions):
        if disturb is not None:
            disturb(env, t)
        step = env.step(action)
        seen.append(torch.cat((step.obs, step.final_obs, step.reward[:, None], env.privileged()), dim=1))
    return torch.stack(seen)


def random_actions(steps, num_worlds):
    return 2 * torch.rand(steps, num_worlds, 1, generator=seeding.generator(0, "test")) - 1


def test_what_happens_in_one_world_leaves_the_others_bit_identical():
    """It falls early, and has another task: its faults, draws and restarts are its own."""
    actions = random_actions(90, 3)
    tasks = {"strength": [0.2, 0.4, 0.0], "late": [0.01, 0.02, 0.0]}
    calm = played(start(Cart(*EVERYTHING, edge=50.0), **tasks), actions)
    tasks["strength"][2], tasks["late"][2] = 0.9, 0.05

    def throw(env, t):
        if t in (3, 17, 31):
            env.physics.bind("qpos")[2] += 100.0
        if t == 40:
            env.physics.bind("qvel")[2] = float("nan")

    wild = played(start(Cart(*EVERYTHING, edge=50.0), **tasks), actions, throw)
    assert torch.equal(calm[:, :2], wild[:, :2])
    assert not torch.equal(calm[:, 2], wild[:, 2])


def test_a_world_is_disturbed_alike_in_any_batch_and_again():
    actions = random_actions(60, 3)
    values = {"strength": [0.2, 0.4, 0.6], "goal": [0.1, 0.2, 2.5]}
    env = start(Cart(*EVERYTHING), **values)
    all_three = played(env, actions)
    env.begin(env.tasks, 7)
    assert torch.equal(played(env, actions), all_three)
    one = {name: value[1:2] for name, value in values.items()}
    alone = played(start(Cart(*EVERYTHING), 1, streams=torch.tensor([1]), **one), actions[:, 1:2])
    assert torch.equal(alone[:, 0], all_three[:, 1])


@pytest.mark.parametrize("family", [Cart(*EVERYTHING, edge=0.5), Everywhere()], ids=["cart", "floater"])
def test_a_disturbed_step_waits_for_no_device_and_comes_out_the_same(family):
    outcomes = []
    for looks in (True, False):
        env = MujocoEnv(family, 3, episode_steps=15, threads=1)
        env._looks = looks
        env.begin(family.space.sample("train", 3, seeding.rng(0, "test")), 7)
        env.queue(env.tasks)
        with nullcontext() if looks else NoWait():
            outcomes.append(played(env, random_actions(35, 3)))
        env.check()
    assert torch.equal(*outcomes)


@pytest.mark.parametrize(
    ("disturbance", "message"),
    [
        (ActionLatency("lag"), "unknown task parameter 'lag'"),
        (ActionLatency(Disc(1.0)), "seconds = Disc.* must be a number"),
        (Sensor("gyro"), "unknown part of the observation 'gyro'"),
        (ImuTilt(0.1, parts=("position",)), "the part 'position' has 1 numbers, a vector has 3"),
        (Fault(("power",)), "unknown task parameter 'power'"),
        (Fault(()), "must be a tuple of names"),
        (Redrawn(("goal",), every=Uniform(1.0, 2.0), of="distance"), "of a distance must be a number"),
        (MotorStrength("strength"), "disturbances must be a tuple of Disturbances"),
    ],
)
def test_a_slip_in_a_declaration_is_one_sentence(disturbance, message):
    class Slip(Cart):
        def __init__(self):
            super().__init__(disturbance)

    with pytest.raises(UserError, match=message):
        make("slip", Slip)


@pytest.mark.parametrize(
    ("support", "expected"),
    [(Uniform(2.0, 4.0), [2.0, 3.0, 3.99]), (Choice((1.0, 5.0, 9.0)), [1.0, 5.0, 9.0])],
)
def test_draws_follow_from_uniform_ones(support, expected):
    assert drawn(support, torch.tensor([0.0, 0.5, 0.995])).tolist() == pytest.approx(expected)


def test_kicks_and_patches_need_a_robot_that_moves_freely():
    for disturbance in (Kick(1.0, 1.0), Redrawn(("goal",), every=1.0, of="distance")):
        with pytest.raises(UserError, match="the model's first joint must be a free joint"):
            MujocoEnv(Cart(disturbance), 1, threads=1)
