"""The runtime of a bundle: reading, refusing what is damaged, and the operations against torch."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from metarl.export import runtime
from metarl.export.runtime import Bundle, BundleError, BundlePolicy, Program

_SPEC = importlib.util.spec_from_file_location("handmade", Path(__file__).parent / "handmade.py")
handmade = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(handmade)
operation, tensor = handmade.operation, handmade.tensor

ALONE = """
import sys, importlib.util
class Blocked:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("torch", "mujoco", "metarl", "scipy", "safetensors"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
spec = importlib.util.spec_from_file_location("runtime", sys.argv[1])
module = importlib.util.module_from_spec(spec); sys.modules["runtime"] = module
spec.loader.exec_module(module)
policy = module.BundlePolicy(module.Bundle.read(sys.argv[2]))
print(policy.act([0.1] * 9).tolist())
"""


def test_the_file_alone_runs_a_bundle(tmp_path):
    folder = handmade.write(tmp_path / "bundle")
    copied = tmp_path / "runtime.py"
    copied.write_bytes(Path(runtime.__file__).read_bytes())
    words = [sys.executable, "-I", "-c", ALONE, str(copied), str(folder)]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    ours = BundlePolicy(Bundle.read(folder)).act([0.1] * 9)
    assert json.loads(found.stdout) == ours.tolist()


ROBOT = """
import sys
class Blocked:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("torch", "mujoco", "metarl", "scipy", "safetensors"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import numpy as np
import robot.transports
from robot.runner import Bundle, Observation, Robot, Runner, SteppedClock
class Joints:
    def __init__(self, bundle):
        self.robot, self.number, self.sent, self.stops = Robot.of(bundle), 0, 0, 0
    def receive(self):
        self.number += 1
        return Observation(self.number, clock.now(), np.array([0, 0, -1, 0, 0, 0, 0, 0, 1e-3 * self.number]))
    def send(self, command):
        self.sent += 1
    def stop(self):
        self.stops += 1
if __name__ == "__main__":
    clock, bundle = SteppedClock(), Bundle.read(sys.argv[1])
    joints = Joints(bundle)
    summary = Runner(bundle, joints, clock=clock, deadline=3000.0).run(0.4)
    print(summary.steps, joints.sent, joints.stops, summary.misses)
"""


def test_the_folder_alone_drives_a_robot(tmp_path):
    """As the docs have it: a copy of the folder, and a policy in a process of its own."""
    shutil.copytree(Path(runtime.__file__).parent, tmp_path / "robot")
    (tmp_path / "main.py").write_text(ROBOT)
    folder, env = handmade.write(tmp_path / "bundle"), {**os.environ, "PYTHONPATH": str(tmp_path)}
    words = [sys.executable, str(tmp_path / "main.py"), str(folder)]
    found = subprocess.run(words, capture_output=True, text=True, check=False, env=env, cwd=tmp_path)
    assert found.stdout.split() == ["20", "20", "1", "0"], found.stderr


def test_two_resets(tmp_path):
    policy = BundlePolicy(Bundle.read(handmade.write(tmp_path / "bundle")))
    obs = np.linspace(-1, 1, 9)
    first = policy.act(obs)
    policy.observe(1.0, obs)
    policy.end_episode()
    assert policy.state["episode"].tolist() == [1] and policy.state["memory"].any()
    assert not np.array_equal(policy.act(obs), first)
    policy.new_task()
    assert policy.state["episode"].tolist() == [0]
    np.testing.assert_array_equal(policy.act(obs), first)


def test_noise_is_for_sampling(tmp_path):
    bundle = Bundle.read(handmade.write(tmp_path / "bundle"))
    mean, drawn = (BundlePolicy(bundle, 3, deterministic=d).act(np.zeros(9)) for d in (True, False))
    assert not np.allclose(mean, drawn)
    explicit = BundlePolicy(bundle).act(np.zeros(9), noise=[0.5, -0.5])
    np.testing.assert_allclose(explicit, mean + np.array([0.5, -0.5], np.float32), rtol=1e-6)


def change_programs(**words):
    def change(said):
        said["programs"]["act"]["operations"][3] |= words

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(schema=2), "schema 2"),
        (lambda c: c["files"].update({"policy.safetensors": "0" * 64}), "SHA-256"),
        (lambda c: c["files"].update({"../x": "0"}), "no name of a file"),
        (lambda c: c["files"].update({"policy.h": "0"}), "cannot be read"),
        (lambda c: c["programs"].pop("observe"), "observe"),
        (lambda c: c["state"][0].update(shape=[1, 4]), "memory"),
        (lambda c: c["state"][0].update(initial="nothing"), "nothing"),
        (lambda c: c["observation"][0].update(size=4), "4"),
        (lambda c: c["observation"].pop(), "by the contract"),
        (lambda c: c["action"].update(scale=[1.0]), "scale"),
        (lambda c: c["action"].update(kind="magic"), "magic"),
        (lambda c: c["action"].update(joint_position="knees"), "knees"),
        (change_programs(op="exec"), "no operation 'exec'"),
        (change_programs(power=2), "attributes"),
        (change_programs(**{"in": ["v99"]}), "v99"),
        (change_programs(**{"in": ["const.w1"]}), "mismatch"),
        (change_programs(out="v2"), "twice"),
        (change_programs(op="expand", shape=[10**6, 10**6]), "makes more than"),
        (change_programs(op="reshape", shape=[1, 5]), "reshape"),
        (change_programs(op="cast", dtype="float64"), "float64"),
        (change_programs(op="index_select", dim=1, **{"in": ["v2", "state.memory"]}), "dtypes"),
    ],
)
def test_a_bad_contract_is_refused(tmp_path, change, words):
    with pytest.raises(BundleError, match=words):
        Bundle.read(handmade.write(tmp_path / "bundle", change))


def test_damage_at_every_byte_of_the_weights_is_refused(tmp_path):
    folder = handmade.write(tmp_path / "bundle")
    content = (folder / "policy.safetensors").read_bytes()
    for place in range(0, len(content), 7):
        (folder / "policy.safetensors").write_bytes(
            content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        )
        with pytest.raises(BundleError, match="SHA-256"):
            Bundle.read(folder)


def test_strange_tensors_are_refused():
    good = handmade.safetensors({"a": np.ones(3, np.float32)})
    assert runtime.parse_safetensors(good, "x")["a"].tolist() == [1, 1, 1]
    for bad, words in [
        (b"", "cut off"),
        (good[:-1], "does not fit"),
        (good + b"0", "no tensor"),
        (good.replace(b"F32", b"F16"), "dtype"),
        (good.replace(b"[3]", b"[4]"), "does not fit"),
        (handmade.safetensors({"a": np.full(3, np.nan, np.float32)}), "NaN"),
        ((10**9).to_bytes(8, "little") + good, "cut off"),
        ((4).to_bytes(8, "little") + b"[[[[", "JSON"),
    ]:
        with pytest.raises(BundleError, match=words):
            runtime.parse_safetensors(bad, "x")


RNG = np.random.default_rng(1)
X, Y = (RNG.normal(size=(2, 3, 4)).astype(np.float32) for _ in range(2))
INDEX = RNG.integers(0, 3, size=(2, 2, 4))
CASES = {
    **{
        name: ([X], {})
        for name in [
            "neg",
            "abs",
            "exp",
            "sin",
            "cos",
            "tanh",
            "sigmoid",
            "relu",
            "softplus",
            "logical_not",
            "floor",
            "erf",
        ]
    },
    **{name: ([np.abs(X) + 0.1], {}) for name in ["log", "sqrt", "rsqrt", "reciprocal"]},
    **{
        name: ([X, Y], {})
        for name in ["add", "sub", "mul", "div", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge"]
    },
    **{name: ([X > 0, Y > 0], {}) for name in ("logical_and", "logical_or")},
    "clamp": ([X], {"min": -0.5, "max": 0.5}),
    "where": ([X > 0, X, Y], {}),
    "matmul": ([X, Y.transpose(0, 2, 1).copy()], {}),
    "transpose": ([X], {"perm": [2, 0, 1]}),
    "reshape": ([X], {"shape": [6, 4]}),
    "expand": ([X[:, :1]], {"shape": [2, 3, 4]}),
    "cat": ([X, Y], {"dim": 1}),
    "slice": ([X], {"dim": 2, "start": 1, "end": 4, "step": 2}),
    "gather": ([X, INDEX], {"dim": 1}),
    "index_select": ([X, np.array([2, 0])], {"dim": 1}),
    "scatter": ([X, np.arange(24).reshape(2, 3, 4) // 4 % 3, Y], {"dim": 1}),
    **{name: ([X], {"dim": [0, 2], "keepdim": True}) for name in ("sum", "mean", "amax", "amin")},
    "cumsum": ([X], {"dim": 1}),
    "cast": ([X], {"dtype": "int64"}),
    "full": ([], {"shape": [2, 2], "value": 1.5, "dtype": "float32"}),
}
TORCH = {
    "clamp": lambda x, min, max: x.clamp(min, max),
    "transpose": lambda x, perm: x.permute(perm),
    "reshape": lambda x, shape: x.reshape(shape),
    "expand": lambda x, shape: x.expand(shape),
    "cat": lambda *x, dim: torch.cat(x, dim),
    "slice": lambda x, dim, start, end, step: torch.ops.aten.slice(x, dim, start, end, step),
    "gather": lambda x, index, dim: x.gather(dim, index),
    "index_select": lambda x, index, dim: x.index_select(dim, index),
    "scatter": lambda x, index, source, dim: x.scatter(dim, index, source),
    "cast": lambda x, dtype: x.to(getattr(torch, dtype)),
    "full": lambda shape, value, dtype: torch.full(shape, value, dtype=getattr(torch, dtype)),
    "softplus": torch.nn.functional.softplus,
}


def test_every_operation_is_tried():
    assert set(CASES) == set(runtime.OPERATIONS)


@pytest.mark.parametrize("op", CASES)
def test_an_operation_is_that_of_torch(op):
    arrays, attributes = CASES[op]
    names = [f"x{i}" for i in range(len(arrays))]
    plain = {
        "inputs": [tensor(n, *a.shape, dtype=a.dtype.name) for n, a in zip(names, arrays, strict=True)],
        "operations": [operation(op, " ".join(names), "y", **attributes)],
        "outputs": [{"name": "y", "value": "y"}],
    }
    found = Program("test", plain, {}).run(dict(zip(names, arrays, strict=True)))["y"]
    expected = TORCH.get(op, getattr(torch, op, None))(*map(torch.from_numpy, arrays), **attributes)
    assert found.dtype.name == str(expected.dtype).removeprefix("torch.") and found.shape == tuple(expected.shape)
    np.testing.assert_allclose(found, expected.numpy(), rtol=2e-6, atol=2e-7)


def test_an_index_beyond_its_operand_is_an_error():
    plain = {
        "inputs": [tensor("x", 3), tensor("i", 1, dtype="int64")],
        "operations": [operation("index_select", "x i", "y", dim=0)],
        "outputs": [{"name": "y", "value": "y"}],
    }
    program = Program("test", plain, {})
    for index in (3, -1):
        with pytest.raises(BundleError, match="outside"):
            program.run({"x": [1, 2, 3], "i": [index]})
