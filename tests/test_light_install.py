"""What is mandatory suffices for acting, training and evaluating; what else is wanted is one sentence."""

import subprocess
import sys

import pytest

from metarl.core.errors import EXTRAS

BLOCKED = (
    "import sys\n"
    f"for name in {[*EXTRAS, 'tensorboard', 'optuna', 'onnx', 'viser']!r}:\n"
    "    sys.modules[name] = None\n"  # as if it were not installed
    "from metarl.cli.main import main\n"
)
TINY = "--num-worlds 4 --total-steps 320 --episode-steps 20 --hidden-size 8 --validation-tasks 0 --seed 1"


def without_extras(*commands, cwd):
    """The exit code of each command in one process that has no optional package, and what was said."""
    code = BLOCKED + "".join(f"print('code', main({command.split()!r}))\n" for command in commands)
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)
    codes = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("code ")]
    return codes, done.stderr


def test_training_evaluating_and_loading_need_none_of_them(tmp_path):
    codes, said = without_extras(
        f"train rl2 point-goal {TINY} --output run",
        "eval run --num-tasks 2",
        "resume run --total-steps 640",
        cwd=tmp_path,
    )
    assert codes == [0, 0, 0], said
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert (tmp_path / "run" / "metrics.jsonl").stat().st_size > 100


def test_what_needs_one_says_so_in_a_sentence(tmp_path):
    commands = ("train ppo point-goal --output run", "video pretrained:half-cheetah-dir-rl2")
    codes, said = without_extras(*commands, cwd=tmp_path)
    assert codes == [2, 2]
    assert said.splitlines() == [
        "metarl: this needs stable-baselines3: pip install 'metarl-robotics[baselines]'",
        "metarl: this needs imageio: pip install 'metarl-robotics[video]'",
    ]


def test_another_missing_module_is_no_matter_of_installing_an_extra(monkeypatch):
    from metarl.cli import main as cli

    def broken(module):
        raise ModuleNotFoundError("No module named 'nothing'", name="nothing")

    monkeypatch.setattr(cli, "_run_of", broken)
    with pytest.raises(ModuleNotFoundError, match="nothing"):
        cli.main(["list"])
