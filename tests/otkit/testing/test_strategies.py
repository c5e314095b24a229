"""Strategies build what they promise: nothing is rejected, every kind is met, all shrinks to the simplest."""

import re

import numpy as np
import pytest
import scipy.optimize
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture.data import ConjectureData

from otkit import gaussian
from otkit.testing import (
    DOMAINS,
    Gaussian,
    Measure,
    affine_gaussians,
    commuting_gaussians,
    convex_gradients,
    dirac_gaussians,
    diracs,
    entropic_gaussians_on_a_grid,
    gaussians,
    isometries,
    measures,
    near,
    point_clouds,
    problems,
    psd_matrices,
    quantiles,
    relabellings,
    rotations,
    scalings,
    spd_matrices,
    spectra,
    translations,
)

D = 3
GAUSSIAN = {
    "full": gaussians(D),
    "diagonal": gaussians(D, diagonal=True),
    "low rank": gaussians(D, rank=1),
    "degenerate": gaussians(D, singular=True),
}
PROBLEMS = {
    "translations": translations(D),
    "weighted translations": translations(D, weighted=True),
    "scalings": scalings(D, weighted=True),
    "relabellings": relabellings(D, weighted=True),
    "convex gradients": convex_gradients(D),
    "diracs": diracs(D, weighted=True),
    "quantiles": quantiles(weighted=True),
    "flat quantiles": quantiles(weighted=True, flat=True),
    "commuting": commuting_gaussians(D, singular=True),
    "affine": affine_gaussians(D, singular=True),
    "dirac gaussians": dirac_gaussians(D),
    "entropic": entropic_gaussians_on_a_grid(),
}
ALL = {
    "rotations": rotations(D),
    "isometries": isometries(D),
    "spectra": spectra(D, singular=True),
    "psd": psd_matrices(D, singular=True),
    "spd": spd_matrices(D),
    "point clouds": point_clouds(D),
    "measures": measures(D),
    "near": measures(D).flatmap(lambda m: st.tuples(st.just(m), near(m))),
    **GAUSSIAN,
    **PROBLEMS,
}
BUT_GRIDS = {name: strategy for name, strategy in ALL.items() if name != "entropic"}
EVERY = pytest.mark.parametrize("strategy", ALL.values(), ids=ALL)
SEARCH = settings(max_examples=2000, phases=[Phase.generate, Phase.shrink], database=None, derandomize=True)


def simplest(strategy, condition=lambda _: True):
    """What a strategy shrinks to under a condition; an error if it never obeys."""
    return find(strategy, condition, settings=SEARCH)


@EVERY
def test_nothing_is_rejected(strategy, monkeypatch):
    def rejected(self, *args, **kwargs):
        raise AssertionError("an example was rejected")

    monkeypatch.setattr(ConjectureData, "mark_invalid", rejected)

    @settings(settings.get_profile("dev"), suppress_health_check=[HealthCheck.too_slow])
    @given(strategy)
    def draw(_):
        pass

    draw()


@pytest.mark.parametrize("strategy", BUT_GRIDS.values(), ids=BUT_GRIDS)
def test_the_simplest_example_is_simple(strategy):
    found = re.sub("theorem='.*?'", "", repr(simplest(strategy)))
    numbers = {float(number) for number in re.findall(r"(?<![\w.])\d+\.?\d*(?:e-?\d+)?", found)}
    assert numbers <= {0.0, 0.5, 1.0, 2.0, 3.0, float(np.sqrt(3))}, found


def test_a_matrix_shrinks_to_the_identity():
    np.testing.assert_array_equal(simplest(spd_matrices(D)), np.eye(D))
    np.testing.assert_array_equal(simplest(psd_matrices(D, singular=True)), np.eye(D))
    np.testing.assert_array_equal(simplest(rotations(D)), np.eye(D))


def test_a_condition_shrinks_alone():
    """Of a matrix that must have one large entry off the diagonal nothing else is left to change."""
    A = simplest(spd_matrices(2), lambda A: abs(A[0, 1]) > 0.25)
    spectrum = np.linalg.eigvalsh(A)
    assert np.isclose(spectrum, 1).sum() == 1
    x = simplest(point_clouds(2), lambda x: len(x) > 2)
    np.testing.assert_array_equal(x, np.zeros((3, 2)))
    m = simplest(measures(1), lambda m: m.weights.min() == 0)
    np.testing.assert_array_equal(m.weights, [1, 0])


# Every kind that is promised is met


@pytest.mark.parametrize(
    ("strategy", "condition"),
    [
        (spectra(D), lambda s: s.max() / s.min() > 1e3),
        (spectra(D), lambda s: s[0] == s[1] != 1),
        (spectra(D, singular=True), lambda s: s.min() == 0 < s.max()),
        (spectra(D, singular=True), lambda s: s.max() == 0),
        (psd_matrices(D, singular=True), lambda A: np.linalg.matrix_rank(A) == 1),
        (gaussians(D), lambda g: np.abs(g.cov - np.diag(np.diag(g.cov))).max() > 0.1),
        (gaussians(D, singular=True), lambda g: not g.cov.any() and g.loc.any()),
        (isometries(D), lambda Q: np.linalg.det(Q) < 0),
        (point_clouds(2), lambda x: len(np.unique(x, axis=0)) < len(x) and x.any()),
        (point_clouds(2), lambda x: len(x) == 6),
        (measures(2), lambda m: m.weights.min() == 0),
        (measures(2), lambda m: len(set(m.weights)) > 2),
        (st.tuples(measures(2), measures(2)), lambda both: len(both[0].points) != len(both[1].points)),
        (near(Gaussian(np.ones(D), np.eye(D))), lambda g: 0 < np.abs(g.cov - np.eye(D)).max() < 1e-11),
        (near(Gaussian(np.ones(D), np.eye(D))), lambda g: (g.cov == np.eye(D)).all()),
        (near(np.ones((2, D))), lambda x: 0 < np.abs(x - 1).max() < 1e-11),
        (near(Measure(np.ones((2, D)), np.full(2, 0.5))), lambda m: np.abs(m.points - 1).max() > 0.1),
        (convex_gradients(2), lambda p: np.abs(p.x - p.y).max() > 1 and len(p.x) > 2),
    ],
)
def test_what_is_promised_is_met(strategy, condition):
    simplest(strategy, condition)


@given(psd_matrices(D, singular=True), spd_matrices(D, cond=100.0), rotations(D), isometries(D))
def test_matrices_are_what_they_are_called(psd, spd, R, Q):
    for A in (psd, spd):
        np.testing.assert_array_equal(A, A.T)
    assert np.linalg.eigvalsh(psd).min() >= -1e-12 * max(psd.max(), 1)
    assert np.linalg.cond(spd) <= 100 * (1 + 1e-9)
    assert np.linalg.det(R) == pytest.approx(1)
    np.testing.assert_allclose(Q @ Q.T, np.eye(D), atol=1e-14)


@given(GAUSSIAN["diagonal"], GAUSSIAN["low rank"], measures(D), point_clouds(D, n=4))
def test_measures_are_what_they_are_called(diagonal, low, measure, cloud):
    np.testing.assert_array_equal(diagonal.cov, np.diag(np.diag(diagonal.cov)))
    assert np.linalg.matrix_rank(low.cov) == 1
    assert measure.weights.min() >= 0
    assert measure.weights.sum() == pytest.approx(1, rel=1e-15)
    assert cloud.shape == (4, D)


# Problems have the answers that solvers who know nothing of the theorem find


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name in BUT_GRIDS])
def test_the_answer_is_that_of_linear_programming(name):
    """Between points by SciPy's linear programming; between Gaussians by the eigenvalues of the product."""

    @settings(settings.get_profile("dev"), max_examples=15)
    @given(PROBLEMS[name])
    def check(problem):
        size = max(np.abs(part).max() for m in (problem.x, problem.y) for part in (m if isinstance(m, tuple) else (m,)))
        assert problem.value**problem.p == pytest.approx(solved(problem), rel=1e-9, abs=1e-6 * (1 + size**problem.p))
        assert problem.theorem

    check()


def solved(problem):
    if isinstance(problem.x, Gaussian):
        (m1, C1), (m2, C2) = problem.x, problem.y
        cross = np.sqrt(np.linalg.eigvals(C1 @ C2).real.clip(0)).sum()
        return ((m1 - m2) ** 2).sum() + np.trace(C1 + C2) - 2 * cross
    (x, a), (y, b) = (m if isinstance(m, Measure) else (m, np.full(len(m), 1 / len(m))) for m in (problem.x, problem.y))
    x, y = (points.reshape(len(points), -1) for points in (x, y))
    M = np.linalg.norm(x[:, None] - y, axis=-1) ** problem.p
    A = np.concatenate([np.kron(np.eye(len(x)), np.ones(len(y))), np.kron(np.ones(len(x)), np.eye(len(y)))])
    return scipy.optimize.linprog(M.ravel(), A_eq=A[:-1], b_eq=np.concatenate([a, b])[:-1]).fun


@pytest.mark.parametrize("on", DOMAINS)
@pytest.mark.parametrize("equal_sizes", [False, True])
def test_every_domain_has_problems_of_its_form(on, equal_sizes):
    @settings(settings.get_profile("dev"), max_examples=10)
    @given(problems(on, 1 if on == "line" else 2, p=2, equal_sizes=equal_sizes))
    def check(problem):
        kind = Gaussian if "gaussians" in on else Measure if on == "measures" else np.ndarray
        assert isinstance(problem.x, kind)
        assert isinstance(problem.y, kind)
        assert problem.p == 2
        if kind is np.ndarray:
            assert problem.x.ndim == (1 if on == "line" else 2)
        if kind is not Gaussian and equal_sizes:
            sizes = {len(m.points if isinstance(m, Measure) else m) for m in (problem.x, problem.y)}
            assert len(sizes) == 1

    check()


@pytest.mark.parametrize(
    ("on", "d", "equal_sizes", "theorems"),
    [
        ("points", 1, False, "translation order scaling gradient Dirac line"),
        ("measures", 2, True, "translation order scaling gradient"),
        ("gaussians", 2, False, "commuting affine"),
        ("degenerate gaussians", 2, False, "commuting affine Dirac"),
    ],
)
def test_every_kind_of_problem_is_met(on, d, equal_sizes, theorems):
    met = set()

    @settings(settings.get_profile("dev"), max_examples=200)
    @given(problems(on, d, p=2, equal_sizes=equal_sizes))
    def meet(problem):
        met.update(word for word in theorems.split() if word in problem.theorem)

    meet()
    assert met == set(theorems.split())


def test_a_problem_prints_as_python():
    problem = simplest(translations(1, p=2.0), lambda p: p.value > 0)
    assert repr(problem).startswith("Problem(np.array([[0.0]]), np.array([[1.0]]), p=2.0, value=1.0")


@given(GAUSSIAN["full"])
def test_the_closed_form_at_near_gaussians_is_what_they_are_apart(g):
    """W2 between a Gaussian and its image under x ↦ (1 + δ) x + δ is δ (Tr Σ + |m + 1|²)^½."""
    delta = 1e-7
    y = Gaussian((1 + delta) * g.loc + delta, (1 + delta) ** 2 * g.cov)
    exact = delta * np.sqrt(np.trace(g.cov) + ((g.loc + 1) ** 2).sum())
    rounding = 1e-14 * np.sqrt(np.linalg.cond(g.cov) * np.trace(g.cov)) + 1e-15 * np.abs(g.loc).sum()
    assert gaussian.w2(*g, *y) == pytest.approx(exact, rel=1e-6, abs=rounding)
