"""Damaged runs: every file is either refused in one sentence or read as it was; `damage.py` tries more of them."""

from damage import try_all


def test_damage_is_refused_or_does_not_matter(tmp_path):
    found = try_all(tmp_path, range(60), ("rl2", "pearl"))
    assert found["traceback"] == found["other"] == 0
    assert found["refused"] > 20
