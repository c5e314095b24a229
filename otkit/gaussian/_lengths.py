"""Roots of squared lengths plus dispersions, where the square of a length would leave the range of float64.

Dispersions are squares themselves, but means can be as far apart as float64 goes, or as near: the square of 1e200 is
infinite, and that of 1e-170 is 0. In units of a power of two no square is far from one, and nothing is rounded.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from otkit._operators import transforming
from otkit._root import root
from otkit._units import SMALLEST_POWER, power_of_two

SHORTEST, LONGEST = 1e-125, 1e150
"""Coordinates between these have differences, 0 or no smaller than eps times them, whose squares keep their digits."""


LEAST_UNIT = 2.0**-1000
"""The smallest unit: it can be divided by, and no dispersion but 0 is as small as its square."""


def moderate(squared: Tensor) -> bool:
    """Whether squares are known to have all their digits, as they do if none of them is 0 or near it."""
    if transforming():
        return False
    if squared.numel() == 0:
        return True
    least, largest = squared.detach().aminmax()
    return least.item() > SMALLEST_POWER and largest.item() < math.inf


def ordinary(*vectors: Tensor) -> bool:
    """Whether vectors and their differences, except where they are 0, are known to have squares with all digits."""
    if transforming():
        return False
    sizes = [vector.detach().abs() for vector in vectors]
    return not any(bool(((size > LONGEST) | ((size > 0) & (size < SHORTEST))).any()) for size in sizes)


def units(extent: Tensor, dispersion: Tensor) -> Tensor:
    """Powers of two near the root of length² plus a dispersion, by the largest coordinate; without derivative."""
    return power_of_two(torch.maximum(extent.detach(), dispersion.detach().clamp(min=0).sqrt())).clamp(min=LEAST_UNIT)


def hypotenuse(squared: Tensor, dispersion: Tensor, unit: Tensor) -> Tensor:
    """The root of a length², in units squared, plus a dispersion, with gradient 0 at 0."""
    # At the smallest unit the derivative in a dispersion, which is 0, may be infinite, and that of the dispersion is 0.
    dispersion = torch.where(unit > LEAST_UNIT, dispersion, 0.0)
    return root(squared + dispersion / unit / unit, 2) * unit
