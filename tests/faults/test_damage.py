"""Run folders that something damaged: read as they are, or refused in one sentence, in bounded time and memory."""

import random
import shutil

import pytest
import torch
from tiny import FULL, config

from metarl.api import evaluate
from metarl.core.errors import UserError
from metarl.run import checkpoint
from metarl.run.run import Run
from metarl.run.sessions import train


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A run with an evaluation."""
    path = tmp_path_factory.mktemp("damage") / "run"
    run = train(config(), path)
    run.write_evaluation(evaluate(run, num_tasks=2))
    return path


def damaged(draw, content):
    """Content that was cut off, changed, doubled or overwritten somewhere."""
    place = draw.randrange(len(content))
    end = place + draw.randrange(1, 65)
    match draw.randrange(6):
        case 0:
            return content[:place]
        case 1:
            return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
        case 2:
            return content[:place] + content[end:]
        case 3:
            return content[:end] + content[place:]
        case 4:
            return content[:place] + draw.randbytes(end - place) + content[end:]
        case _:
            words = (b"1e999", b"-5", b"true", b"null", b'"x"', b"[[[[", b"NaN", b"\x00", b"9" * 400)
            return content[:place] + draw.choice(words) + content[end:]


def read(path):
    """The tensors of a run, after all else that is read of one."""
    run = Run.open(path)
    _ = run.config_values, run.provenance(), run.metrics, run.curve, run.times(), run.evaluations, run.info
    state, _ = checkpoint.load(checkpoint.find(run.checkpoints))
    run.policy()
    return state


def test_damaged_run_folders_are_refused_in_one_sentence_or_read_as_they_were(sound, tmp_path, figure):
    """A checkpoint's tensors are never others than those that were saved."""
    number, refused = 500 if FULL else 25, 0
    good = {found.name: checkpoint.load(found)[0] for found in checkpoint.existing(Run(sound).checkpoints)}
    files = [path for path in sorted(sound.rglob("*")) if path.is_file() and "tensorboard" not in path.parts]
    files = [path.relative_to(sound) for path in files if path.stat().st_size]
    for seed in range(number):
        draw, run = random.Random(seed), shutil.copytree(sound, tmp_path / "run")
        target = run / files[seed % len(files)]
        target.write_bytes(damaged(draw, target.read_bytes()))
        try:
            state = read(run)
            newest = checkpoint.find(run / "checkpoints").name
            assert all(torch.equal(value, good[newest][name]) for name, value in state.items()), (seed, target)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 2000, (seed, target)
        shutil.rmtree(run)
    assert refused > number // 4
    figure(f"damaged run folders: {number} of {number} refused in one sentence ({refused}) or read as they were")
