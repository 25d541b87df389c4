"""The recorder: what it writes, what it refuses, and that it shows what the evaluator measures."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from robots import info_of

from metarl.core.errors import UserError
from metarl.core.registry import make_family
from metarl.core.tasks import LogUniform, Parameter, TaskSpace
from metarl.envs.half_cheetah import HalfCheetahBody, HalfCheetahSigns, HalfCheetahVel
from metarl.rl.policy import NoState
from metarl.run.evaluate import evaluate
from metarl.run.records import Origin
from metarl.sim.disturbances import Redrawn
from metarl.sim.make import make_env
from metarl.sim.mujoco import rendering
from metarl.sim.mujoco.mujoco_env import MujocoEnv
from metarl.video import encoder
from metarl.video.film import memoryless
from metarl.video.layout import Scene, Shot, scenes
from metarl.video.lettering import describe, write
from metarl.video.plot import Plot, principal, running_mean
from metarl.video.recorder import Performer, VideoConfig, record
from metarl.video.take import Pictures, Take, Wanted, filmed
from metarl.video.tiles import before, score

STEPS = 6
HOLD = 10  # half a second at 20 pictures per second


class ShortVel(HalfCheetahVel):
    episode_steps = STEPS


class FallingVel(ShortVel):
    """World 0 falls at every step."""

    def terminated(self, physics, tasks):
        return torch.tensor([True] + [False] * (len(tasks) - 1))


class Push:
    """Pushes with all motors; nothing to learn."""

    info, noise_size = info_of(17, 6, STEPS), 0

    def initial_state(self, n, device="cpu"):
        return NoState()

    def act(self, obs, state, noise, deterministic=False):
        assert deterministic
        return torch.full((len(obs), 6), 0.5), state

    def observe(self, state, transition):
        return state

    def end_episode(self, state, worlds):
        return state


class Breaks(Push):
    """Fails at its third step."""

    def initial_state(self, n, device="cpu"):
        self.steps = 0
        return NoState()

    def act(self, obs, state, noise, deterministic=False):
        self.steps += 1
        if self.steps == 3:
            raise KeyboardInterrupt
        return super().act(obs, state, noise, deterministic)


def tasks_of(family, n):
    return family.space.fixed("test", n)


def read(path, size):
    """What ffmpeg says about a video's stream, and its pictures. (imageio's reader leaves its pipes open.)"""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    described = next(line for line in done.stderr.decode().splitlines() if "Video:" in line)
    return described, np.frombuffer(done.stdout, np.uint8).reshape(-1, size[1], size[0], 3)


def test_a_video_of_two_episodes_on_three_tasks(tmp_path):
    family, path = ShortVel(), tmp_path / "new" / "folder" / "three.mp4"
    config = VideoConfig(size=(160, 96), title="push on half-cheetah-vel")
    recording = record([Performer(Push())], family, tasks_of(family, 3), 2, path, config)
    described, pictures = read(path, (320, 32 + 192))  # a line of title, and two by two tiles
    assert all(word in described for word in ("h264", "yuv420p", "320x224", "20 fps"))
    assert len(pictures) == recording.num_frames == 2 * (HOLD + STEPS - 1 + HOLD), "each episode, held at both ends"
    assert recording.seconds == pytest.approx(len(pictures) / 20)
    picture = pictures[-1]
    assert picture[32 + 40 : 122, :150].std() > 20, "the first tile shows a robot on a chequered ground"
    assert picture[140:, 170:].std() < 5, "the fourth tile is empty"
    assert list(path.parent.iterdir()) == [path]


def test_it_shows_what_the_evaluator_measures(tmp_path):
    family = ShortVel()
    tasks = tasks_of(family, 2)
    config = VideoConfig(size=(64, 64), seed=3)
    recording = record([Performer(Push())], family, tasks, 2, tmp_path / "x.mp4", config)
    np.testing.assert_allclose(recording.returns, evaluate(Push(), family, tasks, 2, seed=3).returns)


def test_others_are_shown_beside_it_from_the_same_starts(tmp_path):
    family, path = ShortVel(), tmp_path / "beside.mp4"
    performers = [Performer(Push()), Performer(Push(), Origin(agent="other", adapts=False))]
    recording = record(performers, family, tasks_of(family, 2), 2, path, VideoConfig(size=(64, 64)))
    described, pictures = read(path, (128, 128))
    assert "128x128" in described, "a row per task, a column per policy"
    assert len(pictures) == recording.num_frames == 2 * (HOLD + STEPS - 1 + HOLD)
    tiles = pictures[HOLD, 30:64, :62], pictures[HOLD, 30:64, 64:126], pictures[-1, 30:64, :62]
    one, same, other = (tile.mean(axis=2).ravel() for tile in tiles)
    assert np.corrcoef(one, same)[0, 1] > 0.8 > np.corrcoef(one, other)[0, 1], "the same policy at the same instant"
    assert performers[1].name == "other, no memory"


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_a_picture_that_moves_has_every_other_frame(tmp_path, ending):
    family, path = ShortVel(), tmp_path / f"x.{ending}"
    recording = record([Performer(Push())], family, tasks_of(family, 1), 1, path, VideoConfig(size=(64, 64)))
    with Image.open(path) as picture:
        assert picture.format == ending.upper() and picture.size == (64, 64)
        total = 0
        for number in range(picture.n_frames):
            picture.seek(number)
            picture.load()
            total += picture.info["duration"]
        assert 1 < picture.n_frames <= -(-recording.num_frames // 2), "what stands still may be one picture"
    assert total == pytest.approx(1000 * recording.seconds, abs=150)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_a_picture_that_moves_gets_smaller_until_it_fits(tmp_path, ending):
    family, path = ShortVel(), tmp_path / f"x.{ending}"
    words = [Performer(Push())], family, tasks_of(family, 1), 1, path
    record(*words, VideoConfig(size=(320, 240)))
    whole, limit = path.stat().st_size, 0.4 * path.stat().st_size
    recording = record(*words, VideoConfig(size=(320, 240), megabytes=limit / 1e6))
    assert 0.2 * limit < path.stat().st_size <= limit < whole
    with Image.open(path) as picture:
        assert picture.size < (320, 240)
        total = 0
        for number in range(picture.n_frames):
            picture.seek(number)
            picture.load()
            total += picture.info["duration"]
    assert total == pytest.approx(1000 * recording.seconds, abs=250)
    with pytest.raises(UserError, match=r"more than the 0\.0001 it may have: show fewer seconds"):
        record(*words, VideoConfig(size=(320, 240), megabytes=1e-4))
    assert list(tmp_path.iterdir()) == [path] and path.stat().st_size <= limit


def test_side_by_side_episodes_start_at_the_same_place_and_a_policy_that_does_not_adapt_is_shown_once(tmp_path):
    family, path = ShortVel(), tmp_path / "x.mp4"
    performers = [Performer(Push()), Performer(Push(), Origin(agent="ppo", adapts=False))]
    config = VideoConfig(size=(96, 96), layout="side-by-side")
    recording = record(performers, family, tasks_of(family, 1), 3, path, config)
    pictures = read(path, (288, 96))[1].astype(int)
    last, other = (pictures[HOLD, 68:92, left : left + 90] for left in (96, 192))
    assert np.corrcoef(last.ravel(), other.ravel())[0, 1] > 0.95, "the third column shows what the second does"
    measured = evaluate(Push(), family, tasks_of(family, 1), 3).returns
    assert recording.returns[0, 2] == recording.returns[0, 0] == pytest.approx(measured[0, 0]) != measured[0, 2]
    assert "left episode 1" in recording.look_for and "on the right ppo, no memory" in recording.look_for
    assert recording.look_for.endswith("the green arrow shows where it is to go"), "to a velocity"


@pytest.mark.parametrize(
    ("words", "found"),
    [({}, ["pretrained:quadruped-body-ppo"]), ({"adapts": False}, []), ({"task_visible": True}, [])],
)
def test_a_pretrained_policy_without_memory_stands_beside_one_that_adapts(words, found):
    assert memoryless(Origin(agent="rl2", family="quadruped-body", **words)) == found
    assert memoryless(Origin(agent="rl2", family="ant-goal", **words)) == []


def test_an_early_end_stops_one_tile_only(tmp_path):
    family = FallingVel()
    config = VideoConfig(size=(64, 64))
    recording = record([Performer(Push())], family, tasks_of(family, 2), 2, tmp_path / "x.mp4", config)
    assert recording.num_frames == 2 * (HOLD + STEPS - 1 + HOLD), "as long as the longest of each episode"
    expected = evaluate(Push(), family, tasks_of(family, 2), 2).returns
    np.testing.assert_allclose(recording.returns, expected)


@pytest.mark.parametrize("size, words", [((100, 64), "width 100"), ((64, 0), "height 0"), ((64, 90), "nearest is 96")])
def test_sizes_are_multiples_of_16(tmp_path, size, words):
    family = ShortVel()
    with pytest.raises(UserError, match=words):
        record([Performer(Push())], family, tasks_of(family, 1), 1, tmp_path / "x.mp4", VideoConfig(size=size))


def test_paths_that_cannot_be_written(tmp_path):
    family = ShortVel()
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    for name, words in (
        ("file/x.mp4", "cannot write"),
        ("folder.mp4", "is a folder"),
        ("x.avi", "end in .mp4, .gif or .webp"),
    ):
        with pytest.raises(UserError, match=words):
            record([Performer(Push())], family, tasks_of(family, 1), 1, tmp_path / name, VideoConfig(size=(64, 64)))


def test_an_interruption_leaves_no_file_and_keeps_the_old_one(tmp_path):
    family, path = ShortVel(), tmp_path / "x.mp4"
    path.write_bytes(b"an earlier video")
    with pytest.raises(KeyboardInterrupt):
        record([Performer(Breaks())], family, tasks_of(family, 1), 1, path, VideoConfig(size=(64, 64)))
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"an earlier video"


def test_an_encoder_that_stops_is_one_sentence(tmp_path, monkeypatch):
    class Full:
        def append_data(self, picture):
            raise OSError("Broken pipe")

        def close(self):
            raise OSError("Broken pipe")

    monkeypatch.setattr(encoder.imageio, "get_writer", lambda *args, **settings: Full())
    family = ShortVel()
    with pytest.raises(UserError, match="the encoder stopped"):
        record([Performer(Push())], family, tasks_of(family, 1), 1, tmp_path / "x.mp4", VideoConfig(size=(64, 64)))
    assert not list(tmp_path.iterdir())


def test_an_unknown_camera_is_named(tmp_path):
    class Wrong(ShortVel):
        camera = "trak"

    family = Wrong()
    with pytest.raises(UserError, match="did you mean 'track'"):
        record([Performer(Push())], family, tasks_of(family, 1), 1, tmp_path / "x.mp4", VideoConfig(size=(64, 64)))
    assert not list(tmp_path.iterdir())


def test_without_a_camera_the_view_follows_the_robot(tmp_path):
    class NoCamera(ShortVel):
        camera = None

    family = NoCamera()
    record([Performer(Push())], family, tasks_of(family, 1), 1, tmp_path / "x.mp4", VideoConfig(size=(320, 240)))
    picture = read(tmp_path / "x.mp4", (320, 240))[1][-1].astype(int)
    robot = (picture[..., 0] - picture[..., 2]) > 35  # the only thing that is orange
    across = np.flatnonzero(robot.any(axis=0))
    assert 0.3 < (across[-1] - across[0]) / 320 < 0.9


def drawn(family, row, steps=0):
    """A world's picture on a task, and its colours as sums over all pixels."""
    made = make_family(family)
    tasks = made.space.nominal(1)
    for name, value in row.items():
        tasks.values[name][0] = torch.as_tensor(value, dtype=torch.float64)
    with make_env(made, 1, threads=1, pictures=True) as env:
        env.begin(tasks, key=0)
        for _ in range(steps):
            env.step(torch.zeros(1, env.action_size))
        with closing(env.cameras([0], (192, 128))) as cameras:
            return cameras.draw()[0].astype(int)


def is_blue(picture):
    return (picture[..., 2] > picture[..., 0] + 60) & (picture[..., 2] > picture[..., 1] + 40)


def is_yellow(picture):
    return (picture.min(axis=2, keepdims=False) < 90) & (picture[..., 0] > 200) & (picture[..., 1] > 140)


def test_wind_is_an_arrow_and_no_wind_is_none():
    left, still = drawn("point-wind", {"wind": [-0.08, 0.0]}), drawn("point-wind", {"wind": [0.0, 0.0]})
    assert is_blue(left).sum() > 5 and not is_blue(still).any()
    assert np.flatnonzero(is_blue(left).any(axis=0)).mean() < 94, "it points to the left"


def test_the_start_is_a_line_on_flat_ground_only():
    assert is_yellow(drawn("half-cheetah-vel", {})).sum() > 30
    rough = {"terrain": 3.0, "difficulty": 0.5}
    assert not is_yellow(drawn("half-cheetah-terrain", rough)).any()


def test_a_slope_is_seen_and_a_weak_leg_is_red_from_hip_to_foot():
    level, slope = (drawn("quadruped-load", {"slope": slope}) for slope in (0.0, 0.25))

    def horizon(picture):
        """Row of the first pixel that is no sky, at the left and at the right."""
        sky = picture[..., 2] > picture[..., 1] + 8
        return [int(np.argmin(sky[:, column])) for column in (2, -3)]

    assert abs(np.subtract(*horizon(level))) <= 2 and np.subtract(*horizon(slope)) > 15, "it rises to the right"
    reddish = [
        (p[..., 0] > p[..., 1] + 40).sum()
        for p in (level, drawn("quadruped-crippled", {"motor": 3.0, "strength": 0.2}))
    ]
    assert reddish[1] > reddish[0] + 60


def test_a_motor_that_turns_the_other_way_is_red():
    signs = ([1.0] * 6, [-1.0, *[1.0] * 5])
    reddish = [(p[..., 0] > p[..., 1] + 100).sum() for p in (drawn("half-cheetah-signs", {"signs": s}) for s in signs)]
    assert reddish[1] > reddish[0] + 30


def test_an_arrow_goes_where_the_reward_is():
    picture = drawn("quadruped-direction", {"direction": np.pi})
    green = (picture[..., 1] > picture[..., 0] + 50) & (picture[..., 1] > picture[..., 2] + 50)
    assert np.flatnonzero(green[20:50].any(axis=0)).mean() < 96, "to the left"


def test_captions():
    space = HalfCheetahBody.space
    row = {"mass": 0.934, "friction": 1.5, "damping": 0.071, "dead_joint": 3.0}
    assert describe(space, row) == "mass 0.93, friction 1.50, damping 0.071, dead_joint fthigh"
    assert describe(HalfCheetahVel.space, {"velocity": 1.716}) == "velocity 1.72 m/s"
    factors = TaskSpace({"mass": Parameter(LogUniform(0.1, 4.0, size=8), unit="1")})
    assert describe(factors, {"mass": [1.0, 0.5, 3.375, *[2.0] * 5]}) == "mass 0.50 to 3.38"
    assert describe(HalfCheetahSigns.space, {"signs": [-1.0, *[1.0] * 5]}) == "signs (-1, 1, 1, 1, 1, 1)"


def test_a_caption_says_what_is_so_now():
    """A command that was drawn anew, and a fault that has not come, or has."""
    wide = make_family("quadruped-command-wide").space
    low, high = (
        np.array([getattr(wide.parameters[name].train, end) for name in ("velocity", "turn")])
        for end in ("low", "high")
    )
    code = 2.0 * (np.array([0.5, -0.25]) - low) / (high - low) - 1.0
    now = {"present_velocity": code[:1], "present_turn": code[1:]}
    assert describe(wide, {"velocity": 0.9, "turn": 0.75}, now) == "velocity 0.50 m/s, turn -0.25 rad/s"
    faults, row = make_family("quadruped-faults").space, {"kind": 1.0, "motor": 1.0}
    assert describe(faults, row, {"fault": np.zeros(1)}) == "kind locked, motor FL_hip (not now)"
    assert describe(faults, row, {"fault": np.ones(1)}) == "kind locked, motor FL_hip"
    signs, off = make_family("quadruped-signs").space, {"fault": np.zeros(1)}
    assert describe(signs, {"signs": [1.0, -1.0, 1.0, 1.0]}, off) == "signs (1, -1, 1, 1) (not now)"
    assert describe(signs, {"signs": [1.0] * 4}, off) == "signs (1, 1, 1, 1)", "nothing is going to break"


class Switching(ShortVel):
    disturbances = (Redrawn(("velocity",), every=0.1),)


def test_a_take_knows_what_changes_in_it(numbered):
    """A speed that is another every two control steps; each picture's caption has the one of that instant."""
    family, wanted = Switching(), Wanted((16, 16), frozenset({0, 1}), 1, STEPS, read_outs=False)
    tasks = tasks_of(family, 2)
    with filmed(Push(), family, tasks, 2, wanted, seed=0, worlds={"threads": 1}, origin=Origin()) as take:
        codes = [[take.now(1, episode, age)["present_velocity"].item() for age in range(STEPS)] for episode in (0, 1)]
        words = describe(family.space, tasks.rows()[1], take.now(1, 0, STEPS))
    for code in codes:
        assert len(set(code)) == 3, "its own, and two others"
        assert code[0] == pytest.approx(2.0 * tasks["velocity"][1].item() / 3.0 - 1.0, rel=1e-5)
    assert words != describe(family.space, tasks.rows()[1])


def take_of(reward, starts, read_outs=None):
    """A take without pictures."""
    columns = np.asarray(reward, dtype=np.float64)
    return Take(HalfCheetahVel.space.fixed("test", columns.shape[1]), columns, starts, read_outs or {}, None)


def test_the_deviation_of_a_read_out_is_a_band_and_no_panel_of_its_own():
    steps = np.linspace(0.0, 1.0, 6, dtype=np.float32)[:, None, None]
    outs = {"mass": steps, "mass ±": 0.5 * np.ones_like(steps)}
    drawn = []
    for read_outs in (outs, {"mass": steps}):
        take = take_of(np.zeros((6, 1)), ((0, 6),), read_outs)
        drawn.append(Plot(take, [Shot(0, 0)], (320, 320), 6, 1).draw(Shot(0, 0), 6))
    assert drawn[0].shape == drawn[1].shape
    shades = [
        int(((picture[:, 170:] > 25).any(axis=2) & (picture[:, 170:] < 95).all(axis=2)).sum()) for picture in drawn
    ]
    assert shades[0] > shades[1] + 1000
    assert np.array_equal(drawn[0][:, :160], drawn[1][:, :160])


def test_scores_count_up_and_say_what_was_before():
    take = take_of([[0.5], [-3.75], [1.0], [2.0], [4.0]], ((0, 2, 3, 5),))
    assert [score(take, Shot(0, 2), age, 3, 9) for age in range(4)] == [
        "episode 3/3   return 0.0",
        "episode 3/3   return 2.0",
        "episode 3/3   return 6.0",
        "episode 3/3   return 6.0",
    ]
    assert score(take, Shot(0, 2), 1, 3, 1) == "episode 3/3   return 2.0 of 6.0", "cut short"
    assert before(take, Shot(0, 2)) == "   before: -3.2, 1.0"
    assert before(take, Shot(0, 0)) == ""


def test_layouts():
    one, two = scenes("sequence", 5, [[0, 3]])
    assert one.shots == tuple(Shot(world, 0) for world in range(5)) and (one.rows, one.columns) == (2, 3)
    assert two.shots[4] == Shot(4, 3)
    (beside,) = scenes("side-by-side", 2, [[0, 3], [3]])
    assert beside.shots == tuple(Shot(world, *shown) for world in (0, 1) for shown in ((0, 0), (3, 0), (3, 1)))
    assert (beside.rows, beside.columns) == (2, 3)


def test_shots_run_in_step_until_the_last_has_ended():
    take = take_of(np.zeros((12, 2)), ((0, 5, 12), (0, 7, 12)))
    scene = Scene((Shot(0, 0), Shot(1, 0)), 2)
    assert list(scene.ages([take], stride=2, limit=99, hold=2)) == [0, 0, 2, 4, 6, 7, 7]
    assert list(scene.ages([take], stride=2, limit=4, hold=1)) == [0, 2, 4]


class Numbered:
    """Cameras whose pictures say which step they are of."""

    scale, size = 10, 16

    def __init__(self, steps):
        self.steps = steps

    def draw(self, which):
        shape, step = (self.size, self.size, 3), len(self.steps)
        return [np.full(shape, self.scale * step + world, np.uint8) for world in which]

    def close(self):
        pass


@pytest.fixture
def numbered(monkeypatch):
    """Cameras of the environments that number the steps since the trial began."""
    steps, step, begin = [], MujocoEnv.step, MujocoEnv.begin
    monkeypatch.setattr(MujocoEnv, "begin", lambda self, *a, **k: steps.clear() or begin(self, *a, **k))
    monkeypatch.setattr(MujocoEnv, "step", lambda self, action: steps.append(action) or step(self, action))
    monkeypatch.setattr(MujocoEnv, "cameras", lambda self, worlds, size: Numbered(steps))


def numbers(take, world, episode, ages):
    return [int(np.round(take.picture(world, episode, age).mean())) for age in ages]


@pytest.mark.parametrize(
    ("episodes", "stride", "world", "episode", "expected"),
    [
        ({0, 1}, 1, 1, 0, [11, 11, 21, 31, 41, 51, 51]),  # the first instant and the last, already the next episode's
        ({0, 1}, 1, 1, 1, [61, 71, 81, 91, 101, 111, 121]),  # the trial's last step restarts no one
        ({1}, 2, 1, 1, [61, 61, 81, 81, 101, 101, 121]),
        ({0, 1}, 1, 0, 0, [10, 10]),  # an episode of one step
        ({0, 1}, 1, 0, 1, [10, 10]),
    ],
)
def test_pictures_are_of_the_episode_and_age_asked_for(numbered, episodes, stride, world, episode, expected):
    wanted = Wanted((16, 16), frozenset(episodes), stride, STEPS, read_outs=False)
    family = FallingVel()
    with filmed(Push(), family, tasks_of(family, 2), 2, wanted, seed=0, worlds={"threads": 1}, origin=Origin()) as take:
        assert take.starts[1] == (0, STEPS, 2 * STEPS) and take.starts[0] == tuple(range(2 * STEPS + 1))
        assert numbers(take, world, episode, range(len(expected))) == expected


def test_side_by_side_shows_both_episodes_at_once(tmp_path, numbered, monkeypatch):
    family, path = ShortVel(), tmp_path / "x.mp4"
    config = VideoConfig(size=(96, 96), layout="side-by-side", seconds=0.2)
    for name, value in (("scale", 15), ("size", 96)):
        monkeypatch.setattr(Numbered, name, value)
    recording = record([Performer(Push())], family, tasks_of(family, 1), 3, path, config)
    pictures = read(path, (192, 96))[1]
    assert len(pictures) == HOLD + 3 + HOLD, "four steps of each"
    assert recording.returns.shape == (1, 3), "the whole trial is played"
    shown = pictures[-1][60:90].astype(int)
    assert abs(shown[:, 10:80].mean() - 15 * 4) < 4 and abs(shown[:, 110:180].mean() - 15 * 16) < 4
    with pytest.raises(UserError, match="there is no episode 4 to show: the trial has episodes 1 to 3"):
        record([Performer(Push())], family, tasks_of(family, 1), 3, path, VideoConfig(size=(64, 64), episodes=(1, 4)))


class Count(NamedTuple):
    steps: torch.Tensor


class Counts(Push):
    """Knows how many steps it has seen."""

    def initial_state(self, n, device="cpu"):
        return Count(torch.zeros(n, 1))

    def observe(self, state, transition):
        return Count(state.steps + 1)

    def read_out(self, state):
        return {"steps": state.steps}


def test_read_outs_are_kept_after_every_step(numbered):
    family = ShortVel()
    for policy, expected in ((Counts(), list(range(1, 2 * STEPS + 1))), (Push(), None)):
        wanted = Wanted((16, 16), frozenset({0}), 1, STEPS, read_outs=True)
        with filmed(
            policy, family, tasks_of(family, 2), 2, wanted, seed=0, worlds={"threads": 1}, origin=Origin()
        ) as take:
            found = take.read_outs["steps"][:, 1, 0].tolist() if take.read_outs else None
        assert found == expected


def test_what_a_belief_is_of_is_drawn_as_it_changes_and_in_its_units():
    belief = np.zeros((8, 1, 1), np.float32)
    take = take_of(np.ones((8, 1)), ((0, 8),), {"speed": belief})
    changes = np.where(np.arange(8) < 4, -0.5, 1.0).astype(np.float32).reshape(8, 1, 1)
    drawn = []
    for privileged in ({}, {"speed": 0.0 * changes}, {"speed": changes}, {"other": changes}):
        plot = Plot(replace(take, privileged=privileged), [Shot(0, 0)], (320, 160), limit=8, window=1)
        panel = plot._read_outs[0][0]
        drawn.append((panel.low, panel.high))
        assert plot.draw(Shot(0, 0), 8).shape == (48, 320, 3)
    assert drawn == [(0.0, 1.0), (0.0, 1.0), (-0.5, 1.0), (0.0, 1.0)]


def test_the_plot_grows_to_the_right():
    signal = np.linspace(0, 1, 8, dtype=np.float32).reshape(8, 1, 1)
    take = take_of(np.ones((8, 1)), ((0, 4, 8),), {"belief": signal})
    plot = Plot(take, [Shot(0, 1)], (320, 160), limit=4, window=1)

    def right_edges(age):
        """Of what is drawn in colour: the return's curve, and the belief's."""
        picture = plot.draw(Shot(0, 1), age).astype(int)
        coloured = (picture.max(axis=2) - picture.min(axis=2) > 80).any(axis=0)
        return [np.flatnonzero(half).max(initial=-1) for half in np.split(coloured, 2)]

    assert plot.draw(Shot(0, 1), 0).shape == (48, 320, 3)
    start, middle, end = right_edges(0), right_edges(2), right_edges(4)
    assert start[0] == -1 and middle[0] == pytest.approx(80, abs=4) and end[0] == pytest.approx(156, abs=4)
    assert start[1] < middle[1] < end[1], "the belief's axis is the whole trial"
    assert start[1] == pytest.approx(160 * 3 / 7, abs=4)


def test_principal_components():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(50, 2, 2)) * (3.0, 1.0)
    mixing = np.linalg.qr(rng.normal(size=(10, 10)))[0][:2]
    lines, share = principal((hidden @ mixing + 5.0).astype(np.float32), 2)
    assert share == pytest.approx(1.0, abs=1e-6)
    centred = hidden - hidden.mean(axis=(0, 1))
    np.testing.assert_allclose((lines**2).sum(), (centred**2).sum(), rtol=1e-5)
    assert lines[..., 0].var() > lines[..., 1].var()
    assert abs((lines[..., 0] * lines[..., 1]).mean()) < 1e-6


def test_the_running_mean_forgets():
    signal = np.array([1.0, 3.0, 5.0, 0.0]).reshape(4, 1, 1)
    assert running_mean(signal, 2).ravel().tolist() == [1.0, 2.0, 4.0, 2.5]


def test_a_full_disk_for_pictures_is_one_sentence():
    with open("/dev/full", "r+b", buffering=0) as full, pytest.raises(UserError, match="No space left on device"):
        Pictures(full, 1).add(0, 0, np.zeros((16, 16, 3), np.uint8))


def test_no_backend_is_one_sentence_with_the_packages(monkeypatch, tmp_path):
    for name in ("MUJOCO_GL", "METARL_GL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(rendering, "_CANDIDATES", ("egl", "osmesa"))
    monkeypatch.setattr(rendering, "_probe", lambda backend: f"no {backend} library")
    family = ShortVel()
    with pytest.raises(UserError, match="libegl1 and libgl1-mesa-dri or libosmesa6") as caught:
        record([Performer(Push())], family, tasks_of(family, 1), 1, tmp_path / "x.mp4", VideoConfig(size=(64, 64)))
    assert "\n" not in str(caught.value) and "egl: no egl library; osmesa: no osmesa library" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_mujoco_gl_is_respected(monkeypatch):
    tried = []
    monkeypatch.delenv("METARL_GL", raising=False)

    def probe(backend):
        tried.append(backend)
        return "" if backend == "osmesa" else "broken"

    monkeypatch.setattr(rendering, "_probe", probe)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert rendering.gl_backend() == "osmesa" and tried == ["osmesa"]
    monkeypatch.setenv("MUJOCO_GL", "egl")
    with pytest.raises(UserError, match=r"egl: broken.*or unset MUJOCO_GL"):
        rendering.gl_backend()
    for setting, words in (("nonsense", "egl, glfw, osmesa"), ("off", "switches pictures off")):
        monkeypatch.setenv("MUJOCO_GL", setting)
        with pytest.raises(UserError, match=words):
            rendering.gl_backend()


def test_a_backend_that_breaks_is_found_out_in_another_process():
    assert "nonsense" in rendering._probe("nonsense")


def test_importing_metarl_leaves_opengl_alone():
    code = (
        "import sys, metarl.run.train, metarl.run.evaluate; print('OpenGL' in sys.modules or 'imageio' in sys.modules)"
    )
    unset = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    done = subprocess.run([sys.executable, "-c", code], env=unset, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    "text", ["payload 2.89 kg, centre -0.039 m, friction 0.40, strength 0.82, damping 0.62, more 3", "x" * 300]
)
def test_no_caption_reaches_into_the_next_tile(text):
    image = Image.new("RGB", (240, 40))
    write(ImageDraw.Draw(image), (8, 20), text, 11, 224, "lm")
    drawn = np.asarray(image)
    assert drawn[:, 8:232].any()
    assert not drawn[:, 233:].any()
