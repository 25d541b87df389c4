"""The recorder: what it writes, what it refuses, and that it shows what the evaluator measures."""

from __future__ import annotations

import subprocess
import sys

import imageio_ffmpeg
import numpy as np
import pytest
import torch

from metarl.envs.half_cheetah import HalfCheetahBody, HalfCheetahVel
from metarl.errors import UserError
from metarl.run import video_file
from metarl.run.evaluate import evaluate
from metarl.run.video import VideoConfig, record
from metarl.run.video_text import describe
from metarl.run.video_tiles import Tile
from metarl.sim import rendering
from metarl.tasks import LogUniform, Parameter, TaskSpace

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

    def begin(self, n, generator):
        return None

    def act(self, obs, belief, deterministic=False):
        assert deterministic
        return torch.full((len(obs), 6), 0.5), belief, {}

    def observe(self, belief, transition):
        return belief

    def end_episode(self, belief, worlds):
        return belief


class Breaks(Push):
    """Fails at its third step."""

    def begin(self, n, generator):
        self.steps = 0

    def act(self, obs, belief, deterministic=False):
        self.steps += 1
        if self.steps == 3:
            raise KeyboardInterrupt
        return super().act(obs, belief, deterministic)


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
    recording = record(Push(), family, tasks_of(family, 3), 2, path, config)
    described, pictures = read(path, (320, 32 + 192))  # a line of title, and two by two tiles
    assert all(word in described for word in ("h264", "yuv420p", "320x224", "20 fps"))
    assert len(pictures) == recording.num_frames == 2 * STEPS + 2 * (HOLD - 1) + HOLD
    assert recording.seconds == pytest.approx(len(pictures) / 20)
    picture = pictures[-1]
    assert picture[32 + 40 : 122, :150].std() > 20, "the first tile shows a robot on a chequered ground"
    assert picture[140:, 170:].std() < 5, "the fourth tile is empty"
    assert list(path.parent.iterdir()) == [path]


def test_it_shows_what_the_evaluator_measures(tmp_path):
    family = ShortVel()
    tasks = tasks_of(family, 2)
    config = VideoConfig(size=(64, 64), seed=3)
    recording = record(Push(), family, tasks, 2, tmp_path / "x.mp4", config)
    torch.testing.assert_close(recording.returns, evaluate(Push(), family, tasks, 2, seed=3).returns)


def test_an_early_end_restarts_one_tile_only(tmp_path):
    family = FallingVel()
    config = VideoConfig(size=(64, 64))
    recording = record(Push(), family, tasks_of(family, 2), 2, tmp_path / "x.mp4", config)
    assert recording.num_frames == 2 * STEPS + (HOLD - 1) + HOLD, "the picture stands still for no single tile"
    expected = evaluate(Push(), family, tasks_of(family, 2), 2).returns
    torch.testing.assert_close(recording.returns, expected)


@pytest.mark.parametrize("size, words", [((100, 64), "width 100"), ((64, 0), "height 0"), ((64, 90), "nearest is 96")])
def test_sizes_are_multiples_of_16(tmp_path, size, words):
    family = ShortVel()
    with pytest.raises(UserError, match=words):
        record(Push(), family, tasks_of(family, 1), 1, tmp_path / "x.mp4", VideoConfig(size=size))


def test_paths_that_cannot_be_written(tmp_path):
    family = ShortVel()
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    for name, words in (("file/x.mp4", "cannot write"), ("folder.mp4", "is a folder"), ("x.gif", "end in .mp4")):
        with pytest.raises(UserError, match=words):
            record(Push(), family, tasks_of(family, 1), 1, tmp_path / name, VideoConfig(size=(64, 64)))


def test_an_interruption_leaves_no_file_and_keeps_the_old_one(tmp_path):
    family, path = ShortVel(), tmp_path / "x.mp4"
    path.write_bytes(b"an earlier video")
    with pytest.raises(KeyboardInterrupt):
        record(Breaks(), family, tasks_of(family, 1), 1, path, VideoConfig(size=(64, 64)))
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"an earlier video"


def test_an_encoder_that_stops_is_one_sentence(tmp_path, monkeypatch):
    class Full:
        def append_data(self, picture):
            raise OSError("Broken pipe")

        def close(self):
            raise OSError("Broken pipe")

    monkeypatch.setattr(video_file.imageio, "get_writer", lambda *args, **settings: Full())
    family = ShortVel()
    with pytest.raises(UserError, match="the encoder stopped"):
        record(Push(), family, tasks_of(family, 1), 1, tmp_path / "x.mp4", VideoConfig(size=(64, 64)))
    assert not list(tmp_path.iterdir())


def test_an_unknown_camera_is_named(tmp_path):
    class Wrong(ShortVel):
        camera = "trak"

    family = Wrong()
    with pytest.raises(UserError, match="did you mean 'track'"):
        record(Push(), family, tasks_of(family, 1), 1, tmp_path / "x.mp4", VideoConfig(size=(64, 64)))
    assert not list(tmp_path.iterdir())


def test_without_a_camera_the_view_follows_the_robot(tmp_path):
    class NoCamera(ShortVel):
        camera = None

    family = NoCamera()
    record(Push(), family, tasks_of(family, 1), 1, tmp_path / "x.mp4", VideoConfig(size=(320, 240)))
    picture = read(tmp_path / "x.mp4", (320, 240))[1][-1].astype(int)
    robot = (picture[..., 0] - picture[..., 2]) > 35  # the only thing that is orange
    across = np.flatnonzero(robot.any(axis=0))
    assert 0.3 < (across[-1] - across[0]) / 320 < 0.9


def test_captions():
    space = HalfCheetahBody.space
    row = {"mass": 0.934, "friction": 1.5, "damping": 0.071, "dead_joint": 3.0}
    assert describe(space, row) == "mass 0.93, friction 1.50, damping 0.071, dead_joint fthigh"
    assert describe(HalfCheetahVel.space, {"velocity": 1.716}) == "velocity 1.72 m/s"
    factors = TaskSpace({"mass": Parameter(LogUniform(0.1, 4.0, size=8), unit="1")})
    assert describe(factors, {"mass": [1.0, 0.5, 3.375, *[2.0] * 5]}) == "mass 0.50 to 3.38"
    tile = Tile("", 2)
    tile.advance(0.0, False)
    assert tile.score() == "episode 1/2   return 0.0"
    tile.advance(-3.25, True)
    tile.advance(1.0, True)
    assert tile.score() == "episode 3   return 0.0   before: -3.2, 1.0", "a third episode after falls"


def test_no_backend_is_one_sentence_with_the_packages(monkeypatch, tmp_path):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(rendering, "_CANDIDATES", ("egl", "osmesa"))
    monkeypatch.setattr(rendering, "_probe", lambda backend: f"no {backend} library")
    family = ShortVel()
    with pytest.raises(UserError, match="libegl1 and libgl1-mesa-dri or libosmesa6") as caught:
        record(Push(), family, tasks_of(family, 1), 1, tmp_path / "x.mp4", VideoConfig(size=(64, 64)))
    assert "\n" not in str(caught.value) and "egl: no egl library; osmesa: no osmesa library" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_mujoco_gl_is_respected(monkeypatch):
    tried = []

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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
