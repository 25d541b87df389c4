"""Variation of a robot's shape: links that are longer or shorter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import mujoco
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.tasks import Tasks
from metarl.sim.rotations import axes_of, principal_axes
from metarl.sim.variation import OfOneParameter, constant, object_ids

_ROUND = (int(mujoco.mjtGeom.mjGEOM_CAPSULE), int(mujoco.mjtGeom.mjGEOM_CYLINDER))
_CAPSULE = _ROUND[0]
_Z = 2


@dataclass(frozen=True)
class LinkLength(OfOneParameter):
    """Length of links along their own z axes: whatever sits on them moves along, and their mass is stretched.

    Capsules and cylinders along the z axis lengthen; other geoms keep their shape. Masses stay, so that a longer link
    is a thinner one, and its inertia is that of its mass distribution stretched along z.
    """

    bodies: tuple[str, ...]
    """Names of the links."""
    fields: tuple[str, ...] = (
        *("body_pos", "body_ipos", "body_iquat", "body_inertia", "site_pos"),
        *("geom_pos", "geom_size", "geom_rbound", "geom_aabb"),
    )

    def require(self, model: mujoco.MjModel, tasks: Tasks) -> None:
        """See `Variation`."""
        ratios, number = tasks[self.parameter], len(self.bodies)
        if ratios.shape[1:] != (number,) or not bool((ratios > 0).all()):
            raise UserError(f"task parameter '{self.parameter}' must be a positive ratio for each of {number} links")

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N d"]) -> None:
        """`value`: ratio to the pristine length, of each link."""
        for link, body in enumerate(object_ids(model, "body", self.bodies)):
            ratio, parts = value[:, link : link + 1], _parts(model, body)
            for field, moved in (("body_pos", parts.children), ("site_pos", parts.sites), ("geom_pos", parts.geoms)):
                if moved:
                    live[field][:, constant(moved, ratio.device), _Z] *= ratio
            _lengthen(model, live, parts.along, ratio)
            _stretch(live, body, ratio[:, 0])


class _Parts(NamedTuple):
    """What sits on a link."""

    children: tuple[int, ...]
    sites: tuple[int, ...]
    geoms: tuple[int, ...]
    along: tuple[int, ...]
    """Geoms that lengthen."""


@lru_cache(maxsize=64)
def _parts(model: mujoco.MjModel, body: int) -> _Parts:
    owned = [np.flatnonzero(owner == body) for owner in (model.body_parentid, model.site_bodyid, model.geom_bodyid)]
    children, sites, geoms = (tuple(numbers.tolist()) for numbers in owned)
    axes = axes_of(torch.from_numpy(model.geom_quat[list(geoms)].copy()).reshape(-1, 4))[:, _Z, _Z].abs().tolist()
    kinds = model.geom_type[list(geoms)].tolist()
    along = [geom for geom, kind, z in zip(geoms, kinds, axes, strict=True) if kind in _ROUND and z > 1.0 - 1e-6]
    return _Parts(children, sites, geoms, tuple(along))


def _lengthen(
    model: mujoco.MjModel, live: Mapping[str, Tensor], geoms: tuple[int, ...], ratio: Float[Tensor, "N 1"]
) -> None:
    """Half lengths, and the sphere and box in which MuJoCo looks for contacts."""
    for geom in geoms:
        size = live["geom_size"][:, geom]
        before, radius = size[:, 1].clone(), size[:, 0]
        size[:, 1] *= ratio[:, 0]
        grown = size[:, 1] - before
        live["geom_aabb"][:, geom, 5] += grown
        sphere = size[:, 1] + radius if int(model.geom_type[geom]) == _CAPSULE else torch.hypot(size[:, 1], radius)
        live["geom_rbound"][:, geom] = torch.where(grown == 0.0, live["geom_rbound"][:, geom], sphere)


def _stretch(live: Mapping[str, Tensor], body: int, ratio: Float[Tensor, "N"]) -> None:
    """Centre of mass and inertia of a body whose mass distribution is stretched along z by `ratio`.

    With P = ∫ r rᵀ dm / m about the centre of mass, J = m (tr(P) 1 − P): the stretch scales rows and columns of P.
    """
    fields = ("body_ipos", "body_iquat", "body_inertia")
    centre, quaternion, inertia = own = [live[field][:, body] for field in fields]
    scale = torch.stack((torch.ones_like(ratio), torch.ones_like(ratio), ratio), dim=1)
    axes = axes_of(quaternion)
    moments = axes @ torch.diag_embed(inertia.sum(dim=1, keepdim=True) / 2 - inertia) @ axes.mT
    moments = moments * scale[:, :, None] * scale[:, None]
    whole = moments.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None]
    principal, turned = principal_axes(whole * torch.eye(3, dtype=ratio.dtype, device=ratio.device) - moments)
    for field, before, after in zip(fields, own, (centre * scale, turned, principal), strict=True):
        live[field][:, body] = torch.where(ratio[:, None] == 1.0, before, after)
