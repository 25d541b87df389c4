"""Replay per task: what is written is what is drawn, and no task sees another's."""

import pytest
import torch
from hypothesis import given, strategies as st

from metarl.rl.replay import TaskReplay, picked

WRITES = st.lists(
    st.one_of(
        st.lists(st.integers(0, 3), min_size=0, max_size=9),  # the slots of rows appended at once
        st.integers(0, 3),  # a slot to clear
    ),
    max_size=8,
)


def rows_of(buffer, slot):
    return sorted(buffer.rows[slot, : int(buffer.size[slot]), 1].tolist())


@given(WRITES)
def test_it_holds_the_newest_rows_of_each_task_and_only_those(writes):
    """Against lists; a row is [its slot, its number]. Also: drawn rows are of the slot asked for, and still held."""
    buffer, expected, number = TaskReplay(4, 5, 2), [[] for _ in range(4)], 0
    for write in writes:
        if isinstance(write, int):
            buffer.clear(torch.tensor([write]))
            expected[write] = []
            continue
        rows = [[float(slot), float(number + i)] for i, slot in enumerate(write)]
        buffer.add(torch.tensor(write, dtype=torch.long), torch.tensor(rows).reshape(-1, 2))
        for slot, value in rows:
            expected[int(slot)] = [*expected[int(slot)], value][-5:]
        number += len(write)
    assert [rows_of(buffer, slot) for slot in range(4)] == expected
    filled = buffer.size.nonzero()[:, 0]
    if len(filled):
        drawn = buffer.sample(filled, 20, torch.Generator().manual_seed(0))
        for slot, rows in zip(filled.tolist(), drawn, strict=True):
            assert set(rows[:, 0].tolist()) == {float(slot)}
            assert set(rows[:, 1].tolist()) <= set(expected[slot])


def test_it_wraps():
    buffer = TaskReplay(2, 4, 1)
    for first in range(0, 9, 3):
        buffer.add(torch.ones(3, dtype=torch.long), torch.arange(first, first + 3.0)[:, None])
    assert sorted(buffer.rows[1, :, 0].tolist()) == [5.0, 6.0, 7.0, 8.0]
    assert buffer.size.tolist() == [0, 4]


@pytest.mark.parametrize(
    ("added", "expected"), [((2,), {0, 1}), ((2, 3), {0, 1}), ((3, 4), {2}), ((2, 5), {2, 3, 4, 5, 6})]
)
def test_earlier_rows_are_those_before_the_last_writing(added, expected):
    """In a buffer of 5, wrapped or not, whatever is written to other tasks; all rows where there are none before."""
    buffer, number = TaskReplay(2, 5, 1), 0
    for count in added:
        rows = torch.arange(number, number + count).float()[:, None]
        buffer.add(torch.zeros(count, dtype=torch.long), rows)
        number += count
    buffer.add(torch.ones(4, dtype=torch.long), torch.full((4, 1), -1.0))
    drawn = buffer.sample(torch.tensor([0]), 200, torch.Generator().manual_seed(0), earlier=True)
    assert set(drawn.flatten().tolist()) == expected


def test_every_row_is_drawn_equally_often():
    buffer = TaskReplay(1, 10, 1)
    buffer.add(torch.zeros(4, dtype=torch.long), torch.arange(4.0)[:, None])
    drawn = buffer.sample(torch.tensor([0]), 40_000, torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn.flatten().long(), minlength=4) / 40_000
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=0.01)


def test_a_restored_buffer_goes_on_as_the_first_does():
    first, second = TaskReplay(5, 4, 2), TaskReplay(5, 4, 2)
    slots = torch.tensor([2, 0, 2, 2, 2, 2])
    first.add(slots, torch.randn(6, 2))
    state = first.state_dict()
    assert state["rows"].shape == (3, 4, 2)  # only what is in use
    second.load_state_dict(state)
    old = TaskReplay(5, 4, 2)
    old.load_state_dict({name: value for name, value in state.items() if name != "newest"})  # as they once were
    assert torch.equal(old.rows, first.rows)
    more = torch.randn(6, 2)
    for buffer in (first, second):
        buffer.add(slots, more)
    assert torch.equal(first.rows, second.rows)
    assert first.state_dict().keys() == second.state_dict().keys()
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    with pytest.raises(ValueError, match="another number of tasks"):
        TaskReplay(6, 4, 2).load_state_dict(state)
    with pytest.raises(ValueError, match="size mismatch"):
        TaskReplay(5, 4, 3).load_state_dict(state)


def test_slots_are_picked_as_multinomial_does():
    """Bit for bit, so that a training is what it was before it was done without."""
    for count, number in ((100, 16), (16, 16), (7, 3), (30, 1), (3, 8)):
        slots = torch.arange(5, 5 + count)
        one, other = (torch.Generator().manual_seed(3) for _ in range(2))
        odds, again = torch.ones(20, count), count < number
        expected = slots[torch.multinomial(odds, number, again, generator=one)]
        assert torch.equal(picked(slots, 20, number, other), expected)
        assert again or all(len(set(row)) == number for row in expected.tolist())
