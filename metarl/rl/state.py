"""States as tensors: a learner's by name (`part/name`), as checkpoints hold it, and a policy's adaptation state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from jaxtyping import Bool
from torch import Tensor

from metarl.core.graphs import looks

if TYPE_CHECKING:
    from metarl.rl.policy import Policy

S = TypeVar("S")
"""An adaptation state."""

_POLICY = "policy"
_ADAM_KEYS = ("step", "exp_avg", "exp_avg_sq")


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, by the rest of their names."""
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def policy_alone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the part of a learner's state that its policy needs to act."""
    return {name: value for name, value in renamed(state).items() if name.startswith(f"{_POLICY}/")}


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state by today's names: version 0.1 kept SAC's networks together."""
    new = {
        "networks/actor.": f"{_POLICY}/network.",
        "networks/critic.": "critic/",
        "networks/critic_target.": "target/",
    }
    found = dict(state)
    for name, value in state.items():
        for before, after in new.items():
            if name.startswith(before):
                found[after + name.removeprefix(before)] = value
                del found[name]
    return found


def load_policy(policy: Policy[Any], state: Mapping[str, Tensor]) -> None:
    """Restore a policy from its learner's state, whole or `policy_alone`; `ValueError` where it does not fit."""
    state = renamed(state)
    if not isinstance(policy, torch.nn.Module):
        raise ValueError(f"{type(policy).__name__} is no torch module, and needs its learner's whole state")
    load_module(policy, state, _POLICY)


def module_tensors(module: torch.nn.Module, part: str) -> dict[str, Tensor]:
    """Copies of a module's parameters and buffers, on the CPU, as `part/name`."""
    return {f"{part}/{name}": value.cpu().clone() for name, value in module.state_dict().items()}


def load_module(module: torch.nn.Module, state: Mapping[str, Tensor], part: str) -> None:
    """Inverse of `module_tensors`; `ValueError` where a tensor is missing, misshapen or of another kind of number."""
    own = part_of(state, f"{part}/")
    require_like(own, module.state_dict())
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        raise ValueError(str(error).splitlines()[-1].strip()) from None


def require_like(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> None:
    """`ValueError` where a tensor is of another type or number of dimensions than the one of its name in `like`.

    Torch would convert the former without a word. Floats may be of another width: a GPU's are narrower.
    """
    for name in sorted(state.keys() & like.keys()):
        found, own = state[name], like[name]
        both_floats = found.is_floating_point() and own.is_floating_point()
        if not (both_floats or found.dtype == own.dtype) or found.dim() != own.dim():
            kinds = [f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}" for value in (found, own)]
            raise ValueError(f"the tensor {name} is {kinds[0]}, not {kinds[1]}")


def parameters_of(modules: Mapping[str, torch.nn.Module]) -> dict[str, torch.nn.Parameter]:
    """All parameters of some modules, as `part/name`."""
    return {f"{part}/{key}": value for part, module in modules.items() for key, value in module.named_parameters()}


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Sequence[str], part: str) -> dict[str, Tensor]:
    """Copies of Adam's moments and step counts, on the CPU, as `part/name/key`; none before its first step.

    `names` are those of its parameters, in its order.
    """
    return {
        f"{part}/{name}/{key}": value.detach().cpu().clone()
        for name, parameter in zip(names, _parameters(optimizer), strict=True)
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer, names: Sequence[str], state: Mapping[str, Tensor], part: str
) -> None:
    """Inverse of `optimizer_tensors`; `ValueError` where a moment is missing, misshapen or of another type."""
    own = part_of(state, f"{part}/")
    expected = {f"{name}/{key}" for name in names for key in _ADAM_KEYS} if own else set()
    if set(own) != expected:
        raise ValueError(f"the optimiser's tensors do not match: {sorted(set(own) ^ expected)[:3]}")
    flags = [g["fused"] or g["capturable"] for g in optimizer.param_groups for _ in g["params"]]
    for name, parameter, counts_there in zip(names, _parameters(optimizer), flags, strict=True):
        moments = {key: own[f"{name}/{key}"].to(parameter.device, copy=True) for key in _ADAM_KEYS} if own else {}
        if moments and not counts_there:  # else torch waits for the device at each step
            moments["step"] = moments["step"].cpu()
        for key, value in moments.items():
            shape, dtype = ((), torch.float32) if key == "step" else (parameter.shape, parameter.dtype)
            if value.shape != shape or value.dtype != dtype or (key != "exp_avg" and bool((value < 0).any())):
                raise ValueError(f"the optimiser's {name}/{key} is {value.dtype} {tuple(value.shape)}, or below 0")
        optimizer.state[parameter] = moments


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def any_of(mask: Bool[Tensor, "*N"]) -> bool:
    """Whether any is set; on a GPU, where asking would wait for it, always true."""
    return not looks(mask.device) or bool(mask.any())


def select_rows(worlds: Bool[Tensor, "N"], new: S, old: S) -> S:
    """The state of `new` in `worlds`, that of `old` elsewhere."""
    rows = [
        torch.where(worlds.view(-1, *[1] * (x.dim() - 1)), x, y)
        for x, y in zip(new, old, strict=True)  # type: ignore[call-overload]
    ]
    return type(old)(*rows)


def copied(state: S) -> S:
    """A copy of a state: a policy may write into its own."""
    return type(state)(*(x.clone() for x in state))  # type: ignore[attr-defined]


def state_tensors(state: Any) -> dict[str, Tensor]:
    """A state's tensors by name, contiguous copies on the CPU: what a file of it holds."""
    return {name: value.detach().cpu().clone().contiguous() for name, value in state._asdict().items()}


def load_state(policy: Policy[S], tensors: Mapping[str, Tensor], device: torch.device | str = "cpu") -> S:
    """Inverse of `state_tensors`; `ValueError` where the tensors are not those of a state of this policy."""
    rows = len(next(iter(tensors.values()))) if tensors else 0
    empty = policy.initial_state(rows, device)
    like: dict[str, Tensor] = empty._asdict()  # type: ignore[attr-defined]
    if like.keys() != tensors.keys():
        raise ValueError(f"the state's tensors do not match: {sorted(like.keys() ^ tensors.keys())}")
    for name, value in tensors.items():
        if value.shape != like[name].shape or value.dtype != like[name].dtype:
            raise ValueError(f"the state's {name} is {value.dtype} {tuple(value.shape)}, not {tuple(like[name].shape)}")
    return type(empty)(**{name: value.to(device, copy=True) for name, value in tensors.items()})
