"""Worlds on mujoco_warp: what it does as MuJoCo does, and what would be silently wrong. On Warp's CPU device, or CUDA.

Every model costs its kernels' compilation once (Warp keeps them): here it is one robot, more with METARL_FULL=1.
"""

import copy
import math
import os
import sys

import mujoco
import pytest
import torch
from external_family import CartGoal
from families import only
from test_no_wait import NoWait

pytest.importorskip("mujoco_warp")

from metarl.check import agreement
from metarl.core import graphs, seeding
from metarl.core.errors import UserError
from metarl.core.registry import make_family
from metarl.sim.make import make_env
from metarl.sim.mujoco.mujoco_env import compile_spec
from metarl.sim.mujoco.physics import Counts, Dropped, Physics, make_physics
from metarl.sim.variations import Variator

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROBOT = "quadruped-body"
ROOM = Counts(48, 64)  # what is measured for the robot, so that its kernels are compiled once
ALL = os.environ.get("METARL_FULL") == "1"
N = 4
DERIVED = ("xpos", "site_xpos", "actuator_force", "sensordata", "qfrc_bias")


@pytest.fixture(scope="module")
def model():
    return compile_spec(make_family(ROBOT).spec())


def on_mask(*worlds):
    return only(N, *worlds).to(DEVICE)


def standing(model, name="warp", room=ROOM):
    """Four robots at rest on their feet, each with another pull at its servos; and fields that follow from it."""
    physics = make_physics(name, model, N, 1, DEVICE if name == "warp" else None, lambda: room)
    for field in DERIVED:
        physics.bind(field, fresh=False)
    stand = torch.tensor([0.0, 0.9, -1.8] * 4)
    physics.bind("qpos")[:, 2], physics.bind("qpos")[:, 7:] = 0.29, stand.to(physics.device)
    lean = 0.1 * torch.arange(N)[:, None] * torch.ones(12)
    physics.bind("ctrl")[:] = (stand + lean).to(physics.device, physics.dtype)
    return physics


@pytest.fixture(scope="module")
def _twins(model):
    pair = standing(model), standing(model)
    return pair, pair[0].get_state()


@pytest.fixture
def twins(_twins):
    """Two batches of four robots, standing alike."""
    pair, start = _twins
    for physics in pair:
        physics.set_state(start)
        physics.dropped()
    return pair


def look(physics):
    """State and derived fields, copied to the host."""
    return {field: physics.bind(field, fresh=False).clone().cpu() for field in ("qpos", "qvel", "ctrl", *DERIVED)}


def same(one, other, worlds):
    """Bit for bit on the CPU; a GPU adds up forces in any order unless torch is told to be deterministic."""
    pairs = [(one[field][worlds], other[field][worlds]) for field in one]
    return all(torch.equal(*pair) if DEVICE == "cpu" else torch.allclose(*pair, rtol=1e-2, atol=1e-2) for pair in pairs)


@pytest.fixture(scope="module")
def robots():
    """The robot's worlds on the CPU and in Warp."""
    family = make_family(ROBOT)
    with (
        make_env(family, N, episodes_per_trial=2, episode_steps=5, threads=1) as cpu,
        make_env(family, N, episodes_per_trial=2, episode_steps=5, physics="warp", device=DEVICE) as warp,
    ):
        yield cpu, warp


def test_it_fulfils_the_contract(robots):
    _, env = robots
    assert isinstance(env.physics, Physics)
    assert (env.device.type, env.dtype, env.physics.num_worlds) == (DEVICE, torch.float32, N)
    assert env.physics.seconds_to_compile > 0.0


NAMES = [ROBOT, *(("half-cheetah-vel", "hopper-params", "walker-params", "arm-reach", "humanoid-dir") if ALL else ())]


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_mujocos_but_for_rounding(name, robots):
    """From the same state; float32 against float64. Tasks, resets, rewards and falls included."""
    family = make_family(name)
    cpu, env = robots if name == ROBOT else (make_env(family, N, threads=1), make_env(family, N, physics="warp"))
    tasks = family.space.sample("train", N, seeding.rng(0, "test"))
    first = [each.begin(tasks, 3) for each in (cpu, env)]
    torch.testing.assert_close(first[1].cpu(), first[0], atol=1e-6, rtol=1e-6)
    for action in 2 * torch.rand(6, N, cpu.action_size, generator=seeding.generator(0, "test")) - 1:
        for each in (cpu, env):  # both, so that what is derived is as old in both
            each.physics.set_state(cpu.physics.get_state())
        one, other = cpu.step(action), env.step(action.to(env.device))
        torch.testing.assert_close(other.reward.cpu(), one.reward, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(other.final_obs.cpu(), one.final_obs, atol=3e-3, rtol=1e-3)
        assert other.episode_start.tolist() == one.episode_start.tolist()
    env.check()
    assert env.dropped().lost == 0


def test_derived_fields_follow_the_state_as_mujocos_do(model):
    """Behind it by a substep after a step, current after `forward`."""
    plain, physics = (standing(model, name) for name in ("mujoco", "warp"))
    for each in (plain, physics):
        each.step(3)
    for _ in range(2):
        for field in DERIVED:
            expected = plain.bind(field, fresh=False)
            tolerance = 1e-3 * max(1.0, float(expected.abs().max()))
            torch.testing.assert_close(
                physics.bind(field, fresh=False).cpu().double(), expected, atol=tolerance, rtol=1e-3
            )
        for each in (plain, physics):
            each.forward(torch.ones(N, dtype=torch.bool, device=each.device))


def test_a_step_after_forward_is_the_step_without_it(model):
    """It finds half its work done, unless something was written that it depends on."""
    physics, plain = standing(model), standing(model)
    for each in (physics, plain):
        each.expand("geom_friction")
    every = torch.ones(N, dtype=torch.bool, device=DEVICE)
    for change in (None, "ctrl", "qpos", "geom_friction", None):
        for each in (physics, plain):
            each.bind("ctrl")[:, 1] += 0.1
        physics.forward(every)
        for each in (physics, plain):
            if change == "geom_friction":
                each.expand(change)[1] *= 0.1
            elif change:
                each.bind(change)[1, -1] += 0.1
            each.step(3)
        assert same(look(physics), look(plain), slice(None)), change
    assert {name for name in physics._run._graphs if name.startswith("step")} == {"step 3 True", "step 3 False"}


def test_forces_that_nobody_reads_at_a_start_are_left_out(model):
    every = torch.ones(N, dtype=torch.bool, device=DEVICE)

    def begun(at_start):
        physics = make_physics("warp", model, N, 1, DEVICE, lambda: ROOM)
        physics.bind("site_xpos", fresh=False)
        physics.bind("sensordata", fresh=False, at_start=at_start)
        physics._run.forget()
        physics.bind("qpos")[:, 2] = 0.29
        physics.forward(every)
        return physics

    read, unread = begun(True), begun(False)
    assert ("force" in read._run._graphs, "force" in unread._run._graphs) == (True, False)
    assert torch.equal(read.bind("site_xpos", fresh=False), unread.bind("site_xpos", fresh=False))
    for each in (read, unread):
        each.step(5)
    seen = [
        {"qpos": each.bind("qpos").cpu(), "felt": each.bind("sensordata", fresh=False, at_start=False).cpu()}
        for each in (read, unread)
    ]
    assert same(*seen, slice(None)) and seen[0]["felt"].any()
    felt = unread.bind("sensordata", fresh=False)
    unread.forward(every)
    assert "force" in unread._run._graphs
    read.forward(every)
    assert same({"felt": felt.cpu()}, {"felt": read.bind("sensordata", fresh=False).cpu()}, slice(None))


def test_a_fresh_field_is_current_after_a_step(model):
    physics = standing(model)
    place = physics.bind("xpos")
    physics.step(5)
    for world in range(N):
        expected = torch.from_numpy(physics.data_of(world).xpos)
        torch.testing.assert_close(place[world].cpu().double(), expected, atol=1e-6, rtol=1e-5)


def test_a_restart_changes_nothing_in_the_other_worlds(twins):
    """Whatever is written; neither state nor derived fields, which are a substep behind and must stay so."""
    physics, undisturbed = twins
    for each in (physics, undisturbed):
        each.step(4)
    before = look(physics)
    physics.restart(on_mask(1), lambda worlds: physics.bind("qpos")[worlds, 2:3].add_(1.0))
    after = look(physics)
    assert same(before, after, [0, 2, 3])
    assert not any(torch.equal(before[field][1], after[field][1]) for field in ("qpos", "xpos", "sensordata"))
    physics.forward(torch.ones(N, dtype=torch.bool, device=DEVICE))
    assert same(look(physics), after, [1])
    physics.restart(on_mask(1), lambda worlds: physics.bind("qpos")[worlds, 2:3].add_(1.0))
    for each in (physics, undisturbed):
        each.step(4)
    assert same(look(physics), look(undisturbed), [0, 2, 3])


def test_a_reset_is_mujocos_and_of_the_masks_worlds_alone(model, twins):
    physics, plain = twins[0], make_physics("mujoco", model, N, 1)
    physics.bind("xfrc_applied")[:, 1, 2] = 1.0
    physics.step(3)
    before = physics.get_state()
    physics.reset(on_mask(0, 2))
    state = physics.get_state()
    assert torch.equal(state[[1, 3]], before[[1, 3]])
    assert torch.equal(state[[0, 2]].cpu(), plain.get_state()[[0, 2]].float())


def test_static_geoms_move_with_their_worlds_model(model):
    """mujoco_warp computes the places of geoms of the world body once: feet would hang in the air, or in the ground."""
    plain, physics = (standing(model, name) for name in ("mujoco", "warp"))
    ground = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_GEOM, "ground")
    for each in (plain, physics):
        each.expand("geom_pos")[1, ground, 2] = 0.05
        each.expand("geom_pos")[2, ground, 2] = -0.5
        each.set_const(torch.ones(N, dtype=torch.bool, device=each.device))
        each.step(10)
    touching = physics.bind("sensordata", fresh=False)
    torch.testing.assert_close(touching.cpu().double(), plain.bind("sensordata", fresh=False), atol=0.05, rtol=1e-3)
    assert (touching[2] == 0).all()
    assert (touching[1] != touching[0]).any()
    assert physics.data_of(1).geom_xpos[ground, 2] == pytest.approx(0.05)


def test_constants_are_recomputed_per_world_as_mujoco_does(model):
    """Its outputs are shared by all worlds at first: one world's mass would change another's."""
    family, tasks = make_family(ROBOT), make_family(ROBOT).space.sample("ood", N, seeding.rng(0, "test"))
    plain, physics = (standing(model, name) for name in ("mujoco", "warp"))
    for each in (plain, physics):
        Variator(each, family.variations).apply(tasks.to(each.device, each.dtype))
    for world in range(N):
        expected, got = plain.model_of(world), physics.model_of(world)
        for field in ("body_mass", "body_inertia", "body_ipos", "dof_damping", "geom_friction", "actuator_gainprm"):
            assert getattr(got, field).ravel().tolist() == pytest.approx(
                getattr(expected, field).ravel().tolist(), rel=1e-5, abs=1e-7
            ), field
        for field in ("body_subtreemass", "body_invweight0", "dof_invweight0"):
            mine = physics._models.present(field)[world].cpu().ravel().tolist()
            assert mine == pytest.approx(getattr(expected, field).ravel().tolist(), rel=2e-4, abs=1e-6), field


def test_a_new_constant_in_one_world_leaves_its_neighbours_bit_identical(model):
    physics, undisturbed = standing(model), standing(model)
    for each in (physics, undisturbed):
        each.expand("body_mass")
        each.step(2)
    before = look(physics)
    physics.expand("body_mass")[1] *= 1.7
    physics.set_const(on_mask(1))
    assert same(before, look(physics), slice(None))
    for each in (physics, undisturbed):
        each.step(3)
    assert same(look(physics), look(undisturbed), [0, 2, 3])
    assert not torch.equal(look(physics)["qpos"][1], look(undisturbed)["qpos"][1])


def test_states_travel_and_continue_exactly(model, twins):
    (physics, other), plain = twins, standing(model, "mujoco")
    physics.step(4)
    saved = physics.get_state()
    physics.step(4)
    expected = look(physics)
    other.set_state(saved)
    other.step(4)
    assert same(look(other), expected, slice(None))
    assert saved.shape == plain.get_state().shape
    plain.set_state(saved.cpu().double())
    assert torch.equal(plain.bind("qpos").float(), saved[:, 1 : 1 + model.nq].cpu())
    other.set_state(plain.get_state())
    assert torch.equal(other.get_state(), saved)


@pytest.mark.parametrize(
    ("field", "value"), [("qpos", 1e12), ("qpos", math.nan), ("qvel", -math.inf), ("ctrl", math.nan)]
)
def test_a_diverged_world_is_noticed_and_disturbs_no_other(field, value, twins):
    physics, undisturbed = twins
    physics.bind(field)[2, 0] = value
    for each in (physics, undisturbed):
        each.step(3)
    assert physics.diverged().tolist() == [False, False, True, False]
    assert undisturbed.diverged() is None or not undisturbed.diverged().any()
    assert same(look(physics), look(undisturbed), [0, 1, 3])
    physics.restart(on_mask(2), lambda worlds: physics.bind("qpos")[worlds, 2:3].add_(0.1))
    physics.step(3)
    assert physics.diverged() is None or not physics.diverged().any()
    assert all(value.isfinite().all() for value in look(physics).values())


def test_lost_contacts_are_counted_and_told_from_the_solvers_limits(model, twins):
    physics = standing(model, room=Counts(1, ROOM.constraints))
    physics.step(5)
    dropped = physics.dropped()
    assert dropped.lost > 0
    assert physics.dropped() == Dropped()
    roomy = twins[0]
    roomy.step(2)
    assert roomy.dropped().lost == 0
    roomy._overflow[1] = 1 << 9  # OverflowType.ITERATIONS
    roomy.step(1)
    assert roomy.dropped() == Dropped(0, 1)


def test_a_control_step_never_waits_for_the_device(robots, monkeypatch):
    """Falls, divergence and the ends of episodes and trials included."""
    _, env = robots
    first, other = (env.family.space.sample("train", N, seeding.rng(0, "test", number)) for number in range(2))
    monkeypatch.setattr(graphs, "_as_on_a_gpu", True)
    monkeypatch.setattr(env, "_looks", False)
    env.begin(first, 1, clock=torch.tensor([0, 3, 0, 5]))
    env.queue(other)
    zeros = torch.zeros(N, env.action_size, device=env.device)
    steps = []
    for t in range(11):
        if t == 1:
            env.physics.bind("qpos")[1] += 1.7
        if t == 3:
            env.physics.bind("qvel")[2] = math.nan
        with NoWait():
            steps.append(env.step(zeros))
        if t == 9:
            env.queue(first)
    env.check()
    assert steps[3].diverged.tolist() == [False, False, True, False]
    assert torch.stack([step.terminated for step in steps])[:, 1].any()
    assert torch.stack([step.trial_start for step in steps]).sum(dim=0).tolist() == [1, 1, 1, 1]
    assert all(step.obs.isfinite().all() and step.reward.isfinite().all() for step in steps)


def test_check_compares_it_field_by_field(monkeypatch):
    monkeypatch.setattr(agreement, "STEPS", 3)
    found = {each.field: each for each in agreement.agreement(make_family(ROBOT), "warp", DEVICE)}
    assert {"qpos", "qvel", "gyro", "joint_velocity", "reward", "ended"} <= set(found)
    assert 0.0 < found["qvel"].median < found["qvel"].largest < 1e-2 < found["qvel"].size
    assert found["ended"].largest == 0.0
    assert len(list(agreement.table(list(found.values())))) == 1 + len(found)
    with pytest.raises(UserError, match="CartGoal has a simulator of its own: there is nothing to compare"):
        agreement.agreement(CartGoal(), "warp", DEVICE)


def test_pictures_are_of_the_worlds_own_models(robots):
    _, env = robots
    tasks = env.family.space.sample("ood", N, seeding.rng(0, "test"))
    env.begin(tasks, 0)
    env.step(torch.zeros(N, env.action_size, device=env.device))
    data = env.physics.data_of(1)
    assert data.qpos.tolist() == env.physics.bind("qpos")[1].tolist()
    again = mujoco.MjData(env.physics.model_of(2))
    assert env.physics.data_of(2, again) is again
    assert env.physics.model_of(1).body_mass.sum() != env.physics.model_of(2).body_mass.sum()


@pytest.mark.parametrize("name", ["half-cheetah-terrain", "ant-terrain", "quadruped-terrain"])
def test_grounds_and_difficulties_are_told_apart_in_float32(name):
    family = make_family(name)
    (ground,) = family.variations
    tasks = family.space.sample("train", 200, seeding.rng(0, "test"))
    assert torch.equal(ground._number(tasks), ground._number(tasks.to(torch.device("cpu"), torch.float32)))


# what is refused, none of which compiles anything


def test_a_solver_it_does_not_have_is_replaced_and_said(capsys):
    model = mujoco.MjModel.from_xml_string('<mujoco><option solver="PGS"/><worldbody/></mujoco>')
    from metarl.sim.mujoco import warp_model

    warp_model._say.cache_clear()
    assert warp_model.supported(model).opt.solver == mujoco.mjtSolver.mjSOL_NEWTON
    assert model.opt.solver == mujoco.mjtSolver.mjSOL_PGS
    assert "no PGS solver" in capsys.readouterr().err


def test_what_mujoco_warp_cannot_do_is_refused_by_name(model, twins):
    unable = copy.copy(model)
    unable.opt.integrator = int(mujoco.mjtIntegrator.mjINT_DISCRETE)
    with pytest.raises(UserError, match=r"no integrator 'discrete'.*--physics mujoco"):
        make_physics("warp", unable, 1, device=DEVICE)
    unable.opt.integrator = model.opt.integrator
    unable.opt.enableflags |= int(mujoco.mjtEnableBit.mjENBL_OVERRIDE)
    with pytest.raises(UserError, match=r"mujoco_warp cannot simulate this model: .*OVERRIDE.*--physics mujoco"):
        make_physics("warp", unable, 1, device=DEVICE)
    with pytest.raises(UserError, match=r"one 'geom_type' for all worlds.*--physics mujoco"):
        twins[0].expand("geom_type")
    assert twins[0].expand("tendon_actfrcrange").shape == (N, 0, 2)
    with pytest.raises(UserError, match="does not compute 'subtree_linvel'"):
        twins[0].bind("subtree_linvel")


def test_a_device_that_is_not_there_is_refused_in_a_sentence(model):
    with pytest.raises(UserError, match="works on the devices 'cpu' and 'cuda', not on 'meta'"):
        make_physics("warp", model, 1, device="meta")
    if DEVICE == "cpu":
        with pytest.raises(UserError, match="the device 'cuda' is not available, as this PyTorch"):
            make_env(make_family(ROBOT), 1, device="cuda")


def test_without_its_package_a_sentence_says_what_to_install(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco_warp", None)
    for name in ("warp", "warp_model"):
        monkeypatch.delitem(sys.modules, f"metarl.sim.mujoco.{name}", raising=False)
    with pytest.raises(UserError, match="'warp' needs the package mujoco-warp: pip install mujoco-warp"):
        make_physics("warp", model, 1)
