"""The page in a real browser, which draws in software: it takes half a minute, or minutes of a busy machine."""

import pytest
from browser import CHROMIUM, Browser

import metarl

SHOWN = "document.body.innerText.includes('quadruped-command')"
UNTIL = (
    "new Promise(done => {{ const look = setInterval("
    "() => {{ if ({0}) {{ clearInterval(look); done(true); }} }}, 100); }})"
)
HARMLESS = ("THREE.Clock", "GPU stall", "WebGL", "swiftshader", "favicon")
"""What viser's own page says of itself, and a browser of drawing in software."""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: Debian's is the package chromium")
def test_it_shows_a_robot_that_moves_and_takes_orders(tmp_path):
    with (
        metarl.view("pretrained:quadruped-command-rl2", port=0, plain=True) as viewer,
        Browser(tmp_path / "profile", size=(800, 500), scenes=True) as browser,
    ):
        browser.open(viewer.url)
        assert browser.evaluate(UNTIL.format(SHOWN))
        frames = viewer.frames
        assert browser.evaluate(UNTIL.format("document.querySelector('canvas') !== null"))
        pause = "[...document.querySelectorAll('button')].find(b => b.innerText.includes('pause'))"
        assert browser.evaluate(f"{pause} !== undefined")
        browser.evaluate(f"{pause}.click()")
        assert browser.evaluate(UNTIL.format("document.body.innerText.includes('paused')"))
        assert viewer.clock.paused and viewer.frames > frames
        assert "Share" not in browser.evaluate("document.body.innerHTML")
        field = "[...document.querySelectorAll('input')].find(i => Math.abs(parseFloat(i.value) - 0.7046) < 0.001)"
        browser.evaluate(f"{field}.focus()")
        browser.evaluate(f"{field}.select()")
        browser.call("Input.insertText", text="1.1")
        browser.evaluate("document.activeElement.blur()")
        browser.evaluate(UNTIL.format("document.body.innerText.includes('beyond its training range')"))
        assert viewer.clock.do(lambda player: player.tasks["velocity"].item()).result() == pytest.approx(1.1)
    assert [error for error in browser.errors if not any(word in error for word in HARMLESS)] == []
    ours = viewer.url.removeprefix("http")
    assert all(url.startswith(("data:", "blob:")) or ours in url for url in browser.requests)
