"""The tables of README and of three pages of docs/ are what the recorded evaluations say."""

import json
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
CURVE = "iteration,total_steps,time/elapsed,rollout/return_first,rollout/return_last\n"
TASKS = {"held_out": True, "tasks": [{"direction": 1.0}, {"direction": -1.0}]}


@pytest.fixture
def summary(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    import summary

    return summary


@pytest.fixture
def comparison(summary):
    import comparison

    return comparison


@pytest.fixture
def page(summary):
    return summary.result_tables


def test_the_pages_are_up_to_date(summary):
    """`make results` would change nothing."""
    for name, content in summary.pages().items():
        section = (ROOT / name).read_text().split(summary.BEGIN)[1].split(summary.END)[0]
        assert section.strip() == content.strip(), name


def test_a_row_has_the_means_over_all_tasks_of_all_seeds(comparison, page, tmp_path):
    returns = {1: [[100.0, 300.0], [200.0, 400.0]], 2: [[300.0, 500.0], [400.0, 600.0]]}
    for seed, values in returns.items():
        folder = tmp_path / f"run-s{seed}"
        (folder / "eval").mkdir(parents=True)
        (folder / "config.toml").write_text('agent = "rl2"\nfamily = "ant-dir"\nepisode_steps = 50\n')
        content = {"split": "test", "deterministic": True, "returns": values, "train_steps": seed * 1e6} | TASKS
        (folder / "eval" / "new.json").write_text(json.dumps(content | {"train_seconds": 60.0}))
        short = content | {"returns": np.zeros((2, 2)).tolist(), "train_steps": 10, "train_seconds": 1.0}
        (folder / "eval" / "old.json").write_text(json.dumps(short))
        (folder / "run.json").write_text("{}")
    runs = comparison.recorded(tmp_path)
    assert {run.panel for run in runs} == {"ant-dir, 50 steps"}
    cells = [cell.strip() for cell in page.row("rl2", runs).split("|")]
    _, label, training, first, last, gain, recovered, ood, _ = cells
    assert (label, training) == ("rl2", "1.5 M steps, 1 min, 2 seeds")
    assert first == "250 [100, 400]", "the interval is over seeds and tasks"
    assert last == "450 [300, 600] (350, 550)", "every seed is shown"
    assert gain == "+200 [+200, +200]"
    assert (recovered, ood) == ("", "")


def test_the_comparison_has_what_is_told_the_task_last_and_samples_of_those_that_sample_first(comparison, tmp_path):
    for agent in ("rl2", "ppo-oracle", "maml-trpo", "mine", "ppo"):
        folder = tmp_path / "compare" / f"ant-dir-{agent}-s1"
        (folder / "eval").mkdir(parents=True)
        (folder / "config.toml").write_text(f'agent = "{agent}"\nfamily = "ant-dir"\n')
        for deterministic in (True, False):
            content = {"split": "test", "deterministic": deterministic, "returns": [[1.0, 2.0]], "train_steps": 1}
            content |= {"held_out": True, "tasks": [{"direction": 1.0}], "agent": agent}
            (folder / "eval" / f"{deterministic}.json").write_text(json.dumps(content))
        (folder / "run.json").write_text("{}")
    agents = comparison.compared(tmp_path)["ant-dir"]
    assert list(agents) == ["ppo", "maml-trpo", "mine", "rl2", "ppo-oracle"]
    assert comparison.paired(agents["rl2"][0]).deterministic
    assert not comparison.paired(agents["maml-trpo"][0]).deterministic


def test_a_table_says_what_the_headroom_is_and_who_recovers_it(summary, comparison, page, tmp_path, monkeypatch):
    for agent, level in (("ppo", 100.0), ("ppo-oracle", 200.0), ("rl2", 190.0)):
        for seed in (1, 2):
            folder = tmp_path / "compare" / f"ant-dir-{agent}-s{seed}"
            (folder / "eval").mkdir(parents=True)
            (folder / "config.toml").write_text(f'agent = "{agent}"\nfamily = "ant-dir"\n')
            content = TASKS | {"split": "test", "deterministic": True, "agent": agent, "train_steps": 1}
            content |= {"returns": [[level + seed], [level + 50.0 + seed]], "held_out": False}
            (folder / "eval" / "test.json").write_text(json.dumps(content))
            (folder / "learning_curve.csv").write_text(CURVE + "".join(f"{i},{i},{i},0,{i}\n" for i in range(1, 201)))
            (folder / "run.json").write_text("{}")
    monkeypatch.setattr(comparison, "RESULTS", tmp_path)
    runs = comparison.compared(tmp_path)
    monkeypatch.setattr(comparison, "compared", lambda folder: runs)
    families = comparison.places()
    title, table = list(page.tables(families, {}, {folder: {} for folder in page.OPTIONS}))[2:4]
    assert title == (
        "**ant-dir**. Headroom (ppo-oracle − ppo): +100 [+99, +101], 44 % [40, 50] of the oracle's return. "
        "Its test tasks are those of training."
    )
    rows = {line.split("|")[1].strip(): line.split("|")[6].strip() for line in table.splitlines()[2:]}
    assert rows == {"ppo": "", "rl2": "90 % [89, 91]", "ppo-oracle": ""}
    line = "| ant-dir | 126 | 216 (rl2) | 226 | 44 % [40, 50] | 90 % [89, 91] | 1e-06 M | 2 |"
    assert summary.overview(families, {}).splitlines()[2:] == [line]
    assert page.by_option({"ant-dir": {"rl2": runs["ant-dir"]["rl2"]}, "ant-goal": {}}).splitlines()[2:] == [
        "| rl2 | 216 [191, 242] (216, 217) |  |"
    ]
    longer = summary.overview({}, families).splitlines()[2]
    assert longer == line.replace("ant-dir", "ant-dir, 0 M steps"), "of a GPU, named by its budget"
    monkeypatch.setattr(comparison, "TASK_MATTERS", 0.6)
    assert summary.overview(families, {}).splitlines()[2:] == [
        "",
        "A smaller share, or none, was measured on ant-dir (44 %).",
    ]
    worth = summary.worth_adapting(families).splitlines()
    assert "| ant-dir | 44 % [40, 50] | 126 | 226 | 1e-06 M steps, 2 seeds, rising still |" in worth
    assert "| ant-goal | not measured |  |  |  |" in worth
    monkeypatch.setattr(summary, "RISE", 0.25)
    assert "2 seeds |" in summary.worth_adapting(families), "a fifth of the way in the last fifth"


def test_controls_say_what_they_cost_and_how_far_a_policy_is_ahead(comparison, summary, tmp_path, monkeypatch):
    """RL²'s two seeds lose 50 and 70 by a wipe, and are 80 and 100 ahead of PPO here, 10 on the nominal task."""
    for agent, seed, level, wiped, nominal in (
        ("ppo", 1, 100.0, 100.0, 100.0), ("rl2", 1, 180.0, 130.0, 110.0), ("rl2", 2, 200.0, 130.0, 110.0)
    ):  # fmt: skip
        folder = tmp_path / "compare" / f"ant-dir-{agent}-s{seed}"
        (folder / "eval").mkdir(parents=True)
        (folder / "config.toml").write_text(f'agent = "{agent}"\nfamily = "ant-dir"\nseed = {seed}\n')
        kinds = {"wipe": wiped, "nominal": nominal}
        played = [
            {"kind": kind, "seconds": 0.5, "once": False, "returns": [[value], [value]]}
            for kind, value in kinds.items()
        ]
        content = TASKS | {"split": "test", "deterministic": True, "agent": agent, "train_steps": 1, "controls": played}
        content |= {"returns": [[level], [level]], "adapts": agent == "rl2", "task_visible": False}
        (folder / "eval" / "test.json").write_text(json.dumps(content))
        (folder / "run.json").write_text("{}")
    runs = comparison.compared(tmp_path)
    monkeypatch.setattr(comparison, "compared", lambda folder: runs)
    row = "| ant-dir | rl2 | 190 | +60 [+50, +70] |  | +90 [+80, +100] | +10.0 [+10.0, +10.0] | 2 |"
    assert summary.result_tables.interference.table(comparison.places()).splitlines()[2:] == [row]


def test_the_evidence_has_the_best_learner_and_its_seeds_times_to_recover(summary, comparison, tmp_path, monkeypatch):
    """The oracle comes to 1 after the fault; one seed of RL² is back at 0.9 after 30 steps, the other never."""
    for agent, seed, level, later in (
        ("ppo", 1, 100.0, 0.2), ("ppo-oracle", 1, 200.0, 1.0), ("pearl", 1, 120.0, 1.0),
        ("rl2", 1, 180.0, 0.95), ("rl2", 2, 190.0, 0.5),
    ):  # fmt: skip
        folder = tmp_path / "compare" / f"ant-dir-{agent}-s{seed}"
        (folder / "eval").mkdir(parents=True)
        (folder / "config.toml").write_text(f'agent = "{agent}"\nfamily = "ant-dir"\nseed = {seed}\n')
        reward = [1.0] * 10 + [0.0] * 30 + [later] * 60
        content = TASKS | {"split": "test", "deterministic": True, "agent": agent, "train_steps": 1}
        content |= {
            "returns": [[level], [level]],
            "adapts": agent in ("rl2", "pearl"),
            "task_visible": "oracle" in agent,
        }
        content["recovery"] = {"onset": 10, "reward": reward, "control_step": 0.1, "num_onsets": 4}
        (folder / "eval" / "test.json").write_text(json.dumps(content))
        (folder / "run.json").write_text("{}")
    monkeypatch.setattr(comparison, "RESULTS", tmp_path)
    runs = comparison.compared(tmp_path)
    monkeypatch.setattr(comparison, "compared", lambda folder: runs)
    row = "| ant-dir | rl2 | 85 % |  |  |  |  | 3.00 s, not reached |  | 2 |"
    assert summary.evidence.table(comparison.places()).splitlines()[2:] == [row]


def test_how_soon_one_rl2_is_where_another_ends(comparison, page, tmp_path):
    """One rises twice as fast as the baseline, on the way to twice its return; one never rises."""
    for agent, slope in (("rl2", 1.0), ("rl2-64", 2.0), ("rl2-cut", 0.0)):
        folder = tmp_path / "compare" / f"ant-dir-{agent}-s1"
        folder.mkdir(parents=True)
        (folder / "config.toml").write_text('agent = "rl2"\nfamily = "ant-dir"\nseed = 1\n')
        rows = [f"{i},{1000 * i},{i},0,{slope * i:.6g}" for i in range(1, 201)]
        (folder / "learning_curve.csv").write_text(CURVE + "\n".join(rows) + "\n")
        (folder / "run.json").write_text("{}")
    head, _, row = page.learning_speed.table(comparison.compared(tmp_path)).splitlines()
    assert head == "| family | rl2 | rl2-64 | rl2-cut |"
    assert row == "| ant-dir | 0.2 M steps | 0.51 | not reached |"


def test_what_policies_believe_a_second_after_and_at_the_end(comparison, page, tmp_path):
    """Of two seeds; one whose beliefs nobody measured is not shown, nor what is told the task."""
    seconds, coverage, error = (
        [0.0, 0.9, 1.5, 4.0],
        [[1.0, 0.5], [0.8, 0.9], [0.0, 0.0], [0.9, 0.7]],
        [1.0, 0.5, 9.0, 0.1],
    )
    content = {"names": ["x", "y"], "seconds": seconds, "coverage": coverage, "error": [[each, each] for each in error]}
    for agent, seed in (("rl2", 1), ("rl2", 2), ("rl2-cut", 1), ("rl2-oracle", 1)):
        folder = tmp_path / "compare" / f"ant-dir-{agent}-s{seed}"
        folder.mkdir(parents=True)
        told = "task_visible = true\n" if agent == "rl2-oracle" else ""
        (folder / "config.toml").write_text(f'agent = "rl2"\nfamily = "ant-dir"\nseed = {seed}\n{told}')
        (folder / "run.json").write_text("{}")
        if agent != "rl2-cut":
            (folder / "beliefs.json").write_text(json.dumps(content))
    rows = page.believing.table(comparison.compared(tmp_path)).splitlines()[2:]
    assert rows == ["| ant-dir | rl2 | 0.50 | 85 % | 4 s | 0.10 | 80 % | 2 |"]
    second = tmp_path / "compare" / "ant-dir-rl2-s2"
    with (second / "config.toml").open("a") as file:
        file.write("[learner]\nestimator_size = 8\n")
    (second / "beliefs.json").write_text(json.dumps(content | {"error": [[0.2, 0.2]] * 4}))
    rows = page.believing.table(comparison.compared(tmp_path)).splitlines()[2:]
    assert rows == ["| ant-dir | rl2 | 0.20 | 85 % | 4 s | 0.20 | 80 % | 1 |"], "of those with an estimator alone"


def test_every_policy_that_comes_along_has_its_export_recorded(summary):
    from metarl.run.pretrained import pretrained_names

    assert [path.stem for path in sorted(summary.exports.EXPORTS.glob("*.json"))] == pretrained_names()
