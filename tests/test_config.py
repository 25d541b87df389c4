import dataclasses
import math
import os
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from metarl.agents import LEARNERS
from metarl.agents.baseline_configs import RecurrentPPOConfig
from metarl.agents.configs import PearlConfig, RL2Config
from metarl.core.config import ConfigError, TrainConfig, build, load_config, to_toml
from metarl.core.errors import UserError
from metarl.core.parameters import declarations, describe, fault
from metarl.core.registry import learner_config_class


def test_toml_round_trip(tmp_path):
    config = TrainConfig("rl2", "half-cheetah-dir", RL2Config(cell="lstm", learning_rate=2e-4), seed=5, max_minutes=2.5)
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config))
    assert load_config(path) == config


@given(st.text(max_size=20))
def test_any_text_survives_toml(name):
    config = TrainConfig(name, "half-cheetah-dir", RL2Config())
    assert tomllib.loads(to_toml(config))["agent"] == name


HEAD = 'agent = "rl2"\nfamily = "half-cheetah-dir"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("agent = ", "is not valid TOML"),
        ('agent = "rl2"', "agent and family must both be given"),
        (HEAD + "total_step = 5", "unknown option 'total_step' .did you mean 'total_steps'"),
        (
            HEAD + "[learner]\nlearning_rat = 1",
            r"\[learner\]: unknown option 'learning_rat' .did you mean 'learning_rate'",
        ),
        (HEAD + "num_worlds = 0", r"num_worlds = 0 is out of range: it must be in \[1, 65536\]"),
        (HEAD + 'num_worlds = "many"', "num_worlds = 'many' must be a whole number"),
        (HEAD + "num_worlds = true", "num_worlds = True must be a whole number"),
        (HEAD + "[learner]\ndiscount = 1.0", r"discount = 1.0 is out of range: it must be in \[0, 1\)"),
        (HEAD + '[learner]\ncell = "rnn"', "cell = 'rnn' must be one of gru, lstm"),
        (HEAD + "learner = 3", "learner must be a table"),
        (HEAD + "learning_rate = 1e-3", r"learning_rate belongs into the table \[learner\]"),
        (HEAD + "[learner]\nnum_worlds = 3", r"num_worlds is an option of the run and belongs above the table"),
        (HEAD + "[learner]\nlr = 3", "unknown option 'lr' .did you mean 'learning_rate'"),
        (HEAD + "[learner]\nshots = 3", r"\[learner\]: rl2 has no option shots; maml-trpo have it"),
        (
            HEAD.replace("rl2", "maml-trpo") + '[learner]\ninner_step_size = "learnt"',
            r"inner_step_size = 'learnt' must be a number in \(0, 100\] or 'learned'",
        ),
        (HEAD + "total_steps = 1.5", "total_steps = 1.5 must be a whole number"),
        (HEAD + "max_minutes = inf", "max_minutes = inf is out of range: it must be a finite number"),
        (HEAD + f"seed = {'9' * 5000}", "is not valid TOML"),
        (HEAD + f"seed = {'[' * 5000}", "is not valid TOML: it is nested too deeply"),
        (f"# {'x' * 2**20}", "more than 1,048,576"),
        ('agent = "rl3"\nfamily = "x"', "unknown agent 'rl3' .did you mean 'rl2'"),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence(tmp_path, text, message):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


def test_whole_numbers_may_be_written_as_floats(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(HEAD + "total_steps = 1e5\nmax_minutes = 3\n")
    config = load_config(path)
    assert (config.total_steps, config.max_minutes) == (100_000, 3.0)
    assert (type(config.total_steps), type(config.max_minutes)) == (int, float)


def test_what_is_no_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="it is not a regular file"):
        load_config(tmp_path / "pipe")


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[1].glob("experiments/**/*.toml")), ids=lambda p: p.parent.name + "/" + p.name
)
def test_what_was_recorded_loads(path):
    if "families" not in tomllib.loads(path.read_text()):  # as where many trainings are listed
        assert load_config(path).agent


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*No such file"):
        load_config(tmp_path / "none.toml")


CONFIGS = [learner_config_class(name) for name in LEARNERS]


def made(config, **values):
    return config("rl2", "point-goal", None, **values) if config is TrainConfig else config(**values)


@pytest.mark.parametrize("config", [*CONFIGS, TrainConfig])
def test_no_number_accepts_nonsense(config):
    for name, kind, declared in declarations(config):
        if kind not in (int, float):
            continue
        with pytest.raises(ConfigError, match=f"^{name} = -1"):
            made(config, **{name: kind(-1)})
        for nonsense in (-1e9, math.nan, math.inf, -math.inf, 10**400, True, "1", None, [1]):
            assert fault(kind, nonsense, declared), (name, nonsense)


@pytest.mark.parametrize("config", [*CONFIGS, TrainConfig])
def test_the_ends_of_every_range_are_told_apart(config):
    """What the range declares as allowed is accepted, and the next number beyond it is not."""
    for name, kind, declared in declarations(config):
        for end, inside in (
            (declared.least, True),
            (declared.most, True),
            (declared.above, False),
            (declared.below, False),
        ):
            if end is None:
                continue
            assert (not fault(kind, end, declared)) == inside, name
            step = 1 if kind is int else max(abs(end), 1) * 1e-9
            beyond = end - step if end in (declared.least, declared.above) else end + step
            assert fault(kind, kind(beyond) if kind is int else beyond, declared), name


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (RL2Config, {"hidden_size": 200_000}, r"in \[1, 8192\]; it would take 149 GiB"),
        (PearlConfig, {"replay_size": 10**12}, "it would take 58.2 TiB"),
        (PearlConfig, {"replay_size": 10**9}, "100 such buffers would take 5.82 TiB"),
        (TrainConfig, {"num_worlds": 65536, "episode_steps": 10**6}, "would take 7.63 TiB of memory"),
        (TrainConfig, {"max_minutes": math.inf}, "it must be a finite number at least 0"),
    ],
)
def test_what_is_too_large_says_what_it_would_take(config, values, message):
    with pytest.raises(ConfigError, match=message):
        made(config, **values)


def test_a_table_of_a_configuration_comes_from_its_declaration():
    rows = {row.name: row for row in describe(RecurrentPPOConfig)}
    assert rows["batch_size"].search == "800 | 1600 | 3200"
    assert (rows["clip"].default, rows["clip"].allowed) == (0.2, "a number in (0, 1)")
    assert rows["hidden_size"].help.startswith("Units of the memory of the policy"), "of the class itself"
    assert rows["clip"].help == "PPO's ratio clip ε.", "of its base"
    assert all(row.help and row.allowed for config in CONFIGS for row in describe(config))


def test_ranges_of_metarl_0_1_say_what_they_are_now(tmp_path):
    (tmp_path / "own.py").write_text("from metarl.core.parameters import FloatRange\n")
    with pytest.raises(UserError, match=r"ImportError: FloatRange of metarl 0\.1 is now Between or Log"):
        learner_config_class(f"{tmp_path}/own.py:Own")


@dataclasses.dataclass(frozen=True)
class OwnConfig:
    layers: tuple[int, ...] = (64, 32)
    note: str | None = None


def test_lists_and_absent_values_survive_toml():
    text = to_toml(TrainConfig("own", "half-cheetah-dir", OwnConfig()))
    assert build(OwnConfig, tomllib.loads(text)["learner"], "here") == OwnConfig()


def test_numbers_of_numpy_survive_toml():
    text = to_toml(TrainConfig("rl2", "half-cheetah-dir", RL2Config(clip=np.float64(0.1))))
    assert tomllib.loads(text)["learner"]["clip"] == 0.1


def test_what_toml_cannot_hold_is_refused_before_training():
    with pytest.raises(ConfigError, match=r"layers = .* cannot be written to a TOML file"):
        to_toml(TrainConfig("own", "half-cheetah-dir", OwnConfig(layers={"a": 1})))
