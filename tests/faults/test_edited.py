"""Runs that were damaged or edited: each file is refused in a sentence or read as it was; see `damage.py`."""

from damage import try_all


def test_damage_is_refused_or_does_not_matter(tmp_path):
    found = try_all(tmp_path, range(40), ("rl2", "pearl"))
    assert found["traceback"] == found["other"] == 0
    assert found["refused"] > 12
