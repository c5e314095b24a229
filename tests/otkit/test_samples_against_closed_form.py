r"""The closed form against samples: exact identities at any n, and statistics with a stated false-alarm probability.

Nothing here has a tolerance chosen by hand. Samples of a Gaussian are :math:`X = m + F Z` with standard normal Z, and
W2 between two samples of n points moves by no more than the root mean square of what the points move by. So the list of
W2 of R independent pairs of samples is, in the Euclidean norm, a Lipschitz function of all the normals, with constant
:math:`L = \sqrt{(\|\Sigma_1\| + \|\Sigma_2\|) / n}`, and the Gaussian concentration inequality (Tsirelson, Ibragimov &
Sudakov 1976; Boucheron, Lugosi & Massart 2013, theorem 5.6) holds at every n, R and d: with probability 1 - α

.. math:: \bigl| N - E N \bigr| \le L \sqrt{2 \log(2 / \alpha)}, \qquad
          N = \Bigl(\sum_{r=1}^R W_2^2(P_n^r, Q_n^r)\Bigr)^{1/2}, \qquad
          R\,E W_2^2 - L^2 \le (E N)^2 \le R\,E W_2^2

(the last by Poincaré's inequality). This gives a confidence interval of :math:`E W_2^2(P_n, Q_n)`, which theory knows:
joint convexity bounds it below by :math:`W_2^2(P, Q)`; on the line, samples are matched in order, and it is exactly

.. math:: E W_2^2(P_n, Q_n) = (m_1 - m_2)^2 + (\sigma_1 - \sigma_2)^2 + 2 \sigma_1 \sigma_2 (1 - \kappa_n), \qquad
          \kappa_n = \frac1n \sum_i (E Z_{(i)})^2 ,

Z_(i) normal order statistics. Every test raises a false alarm with probability ALPHA at most, over seeds; the seeds are
fixed.

References:
    del Barrio, Giné & Utzet, 2005. *Asymptotics for L2 functionals of the empirical quantile process*.
    del Barrio & Loubes, 2019. *Central limit theorems for empirical transportation cost in general dimension*.
    Fournier & Guillin, 2015. *On the rate of convergence in Wasserstein distance of the empirical measure*.
"""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, norm

from otkit.empirical import sinkhorn_cost, transport_cost
from otkit.gaussian import fit, frechet_distance, transport_map, w2_squared
from otkit.testing import affine_gaussians, check_gelbrich_bound, convex_gradients, gaussians, measures, point_clouds

ALPHA = 1e-6


def confidence_interval(values, lipschitz, alpha=ALPHA):
    """Of E W2²(P_n, Q_n), from R independent W2² and the Lipschitz constant of one W2."""
    R, found = len(values), np.sqrt(np.sum(values))
    reach = lipschitz * np.sqrt(2 * np.log(2 / alpha))
    return max(found - reach, 0.0) ** 2 / R, ((found + reach) ** 2 + lipschitz**2) / R


def matched_share(n):
    """κ_n, by Gauss–Legendre quadrature of E Z_(i) = ∫ Φ⁻¹(u) Beta(i, n + 1 - i)(u) du, u = Φ(t)."""
    t, w = np.polynomial.legendre.leggauss(600)
    t, w = 10 * t, 10 * w
    i = np.arange(1, n + 1)[:, None]
    means = (t * beta.pdf(norm.cdf(t), i, n + 1 - i) * norm.pdf(t)) @ w
    return float((means**2).mean())


def on_the_line(x, y):
    """W2² of rows of samples, by sorting."""
    return ((np.sort(x, -1) - np.sort(y, -1)) ** 2).mean(-1)


# Exact at any n


@given(st.integers(1, 3).flatmap(lambda d: st.tuples(point_clouds(d), affine_gaussians(d))))
def test_the_image_of_samples_under_a_gaussian_map(both):
    """x against T x, T the map of two Gaussians: W2² of the samples and of their moments are one number."""
    x, problem = both
    T, shift = transport_map(*problem.x, *problem.y)
    y = x @ T.T + shift
    exact = ((x - y) ** 2).sum(-1).mean()
    size = (x**2).sum(-1).max() + (y**2).sum(-1).max()
    rounding = 16 * np.finfo(float).eps * (2 * len(x) + x.shape[1]) * size
    assert transport_cost(x, y) == pytest.approx(exact, rel=0, abs=rounding)
    # A few points have singular covariances, whose closed form moves with the root of the rounding of the data.
    singular = 4 * size * np.sqrt(np.finfo(float).eps) * x.shape[1]
    assert frechet_distance(x, y, correction=0) == pytest.approx(exact, rel=0, abs=singular)


@given(st.integers(1, 3).flatmap(lambda d: convex_gradients(d)))
def test_the_closed_form_of_the_moments_is_below_the_samples(problem):
    (m1, C1), (m2, C2) = (fit(points, correction=0) for points in (problem.x, problem.y))
    size = (problem.x**2).sum(-1).max() + (problem.y**2).sum(-1).max()
    rounding = 4 * size * np.sqrt(np.finfo(float).eps) * len(m1)
    assert w2_squared(m1, C1, m2, C2) <= problem.value**2 + rounding


# Statistics on the line


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 1.0), (1.0, 1.0), (0.5, 3.0)])
@pytest.mark.parametrize("n", [1, 10, 100])
def test_mean_of_w2_squared_between_samples_on_the_line(loc, scale, n):
    rng, R = np.random.default_rng([0, n]), 200
    x, y = rng.normal(size=(R, n, 1)), loc + scale * rng.normal(size=(R, n, 1))
    values = transport_cost(x, y)
    np.testing.assert_allclose(values, on_the_line(x[..., 0], y[..., 0]), rtol=1e-9, atol=1e-14)
    closed = w2_squared(np.zeros(1), np.eye(1), np.array([loc]), scale**2 * np.eye(1))
    low, high = confidence_interval(values, np.sqrt((1 + scale**2) / n))
    assert low <= closed + 2 * scale * (1 - matched_share(n)) <= high


def test_the_interval_is_narrow_enough_to_tell():
    """The bias itself: the closed form without it is outside, at equal Gaussians and at different ones."""
    rng, n, R = np.random.default_rng(1), 20, 4000
    x, y = rng.normal(size=(2, R, n))
    bias = 2 * (1 - matched_share(n))
    for loc in (0.0, 1.0):
        low, high = confidence_interval(on_the_line(x, y + loc), np.sqrt(2 / n))
        assert loc**2 < low <= loc**2 + bias <= high
        assert high - low < loc**2 + bias


def test_the_central_limit_theorem_of_w2_squared():
    r"""√n (W2²(P_n, Q_n) - W2²) → N(0, Var φ(X) + Var ψ(Y)), φ and ψ the dual potentials (del Barrio & Loubes 2019).

    For a translation by δ, φ(x) = -2 δ x and ψ(y) = 2 δ y up to constants, and the variance is 4 δ² (σ² + σ²). By
    duality W2²(P_n, Q_n) is never below the linear part, which is exactly normal here, and the rest Δ has the exact
    mean 2 σ² (1 - κ_n), so that by Markov's inequality the law is off the normal by u / (√(2π) s) + E Δ / u for every
    u, s the standard deviation; and the distribution of R values is off its law by at most Massart's √(log(2/α) / 2R).
    """
    n, R, delta = 200, 20_000, 100.0
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(R, n)), rng.normal(size=(R, n)) + delta
    values = on_the_line(x, y)
    linear = delta**2 + 2 * delta * (y.mean(-1) - delta - x.mean(-1))
    assert (values - linear >= -1e-9 * delta**2).all()
    s = np.sqrt(8 * delta**2 / n)
    standard = np.sort((values - delta**2) / s)
    empirical = np.arange(1, R + 1) / R
    off = np.maximum(np.abs(norm.cdf(standard) - empirical), np.abs(norm.cdf(standard) - empirical + 1 / R)).max()
    rest = 2 * np.sqrt(2 * (1 - matched_share(n)) / (np.sqrt(2 * np.pi) * s))
    bound = rest + np.sqrt(np.log(2 / ALPHA) / (2 * R))
    assert off <= bound
    # It can tell: the variance without one of the samples, half of it, is farther from the normal than the bound.
    half = np.sqrt(2)
    crossing = np.sqrt(np.log(half) / (half**2 - 1) * 2) * half
    assert norm.cdf(crossing) - norm.cdf(crossing / half) > bound


# Statistics in more dimensions


@pytest.mark.parametrize("d", [6, 8])
def test_the_bias_between_equal_gaussians_falls_with_the_slope_minus_two_over_d(d):
    """E W2²(P_n, P_n') ~ n^(-2/d) for d > 4 (Fournier & Guillin 2015): -2/d is in the interval, -1/2 and -1 are not."""
    sizes, repeats = np.array([32, 64, 128, 256]), (400, 200, 100, 40)
    rng = np.random.default_rng(3)
    low, high = np.log(
        [
            confidence_interval(transport_cost(*rng.normal(size=(2, R, n, d))), np.sqrt(2 / n), ALPHA / len(sizes))
            for n, R in zip(sizes, repeats, strict=True)
        ]
    ).T
    # Least squares weigh the logarithms by c; each is in its interval at once with probability 1 - ALPHA.
    c = np.log(sizes) - np.log(sizes).mean()
    c /= c @ c
    slopes = [np.where(c > 0, a, b) @ c for a, b in ((low, high), (high, low))]
    assert slopes[0] <= -2 / d <= slopes[1]
    assert slopes[0] > -0.5


@pytest.mark.parametrize(("n", "R"), [(16, 200), (64, 100), (256, 20)])
def test_debiased_by_independent_samples_a_translation_is_unbiased_at_any_n(n, R):
    r"""E [W2²(P_n, Q_n) - ½ W2²(P_n, P'_n) - ½ W2²(Q_n, Q'_n)] = |δ|² exactly, for Q = P + δ."""
    d, delta = 4, 3.0
    rng = np.random.default_rng([4, n])
    loc = np.array([delta, 0, 0, 0])
    groups = [rng.normal(size=(2, R, n, d)) for _ in range(3)]
    across, within_p, within_q = (
        confidence_interval(transport_cost(x, y), np.sqrt(2 / n), ALPHA / 3)
        for x, y in ((groups[0][0], groups[0][1] + loc), groups[1], groups[2] + loc)
    )
    closed = w2_squared(np.zeros(d), np.eye(d), loc, np.eye(d))
    low = across[0] - 0.5 * (within_p[1] + within_q[1])
    high = across[1] - 0.5 * (within_p[0] + within_q[0])
    assert low <= closed <= high


def test_samples_close_in_on_the_closed_form():
    r"""By the triangle inequality in L², |E W2²(P_n, Q_n)^½ - W2(P, Q)| <= E W2²(P_n, P'_n)^½ + E W2²(Q_n, Q'_n)^½,

    as E W2²(P_n, P) <= E W2²(P_n, P'_n) (convexity), and W2(P, Q) is below, by joint convexity: an interval of the
    closed form from samples alone, at every n, and shorter as n grows.
    """
    d, rng = 3, np.random.default_rng(5)
    F, G = rng.normal(size=(2, d, d))
    closed = np.sqrt(w2_squared(np.zeros(d), F @ F.T, np.ones(d), G @ G.T))
    norms = [np.linalg.norm(A, 2) ** 2 for A in (F, G)]
    widths = []
    for n, R in ((16, 200), (64, 100), (256, 30)):
        Z = rng.normal(size=(6, R, n, d))
        pairs = (Z[0] @ F.T, Z[1] @ G.T + 1), (Z[2] @ F.T, Z[3] @ F.T), (Z[4] @ G.T, Z[5] @ G.T)
        constants = (sum(norms), 2 * norms[0], 2 * norms[1])
        intervals = [
            np.sqrt(confidence_interval(transport_cost(*pair), np.sqrt(c / n), ALPHA / 9))
            for pair, c in zip(pairs, constants, strict=True)
        ]
        low, high = intervals[0][0] - intervals[1][1] - intervals[2][1], intervals[0][1]
        assert low <= closed <= high
        widths.append(high - low)
    assert widths[2] < widths[1] < widths[0]


# Regularised against exact


@given(st.integers(1, 3).flatmap(lambda d: st.tuples(measures(d), measures(d))), st.sampled_from([1.0, 0.3, 0.1, 0.05]))
def test_regularised_is_above_exact_by_at_most_the_entropy(both, relative):
    r"""0 <= OT_reg - OT <= reg · KL(P | a⊗b) <= reg · min(H(a), H(b)) <= reg · log min(n, m), P an optimal plan."""
    (x, a), (y, b) = both
    exact, largest = transport_cost(x, y, a=a, b=b), float(((x[:, None] - y) ** 2).sum(-1).max())
    reg, tol = relative * (largest or 1.0), 1e-6
    entropy = min(-float((w[w > 0] * np.log(w[w > 0])).sum()) for w in (a, b))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gap = sinkhorn_cost(x, y, a=a, b=b, reg=reg, tol=tol, max_iter=2000) - exact
    # A dual value is never above the optimum. Marginals that are off by tol leave it low by tol times the spread of a
    # potential, which the costs and the smallest weight bound; where they are off by more, it may be as low as it is.
    potential = largest + reg * max(-np.log(w[w > 0].min()) for w in (a, b))
    assert gap <= reg * entropy + 1e-12 * (1 + largest)
    assert caught or gap >= -2 * tol * potential - 1e-12 * (1 + largest)
    assert entropy <= np.log(min((a > 0).sum(), (b > 0).sum())) + 1e-12


@given(st.integers(1, 3).flatmap(lambda d: st.tuples(gaussians(d), gaussians(d))))
def test_a_torch_sample_of_a_gaussian_obeys_the_bound_of_its_moments(both):
    """Gelbrich at finite n, on samples drawn from the Gaussians themselves."""
    generator = torch.Generator().manual_seed(0)
    x, y = (
        torch.randn(12, len(m), dtype=torch.float64, generator=generator) @ torch.linalg.cholesky(torch.tensor(C)).mT
        + torch.tensor(m)
        for m, C in both
    )
    check_gelbrich_bound(transport_cost, x, y, power=True)
    exact, size = transport_cost(x, y), x.square().sum(-1).max() + y.square().sum(-1).max()
    assert frechet_distance(x, y, correction=0) <= exact + 16 * np.finfo(float).eps * 24 * size
