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
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import beta, norm

from otkit.empirical import sinkhorn_cost, solve, transport_cost
from otkit.gaussian import fit, frechet_distance, transport_map, w2, w2_squared
from otkit.testing import (
    Gaussian,
    Problem,
    affine_gaussians,
    check_gelbrich_bound,
    convex_gradients,
    gaussians,
    measures,
    point_clouds,
)

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


# Costs of 1e-16, of which the simplex took any plan for optimal: its tolerances are absolute.
STRETCHED = Problem(Gaussian(np.zeros(2), np.eye(2)), Gaussian(np.zeros(2), np.diag([4.0, 1.0])), 2, 1.0, "by hand")


@given(st.integers(1, 3).flatmap(lambda d: st.tuples(point_clouds(d), affine_gaussians(d))))
@example((1e-8 * np.random.default_rng(0).normal(size=(20, 2)), STRETCHED))
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


@pytest.mark.parametrize(("delta", "scale"), [(100.0, 1.0), (400.0, 1.5), (400.0, 0.25)])
def test_the_central_limit_theorem_of_w2(delta, scale):
    r"""√n (W2(P_n, Q_n) - W2) → N(0, (Var φ(X) + Var ψ(Y)) / 4 W2²), φ and ψ the potentials (del Barrio & Loubes 2019).

    For P = N(0, 1) and Q = N(δ, s²) these are, up to constants and with z = y - δ,

        φ(x) = -2 δ x + (1 - s) x²    and    ψ(y) = 2 δ z + (1 - 1/s) z².

    By duality W2²(P_n, Q_n) is never below the mean of φ and ψ over the samples. Of that the parts in x and z are
    exactly normal, with standard deviation sd; the squares have mean zero about their own and a variance v, and what
    is left, Δ, has the exact mean 2 s (1 - κ_n). Hence, by Chebyshev's and Markov's inequalities, the law of W2² is off
    the normal by t / (√(2π) sd) + v / t² and u / (√(2π) sd) + E Δ / u at most, for every t and u; and the distribution
    of R values is off its law by √(log(2/α) / 2R) at most (Massart 1990). The root is monotone: it moves no quantile.
    """
    n, R = 200, 20_000
    rng = np.random.default_rng(2)
    x, z = rng.normal(size=(R, n)), scale * rng.normal(size=(R, n))
    distances = np.sqrt(on_the_line(x, z + delta))
    closed = float(w2(np.zeros(1), np.eye(1), np.array([delta]), scale**2 * np.eye(1)))
    linear = (1 - scale) * x**2 - 2 * delta * x + (1 - 1 / scale) * z**2 + 2 * delta * z
    assert (distances**2 - delta**2 - linear.mean(-1) >= -1e-9 * delta**2).all()
    sd = 2 * delta * np.sqrt((1 + scale**2) / n)
    slope = np.sqrt(2 * np.pi) * sd
    v = 2 * ((1 - scale) ** 2 + (scale**2 - scale) ** 2) / n
    t = (2 * v * slope) ** (1 / 3)
    squares = t / slope + v / t**2 if v else 0.0
    bound = squares + 2 * np.sqrt(2 * scale * (1 - matched_share(n)) / slope) + np.sqrt(np.log(2 / ALPHA) / (2 * R))
    # Φ of what W2 says of the normal, at each value, between the two steps of the empirical distribution there.
    expected, steps = norm.cdf((np.sort(distances) ** 2 - closed**2) / sd), np.arange(R + 1) / R
    off = max(np.abs(expected - steps[1:]).max(), np.abs(expected - steps[:-1]).max())
    assert off <= bound
    # It can tell: half of the variance would be farther off.
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


def test_debiased_by_independent_samples_a_translation_is_unbiased_at_any_n_and_consistent():
    r"""E [W2²(P_n, Q_n) - ½ W2²(P_n, P'_n) - ½ W2²(Q_n, Q'_n)] = |δ|² exactly, for Q = P + δ; the spread falls with n.

    For the last, by Poincaré's inequality the variance of each W2 is at most L² = 2/n.
    """
    d, delta = 4, 3.0
    rng = np.random.default_rng(4)
    loc = np.array([delta, 0, 0, 0])
    closed = w2_squared(np.zeros(d), np.eye(d), loc, np.eye(d))
    widths, spreads = [], []
    for n, R in ((16, 200), (64, 100), (256, 40)):
        groups = [rng.normal(size=(2, R, n, d)) for _ in range(3)]
        costs = [transport_cost(x, y) for x, y in ((groups[0][0], groups[0][1] + loc), groups[1], groups[2] + loc)]
        across, within_p, within_q = (confidence_interval(c, np.sqrt(2 / n), ALPHA / 9) for c in costs)
        low = across[0] - 0.5 * (within_p[1] + within_q[1])
        high = across[1] - 0.5 * (within_p[0] + within_q[0])
        assert low <= closed <= high
        widths.append((high - low) * np.sqrt(R))
        spreads.append(np.std(costs[0] - 0.5 * (costs[1] + costs[2])))
    # At one number of repetitions, the interval and the spread of single estimates fall as n grows.
    assert widths[2] < widths[1] < widths[0]
    assert spreads[2] < spreads[1] < spreads[0]


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


@pytest.mark.parametrize("seed", [0, 1])
def test_regularised_closes_in_on_exact_within_certified_bounds(seed):
    """The interval that a regularised solution certifies holds the exact cost at every reg, and shrinks with it."""
    rng = np.random.default_rng(seed)
    x, y, a = rng.normal(size=(30, 2)), rng.normal(size=(20, 2)) + 1, rng.dirichlet(np.ones(30))
    exact, rounding = solve(x, y, a=a), 1e-13
    assert exact.upper_bound - exact.lower_bound <= rounding
    widths = []
    for reg in (1.0, 0.1, 0.01, 0.001):
        found = solve(x, y, a=a, reg=reg, tol=1e-9)
        assert found.converged
        assert found.lower_bound - rounding <= exact.cost <= found.upper_bound + rounding
        # An entropic plan costs no more than reg times the entropy above the optimum, and its value no less than it.
        assert exact.cost - rounding <= found.cost <= exact.cost + reg * np.log(20) + 1e-7
        widths.append(found.upper_bound - found.lower_bound)
    assert (np.diff(widths) < 0).all()
    assert widths[-1] <= 0.001 * np.log(20)


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
