r"""The soft c-transform, which turns any potential into a lower bound.

.. math:: (T g)_i = -\varepsilon \log \sum_j b_j e^{(g_j - M_{ij}) / \varepsilon}

maximises the dual D beside g. The rows of the plan of (Tg, g) sum to a, and its mass is one; so
:math:`\langle T g, a \rangle + \langle g, b \rangle = D(T g, g)` is at most the regularised cost, however far g is from
its optimum. For a measure with itself the pair (f, Tf) gives one potential for both,

.. math:: \bar f = \tfrac12 (f + T f), \qquad
          2 \langle \bar f, a \rangle = D(f, T f) \le D(\bar f, \bar f) ,

as D is concave and symmetric.
"""

from __future__ import annotations

import numpy as np


def soft_c_transform(potential: np.ndarray, weights: np.ndarray, M: np.ndarray, reg: float) -> np.ndarray:
    """The potential (n,) that maximises the dual beside one (m,) of positive weights (m,), for costs (n, m)."""
    exponents = potential - M
    exponents /= reg
    top = exponents.max(1)
    if max(top.max(), -exponents.min()) < 0.5:
        # The logarithm of nearly 1, without the digits of the 1.
        return -reg * np.log1p(np.expm1(exponents, out=exponents) @ weights)
    exponents -= top[:, None]
    return -reg * (top + np.log(np.exp(exponents, out=exponents) @ weights))


def completed(
    g: np.ndarray, a: np.ndarray, b: np.ndarray, M: np.ndarray, reg: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Tg, g and the marginal error of their plan, for any g."""
    f = soft_c_transform(g, b, M, reg)
    # The plan has the rows a, and the columns b exp((g - T f) / reg).
    error = np.abs(b * np.expm1((g - soft_c_transform(f, a, M.T, reg)) / reg)).sum()
    return f, g, float(error)


def completed_symmetric(f: np.ndarray, a: np.ndarray, M: np.ndarray, reg: float) -> tuple[np.ndarray, float]:
    """The average of f and Tf, and the marginal error of its plan, for any f."""
    f = 0.5 * (f + soft_c_transform(f, a, M, reg))
    return f, 2 * float(np.abs(a * np.expm1((f - soft_c_transform(f, a, M, reg)) / reg)).sum())


def where_finite(found: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The potential that was found, or the one before it where the kernel under- or overflowed."""
    return found if np.isfinite(found).all() else before
