"""`metarl headroom`, and evaluations beside its runs: what is trained, used again, refused, and printed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import metarl
from metarl.cli.main import main
from metarl.core.errors import UserError
from metarl.core.registry import make_family
from metarl.core.tasks import save_tasks
from metarl.run import checkpoint
from metarl.run.headroom import Headroom
from metarl.run.records import EvaluationRecord
from metarl.run.statistics import Interval
from metarl.run.tables import LEADS, control_table, leads
from metarl.run.yardsticks import Budget, FamilyHeadroom

SHORT = f"{Path(__file__).parents[1]}/short_family.py:ShortDir"
SMALL = 'agent = "ppo"\nfamily = "half-cheetah-dir"\nnum_worlds = 4\nvalidation_tasks = 0\n[learner]\nhidden_size = 8\n'


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Folder of a measurement of seconds, with two seeds, and the settings it was made with."""
    folder = tmp_path_factory.mktemp("headroom")
    (folder / "small.toml").write_text(SMALL)
    options = {"config": folder / "small.toml", "output": folder / "runs", "num_tasks": 4, "total_steps": 120}
    found = metarl.headroom(SHORT, seeds=(1, 2), **options)
    options["rl2"] = metarl.train(
        "rl2", SHORT, output=folder / "rl2", num_worlds=4, total_steps=160, hidden_size=8
    ).path
    return found, options


def test_both_are_trained_with_the_same_budget_and_the_file_says_what_was_found(measured):
    found, options = measured
    assert list(found.runs) == ["memoryless-s1", "oracle-s1", "memoryless-s2", "oracle-s2"]
    roles = {name: metarl.Run.open(path).evaluations[0] for name, path in found.runs.items()}
    assert {name: record.role for name, record in roles.items()} == {name: name.split("-")[0] for name in found.runs}
    assert {record.train_steps for record in roles.values()} == {120}
    assert set(found.gradient_steps.values()) == {3 * 5}, "three iterations of five epochs, a minibatch each"
    assert found.headroom.memoryless[0] == pytest.approx(roles["memoryless-s1"].returns[:, -1].mean())
    content = json.loads((options["output"] / "headroom.json").read_text())
    assert Headroom.from_json(content["headroom"]) == found.headroom and content["doubts"] == found.doubts


def test_what_is_there_is_used_and_trained_further_and_other_settings_are_refused(measured, tmp_path):
    found, options = measured
    given = {name: options[name] for name in ("config", "output", "num_tasks")}
    before = {path: (path / "run.json").read_bytes() for path in found.runs.values()}
    again = metarl.headroom(SHORT, seeds=(2,), total_steps=120, **given)
    assert again.headroom.oracle == found.headroom.oracle[1:]
    assert all((path / "run.json").read_bytes() == text for path, text in before.items())
    path, space = tmp_path / "mine.json", make_family(SHORT).space
    save_tasks(path, SHORT, space.fixed("test", 3))
    mine = metarl.headroom(SHORT, seeds=(2,), total_steps=120, **given, tasks=path)
    assert mine.num_tasks == 3
    assert "list-mine" in {record.split for record in metarl.Run.open(mine.runs["oracle-s2"]).evaluations}
    with pytest.raises(UserError, match=r"has trained for 120 already"):
        metarl.headroom(SHORT, seeds=(1,), total_steps=80, **given)
    longer = metarl.headroom(SHORT, seeds=(2,), total_steps=160, **given)
    assert metarl.Run.open(longer.runs["oracle-s2"]).manifest().total_steps == 160
    with pytest.raises(UserError, match=r"memoryless-s1 is of other settings: its num_worlds is 4, not 32"):
        metarl.headroom(SHORT, seeds=(1,), total_steps=120, output=given["output"])
    with pytest.raises(UserError, match=r"^rl2 adapts: headroom is that of a learner that does not"):
        metarl.headroom(SHORT, agent="rl2", seeds=(1,), total_steps=40, output=tmp_path / "rl2", num_tasks=2)
    with pytest.raises(UserError, match=r"seeds must name at least one, each once"):
        Budget(seeds=(1, 1))


@pytest.mark.parametrize(
    ("value", "rising", "gained", "seeds", "doubts"),
    [
        ((100.0, 90.0, 110.0), 0.01, 300.0, (1, 2), []),
        (
            (100.0, 90.0, 110.0),
            0.12,
            300.0,
            (1, 2),
            ["oracle-s1 made 12 % of its rise in its last fifth; try --total-steps 2_000_000"],
        ),
        ((100.0, 40.0, 160.0), 0.0, 300.0, (1, 2), ["the interval is too wide to tell: [40, 160]"]),
        ((1.0, -2.0, 4.0), 0.0, 19.0, (1, 2), []),  # surely next to nothing, beside an oracle's return of 200
        ((30.0, -80.0, 140.0), 0.0, 300.0, (1, 2), ["the interval is too wide to tell"]),
        ((100.0, 99.0, 101.0), 0.0, 300.0, (1,), ["one seed says nothing of the spread of seeds"]),
        ((9.0, 8.9, 9.1), 0.0, 190.0, (1, 2), ["worth 9 of the 190 that the oracle gained in training"]),
    ],
)
def test_a_budget_too_small_to_tell_is_called_that(value, rising, gained, seeds, doubts):
    room = Headroom((100.0,), (200.0,), Interval(*value), Interval(0.5, 0.4, 0.6))
    budget, curves = Budget(total_steps=10**6, seeds=seeds), ({"oracle-s1": rising}, {"oracle-s1": gained})
    found = FamilyHeadroom("f", budget, room, {}, *curves, {"oracle-s1": 3}, 100).doubts
    assert len(found) == len(doubts) and all(part in text for part, text in zip(doubts, found, strict=True))


def test_eval_says_what_is_recovered_and_what_the_controls_cost(measured, capsys, tmp_path):
    found, options = measured
    low, high = ([str(found.runs[f"{role}-s{seed}"]) for seed in (1, 2)] for role in ("memoryless", "oracle"))
    words = ["eval", str(options["rl2"]), "--num-tasks", "4", "--memoryless", *low, "--oracle", *high]
    assert main([*words, "--controls", "--control-seconds", "0.1", "--json", str(tmp_path / "out.json")]) == 0
    printed = capsys.readouterr().out
    assert "\nrecovered: " in printed and "headroom (oracle − memoryless): " in printed and "by seed: " in printed
    for line in ("plain", "wipe every 0.1 s", "swap every 0.1 s", "nominal task"):
        assert f" {line} │" in printed
    assert "ahead of the memoryless policy on the nominal task" in printed
    record = EvaluationRecord.read(tmp_path / "out.json")
    assert record.standing.memoryless == tuple(low) and len(record.standing.headroom.oracle) == 2
    assert [one.kind for one in record.controls] == ["wipe", "swap", "nominal"]
    assert json.loads(json.dumps(record.to_json())) == json.loads((tmp_path / "out.json").read_text())
    assert record.gradient_steps > 0


def test_a_yardstick_of_the_wrong_kind_is_refused(measured, capsys):
    found, options = measured
    rl2, low, high = str(options["rl2"]), str(found.runs["memoryless-s1"]), str(found.runs["oracle-s1"])
    for given, sentence in (
        (
            ["--memoryless", high, "--oracle", high],
            f"--memoryless {high}: this policy is shown the task; name one that d",
        ),
        (
            ["--memoryless", low, "--oracle", rl2],
            f"--oracle {rl2}: this policy adapts within a trial; name one that is",
        ),
        (["--oracle", high], "--oracle needs --memoryless beside it"),
    ):
        assert main(["eval", rl2, *given]) == 2
        assert sentence in capsys.readouterr().err
    assert main(["eval", low, "--control", "wipe"]) == 2
    assert "nothing to wipe" in capsys.readouterr().err


def test_an_unknown_family_is_refused_before_anything_is_said_or_made(capsys, tmp_path):
    assert main(["headroom", "point-gaol", "--output", str(tmp_path / "room")]) == 2
    said = capsys.readouterr()
    assert "unknown family 'point-gaol' (did you mean 'point-goal'?)" in said.err
    assert not said.out and not (tmp_path / "room").exists()


def test_any_learner_can_be_the_oracle(tmp_path):
    run = metarl.train(
        "rl2", SHORT, output=tmp_path / "run", task_visible=True, num_worlds=4, total_steps=80, hidden_size=8
    )
    assert run.info.observation[-1].name == "task" and "--task-visible" in run.provenance()["command"]
    assert metarl.evaluate(run, num_tasks=2).role == "oracle"


def test_a_policy_of_nan_is_refused_by_all_that_would_play_it(measured, capsys, tmp_path):
    """Its checkpoint cannot be written by a training: it is made here."""
    sound = str(measured[0].runs["memoryless-s1"])
    run = metarl.train("ppo", SHORT, output=tmp_path / "nan", num_worlds=4, total_steps=40, validation_tasks=0)
    path = checkpoint.existing(run.checkpoints)[-1]
    state, manifest = checkpoint.load(path)
    state["policy/network.log_std"] = torch.full_like(state["policy/network.log_std"], np.nan)
    for old in checkpoint.existing(run.checkpoints):
        for file in sorted(old.rglob("*"), reverse=True):
            file.unlink()
        old.rmdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "_not_finite", lambda state: "")
        values = {"iteration": manifest.iteration, "total_steps": manifest.total_steps, "elapsed": 1.0}
        checkpoint.save(run.checkpoints, state, **values)
    words = "hold NaN or infinite numbers"
    with pytest.raises(UserError, match=words):
        metarl.load(run)
    for command in (["eval", run.path], ["eval", sound, "--against", run.path], ["video", run.path]):
        assert main([*map(str, command), "--num-tasks", "2"] if command[0] == "eval" else list(map(str, command))) == 2
        assert words in capsys.readouterr().err


def test_of_memoryless_seeds_those_that_played_the_nominal_task_are_compared_there(measured):
    """And where nothing was wiped or swapped, nothing is said of it."""
    found, options = measured
    ours, low = (
        metarl.evaluate(str(run), num_tasks=4, controls=("nominal",))
        for run in (options["rl2"], found.runs["memoryless-s1"])
    )
    silent = low.having(controls=())
    on_tasks, on_nominal = (ahead for _, ahead in leads(ours, [low, silent]))
    assert on_nominal == pytest.approx(ours.controls[0].returns[:, -1] - low.controls[0].returns[:, -1])
    assert on_tasks == pytest.approx(ours.paired[:, -1] - low.returns[:, -1]), "of both seeds, which are the same here"
    assert [where for where, _ in leads(ours, [silent])] == [LEADS[0]]
    assert all("wiped" not in str(line) for line in control_table(ours, [low]).renderables)
