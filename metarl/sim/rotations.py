"""Rotation matrices and quaternions (w, x, y, z), in torch; to the last bit what SciPy makes of them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def axes_of(quaternion: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3 3"]:
    """Rotation matrices of quaternions (w, x, y, z)."""
    w, x, y, z = (quaternion / _norm(quaternion)).unbind(dim=1)
    rows = (
        (x * x - y * y - z * z + w * w, 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), -x * x + y * y - z * z + w * w, 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), -x * x - y * y + z * z + w * w),
    )
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def quaternion_of(axes: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n 4"]:
    """Quaternions (w, x, y, z) of rotation matrices, by way of the largest of the four (Shepperd 1978)."""
    a, b, c = axes.unbind(dim=1)
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = a.unbind(dim=1), b.unbind(dim=1), c.unbind(dim=1)
    trace = xx + yy + zz
    candidates = (  # each is the quaternion times four times its own largest element
        (zy - yz, 1 - trace + 2 * xx, yx + xy, zx + xz),
        (xz - zx, xy + yx, 1 - trace + 2 * yy, zy + yz),
        (yx - xy, xz + zx, yz + zy, 1 - trace + 2 * zz),
        (1 + trace, zy - yz, xz - zx, yx - xy),
    )
    found = torch.stack([torch.stack(each, dim=1) for each in candidates], dim=1)
    best = torch.stack((xx, yy, zz, trace), dim=1).argmax(dim=1)[:, None, None].expand(-1, 1, 4)
    chosen = found.gather(1, best)[:, 0]
    return chosen / _norm(chosen)


def principal_axes(tensor: Float[Tensor, "n 3 3"]) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 4"]]:
    """Principal moments of inertia tensors, and the quaternions (w, x, y, z) of their axes."""
    moments, axes = torch.linalg.eigh(tensor)
    axes[:, :, 2] *= torch.linalg.det(axes)[:, None]  # right-handed
    return moments, quaternion_of(axes)


def _norm(quaternion: Float[Tensor, "n 4"]) -> Float[Tensor, "n 1"]:
    """Summed as SciPy does, w last: the same to the last bit."""
    norm: Tensor = torch.linalg.vector_norm(quaternion.roll(-1, dims=1), dim=1, keepdim=True)
    return norm
