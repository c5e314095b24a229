r"""The potentials of one entropic problem, by one of several methods.

A plan :math:`P_{ij} = a_i b_j e^{(f_i + g_j - M_{ij}) / \varepsilon}` with the marginals a and b is the optimal one.
Points of weight zero have no part in it; their potentials are their limits, the soft c-transforms

.. math:: f_i = -\varepsilon \log \sum_j b_j e^{(g_j - M_{ij}) / \varepsilon} .
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from otkit._arguments import require_count, require_positive
from otkit.empirical._costs import are_held
from otkit.empirical._sinkhorn._newton import annealed_newton
from otkit.empirical._sinkhorn._pot import METHODS as POT_METHODS
from otkit.empirical._sinkhorn._pot import pot_potential
from otkit.empirical._sinkhorn._symmetric import symmetric_potential
from otkit.empirical._sinkhorn._transform import completed, soft_c_transform
from otkit.empirical._sinkhorn._watch import Progress, Watch

METHODS = ("auto", *POT_METHODS)

MATRICES = 2
"""How many matrices are held: the costs and the kernel."""

_SMALLEST_EXPONENT = 1e-3
"""The costs over reg up to which four c-transforms converge, and keep what a kernel near 1 would lose: each contracts
by the square.
"""

_LOST = 1e-13
"""The reg over the largest cost below which exponents M/reg are off by a hundredth, and marginals with them."""


class Entropic(NamedTuple):
    r"""The solution of one entropic problem.

    Attributes:
        f: The potential of the rows, with shape (n,).
        g: The potential of the columns, with shape (m,).
        n_iter: Products with the kernel and its transpose, in pairs, or what takes as long.
        marginal_error: The L1 errors of both marginals of the plan :math:`a b\, e^{(f + g - M) / \varepsilon}`,
            relative to the mass.
        converged: Whether that is at most the tolerance.
    """

    f: np.ndarray
    g: np.ndarray
    n_iter: int
    marginal_error: float
    converged: bool


def entropic_potentials(
    M: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    reg: float,
    *,
    tol: float = 1e-6,
    max_iter: int = 10_000,
    method: str = "auto",
    progress: Progress = None,
    symmetric: bool = False,
) -> Entropic:
    r"""The potentials for a given cost matrix.

    Cost: two matrices of the size of M; the time of some hundred products with one of them, from reg = 0.1 down to
    :math:`10^{-4}` of the mean cost.

    Args:
        M: The costs, finite, with shape (n, m).
        a: The weights :math:`a_i \ge 0`, with shape (n,).
        b: The weights :math:`b_j \ge 0`, with shape (m,), of the same sum.
        reg: The regularisation :math:`\varepsilon > 0`, in the units of the costs.
        tol: The L1 error of both marginals, relative to the mass, at which to stop.
        max_iter: The most iterations.
        method: "auto", Newton's method along a path of regularisations, or the name of one of POT's solvers.
        progress: True for a line on the screen, or a function of the iteration and the marginal error.
        symmetric: Whether M is symmetric and a = b; f and g then come out equal.

    Returns:
        The potentials and how good they are. With progress, a KeyboardInterrupt gives the best so far, unconverged.
        Unconverged ones are completed by a soft c-transform: :math:`\langle f, a \rangle + \langle g, b \rangle` is a
        lower bound of the regularised cost, up to rounding.

    Raises:
        ValueError: A method that is not known, or a reg that is lost in the rounding of M.

    Example:
        >>> M = np.array([[0.0, 1.0], [1.0, 0.0]])
        >>> f, g, *_, converged = entropic_potentials(M, np.full(2, 0.5), np.full(2, 0.5), 0.5)
        >>> np.round(0.25 * np.exp((f[:, None] + g - M) / 0.5), 3)
        array([[0.44, 0.06],
               [0.06, 0.44]])
    """
    require_method(method)
    reg = require_positive("reg", reg)
    a, b, lowest = a / a.sum(), b / b.sum(), min(float(M.min(initial=0.0)), 0.0)
    if lowest < 0:
        M = M - lowest

    watch = Watch(require_count("max_iter", max_iter), progress)

    def solve(a: np.ndarray, b: np.ndarray, M: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        require_reg_above_rounding(reg, float(M.max(initial=0.0)) + lowest)
        if method != "auto" or np.ptp(M) <= _SMALLEST_EXPONENT * reg:
            g = pot_potential(M, a, b, reg, tol, watch, method) if method != "auto" else _nearly_flat(M, a, b, reg)
            return completed(g, a, b, M, reg)
        with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
            if symmetric:
                f, error = symmetric_potential(M, a, reg, tol, watch)
                return f, f, error
            return annealed_newton(M, a, b, reg, tol, watch)

    # Without the points of weight zero: what POT makes of them is not their limit.
    rows, columns = a > 0, b > 0
    whole = rows.all() and columns.all()
    if not whole:
        _require_no_overflow(float(M.max(initial=0.0)))
    with watch:
        inner = M if whole else np.ascontiguousarray(M[np.ix_(rows, columns)])
        f_support, g_support, error = solve(a[rows], b[columns], inner)
    f, g = np.empty(len(a)), np.empty(len(b))
    f[rows], g[columns] = f_support, g_support
    if not rows.all():
        f[~rows] = soft_c_transform(g_support, b[columns], M[~rows][:, columns], reg)
    if not columns.all():
        g[~columns] = soft_c_transform(f_support, a[rows], M[rows][:, ~columns].T, reg)
    return Entropic(f + lowest, g, watch.n_iter, error, bool(error <= tol) and not watch.interrupted)


def _nearly_flat(M: np.ndarray, a: np.ndarray, b: np.ndarray, reg: float) -> np.ndarray:
    g = np.zeros(len(b))
    for _ in range(4):
        g = soft_c_transform(soft_c_transform(g, b, M, reg), a, M.T, reg)
    return g


def require_method(method: Any, n: int = 1, m: int = 1) -> None:
    """Raise if there is no such method, or if it holds more costs (n, m) between points than are held."""
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; expected one of {', '.join(map(repr, METHODS))}")
    if method != "auto" and not are_held(n, m, MATRICES):
        raise ValueError(
            f"method is {method!r}, which holds the {n} x {m} cost matrix, of {8 * n * m / 2**30:.3g} GiB, where none "
            'is held; expected method="auto", which here does without'
        )


def _require_no_overflow(largest: float) -> None:
    if largest == math.inf:
        raise ValueError("costs overflow; expected points whose distances to the power p are in the range of float64")


def require_reg_above_rounding(reg: float, largest: float) -> None:
    """Raise if reg is so small beside the largest cost that no marginal could come out right."""
    _require_no_overflow(largest)
    if not _LOST * largest < reg:
        raise ValueError(
            f"reg is {reg:g} beside a largest cost of {largest:.3g}; expected a reg that is not lost in "
            "its rounding (reg is absolute, in the units of the cost; for no regularisation take transport_cost)"
        )
