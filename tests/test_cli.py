"""The command line as a user meets it: exit codes, one-sentence errors, files written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from metarl.cli.main import VERBS, main
from metarl.core.errors import UserError
from metarl.run import checkpoint
from metarl.run.run import Run

HERE = Path(__file__).parent
SHORT = f"{HERE}/short_family.py:ShortDir"
RAIL = f"{HERE}/families.py:Rail"
TINY = ["--num-worlds", "8", "--chunk-steps", "5", "--hidden-size", "16", "--total-steps", "320", "--threads", "1"]


def run(*words):
    """Exit code of a command; tyro's own errors exit through SystemExit."""
    try:
        return main([str(word) for word in words])
    except SystemExit as error:
        return error.code


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "run"
    assert run("train", "rl2", SHORT, "--output", path, *TINY) == 0
    return path


@pytest.mark.parametrize("words", [["--help"], *([verb, "--help"] for verb in VERBS)], ids=lambda words: words[0])
def test_help_is_instant_because_it_needs_no_torch(words):
    program = (
        "import sys; from metarl.cli.main import main\n"
        f"try: main({words!r})\nexcept SystemExit as error: assert error.code == 0\n"
        "assert 'torch' not in sys.modules and 'mujoco' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "usage" in result.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trian"], "unknown verb 'trian' (did you mean 'train'?)"),
        (["train"], "train needs AGENT FAMILY"),
        (["train", "rl3", "half-cheetah-dir"], "unknown agent 'rl3' (did you mean 'rl2'?)"),
        (["train", "rl2", "half-cheeta-dir"], "unknown family 'half-cheeta-dir' (did you mean 'half-cheetah-dir'?)"),
        (
            ["train", "rl2", "half-cheetah-dir", "--discount", "2"],
            "discount = 2.0 is out of range: it must be in [0, 1)",
        ),
        (["train", "rl2", "half-cheetah-dir", "--num-worlds", "0"], "num_worlds = 0 is out of range"),
        (["train", "rl2", "half-cheetah-dir", "--lerning-rate", "1"], "--learning-rate"),
        (["train", "rl2", "half-cheetah-dir", "--seed", "x"], "--seed"),
        (["train", "--config", "nowhere.toml"], "cannot read nowhere.toml"),
        (["train", "rl2", "nowhere.py:Robot"], "there is no file nowhere.py"),
        (["train", "rl2", f"{HERE}/short_family.py:ShortDri"], "did you mean 'ShortDir'?"),
        (["eval", "nowhere"], "nowhere is not a run folder"),
        (["resume", "nowhere"], "nowhere is not a run folder"),
        (["eval", "nowhere", "--num-tasks", "0"], "num_tasks = 0 is out of range: it must be in [1, 65536]"),
        (["video", "nowhere", "--grid", "65"], "grid = 65 is out of range: it must be in [0, 64]"),
        (["tune", "rl2", "point-goal", "--steps", "-1"], "steps = -1 is out of range: it must be in [0, 10^15]"),
        (
            ["train", "rl2", "half-cheetah-dir", "--lr", "1"],
            "train has no option --lr (did you mean '--learning-rate'?)",
        ),
        (["train", "rl2", "half-cheetah-dir", "--device=cuda"], "this build of torch has no CUDA"),
        (
            ["train", "rl2", "half-cheetah-dir", "--total-steps", "1.5"],
            "--total-steps is '1.5': it must be a whole number",
        ),
        (
            ["train", "rl2", "half-cheetah-dir", "--total-steps=inf"],
            "--total-steps is 'inf': it must be a whole number",
        ),
        (["train", "rl2", "half-cheetah-dir", "--discount", "-x"], "--discount is '-x': it must be a number"),
        (["headroom", "point-goal", "--seeds", "1", "b"], "--seeds is 'b': it must be a whole number"),
        (["eval", "nowhere", "--num-tasks"], "--num-tasks needs a value"),
        (
            ["train", "rl2", "point-goal", "--cell=grue", "--seed", "1"],
            "--cell is 'grue' (did you mean 'gru'?): it must be gru, lstm, lru, transformer or memory",
        ),
        (
            ["eval", "nowhere", "--split", "tset"],
            "--split is 'tset': it must be train, test or ood",
        ),
        (["train", "rl2", "point-goal", "--track", "wnb"], "it must be '' (none), wandb or trackio"),
        (["train", "rl2", "point-goal", "--mirror=yes"], "--no-mirror is a switch and takes no value"),
        (["train", "rl2", "point-goal", "--mirror"], "mirror is on already; --no-mirror changes that"),
        (["train", "rl2", "point-goal", "--no-miror"], "(did you mean '--no-mirror'?)"),
        (["train", "maml-trpo", "point-goal", "--inner-step-size", "x"], "is 'x': it must be a number or learned"),
        (
            ["train", "maml-trpo", "point-goal", "--inner-step-size", "learned", "--seed", "-1"],
            "seed = -1 is out of range",
        ),
        (["video", "--show", "1", "2", "nowhere"], "nowhere is not a run folder"),
        (["list", "--family", "x"], "metarl list has no option --family"),
        (["eval", "nowhere", "twice"], "metarl eval has no use for 'twice': `metarl eval --help` says what it takes"),
        (["bench", "--foo"], "metarl bench has no option --foo: `metarl bench --help` lists them"),
        (["train", "rl2", "half-cheetah-dir", "--value-weight", "inf"], "value_weight = inf is out of range"),
        (["train", "rl2", "half-cheetah-dir", "--hidden-size", "200000"], "it would take 149 GiB"),
        (["train", "pearl", "half-cheetah-dir", "--replay-size", "1e12"], "it would take 58.2 TiB"),
        (["eval", "nowhere", "--num-task", "3"], "metarl eval has no option --num-task (did you mean '--num-tasks'?)"),
        (["bench", "--worlds", "0"], "worlds = (0,) is out of range"),
        (["list", "half-cheetah"], "unknown family 'half-cheetah'"),
        (["check", "half-cheetah-val"], "did you mean 'half-cheetah-vel'?"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_a_mistake_is_explained_and_exits_with_2(words, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2
    captured = capsys.readouterr()
    assert expected in " ".join((captured.out + captured.err).replace("│", "").split())
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


def test_help_may_stand_behind_an_option_of_several_numbers(capsys):
    assert run("bench", "--worlds", "8", "-h") == 0
    assert "usage: metarl bench" in capsys.readouterr().out


def test_a_word_that_is_missing_is_shown_with_what_it_means(capsys):
    assert run("eval") == 2
    shown = capsys.readouterr()
    assert "Missing from metarl eval" in shown.err and "RUN" in shown.err
    assert shown.out == ""


def test_numbers_may_be_written_as_people_do(tmp_path):
    words = ["--total-steps", "3.2e2", "--num_worlds", "8", "--seed=1_0", "--chunk-steps", "5", "--threads", "1"]
    assert run("train", "rl2", SHORT, "--output", tmp_path / "run", *words, "--hidden-size", "16") == 0
    resolved = (tmp_path / "run" / "config.toml").read_text().splitlines()
    assert {"total_steps = 320", "num_worlds = 8", "seed = 10"} <= set(resolved)


def test_help_and_the_bare_verb_agree(capsys):
    assert run("train") == 2
    assert "train needs AGENT FAMILY" in capsys.readouterr().err
    assert run("train", "--help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: metarl train AGENT FAMILY [-h] [OPTIONS]")
    assert "--agent" not in shown, "no option with a default, where the verb asks for it"
    assert run("train", "pearl", "--help") == 0
    assert "--latent-size" in capsys.readouterr().out


def test_help_shows_the_allowed_range(capsys):
    run("train", "rl2", "--help")
    shown = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert "Discount γ per control step, within a trial also across episode ends. In [0, 1). (default: 0.97)" in shown


def test_a_reward_that_is_not_finite_names_term_and_task(tmp_path, capsys):
    family = f"{HERE}/short_family.py:NotFinite"
    assert run("train", "rl2", family, "--output", tmp_path / "run", *TINY) == 2
    assert "reward term 'broken' is inf for the task {'direction': -1.0}" in capsys.readouterr().err


def test_help_takes_little_time():
    """Of the processor, so that a busy machine does not matter; 0.5 s is the promise."""
    command = [
        sys.executable,
        "-c",
        "import resource, sys; from metarl.cli.main import main; main(['--help']);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_utime, file=sys.stderr)",
    ]
    assert float(subprocess.run(command, capture_output=True, text=True, check=True).stderr) < 0.5


def test_flags_override_the_file(tmp_path):
    config = tmp_path / "run.toml"
    head = f'agent = "rl2"\nfamily = "{SHORT}"\nseed = 5\nnum_worlds = 4\ntotal_steps = 20\nthreads = 1\n'
    config.write_text(head + "[learner]\nchunk_steps = 5\nclip = 0.1\n")
    assert run("train", "--config", config, "--num-worlds", "6", "--clip", "0.3", "--output", tmp_path / "run") == 0
    resolved = (tmp_path / "run" / "config.toml").read_text()
    for line in ("seed = 5", "num_worlds = 6", "clip = 0.3", "chunk_steps = 5"):
        assert line in resolved.splitlines()


def test_a_run_of_a_users_own_file_works_from_any_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(HERE)
    assert run("train", "rl2", "short_family.py:ShortDir", "--output", tmp_path / "run", *TINY) == 0
    monkeypatch.chdir(tmp_path)
    assert run("eval", "run", "--num-tasks", "4") == 0


def test_eval_prints_a_table_and_writes_every_return(trained, tmp_path, capsys):
    output = tmp_path / "out.json"
    assert run("eval", trained, "--num-tasks", "6", "--episodes", "3", "--json", output) == 0
    printed = capsys.readouterr().out
    assert "95 % interval" in printed
    assert "last − first" in printed
    content = json.loads(output.read_text())
    assert [len(row) for row in content["returns"]] == [3] * 6
    assert len(content["adaptation_curve"]) == 3
    assert content["tasks"][0] == {"direction": -1.0}
    assert content["train_steps"] == 320
    assert "--json" in content["provenance"]["command"]
    kept = json.loads((trained / "eval" / "test-6x3-deterministic-seed0-iteration2.json").read_text())
    assert kept["held_out"] is False  # two directions: test holds the very tasks of train
    assert kept["returns"] == content["returns"]


def test_eval_is_the_same_twice_and_on_a_saved_task_list(trained, tmp_path):
    files = [tmp_path / f"{name}.json" for name in ("first", "second", "listed")]
    for file in files[:2]:
        assert run("eval", trained, "--num-tasks", "4", "--json", file) == 0
    first, second = (json.loads(file.read_text()) for file in files[:2])
    assert first["returns"] == second["returns"]
    tasks = tmp_path / "tasks.json"
    tasks.write_text(json.dumps({"family": SHORT, "tasks": first["tasks"]}))
    assert run("eval", trained, "--tasks", tasks, "--json", files[2]) == 0
    assert json.loads(files[2].read_text())["returns"] == first["returns"]


def test_eval_names_the_splits_there_are(trained, capsys):
    assert run("eval", trained, "--split", "ood") == 2
    assert "no 'ood' split; available: train, test" in capsys.readouterr().err


def test_eval_covers_test_and_ood_tasks_unless_told(tmp_path, capsys):
    folder, json_file = tmp_path / "run", tmp_path / "out.json"
    assert run("train", "rl2", RAIL, "--output", folder, *TINY, "--chunk-steps", "4", "--total-steps", "64") == 0
    assert run("eval", folder, "--num-tasks", "5", "--json", json_file) == 0
    kept = {path.name for path in (folder / "eval").iterdir()}
    names = {split: f"{split}-5x2-deterministic-seed0-iteration1.json" for split in ("test", "ood")}
    assert kept == set(names.values())
    for split, copy in (("test", json_file), ("ood", tmp_path / "out-ood.json")):
        content = json.loads((folder / "eval" / names[split]).read_text())
        assert (content["split"], content["held_out"]) == (split, True)
        assert content == json.loads(copy.read_text())
        assert all(abs(task["goal"]) >= 2.0 for task in content["tasks"]) == (split == "ood")
    assert run("eval", folder, "--num-tasks", "5", "--split", "test", "--episodes", "4", "--stochastic") == 0
    added = {path.name for path in (folder / "eval").iterdir()} - kept
    assert added == {"test-5x4-stochastic-seed0-iteration1.json"}, "beyond the two episodes of training"
    assert run("eval", folder, "--split", "test", "--tasks", json_file) == 2
    assert "takes the place of --split test: leave one of the two out" in capsys.readouterr().err


def test_eval_compares_two_runs_on_the_same_tasks(trained, tmp_path, capsys):
    other = tmp_path / "other"
    options = (*TINY, "--seed", "1", "--episodes-per-trial", "3")
    assert run("train", "rl2", SHORT, "--output", other, *options) == 0
    assert run("eval", trained, "--against", other, "--num-tasks", "6", "--json", tmp_path / "out.json") == 0
    assert "P [95 % interval]" in capsys.readouterr().out
    ours = json.loads((tmp_path / "out.json").read_text())
    (path,) = (other / "eval").iterdir()
    theirs = json.loads(path.read_text())
    assert ours["tasks"] == theirs["tasks"]
    assert theirs["against"] is None
    assert ours["against"]["run"] == str(other)
    chances = ours["against"]["probability_of_improvement"]
    assert len(chances) == 3, "as many episodes as the longer of the two was trained for"
    for episode, chance in enumerate(chances):
        pairs = [(x[episode], y[episode]) for x, y in zip(ours["returns"], theirs["returns"], strict=True)]
        assert chance["value"] == pytest.approx(sum((x > y) + 0.5 * (x == y) for x, y in pairs) / 6)


def test_runs_of_other_families_or_horizons_are_not_compared(trained, tmp_path, capsys):
    for name, family, options in (("a", RAIL, ("--chunk-steps", "4")), ("b", SHORT, ("--episode-steps", "5"))):
        assert run("train", "rl2", family, "--output", tmp_path / name, *TINY, *options) == 0
        assert run("eval", trained, "--against", tmp_path / name) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith(f"cannot be compared: its family is {RAIL}, not {SHORT}")
    assert lines[1].endswith("cannot be compared: its episode_steps is 5, not 10")
    assert run("eval", SHORT, "--agent", "zero", "--against", trained) == 2
    assert "never trained and takes no --against" in capsys.readouterr().err


def test_eval_of_a_damaged_checkpoint_changes_nothing(trained, capsys):
    path = checkpoint.find(trained / "checkpoints") / "tensors.safetensors"
    original = path.read_bytes()
    path.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    before = sorted(str(p) for p in trained.rglob("*"))
    try:
        assert run("eval", trained) == 2
        assert run("resume", trained) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 2
        assert all("is damaged" in line for line in lines)
        assert sorted(str(p) for p in trained.rglob("*")) == before
    finally:
        path.write_bytes(original)


def test_a_mistake_found_while_training_leaves_no_folder_in_the_way(tmp_path, capsys):
    options = ["--output", tmp_path / "run", *TINY]
    assert run("train", "rl2", f"{HERE}/short_family.py:NotFinite", *options) == 2
    assert "reward term 'broken'" in capsys.readouterr().err
    assert run("train", "rl2", SHORT, *options) == 0


def test_a_config_file_reaches_a_learner_of_the_users_own_file(tmp_path):
    config = tmp_path / "run.toml"
    agent = f"{HERE}/short_family.py:OwnLearner"
    config.write_text(f'agent = "{agent}"\nfamily = "{SHORT}"\ntotal_steps = 20\n[learner]\nrate = 7.0\n')
    assert run("train", "--config", config, "--trust-code", "--num-worlds", "2", "--output", tmp_path / "run") == 0
    assert "rate = 7.0" in (tmp_path / "run" / "config.toml").read_text()
    metrics = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert metrics["train/rate"] == 7.0


def test_resume_from_an_older_checkpoint_goes_on_from_there(trained, tmp_path, capsys):
    path = tmp_path / "run"
    assert run("train", "rl2", SHORT, "--output", path, *TINY, "--checkpoint-minutes", "0") == 0
    assert run("resume", path, "--checkpoint", "iteration-000001") == 0
    names = sorted(folder.name for folder in (path / "checkpoints").iterdir())
    assert names == ["abandoned-iteration-000002", "iteration-000001", "iteration-000002"]
    resumed = json.loads((path / "run.json").read_text())["resumed"]
    assert [entry["after_iteration"] for entry in resumed] == [1]


def test_an_unwritable_json_is_one_sentence(trained, capsys):
    assert run("eval", trained, "--num-tasks", "2", "--json", "/proc/none/out.json") == 2
    assert "cannot write /proc/none/out.json" in capsys.readouterr().err


def test_resume_of_a_finished_run_says_so(trained, capsys):
    assert run("resume", trained) == 0
    assert "320 steps" in capsys.readouterr().out


def test_train_does_not_overwrite_a_run(trained, capsys):
    assert run("train", "rl2", SHORT, "--output", trained, *TINY) == 2
    assert "exists and is not empty" in capsys.readouterr().err


def test_list_shows_parameters_with_units_and_ranges(tmp_path, capsys):
    output = tmp_path / "list.json"
    assert run("list", "--json", output) == 0
    printed = capsys.readouterr().out
    assert "half-cheetah-body" in printed
    assert "m/s" in printed
    families = {family["name"]: family for family in json.loads(output.read_text())["families"]}
    assert families["half-cheetah-vel"]["parameters"][0]["train"] == "U(0, 3)"
    assert run("list", "half-cheetah-dir") == 0
    assert "one of -1, 1" in capsys.readouterr().out


def test_check_passes_our_families_and_finds_faults(tmp_path, capsys):
    assert run("check", SHORT, "--json", tmp_path / "ok.json") == 0
    assert all(finding["problem"] is None for finding in json.loads((tmp_path / "ok.json").read_text()))
    assert run("check", f"{HERE}/short_family.py:NotFinite") == 2
    assert "reward term 'broken'" in capsys.readouterr().out


def test_bench_reports_ratios(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("metarl.bench.measure.ROUNDS", 1)
    for name, value in {"_SHOTS": 2, "_TASKS": 2, "_HORIZON": 10}.items():
        monkeypatch.setattr(f"metarl.bench.learners.{name}", value)
    monkeypatch.setattr("metarl.envs.half_cheetah.HalfCheetahBody.episode_steps", 50)
    output = tmp_path / "bench.json"
    small = ("--worlds", "4", "--families", "point-goal", "--seconds", "0.05", "--threads", "1")
    assert run("bench", *small, "--json", output) == 0
    rows = {(row["family"], row["name"]): row for row in json.loads(output.read_text())["rows"]}
    for family in ("half-cheetah-body", "point-goal"):
        assert rows[family, "bare mujoco.batch"]["ratio"] == 1.0
        assert rows[family, "TrialEnv, random actions"]["steps_per_second"] > 0
    assert rows["point-goal", "gymnasium AsyncVectorEnv"]["ratio"] > 0
    assert rows["half-cheetah-body", "RL² GRU 128: collection"]["ratio"] < 1.0
    iteration = rows["half-cheetah-body", "MAML-TRPO, 1 shot: training iteration"]
    assert set(iteration["shares"]) == {"collect", "advantages", "gradient", "conjugate_gradient", "line_search"}
    assert sum(iteration["shares"].values()) == pytest.approx(1.0)
    assert rows["half-cheetah-body", "plain loop over tasks"]["ratio"] == 1.0
    assert "training iteration, 4 worlds: collect " in capsys.readouterr().out


def test_the_package_runs_as_a_module():
    command = [sys.executable, "-m", "metarl", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=os.sep).stdout.strip()


def test_an_evaluation_of_a_run_that_is_read_only_is_written_elsewhere(tmp_path, monkeypatch, capsys):
    def refuses(*_):
        raise UserError("cannot write eval/x.json: Read-only file system")

    monkeypatch.setattr(Run, "write_evaluation", refuses)
    words = ["eval", "pretrained:half-cheetah-dir-rl2", "--num-tasks", "2", "--split", "test", "--episodes", "1"]
    assert main([*words, "--json", str(tmp_path / "x.json")]) == 0
    assert "Read-only file system: only" in capsys.readouterr().out
    assert (tmp_path / "x.json").stat().st_size
    assert main(words) == 2
