"""`metarl export` from the command line, and what a bundle of it holds."""

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

import metarl
from metarl.cli.main import main
from metarl.core.errors import UserError
from metarl.export import bundle, onnx_file
from metarl.export.runtime import Bundle, BundleError, BundlePolicy
from metarl.run.pretrained import pretrained_names

NAME = "quadruped-body-ppo"  # the smallest


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "bundle"
    return metarl.export(f"pretrained:{NAME}", folder)


def test_a_bundle_has_every_file_and_their_hashes(made):
    contract = json.loads((made.path / "contract.json").read_text())
    others = {path.name for path in made.path.iterdir()} - {"contract.json"}
    assert others == set(contract["files"]) == {"policy.h", "policy.onnx", "policy.safetensors"}
    for name, digest in contract["files"].items():
        assert hashlib.sha256((made.path / name).read_bytes()).hexdigest() == digest
    assert not list(made.path.parent.glob(".*"))


def test_the_comparison_held_falls_episodes_and_tasks(made):
    assert made.played.steps >= 1000 and made.played.tasks > 1 and made.played.episodes > 3 and made.played.falls > 0
    told = json.loads((made.path / "contract.json").read_text())["parity"]
    for name in ("numpy", "c", "onnxruntime"):
        assert max(told[name]["action"], told[name]["state"]) <= 1e-5


def test_the_contract_says_what_the_robot_has_to_be(made):
    contract = json.loads((made.path / "contract.json").read_text())
    action = contract["action"]
    assert action["kind"] == "position" and action["kp"] == [50.0] * 12 and action["kd"] == [1.0] * 12
    assert action["default"] == [0.0, 0.9, -1.8] * 4 and action["scale"] == [0.4, 0.7, 0.8] * 4
    assert action["torque_limit"] == [23.7, 23.7, 35.55] * 4
    assert action["velocity_limit"] == [30.1, 30.1, 20.06] * 4
    for rate, scale in zip(action["rate_limit"], action["scale"], strict=True):
        assert 0.1 * scale <= rate * 0.02 < 2.0 * scale
    parts = {part["name"]: part for part in contract["observation"]}
    assert parts["gravity"]["high"] == [1.2] * 3 and parts["joint_velocity"]["low"][2] == pytest.approx(-3 * 20.06)
    for part in parts.values():  # the guard is not to take for an error what training showed, and all the policy sees
        low, high, mean, std = (np.array(part[key]) for key in ("low", "high", "mean", "std"))
        assert (low < mean - 3 * std).all() and (high > mean + 3 * std).all(), part["name"]
    assert (action["joint_position"], action["joint_velocity"], contract["gravity"]) == (
        "joint_position",
        "joint_velocity",
        "gravity",
    )
    assert (contract["control_step"], contract["physics_step"]) == (0.02, 0.004)
    assert [part["name"] for part in contract["observation"]][:2] == ["gyro", "gravity"]
    assert {task["name"] for task in contract["tasks"]} >= {"payload"}
    assert contract["reward"]["needed"] is False and contract["deployable"] is True
    assert contract["run"]["trained_by"]["git_commit"]


def test_the_onnx_file_has_the_contract_with_it(made):
    model = onnx.load(made.path / "policy.onnx")
    told = json.loads({one.key: one.value for one in model.metadata_props}["contract"])
    contract = json.loads((made.path / "contract.json").read_text())
    assert told == {key: value for key, value in contract.items() if key not in ("programs", "files")}


def test_numpy_alone_acts_as_the_policy(made):
    policy, runner = metarl.load(f"pretrained:{NAME}"), BundlePolicy(Bundle.read(made.path))
    obs = torch.randn(1, policy.info.observation_size, generator=torch.Generator().manual_seed(0))
    action, _ = policy.act(obs, policy.initial_state(1), torch.zeros(1, policy.noise_size), deterministic=True)
    np.testing.assert_allclose(runner.act(obs[0].numpy()), action[0].numpy(), atol=1e-5)


def test_a_damaged_bundle_is_refused(made, tmp_path):
    copy = shutil.copytree(made.path, tmp_path / "copy")
    text = (copy / "policy.h").read_text()
    (copy / "policy.h").write_text(text.replace("0", "1", 1))
    with pytest.raises(BundleError, match=r"policy\.h is damaged"):
        Bundle.read(copy)


def test_a_folder_that_is_taken_and_a_run_that_is_not_there(made, tmp_path, capsys):
    assert main(["export", f"pretrained:{NAME}", "-o", str(made.path)]) == 2
    assert "exists already: name a new folder" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "nowhere"), "-o", str(tmp_path / "b")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    assert main(["export", "pretrained:quadruped-body-pp", "-o", str(tmp_path / "b")]) == 2
    assert "did you mean 'quadruped-body-ppo'" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(pretrained_names()) - {NAME}))
def test_every_pretrained_policy_is_exported(name, tmp_path):
    """And every runtime comes within 1e-5 of it, or nothing would be written."""
    written = metarl.export(f"pretrained:{name}", tmp_path / "bundle")
    assert written.played.steps >= 1000 and {"numpy", "onnxruntime"} <= set(written.parity)
    Bundle.read(tmp_path / "bundle")


TELEMETRY = "from metarl.export.onnx_file import has_onnx; print(has_onnx())"


def test_onnxruntime_writes_nothing_of_its_use(tmp_path):
    env = {key: value for key, value in os.environ.items() if not key.startswith(("ORT_", "XDG_"))}
    words = [sys.executable, "-c", TELEMETRY]
    found = subprocess.run(words, capture_output=True, text=True, env=env | {"HOME": str(tmp_path)}, check=False)
    assert found.stdout.split() == ["True"], found.stderr
    assert not list(tmp_path.rglob("*onnxruntime*"))


def broken(tmp_path, change):
    """A copy of the pretrained run whose policy is changed as it is loaded."""
    from metarl.run import subject

    found = subject.trained(f"pretrained:{NAME}")
    change(found.policy)
    return found


def test_a_policy_of_nan_is_refused(tmp_path, monkeypatch):
    found = broken(tmp_path, lambda policy: policy.network.action_net.bias.data.fill_(float("nan")))
    monkeypatch.setattr(bundle, "trained", lambda *_: found)
    with pytest.raises(UserError, match="cannot be exported: its weights hold NaN"):
        bundle.export("any", tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_a_runtime_that_strays_fails_the_export_and_leaves_nothing(tmp_path, monkeypatch):
    right, first = bundle.numpy_calls, "const.0"
    wrong = lambda w: right(replace(w, constants={**w.constants, first: w.constants[first] + np.float32(1e-3)}))  # noqa: E731
    monkeypatch.setattr(bundle, "numpy_calls", wrong)
    monkeypatch.setattr(onnx_file, "has_onnx", lambda: False)
    monkeypatch.setattr(bundle, "compiler", lambda: None)
    monkeypatch.setattr(bundle, "compare", functools.partial(bundle.compare, steps=10))
    with pytest.raises(UserError, match=r"is not exported: run by numpy its action strays from torch's by .*e-0"):
        bundle.export(f"pretrained:{NAME}", tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_without_onnx_and_a_compiler_the_bundle_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "has_onnx", lambda: False)
    monkeypatch.setattr(bundle, "compiler", lambda: None)
    written = bundle.export("pretrained:half-cheetah-dir-rl2", tmp_path / "bundle")
    told = "\n".join(written.remarks)
    assert "policy.onnx is not written: it needs onnx and onnxruntime" in told
    assert "policy.h is written but was not compared" in told
    assert "adapts by its reward, which needs the torso's forward velocity" in told and "--feedback action" in told
    assert set(written.parity) == {"numpy"} and not (tmp_path / "bundle" / "policy.onnx").exists()
    contract = json.loads((tmp_path / "bundle" / "contract.json").read_text())
    assert contract["deployable"] is False and len(contract["objections"]) == 1
