"""Uneven ground: seeded height fields, several compiled into one model, of which each world picks its own.

MuJoCo shares the data of a height field between all worlds of a batch, but not which height field a geom is made of.
So every kind of ground at every level of difficulty becomes an asset of the model, and `TerrainChoice` writes a world's
`geom_dataid`. All grounds are flat, at height zero, behind the start and up to `Tile.flat` ahead of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import mujoco
import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from metarl.core import seeding
from metarl.core.errors import UserError, unknown_name
from metarl.core.tasks import Choice, Parameter, Tasks, TaskSpace, Uniform
from metarl.sim.family import constant_like
from metarl.sim.variation import object_id

Heights: TypeAlias = Float64[np.ndarray, "Y X"]
"""Heights [m] on the grid: rows along y, columns along x."""

STAIR_TREAD, STAIR_RISE = 0.3, 0.16  # [m]; the rise at difficulty 1
SLOPE_GRADE = 0.45  # rise over run at difficulty 1: 24°
ROUGH_SIZE, ROUGH_HEIGHT = 0.15, 0.12  # [m] between bumps, and from lowest to highest at difficulty 1
BLOCK_SIZE, BLOCK_HEIGHT = 0.4, 0.2  # [m]
WAVE_LENGTH, WAVE_HEIGHT = 1.5, 0.3  # [m]
_LEAST_RISE, _THICKNESS = 1e-3, 0.5  # [m]; MuJoCo allows neither to be zero
_FADE = 0.3  # [m] over which bumps grow to their height beyond the flat start


@dataclass(frozen=True)
class Tile:
    """The piece of ground a robot is on. Lengths in its pattern scale with `scale`, the size of the robot."""

    length: float
    """Along x [m]."""
    width: float
    """Along y [m]."""
    cell: float
    """Distance of grid points [m]."""
    start: float = 1.5
    """Distance from the edge behind the robot to its start, the world's origin [m]."""
    flat: float = 0.5
    """Flat ground ahead of the start [m]."""
    scale: float = 1.0
    """Size of steps, bumps and blocks: 1 for a robot whose legs are about 0.4 m long."""

    def __post_init__(self) -> None:
        for name in ("length", "width", "start", "flat"):
            cells = getattr(self, name) / self.cell
            if abs(cells - round(cells)) > 1e-6:
                raise ValueError(f"a tile's {name} must be a whole number of cells of {self.cell:g} m, not {cells:g}")

    def grid(self) -> tuple[Heights, Heights]:
        """Coordinates of the grid points: x from the end of the flat start (negative before it), and y [m]."""
        columns, rows = (max(1, round(size / self.cell)) for size in (self.length, self.width))
        x = (np.arange(columns + 1) - round((self.start + self.flat) / self.cell)) * self.cell
        y = np.arange(rows + 1) * self.cell - self.width / 2
        grid_x, grid_y = np.meshgrid(x, y)
        return grid_x, grid_y


def flat(tile: Tile, rng: np.random.Generator) -> Heights:
    """Height zero."""
    return np.zeros_like(tile.grid()[0])


def slope(tile: Tile, rng: np.random.Generator) -> Heights:
    """Uphill at a constant grade."""
    return np.asarray(SLOPE_GRADE * np.maximum(tile.grid()[0], 0.0))


def stairs(tile: Tile, rng: np.random.Generator) -> Heights:
    """Up a flight of equal stairs."""
    number = _cell_number(tile.grid()[0], STAIR_TREAD * tile.scale) + 1.0
    return np.asarray(STAIR_RISE * tile.scale * np.maximum(number, 0.0))


def rough(tile: Tile, rng: np.random.Generator) -> Heights:
    """Bumps of random height, smoothly joined."""
    x, y = tile.grid()
    size = ROUGH_SIZE * tile.scale
    column, row = (x - x.min()) / size, (y - y.min()) / size
    bumps = rng.uniform(-0.5, 0.5, (int(row.max()) + 2, int(column.max()) + 2))
    i, j = row.astype(int), column.astype(int)
    v, u = _smooth(row - i), _smooth(column - j)
    near = bumps[i, j] * (1 - u) + bumps[i, j + 1] * u
    far = bumps[i + 1, j] * (1 - u) + bumps[i + 1, j + 1] * u
    return np.asarray(ROUGH_HEIGHT * tile.scale * (near * (1 - v) + far * v) * _fade_in(x, tile))


def blocks(tile: Tile, rng: np.random.Generator) -> Heights:
    """Stepping blocks: a pavement of squares, each at a random height."""
    x, y = tile.grid()
    size = BLOCK_SIZE * tile.scale
    column, row = _cell_number(x - x.min(), size), _cell_number(y - y.min(), size)
    tops = rng.uniform(-0.5, 0.5, (row.max() + 1, column.max() + 1))
    return np.asarray(BLOCK_HEIGHT * tile.scale * tops[row, column] * (x > 0))


def waves(tile: Tile, rng: np.random.Generator) -> Heights:
    """Rolling ground: two trains of waves at random angles to the way ahead."""
    x, y = tile.grid()
    angle, phase = rng.uniform(-0.5, 0.5, 2), rng.uniform(0.0, 2.0 * np.pi, 2)
    length = WAVE_LENGTH * tile.scale * np.array([1.0, 0.6])
    trains = [
        np.sin(2 * np.pi * (x * np.cos(a) + y * np.sin(a)) / wavelength + p)
        for a, p, wavelength in zip(angle, phase, length, strict=True)
    ]
    return np.asarray(WAVE_HEIGHT * tile.scale * 0.25 * (trains[0] + trains[1]) * _fade_in(x, tile))


def _cell_number(x: np.ndarray, size: float) -> np.ndarray:
    """Number of the piece in which a place lies; places on an edge belong to the next whatever the rounding."""
    return np.asarray(np.floor(x / size + 1e-6).astype(int))


def _smooth(u: np.ndarray) -> np.ndarray:
    """From 0 to 1 with level ends: 3u² − 2u³."""
    return np.asarray(u * u * (3.0 - 2.0 * u))


def _fade_in(x: Heights, tile: Tile) -> Heights:
    """From 0 at the end of the flat start to 1."""
    return _smooth(np.clip(x / (_FADE * tile.scale), 0.0, 1.0))


def slope_down(tile: Tile, rng: np.random.Generator) -> Heights:
    """Downhill at a constant grade."""
    return -slope(tile, rng)


def stairs_down(tile: Tile, rng: np.random.Generator) -> Heights:
    """Down a flight of equal stairs."""
    return -stairs(tile, rng)


KINDS: Mapping[str, Callable[[Tile, np.random.Generator], Heights]] = {
    "flat": flat,
    "slope-up": slope,
    "slope-down": slope_down,
    "rough": rough,
    "stairs-up": stairs,
    "stairs-down": stairs_down,
    "blocks": blocks,
    "waves": waves,
}


def heights(kind: str, tile: Tile, difficulty: float, seed: int = 0) -> Heights:
    """Ground of one kind, the same for the same seed; `UserError` for an unknown kind or a difficulty beyond [0, 1]."""
    if kind not in KINDS:
        raise unknown_name("terrain", kind, KINDS)
    if not 0.0 <= difficulty <= 1.0:
        raise UserError(f"a terrain's difficulty lies in [0, 1], got {difficulty:g}")
    ground: Heights = difficulty * KINDS[kind](tile, seeding.rng(seed, f"terrain/{kind}"))
    return ground


@dataclass(frozen=True)
class TerrainChoice:
    """Each world's ground: one of several kinds at one of several difficulties, and where on it the robot starts.

    A family calls `add_to` in its `spec` and lists the same object among its variations.
    """

    kinds: tuple[str, ...]
    """Names of `KINDS`."""
    difficulties: tuple[float, ...]
    """Those that are compiled, in [0, 1], from easy to hard; any other means the nearest of them."""
    tile: Tile
    geom: str
    """The geom of the model that is the ground; it becomes a height field."""
    side: float = 0.0
    """How far the ground may be shifted sideways, to either side [m]."""
    terrain: str = "terrain"
    """Task parameter: index into `kinds`."""
    difficulty: str = "difficulty"
    """Task parameter: how difficult, 0 to 1."""
    shift: str = "shift"
    """Task parameter, in [-1, 1], times `side`: which strip of the ground is under the robot. None if `side` is 0."""
    fields: tuple[str, ...] = ("geom_dataid", "geom_pos")

    @property
    def parameters(self) -> tuple[str, ...]:
        """Two, or three where the ground can be shifted."""
        return (self.terrain, self.difficulty, *((self.shift,) if self.side else ()))

    @property
    def indices(self) -> Mapping[str, range]:
        """The ground's."""
        return {self.terrain: range(len(self.kinds))}

    def space(self, hardest: float) -> TaskSpace:
        """The task space of a family that varies nothing else: training up to a difficulty, `ood` beyond it."""
        if not 0.0 <= min(self.difficulties) <= hardest:
            raise ValueError(f"hardest = {hardest:g} leaves nothing to train on of difficulties {self.difficulties}")
        train = tuple(level for level in self.difficulties if level <= hardest)
        ood = tuple(level for level in self.difficulties if level > hardest)
        parameters = {
            self.terrain: Parameter(
                Choice(tuple(float(kind) for kind in range(len(self.kinds)))),
                unit="index",
                nominal=0.0,
                help="kind of ground",
                labels=self.kinds,
            ),
            self.difficulty: Parameter(
                Choice(train),
                ood=Choice(ood) if ood else None,
                unit="1",
                nominal=train[0],
                help="from 0 to 1",
                graded=True,
            ),
        }
        if self.side:
            what = f"of the ground sideways, in units of {self.side:g} m: which strip of it is under the robot"
            parameters[self.shift] = Parameter(Uniform(-1.0, 1.0), unit="1", nominal=0.0, help=what)
        return TaskSpace(parameters)

    def height(self, tasks: Tasks, place: Float[Tensor, "N 2"]) -> Float[Tensor, "N"]:
        """Height of each world's ground at a place [m], to the nearest grid point; that of its edge beyond it."""
        grounds, tile = constant_like(_stacked(self), place), self.tile
        ahead, aside = tile.start + place[:, 0], tile.width / 2 + place[:, 1]
        if self.side:
            aside = aside - self.side * tasks[self.shift]
        x = (ahead / tile.cell).round().long().clamp(0, grounds.shape[2] - 1)
        y = (aside / tile.cell).round().long().clamp(0, grounds.shape[1] - 1)
        return grounds[self._number(tasks), y, x]

    def add_to(self, spec: mujoco.MjSpec) -> None:
        """Compile the grounds into the model; until a task is chosen, the geom is the first of them."""
        grounds = _stacked(self).numpy()
        for number, ground in enumerate(grounds):
            rise = max(float(np.ptp(ground)), _LEAST_RISE)
            spec.add_hfield(
                name=f"{self.geom}_{number}",
                nrow=ground.shape[0],
                ncol=ground.shape[1],
                size=[self.tile.length / 2, self.tile.width / 2, rise, _THICKNESS],
                userdata=((ground - ground.min()) / rise).ravel().tolist(),
            )
        geom = spec.geom(self.geom)
        if geom is None:
            raise unknown_name("geom", self.geom, [own.name for own in spec.geoms if own.name])
        geom.type, geom.hfieldname = mujoco.mjtGeom.mjGEOM_HFIELD, f"{self.geom}_0"
        # MuJoCo's elevations begin at zero: the geom goes down to where the ground's lowest point belongs.
        geom.pos = [self.tile.length / 2 - self.tile.start, 0.0, float(grounds[0].min())]
        self._keep_pictures_sharp(spec, geom)

    def _keep_pictures_sharp(self, spec: mujoco.MjSpec, geom: mujoco.MjsGeom) -> None:
        """Shadows and the squares of the ground's texture must not grow with the tile."""
        spec.stat.extent, spec.stat.center = 3.0 * self.tile.scale, (0.0, 0.0, 0.0)
        if geom.material:
            material = spec.material(geom.material)
            material.texuniform, material.texrepeat = True, (0.5, 0.5)

    def apply(self, model: mujoco.MjModel, live: Mapping[str, Tensor], tasks: Tasks) -> None:
        """See `Variation.apply`."""
        geom = object_id(model, "geom", self.geom)
        number = self._number(tasks)
        live["geom_dataid"][:, geom] += number.to(live["geom_dataid"].dtype)
        lowest = constant_like(_lowest(self), live["geom_pos"])
        live["geom_pos"][:, geom, 2] += lowest[number] - lowest[0]
        if self.side:
            live["geom_pos"][:, geom, 1] += self.side * tasks[self.shift]

    def _number(self, tasks: Tasks) -> Int64[Tensor, "N"]:
        """Index of each world's ground: by kind, then by difficulty."""
        wanted = tasks[self.difficulty][:, None]
        levels = constant_like(_levels(self), wanted)
        level = (wanted - levels).abs().argmin(dim=1)
        return tasks[self.terrain].round().long() * len(levels) + level


@functools.cache
def _lowest(choice: TerrainChoice) -> Float64[Tensor, "G"]:
    return _stacked(choice).amin(dim=(1, 2))


@functools.cache
def _levels(choice: TerrainChoice) -> Float64[Tensor, "L"]:
    return torch.tensor(choice.difficulties, dtype=torch.float64)


@functools.cache
def _stacked(choice: TerrainChoice) -> Float64[Tensor, "G Y X"]:
    """All its grounds, by kind and then by difficulty."""
    grounds = [heights(kind, choice.tile, level) for kind in choice.kinds for level in choice.difficulties]
    return torch.from_numpy(np.stack(grounds))
