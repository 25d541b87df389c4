"""Several processes that train one policy: the same to the bit, whatever their number, however uneven their shares."""

import pytest
from of_ranks import CASES, in_processes, trained


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("alone"), CASES)


def test_two_processes_train_every_learner_to_the_same_bit_as_one(alone, tmp_path):
    assert in_processes(2, tmp_path, CASES) == alone


def test_three_processes_do_as_well(alone, tmp_path):
    cases = ["rl2 segments", "maml-trpo"]
    assert in_processes(3, tmp_path, cases) == {case: alone[case] for case in cases}
