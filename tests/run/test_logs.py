"""What a person sees of a training and of a table, and which file an error names."""

import errno
import io
import re

import pytest
import torch
from rich.console import Console

from metarl.core.errors import UserError
from metarl.run import checkpoint, logs
from metarl.run.pretrained import recorded_evaluation
from metarl.run.tables import html, record_table


def shown(act, width=80):
    """The lines that a terminal of 80 columns shows."""
    file = io.StringIO()
    act(Console(file=file, width=width, force_terminal=True))
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue()))


@pytest.mark.parametrize("total", [12, 1220, 10**6, 10**12])
def test_the_progress_line_fits_a_terminal(total):
    def act(console):
        with logs.progress_view(total, console) as show:
            show(total - 1, 123456.0, -1234.5, -1034.5, 7425.0)

    lines = shown(act)
    assert max(map(len, lines)) <= 80
    assert len([line for line in lines if line.strip()]) <= 2  # as it begins, and as it ends
    assert any(f"{total - 1}/{total} · 123,456/s" in line for line in lines)
    assert any("return -1234.5 → -1034.5" in line for line in shown(act, 120))

    def evaluated(console):
        with logs.progress_view(total, console) as show:
            show(total - 1, 123456.0, -1234.5, -1034.5, 7425.0, "evaluated -9.5 → -7.5")

    assert any("123,456/s · evaluated -9.5 → -7.5 · 123:45 left" in line for line in shown(evaluated))
    assert any("→ -1034.5 · 123:45 left · evaluated -9.5 → -7.5" in line for line in shown(evaluated, 140))


def test_a_film_has_a_progress_line_too(capsys):
    def act(console):
        with logs.share_view("filming", console) as tell:
            tell(0.4)

    assert any("40 % · filming" in line for line in shown(act))
    with logs.share_view("filming", Console(file=io.StringIO()), interval=0.0) as tell:
        tell(0.25)
    assert capsys.readouterr().out == "filming: 25%\n"
    with logs.share_view("filming", Console(quiet=True), interval=0.0) as tell:
        tell(0.25)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("options", [{}, {"markup": False, "emoji": False}])
def test_names_are_printed_as_they_are(options, capsys):
    names = {"family": "x[red]y", "agent": ":swimmer:"}
    record = recorded_evaluation("half-cheetah-dir-rl2").having(**names)
    console = Console(file=io.StringIO(), width=120, **options)
    console.print(record_table(record, "runs/[bold]a"))
    assert "runs/[bold]a: :swimmer: on x[red]y: 100 test tasks" in console.file.getvalue()
    assert re.search(r"\d \[\d+, \d+\]", console.file.getvalue())
    assert "x[red]y" in html(record)
    logs.console().print("x[red]y :swimmer:")
    assert capsys.readouterr().out == "x[red]y :swimmer:\n"


@pytest.mark.parametrize("broken", ["metrics.jsonl", "tensorboard"])
def test_a_full_disk_is_told_by_the_file_and_what_there_is(tmp_path, monkeypatch, broken):
    def fails(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    log = logs.MetricsFile(tmp_path)
    log.write(1, 10, {})
    if broken == "tensorboard":
        monkeypatch.setattr(logs.EventFile, "write", fails)
    else:
        log._file.close()
        monkeypatch.setattr(log, "_file", type("Full", (), {"write": fails, "close": fails})())
    with pytest.raises(UserError, match=rf"{broken}: No space left on device; there is no earlier checkpoint$"):
        log.write(2, 20, {})
    checkpoint.save(tmp_path / "checkpoints", {"a": torch.ones(1)}, iteration=1, total_steps=1, elapsed=1.0)
    with pytest.raises(UserError, match=rf"{broken}: No space left on device; iteration-000001 is intact$"):
        log.write(2, 20, {})
    log.close()
