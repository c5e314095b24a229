"""Units that keep powers in the range of float64: lengths that do not round, and the way back from them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MODERATE = 4
"""The exponent p up to which a largest power in units of a power of two, which is at least 2^-p, is about one."""

SMALLEST_POWER = 1e-290
"""What a power relative to a length must exceed for none of its digits to have underflowed."""


def farthest(p: float) -> float:
    """How many times the extent of the points with weight a point without is away at most: squares and p-th powers of
    it, at most 1e145, leave room for the extent and its inverse.
    """
    return SMALLEST_POWER ** (-0.5 / max(p, 2))


def in_units(power: Tensor, length: Tensor, p: float) -> Tensor:
    """The power times length^p: 0 where the power is 0, and infinite only where the product is beyond float64."""
    scale = length**p
    if scale.sum().item() < math.inf:
        return power * scale
    half = length ** (p / 2)
    # Finite where it meets 0, in the gradient too.
    half = torch.where(power == 0, half.clamp(max=torch.finfo(half.dtype).max ** 0.5), half)
    return power * half * half


def require_finite_length(length: Tensor, between: str = "x and y") -> None:
    """Raise unless lengths between two arguments are finite."""
    # One sum tells whether all are finite, unless it overflows.
    if not math.isfinite(length.sum().item()) and not bool((length < math.inf).all()):
        raise ValueError(f"{between} are farther apart than the largest float64; expected finite distances")


def power_of_two(length: Tensor) -> Tensor:
    """The power of two at or next below a length, a constant to divide by without rounding; 1 for 0 and infinity."""
    length = length.detach()
    # By the mantissa: torch.compile makes C++ of the integer exponents that does not compile.
    mantissa = torch.frexp(length).mantissa
    return (length / (mantissa + mantissa)).nan_to_num(1.0)  # 0 / 0 and inf / inf
