"""The page without a browser: what listens, what a client may ask for, what its controls do, what it leaves."""

import gc
import os
import subprocess
import sys
import threading
import time
import warnings
import weakref
from pathlib import Path

import imageio_ffmpeg
import msgspec
import numpy as np
import pytest
import viser
from viser import _messages
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import metarl
from metarl.core.errors import UserError
from metarl.viewer.server import serve

CLOCK = 120.0  # [s] after which a test gives up: what it waits for takes a fraction of one on an idle machine


@pytest.fixture(scope="module")
def viewer():
    with metarl.view("pretrained:quadruped-command-rl2", port=0, num_worlds=2, plain=True) as made:
        yield made
        if made.clock.error is not None:
            raise made.clock.error


def until(true, viewer=None):
    end = time.monotonic() + CLOCK
    while not true():
        if viewer is not None and viewer.clock.error is not None:
            raise viewer.clock.error
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def joined(viewer, **options):
    """A connection as the page makes one."""
    host = f"ws://127.0.0.1:{viewer.server.get_port()}"
    made = connect(host, subprotocols=[f"viser-v{viser.__version__}"], max_size=None, compression=None, **options)
    level, nowhere = (1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0)
    say(made, _messages.ViewerCameraMessage(level, nowhere, 1.0, 0.1, 100.0, 64, 64, nowhere, (0.0, 0.0, 1.0)))
    return made


def say(connection, message):
    """Send what the page would."""
    content = {field: getattr(message, field) for field in message.__dataclass_fields__}
    connection.send(msgspec.msgpack.encode({"type": type(message).__name__, **content}))


def handle(viewer, label):
    """The control of that label."""
    return next(one for one in viewer.server.gui._gui_input_handle_from_uuid.values() if one.label == label)


def test_only_this_machine_is_listened_to(viewer):
    port = f":{viewer.server.get_port():04X}"
    listening = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
        listening += [row[1].removesuffix(port) for row in rows if row[1].endswith(port) and row[3] == "0A"]
    assert listening == ["0100007F"]


def test_elsewhere_it_warns():
    with pytest.warns(UserWarning, match=r"served on 0\.0\.0\.0: whoever reaches this machine"):
        server = serve("0.0.0.0", 0)
    server.stop()


@pytest.mark.parametrize(
    ("host", "port", "message"), [("127.0.0.1", 70000, "out of range"), ("203.0.113.7", 8080, "not an")]
)
def test_what_cannot_be_listened_to_is_said(host, port, message):
    with warnings.catch_warnings(), pytest.raises(UserError, match=message):
        warnings.simplefilter("ignore")
        serve(host, port)


def test_a_client_cannot_have_it_shared(viewer):
    with joined(viewer) as connection:
        say(connection, _messages.ShareUrlRequest())
        say(connection, _messages.ShareUrlDisconnect())
        push = handle(viewer, "push by [m/s]")
        say(connection, _messages.GuiUpdateMessage(push._impl.uuid, {"value": 1.5}))
        until(lambda: push.value == 1.5)  # it came after them
    assert viewer.server._share_tunnel is None
    with pytest.raises(UserError, match="not shared"):
        viewer.server.request_share_url()


def test_pages_of_other_sites_are_refused(viewer):
    with pytest.raises(InvalidStatus, match="403"):
        joined(viewer, origin="https://evil.example")
    with joined(viewer, origin="http://localhost:9000"):
        pass


def test_a_slider_changes_the_world_that_runs(viewer):
    slider = handle(viewer, "velocity [m/s]")
    with joined(viewer) as connection:
        say(connection, _messages.GuiUpdateMessage(slider._impl.uuid, {"value": 1.25}))
        until(lambda: viewer.clock.do(lambda player: player.tasks["velocity"].tolist()).result() == [1.25, 1.25])
    until(lambda: viewer.player.past and viewer.player.past[-1].wanted[0, 0] == 1.25)


def test_a_broken_motor_is_broken_and_the_page_says_so(viewer):
    """Also while the server's other callbacks keep their threads busy: what is set is not undone in the meantime."""
    motor, others = handle(viewer, "break motor"), threading.Event()
    with joined(viewer) as connection:
        for _ in range(viewer.server.gui._thread_executor._max_workers):
            viewer.server.gui._thread_executor.submit(others.wait, CLOCK)
        say(connection, _messages.GuiUpdateMessage(motor._impl.uuid, {"value": "RR_hip"}))
        until(lambda: viewer.player.hand.grip.motor >= 0, viewer)
        others.set()
    model = viewer.clock.do(lambda player: player.env.physics.model_of(0)).result()
    assert model.actuator_gainprm[list(viewer.player.hand.motors).index("RR_hip"), 0] == 0.0
    viewer.order(lambda player: player.grip(motor=-1))
    until(lambda: motor.value == "none")


def test_it_goes_on_pauses_and_steps(viewer):
    def taken():
        return viewer.clock.do(lambda player: player._steps).result()

    frames = viewer.frames
    until(lambda: viewer.frames > frames + 3)
    viewer.clock.paused = True
    taken()  # from here on no step is under way
    steps = taken()
    assert taken() == steps
    viewer.clock.do(lambda player: player.step()).result()
    assert taken() == steps + 1
    viewer.clock.paused = False
    until(lambda: taken() != steps + 1)


def test_another_policy_takes_over(viewer):
    names = [choice.name for choice in viewer.shown.choices]
    assert names == ["pretrained:quadruped-command-rl2", "zero", "random"]
    viewer.choose(viewer.shown.choices[1])
    until(lambda: viewer.player.name == "zero")
    viewer.choose(viewer.shown.choices[0])
    until(lambda: viewer.player.name == names[0], viewer)
    until(lambda: names[0] in viewer.panels.status.content, viewer)
    assert "evaluation" in viewer.panels.figures[0].content


def test_what_goes_wrong_stops_it_and_is_raised():
    viewer = metarl.view("point-goal", port=0, plain=True)

    def fail():
        raise UserError("a reward was not finite")

    viewer.player.step = fail
    with pytest.raises(UserError, match="not finite"):
        viewer.wait()
    assert not viewer.clock.is_alive()


def opened_and_closed():
    """A viewer's whole life, with a client; a weak reference to what it was."""
    viewer = metarl.view("point-goal", port=0, plain=True)
    with joined(viewer):
        until(lambda: viewer.frames > 1, viewer)
    viewer.close()
    return weakref.ref(viewer)


def left():
    """Threads, files and sockets of this process, and its memory [MB]."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return threading.active_count(), len(os.listdir("/proc/self/fd")), pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def more_after(rounds):
    """Open and close so many viewers; the memory that is taken for good [MB]."""
    opened_and_closed()
    threads, files, memory = left()
    for _ in range(rounds):
        was = opened_and_closed()
    until(lambda: left()[0] <= threads)
    assert left()[1] <= files
    assert was() is None
    return left()[2] - memory


def test_opening_and_closing_leaves_nothing():
    more_after(2)


@pytest.mark.slow
def test_twenty_times_too(figure):
    more_after(10)  # what libraries keep for good
    more = more_after(20)
    figure(f"20 viewers opened and closed take {more:.1f} MB more")
    assert more < 20.0


MEASURE = """
import sys, time
sys.path.insert(0, {tests!r})
from test_page import joined, until
import metarl
with metarl.view("pretrained:quadruped-command-rl2", port=0, plain=True) as viewer, joined(viewer):
    until(lambda: viewer.frames > 100)
    frames, before = viewer.frames, time.process_time()
    until(lambda: viewer.frames >= frames + 200)
    print((time.process_time() - before) / (viewer.frames - frames))
"""


@pytest.mark.slow
def test_a_quadruped_takes_less_than_the_time_of_a_frame(figure):
    """50 frames/s on one core: of CPU time, which a busy machine does not change much; no types are checked."""
    program = MEASURE.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    figure(f"a frame of one quadruped takes {1000 * float(done.stdout.split()[0]):.1f} ms of CPU time")
    assert float(done.stdout.split()[0]) < 0.015


def pictures(path, height, width):
    """Those of a film. (imageio's reader leaves its pipes open.)"""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def test_a_clip_is_drawn_without_a_browser(viewer):
    try:
        viewer.clip.start(0.2)
    except UserError as error:
        pytest.skip(str(error))
    with pytest.raises(UserError, match="already"):
        viewer.clip.start(0.2)
    until(lambda: not viewer.clip.running, viewer)
    film = pictures(viewer.clip.path, 288, 1024)
    assert len(film) == 5  # of two robots beside each other
    assert all(
        abs(film[-1, :, half].astype(int) - film[0, :, half]).max() > 40 for half in (slice(512), slice(512, 1024))
    )


def test_a_run_that_trains_is_followed(tmp_path):
    small = {"num_worlds": 2, "episode_steps": 10, "total_steps": 40, "validation_tasks": 0}
    run = metarl.train("rl2", "point-goal", output=tmp_path / "run", **small)
    with metarl.view(run, port=0, plain=True) as viewer:
        first = viewer.clock.do(lambda player: player.policy).result()
        metarl.resume(run, total_steps=80)
        until(lambda: viewer.player.policy is not first, viewer)
        assert viewer._loaded == "iteration-000002" and viewer.choice.checkpoints[2:] == [
            viewer._loaded,
            "iteration-000001",
        ]
        until(lambda: "took up" in viewer.panels._note.content, viewer)


def test_a_family_of_another_simulator_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a run folder"):
        metarl.view("no-such-family", port=0)
