"""Code that a folder or a file names: it runs where this user trained with that very file, or agreed."""

import io
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import config

import metarl
from metarl.cli.main import main
from metarl.core import trust
from metarl.core.errors import UserError, printable
from metarl.core.registry import family_names, make_family
from metarl.core.tasks import Choice, Parameter, Uniform
from metarl.reports.content import content_of
from metarl.run import sessions
from metarl.run.described import Described
from metarl.run.run import Run

SOURCE = Path(__file__).parents[1] / "short_family.py"
EVIL = "open({!r}, 'a').close()\n"


def exit_code(*words):
    try:
        return main([str(word) for word in words])
    except SystemExit as error:
        return error.code


def is_refused(act, words="names code that you have not trained with"):
    with pytest.raises(UserError, match=words) as caught:
        act()
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one iteration of a family in a file, by some other user."""
    path = tmp_path_factory.mktemp("theirs")
    shutil.copy(SOURCE, path / "robot.py")
    sessions.train(replace(config(1), family=f"{path}/robot.py:ShortDir"), path / "run")
    return path


@pytest.fixture
def stranger(trained, tmp_path, monkeypatch):
    """The run's folder as it came by mail: its family is code that leaves a mark when it is run."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    shutil.copytree(trained / "run", tmp_path / "run")
    (tmp_path / "evil.py").write_text(EVIL.format(f"{tmp_path}/executed") + SOURCE.read_text())
    named(tmp_path, f"{tmp_path}/evil.py:ShortDir")
    return tmp_path


def named(path, name):
    """Have the stranger's run name other code, as its family."""
    file = path / "run" / "config.toml"
    lines = [f"family = {json.dumps(name)}" if s.startswith("family") else s for s in file.read_text().splitlines()]
    file.write_text("\n".join(lines) + "\n")


VERBS = {
    "resume": ("resume", "RUN", "--total-steps", "240"),
    "eval": ("eval", "RUN", "--num-tasks", "2"),
    "against": ("eval", "pretrained:half-cheetah-dir-rl2", "--against", "RUN", "--num-tasks", "2"),
    "video": ("video", "RUN", "--output", "film.mp4"),
    "train": ("train", "--config", "RUN/config.toml", "--output", "new"),
    "tune": ("tune", "AGENT", "point-goal", "--config", "RUN/config.toml", "--output", "new"),
    "headroom": ("headroom", "point-goal", "--config", "RUN/config.toml", "--output", "new", "--total-steps", "80"),
    "check": ("check", "RUN"),
    "bench": ("bench", "--families", "RUN"),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("key", ["family", "agent"])
def test_no_verb_runs_code_that_a_folder_names(stranger, verb, key, capsys):
    if key == "agent":
        named(stranger, "half-cheetah-dir")
        text = (stranger / "run" / "config.toml").read_text()
        (stranger / "run" / "config.toml").write_text(text.replace('"rl2"', f'"{stranger}/evil.py:ShortDir"'))
    elif verb in ("tune", "headroom"):
        pytest.skip("it is told its family by the user")
    run = str(stranger / "run")
    assert exit_code(*(word.replace("RUN", run).replace("AGENT", "rl2") for word in VERBS[verb])) == 2
    assert not (stranger / "executed").exists()
    error = capsys.readouterr().err
    assert error.count("\n") == 1 or verb in ("check", "bench")
    if verb not in ("check", "bench"):
        assert f"{stranger}/evil.py" in error
        assert "--trust-code" in error


FORMS = {
    "relative": "evil.py:ShortDir",
    "above": "run/../evil.py:ShortDir",
    "link": "link.py:ShortDir",
    "link to a folder": "elsewhere/evil.py:ShortDir",
    "colons": "evil.py:x.py:ShortDir",
    "module": "evil:ShortDir",
    "dotted": "metarl.evil:ShortDir",
    "nul": "evil\0.py:ShortDir",
    "circle": "circle.py:ShortDir",
    "pipe": "pipe.py:ShortDir",
    "device": "zero.py:ShortDir",
    "long": "a" * 300 + ".py:ShortDir",
}


@pytest.mark.parametrize("form", FORMS)
def test_no_form_of_a_name_runs_code(stranger, monkeypatch, form):
    monkeypatch.syspath_prepend(stranger)  # as `python -m` puts the working directory there
    monkeypatch.chdir(stranger)
    Path("link.py").symlink_to("evil.py")
    Path("elsewhere").symlink_to(stranger)
    Path("circle.py").symlink_to("circle.py")
    Path("zero.py").symlink_to("/dev/zero")
    os.mkfifo("pipe.py")
    shutil.copy("evil.py", "evil.py:x.py")
    named(stranger, FORMS[form])
    is_refused(Run.open("run").family, "names code that you have not trained|there is no file|unknown family")
    assert not Path("executed").exists()


def test_python_runs_none_of_it_either(stranger):
    run, out = stranger / "run", stranger / "film.mp4"
    for act in (
        lambda: metarl.evaluate(run, num_tasks=2),
        lambda: metarl.resume(run, total_steps=240),
        lambda: metarl.record(run, out),
        lambda: Run(run).family(),
    ):
        is_refused(act)
    assert metarl.load(run).info == Run(run).info  # a policy needs nothing of its family
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace('"rl2"', f'"{stranger}/evil.py:ShortDir"'))
    is_refused(lambda: metarl.load(run))
    is_refused(lambda: metarl.train("rl2", "point-goal", config=run / "config.toml", output=stranger / "new"))
    assert not (stranger / "executed").exists()


@pytest.mark.parametrize("options", [(), ("--no-eval", "--no-videos")])
def test_a_report_runs_none_of_it_and_shows_what_the_folder_says(stranger, options, capsys):
    assert exit_code("report", stranger / "run", *options) == 0
    assert not (stranger / "executed").exists()
    assert ("it names code that you have not trained with" in capsys.readouterr().out) == (not options)
    (family,) = content_of([Run.open(stranger / "run")], {})["families"]
    assert (family["episode_steps"], family["episode_seconds"]) == (10, 0.5)
    assert Described.read(stranger / "run" / "family.json").parameters["direction"].train == Choice((-1.0, 1.0))
    assert not (stranger / "executed").exists()


def test_who_trains_with_a_file_is_never_asked_until_it_changes(stranger, capsys):
    own = stranger / "own.py"
    shutil.copy(SOURCE, own)
    words = "--num-worlds 4 --total-steps 80 --threads 1 --hidden-size 8 --chunk-steps 5 --minibatch-chunks 16"
    assert exit_code("train", "rl2", f"{own}:ShortDir", "--output", stranger / "mine", *words.split()) == 0
    trust._agreed.clear()  # in another process
    assert exit_code("eval", stranger / "mine", "--num-tasks", "2", "--split", "test") == 0
    assert exit_code("resume", stranger / "mine", "--total-steps", "160") == 0
    assert exit_code("train", "--config", stranger / "mine" / "config.toml", "--output", stranger / "again") == 0
    assert exit_code("report", stranger / "mine", "--no-videos") == 0
    own.write_text(own.read_text() + "\n")
    trust._agreed.clear()
    capsys.readouterr()
    assert exit_code("eval", stranger / "mine", "--num-tasks", "2") == 2
    assert f"or that was changed since: {own}; it was not run" in capsys.readouterr().err
    assert exit_code("resume", stranger / "mine", "--total-steps", "240", "--trust-code") == 0  # trained with, as it is
    trust._agreed.clear()
    assert exit_code("eval", stranger / "mine", "--num-tasks", "2", "--split", "test") == 0


def test_the_flag_runs_it_once(stranger):
    assert len(metarl.evaluate(stranger / "run", num_tasks=2, trust_code=True).returns) == 2
    assert (stranger / "executed").exists()
    is_refused(lambda: metarl.evaluate(stranger / "run", num_tasks=2))


def test_headroom_takes_the_flag_for_what_its_file_names(stranger):
    """The code runs, and turns out to be no learner."""
    (stranger / "own.toml").write_text(f'agent = "{stranger}/evil.py:ShortDir"\nfamily = "point-goal"\n')
    words = ("point-goal", "--config", stranger / "own.toml", "--output", stranger / "new", "--total-steps", "80")
    assert exit_code("headroom", *words) == 2
    assert not (stranger / "executed").exists()
    assert exit_code("headroom", *words, "--trust-code") == 2
    assert (stranger / "executed").exists()
    (stranger / "executed").unlink()
    with pytest.raises(UserError, match=r"evil.py:ShortDir"):
        metarl.headroom("point-goal", config=stranger / "own.toml", output=stranger / "new", trust_code=True)


def test_an_agent_that_the_user_names_may_stand_in_the_file_too(stranger):
    name = f"{Path(__file__).parents[1]}/steady_learner.py:Steady"
    (stranger / "own.toml").write_text(f'agent = "{name}"\nfamily = "point-goal"\n')
    words = ("--config", stranger / "own.toml", "--output", stranger / "new", "--total-steps", "-1")
    assert exit_code("train", *words) == 2
    with pytest.raises(UserError, match="total_steps"):  # and no question of trust
        metarl.train(name, "point-goal", config=stranger / "own.toml", total_steps=-1)


@pytest.mark.parametrize(("answer", "runs"), [("y\n", True), ("n\n", False), ("\n", False), ("", False)])
def test_a_person_at_a_terminal_is_asked_with_path_and_checksum(stranger, monkeypatch, answer, runs):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys, "stderr", Terminal())
    if not runs:
        is_refused(Run.open(stranger / "run").family)
        return
    assert Run.open(stranger / "run").family().episode_steps == 10
    asked = sys.stderr.getvalue()
    assert f"{stranger}/evil.py\nSHA-256 " in asked
    trust._agreed.clear()
    Run.open(stranger / "run").family()  # the answer is kept
    assert sys.stderr.getvalue() == asked


def test_what_is_shown_of_a_path_moves_no_cursor():
    assert printable("/tmp/\x1b[2K\u202ea.py\n") == "/tmp/\\x1b[2K\\u202ea.py\\n"


def test_what_is_run_is_the_source_and_not_what_lies_compiled_beside_it(tmp_path):
    import py_compile
    from importlib.util import cache_from_source

    file, good = tmp_path / "robot.py", SOURCE.read_text()
    file.write_text(EVIL.format(f"{tmp_path}/executed") + good)
    py_compile.compile(str(file), cache_from_source(str(file)), doraise=True)
    evil = file.stat()
    file.write_text(good.ljust(evil.st_size))  # of the same size and time, by which Python knows its cache
    os.utime(file, ns=(evil.st_atime_ns, evil.st_mtime_ns))
    assert make_family(f"{file}:ShortDir").episode_steps == 10
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("state", ["/proc/none", "relative"])
def test_where_no_record_can_be_kept_training_goes_on(tmp_path, monkeypatch, state):
    monkeypatch.setenv("XDG_STATE_HOME", state)
    monkeypatch.setenv("HOME", "/proc/none")
    shutil.copy(SOURCE, tmp_path / "robot.py")
    sessions.train(replace(config(1), family=f"{tmp_path}/robot.py:ShortDir"), tmp_path / "run")
    Run.open(tmp_path / "run").family()  # this process knows
    assert not Path("relative").exists()


ROW = {"train": {"kind": "Uniform", "low": 0.0, "high": 1.0}, "ood": None, "unit": "m", "help": "", "labels": []}
CONTENT = {"summary": "A cart.", "control_step": 0.1, "episode_steps": 10, "parameters": {"goal": ROW}}


@pytest.mark.parametrize(
    "train",
    [
        {"kind": "Protocol"},
        {"kind": "replace"},
        {"kind": "Uniform", "low": 1.0, "high": 0.0},
        {"kind": "Uniform", "low": 0.0, "high": 1e300},
        {"kind": "Uniform", "low": 0.0, "high": 1.0, "size": 10**9},
        {"kind": "Choice", "values": [[1.0]]},
        {"kind": "Points", "values": [1.0, 2.0]},
        {"kind": "Points", "values": [[1.0], [True]]},
        {"kind": "Points", "values": [[[1.0]], [[2.0]]]},
        {"kind": "Points", "values": [[0.0]] * 5000},
        {"kind": "Disc", "radius": True},
        {"kind": "Disc", "reach": 1.0},
        {},
    ],
    ids=str,
)
def test_a_description_of_a_family_is_read_within_bounds(tmp_path, train):
    path = tmp_path / "family.json"
    path.write_text(json.dumps(CONTENT))
    assert Described.read(path).parameters == {"goal": Parameter(Uniform(0.0, 1.0), "m")}
    path.write_text(json.dumps(CONTENT | {"parameters": {"goal": ROW | {"train": train}}}))
    is_refused(lambda: Described.read(path), "is damaged")


@pytest.mark.parametrize("family", family_names())
def test_what_is_written_of_a_family_is_read_again(tmp_path, family):
    path = tmp_path / "family.json"
    said = Described.of(make_family(family))
    path.write_text(json.dumps(said.to_json()))
    read = Described.read(path)
    assert said.parameters
    for name, own in said.parameters.items():
        assert read.parameters[name] == replace(own, nominal=None, graded=False), "the file has neither of these two"


def test_a_report_shows_no_file_that_a_link_in_the_folder_leads_to(stranger, trained):
    (stranger / "secret").write_text("a key")
    films = stranger / "run" / "videos"
    films.mkdir()
    (films / "out.mp4").symlink_to(stranger / "secret")
    (films / "zero.mp4").symlink_to("/dev/zero")
    os.mkfifo(films / "pipe.mp4")
    (films / "own.mp4").write_bytes(b"a film")
    assert [path.name for path in Run.open(stranger / "run").videos] == ["own.mp4"]


def test_what_is_written_into_a_folder_follows_no_link_out_of_it(stranger):
    (stranger / "secret").write_text("a key")
    run = Run.open(stranger / "run", trust_code=True)
    record = metarl.evaluate(run, num_tasks=2)
    for file in (run.path / "report.html", run.path / "report.json", run.path / "eval" / record.name):
        file.unlink(missing_ok=True)
        file.symlink_to(stranger / "secret")
    metarl.evaluate(run, num_tasks=2)
    metarl.report(run, evaluate_missing=False, film=False)
    assert (stranger / "secret").read_text() == "a key"
