"""What the network simplex finds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

OPTIMAL = 1
"""What POT's simplex returns when it has finished."""


class Coupling(NamedTuple):
    """A plan by its non-zero entries, with the potentials that prove it optimal.

    Attributes:
        rows: The row i of each entry.
        columns: The column j of each entry.
        mass: The entries.
        f: The potential of the rows, with shape (n,).
        g: The potential of the columns, with shape (m,).
        optimal: Whether the simplex finished.
        n_iter: The runs of the simplex.
        gap: How far at most the plan's cost is above the optimum, where that is known better than by the bounds.
        certain: Whether the gap, where there is one, is small beside the cost.
        dense: The plan as a matrix, where the solver has made one and it is wanted.
    """

    rows: np.ndarray
    columns: np.ndarray
    mass: np.ndarray
    f: np.ndarray
    g: np.ndarray
    optimal: bool
    n_iter: int = 1
    gap: float | None = None
    certain: bool = True
    dense: np.ndarray | None = None


def plans_of(couplings: Sequence[Coupling], n: int, m: int) -> np.ndarray:
    """The plans (k, n, m) of k couplings."""
    plans = np.zeros((len(couplings), n, m))
    for plan, coupling in zip(plans, couplings, strict=True):
        plan[coupling.rows, coupling.columns] = coupling.mass
    return plans
