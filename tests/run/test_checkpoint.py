import errno
import hashlib
import json
import os
import pickle

import pytest
import torch

from metarl.core.files import sealed
from metarl.run import checkpoint
from metarl.run.checkpoint import CheckpointError

STATE = {"a": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(3, dtype=torch.int64), "b": torch.ones(4).double()}


def save(folder, iteration=1, state=STATE):
    return checkpoint.save(folder, state, iteration=iteration, total_steps=100 * iteration, elapsed=1.5)


def test_round_trip(tmp_path):
    state, manifest = checkpoint.load(save(tmp_path, 7))
    assert (manifest.iteration, manifest.total_steps, manifest.elapsed) == (7, 700, 1.5)
    assert state.keys() == STATE.keys()
    for name, value in STATE.items():
        assert torch.equal(state[name], value)
        assert state[name].dtype == value.dtype


def test_only_the_newest_are_kept_and_the_last_is_found(tmp_path):
    for iteration in (1, 2, 30, 400):
        save(tmp_path, iteration)
    assert [path.name for path in checkpoint.existing(tmp_path)] == ["iteration-000030", "iteration-000400"]
    assert checkpoint.find(tmp_path).name == "iteration-000400"


@pytest.mark.parametrize("position", [0, 5, 60, 100, -1])
def test_a_flipped_byte_is_noticed(tmp_path, position):
    path = save(tmp_path) / "tensors.safetensors"
    blob = bytearray(path.read_bytes())
    blob[position] ^= 0x40
    path.write_bytes(bytes(blob))
    with pytest.raises(CheckpointError, match=r"iteration-000001 is damaged: .* checksum"):
        checkpoint.load(path.parent)


def test_a_truncated_file_names_the_intact_one(tmp_path):
    save(tmp_path, 1)
    path = save(tmp_path, 2) / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CheckpointError, match="try --checkpoint iteration-000001"):
        checkpoint.load(path.parent)


class Payload:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (os.mkdir, (str(self.canary),))


@pytest.mark.parametrize("manifest_too", [False, True])
def test_a_pickle_in_its_place_is_never_executed(tmp_path, manifest_too):
    canary = tmp_path / "executed"
    path = save(tmp_path / "checkpoints")
    evil = pickle.dumps(Payload(canary))
    (path / "tensors.safetensors").write_bytes(evil)
    if manifest_too:  # even with a checksum that fits
        manifest = json.loads((path / "manifest.json").read_text())
        manifest |= {"sha256": hashlib.sha256(evil).hexdigest(), "size": len(evil)}
        (path / "manifest.json").write_text(json.dumps(sealed(manifest)))
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "is not a manifest"),
        ('{"format": 1}', "is not a manifest"),
        (
            '{"format": 1, "iteration": 1, "total_steps": 1, "elapsed": "long", "sha256": ""}',
            "is not a manifest",
        ),
        ('{"format": 3, "iteration": 1, "layers": 3}', "has format 3, this version reads formats 1 and 2"),
        ("[1, 2]", "is not a manifest"),
        (
            '{"format": 99, "iteration": 1, "total_steps": 1, "elapsed": 0.0, "sha256": ""}',
            "has format 99, this version reads formats 1 and 2",
        ),
    ],
)
def test_a_foreign_manifest_is_refused(tmp_path, content, message):
    path = save(tmp_path)
    (path / "manifest.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(path)


def test_a_folder_without_checkpoint_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint in"):
        checkpoint.find(tmp_path)
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        checkpoint.load(tmp_path / "nowhere")


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"cannot save .*iteration-000002 .*No space left.* intact"):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["iteration-000001"]
    assert checkpoint.load(checkpoint.find(tmp_path))[1].iteration == 1
    save(tmp_path, 2)
    assert checkpoint.find(tmp_path).name == "iteration-000002"


def test_a_save_cut_short_is_no_checkpoint(tmp_path):
    """What a power cut leaves behind, a staging folder, is neither found nor in the way."""
    save(tmp_path, 1)
    staging = tmp_path / ".iteration-000002.partial"
    staging.mkdir()
    (staging / "tensors.safetensors").write_bytes(b"half")
    assert checkpoint.find(tmp_path).name == "iteration-000001"
    save(tmp_path, 2)
    assert not staging.exists()


def test_saving_an_iteration_again_never_leaves_it_without_a_checkpoint(tmp_path, monkeypatch):
    """The old one of the same name goes only when the new one is in place."""
    save(tmp_path, 1)
    replace = os.replace

    def fail_for_the_new_one(source, target):
        if str(source).endswith(".partial"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_for_the_new_one)
    with pytest.raises(CheckpointError, match="cannot save"):
        save(tmp_path, 1, {"a": torch.zeros(1)})
    monkeypatch.undo()
    assert torch.equal(checkpoint.load(checkpoint.find(tmp_path))[0]["a"], STATE["a"])


def test_newer_checkpoints_are_set_aside_not_deleted(tmp_path):
    for iteration in (1, 2):
        save(tmp_path, iteration)
    checkpoint.set_aside_after(tmp_path, 1)
    assert checkpoint.find(tmp_path).name == "iteration-000001"
    assert checkpoint.load(tmp_path / "abandoned-iteration-000002")[1].iteration == 2


def test_a_millionth_iteration_is_the_newest(tmp_path):
    for iteration in (999_998, 999_999, 1_000_000):
        save(tmp_path, iteration)
    assert [path.name for path in checkpoint.existing(tmp_path)] == ["iteration-999999", "iteration-1000000"]


@pytest.mark.parametrize("name", ["./iteration-000001", "abandoned-iteration-000001", "../x", "iteration-1"])
def test_a_checkpoint_is_found_by_its_name_alone(tmp_path, name):
    save(tmp_path, 1)
    assert checkpoint.find(tmp_path, "iteration-000001") == tmp_path / "iteration-000001"
    with pytest.raises(CheckpointError, match="unknown checkpoint"):
        checkpoint.find(tmp_path, name)
