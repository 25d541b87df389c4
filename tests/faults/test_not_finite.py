"""Numbers that are not finite: never saved, never loaded, and the last good checkpoint is named."""

import json

import pytest
import torch
from rich.console import Console
from tiny import FAMILY, FULL, config, digests

import metarl
from metarl.agents import LEARNERS
from metarl.cli.main import main
from metarl.core import trust
from metarl.core.errors import Diverged, UserError
from metarl.core.files import sealed
from metarl.run import checkpoint
from metarl.run.checkpoint import CheckpointError
from metarl.run.evaluate import evaluate
from metarl.run.run import Run
from metarl.run.sessions import started, train

GOOD = {"policy/a": torch.ones(3), "count": torch.tensor(3)}


def save(folder, state, iteration):
    return checkpoint.save(folder, state, iteration=iteration, total_steps=1, elapsed=1.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_state_that_is_not_finite_is_not_saved(tmp_path, value):
    save(tmp_path, GOOD, 1)
    bad = GOOD | {"policy/b": torch.tensor([1.0, value]), "policy/c": torch.tensor(value).double()}
    with pytest.raises(
        CheckpointError, match=r"2 of its 4 tensors hold NaN or infinite numbers, as policy/b; iter.*1 is"
    ):
        save(tmp_path, bad, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["iteration-000001"]


def test_a_checkpoint_that_is_not_finite_is_refused(tmp_path, monkeypatch):
    save(tmp_path, GOOD, 1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_not_finite", lambda _: "")
        path = save(tmp_path, GOOD | {"policy/a": torch.tensor([float("nan")])}, 2)
    with pytest.raises(
        CheckpointError, match=r"cannot be used: 1 of its 2 tensors .* try --checkpoint iteration-000001"
    ):
        checkpoint.load(path)


def poison(training):
    next(iter(training.learner.policy.parameters())).data.fill_(float("nan"))


def break_in_the_third(training, what):
    iterate = training._iterate

    def broken():
        if training.iteration == 2:
            what()
        return iterate()

    training._iterate = broken


@pytest.mark.parametrize("agent", LEARNERS if FULL else ["rl2"])
def test_a_learner_that_gives_up_names_the_last_good_checkpoint(tmp_path, agent):
    def give_up():
        poison(training)
        raise Diverged("the loss is not finite, 5 updates in a row")

    with started(tmp_path / "run", config(5, agent), ["train"]) as training:
        break_in_the_third(training, give_up)
        with pytest.raises(Diverged, match=r"5 updates in a row; the last good checkpoint is .*iteration-000002$"):
            training.execute(Console(quiet=True))
    assert_all_finite(tmp_path / "run")


@pytest.mark.parametrize(
    ("minutes", "words"),
    [
        (0.0, r"-000003 is not saved: .* hold NaN or infinite .*-000002 is intact$"),
        (1e6, r"diverged: its weights hold NaN or infinite numbers; the last good checkpoint is .*-000002$"),
    ],
    ids=["saved at once", "saved later"],
)
@pytest.mark.parametrize("agent", LEARNERS if FULL else ["recurrent-ppo", "rma"])
def test_a_learner_that_does_not_notice_loses_no_good_checkpoint(tmp_path, agent, minutes, words, figure):
    """Told before the policy acts again: as a checkpoint is measured, or in the next iteration."""
    with started(tmp_path / "run", config(5, agent, checkpoint_minutes=minutes), ["train"]) as training:

        def poisoning(_):
            if training.iteration == 2:
                training.save()
            if training.iteration == 3:
                poison(training)

        with pytest.raises(UserError, match=words):
            training.execute(Console(quiet=True), callbacks=[poisoning])
    assert_all_finite(tmp_path / "run")
    figure(
        f"weights that become NaN, {agent}, {minutes:g} min: never saved, one sentence names the last good checkpoint"
    )


@pytest.fixture(scope="module", params=LEARNERS if FULL else ["recurrent-ppo"])
def poisoned(request, tmp_path_factory):
    """A run whose two newest checkpoints hold NaN, as a training never writes them."""
    path = tmp_path_factory.mktemp("poisoned") / "run"
    run = train(config(1, request.param), path)
    state, _ = checkpoint.load(checkpoint.find(run.checkpoints))
    for name, value in state.items():
        if name.startswith("policy/") and value.is_floating_point():
            state[name] = torch.full_like(value, float("nan"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "_not_finite", lambda _: "")
        patch.setattr(checkpoint, "KEEP", 3)
        for iteration in (2, 3):
            save(run.checkpoints, state, iteration)
    return path


PLAYED = {
    "eval": ("eval", "RUN", "--num-tasks", "2"),
    "against": ("eval", "pretrained:half-cheetah-dir-rl2", "--against", "RUN", "--num-tasks", "2"),
    "video": ("video", "RUN"),
    "resume": ("resume", "RUN", "--total-steps", "10000"),
    "load": None,
}


@pytest.mark.parametrize("verb", PLAYED)
def test_whoever_would_play_it_is_told_the_last_good_checkpoint(poisoned, verb, capsys):
    trust.remember(FAMILY)
    before = digests(poisoned)
    if PLAYED[verb]:
        assert main([word.replace("RUN", str(poisoned)) for word in PLAYED[verb]]) == 2
        said = capsys.readouterr().err
    else:
        with pytest.raises(CheckpointError) as caught:
            metarl.load(poisoned)
        said = f"{caught.value}\n"
    assert said.count("\n") == 1
    assert "-000003 cannot be used: " in said and "NaN or infinite numbers" in said
    assert said.endswith("try --checkpoint iteration-000001\n")
    assert digests(poisoned) == before


def test_a_policy_that_holds_nan_in_memory_does_not_act(poisoned):
    run = Run(poisoned)
    policy, family = run.policy("iteration-000001"), run.family()
    next(iter(policy.parameters())).data.fill_(float("nan"))
    with pytest.raises(UserError, match=r"^this policy cannot be played: its weights hold NaN or infinite numbers$"):
        evaluate(policy, family, family.space.fixed("test", 2), 2, threads=1)


def assert_all_finite(path):
    run = Run(path)
    assert run.manifest().iteration == 2
    for found in checkpoint.existing(run.checkpoints):
        assert all(torch.isfinite(value).all() for value in checkpoint.load(found)[0].values())


@pytest.mark.parametrize(
    "changes",
    [
        {"iteration": 50},
        {"iteration": -5},
        {"iteration": 10**30},
        {"iteration": True},
        {"total_steps": -1},
        {"total_steps": "many"},
        {"elapsed": -1.0},
        {"elapsed": float("inf")},
        {"elapsed": True},
        {"size": 10**30},
        {"validation": float("nan")},
        {"validation": True},
        {"extra": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("number", [1, 2])
def test_a_manifest_that_was_changed_is_refused(tmp_path, changes, number):
    """Also where the checksum was made to fit, or there is none, as in format 1."""
    path = save(tmp_path, GOOD, 1)
    content = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(content | changes))
    with pytest.raises(CheckpointError, match="manifest"):
        checkpoint.load(path)
    del content["checksum"]
    content |= changes
    if number == 2:
        content = sealed(content)
    else:
        wanted = {"iteration", "total_steps", "elapsed", "sha256", *changes}
        content = {"format": 1} | {key: value for key, value in content.items() if key in wanted}
    (path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="manifest") as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_format_1_is_read(tmp_path):
    path = save(tmp_path, GOOD, 1)
    content = json.loads((path / "manifest.json").read_text())
    old = {"format": 1} | {key: content[key] for key in ("iteration", "total_steps", "elapsed", "sha256")}
    (path / "manifest.json").write_text(json.dumps(old))
    state, manifest = checkpoint.load(path)
    assert torch.equal(state["policy/a"], GOOD["policy/a"])
    assert manifest.validation is None
