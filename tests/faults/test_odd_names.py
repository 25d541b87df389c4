"""Names of files that cannot be: too long, or with a NUL. Every verb and option says so in a sentence."""

import pytest

from metarl.cli.main import main

ODD = {"long": "a" * 300, "nul": "a\0b"}
RUN = "pretrained:half-cheetah-dir-rl2"
WORDS = [
    ("video", RUN, "--output", "ODD.mp4"),
    ("video", RUN, "--output", "ODD/x.mp4"),
    ("eval", "ODD"),
    ("eval", "ODD", "--agent", "zero"),
    ("eval", RUN, "--tasks", "ODD"),
    ("eval", RUN, "--against", "ODD"),
    ("eval", RUN, "--checkpoint", "ODD"),
    ("eval", RUN, "--json", "ODD.json", "--num-tasks", "1", "--episodes", "1", "--split", "test"),
    ("check", "ODD"),
    ("check", "ODD.xml"),
    ("check", "ODD.py:X"),
    ("check", "--agent", "ODD.py:X"),
    ("list", "ODD"),
    ("tune", "rl2", "point-goal", "--output", "ODD"),
    ("tune", "rl2", "point-goal", "--config", "ODD"),
    ("train", "rl2", "point-goal", "--output", "ODD"),
    ("train", "--config", "ODD"),
    ("train", "ODD", "point-goal"),
    ("train", "rl2", "ODD.py:X"),
    ("resume", "ODD"),
    ("report", "ODD"),
    ("bench", "--families", "ODD"),
    ("headroom", "ODD"),
    ("headroom", "point-goal", "--output", "ODD", "--total-steps", "10"),
]


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_a_name_that_cannot_be_is_refused_in_a_sentence(words, kind, capsys):
    assert main([word.replace("ODD", ODD[kind]) for word in words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
