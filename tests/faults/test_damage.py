"""Run folders that were damaged or edited: each file is refused in a sentence or read as it was; see `damage.py`."""

from damage import AGENTS, try_all
from tiny import FULL


def test_damage_is_refused_in_one_sentence_or_does_not_matter(tmp_path, figure):
    """No tensor is ever another, unless somebody signed it anew."""
    number, agents = (500, AGENTS) if FULL else (16, ("rl2", "pearl"))
    found = try_all(tmp_path, range(number), agents)
    assert found["traceback"] == found["other"] == 0
    assert found["refused"] > number // 4
    kinds = f"{found['refused']} refused in one sentence, {found['read']} read as they were"
    figure(f"damaged and edited run folders, signed anew or not: {number} of {number}, {kinds}")
