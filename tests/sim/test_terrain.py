"""Height fields: what is generated, and that each world stands on the ground of its own task."""

import mujoco
import numpy as np
import pytest
import torch
from families import columns

from metarl.core.errors import UserError
from metarl.envs.quadruped_tasks import QuadrupedTerrain
from metarl.envs.terrains import AntTerrain, HalfCheetahTerrain
from metarl.sim.mujoco.mujoco_env import compile_spec
from metarl.sim.mujoco.physics import make_physics
from metarl.sim.terrain import BLOCK_HEIGHT, KINDS, ROUGH_HEIGHT, SLOPE_GRADE, STAIR_RISE, TerrainChoice, Tile, heights
from metarl.sim.variations import Variator

TILE = Tile(length=6.0, width=3.0, cell=0.1)
CHOICE = TerrainChoice(tuple(KINDS), (0.2, 0.7, 1.0), TILE, geom="ground", side=0.5)
BALL = """<mujoco><worldbody><geom name="ground" type="plane" size="5 5 1"/>
<body name="ball" pos="0 0 1"><freejoint/><geom size="0.05"/></body></worldbody></mujoco>"""


def model():
    spec = mujoco.MjSpec.from_string(BALL)
    CHOICE.add_to(spec)
    return compile_spec(spec)


def ground_under(model, x, y):
    """Height of the ground at a place [m], by a ray from above; the robot is taken out of its way, upwards."""
    data = mujoco.MjData(model)
    planar = model.jnt_type[0] == mujoco.mjtJoint.mjJNT_SLIDE
    data.qpos[1 if planar else 2] = 100.0
    mujoco.mj_forward(model, data)
    geom = np.zeros(1, np.int32)
    distance = mujoco.mj_ray(model, data, np.array([x, y, 50.0]), np.array([0.0, 0.0, -1.0]), None, 1, -1, geom, None)
    assert geom[0] == 0, "the ray must meet the ground"
    return 50.0 - distance


def grid_point(tile, x, y):
    """Row and column of the grid point nearest to a place, and the place of that point [m]."""
    row, column = round((y + tile.width / 2) / tile.cell), round((x + tile.start) / tile.cell)
    return row, column, column * tile.cell - tile.start, row * tile.cell - tile.width / 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_ground_is_flat_at_the_start_and_grows_with_difficulty(kind):
    easy, hard = heights(kind, TILE, 0.2), heights(kind, TILE, 1.0)
    x = TILE.grid()[0]
    assert not hard[x <= -1e-9].any()
    assert np.allclose(hard, 5.0 * easy)
    assert np.array_equal(hard, heights(kind, TILE, 1.0))
    assert hard.shape == (31, 61)
    assert kind == "flat" or np.ptp(hard) > 0.1
    assert not heights(kind, TILE, 0.0).any()


@pytest.mark.parametrize("kind", ["rough", "blocks", "waves"])
def test_random_grounds_differ_with_the_seed(kind):
    assert not np.allclose(heights(kind, TILE, 1.0, seed=0), heights(kind, TILE, 1.0, seed=1))


def test_the_sizes_are_those_announced():
    x = TILE.grid()[0]
    ahead = x > 1.0
    assert np.allclose(heights("slope-up", TILE, 1.0)[ahead], SLOPE_GRADE * x[ahead])
    assert np.array_equal(heights("slope-down", TILE, 1.0), -heights("slope-up", TILE, 1.0))
    rises = np.diff(heights("stairs-up", TILE, 1.0)[0])
    assert np.allclose(rises[rises > 0], STAIR_RISE)
    assert np.array_equal(heights("stairs-down", TILE, 1.0), -heights("stairs-up", TILE, 1.0))
    assert 0.8 * ROUGH_HEIGHT < np.ptp(heights("rough", TILE, 1.0)) <= ROUGH_HEIGHT
    assert 0.8 * BLOCK_HEIGHT < np.ptp(heights("blocks", TILE, 1.0)) <= BLOCK_HEIGHT


@pytest.mark.parametrize("family", [QuadrupedTerrain, HalfCheetahTerrain, AntTerrain])
def test_the_stairs_and_blocks_of_a_family_are_equal(family):
    """Whole numbers of cells, whatever the rounding."""
    tile = family.ground.tile
    for kind in ("stairs-up", "blocks"):
        edges = np.flatnonzero(np.diff(heights(kind, tile, 1.0), axis=1).any(axis=0))
        assert len(set(np.diff(edges[1:]).tolist())) == 1
        assert len(edges) > 10


def test_a_tile_is_a_whole_number_of_cells():
    with pytest.raises(ValueError, match=r"length must be a whole number of cells of 0.15 m, not 466\.667"):
        Tile(length=70.0, width=3.0, cell=0.15)


@pytest.mark.parametrize("family", [QuadrupedTerrain, HalfCheetahTerrain, AntTerrain])
def test_the_height_of_the_ground_is_that_of_the_picture(family):
    """At grid points all over the tile, shifted sideways, by rays."""
    ground = family.ground
    rng = np.random.default_rng(0)
    tasks = family.space.sample("ood", 6, rng)
    physics = make_physics("mujoco", compile_spec(family().spec()), 6, threads=1)
    Variator(physics, family.variations).apply(tasks)
    tile = ground.tile
    for world in range(6):
        shift = ground.side * float(tasks["shift"][world])
        model = physics.model_of(world)
        for _ in range(5):
            row = rng.integers(1, round(tile.width / tile.cell))
            column = rng.integers(1, round(tile.length / tile.cell))
            x, y = column * tile.cell - tile.start, row * tile.cell - tile.width / 2 + shift
            place = torch.tensor([[x, y]], dtype=torch.float64)
            found = ground.height(tasks.select(torch.tensor([world])), place).item()
            assert ground_under(model, x, y + 1e-7) == pytest.approx(found, abs=2e-3)


def test_ood_grounds_are_all_harder_than_those_of_training():
    space = QuadrupedTerrain.space
    assert space.sample("train", 200, np.random.default_rng(0))["difficulty"].max() == 0.6
    assert space.sample("ood", 200, np.random.default_rng(0))["difficulty"].min() == 0.8
    assert 0.0 in space.parameters["difficulty"].train.values  # flat, of whatever kind
    with pytest.raises(ValueError, match="leaves nothing to train on"):
        CHOICE.space(hardest=0.1)


def test_a_misspelt_ground_is_named():
    choice = TerrainChoice(("rough",), (0.5,), TILE, geom="grond")
    with pytest.raises(UserError, match=r"unknown geom 'grond' .did you mean 'ground'"):
        choice.add_to(mujoco.MjSpec.from_string(BALL))


def test_a_larger_robot_gets_larger_steps():
    twice = Tile(length=6.0, width=3.0, cell=0.1, scale=2.0)
    rises = np.diff(heights("stairs-up", twice, 1.0)[0])
    assert np.allclose(rises[rises > 0], 2 * STAIR_RISE)


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r"unknown terrain 'stair-up' .did you mean 'stairs-up'"):
        heights("stair-up", TILE, 0.5)
    with pytest.raises(UserError, match=r"difficulty lies in \[0, 1\], got 1.5"):
        heights("stairs-up", TILE, 1.5)


def test_every_world_has_the_ground_of_its_task():
    """All kinds at two difficulties, each in a world of its own, in metres, at their place and shifted."""
    kinds = list(range(len(KINDS))) * 2
    level, shift = [0.7] * len(KINDS) + [1.0] * len(KINDS), [0.0] * len(KINDS) + [1.0] * len(KINDS)
    physics = make_physics("mujoco", model(), len(kinds), threads=1)
    Variator(physics, [CHOICE]).apply(columns(terrain=kinds, difficulty=level, shift=shift))
    for world, kind in enumerate(kinds):
        expected = heights(list(KINDS)[kind], TILE, level[world])
        for x, y in ((-1.0, 0.3), (0.2, 0.0), (1.3, 0.4), (2.8, -0.5), (4.0, 0.1)):
            row, column, there_x, there_y = grid_point(TILE, x, y)
            found = ground_under(physics.model_of(world), there_x + 1e-7, there_y + 1e-7 + 0.5 * shift[world])
            assert found == pytest.approx(expected[row, column], abs=1e-4), (kind, x, y)


def test_balls_come_to_rest_on_their_grounds():
    """Contacts, not rays: a stair's tread in one world, a block in another, the flat in a third."""
    names = list(KINDS)
    tasks = columns(
        terrain=[names.index(name) for name in ("stairs-up", "stairs-down", "blocks", "flat")],
        difficulty=[1.0] * 4,
        shift=[0.0] * 4,
    )
    physics = make_physics("mujoco", model(), 4, threads=1)
    Variator(physics, [CHOICE]).apply(tasks)
    qpos = physics.bind("qpos")
    for world, name in enumerate(("stairs-up", "stairs-down", "blocks", "flat")):
        row, column, x, y = grid_point(TILE, 2.15, 0.25)
        qpos[world, :3] = torch.tensor([x, y, heights(name, TILE, 1.0)[row, column] + 0.06])
    start = qpos[:, 2].clone()
    physics.step(200)
    assert (start - qpos[:, 2] - 0.01).abs().max() < 3e-3
    assert (qpos[:, 2].unique().diff() > 0.01).all()


def test_the_nominal_ground_is_restored_bit_for_bit():
    physics = make_physics("mujoco", model(), 2, threads=1)
    variator = Variator(physics, [CHOICE])
    variator.apply(columns(terrain=[0.0, 4.0], difficulty=[0.2, 0.2], shift=[0.0, 0.3]))
    first = physics.get_state(), physics.expand("geom_pos").clone(), physics.expand("geom_dataid").clone()
    variator.apply(columns(terrain=[3.0, 1.0], difficulty=[1.0, 0.7], shift=[-1.0, 1.0]))
    assert not torch.equal(physics.expand("geom_pos"), first[1])
    variator.apply(columns(terrain=[0.0, 4.0], difficulty=[0.2, 0.2], shift=[0.0, 0.3]))
    assert torch.equal(physics.expand("geom_pos"), first[1])
    assert torch.equal(physics.expand("geom_dataid"), first[2])


def test_a_difficulty_between_two_levels_takes_the_nearest():
    physics = make_physics("mujoco", model(), 3, threads=1)
    Variator(physics, [CHOICE]).apply(columns(terrain=[1.0] * 3, difficulty=[0.3, 0.69, 0.9], shift=[0.0] * 3))
    chosen = physics.expand("geom_dataid")[:, 0].tolist()
    assert [number - chosen[0] for number in chosen] == [0, 1, 2]
