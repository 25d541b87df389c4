"""Types and shapes of the package's functions are checked in tests, and not at every call."""

import pytest
import torch
import type_checks
from beartype import beartype
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from metarl.rl.prototypes import direction


@type_checks.jaxtyped(typechecker=beartype)
def paired(x: Float[Tensor, "N"], y: Float[Tensor, "N"]) -> int:  # noqa: F821
    return 1


def refused(calls):
    """The numbers of the calls with shapes that do not fit that are refused."""
    found = []
    for number in range(1, calls + 1):
        try:
            paired(torch.ones(2), torch.ones(3))
        except TypeCheckError:
            found.append(number)
    return found


def test_the_first_calls_are_checked_in_every_test_and_then_ever_fewer():
    for _ in range(2):
        type_checks.begin_test()
        assert refused(20) == [1, 2, 3, 4, 8, 16]


def test_the_package_is_checked():
    with pytest.raises(TypeCheckError):
        direction("north")
