r"""Laws of what a solver returns besides the value: a plan with its marginals, and potentials that prove it optimal."""

from __future__ import annotations

from typing import Any

import numpy as np

from otkit.testing._distance import machine_epsilon
from otkit.testing._measures import to_numpy
from otkit.testing._rounding import SLACK
from otkit.testing._violation import require_at_most, require_equal


def check_marginals(plan: Any, a: Any, b: Any, *, tol: float | None = None) -> None:
    r"""A plan is non-negative, its rows sum to a and its columns to b.

    Args:
        plan: The plan P, with shape (n, m).
        a: The weights :math:`a`, with shape (n,).
        b: The weights :math:`b`, with shape (m,).
        tol: How far each marginal may be off in L1, and an entry may be below zero; by default 16 eps·max(n, m)·mass,
            the rounding of the sums. Give the solver's own tolerance for Sinkhorn's plans.
    """
    eps = machine_epsilon(plan)
    P, a, b = (to_numpy(part) for part in (plan, a, b))
    _require_shape("plan", P, "a", a, "b", b)
    tolerance = SLACK * eps * max(P.shape) * float(a.sum()) if tol is None else tol
    derivation = "16 eps·max(n, m)·mass" if tol is None else "tol, as given"
    context: dict[str, Any] = {"of": "the plan", "derivation": derivation, "inputs": {"P": P, "a": a, "b": b}}
    require_at_most("marginals", "0 <= min P", 0.0, float(P.min()), tolerance, **context)
    for statement, axis, weights in (("|P 1 - a|_1 = 0", 1, a), ("|P^T 1 - b|_1 = 0", 0, b)):
        require_equal("marginals", statement, float(np.abs(P.sum(axis) - weights).sum()), 0.0, tolerance, **context)


def check_dual_feasibility(
    f: Any, g: Any, M: Any, *, a: Any = None, b: Any = None, value: float | None = None, tol: float | None = None
) -> None:
    r"""Potentials prove a lower bound: :math:`f_i + g_j \le M_{ij}`; and with a value, that it is the optimum.

    .. math:: \langle f, a \rangle + \langle g, b \rangle \le \min_P \langle P, M \rangle ,

    so that a value that a plan attains and potentials prove is the exact cost, whatever solver found them.

    Args:
        f: The potentials of the rows, with shape (n,).
        g: The potentials of the columns, with shape (m,).
        M: The costs, with shape (n, m).
        a: The weights of the rows, with shape (n,); uniform by default. Points without mass bind too.
        b: The weights of the columns, with shape (m,); uniform by default.
        value: The value that <f, a> + <g, b> must equal, if given.
        tol: How far these may be off; by default 16 eps·(n + m) times the largest cost.
    """
    eps = machine_epsilon(f)
    f, g, M = (to_numpy(part) for part in (f, g, M))
    _require_shape("M", M, "f", f, "g", g)
    a, b = (np.full(size, 1 / size) if w is None else to_numpy(w) for w, size in zip((a, b), M.shape, strict=True))
    tolerance = SLACK * eps * sum(M.shape) * float(np.abs(M).max()) if tol is None else tol
    derivation = "16 eps·(n + m)·max|M|" if tol is None else "tol, as given"
    inputs = {"f": f, "g": g, "M": M, "a": a, "b": b}
    context: dict[str, Any] = {"of": "the pair of potentials", "derivation": derivation, "inputs": inputs}
    i, j = np.unravel_index((f[:, None] + g - M).argmax(), M.shape)
    left, right = float(f[i] + g[j]), float(M[i, j])
    require_at_most("dual feasibility", f"f[{i}] + g[{j}] <= M[{i}, {j}]", left, right, tolerance, **context)
    if value is not None:
        left, right = float(f @ a + g @ b), float(value)
        require_equal("dual feasibility", "<f, a> + <g, b> = the value", left, right, tolerance, **context)


def _require_shape(
    name: str, matrix: np.ndarray, of_rows: str, rows: np.ndarray, of_columns: str, columns: np.ndarray
) -> None:
    """Raise unless the shape is (n, m), for rows (n,) and columns (m,): others would be broadcast."""
    if matrix.ndim != 2 or (rows.shape, columns.shape) != (matrix.shape[:1], matrix.shape[1:]):
        raise ValueError(
            f"{name} has shape {matrix.shape}, {of_rows} {rows.shape} and {of_columns} {columns.shape}; expected "
            "(n, m), (n,) and (m,)"
        )
