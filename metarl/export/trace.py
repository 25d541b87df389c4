"""A policy as programs: its functions for one world, traced by torch and written in the few operations of the table.

The policy is asked for what is to be traced (`PolicyModule.fixed`); nothing here knows an algorithm. What it would look
at a tensor for is traced as on a GPU: both sides are computed, and chosen between by mask.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions
from torch.func import functionalize
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from metarl.core.errors import UserError
from metarl.core.graphs import unlooked
from metarl.core.types import Transition
from metarl.export import shape_rules, sum_rules
from metarl.export.lowering import Lowering, UnsupportedError, inputs_of
from metarl.export.program import STATE, Program, pruned
from metarl.rl.policy import Policy, ReadOut
from metarl.rl.state import copied

_aten = torch.ops.aten
_RULES = shape_rules, sum_rules  # imported, they are known to the lowering
_WHOLE = (_aten.softplus, _aten.slice_scatter, _aten.select_scatter)  # lowered as they are
_FURTHER = (  # torch writes these in simpler ones, beyond its core
    *(_aten.native_layer_norm, _aten.addcmul, _aten.lerp, _aten.addmm, _aten.baddbmm, _aten.gelu, _aten._softmax),
    *(_aten.linalg_vector_norm, _aten.special_ndtr, _aten.repeat),
)


def fixed_of(policy: Policy[Any]) -> Policy[Any]:
    """What is exported of it: see `PolicyModule.fixed`."""
    made: Policy[Any] = policy.fixed() if hasattr(policy, "fixed") else policy
    return made


def named(state: Any) -> dict[str, Tensor]:
    """The state's tensors by the names that a program has for them; what holds no numbers is no part of a bundle."""
    return {STATE + name: value for name, value in state._asdict().items() if value.numel()}


@dataclass(frozen=True)
class Traced:
    """A policy written out: all that a bundle holds of it."""

    programs: Mapping[str, Program]
    """`act`, `observe`, `end_episode`, and `read_out` where there is one."""
    constants: Mapping[str, np.ndarray]
    """Weights, by the names that programs have for them."""
    state: Mapping[str, np.ndarray]
    """Where nothing is known of the task, by those names."""


def arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """The tensors as NumPy's, contiguous."""
    return {name: np.asarray(value.detach().cpu().contiguous().numpy()) for name, value in tensors.items()}


def traced(policy: Policy[Any]) -> Traced:
    """The policy by mean actions; `UserError` where it does something that no program can."""
    fixed = fixed_of(policy)
    info, state = policy.info, copied(fixed.initial_state(1))
    obs, action = torch.zeros(1, info.observation_size), torch.zeros(1, info.action_size)
    number, flag = torch.zeros(1), torch.zeros(1, dtype=torch.bool)
    held = list(named(state).items())

    def kind(*given: Tensor) -> Any:
        return state._replace(**{name.removeprefix(STATE): x for (name, _), x in zip(held, given, strict=True)})

    seen = [("obs", obs), ("action", action), ("reward", number), ("final_obs", obs), ("terminated", flag)]

    def act(obs: Tensor, noise: Tensor, *state: Tensor) -> Mapping[str, Tensor]:
        command, after = fixed.act(obs, kind(*state), noise, True)
        return {"action": command} | named(after)

    def observe(*given: Tensor) -> Mapping[str, Tensor]:
        return named(fixed.observe(kind(*given[len(seen) :]), Transition(*given[: len(seen)])))

    def end_episode(*state: Tensor) -> Mapping[str, Tensor]:
        return named(fixed.end_episode(kind(*state), torch.ones(1, dtype=torch.bool)))

    def read_out(*state: Tensor) -> Mapping[str, Tensor]:
        assert isinstance(fixed, ReadOut)
        return dict(fixed.read_out(kind(*state)))

    wanted: dict[str, tuple[Callable[..., Mapping[str, Tensor]], list[tuple[str, Tensor]]]] = {
        "act": (act, [("obs", obs), ("noise", torch.zeros(1, policy.noise_size)), *held]),
        "observe": (observe, [*seen, *held]),
        "end_episode": (end_episode, held),
    }
    if isinstance(policy, ReadOut) and held:
        wanted["read_out"] = (read_out, held)
    constants: dict[str, Tensor] = {}
    try:
        made = {name: _program(function, slots, constants) for name, (function, slots) in wanted.items()}
    except (UnsupportedError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"this policy cannot be exported: {type(policy).__name__} does what no program can: {reason}"
        ) from None
    return Traced(made, arrays(constants), {name: value.copy() for name, value in arrays(dict(held)).items()})


def _program(
    function: Callable[..., Mapping[str, Tensor]], slots: Sequence[tuple[str, Tensor]], constants: dict[str, Tensor]
) -> Program:
    """A function of tensors as a program, whose new constants are added to `constants`."""
    names: list[str] = []

    def outputs(*given: Tensor) -> list[Tensor]:
        result = function(*given)
        names[:] = result
        return list(result.values())

    table = {**core_aten_decompositions(), **get_decompositions(_FURTHER)}
    table = {target: rule for target, rule in table.items() if getattr(target, "overloadpacket", None) not in _WHOLE}
    examples = [value.clone() for _, value in slots]
    with unlooked(), torch.no_grad():  # what the policy keeps for speed must not be of the trace
        function(*(value.clone() for _, value in slots))
    with unlooked(), torch.no_grad(), _plain_operations():
        graph = make_fx(functionalize(outputs, remove="mutations_and_views"), decomposition_table=table)(*examples)
        return _lowered(graph, names, slots, constants)


@contextmanager
def _plain_operations() -> Iterator[None]:
    """Within it torch does not call oneDNN, whose recurrent networks are one operation."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TF32 acceleration")
        with torch.backends.mkldnn.flags(enabled=False):
            yield


def _lowered(
    graph: GraphModule, names: list[str], slots: Sequence[tuple[str, Tensor]], constants: dict[str, Tensor]
) -> Program:
    lowering = Lowering(constants)
    inputs, given = inputs_of(slots)
    held: dict[Any, Any] = {}
    places = iter(given)
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            held[node] = next(places)
        elif node.op == "get_attr":
            held[node] = getattr(graph, node.target).detach()
        elif node.op == "call_function":
            args, words = torch.fx.node.map_arg((node.args, dict(node.kwargs)), held.__getitem__)
            held[node] = lowering.lower(node.target, args, dict(words))
            if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
                held[node.args[0]] = held[node]
        else:
            results = torch.fx.node.map_arg(node.args[0], held.__getitem__)
    outputs = {name: lowering.named(value).name for name, value in zip(names, results, strict=True)}
    return pruned(Program(inputs, outputs, tuple(lowering.operations)))
