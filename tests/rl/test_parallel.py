import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from metarl.rl.parallel import ShardedGradient, Shares


def loss_of(weight, data):
    def loss(index):
        value = (data[index] * weight).square().mean()
        return value, value[None]

    return loss


@pytest.mark.parametrize("size", [2, 7, 64])
def test_shards_sum_to_the_gradient_of_the_whole_minibatch(size):
    torch.manual_seed(0)
    weight = torch.randn(3, dtype=torch.float64, requires_grad=True)
    data = torch.randn(100, 3, dtype=torch.float64)
    index = torch.randperm(100)[:size]
    whole, _ = loss_of(weight, data)(index)
    (expected,) = torch.autograd.grad(whole, [weight])
    (gradient,), diagnostics = ShardedGradient(2)(loss_of(weight, data), [weight], index)
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(diagnostics, whole.detach()[None])


def test_the_number_of_threads_changes_no_bit():
    torch.manual_seed(0)
    weight, data = torch.randn(300, requires_grad=True), torch.randn(1000, 300)
    results = [
        ShardedGradient(2, threads)(loss_of(weight, data), [weight], torch.arange(1000))[0][0] for threads in (1, 2, 4)
    ]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


class Together:
    """Processes that are threads: what `Shares` needs of a group."""

    def __init__(self, rank, rows, meeting):
        self.rank, self._rows, self._meeting, self.received = rank, rows, meeting, 0

    def gather(self, rows):
        self._rows[self.rank] = rows
        self._meeting.wait()
        found = torch.stack(list(self._rows))
        self._meeting.wait()
        self.received += found.numel()
        return found

    def swap(self, rows):
        found = self.gather(rows)[:, self.rank]
        self.received -= rows.numel() * (len(self._rows) - 1)
        return found

    def add(self, row):
        return self.gather(row).sum(dim=0)

    def wait(self):
        self._meeting.wait()


def totals(size, rows, any_order=False):
    """The sum of rows that so many processes shared out, as each has it, and how many numbers the first received."""
    shared, meeting = [None] * size, threading.Barrier(size)

    def work(rank):
        group = Together(rank, shared, meeting)
        shares = Shares(len(rows), rank, size, group, any_order)
        own = shares.own(len(rows))
        return shares.total(rows[own.start : own.stop], len(rows)), group.received

    with ThreadPoolExecutor(size) as pool:
        found = list(pool.map(work, range(size)))
    return [total for total, _ in found], found[0][1]


@pytest.mark.parametrize("width", [3, 5001])
@pytest.mark.parametrize("number", [5, 16])
def test_a_sum_is_the_same_to_the_bit_whoever_adds(number, width):
    rows = (
        torch.randn(number, width, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 6, number)[:, None]
    )
    whole = Shares(number).total(rows, number)
    for size in (2, 3, 4, 5):
        for total in totals(size, rows)[0]:
            assert torch.equal(total, whole)
    torch.testing.assert_close(totals(3, rows, any_order=True)[0][0], whole, rtol=1e-4, atol=1.0)


def test_what_is_received_of_a_long_sum_does_not_grow_with_the_number_of_processes():
    received = [totals(size, torch.ones(size, 8192))[1] for size in (4, 8)]
    assert max(received) <= 2 * 8192
