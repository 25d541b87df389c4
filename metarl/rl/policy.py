"""The protocol of everything that acts, and what our own policies share.

A policy adapts through its *state*: a NamedTuple of tensors, one row per world each, passed in and out. It holds no
source of randomness: what a policy draws, it makes of the `noise` that comes in. So a state can be stored, moved to
another device and taken up again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float32
from torch import Tensor, nn

from metarl.core.info import PolicyInfo
from metarl.core.types import Transition
from metarl.rl.recalibration import Recalibration
from metarl.rl.session import Session

BAND = " ±"
"""Ends the name of a read-out that is the standard deviation of another."""
S = TypeVar("S")
"""An adaptation state: what a policy knows of the task."""


@runtime_checkable
class Policy(Protocol[S]):
    """Acts, and adapts through its state.

    A trial begins with `initial_state`; then come `act` and `observe`, step by step, and `end_episode` between two
    episodes. Each may write into the tensors of the state that it is given: only the one it returns is to be used.
    """

    info: PolicyInfo
    """What it observes and commands."""
    noise_size: int
    """Standard normal numbers Z that it takes per world and step."""

    def initial_state(self, n: int, device: torch.device | str = "cpu") -> S:
        """State of `n` worlds of whose tasks nothing is known yet."""
        ...

    def act(
        self, obs: Float32[Tensor, "N O"], state: S, noise: Float32[Tensor, "N Z"], deterministic: bool = False
    ) -> tuple[Float32[Tensor, "N A"], S]:
        """Action in [-1, 1] (beyond it is clipped by the environment) and state.

        Where `deterministic` the mean action, unless the policy has to explore.
        """
        ...

    def observe(self, state: S, transition: Transition) -> S:
        """Take in what the action led to."""
        ...

    def end_episode(self, state: S, worlds: Bool[Tensor, "N"]) -> S:
        """An episode ended in `worlds`; their trials go on with the next one."""
        ...


@runtime_checkable
class ReadOut(Protocol):
    """A policy whose state can be watched: a few numbers of it, for a plot."""

    def read_out(self, state: Any) -> Mapping[str, Float32[Tensor, "N D"]]:
        """What is worth watching, by its name in a plot; of more than a handful of columns the recorder makes few.

        One named `x ±` is the standard deviation of the one named `x`, and drawn as a band about it.
        """
        ...


@runtime_checkable
class Believing(Protocol):
    """A policy that predicts its task."""

    def beliefs(self, state: Any) -> tuple[Float32[Tensor, "N P"], Float32[Tensor, "N P"]]:
        """Mean and standard deviation of the privileged numbers, in their own units: see `info.privileged`."""
        ...


@runtime_checkable
class Recalibrated(Believing, Protocol):
    """One whose deviations are corrected when its training is over."""

    recalibration: Recalibration

    def mistaken(
        self, state: Any, privileged: Float32[Tensor, "N P"]
    ) -> tuple[Float32[Tensor, "N P"], Float32[Tensor, "N P"]]:
        """Errors of the means, and log standard deviations as yet uncorrected, in units of the prior's."""
        ...


def device_of(policy: Policy[Any]) -> torch.device | None:
    """Where its tensors are, or where it says that they are; None of a policy without any."""
    if isinstance(policy, nn.Module):
        for tensor in (*policy.parameters(), *policy.buffers()):
            return tensor.device
    return getattr(policy, "device", None)


def unsound(policy: Policy[Any]) -> str:
    """What is wrong with a policy whose weights or statistics are not finite numbers; empty where nothing is.

    One fused call, whose answer is waited for.
    """
    state = policy.state_dict() if isinstance(policy, nn.Module) else {}
    tensors = [value for value in state.values() if value.is_floating_point() and value.numel()]
    if not tensors or bool(torch.stack(torch._foreach_norm(tensors, math.inf)).isfinite().all()):
        return ""
    return "its weights hold NaN or infinite numbers"


class NoState(NamedTuple):
    """State of a policy that learns nothing of its task."""


class PolicyModule(nn.Module):
    """What our policies share: parameters that suffice for acting, and by default nothing learnt within a trial."""

    def __init__(self, info: PolicyInfo) -> None:
        super().__init__()
        self.info = info
        self.noise_size = info.action_size

    replayable: bool = False
    """On a device, `act`, `observe` and `end_episode` are the same work each time, whatever the tensors hold.

    What they keep of the parameters is made anew where `core.graphs.capture` says that a capture goes on.
    """

    told: bool = False
    """Privileged numbers stand behind what it observes: it knows its task, and collects for a learner alone."""

    def initial_state(self, n: int, device: torch.device | str = "cpu") -> Any:
        """Nothing known."""
        return NoState()

    def act(self, obs: Tensor, state: Any, noise: Tensor, deterministic: bool = False) -> tuple[Tensor, Any]:
        """See `Policy.act`."""
        raise NotImplementedError

    def observe(self, state: Any, transition: Transition) -> Any:
        """Nothing learnt."""
        return state

    def end_episode(self, state: Any, worlds: Bool[Tensor, "N"]) -> Any:
        """Nothing changed."""
        return state

    def fixed(self) -> Any:
        """What acts as this policy does in one world, by work that does not depend on what tensors hold.

        That is what an export traces, as on a GPU: itself, unless its work has to be laid out otherwise, or more
        exactly than training needs it, for two machines to agree.
        """
        return self

    def session(self, num_worlds: int = 1, seed: int = 0, deterministic: bool = True) -> Session:
        """The policy with its state kept: for a robot, or an environment, that you step yourself."""
        return Session(self, num_worlds, seed, deterministic)
