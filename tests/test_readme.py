"""What README.md and the first pages of docs/ show must work as it stands."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

from metarl.cli.main import main

ROOT = Path(__file__).parent.parent
PAGES = [(ROOT / name).read_text() for name in ("README.md", "docs/start.md", "docs/plug_in.md")]
API, SESSION, PLANETS = (re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[0] for page in PAGES)
COMMANDS = dict.fromkeys(line for page in PAGES for line in page.splitlines() if line.startswith("metarl "))


def test_a_session_adapts_two_robots(capsys):
    names = {}
    exec(compile(SESSION, "start.md", "exec"), names)
    assert "forward" in capsys.readouterr().out
    assert names["step"].reward_terms["forward"].min() > 3  # both run their own way


def test_the_api_runs_with_a_small_budget(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = API.replace("3_000_000", "160, num_worlds=2, episode_steps=20, chunk_steps=20").replace("5_000_000", "240")
    small = small.replace('"adapt.mp4"', '"adapt.mp4", num_tasks=1, seconds=0.1, size=(64, 48)')
    assert "160" in small and "240" in small and "0.1" in small
    names = {}
    exec(compile(small, "README.md", "exec"), names)
    assert names["record"].returns.shape[1] == 2 and "500" in capsys.readouterr().out.split()
    assert (tmp_path / "adapt.mp4").stat().st_size > 1000


BUDGETS = {
    "train rl2": "--total-steps 160 --num-worlds 2 --episode-steps 20 --chunk-steps 20",
    "train maml-trpo": "--total-steps 80 --num-worlds 2 --episode-steps 10 --shots 1 --episodes-per-trial 4",
    "train pearl": "--total-steps 400 --num-worlds 2 --episode-steps 20 --train-tasks 4 --num-updates 2",
    "tune": "--trials 1 --steps 1600 --num-tasks 2",
    "eval": "--num-tasks 2",
    "video": "--grid 1 --seconds 0.1 --width 64 --height 48",
    "report": "--no-videos",
    "resume": "--total-steps 240",
    "bench": "--families point-goal --worlds 2 --seconds 0.01",
}
"""What makes a command short, by its first words; the last of two values of an option counts."""


def shortened(command):
    words = shlex.split(command, comments=True)[1:]
    kind = " ".join(words[:2]) if words[0] == "train" else words[0]
    if "--config" in words:
        kind = f"train {tomllib.loads((ROOT / words[words.index('--config') + 1]).read_text())['agent']}"
    return [*words, *BUDGETS.get(kind, "").split()]


def made_by_make():
    """The commands of metarl behind `make train`."""
    printed = subprocess.run(["make", "-n", "train", "RUN=runs/quick"], cwd=ROOT, capture_output=True, text=True)
    lines = (line.removeprefix(".venv/bin/") for line in printed.stdout.splitlines())
    return [line for line in lines if line.startswith("metarl ")]


def test_every_command_runs_with_a_small_budget(tmp_path, monkeypatch, capsys):
    """In their order, as a reader would type them, beside the class of docs/plug_in.md in planets.py."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    (tmp_path / "planets.py").write_text(PLANETS)
    for command in [*COMMANDS, *made_by_make()]:
        assert main(shortened(command)) == 0, f"{command}\n{capsys.readouterr().err}"
    assert len(made_by_make()) == 3
    assert {path.name for path in (tmp_path / "runs").iterdir()} >= {
        "walk",
        "vel",
        "vel-preset",
        "maml",
        "pearl",
        "quick",
    }
    assert (tmp_path / "vel.html").stat().st_size > 10_000
