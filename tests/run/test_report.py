"""What a report says: numbers by hand from small recorded runs, who is pooled with whom, and what users get wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from metarl.cli.main import main
from metarl.core.errors import UserError
from metarl.core.info import Part, PolicyInfo
from metarl.core.tasks import Choice, Disc, LogUniform, Parameter, TaskSpace, Uniform
from metarl.reports.axes import axes_of, trend
from metarl.reports.captions import interval, number, recovery_caption
from metarl.reports.charts import COLOURS, Palette, from_zero, parameter_figure
from metarl.reports.content import content_of
from metarl.reports.moment_charts import recovery_figure, surface_figure
from metarl.reports.page import page
from metarl.run.calibration import Calibration
from metarl.run.run import Run

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
REWARD = {"episode_steps": 2, "control_step": 0.1, "reward_by_step": {"seconds": [0.1] * 4, "reward": [0.0] * 4}}
ORIGIN = {
    "command": "metarl report",
    "started": "2026-01-02T03:04:05+0000",
    "versions": {"metarl-robotics": "0"},
    "machine": {"cpu": "test", "num_cpus": 2},
}
TASKS = [{"velocity": value} for value in (0.1, 0.4, 0.8, 1.2, 1.6, 2.0, 2.4, 2.8)]
FIRST = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 100.0]
LAST = [10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0]


def recorded(
    path, seed=1, returns=(FIRST, LAST), split="test", steps=300, family="half-cheetah-vel", tasks=TASKS, **options
):
    """A folder of recorded results: three blocks of a learning curve, and an evaluation."""
    (path / "eval").mkdir(parents=True, exist_ok=True)
    lines = {"agent": "rl2", "family": family, "seed": seed} | options
    (path / "config.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items()))
    rows = [f"{i},{100 * i},{6 * i},{seed * i},{10 * seed * i}" for i in (1, 2, 3)]
    names = "iteration,total_steps,time/elapsed,rollout/return_first,rollout/return_last"
    (path / "learning_curve.csv").write_text("\n".join([names, *rows]) + "\n")
    evaluate(path, returns, split, steps, tasks)
    return Run.open(path)


def evaluate(path, returns, split="test", steps=300, tasks=TASKS):
    content = {
        "split": split,
        "held_out": True,
        "deterministic": True,
        "seed": 0,
        "train_steps": steps,
        "tasks": tasks,
        "returns": np.transpose(returns).tolist(),
    }
    name = f"{split}-{len(tasks)}x{len(returns)}-deterministic-seed0-iteration{steps // 100}.json"
    (path / "eval" / name).write_text(json.dumps(content))


def family_of(*runs):
    (family,) = content_of(runs, ORIGIN)["families"]
    return family


def test_the_table_s_numbers_by_hand(tmp_path):
    (method,) = family_of(recorded(tmp_path / "one"))["methods"]
    (evaluation,) = method["evaluations"]
    assert [point["value"] for point in evaluation["iqm"]] == [3.5, 13.5]  # the middle four of eight
    assert evaluation["mean"] == [np.mean(FIRST), 13.5]
    assert evaluation["gain"]["value"] == 10.0  # of 10 seven times and -83: the middle four
    assert evaluation["gain"]["low"] <= 10.0 <= evaluation["gain"]["high"]
    assert evaluation["worst_decile"] == 10.0
    assert (method["steps"], method["minutes"], method["steps_per_second"]) == ([300], [0.3], 300 / 18)


def test_how_long_adaptation_took_is_shown_for_the_seeds_that_surely_gain(tmp_path):
    times = ({"episodes": 0.5, "steps": 100, "seconds": 5.0}, None, {"episodes": 0.42, "steps": 84, "seconds": 4.2})
    runs = [recorded(tmp_path / f"s{seed}", seed) for seed in (1, 2, 3)]
    for run, time in zip(runs, times, strict=True):
        (file,) = (run.path / "eval").iterdir()
        file.write_text(json.dumps(json.loads(file.read_text()) | {"time_to_adapt": time} | REWARD))
    content = content_of([Run.open(run.path) for run in runs], ORIGIN)
    (evaluation,) = content["families"][0]["methods"][0]["evaluations"]
    assert evaluation["time_to_adapt"] == list(times)
    assert "<td>4.2\N{NO-BREAK SPACE}s to 5\N{NO-BREAK SPACE}s<small>2 of 3</small></td>" in page(content, [])


def test_headroom_and_what_is_recovered_of_it_with_every_seed(tmp_path):
    """The oracle is 40 ahead of PPO on each task, RL² 30 and 34; of two memoryless agents the better one counts."""
    levels = {"ppo": (0.0, 0.0), "sac": (-9.0, -9.0), "ppo-oracle": (40.0, 40.0), "rl2": (30.0, 34.0)}
    runs = []
    for agent, seeds in levels.items():
        for seed, level in enumerate(seeds, start=1):
            path = tmp_path / f"{agent}-s{seed}"
            runs.append(recorded(path, seed, (FIRST, np.add(LAST, level)), agent=agent))
            (file,) = (path / "eval").iterdir()
            file.write_text(json.dumps(json.loads(file.read_text()) | {"agent": agent}))
    content = content_of([Run.open(run.path) for run in runs], ORIGIN)
    found = content["families"][0]["headroom"]
    assert (found["oracle"], found["memoryless"]) == ("ppo-oracle", "ppo")
    assert found["headroom"]["value"]["value"] == pytest.approx(40.0)
    assert list(found["recovered"]) == ["rl2"]
    assert found["recovered"]["rl2"]["by_seed"] == pytest.approx([0.75, 0.85])
    shown = page(content, [])
    assert "ppo-oracle has +40.0 [+40.0, +40.0] on ppo, the headroom of a task, 75 % [" in shown
    assert "rl2 recovers 80 % [75, 85] (75 %, 85 %)." in shown
    assert content_of(runs[:2], ORIGIN)["families"][0]["headroom"] is None


def test_controls_and_failed_tasks_are_reported(tmp_path):
    run = recorded(tmp_path / "one")
    (file,) = (run.path / "eval").iterdir()
    wiped = {
        "kind": "wipe",
        "seconds": 0.5,
        "once": False,
        "returns": np.transpose([FIRST, np.subtract(LAST, 8)]).tolist(),
    }
    on_nominal = wiped | {"kind": "nominal", "returns": np.transpose([FIRST, np.full(8, 20.0)]).tolist()}
    failed = {"diverged": [0, 0, 3, 0, 0, 0, 0, 0], "controls": [wiped, on_nominal]}
    file.write_text(json.dumps(json.loads(file.read_text()) | failed))
    shown = page(content_of([Run.open(run.path)], ORIGIN), [])
    assert "1 tasks failed, as their physics diverged: each counts as the worst of the others" in shown
    assert "rl2, test tasks, wipe every 0.5 s: " in shown and "which costs +" in shown
    assert "rl2, test tasks, nominal task: 20.0 [20.0, 20.0] in the last episode." in shown


def test_what_an_agent_gains_that_samples_first_is_explained(tmp_path):
    words = "maml-trpo has to sample before it adapts"
    runs = {agent: recorded(tmp_path / agent, agent=agent) for agent in ("rl2", "maml-trpo")}
    assert words not in page(content_of([runs["rl2"]], ORIGIN), [])
    assert words in page(content_of(list(runs.values()), ORIGIN), [])


def test_methods_of_a_family_differ_in_colour_though_there_are_more_methods_than_colours():
    families = [["a", "b", "c", "d"], ["e", "f", "g", "h"], ["i", "a", "h"], [f"m{n}" for n in range(COLOURS)]]
    palette = Palette(families)
    for labels in families:
        assert len({palette.colour(label) for label in labels}) == len(labels)
        assert len({palette.variable(label) for label in labels}) == len(labels)


def test_seeds_are_pooled_and_configurations_are_not(tmp_path):
    runs = [recorded(tmp_path / f"a-s{seed}", seed, (FIRST, np.add(LAST, seed))) for seed in (1, 2)]
    other = recorded(tmp_path / "fast", 1, (FIRST, np.add(LAST, 1.5)), total_steps=7)
    family = family_of(*runs, other)
    pooled, single = family["methods"]
    assert (pooled["label"], pooled["seeds"], single["label"]) == ("rl2 (a)", [1, 2], "rl2 (fast)")
    assert single["differs"] == {"total_steps": 7}
    assert pooled["evaluations"][0]["iqm"][1]["value"] == pytest.approx(15.0)  # 13.5 with 1 or 2 more
    (found,) = family["comparisons"]
    assert (found["better"], found["than"], found["probability"]) == (
        "rl2 (a)",
        "rl2 (fast)",
        0.5,
    )  # wins with one seed


def test_a_run_that_is_there_twice_counts_once(tmp_path):
    content = content_of([recorded(tmp_path / "one"), recorded(tmp_path / "again")], ORIGIN)
    assert content["families"][0]["methods"][0]["runs"] == ["one"]
    assert content["remarks"] == ["again has the configuration and seed of one: it is left out of all figures."]


def test_the_newest_evaluation_counts_and_the_one_that_seeds_share(tmp_path):
    for seed in (1, 2):
        recorded(tmp_path / f"s{seed}", seed, (np.subtract(LAST, 50), np.subtract(LAST, 50)), steps=200)
        evaluate(tmp_path / f"s{seed}", (FIRST, LAST))
    evaluate(tmp_path / "s1", (FIRST, LAST, np.add(LAST, 90)))  # more episodes, of one seed only
    (method,) = family_of(*(Run.open(tmp_path / f"s{seed}") for seed in (1, 2)))["methods"]
    (evaluation,) = method["evaluations"]
    assert (evaluation["seeds"], evaluation["episodes"]) == ([1, 2], 2)
    assert evaluation["iqm"][1]["value"] == 13.5


def test_learning_curves_are_means_where_all_seeds_have_data(tmp_path):
    runs = [recorded(tmp_path / f"s{seed}", seed) for seed in (1, 3)]
    (tmp_path / "s3" / "learning_curve.csv").write_text(
        "total_steps,time/elapsed,rollout/return_first,rollout/return_last\n100,6,3,30\n200,12,6,60\n"
    )
    (method,) = family_of(runs[0], Run.open(tmp_path / "s3"))["methods"]
    curve = method["learning"]["steps"]
    assert (curve["x"][0], curve["x"][-1]) == (100.0, 200.0)
    assert (curve["low"][-1], curve["last"][-1], curve["high"][-1]) == (20.0, 40.0, 60.0)
    assert curve["runs"]["s1"]["x"] == [100.0, 200.0, 300.0]
    assert method["learning"]["minutes"]["x"][-1] == 0.2


def test_a_long_log_is_thinned_to_its_means_and_keeps_its_end(tmp_path):
    recorded(tmp_path / "run")
    line = {
        "iteration": 1,
        "rollout/return_first": 0.0,
        "time/steps_per_second": 5.0,
        "time/collect": 2.0,
        "time/update": 3.0,
    }
    lines = [
        line | {"total_steps": i, "time/elapsed": 10.0 * i, "rollout/return_last": float(i), "time/line_search": 1.0}
        for i in range(1, 402)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"torn'
    (tmp_path / "run" / "metrics.jsonl").write_text(text)
    run = Run.open(tmp_path / "run")
    assert run.curve["last"].tolist()[:2] == [2.0, 5.0]  # blocks of three
    assert (len(run.curve["last"]), run.curve["last"][-1], run.curve["steps"][-1]) == (134, 400.5, 401)
    (method,) = family_of(run)["methods"]  # of 10 s: 2 collecting, 3 updating, of which 1 in the line search
    assert method["time"] == pytest.approx({"collect": 0.2, "update": 0.2, "line_search": 0.1, "else": 0.5})


def test_returns_stand_over_the_parameter_with_its_training_range(tmp_path):
    recorded(tmp_path / "run")
    beyond = [{"velocity": 3.0 + 0.1 * i} for i in range(8)]
    evaluate(tmp_path / "run", (FIRST, LAST), "ood", tasks=beyond)
    content = content_of([Run.open(tmp_path / "run")], ORIGIN)
    (parameter,) = content["families"][0]["parameters"]
    assert (parameter["label"], parameter["span"]) == ("velocity [m/s]", (0.0, 3.0))
    test, ood = parameter["returns"]
    assert (test["last"], test["x"][-1], ood["split"], min(ood["x"])) == (LAST, 2.8, "ood", 3.0)
    svg = parameter_figure(content["families"][0], parameter, Palette([content["labels"]]))
    assert "var(--band)" in svg and "velocity [m/s]" in svg and "#0a0b" not in svg


def test_a_small_gain_of_a_large_return_is_not_drawn_over_the_full_height():
    axes = Figure().add_subplot()
    axes.plot([1, 2], [1600.0, 1623.0])
    from_zero(axes)
    assert axes.get_ylim()[0] == 0.0 and 1623.0 < axes.get_ylim()[1] < 1800.0
    from_zero(axes, -80.0, -20.0)
    assert axes.get_ylim()[0] < -80.0 and axes.get_ylim()[1] == 0.0


def timed(tmp_path, **more):
    """A run with two episodes of two steps of 0.1 s, and rewards of each step."""
    run = recorded(tmp_path / "run")
    (file,) = (run.path / "eval").iterdir()
    reward = {"reward_by_step": {"seconds": [0.05, 0.15, 0.25, 0.35], "reward": [1.0, 2.0, 5.0, 6.0]}}
    known = REWARD | reward | {"time_to_adapt": None}
    file.write_text(json.dumps(json.loads(file.read_text()) | known | more))
    return run


def test_reward_in_the_first_seconds_of_the_first_and_the_last_episode(tmp_path):
    (line,) = family_of(timed(tmp_path))["rewards"]
    assert (line["label"], line["first"], line["last"], line["episodes"]) == ("rl2", [1.0, 2.0], [5.0, 6.0], 2)
    assert line["seconds"] == pytest.approx([0.025, 0.075])  # half-cheetah-vel has steps of 0.05 s


def test_reward_around_a_fault_and_when_it_is_recovered():
    runs = [Run.open(RESULTS / "compare" / f"quadruped-signs-{agent}-s1") for agent in ("ppo", "ppo-oracle", "rl2")]
    family = family_of(*runs)
    lines = {line["label"]: line for line in family["recoveries"]}
    assert lines["ppo"]["seconds"][:2] == pytest.approx([-1.0, -0.98]) and lines["ppo"]["onsets"] == 152
    assert lines["ppo"]["to_recover"] is None and 0.0 < lines["rl2"]["to_recover"] < 0.5
    assert "ppo: not recovered (152 faults)" in recovery_caption(family["recoveries"])
    assert "around a fault" in recovery_figure(family, Palette([list(lines)]))


def test_what_it_believes_of_its_task_over_time(tmp_path):
    run = timed(tmp_path)
    assert family_of(run)["errors"] == []
    error = np.array([[1.0, 0.6], [0.3, 0.4]])
    known = Calibration(("mass", "friction"), (0.0, 1.0), np.full((2, 2), 0.9), error)
    (run.path / "beliefs.json").write_text(json.dumps(known.to_json()))
    (line,) = family_of(run)["errors"]
    assert line["error"] == pytest.approx([np.sqrt((1 + 0.36) / 2), np.sqrt((0.09 + 0.16) / 2)])
    assert line["by_name"] == {"mass": [1.0, 0.3], "friction": [0.6, 0.4]}
    assert "0.35 at last" in page(content_of([run], ORIGIN), [])
    for damaged in ({"names": ["mass"]}, {"seconds": [0.0]}, {"error": [[1.0, None], [0.3, 0.4]]}):
        (run.path / "beliefs.json").write_text(json.dumps({**known.to_json(), **damaged}))
        with pytest.raises(UserError, match=r"beliefs\.json"):
            family_of(run)


def test_a_map_over_the_two_parameters_that_matter_most(tmp_path):
    tasks = [{"a": float(i % 7), "same": 0.5, "b": float(i // 7)} for i in range(49)]
    last = [10.0 * task["a"] + task["b"] for task in tasks]
    run = recorded(tmp_path / "run", family="/gone/robot.py:Robot", tasks=tasks, returns=([0.0] * 49, last))
    (family,) = content_of([run], ORIGIN)["families"]
    found = family["surface"]
    assert [axis["name"] for axis in found["axes"]] == ["a", "b"]
    (cells,) = [one["returns"] for one in found["maps"]]
    assert (cells[0][0], cells[3][0], cells[0][2], len(cells)) == (0.0, 30.0, 2.0, 6)
    assert cells[5][5] == pytest.approx(60.5), "the mean of 5 and 6 in both"
    assert "return of rl2 on" in surface_figure(family, 0)
    assert family_of(recorded(tmp_path / "one"))["surface"] is None, "one parameter"


def test_what_stands_for_a_vector_and_for_a_choice():
    space = TaskSpace(
        {
            "goal": Parameter(Disc(3.0), unit="m"),
            "mass": Parameter(LogUniform(0.5, 2.0, 4), unit="1"),
            "joint": Parameter(Choice((-1.0, 1.0)), ood=Choice((0.0,)), unit="index", labels=("hip", "knee")),
            "speed": Parameter(Uniform(0.0, 1.0), unit="m/s"),
        }
    )
    task = {"goal": [3.0, 4.0], "mass": [0.5, 2.0, 2.0, 2.0], "joint": 1.0, "speed": 0.5}
    goal, mass, joint, speed = axes_of(space.parameters, [task])
    assert (goal.label, goal.value(task["goal"])) == ("goal: distance from 0 [m]", 5.0)
    assert goal.span == pytest.approx((0.0, 3.0), abs=0.1)
    assert (mass.label, mass.value(task["mass"])) == ("mass: geometric mean of 4 [ratio]", pytest.approx(2**0.5))
    assert joint.categories == ((-1.0, "none", True), (0.0, "hip", False), (1.0, "knee", True))
    assert (speed.span, speed.categories) == ((0.0, 1.0), ())
    bins = trend(joint, np.array([1.0, -1.0, 1.0]), np.zeros(3), np.array([4.0, 9.0, 6.0]))
    assert bins == [
        {"x": -1.0, "first": 0.0, "last": 9.0, "tasks": 1},
        {"x": 1.0, "first": 0.0, "last": 5.0, "tasks": 2},
    ]
    bins = trend(speed, np.arange(10.0)[::-1], np.zeros(10), np.arange(10.0))
    assert [(bin["x"], bin["last"]) for bin in bins] == [(2.0, 7.0), (7.0, 2.0)]


def test_a_family_that_is_gone_is_reported_without_its_ranges(tmp_path):
    content = content_of([recorded(tmp_path / "run", family="/gone/robot.py:Robot")], ORIGIN)
    assert "training ranges are not known" in content["remarks"][0]
    assert content["families"][0]["parameters"][0]["span"] is None
    assert "robot.py:Robot" in page(content, [])


def test_a_dollar_in_a_name_is_no_formula(tmp_path):
    tasks = [{"a$b_$": float(i)} for i in range(8)]
    content = content_of([recorded(tmp_path / "run", family="/gone/robot.py:Robot", tasks=tasks)], ORIGIN)
    assert "a$b_$" in parameter_figure(
        content["families"][0], content["families"][0]["parameters"][0], Palette([content["labels"]])
    )


def test_an_evaluation_beside_the_page_is_not_overwritten(tmp_path, capsys):
    recorded(tmp_path / "run")
    (tmp_path / "vel.json").write_text("mine")
    assert main(["report", str(tmp_path / "run"), "--output", str(tmp_path / "vel.html")]) == 0
    assert (tmp_path / "vel.json").read_text() == "mine"
    assert json.loads((tmp_path / "vel-report.json").read_text())["families"]
    assert f"wrote {tmp_path}/vel.html and {tmp_path}/vel-report.json" in capsys.readouterr().out


def test_what_a_run_says_of_sampling_first_counts_before_its_agent(tmp_path):
    recorded(tmp_path / "maml", agent="maml-trpo")
    recorded(tmp_path / "rl2", agent="rl2")
    assert Run.open(tmp_path / "maml").samples_first and not Run.open(tmp_path / "rl2").samples_first
    info = PolicyInfo((Part("observation", 1, "1"),), ("motor",), 0.1, 2, 2, samples_first=True)
    (tmp_path / "rl2" / "policy.json").write_text(json.dumps(info.to_json()))
    assert Run.open(tmp_path / "rl2").samples_first


def test_names_are_escaped(tmp_path):
    bad = "<script>alert(1)</script>"
    recorded(tmp_path / "run", family=f"/gone/{bad}.py:Robot")
    text = page(content_of([Run.open(tmp_path / "run")], ORIGIN), [("run", bad, tmp_path / "run" / "config.toml")])
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 3


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in RESULTS.glob("*/run.json")), ids=lambda path: path.name
)
def test_recorded_results_can_be_reported(folder):
    run = Run.open(folder)
    assert run.curve and run.train_seconds > 0
    for evaluation in run.evaluations:
        content = json.loads((folder / "eval" / evaluation.file).read_text())
        means = [point["mean"] for point in content["adaptation_curve"]]
        assert evaluation.returns.mean(axis=0) == pytest.approx(means)


@pytest.mark.parametrize(
    ("value", "words"), [(1234.5, "1,234"), (-21.37, "−21.4"), (0.5, "0.50"), (-0.001, "0.00"), (0, "0.00")]
)
def test_numbers_as_people_read_them(value, words):
    assert number(value) == words


def test_an_interval_has_one_number_of_digits():
    assert interval({"value": 1.234, "low": -12.34, "high": 99.0}, signed=True) == ("+1.2", "[−12.3, +99.0]")


def test_mistakes_are_explained(tmp_path, capsys):
    recorded(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    for words, expected in [
        (["nowhere"], "nowhere is not a run folder: there is no such folder"),
        ([str(tmp_path / "empty")], "it has no config.toml"),
        ([str(tmp_path / "run"), "--output", "x.pdf"], "'x.pdf' does not end in .html"),
        ([str(tmp_path / "run"), "--output", str(tmp_path / "run" / "eval" / "no" / "x.html")], ""),
        ([], "report needs at least one run folder"),
        (["pretrained:half-cheetah-dir-rl3"], "did you mean 'half-cheetah-dir-rl2'"),
    ]:
        assert main(["report", *words]) == (2 if expected else 0)
        assert expected in capsys.readouterr().err
    (tmp_path / "run" / "eval" / "bad.json").write_text('{"returns": []}')
    assert main(["report", str(tmp_path / "run")]) == 2
    assert "bad.json is no evaluation" in capsys.readouterr().err


def test_there_must_be_something_to_report(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text('agent = "rl2"\nfamily = "half-cheetah-vel"\n')
    with pytest.raises(UserError, match="no iteration and no evaluation yet"):
        content_of([Run.open(tmp_path / "run")], ORIGIN)


def test_a_run_without_evaluation_shows_its_learning_curve(tmp_path, capsys):
    recorded(tmp_path / "run")
    (tmp_path / "run" / "eval" / "test-8x2-deterministic-seed0-iteration3.json").unlink()
    assert main(["report", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.endswith(f"wrote {tmp_path}/run/report.html and {tmp_path}/run/report.json\n")
    text = (tmp_path / "run" / "report.html").read_text()
    assert 'id="learning"' in text and 'id="adaptation"' not in text
    assert "has no evaluation" in text
