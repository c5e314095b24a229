"""Deliberately wrong implementations, each a mistake that people make, and the laws that must tell.

What a law is worth is what it finds: every law of `otkit.testing.LAWS` fails on at least one of these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ot
import torch

from otkit import empirical, gaussian


@dataclass(frozen=True)
class Wrong:
    """A wrong distance, where it is used, and the laws that it breaks for certain."""

    distance: Callable[..., Any]
    on: str
    breaks: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.distance.__name__


# Points


def _w2(M):
    """W2 of uniform weights, for squared costs M (n, m)."""
    a, b = (np.full(size, 1 / size) for size in M.shape)
    return np.sqrt(ot.emd2(a, b, M.astype(float).clip(0)))


def squared_instead_of_root(x, y):
    return empirical.transport_cost(x, y, 2)


def zero(x, y):
    return 0.0


def mean_distance(x, y):
    """The cost of the independent coupling: what an unconverged Sinkhorn gives."""
    return np.sqrt(((x[:, None] - y) ** 2).sum(-1).mean())


def greedy_matching(x, y):
    """Each point of x to the nearest that is left."""
    left, total = list(range(len(y))), 0.0
    for point in x:
        costs = ((point - y[left]) ** 2).sum(-1)
        total += costs.min()
        left.pop(int(costs.argmin()))
    return np.sqrt(total / len(x))


def nearest_neighbours(x, y):
    """The mean over x of the distance to the nearest of y: one side of a Chamfer distance."""
    return np.sqrt(((x[:, None] - y) ** 2).sum(-1).min(1).mean())


def float32_cast(x, y):
    return float(empirical.wasserstein(x.astype(np.float32), y.astype(np.float32)))


def gram_trick(x, y):
    """|x|² + |y|² - 2<x, y> in float32, clipped at zero: far from the origin nothing is left."""
    u, v = (points.astype(np.float32) for points in (x, y))
    return _w2((u**2).sum(1)[:, None] + (v**2).sum(1) - 2 * u @ v.T)


def capped(x, y):
    """What a largest cost, or an iteration that stops early, makes of long distances."""
    return np.minimum(empirical.wasserstein(x, y), 50.0)


def manhattan_ground_cost(x, y):
    """W2 for |x - y|_1, which is a distance, but not this one."""
    return _w2(np.abs(x[:, None] - y).sum(-1) ** 2)


def moments_with_n_minus_one(x, y):
    """FID, taken for a lower bound of the distance of the samples."""
    return np.sqrt(gaussian.frechet_distance(x, y, correction=1 - 1e-12 if len(x) == 1 or len(y) == 1 else 1))


def power_without_root_in_p(x, y, p):
    """The p-th root forgotten for p other than 2."""
    return empirical.wasserstein(x, y, 2) if p == 2 else empirical.transport_cost(x, y, p)


def first_of_the_batch(x, y):
    value = empirical.wasserstein(x, y)
    return np.broadcast_to(value[..., :1], value.shape) if np.ndim(value) else value


def detached(x, y):
    value = empirical.wasserstein(x, y)
    return value.detach() if isinstance(value, torch.Tensor) else value


def detached_on_one_side(x, y):
    return empirical.wasserstein(x, y.detach() if isinstance(y, torch.Tensor) else y)


# The line


def unsorted(x, y):
    return np.sqrt(((x - y) ** 2).mean())


def signed(x, y):
    """The power of odd order without an absolute value."""
    return (np.sort(x) - np.sort(y)).mean()


def standardised(x, y):
    """Divided by the spread of the data, so that it does not scale."""
    value = empirical.wasserstein(x[:, None], y[:, None])
    return value / (1 + np.abs(x).max() + np.abs(y).max())


# Weighted points


def swapped_weights(x, y, a, b):
    if len(a) != len(b):
        return empirical.wasserstein(x, y, a=a, b=b)
    return empirical.wasserstein(x, y, a=b, b=a)


def ignored_weights(x, y, a, b):
    return empirical.wasserstein(x, y)


def support_only(x, y, a, b):
    return empirical.wasserstein(x[a > 0], y[b > 0])


def weights_squared(x, y, a, b):
    return empirical.wasserstein(x, y, a=a**2 / (a**2).sum(), b=b**2 / (b**2).sum())


# Gaussians


def _root(cov):
    eigenvalues, basis = np.linalg.eigh(cov)
    return (basis * np.sqrt(eigenvalues.clip(0))) @ basis.T


def _by_trace(m1, C1, m2, C2, *, inner=None, factor=2.0):
    half = _root(C1)
    cross = np.trace(_root(half @ C2 @ half if inner is None else inner))
    return np.sqrt(max(((m1 - m2) ** 2).sum() + np.trace(C1) + np.trace(C2) - factor * cross, 0.0))


def dropped_factor_two(m1, C1, m2, C2):
    return _by_trace(m1, C1, m2, C2, factor=1.0)


def missing_root_of_the_covariance(m1, C1, m2, C2):
    """Σ1 Σ2 Σ1 under the root."""
    return _by_trace(m1, C1, m2, C2, inner=C1 @ C2 @ C1)


def unsymmetrised_product(m1, C1, m2, C2):
    """The root of the lower triangle of Σ1 Σ2, taken for symmetric by eigh."""
    return _by_trace(m1, C1, m2, C2, inner=C1 @ C2)


def frobenius_of_roots(m1, C1, m2, C2):
    """Right for commuting covariances only."""
    return np.sqrt(((m1 - m2) ** 2).sum() + ((_root(C1) - _root(C2)) ** 2).sum())


def frobenius_of_covariances(m1, C1, m2, C2):
    return np.sqrt(((m1 - m2) ** 2).sum() + ((C1 - C2) ** 2).sum())


def root_of_kl(m1, C1, m2, C2):
    """The root of twice the Kullback–Leibler divergence, which is not symmetric."""
    S = np.linalg.solve(C2, C1)
    delta = m1 - m2
    twice = np.trace(S) - len(m1) - np.linalg.slogdet(S)[1] + delta @ np.linalg.solve(C2, delta)
    return np.sqrt(max(twice, 0.0))


def twice_the_distance(m1, C1, m2, C2):
    return 2 * gaussian.w2(m1, C1, m2, C2)


def squared_gaussian(m1, C1, m2, C2):
    return gaussian.w2_squared(m1, C1, m2, C2)


def means_only(m1, C1, m2, C2):
    return np.linalg.norm(m1 - m2)


def variances_for_deviations(m1, C1, m2, C2):
    """A diagonal form that takes σ² for σ."""
    return np.sqrt(((m1 - m2) ** 2).sum() + ((np.diag(C1) - np.diag(C2)) ** 2).sum())


def canonical_polar_factor(m1, C1, m2, C2):
    """Procrustes by the polar factor of GᵀF as it is: not completed where GᵀF is singular."""
    F, G = _root(C1), _root(C2)
    U, s, Vt = np.linalg.svd(G.T @ F)
    keep = s > 1e-12 * max(s[0], 1e-300)
    return np.sqrt(((m1 - m2) ** 2).sum() + ((F - G @ (U[:, keep] @ Vt[keep])) ** 2).sum())


def detached_covariance(m1, C1, m2, C2):
    if isinstance(C1, torch.Tensor):
        C1, C2 = C1.detach(), C2.detach()
    return gaussian.w2(m1, C1, m2, C2)


def root_with_nan_gradient(m1, C1, m2, C2):
    return gaussian.w2_squared(m1, C1, m2, C2) ** 0.5


def detached_weights(x, y, a, b):
    if hasattr(a, "detach"):
        a, b = a.detach(), b.detach()
    return empirical.wasserstein(x, y, a=a, b=b)


_EQUAL = {"equal_sizes": True}

WRONG = [
    Wrong(squared_instead_of_root, "points", ("triangle inequality", "scaling", "known answers", "translation")),
    Wrong(zero, "points", ("translation", "bounds", "Gelbrich bound", "known answers")),
    Wrong(mean_distance, "points", ("identity", "known answers")),
    Wrong(greedy_matching, "points", ("symmetry", "relabelling", "known answers"), _EQUAL),
    Wrong(nearest_neighbours, "points", ("symmetry", "translation", "bounds")),
    Wrong(float32_cast, "points", ("known answers", "translation", "scaling", "rotation")),
    Wrong(gram_trick, "points", ("known answers", "identity")),
    Wrong(capped, "points", ("scaling",)),
    Wrong(manhattan_ground_cost, "points", ("rotation", "known answers", "bounds")),
    Wrong(moments_with_n_minus_one, "points", ("known answers", "convexity"), {"equal_sizes": True}),
    Wrong(power_without_root_in_p, "points", ("monotonicity in p", "scaling", "known answers")),
    Wrong(first_of_the_batch, "points", ("batch",), {"batched": True}),
    Wrong(detached, "points", ("gradient",), {"differentiable": True}),
    Wrong(detached_on_one_side, "points", ("gradient",), {"differentiable": True}),
    Wrong(unsorted, "line", ("relabelling", "known answers", "bounds"), _EQUAL),
    Wrong(signed, "line", ("symmetry", "rotation", "known answers", "bounds"), {"p": 1, **_EQUAL}),
    Wrong(standardised, "line", ("scaling", "translation", "known answers")),
    Wrong(swapped_weights, "measures", ("known answers", "relabelling", "splitting", "Gelbrich bound")),
    Wrong(ignored_weights, "measures", ("splitting", "bounds", "Gelbrich bound")),
    Wrong(support_only, "measures", ("splitting", "convexity", "known answers")),
    Wrong(weights_squared, "measures", ("splitting", "convexity", "bounds")),
    Wrong(detached_weights, "measures", ("gradient in the weights",), {"differentiable": True}),
    Wrong(dropped_factor_two, "gaussians", ("identity", "Gelbrich bound", "known answers")),
    Wrong(missing_root_of_the_covariance, "gaussians", ("identity", "symmetry", "scaling")),
    Wrong(unsymmetrised_product, "gaussians", ("rotation", "symmetry", "known answers")),
    Wrong(frobenius_of_roots, "gaussians", ("known answers", "Gelbrich bound")),
    Wrong(frobenius_of_covariances, "gaussians", ("scaling", "bounds", "Talagrand's inequality")),
    Wrong(root_of_kl, "gaussians", ("symmetry", "triangle inequality", "scaling")),
    Wrong(twice_the_distance, "gaussians", ("bounds", "Talagrand's inequality", "translation")),
    Wrong(squared_gaussian, "gaussians", ("triangle inequality", "scaling", "bounds")),
    Wrong(means_only, "gaussians", ("Gelbrich bound", "known answers")),
    Wrong(variances_for_deviations, "diagonal gaussians", ("scaling", "known answers", "Talagrand's inequality")),
    Wrong(canonical_polar_factor, "degenerate gaussians", ("known answers", "Gelbrich bound")),
    Wrong(detached_covariance, "gaussians", ("gradient",), {"differentiable": True}),
    Wrong(root_with_nan_gradient, "gaussians", ("gradient",), {"differentiable": True}),
]
