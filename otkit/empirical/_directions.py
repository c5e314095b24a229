r"""Directions on the sphere, drawn in blocks.

The integrand of sliced transport is even in θ, and a quadratic form in θ is its leading part, and all of it for p = 2
and two measures that differ by a translation. The mean of a quadratic form over an orthonormal basis is exact,
so directions are drawn as blocks of k orthonormal ones (in the plane, k evenly spaced ones, which are exact for the
higher harmonics too), every block rotated at random and independently. Each direction alone is still uniform, so the
mean is unbiased. The B block means :math:`c_b` are independent, and the standard error of their mean c is estimated by

.. math:: s^2 = \frac{1}{B (B - 1)} \sum_{b=1}^{B} (c_b - c)^2 ,

and for the root, by the delta method, by :math:`s\, /\, (p\, c^{1 - 1/p})`. There are four blocks or more, as large as
the dimension allows; with four the error itself is known to 40 %. (Fewer than four directions are blocks of one.)

References:
    Rowland, Hron, Tang, Choromanski, Sarlos & Weller, 2019. *Orthogonal estimation of Wasserstein distances*.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from otkit._arguments import Restore, allowance, require_count, require_finite, shape

Seed: TypeAlias = torch.Generator | np.random.Generator | int | None

_BLOCKS = 4
"""The fewest blocks, where there are at least as many directions."""


def directions_for(
    points: Tensor, n_projections: int, generator: Seed, given: Tensor | None, restore: Restore, validate: bool
) -> tuple[Tensor, int]:
    """The directions (L, d), given or drawn, and how many of them make an independent block."""
    d = points.shape[-1]
    if given is None:
        directions, block = random_directions(d, n_projections, generator)
        return directions.to(points), block
    if given.ndim != 2 or given.shape[0] == 0 or given.shape[1] != d:
        raise ValueError(f"projections has shape {shape(given)}; expected directions (L, {d}) with L >= 1")
    if validate:
        require_finite("projections", given)
        lengths = torch.linalg.vector_norm(given.detach(), dim=-1, dtype=points.dtype)
        if bool(((lengths - 1).abs() > allowance(8 * d, restore.eps)).any()):
            at = int((lengths - 1).abs().argmax())
            raise ValueError(
                f"projections must have rows of length 1; got one of length {lengths[at].item():.6g} at index {at}"
            )
    return given.to(points), 1


def random_directions(d: int, n_projections: int, generator: Seed = None) -> tuple[Tensor, int]:
    """Uniform directions (L, d) in whole blocks, each with a rotation of its own, and the size of a block."""
    count = require_count("n_projections", n_projections)
    source = as_generator(generator)
    if d == 1:
        return torch.ones((1, 1), dtype=torch.float64), 1
    device = torch.device("cpu") if source is None else source.device
    options: dict[str, Any] = {"generator": source, "device": device, "dtype": torch.float64}
    block = max(1, count // _BLOCKS if d == 2 else min(d, count // _BLOCKS))
    blocks = -(-count // block)
    if d == 2:
        # A half turn, as θ and -θ are the same.
        angles = math.pi * (torch.arange(block, device=device) + torch.rand(blocks, 1, **options)) / block
        directions = torch.stack([angles.cos(), angles.sin()], -1)
    else:
        # The signs that QR chooses do not matter, for the same reason.
        directions = torch.linalg.qr(torch.randn(blocks, d, block, **options)).Q.mT
    return directions.reshape(-1, d), block


def as_generator(generator: Seed) -> torch.Generator | None:
    if generator is None or isinstance(generator, torch.Generator):
        return generator
    if isinstance(generator, np.random.Generator):
        return torch.Generator().manual_seed(int(generator.integers(2**63)))
    if isinstance(generator, int | np.integer) and not isinstance(generator, bool):
        if not -(2**63) <= generator < 2**64:
            raise ValueError(f"generator is {generator}; expected a seed of 64 bits")
        return torch.Generator().manual_seed(int(generator))
    raise TypeError(
        f"generator is {generator!r} of type {type(generator).__name__}; expected a torch.Generator, a "
        "numpy.random.Generator, a whole number as a seed, or None"
    )
