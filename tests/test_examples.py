"""The examples run: small trainings of a few steps, or policies that are trained already."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import metarl
from metarl.check.learner import check_learner

HERE = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(HERE.glob("*.py"))


def example(name):
    """The module of an example, run as a file of the user's would be."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_how_to_run_it(path):
    text = path.read_text()
    assert len([line for line in text.splitlines() if line.strip()]) < 80
    runs_elsewhere = path.stem.endswith("_env")
    assert f"examples/{path.name}" in text.split('"""')[1] or runs_elsewhere


def test_training_loading_and_adapting_by_hand(tmp_path):
    earned = example("train_and_load").main(tmp_path / "run", total_steps=2 * 200 * 4, num_worlds=4)
    assert isinstance(earned, float)


@pytest.mark.slow
def test_an_environment_of_ones_own(tmp_path):
    returns = example("own_gymnasium").main(tmp_path / "run", total_steps=2 * 100 * 2, num_worlds=2)
    assert len(returns) == 2 and max(returns) < 0.0


def test_a_learner_of_ones_own_is_sound_and_learns_by_its_gradient(tmp_path):
    name = f"{HERE / 'own_learner.py'}:Reinforce"
    assert [what for what, right, _ in check_learner(name) if not right] == []
    run = metarl.train(
        name, "point-goal", output=tmp_path / "run", num_worlds=4, total_steps=800, episode_steps=20, validation_tasks=0
    )
    assert len(run.metrics) > 1


@pytest.mark.slow
def test_a_search(tmp_path):
    run = example("search").main(tmp_path / "study", trials=2, steps=4000, num_tasks=2)
    assert run.config().total_steps == 4000


@pytest.mark.slow
def test_two_policies_compared(capsys):
    assert 0.0 <= example("compare_runs").main(num_tasks=2) <= 1.0
    assert "is better on a task" in capsys.readouterr().out


def test_the_loop_of_a_robot(capsys):
    assert example("deploy_loop").main(seconds=0.2) == pytest.approx(0.2 * 50 * 2, abs=20)
    assert "steps came late" in capsys.readouterr().out


def test_meta_worlds_protocol_counts_each_task_by_itself(monkeypatch, capsys):
    """Ten episodes do not count; kinds weigh alike, however many tasks of them there are."""
    success = np.zeros((3, 13), bool)
    success[:, :10] = True  # while adapting
    success[1, 10:] = success[2, 11] = True
    tasks = metarl.Tasks({"kind": torch.tensor([10.0, 11.0, 11.0]), "variation": torch.tensor([0.0, 0.0, 1.0])})
    asked = {}
    monkeypatch.setattr(
        metarl, "evaluate", lambda run, **words: asked.update(words) or SimpleNamespace(success=success, tasks=tasks)
    )
    assert example("metaworld_protocol").main("run", num_tasks=3) == {10: 0.0, 11: pytest.approx(2 / 3)}
    assert asked["split"] == "ood" and asked["episodes"] == 13
    assert "mean over kinds: 33.3%" in capsys.readouterr().out


@pytest.mark.skipif(
    not (HERE / ".fetch").exists(), reason="gymnasium-robotics in examples/.fetch: see plug_in_fetch.py"
)
def test_the_fetch_arm_in_its_own_python():
    record = metarl.evaluate(f"{HERE / 'plug_in_fetch.py'}:Reach", agent="random", num_tasks=4, episodes=1)
    assert record.success is not None and (record.returns < 0.0).all()


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((HERE / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    """Its cells, as one script."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    cells = json.loads(path.read_text())["cells"]
    script = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    names = {"__name__": "__main__"}
    exec(compile(script, str(path), "exec"), names)
    assert names["done"]
