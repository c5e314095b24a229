r"""The entropic dual by Newton's method on half of it, along a path of decreasing regularisation.

With the plan :math:`P_{ij} = u_i K_{ij} v_j`, :math:`K = e^{(f \oplus g - M)/\varepsilon}` for potentials held fixed,
and :math:`v = b / K^\top u` eliminated, the dual is a concave function of :math:`\log u` alone,

.. math:: D(\log u) = \langle \log u, a \rangle - \langle \log K^\top u, b \rangle, \qquad
          \nabla D = a - r, \qquad -\nabla^2 D = S = \operatorname{diag}(r) - P \operatorname{diag}(1/b) P^\top,

with r = P 1. Sinkhorn's iteration is gradient ascent preconditioned by diag(r); it needs :math:`1/(1 - \lambda)`
steps where :math:`1 - \lambda` is the smallest non-zero eigenvalue of :math:`R^{-1/2} S R^{-1/2}`. Newton's direction
solves :math:`S \delta = a - r`,

- by conjugate gradients, :math:`1/\sqrt{1 - \lambda}` products with K and its transpose, fewer where the
  eigenvalues cluster; for a small reg, and where it takes many of them, with a sparse matrix of those of its entries
  that are not lost in the rounding of a product;
- by a Cholesky factorisation of S, which costs about as much as n/6 such pairs of products, once the conjugate
  gradients have needed more than that.

Far from the optimum the components of the measures exchange mass by exponentially small entries, which Newton's
quadratic model gets wrong by factors: the length of the step along :math:`\delta`, at times more than one, is a root of
the derivative of D in that direction, and a sweep of Sinkhorn's after each step repairs single rows. No step begins far
from its optimum: reg decreases by factors of three from a twentieth of the mean cost, each solution the start of the
next. Whenever u or v grow large, they are absorbed into f and g.

References:
    Peyré & Cuturi, 2019. *Computational Optimal Transport*, section 4.4 and remark 4.22.
    Schmitzer, 2019. *Stabilized sparse scaling algorithms for entropy regularized transport problems* (absorption,
    the path of regularisations).
    Brauer, Clason, Lorenz & Wirth, 2017. *A Sinkhorn-Newton method for entropic optimal transport*.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import sparse
from scipy.linalg import cho_solve, get_blas_funcs, get_lapack_funcs

from otkit.empirical._sinkhorn._transform import completed, where_finite
from otkit.empirical._sinkhorn._watch import Watch

_START, _FACTOR, _ON_THE_WAY = 0.05, 3.0, 5e-3
"""The first reg over the mean cost, the ratio of one reg to the next, and the marginal error at which to go on."""

_LARGEST_EXPONENT = 500.0
"""exp(-M/reg) is used as it is while its smallest entry is exp(-500), far from underflow at exp(-745)."""

_ABSORB = np.exp(50.0)
"""The largest that u, v and their inverses may be before they are absorbed."""

_SLOW = 0.7
"""Sinkhorn's sweeps go on while each leaves less than this share of the error."""

_DENSE_STEPS = 25
"""The steps of conjugate gradients after which it pays to look for the few entries of K that matter."""

_DROWNS = 1e-17
"""Entries of W, whose rows and columns have norms of at most one, are left out below this."""

_SMALL = 64
"""Up to this size a Cholesky factorisation costs nothing."""


def annealed_newton(
    M: np.ndarray, a: np.ndarray, b: np.ndarray, reg: float, tol: float, watch: Watch
) -> tuple[np.ndarray, np.ndarray, float]:
    """The potentials f (n,) and g (m,) for costs (n, m) and positive weights of sum one, and the marginal error.

    An interruption that is watched, or the end of the watch's patience, ends the path early: the last g, of whichever
    regularisation, is then completed by its soft c-transform.
    """
    if len(a) > len(b):
        g, f, error = annealed_newton(M.T, b, a, reg, tol, watch)
        return f, g, error
    largest, eps = float(M.max()), np.finfo(float).eps
    path = regularisations(float(a @ M @ b), reg)
    # Costs are rounded to eps of the largest, and marginals are not known any better.
    floor = 2 * eps * largest / reg
    g, scaling = M.min(0), None
    try:
        for level in path:
            start = None if scaling is None and largest <= _LARGEST_EXPONENT * level else g
            scaling = Scaling(M, a, b, level, start, watch)
            scaling.solve(max(tol, floor) if level == reg else max(tol, _ON_THE_WAY))
            g = where_finite(scaling.potentials()[1], g)
            if watch.over:
                break
    except KeyboardInterrupt:
        watch.interrupt()
    if scaling is not None:
        if scaling.reg == reg and scaling.error <= tol:
            return *scaling.potentials(), scaling.error
        g = where_finite(scaling.potentials()[1], g)
    del scaling  # and its kernel, as large as what comes
    return completed(g, a, b, M, reg)


def regularisations(mean: float, reg: float) -> list[float]:
    """From a twentieth of the mean cost down to reg, by factors of three; reg alone if it is larger."""
    path = [reg]
    while path[-1] * _FACTOR < _START * mean:
        path.append(path[-1] * _FACTOR)
    if path[-1] < _START * mean:
        path.append(_START * mean)
    return path[::-1]


class Scaling:
    """A plan diag(u) K diag(v) at one reg, whose columns have their marginals.

    Args:
        M: The costs, with shape (n, m), n at most m for the cheapest steps.
        a: The weights of the rows, positive, of sum one.
        b: The weights of the columns.
        reg: The regularisation.
        g: The potential of the columns to start from; None for 0, where exp(-M/reg) does not underflow.
        watch: Counts the products.
    """

    def __init__(self, M: np.ndarray, a: np.ndarray, b: np.ndarray, reg: float, g: np.ndarray | None, watch: Watch):
        self.M, self.a, self.b, self.reg, self.watch = M, a, b, reg, watch
        self.direct = len(a) <= _SMALL
        if g is None:
            self.f, self.g = np.zeros(len(a)), np.zeros(len(b))
            self.K = np.exp(np.multiply(M, -1 / reg))
        else:
            self.g = g
            self.K = np.subtract(g, M)
            self.K *= 1 / reg
            top = self.K.max(1)
            self.K -= top[:, None]
            np.exp(self.K, out=self.K)
            self.f = -reg * top
        self.u, self.v = a / (self.K @ b), b
        self.refresh()

    def refresh(self) -> None:
        """Give the columns their marginals; absorb u and v where they got large."""
        self.v = self.b / (self.K.T @ self.u)
        if not (_moderate(self.u, self.a) and _moderate(self.v, self.b)):
            self.f, self.g = self.potentials()
            self.u, self.v = self.a, self.b
            np.subtract(self.f[:, None], self.M, out=self.K)
            self.K += self.g
            self.K *= 1 / self.reg
            np.exp(self.K, out=self.K)
            self.v = self.b / (self.K.T @ self.u)
        self.r = self.u * (self.K @ self.v)
        self.error = float(np.abs(self.r - self.a).sum())
        self.watch.count(1, self.error)

    def potentials(self) -> tuple[np.ndarray, np.ndarray]:
        """The f and g with P = a b exp((f + g - M) / reg)."""
        return self.f + self.reg * np.log(self.u / self.a), self.g + self.reg * np.log(self.v / self.b)

    def sweep(self) -> None:
        """One iteration of Sinkhorn's."""
        self.u = self.u * (self.a / self.r)
        self.refresh()

    def solve(self, tol: float) -> None:
        """Sinkhorn's sweeps while they are fast, then Newton's steps, until the marginal error is at most tol."""
        before, sweeps = np.inf, 0
        while self.error > tol and not self.watch.over and (sweeps < 3 or self.error < _SLOW * before):
            before, sweeps = self.error, sweeps + 1
            self.sweep()
        while self.error > tol and not self.watch.over:
            self.step_along(self.direction(tol))
            self.refresh()
            self.sweep()

    def direction(self, tol: float) -> np.ndarray:
        """Newton's direction for log u, or as much of it as conjugate gradients gave."""
        if not self.direct:
            accuracy = max(min(0.1, self.error**0.5), 0.3 * tol / self.error)
            direction, enough = self.conjugate_gradients(accuracy, most=max(len(self.a) // 6, 10))
            if enough:
                return direction
            self.direct = True
        factored = self.cholesky()
        return factored if factored is not None else self.conjugate_gradients(1e-3, most=len(self.a))[0]

    def conjugate_gradients(self, accuracy: float, most: int) -> tuple[np.ndarray, bool]:
        """Solve in the variables R^½ δ, where the matrix is I - Q with Q between 0 and I."""
        scale = 1 / np.sqrt(self.r)
        left, right = self.u * scale, self.v**2 / self.b
        few = None
        residual = (self.a - self.r) * scale
        solution, p = np.zeros_like(residual), residual
        square = residual @ residual
        goal = accuracy**2 * square
        spent, price, k = 0.0, 1.0, 0
        while spent < most:
            if k == _DENSE_STEPS:
                few, price = self.few_entries(left)
            product = left * (self.K @ (right * (self.K.T @ (left * p)))) if few is None else few @ (few.T @ p)
            spent, k = spent + price, k + 1
            q = p - product
            curvature = p @ q
            if not curvature > 1e-14 * (p @ p):
                break
            length = square / curvature
            solution = solution + length * p
            residual = residual - length * q
            before, square = square, residual @ residual
            if square <= goal:
                self.watch.count(math.ceil(spent), self.error)
                return scale * solution, True
            p = residual + (square / before) * p
        self.watch.count(math.ceil(spent), self.error)
        return scale * solution, False

    def few_entries(self, left: np.ndarray) -> tuple[sparse.csr_array | None, float]:
        """The root W of Q = W Wᵀ without what drowns in rounding, and a step's price beside one with K.

        None, and 1, where W keeps too many of its entries.
        """
        W = self.K * left[:, None]
        W *= self.v / np.sqrt(self.b)
        kept = W > _DROWNS
        counts = np.count_nonzero(kept, axis=1)
        price = 4 * counts.sum() / W.size + 0.01
        if price > 0.5:
            return None, 1.0
        at = np.flatnonzero(kept)
        ends = np.concatenate([[0], np.cumsum(counts)])
        return sparse.csr_array((W.ravel()[at], at % W.shape[1], ends), shape=W.shape), price

    def cholesky(self) -> np.ndarray | None:
        """Solve in the same variables by a factorisation; None where rounding left the matrix indefinite."""
        n = len(self.a)
        self.watch.count(max(n // 6, 1), self.error)
        syrk, syr = get_blas_funcs(("syrk", "syr"), (root := np.sqrt(self.r),))
        (potrf,) = get_lapack_funcs(("potrf",), (root,))
        W = self.K * (self.u / root)[:, None]
        W *= self.v / np.sqrt(self.b)
        # A row-major W is a column-major Wᵀ, which BLAS takes without a copy.
        Q = syrk(-1.0, W.T, trans=1, lower=1) if W.flags.c_contiguous else syrk(-1.0, W, lower=1)
        # √r spans the null space, constants added to f: there the matrix is made 1.
        Q = syr(1 / self.r.sum(), root, lower=1, a=Q, overwrite_a=1)
        Q[np.diag_indices(n)] += 1 + 1e-13
        factor, info = potrf(Q, lower=1, overwrite_a=1, clean=0)
        if info != 0:
            return None
        return cho_solve((factor, True), (self.a - self.r) / root, check_finite=False) / root

    def step_along(self, direction: np.ndarray) -> None:
        """Go along the direction about as far as the dual increases."""
        direction = direction - np.median(direction)
        longest = 30 / max(float(np.abs(direction).max()), 1e-300)
        slope = direction @ (self.a - self.r)
        low, high, length = 0.0, longest, min(1.0, longest)
        moved = self.u
        for _ in range(12):
            moved = self.u * np.exp(length * direction)
            moments = self.K.T @ np.stack([moved, direction * moved, direction**2 * moved], 1)
            self.watch.count(1, self.error)
            mean = moments[:, 1] / moments[:, 0]
            first = direction @ self.a - self.b @ mean
            second = self.b @ (moments[:, 2] / moments[:, 0] - mean**2)
            if abs(first) <= 0.2 * slope or (first > 0 and length == longest):
                break
            low, high = (length, high) if first > 0 else (low, length)
            newton = length + first / max(second, 1e-300)
            if not low < newton < high:
                newton = min(2 * length, longest) if first > 0 and high == longest else 0.5 * (low + high)
            length = min(newton, 4 * length)
        self.u = moved


def _moderate(scaling: np.ndarray, weights: np.ndarray) -> bool:
    ratio = scaling / weights
    return bool(ratio.max() <= _ABSORB and ratio.min() >= 1 / _ABSORB)
