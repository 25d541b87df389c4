"""The metric of prototypes, against hand computation and closed forms."""

import math

import pytest
import torch

from metarl.rl.prototypes import contrastive_loss, direction, moved, nearest


def test_a_direction_has_the_length_of_a_standard_normal_s_and_zero_stays():
    got = direction(torch.tensor([[3.0, 4.0], [0.0, 0.0], [-300.0, 400.0]]))
    root = math.sqrt(2.0)
    torch.testing.assert_close(got, torch.tensor([[0.6 * root, 0.8 * root], [0.0, 0.0], [-0.6 * root, 0.8 * root]]))


def test_the_loss_has_its_closed_form_for_two_orthogonal_tasks():
    """Query and support alike: log(1 + e^(−1/T)); lengths do not count; swapped: log(1 + e^(1/T))."""
    query, task = torch.tensor([[2.0, 0.0], [0.0, 0.5]]), torch.tensor([4, 9])
    got = contrastive_loss(query, 7.0 * query, task, 0.5)
    assert got.item() == pytest.approx(math.log1p(math.exp(-2.0)))
    assert contrastive_loss(query, query.flip(0), task, 0.5).item() == pytest.approx(math.log1p(math.exp(2.0)))


def test_embeddings_all_alike_cost_the_logarithm_of_the_number_of_tasks():
    query = torch.ones(5, 3)
    assert contrastive_loss(query, query, torch.arange(5), 0.1).item() == pytest.approx(math.log(5.0))


def test_a_task_drawn_twice_is_no_negative_of_itself():
    """Two rows of task 0 and one of task 1, all alike: rows of task 0 have one negative, that of task 1 has two."""
    query = torch.ones(3, 2)
    got = contrastive_loss(query, query, torch.tensor([0, 0, 1]), 0.1)
    assert got.item() == pytest.approx((2 * math.log(2.0) + math.log(3.0)) / 3)
    assert contrastive_loss(query[:2], query[:2], torch.tensor([0, 0]), 0.1).item() == 0.0


def test_prototypes_move_towards_the_mean_of_their_embeddings_and_unknown_ones_become_it():
    root = math.sqrt(2.0)
    before = root * torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    embedding = root * torch.tensor([[0.0, 1.0], [0.0, -1.0], [0.6, 0.8]])
    after = moved(before, torch.tensor([True, False, True]), torch.tensor([0, 1, 0]), embedding, 0.25)
    by_hand = torch.tensor([0.75 + 0.25 * 0.3, 0.25 * 0.9])
    torch.testing.assert_close(after[0], root * by_hand / by_hand.norm())
    torch.testing.assert_close(after[1], embedding[1])
    torch.testing.assert_close(after[2], before[2])


def test_the_nearest_is_the_nearest():
    places = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    points = torch.tensor([[0.4, 0.1], [0.6, 0.1], [0.0, 1.6], [9.0, 0.0]])
    assert nearest(points, places).tolist() == [0, 1, 2, 1]
