"""Configurations that cannot be: each refused in one sentence that names the field, before there is any physics."""

import random

import pytest
from tiny import FULL

import metarl.cli.main as cli
from metarl.agents import LEARNERS
from metarl.core.config import TrainConfig
from metarl.core.parameters import declarations
from metarl.core.registry import family_names, learner_config_class


def text(value):
    """A value as TOML has it."""
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value).replace("'", '"')


def wrong(draw, kind, declared):
    """A value that a field must not have."""
    nonsense = [float("nan"), float("-inf"), [1, 2], "no such thing", ["x"]]
    if kind is str:
        return draw.choice([1, 2.5, True, [1], "no such thing"])  # the last as a curriculum
    if kind is bool:
        return draw.choice([1, "yes", 0.5])
    if kind in (int, float):
        nonsense += [True, "1", -1 - draw.random() * 10 ** draw.randrange(12)]
        beyond = {"above": declared.above, "below": declared.below}
        nonsense += [kind(end) for end in beyond.values() if end is not None]
        nonsense += [declared.least - 1] if declared.least is not None else []
        nonsense += [declared.most * 2 + 1] if declared.most is not None else []
    if kind is int:
        nonsense += [draw.randrange(1, 10) + 0.5, 10**25]
    return draw.choice(nonsense)


def misspelt(draw, name):
    """A name with a letter missing, doubled or swapped."""
    i = draw.randrange(1, len(name) - 1)
    ways = name[:i] + name[i + 1 :], name[:i] + name[i:] * 2, name[: i - 1] + name[i] + name[i - 1] + name[i + 1 :]
    return draw.choice([way for way in ways if way != name])


def invalid(draw):
    """The text of a configuration with one mistake, and a word that the refusal must have."""
    agent, family = draw.choice(list(LEARNERS)), draw.choice(family_names())
    own, run = (declarations(kind) for kind in (learner_config_class(agent), TrainConfig))
    fields = {"agent": text(agent), "family": text(family)}
    learner, word = {}, ""
    name, kind, declared = draw.choice([entry for entry in run if entry[0] not in ("agent", "family", "learner")])
    own_name, own_kind, own_declared = draw.choice(own)
    match draw.randrange(8):
        case 0 | 1:
            word, fields[name] = name, text(wrong(draw, kind, declared))
        case 2 | 3:
            word, learner[own_name] = own_name, text(wrong(draw, own_kind, own_declared))
        case 4:
            word = misspelt(draw, name)
            fields[word] = "1"
        case 5:
            word = misspelt(draw, own_name)
            learner[word] = "1"
        case 6:
            learner[word := name] = "1"
        case 7:
            wanted = draw.choice(["agent", "family"])
            word = misspelt(draw, agent if wanted == "agent" else family)
            fields[wanted] = text(word)
    if word in (name, own_name) and word in {entry[0] for entry in (own if word == name else run)}:
        return invalid(draw)  # a field of both: the mistake might be none
    above, below = ("".join(f"{key} = {value}\n" for key, value in part.items()) for part in (fields, learner))
    return f"{above}[learner]\n{below}", word


@pytest.fixture
def no_physics(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("the physics was reached")

    monkeypatch.setattr("metarl.run.fleet.make_env", fail)


def test_invalid_configurations_are_refused_before_any_physics(tmp_path, no_physics, figure, capsys):
    number, told = 500 if FULL else 25, 0
    for seed in range(number):
        content, word = invalid(random.Random(seed))
        path = tmp_path / "config.toml"
        path.write_text(content)
        code = cli.main(["train", "--config", str(path), "--output", str(tmp_path / "run")])
        said = capsys.readouterr().err
        assert code == 2, content
        assert said.count("\n") == 1 and "Traceback" not in said, said
        assert word in said or repr(word) in said, (content, said)
        assert not (tmp_path / "run").exists()
        told += 1
    figure(f"invalid configurations: {told} of {number} refused in one sentence, none reached the physics")
