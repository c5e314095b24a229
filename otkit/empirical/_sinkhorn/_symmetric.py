r"""The entropic dual of a measure with itself.

For a symmetric cost and a = b the two potentials are equal, and Sinkhorn's update T has the fixed point
:math:`f = T(f)`. Its derivative is minus the plan with rows of sum one, so the average of f and T f,

.. math:: f \leftarrow \tfrac12 (f + T f), \qquad u \leftarrow \sqrt{u \cdot a / K u},

contracts by :math:`(1 - \lambda)/2` in the direction of each eigenvalue λ of that plan: by ½ at least at every step
where the kernel :math:`e^{-M/\varepsilon}` is positive definite, as it is for :math:`|x - y|^p` with p at most 2.

References:
    Feydy et al., 2019. *Interpolating between optimal transport and MMD using Sinkhorn divergences*, section 3.1.
"""

from __future__ import annotations

import numpy as np

from otkit.empirical._sinkhorn._newton import annealed_newton, regularisations
from otkit.empirical._sinkhorn._transform import completed_symmetric, where_finite
from otkit.empirical._sinkhorn._watch import Watch

_ON_THE_WAY = 0.05
"""The marginal error at which to go on to the next smaller reg."""

_PATIENCE = 200
"""Halving an error to rounding takes 50 steps; a kernel that is not positive definite is left to Newton's method."""


def symmetric_potential(M: np.ndarray, a: np.ndarray, reg: float, tol: float, watch: Watch) -> tuple[np.ndarray, float]:
    """The potential f (n,) for symmetric costs (n, n) and positive weights of sum one, and the marginal error."""
    f, u, error, level = np.zeros(len(a)), a, np.inf, reg
    goal = max(tol, 2 * np.finfo(float).eps * float(M.max()) / reg)
    try:
        for level in regularisations(float(a @ M @ a), reg):
            K = np.subtract(f[:, None], M)
            K += f
            K *= 1 / level
            np.exp(K, out=K)
            for _ in range(_PATIENCE):
                r = u * (K @ u)
                # The plan has both its marginals off by as much.
                error = 2 * float(np.abs(r - a).sum())
                watch.count(1, error)
                if not error > (goal if level == reg else _ON_THE_WAY) or watch.over:
                    break
                u = u * np.sqrt(a / r)
            f, u = where_finite(f + level * np.log(u / a), f), a
            if watch.over:
                break
    except KeyboardInterrupt:
        watch.interrupt()
        f, error = where_finite(f + level * np.log(u / a), f), np.inf
    if not error <= goal and not watch.over:
        f, g, error = annealed_newton(M, a, a, reg, tol, watch)
        f = 0.5 * (f + g)
    if level == reg and error <= tol:
        return f, error
    return completed_symmetric(f, a, M, reg)
