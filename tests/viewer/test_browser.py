"""The page in a real browser, which draws in software: half a minute, or minutes of a busy machine."""

import base64
import json

import imageio.v3 as iio
import pytest
from browser import CHROMIUM, Browser
from test_page import pictures

import metarl

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: Debian's is the package chromium"),
]
HARMLESS = ("THREE.Clock", "GPU stall", "WebGL", "swiftshader", "favicon")
"""What viser's own page says of itself, and a browser of drawing in software."""
SIZE = (800, 640)


class Page:
    """A viewer and a browser that shows it. The worlds stand still but for the steps that a test takes."""

    def __init__(self, viewer, browser):
        self.viewer, self.browser = viewer, browser
        viewer.clock.paused = True
        browser.open(viewer.url)
        self.until("document.querySelector('canvas')")
        self.until_says("quadruped-command")

    def until(self, true):
        """Wait for an expression to be true."""
        look = f"const look = setInterval(() => {{ if ({true}) {{ clearInterval(look); done(true); }} }}, 50)"
        assert self.browser.evaluate(f"new Promise(done => {{ {look} }})")

    def until_says(self, words):
        self.until(f"document.body.innerText.includes({json.dumps(words)})")

    def click(self, words, kind="button"):
        """Click what reads so, once it is there."""
        found = (
            f"[...document.querySelectorAll('{kind}')].findLast(one => one.innerText?.trim() === {json.dumps(words)})"
        )
        self.until(found)
        self.browser.evaluate(f"{found}.click()")

    def pick(self, present, wanted):
        """Choose from the menu that shows `present`."""
        there = f"one.type === 'text' && one.value === {json.dumps(present)}"
        menu = f"[...document.querySelectorAll('input')].find(one => {there})"
        self.until(menu)
        self.browser.evaluate(f"{menu}.click()")
        self.click(wanted, "[role=option]")

    def write(self, present, wanted):
        """Write another number into the field that shows `present`."""
        near = f"Math.abs(parseFloat(one.value) - {present}) < 1e-5"
        field = f"[...document.querySelectorAll('input[type=text]')].find(one => {near})"
        self.until(f"{field} && ({field}.focus(), document.activeElement === {field})")  # a folder takes time to open
        self.browser.evaluate("document.activeElement.select()")
        self.browser.call("Input.insertText", text=str(wanted))
        self.browser.evaluate("document.activeElement.blur()")

    def ask(self, order):
        """What the player answers, between two steps."""
        return self.viewer.clock.do(order).result()

    def until_is(self, get, value):
        """Wait until the player says so; the page's orders come when the browser gets round to it."""
        while self.ask(get) != value:
            self.browser.evaluate("new Promise(done => setTimeout(done, 50))")

    def picture(self):
        """What is drawn of the robot, as pixels."""
        box = {"x": 335, "y": 180, "width": 150, "height": 220, "scale": 1}
        return iio.imread(base64.b64decode(self.browser.call("Page.captureScreenshot", clip=box)["data"]))[..., :3]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with (
        metarl.view("pretrained:quadruped-command-rl2", port=0, plain=True) as viewer,
        Browser(tmp_path_factory.mktemp("profile"), size=SIZE, scenes=True) as browser,
    ):
        yield Page(viewer, browser)
        assert [error for error in browser.errors if not any(word in error for word in HARMLESS)] == []
        ours = viewer.url.removeprefix("http")
        assert all(url.startswith(("data:", "blob:")) or ours in url for url in browser.requests)
        if viewer.clock.error is not None:
            raise viewer.clock.error


def test_the_robot_moves_when_the_worlds_do(page):
    before = page.picture()
    for _ in range(20):
        page.ask(lambda player: player.step())
    page.until_says("0.4 s")
    moved = abs(page.picture().astype(int) - before).max(axis=-1) > 40
    assert moved.mean() > 0.01
    page.click("pause / go")
    page.until_says("1 s")
    page.click("pause / go")
    page.until_says("paused")
    assert page.viewer.clock.paused


def test_it_offers_nothing_to_share(page):
    assert "Share" not in page.browser.evaluate("document.body.innerHTML")


def test_a_written_number_changes_the_task_and_is_marked_as_beyond_training(page):
    page.write(page.ask(lambda player: player.tasks["velocity"].item()), 1.1)
    page.until_says("velocity is beyond its training range")
    assert page.ask(lambda player: player.tasks["velocity"].item()) == pytest.approx(1.1)
    page.ask(lambda player: player.step())
    assert page.ask(lambda player: player.past[-1].wanted[0, 0]) == pytest.approx(1.1)


def test_a_motor_breaks_and_is_repaired(page):
    page.pick("none", "RR_hip")
    page.until_is(lambda player: player.hand.grip.motor, page.viewer.player.hand.motors.index("RR_hip"))
    page.click("all as built")
    page.until_is(lambda player: player.hand.grip.motor, -1)


def test_a_push_is_given(page):
    page.click("↑")
    page.until_is(lambda player: player.pushing(), True)


def test_another_policy_takes_over(page):
    page.pick("pretrained:quadruped-command-rl2", "zero")
    page.until_is(lambda player: player.name, "zero")
    page.pick("zero", "pretrained:quadruped-command-rl2")
    page.until_is(lambda player: player.name, "pretrained:quadruped-command-rl2")


def test_new_episodes_and_tasks_begin(page):
    page.click("task")
    trial = page.ask(lambda player: player.trial)
    page.until_is(lambda player: player.trial > 0, True)
    page.click("episode")
    page.until_is(lambda player: len(player.returns[0]) > 0, True)
    assert trial <= page.ask(lambda player: player.trial)


def test_a_clip_is_recorded(page):
    page.click("View", "*")
    page.write(8, 1)
    page.click("record a clip")
    page.until_is(lambda player: page.viewer.clip.running, True)
    page.viewer.clock.paused = False
    page.until_says("A clip was recorded")
    film = pictures(page.viewer.clip.path, 576, 1024)
    assert len(film) == 25
    assert abs(film[-1].astype(int) - film[0]).max() > 40
