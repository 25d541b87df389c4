import dataclasses
import tomllib

import pytest
from hypothesis import given, strategies as st

from metarl.agents.configs import RL2Config
from metarl.core.config import ConfigError, TrainConfig, build, load_config, to_toml
from metarl.core.errors import UserError


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
        (HEAD + "num_worlds = 0", "num_worlds = 0 is out of range: it must be at least 1"),
        (HEAD + 'num_worlds = "many"', "num_worlds = 'many' must be of type int"),
        (HEAD + "num_worlds = true", "num_worlds = True must be of type int"),
        (HEAD + "[learner]\ndiscount = 1.0", r"discount = 1.0 is out of range: it must be in \[0, 1\)"),
        (HEAD + '[learner]\ncell = "rnn"', "cell = 'rnn' must be one of gru, lstm"),
        (HEAD + "learner = 3", "learner must be a table"),
        ('agent = "rl3"\nfamily = "x"', "unknown agent 'rl3' .did you mean 'rl2'"),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence(tmp_path, text, message):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*No such file"):
        load_config(tmp_path / "none.toml")


@pytest.mark.parametrize("field", [f for f in dataclasses.fields(RL2Config) if f.type in ("int", "float")])
@pytest.mark.parametrize("nonsense", [-1, -1e9, float("nan"), float("-inf")])
def test_no_hyperparameter_accepts_nonsense(field, nonsense):
    value = float(nonsense) if field.type == "float" else -1
    with pytest.raises(ConfigError, match=f"^{field.name} = "):
        RL2Config(**{field.name: value})


@dataclasses.dataclass(frozen=True)
class OwnConfig:
    layers: tuple[int, ...] = (64, 32)
    note: str | None = None


def test_lists_and_absent_values_survive_toml():
    text = to_toml(TrainConfig("own", "half-cheetah-dir", OwnConfig()))
    assert build(OwnConfig, tomllib.loads(text)["learner"], "here") == OwnConfig()


def test_what_toml_cannot_hold_is_refused_before_training():
    with pytest.raises(ConfigError, match=r"layers = .* cannot be written to a TOML file"):
        to_toml(TrainConfig("own", "half-cheetah-dir", OwnConfig(layers={"a": 1})))
