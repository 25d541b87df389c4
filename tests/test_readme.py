"""What README.md shows must work as it stands."""

import re
import shlex
from pathlib import Path

import pytest

from metarl.cli import main
from metarl.run.check import check_family

README = (Path(__file__).parent.parent / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line for line in README.splitlines() if line.startswith("metarl ")]


def test_the_python_example_runs(capsys):
    exec(compile(PYTHON[0], "README.md", "exec"), {})
    assert "forward" in capsys.readouterr().out


def test_the_family_of_add_your_own_fulfils_the_contract():
    namespace = {"__name__": "planets"}
    exec(compile(PYTHON[1], "README.md", "exec"), namespace)
    assert [finding for finding in check_family(namespace["OtherPlanets"]()) if finding.problem] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_s_options_exist(command, capsys):
    """Its verb exists, and its help names each of its options."""
    words = shlex.split(command, comments=True)[1:]
    with pytest.raises(SystemExit) as caught:
        main([words[0], "--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    for option in (word for word in words if word.startswith("--")):
        assert option in printed
