"""Bundles written by hand, so that the runtime is tested without torch or any exported policy."""

import copy
import hashlib
import json

import numpy as np

NAMES = {"float32": "F32", "int64": "I64", "bool": "BOOL"}


def safetensors(tensors):
    """The bytes of a safetensors file."""
    header, data = {}, b""
    for name, array in tensors.items():
        shape, kind = list(array.shape), NAMES[array.dtype.name]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


OBS, ACT = 9, 2
PARTS = [
    {"name": "gravity", "size": 3, "unit": "1", "elements": ["x", "y", "z"], "low": [-1.1] * 3, "high": [1.1] * 3},
    {"name": "joint_position", "size": 2, "unit": "rad", "elements": ["hip", "knee"], "low": [-3] * 2, "high": [3] * 2},
    {"name": "joint_velocity", "size": 2, "unit": "rad/s", "elements": ["hip", "knee"]},
    {"name": "command", "size": 2, "unit": "m/s", "elements": [], "mean": [0.0, 0.0], "std": [1.0, 1.0]},
]
STATE = [
    {"name": "memory", "shape": [1, 3], "dtype": "float32", "initial": "initial.memory"},
    {"name": "episode", "shape": [1], "dtype": "int64", "initial": "initial.episode"},
]
MEMORY = {"name": "state.memory", "shape": [1, 3], "dtype": "float32"}
EPISODE = {"name": "state.episode", "shape": [1], "dtype": "int64"}


def tensor(name, *shape, dtype="float32"):
    return {"name": name, "shape": list(shape), "dtype": dtype}


def operation(op, taken, out, **attributes):
    return {"op": op, "in": taken.split(), "out": out, **attributes}


def contract():
    """A policy of two servos with a small memory, which counts its episodes."""
    act = {
        "inputs": [tensor("obs", 1, OBS), MEMORY, tensor("noise", 1, ACT)],
        "operations": [
            operation("cat", "obs state.memory", "v0", dim=1),
            operation("matmul", "v0 const.w0", "v1"),
            operation("add", "v1 const.b0", "v2"),
            operation("tanh", "v2", "v3"),
            operation("matmul", "v3 const.w1", "v4"),
            operation("add", "v4 noise", "v5"),
        ],
        "outputs": [{"name": "action", "value": "v5"}, {"name": "state.memory", "value": "v3"}],
    }
    observe = {
        "inputs": [tensor("reward", 1), MEMORY],
        "operations": [
            operation("reshape", "reward", "v0", shape=[1, 1]),
            operation("expand", "v0", "v1", shape=[1, 3]),
            operation("full", "", "v2", shape=[1, 3], value=0.1, dtype="float32"),
            operation("mul", "v1 v2", "v3"),
            operation("add", "state.memory v3", "v4"),
        ],
        "outputs": [{"name": "state.memory", "value": "v4"}],
    }
    end = {
        "inputs": [EPISODE],
        "operations": [
            operation("full", "", "v0", shape=[1], value=1, dtype="int64"),
            operation("add", "state.episode v0", "v1"),
        ],
        "outputs": [{"name": "state.episode", "value": "v1"}],
    }
    action = {"names": ["hip", "knee"], "kind": "position", "unit": "rad", "scale": [0.5, 0.8], "offset": [0.1, -1.0]}
    action |= {"default": [0.1, -1.0], "kp": [50.0, 50.0], "kd": [1.0, 1.0], "torque_limit": [20.0, 30.0]}
    action |= {"velocity_limit": [20.0, 20.0], "position_low": [-0.6, -1.7], "position_high": [0.8, 0.0]}
    action |= {"rate_limit": [25.0, 40.0], "joint_position": "joint_position", "joint_velocity": "joint_velocity"}
    return {
        "schema": 1,
        "control_step": 0.02,
        "episode_steps": 50,
        "episodes_per_trial": 2,
        "observation": copy.deepcopy(PARTS),
        "gravity": "gravity",
        "action": action,
        "state": copy.deepcopy(STATE),
        "noise": {"size": ACT, "deterministic": []},
        "reward": {"needed": True},
        "programs": {"act": act, "observe": observe, "end_episode": end},
    }


def tensors():
    rng = np.random.default_rng(0)
    drawn = {
        "const.w0": rng.normal(size=(OBS + 3, 3)),
        "const.b0": rng.normal(size=3),
        "const.w1": rng.normal(size=(3, 2)),
    }
    made = {name: value.astype(np.float32) for name, value in drawn.items()}
    return made | {"initial.memory": np.zeros((1, 3), np.float32), "initial.episode": np.zeros(1, np.int64)}


def write(folder, change=None, weights=None):
    """Write a bundle; `change(contract)` may alter what it says, ahead of its being written."""
    folder.mkdir(exist_ok=True)
    content, said = safetensors(weights or tensors()), contract()
    (folder / "policy.safetensors").write_bytes(content)
    said["files"] = {"policy.safetensors": hashlib.sha256(content).hexdigest()}
    if change:
        change(said)
    (folder / "contract.json").write_text(json.dumps(said))
    return folder
