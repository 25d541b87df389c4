"""The page without a browser: what listens, what a client may ask for, what its controls do, what it leaves."""

import gc
import os
import threading
import time
import warnings
from pathlib import Path

import msgspec
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


def test_opening_and_closing_leaves_nothing():
    def opened():
        viewer = metarl.view("point-goal", port=0, plain=True)
        until(lambda: viewer.frames > 1)
        viewer.close()

    opened()
    gc.collect()
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        opened()
    gc.collect()
    until(lambda: threading.active_count() <= threads)
    assert len(os.listdir("/proc/self/fd")) <= files


@pytest.mark.slow
def test_twenty_times_too():
    for _ in range(10):
        test_opening_and_closing_leaves_nothing()


@pytest.mark.slow
def test_a_quadruped_takes_less_than_the_time_of_a_frame(viewer):
    """50 frames/s on one core: of CPU time, which a busy machine does not change much."""
    frames, before = viewer.frames, time.process_time()
    until(lambda: viewer.frames >= frames + 100)
    assert (time.process_time() - before) / 100 < 0.02


def test_a_family_of_another_simulator_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a run folder"):
        metarl.view("no-such-family", port=0)
