"""Batches of pairs by the loops of `lanes`, where Numba is installed: run by run on threads, then what was put off."""

from __future__ import annotations

import functools
import importlib.util
import threading
from typing import Any

import numpy as np
from numpy import ndarray

from otkit._convergence import warn
from otkit.gaussian._bures.memory import empty
from otkit.gaussian._bures.polar import ALIKE, HOPELESS
from otkit.gaussian._bures.threads import on_threads

LARGEST, ALONE = 128, 20
"""The size up to which compiled loops win, and the part of this size that each pair of a batch adds."""
RUN, RUNS = 64, 4
"""The most groups of a run, and the fewest runs into which a batch is cut, whatever the number of threads."""
MANY = 8
"""How many groups there are before pairs are put off."""
PARALLEL = 2**15
"""How many entries the covariances of a batch have before threads save more time than they take to start."""


@functools.cache
def loops() -> Any:
    """The module `lanes` where Numba is installed and not told to leave Python as it is, None elsewhere."""
    if importlib.util.find_spec("numba") is None:
        return None
    try:
        from numba import config

        if getattr(config, "DISABLE_JIT", False):
            return None
        from otkit.gaussian._bures import lanes
    except ImportError as error:
        warn(f"Numba cannot be used, so that Gaussians take longer: {error}", RuntimeWarning)
        return None
    return lanes


def serves(n: int, d: int) -> bool:
    """Whether compiled loops exist and are the fastest for n pairs of size d."""
    return 2 < d <= min(LARGEST, ALONE * n) and loops() is not None


def by_lanes(
    cov1: ndarray, cov2: ndarray, sums: ndarray, threads: int, *, gradients: bool
) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """The value (n,), both gradients (n, d, d), empty where not wanted, and which pairs (n,) are hard.

    Args:
        cov1: The first covariances, contiguous float64, with shape (n, d, d).
        cov2: The second covariances.
        sums: Receives what `require_symmetric` looks at, with shape (2, n, 2).
        threads: How many threads share the pairs.
        gradients: Whether the gradients are wanted.
    """
    lanes = loops()
    n, d, _ = cov1.shape
    value, hard = np.empty(n), np.empty(n, dtype=bool)
    gradient1, gradient2 = empty(2, n if gradients else 0, d, d)
    groups = -(-n // lanes.LANES)
    alike = ALIKE if groups >= MANY else np.inf
    threads = threads if n * d * d > PARALLEL else 1
    own = threading.local()

    def solve(order: ndarray, alike: float) -> tuple[ndarray, ndarray]:
        if not hasattr(own, "room"):
            own.room = lanes.room_for(d)
        out = (value, gradient1, gradient2, hard, sums)
        return lanes.solve(cov1, cov2, order, out, own.room, hopeless=HOPELESS, alike=alike)

    def runs(order: ndarray, least: int) -> list[ndarray]:
        size = lanes.LANES * max(1, min(RUN, -(-len(order) // (lanes.LANES * least))))
        return [order[start : start + size] for start in range(0, len(order), size)]

    later, conditions = zip(*on_threads(threads, lambda run: solve(run, alike), runs(np.arange(n), RUNS)), strict=True)
    if any(map(len, later)):
        rest = np.concatenate(later)[np.argsort(np.concatenate(conditions))]
        on_threads(threads, lambda run: solve(run, np.inf), runs(rest, threads))
    return value, gradient1, gradient2, hard


class Crossed:
    """Pairs of two lists whose factors are known.

    Attributes:
        width: How many pairs are solved at once.
    """

    def __init__(self, first: tuple[ndarray, ndarray], second: tuple[ndarray, ndarray]):
        """Take transposed factors and their inverses, upper triangular, with shapes (n, d, d) and (m, d, d)."""
        self.lists = first, second
        self.width: int = loops().LANES

    @functools.cached_property
    def room(self) -> ndarray:
        """What is computed in."""
        return loops().room_for(self.lists[0][0].shape[-1])

    def values(self, rows: slice, columns: slice) -> ndarray:
        """The values (k,) of a tile's pairs, NaN where the certificate is missed."""
        value, missed = loops().solve_factors(*self.lists, *_pairs(rows, columns), self.room)
        value[missed] = np.nan
        return value

    def add_residuals(
        self, rows: slice, columns: slice, weights: ndarray, sums1: ndarray, sums2: ndarray, start: int
    ) -> ndarray:
        """Add weights times (F - G R)ᵀ and (G - F Rᵀ)ᵀ of a tile's pairs to sums over rows and columns.

        Args:
            rows: The tile's rows.
            columns: Its columns.
            weights: The weights, of the tile's shape.
            sums1: The sums (., d, d) of the rows from `start` on.
            sums2: The sums (m, d, d) of the columns.
            start: The first row of which there is a sum.

        Returns:
            Which pairs, of the tile's shape, missed the certificate and were left out.
        """
        sums = (np.ascontiguousarray(weights).ravel(), sums1, sums2, start)
        _, missed = loops().solve_factors(*self.lists, *_pairs(rows, columns), self.room, sums)
        return missed.reshape(weights.shape)


def _pairs(rows: slice, columns: slice) -> ndarray:
    """The row and the column (2, k) of each pair of a tile."""
    return np.mgrid[rows, columns].reshape(2, -1)
