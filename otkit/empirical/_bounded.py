"""The exact distance with its bounds, at any scale at which there is a distance."""

from __future__ import annotations

from typing import Any

import numpy as np

from otkit.empirical._solve import solve
from otkit.empirical._transport import Transport


def bounded_wasserstein(
    x: np.ndarray, y: np.ndarray, p: float = 2, **options: Any
) -> tuple[tuple[float, float, float], Transport[np.ndarray]]:
    """W_p with a lower and an upper bound of it, and the problem as it was solved, in a unit whose powers fit.

    Args:
        x: Points, with shape (n, d).
        y: Points, with shape (m, d).
        p: The exponent.
        **options: The other arguments of `solve`.

    Raises:
        ValueError: What `solve` raises; points of x and y that are farther apart than the largest float64.
    """
    unit = 1.0
    if x.shape[1:] == y.shape[1:]:
        with np.errstate(over="ignore"):
            extents = np.ptp(np.concatenate([x, y]), axis=0)
        extent = float(extents.max())
        if extent == np.inf:
            raise ValueError("x and y are farther apart than the largest float64; expected finite distances")
        if extent > 0:
            # Coordinates that are the same everywhere may be beyond all powers of the unit; the others are not.
            x, y = (points[:, extents != 0] for points in (x, y))
            unit = 2.0 ** (int(np.frexp(extent)[1]) - 1)  # which does not round
    solved = solve(x / unit, y / unit, p, **options)
    costs = solved.cost, solved.lower_bound, solved.upper_bound
    value, lower, upper = (unit * max(float(cost), 0.0) ** (1 / p) for cost in costs)
    return (value, lower, upper), solved
