"""Policies shared: published and fetched through a stand-in server by the Hub's own client; what is never fetched."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
from hub_server import hub

import metarl
from metarl.cli.main import main
from metarl.core.errors import UserError
from metarl.hub.package import portable, without_folders

pytestmark = pytest.mark.skipif(find_spec("huggingface_hub") is None, reason="needs the extra hub")
TINY = {"num_worlds": 4, "total_steps": 320, "episode_steps": 20, "hidden_size": 8, "validation_tasks": 0, "seed": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A policy that hardly trained."""
    made = metarl.train("rl2", "point-goal", output=tmp_path_factory.mktemp("hub") / "run", **TINY)
    metarl.evaluate(made, num_tasks=100)
    metarl.evaluate(made, num_tasks=3)
    return made


@pytest.fixture(scope="module")
def published(run):
    """What is published of it, film and all: its files."""
    with hub() as (address, repos), pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", address)
        patch.setenv("HF_TOKEN", "secret")
        assert metarl.push(run, "robots/point", say=print).startswith(address)
    return repos["robots/point"]


@pytest.fixture
def server(monkeypatch, tmp_path):
    """The stand-in, and a user that it knows; nothing is kept beyond the test."""
    with hub() as (address, repos):
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_TOKEN", "secret")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.chdir(tmp_path)
        yield repos


def test_what_is_published_is_no_code_and_says_what_was_measured(run, published):
    assert not [name for name in published if name.endswith((".pt", ".pkl", ".pth", ".bin", ".py"))]
    assert {"README.md", "policy.json", "adaptation.svg", "eval/test.json", "bundle/contract.json"} <= set(published)
    assert published["adaptation.webp"][:4] == b"RIFF"
    card = published["README.md"].decode()
    last = max(run.evaluations, key=lambda one: len(one.tasks)).summary.adaptation_curve[-1]
    assert f"| 2 | {last.value:.1f} [{last.low:.1f}, {last.high:.1f}] |" in card
    assert "on 100 held-out tasks" in card and "| goal | m |" in card and "library_name: metarl" in card
    assert str(run.path.parent) not in "".join(map(repr, published.values()))


def test_a_fetched_policy_is_the_same(server, run, published, capsys):
    server["robots/point"] = published
    assert main(["pull", "robots/point", "-o", "policy"]) == 0
    assert "rl2 on point-goal; next: metarl eval policy" in capsys.readouterr().out
    ours, theirs = (metarl.evaluate(one, num_tasks=2, episodes=1) for one in (run, "policy"))
    assert np.array_equal(ours.returns, theirs.returns)


def test_what_a_stranger_adds_is_left_where_it_is(server, published):
    odd = {"evil.py": b"open('ran', 'w')", "../outside.json": b"{}", "checkpoints/../../a.json": b"{}", "x.pkl": b"1"}
    server["robots/odd"] = published | odd
    run = metarl.pull("robots/odd", "got")
    found = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    assert found == set(published)
    assert not (run.path.parent / "outside.json").exists() and not (run.path.parent / "a.json").exists()


def test_what_is_wrong_is_one_sentence(server, run, published, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="'cheetah' is no name of a repository: it is USER/NAME"):
        metarl.pull("cheetah")
    with pytest.raises(UserError, match="robots/none cannot be fetched: "):
        metarl.pull("robots/none")
    server["robots/empty"] = {"README.md": b"nothing"}
    with pytest.raises(UserError, match="robots/empty holds no policy of metarl"):
        metarl.pull("robots/empty")
    server["robots/broken"] = published | {"policy.json": b'{"observation": 1}'}
    with pytest.raises(UserError, match="policy"):
        metarl.pull("robots/broken", "broken")
    assert not [path for path in tmp_path.iterdir() if "broken" in path.name], "what was begun is gone"
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match="taken exists already"):
        metarl.pull("robots/broken", "taken")
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(UserError, match="robots/mine cannot be published: "):
        metarl.push(run, "robots/mine", film=False)


def test_folders_of_this_machine_do_not_leave_it():
    assert without_folders('family = "/home/me/robots/my.py:My"') == 'family = "my.py:My"'
    assert without_folders('family = "../robots/my.py:My"') == 'family = "my.py:My"'
    assert without_folders('family = "ant-dir"') == 'family = "ant-dir"'
    command = portable({"command": "metarl train rl2 /home/me/my.py:My --output /home/me/runs/a"})["command"]
    assert command == "metarl train rl2 my.py:My --output runs/a"
    assert "home" not in json.dumps(command)
