"""A memory beside a policy's own, which says what the task is and is trained for nothing else.

What a policy's memory keeps of its task is what its return asks for, and that is less than could be known. An estimator
is fed the same, and has its parameters to itself: whether there is one changes nothing of how a policy acts
or learns. Its regression is the system identification of Yu et al. 2017 (UP-OSI, arXiv:1702.02453), with a deviation.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from metarl.core.graphs import looks
from metarl.core.types import Metrics
from metarl.rl.adam import Adam
from metarl.rl.cells import Cell
from metarl.rl.finite import Guard
from metarl.rl.networks import as_gaussian, head
from metarl.rl.objectives import gaussian_nll
from metarl.rl.ppo import Chunks
from metarl.rl.state import load_optimizer, optimizer_tensors

_RATE, _LAST_RATE = 1e-2, 1e-3
_EPOCHS = 2
_MINIBATCHES = 4  # per epoch, if there are so many chunks
_MAX_GRAD_NORM = 1.0
_HELD = "estimator/memory"


class Estimator(nn.Module):
    """From what a memory is fed to a Gaussian belief about P privileged numbers, normalised, after each step."""

    def __init__(self, cell: Cell, size: int) -> None:
        super().__init__()
        self.cell = cell
        self.belief = head(cell.hidden, cell.hidden, 2 * size, gain=0.01)

    def beliefs(self, outputs: Float[Tensor, "*B H"]) -> tuple[Float[Tensor, "*B P"], Float[Tensor, "*B P"]]:
        """Mean and log standard deviation of the privileged numbers, by the memory's output."""
        return as_gaussian(self.belief(outputs))

    def loss(
        self, inputs: Float[Tensor, "L S I"], state: Float[Tensor, "S M"], known: Float[Tensor, "L S P"]
    ) -> Float[Tensor, ""]:
        """Negative log-likelihood of what is known, on sequences that begin with the memory as `state` has it."""
        outputs, _ = self.cell.sequence(inputs, state)
        return gaussian_nll(*self.beliefs(outputs), known)


class Regression:
    """The gradient steps on an estimator, with their optimiser, by the chunks that a policy learns from.

    The memory before each chunk is computed as segments come, and carried from one to the next.
    """

    def __init__(self, estimator: Estimator) -> None:
        self._estimator = estimator
        self._names = [name for name, _ in estimator.named_parameters()]
        self._parameters = list(estimator.parameters())
        self._adam = Adam(self._parameters, lr=_RATE)
        self._guard = Guard()
        self._held: Tensor | None = None
        """Of each world, and each image: what to go on from (M, S); None where all trials begin."""

    def update(self, chunks: Chunks, starts: Bool[Tensor, "K N"], ended: bool, progress: float) -> Metrics:
        """Two passes over the chunks of a segment, and of its image if they are there too.

        `starts` tells where a trial begins with a chunk: K of each of N worlds. `ended`: all trials end with the
        segment. Chunks are taken in turn, by strides, so that nothing is drawn.
        """
        assert chunks.privileged is not None
        before, known = self._before(chunks.inputs, starts, ended), chunks.privileged
        for group in self._adam.param_groups:
            group["lr"] = _RATE + progress * (_LAST_RATE - _RATE)
        losses, stride = [], min(_MINIBATCHES, len(before))
        for number in range(_EPOCHS * stride):
            turn = slice(number % stride, None, stride)
            loss = self._estimator.loss(chunks.inputs[:, turn], before[turn], known[:, turn])
            self._step(loss)
            losses.append(loss.detach())
        self._guard.read()
        return {"train/estimator_loss": float(torch.stack(losses).mean())}

    def _step(self, loss: Float[Tensor, ""]) -> None:
        gradients = torch.autograd.grad(loss, self._parameters)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        if looks(loss.device):
            if not self._guard.passes(loss.detach(), *gradients):
                return
        else:
            self._adam.found_inf = bad = self._guard.flag((loss.detach(), *gradients))  # type: ignore[attr-defined]
            self._guard.note(bad)
        nn.utils.clip_grad_norm_(self._parameters, _MAX_GRAD_NORM)
        self._adam.step()

    @torch.no_grad()
    def _before(self, inputs: Float[Tensor, "L S I"], starts: Bool[Tensor, "K N"], ended: bool) -> Float[Tensor, "S M"]:
        """The memory before each chunk; at a trial's start it is empty."""
        chunks, worlds = starts.shape
        sets = inputs.shape[1] // starts.numel()  # the worlds, and their images
        parts = inputs.reshape(len(inputs), sets, chunks, worlds, -1).unbind(dim=2)
        cell, found = self._estimator.cell, []
        state = inputs.new_zeros(sets, worlds, cell.state_size)
        state = state if self._held is None else self._held.to(inputs.device).view_as(state)
        for part, start in zip(parts, starts[:, :, None], strict=True):
            found.append(state * ~start)
            state = cell.sequence(part.flatten(1, 2), found[-1].flatten(0, 1))[1].view_as(state)
        self._held = None if ended else state.flatten(0, 1)
        return torch.stack(found, dim=1).flatten(0, 2)

    def state_dict(self) -> dict[str, Tensor]:
        """Adam's moments, and what the memories hold."""
        held = {} if self._held is None else {_HELD: self._held.cpu().clone()}
        return optimizer_tensors(self._adam, self._names, "estimator/adam") | held

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state_dict`; `ValueError` where it does not fit."""
        load_optimizer(self._adam, self._names, state, "estimator/adam")
        found, size = state.get(_HELD), self._estimator.cell.state_size
        if found is not None and (found.dim() != 2 or found.shape[1] != size):
            raise ValueError(f"the estimator's memory is {tuple(found.shape)}, not of {size} numbers for each world")
        self._held = found
