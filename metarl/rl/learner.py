"""The protocol that every algorithm fulfils, so that one loop, one evaluator and one recorder serve them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from metarl.core.errors import UserError
from metarl.core.info import PolicyInfo
from metarl.core.renamed import old_names
from metarl.core.types import Metrics, Segment
from metarl.rl.parallel import Shares
from metarl.rl.policy import Policy
from metarl.rl.state import load_module, load_optimizer, module_tensors, optimizer_tensors


@runtime_checkable
class Learner(Protocol):
    """Meta-trains a policy. `BaseLearner` has defaults for what few learners care for.

    `config` is of the class that the table `metarl.agents.LEARNERS` names, or the learner's own attribute `Config`.
    All tensors of the learner are on `device`.
    """

    def __init__(
        self, config: Any, info: PolicyInfo, generator: torch.Generator, device: torch.device | str = "cpu"
    ) -> None: ...

    @property
    def policy(self) -> Policy[Any]:
        """What it trains."""
        ...

    @property
    def segment_steps(self) -> int | None:
        """Control steps of each world between two updates; None for whole trials.

        Where they divide a trial and worlds are not staggered, an iteration is a trial, with an update after each.
        """
        ...

    @property
    def wants_privileged(self) -> bool:
        """Whether segments are to hold the privileged numbers, of which the policy sees none."""
        ...

    @property
    def behaviour(self) -> Policy[Any]:
        """The policy that collects the next segment."""
        ...

    def record(self, obs: Tensor, state: Any, noise: Tensor, action: Tensor, next_state: Any) -> Mapping[str, Tensor]:
        """What is to be kept of a step beside what every segment holds: tensors (N, ...), the same names each time.

        `state` is the one that `act` was given, unless the policy writes into it, `next_state` that after `observe`.
        """
        ...

    def update(self, segment: Segment, generator: torch.Generator, progress: float) -> Metrics:
        """Learn from a segment that `behaviour` collected.

        All draws come from `generator`; `progress` in [0, 1] is the share of the training done.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Everything needed to continue exactly: parameters, normalisers, optimiser.

        What the policy needs to act is named `policy/...`; `state.load_policy` needs nothing else.
        """
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore `state_dict`; `ValueError` where a tensor is missing or has the wrong shape."""
        ...


class BaseLearner:
    """Learns from whole trials that the policy itself collects, and records nothing beside what every segment holds."""

    policy: Any
    segment_steps: int | None = None
    wants_privileged: bool = False
    kept_every: Mapping[str, int] = {}
    """What of `record` is kept of so many steps once, the last's, by its name."""

    @property
    def behaviour(self) -> Any:
        """The policy itself."""
        return self.policy

    def record(self, obs: Tensor, state: Any, noise: Tensor, action: Tensor, next_state: Any) -> Mapping[str, Tensor]:
        """Nothing."""
        return {}

    def share(self, shares: Shares) -> None:
        """Told once, before the first update, that the work is cut into pieces, of which this process has its own.

        Segments are whole in every process, and the update must leave every process with the same parameters. Here it
        does all of it in each; a learner with much to do computes the gradients of its pieces and gathers them.
        """

    def modules(self) -> Mapping[str, nn.Module]:
        """What is kept of it, by its part of the state: the policy, and what has learnt or measured beside it."""
        return {"policy": self.policy}

    def optimizers(self) -> Mapping[str, tuple[torch.optim.Optimizer, Sequence[str]]]:
        """Adams with the names of their parameters, by their parts of the state."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """The modules' tensors, and the optimisers'."""
        state: dict[str, Tensor] = {}
        for part, module in self.modules().items():
            state |= module_tensors(module, part)
        for part, (optimizer, names) in self.optimizers().items():
            state |= optimizer_tensors(optimizer, names, part)
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state_dict`."""
        for part, module in self.modules().items():
            load_module(module, state, part)
        for part, (optimizer, names) in self.optimizers().items():
            load_optimizer(optimizer, names, state, part)


@runtime_checkable
class Remarking(Protocol):
    """A learner with something to say before a training begins, as what its buffers take."""

    def remarks(self, total_steps: int) -> list[str]:
        """One line each; `total_steps` is the training's length [control steps]."""
        ...


def require_device(device: str) -> None:
    """`UserError` for a device that this machine does not have."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        if torch.version.cuda is None:
            why = (
                "this build of torch has no CUDA: pip install torch --index-url https://download.pytorch.org/whl/cu130"
            )
        else:
            why = "torch has no CUDA device on this machine: nvidia-smi says whether there is a GPU with a driver"
        raise UserError(f"device = 'cuda': {why}; or use --device cpu")


__getattr__ = old_names(__name__)
