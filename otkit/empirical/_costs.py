r"""Costs between two point sets, looked at block by block: a matrix that is held, or points from which it is computed.

The code that solves and certifies transport asks only for blocks of rows of C (n, m) and for single entries, so the
matrix need not exist: for points beyond `MATRIX_BYTES` a block :math:`C_{ij} = (|x_i - y_j| / s)^p` is computed when
needed. Distances come from differences, not from :math:`|x|^2 + |y|^2 - 2 x \cdot y`, so no digit is lost far from the
origin; s is the longest of them, so no scale over- or underflows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from otkit._units import MODERATE, power_of_two, require_finite_length
from otkit.empirical._measures import in_parallel

Result = TypeVar("Result")

MATRIX_BYTES = 2**30
"""Up to this size, 11,585 points on each side, costs between points are held; beyond, they are computed in blocks.

Where a second matrix is held beside them, up to half of it, 8192 points.
"""

GROUP_BYTES = 2**25
"""Up to how much memory the costs of several problems of a batch are computed at once."""

BLOCK = 2**17
"""About how many entries a block has: 1 MB, which the cache of one core holds with what is computed from it."""

LARGE_BLOCK = 5 * 2**20
"""The same for many costs: above 32 MiB memory goes back to the system and is not left in pieces by small results."""

SHORTEST, LONGEST = 2.0**-32, 2.0**500
"""Between these, the square of the longest distance, and of others down to 1e-140 of it, keeps its digits."""

LARGEST_UNIT = 2.0**20
"""Costs with a largest from one to this go to the simplex as they are; it adds one to that, and small ones drown."""


class Costs(Protocol):
    """A matrix C (n, m) of costs that can be looked at in parts."""

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of rows and columns, (n, m)."""
        ...

    @property
    def T(self) -> Costs:
        """The transpose."""
        ...

    def block(self, low: int, high: int) -> np.ndarray:
        """The rows low to high, which must not be written to."""
        ...

    def at(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Single entries."""
        ...

    def within(self, rows: np.ndarray, columns: np.ndarray) -> Costs:
        """The costs between some rows and some columns, given by masks or indices."""
        ...


@dataclass(frozen=True)
class MatrixCosts:
    """Costs as a matrix (n, m) that is held, M over a unit: a power of two from 1 to `LARGEST_UNIT`."""

    M: np.ndarray
    unit: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of rows and columns."""
        return self.M.shape[0], self.M.shape[1]

    @property
    def T(self) -> MatrixCosts:
        """The transpose, a view."""
        return MatrixCosts(self.M.T, self.unit)

    def block(self, low: int, high: int) -> np.ndarray:
        """The rows low to high."""
        block = np.ascontiguousarray(self.M[low:high])
        return block if self.unit == 1 else block * (1 / self.unit)

    def at(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Single entries."""
        return self.M[rows, columns] / self.unit

    def within(self, rows: np.ndarray, columns: np.ndarray) -> MatrixCosts:
        """The costs between some rows and some columns, copied."""
        return MatrixCosts(np.ascontiguousarray(self.M[np.ix_(rows, columns)]), self.unit)


@dataclass(frozen=True)
class PointCosts:
    """Costs :math:`(|x_i - y_j| / s)^p` between points x (n, d) and y (m, d), with s of at least a half.

    Points are in units, of a power of two, that make the longest distance about one; s does so for the largest cost.
    """

    x: Tensor
    y: Tensor
    p: float
    s: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of rows and columns."""
        return len(self.x), len(self.y)

    @property
    def T(self) -> PointCosts:
        """The transpose."""
        return PointCosts(self.y, self.x, self.p, self.s)

    def block(self, low: int, high: int) -> np.ndarray:
        """The rows low to high."""
        return self._power(distances(self.x[low:high], self.y))

    def at(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Single entries."""
        i, j = (torch.as_tensor(index, device=self.x.device) for index in (rows, columns))
        return self._power(torch.linalg.vector_norm(self.x[i] - self.y[j], dim=-1))

    def within(self, rows: np.ndarray, columns: np.ndarray) -> PointCosts:
        """The costs between some rows and some columns."""
        i, j = (torch.as_tensor(index, device=self.x.device) for index in (rows, columns))
        return PointCosts(self.x[i], self.y[j], self.p, self.s)

    def _power(self, distance: Tensor) -> np.ndarray:
        return power(distance if self.s == 1 else distance.div_(self.s), self.p).numpy(force=True)


def distances(x: Tensor, y: Tensor) -> Tensor:
    """The distances (..., n, m), from differences."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def power(distance: Tensor, p: float) -> Tensor:
    """Distances to the power p, in their own memory."""
    return distance if p == 1 else distance.square_() if p == 2 else distance.pow_(p)


def cost_matrix(x: Tensor, y: Tensor, p: float) -> Tensor:
    """The costs |x_i - y_j|^p, (..., n, m)."""
    return power(distances(x, y), p)


def are_held(n: int, m: int, matrices: int) -> bool:
    """Whether so many matrices (n, m) are held."""
    return 8 * n * m * matrices <= MATRIX_BYTES


def costs_between(x: Tensor, y: Tensor, p: float, *, matrices: int = 1) -> tuple[Costs, float]:
    r"""The costs in units of about the largest of them, :math:`(|x_i - y_j| / s)^p`, and the length s > 0.

    Args:
        x: Points, with shape (n, d).
        y: Points, with shape (m, d).
        p: The exponent.
        matrices: How many matrices of their size are held, if they are.
    """
    if are_held(len(x), len(y), matrices):
        [found] = costs_of_batch(x.unsqueeze(0), y.unsqueeze(0), p)
        return found
    x, y, unit = _in_units(x, y)
    longest = unit.new_tensor(max(over_blocks(PointCosts(x, y, 1), lambda low, block: float(block.max()))))
    length = _length(longest, p)
    require_finite_length(unit * length)
    # What is no power of two divides distances, not points: those far from the origin would lose their digits.
    coarse = _length(longest, 1)
    return PointCosts(x / coarse, y / coarse, p, float(length / coarse)), float(unit * length)


def costs_of_batch(x: Tensor, y: Tensor, p: float) -> list[tuple[Costs, float]]:
    """The same for points (k, n, d) and (k, m, d), at once, with the matrices held."""
    distance = distances(x, y)
    longest = distance.amax((-2, -1), keepdim=True)
    unit = torch.ones_like(longest)
    # Seen afterwards, as for a few points the units take as long as the distances.
    if not all(SHORTEST < each < LONGEST for each in longest.flatten().tolist()):
        x, y, unit = _in_units(x, y)
        distance = distances(x, y)
        longest = distance.amax((-2, -1), keepdim=True)
    length = _length(longest, p)
    lengths = (unit * length).flatten()
    require_finite_length(lengths)
    # In place: for large matrices the memory of a copy costs more than the arithmetic.
    costs = power(distance.div_(length), p).numpy(force=True)
    return [(MatrixCosts(M), length) for M, length in zip(costs, lengths.tolist(), strict=True)]


def _in_units(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points (..., n, d) and (..., m, d) over the power of two at or below their largest coordinate, and that power.

    They are not moved to an origin of their own, which would round them.
    """
    unit = power_of_two(torch.maximum(*(points.abs().amax((-2, -1), keepdim=True) for points in (x, y))))
    return x / unit, y / unit, unit


def _length(longest: Tensor, p: float) -> Tensor:
    """What distances are divided by so that no cost is larger than one: a power of two, which does not round.

    For a large p it is the longest: with a power of two the largest cost, at least 2^-p, would not be about one.
    """
    return power_of_two(longest + longest) if p <= MODERATE else torch.where(longest > 0, longest, 1.0)


def over_blocks(costs: Costs, work: Callable[[int, np.ndarray], Result]) -> list[Result]:
    """What work(low, block) returns for each block of rows from row low on, on all threads."""
    n, m = costs.shape
    step = max(1, (BLOCK if n * m <= 2**26 else LARGE_BLOCK) // m)
    spans = [(low, min(low + step, n)) for low in range(0, n, step)]
    return in_parallel(lambda low, high: work(low, costs.block(low, high)), spans)


def extremes(M: np.ndarray) -> tuple[float, float]:
    """The smallest cost or 0, whichever is less, and the largest; NaN where there is one."""
    if M.dtype == np.float64:
        # The bits of non-negative numbers have the order of the numbers; those of all others are larger.
        largest = M.view(np.uint64).max().view(np.float64)
        if 0 <= largest < np.inf and not np.signbit(largest):
            return 0.0, float(largest)
    return float(np.minimum(M.min(), 0.0)), float(M.max())


def row_transform(costs: Costs, g: np.ndarray) -> np.ndarray:
    r"""The c-transform :math:`f_i = \min_j C_{ij} - g_j`, the largest f that is feasible beside g."""
    if isinstance(costs, MatrixCosts) and costs.unit != 1:
        return row_transform(MatrixCosts(costs.M), costs.unit * g) / costs.unit
    return np.concatenate(over_blocks(costs, lambda low, block: (block - g).min(1)))


def column_transform(costs: Costs, f: np.ndarray) -> np.ndarray:
    r"""The c-transform :math:`g_j = \min_i C_{ij} - f_i`, the largest g that is feasible beside f."""
    if isinstance(costs, MatrixCosts) and costs.unit != 1:
        return column_transform(MatrixCosts(costs.M), costs.unit * f) / costs.unit
    found = over_blocks(costs, lambda low, block: (block - f[low : low + len(block), None]).min(0))
    return np.minimum.reduce(found)
