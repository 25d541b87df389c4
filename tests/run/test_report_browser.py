"""The report of two tiny runs in a real browser: no error, nothing fetched, every figure drawn, every video played."""

import json

import pytest
from browser import CHROMIUM, Browser

from metarl.cli.main import main

TINY = ["point-goal", "--episode-steps", "20", "--threads", "1", "--seed", "1"]
RUNS = {
    "plain": ["rl2", *TINY, "--num-worlds", "8", "--chunk-steps", "5", "--hidden-size", "16", "--total-steps", "960"],
    '<img src=x onerror="boom()">': [
        *("maml-trpo", *TINY, "--num-worlds", "4", "--episodes-per-trial", "4", "--shots", "2"),
        *("--hidden-size", "8", "--total-steps", "960"),
    ],
}
FIGURES = """[...document.querySelectorAll('figure svg')].map(svg => {
  const width = svg.closest('.minutes') ? null : svg.getBoundingClientRect().width;
  return {label: svg.getAttribute('aria-label'), width, lines: svg.querySelectorAll('path').length};
})"""
VIDEOS = """Promise.all([...document.querySelectorAll('video')].map(async video => {
  await video.play();
  while (video.currentTime < 0.2) await new Promise(done => setTimeout(done, 20));
  return {width: video.videoWidth, seconds: video.duration, error: video.error};
}))"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    for name, words in RUNS.items():
        assert main(["train", *words, "--output", str(folder / name)]) == 0
    assert main(["report", *(str(folder / name) for name in RUNS), "--output", str(folder / "report.html")]) == 0
    return folder / "report.html"


@pytest.fixture(scope="module")
def content(report):
    return json.loads(report.with_suffix(".json").read_text())


def test_what_is_missing_is_evaluated_and_filmed(report, content):
    for run in content["runs"]:
        assert sorted(evaluation["split"] for evaluation in run["evaluations"]) == ["ood", "test"]
    assert [video["run"] for video in content["videos"]] == list(RUNS)
    (family,) = content["families"]
    assert [method["label"] for method in family["methods"]] == ["maml-trpo", "rl2"]
    for method in family["methods"]:
        assert {"collect", "update"} <= method["time"].keys()
        assert sum(method["time"].values()) == pytest.approx(1.0)


def test_the_page_names_no_address_to_fetch(report):
    text = report.read_text()
    for attribute in ("src=", "href=", "url("):
        for rest in text.split(attribute)[1:]:
            assert rest.lstrip("\"'&quot;").startswith(("data:", "#", "x onerror")), rest[:60]
    assert "<script" not in text
    assert "<img src=x" not in text  # the run's name, escaped


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: Debian's is the package chromium")
def test_it_opens_in_a_browser(report, content, tmp_path):
    with Browser(tmp_path / "profile") as browser:
        browser.open(report)
        figures, videos = browser.evaluate(FIGURES), browser.evaluate(VIDEOS)
        assert browser.evaluate("document.title") == content["title"] + " · metarl"
        wide = browser.evaluate("document.documentElement.scrollWidth")
        browser.evaluate("document.getElementById('by-minutes').click()")
        shown = "[...document.querySelectorAll('.choice .grid')].map(grid => grid.getBoundingClientRect().height > 0)"
        assert browser.evaluate(shown) == [False, True]
        browser.call("Emulation.setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=1, mobile=True)
        narrow = browser.evaluate("document.documentElement.scrollWidth")
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [report.as_uri()]
    # adaptation on test and ood, the first seconds, beliefs, learning by steps and minutes, the distance of the goal
    assert len(figures) == 7
    assert all(figure["lines"] > 10 and (figure["width"] is None or figure["width"] > 300) for figure in figures)
    assert (wide, narrow) == (1280, 400)
    assert len(videos) == 2
    for video in videos:
        assert video["error"] is None and video["width"] == 640 and video["seconds"] > 0.5
