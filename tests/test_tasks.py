import json
import math

import numpy as np
import pytest
import torch
from families import ALL_FAMILIES, columns
from hypothesis import given, strategies as st

from metarl.core.errors import UserError
from metarl.core.registry import make_family
from metarl.core.tasks import (
    Angle,
    Ball,
    Choice,
    Disc,
    LogUniform,
    Parameter,
    Tasks,
    TaskSpace,
    Uniform,
    load_tasks,
    save_tasks,
)

SPACE = TaskSpace(
    {
        "speed": Parameter(Uniform(0.0, 1.0), unit="m/s", ood=Uniform(2.0, 3.0)),
        "goal": Parameter(Disc(1.0), unit="m", nominal=[0.5, 0.0]),
    }
)
FINITE = TaskSpace(
    {
        "sign": Parameter(Choice((-1.0, 1.0)), unit="1"),
        "leg": Parameter(Choice((0.0, 1.0, 2.0)), unit="index"),
    }
)


def same(a: Tasks, b: Tasks) -> bool:
    return a.rows() == b.rows()


# distributions


@pytest.mark.parametrize(
    "make",
    [
        Uniform,
        LogUniform,
        lambda low, high: Choice((low, high)),
        lambda low, high: Angle(-low, high - low),
        lambda low, high: Disc(high, inner=low),
    ],
)
@given(low=st.floats(0.01, 10.0), width=st.floats(0.01, 10.0), n=st.integers(1, 50), seed=st.integers(0, 2**32 - 1))
def test_draws_lie_in_the_support_and_follow_the_generator(make, low, width, n, seed):
    distribution = make(low, low + width)
    draws = distribution.sample(n, np.random.default_rng(seed))
    assert draws.shape == ((n, 2) if isinstance(distribution, Disc) else (n,))
    assert all(distribution.contains(value) for value in draws.tolist())
    assert np.array_equal(draws, distribution.sample(n, np.random.default_rng(seed)))
    many = [distribution.sample(64, np.random.default_rng(s)) for s in (seed, seed + 1)]
    assert not np.array_equal(*many)


@pytest.mark.parametrize(
    ("distribution", "inside", "outside"),
    [
        (Uniform(-1.0, 2.0), [-1.0, 0.0, 2.0], [-1.01, 2.01, [0.0, 0.0]]),
        (LogUniform(0.5, 2.0), [0.5, 1.0, 2.0], [0.49, 2.01, -1.0, [1.0, 1.0]]),
        (Choice((-1.0, 1.0)), [-1.0, 1.0], [0.0, [1.0]]),
        (Angle(0.0, 1.0), [0.0, 1.0, 0.5 + 2 * math.pi], [1.01, -0.01, [0.5, 0.5]]),
        (Angle(), [0.0, -3.0, 100.0], [[0.0, 0.0]]),
        (Disc(2.0, inner=1.0), [[1.5, 0.0], [0.0, -2.0]], [[0.5, 0.0], [2.0, 2.0], 1.5, [1.5]]),
    ],
)
def test_contains(distribution, inside, outside):
    assert [distribution.contains(value) for value in inside] == [True] * len(inside)
    assert [distribution.contains(value) for value in outside] == [False] * len(outside)


@pytest.mark.parametrize(
    ("distribution", "below_median"),
    [
        (Uniform(1.0, 3.0), lambda x: x < 2.0),
        (LogUniform(0.25, 4.0), lambda x: x < 1.0),
        (Choice((-1.0, 1.0)), lambda x: x < 0.0),
        (Angle(), lambda x: x < math.pi),
        (Disc(2.0), lambda x: np.hypot(*x.T) < math.sqrt(2.0)),
        (Disc(3.0, inner=1.0), lambda x: np.hypot(*x.T) < math.sqrt(5.0)),
        (Disc(3.0, inner=1.0), lambda x: x[:, 1] < 0.0),
    ],
)
def test_half_of_the_draws_lie_below_the_median(distribution, below_median):
    draws = distribution.sample(4000, np.random.default_rng(0))
    assert abs(below_median(draws).mean() - 0.5) < 4 * 0.5 / math.sqrt(4000)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Uniform(1.0, 1.0),
        lambda: Uniform(math.nan, 1.0),
        lambda: LogUniform(0.0, 1.0),
        lambda: LogUniform(2.0, 1.0),
        lambda: Choice(()),
        lambda: Angle(1.0, 0.0),
        lambda: Disc(1.0, inner=1.0),
        lambda: Disc(1.0, inner=-0.1),
    ],
)
def test_an_empty_support_is_refused(make):
    with pytest.raises(ValueError, match="needs"):
        make()


# tasks


def test_rows_and_columns_are_the_same_tasks():
    tasks = Tasks({"a": torch.tensor([1.0, 2.0]).double(), "b": torch.tensor([[1.0, 2.0], [3.0, 4.0]]).double()})
    assert list(tasks) == [{"a": 1.0, "b": [1.0, 2.0]}, {"a": 2.0, "b": [3.0, 4.0]}]
    again = Tasks.from_rows(tasks.rows())
    assert all(torch.equal(again[name], tasks[name]) for name in ("a", "b"))


def test_select_keeps_order_and_repeats():
    assert columns(a=[5.0, 6.0, 7.0]).select(torch.tensor([2, 0, 2]))["a"].tolist() == [7.0, 5.0, 7.0]


@pytest.mark.parametrize("values", [{}, {"a": torch.zeros(2).double(), "b": torch.zeros(3).double()}])
def test_parameters_need_one_row_per_task(values):
    with pytest.raises(ValueError, match="one row per task"):
        Tasks(values)


def test_an_id_names_a_task_by_what_it_is():
    """Not by where it stands, what it was drawn for, or the precision of its tensors."""
    tasks = SPACE.sample("train", 50, np.random.default_rng(0))
    assert len(set(tasks.ids)) == 50
    assert all(len(name) == 8 and int(name, 16) >= 0 for name in tasks.ids)
    assert tasks.select(torch.tensor([3, 0])).ids == (tasks.ids[3], tasks.ids[0])
    assert Tasks.from_rows(tasks.rows()).ids == tasks.ids
    assert tasks.to(torch.device("cpu"), torch.float32).ids == tasks.ids
    assert Tasks(dict(reversed(tasks.values.items()))).ids == tasks.ids
    assert columns(a=[0.0], b=[1.0]).ids == columns(a=[-0.0], b=[1.0]).ids != columns(a=[1.0], b=[0.0]).ids
    assert columns(a=[0.5]).ids == ("6e432292",), "ids stand in results: they may never change"


# spaces


def test_sample_draws_each_split_from_its_distribution():
    train, ood = (SPACE.sample(split, 100, np.random.default_rng(0)) for split in ("train", "ood"))
    assert train["goal"].shape == (100, 2)
    assert train["speed"].dtype == torch.float64
    assert train["speed"].max() < 1.0
    assert ood["speed"].min() >= 2.0
    assert ood["goal"].norm(dim=1).max() <= 1.0


def test_a_space_without_ood_says_which_splits_it_has():
    assert FINITE.splits == ("train", "test")
    for ask in (lambda: FINITE.fixed("ood", 3), lambda: FINITE.sample("ood", 3, np.random.default_rng(0))):
        with pytest.raises(UserError, match="no 'ood' split; available: train, test"):
            ask()


@pytest.mark.parametrize("space", [SPACE, FINITE])
def test_the_fixed_list_is_the_same_every_time_and_extends(space):
    long = space.fixed("test", 12)
    assert same(long, space.fixed("test", 12))
    assert same(space.fixed("test", 5), long.select(torch.arange(5)))


def test_the_fixed_lists_of_the_splits_differ():
    assert not set(SPACE.fixed("train", 50)["speed"].tolist()) & set(SPACE.fixed("test", 50)["speed"].tolist())


def test_a_finite_space_is_enumerated_evenly():
    rows = [tuple(row.values()) for row in FINITE.fixed("test", 12)]
    assert sorted(rows) == sorted([(sign, leg) for sign in (-1.0, 1.0) for leg in (0.0, 1.0, 2.0)] * 2)
    assert len(set(rows[:6])) == 6


def test_nominal_is_the_unmodified_robot():
    tasks = SPACE.nominal(3)
    assert tasks["goal"].tolist() == [[0.5, 0.0]] * 3
    assert len(set(tasks["speed"].tolist())) == 1
    assert SPACE.parameters["speed"].train.contains(tasks["speed"][0].item())
    assert same(tasks, SPACE.nominal(3))


@pytest.mark.parametrize("name", ALL_FAMILIES)
def test_train_and_test_tasks_lie_in_the_training_range(name):
    space = make_family(name).space
    for tasks in (space.sample("train", 100, np.random.default_rng(0)), space.fixed("test", 20)):
        for key, parameter in space.parameters.items():
            assert all(parameter.train.contains(value) for value in tasks[key].tolist())


@pytest.mark.parametrize("name", [name for name in ALL_FAMILIES if "ood" in make_family(name).space.splits])
def test_ood_tasks_lie_outside_the_training_range(name):
    space = make_family(name).space
    for tasks in (space.sample("ood", 200, np.random.default_rng(0)), space.fixed("ood", 20)):
        for key, parameter in space.parameters.items():
            if parameter.ood is not None:
                assert not any(parameter.train.contains(value) for value in tasks[key].tolist()), key


# task lists


@pytest.mark.parametrize("name", ALL_FAMILIES)
def test_a_task_list_survives_the_file(name, tmp_path):
    space = make_family(name).space
    tasks = space.sample("train", 5, np.random.default_rng(0))
    save_tasks(tmp_path / "tasks.json", name, tasks)
    assert same(load_tasks(tmp_path / "tasks.json", name, space), tasks)
    assert json.loads((tmp_path / "tasks.json").read_text())["ids"] == list(tasks.ids)


def test_points_survive_the_file(tmp_path):
    tasks = SPACE.fixed("test", 3)
    save_tasks(tmp_path / "tasks.json", "toy", tasks)
    loaded = load_tasks(tmp_path / "tasks.json", "toy", SPACE)
    assert torch.equal(loaded["goal"], tasks["goal"])


def row(**changes):
    return json.dumps({"family": "toy", "tasks": [{"speed": 0.5, "goal": [0.0, 0.0]} | changes]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a task list"),
        ("[]", "is not a task list"),
        ('{"family": "toy"}', "is not a task list"),
        ('{"family": "toy", "tasks": []}', "is not a task list"),
        ('{"family": "toy", "tasks": [{"speed": 1.0}, {}]}', "is not a task list"),
        (row(speed="fast"), "is not a task list"),
        (row(speed=None), "is not a task list"),
        ('{"family": "other", "tasks": [{"speed": 1.0}]}', "holds tasks of 'other', not of 'toy'"),
        ('{"family": "toy", "tasks": [{"mass": 1.0}]}', r"parameters \['mass'\], the family has \['goal', 'speed'\]"),
        (row(speed=math.nan), "'speed' must be a finite number"),
        (row(speed=[1.0, 2.0]), "'speed' must be a finite number"),
        (row(goal=1.0), "'goal' must be 2 finite numbers"),
    ],
)
def test_a_bad_task_list_is_explained_in_one_line(content, message, tmp_path):
    path = tmp_path / "tasks.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        load_tasks(path, "toy", SPACE)
    assert "\n" not in str(caught.value)


def test_a_missing_task_list_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.json is not a task list: cannot read .*none\.json: No such file"):
        load_tasks(tmp_path / "none.json", "toy", SPACE)


def test_a_ball_is_uniform_in_volume():
    rng = np.random.default_rng(0)
    radius = np.linalg.norm(Ball(2.0).sample(20_000, rng), axis=1)
    assert radius.max() <= 2.0
    assert np.mean(radius < 1.0) == pytest.approx(1 / 8, abs=0.01)
    shell = Ball(2.0, inner=1.0)
    draws = shell.sample(20_000, rng)
    assert all(shell.contains(draw) for draw in draws[:100].tolist())
    np.testing.assert_allclose(draws.mean(axis=0), 0.0, atol=0.05)
    assert not shell.contains([0.5, 0.0, 0.0])
    assert not shell.contains([1.5, 0.0])
    assert shell.describe() == "ball of radius 2 outside 1"
    with pytest.raises(ValueError, match="inner < radius"):
        Ball(1.0, inner=1.0)


# vectors, and the easiest part of a range


def test_a_vector_parameter_has_independent_elements():
    drawn = LogUniform(0.5, 2.0, size=3).sample(2000, np.random.default_rng(0))
    assert drawn.shape == (2000, 3)
    assert abs(np.corrcoef(np.log(drawn).T) - np.eye(3)).max() < 0.1
    assert Uniform(0.0, 1.0, size=2).sample(5, np.random.default_rng(0)).shape == (5, 2)


def test_a_vector_lies_in_the_range_when_all_its_elements_do():
    box = Uniform(0.0, 1.0, size=2)
    assert box.contains([0.0, 1.0])
    assert not box.contains([0.5, 1.1])
    assert not box.contains([0.5])
    assert not box.contains(0.5)
    assert not Uniform(0.0, 1.0).contains([0.5])
    assert box.describe() == "U(0, 1) ^2"


def test_a_curriculum_keeps_the_easiest_share_of_a_range():
    space = TaskSpace(
        {
            "height": Parameter(Uniform(1.0, 3.0), unit="m", graded=True),
            "level": Parameter(Choice((1.0, 2.0, 3.0, 4.0)), unit="1", graded=True),
            "goal": Parameter(Disc(1.0), unit="m"),
            "near": Parameter(Disc(2.0, inner=1.0), unit="m", graded=True),
            "reach": Parameter(Ball(2.0, inner=1.0), unit="m", graded=True),
        }
    )
    shares = {"height": 0.25, "level": 0.3, "near": 0.25, "reach": 0.25}
    draw = space.sample("train", 500, np.random.default_rng(0), easiest=shares)
    assert 1.4 < draw["height"].max() <= 1.5
    assert 1.3 < draw["near"].norm(dim=1).max() <= 1.75**0.5, "a quarter of the area"
    assert 1.35 < draw["reach"].norm(dim=1).max() <= 2.75 ** (1 / 3), "a quarter of the volume"
    assert min(draw["near"].norm(dim=1).min(), draw["reach"].norm(dim=1).min()) >= 1.0
    assert sorted(set(draw["level"].tolist())) == [1.0, 2.0]
    whole = space.sample("train", 500, np.random.default_rng(0), easiest={"height": 1.0, "level": 1.0})
    assert torch.equal(whole["height"], space.sample("train", 500, np.random.default_rng(0))["height"])
    with pytest.raises(UserError, match=r"unknown task parameter 'hieght' .did you mean 'height'"):
        space.sample("train", 1, np.random.default_rng(0), easiest={"hieght": 0.5})
    with pytest.raises(UserError, match=r"'goal' is not graded .*; graded here: height, level, near, reach"):
        space.sample("train", 1, np.random.default_rng(0), easiest={"goal": 0.5})
