r"""From a power to its root, with a *defined* gradient where the power is zero.

What is smooth in optimal transport is the power :math:`W_p^p`. The root
:math:`W_p = (W_p^p)^{1/p}` has a kink at coinciding measures, where autograd gives
:math:`\infty \cdot 0 = \mathrm{NaN}`. There, 0 is a subgradient (W is non-negative and 0), and it is
the one that this project defines.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SMALLEST_POWER = 1e-290
"""What a power relative to a length must exceed, so that none of its digits underflowed."""


def in_units(power: Tensor, length: Tensor, p: float) -> Tensor:
    """The power times length^p: 0 where the power is, and infinite only where it is beyond float64 itself."""
    scale = length**p
    if bool((scale < math.inf).all()):
        return power * scale
    half = length ** (p / 2)
    # Finite where it meets 0, in the gradient too.
    half = torch.where(power == 0, half.clamp(max=torch.finfo(half.dtype).max ** 0.5), half)
    return power * half * half


def root(power: Tensor, p: float) -> Tensor:
    """The p-th root of non-negative numbers, with gradient 0 at 0.

    Args:
        power: :math:`W_p^p`, with shape (...).
        p: The exponent, p >= 1.

    Returns:
        :math:`W_p`, with shape (...).

    Example:
        >>> power = torch.tensor([0.0, 4.0], requires_grad=True)
        >>> root(power, 2).sum().backward()
        >>> power.grad
        tensor([0.0000, 0.2500])
    """
    if p == 1:
        return power
    zero = power <= 0
    # The inner where keeps the infinite derivative of the root at 0 out of the graph.
    safe = torch.where(zero, torch.ones_like(power), power)
    return torch.where(zero, torch.zeros_like(power), safe.sqrt() if p == 2 else safe ** (1 / p))
