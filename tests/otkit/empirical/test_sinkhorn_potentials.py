import sys

import numpy as np
import ot
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otkit.empirical._sinkhorn import _symmetric, entropic_potentials
from otkit.empirical._sinkhorn._newton import Scaling, regularisations
from otkit.empirical._sinkhorn._pot import METHODS
from otkit.empirical._sinkhorn._watch import Watch
from otkit.testing import measures


def squared_distances(x, y):
    return ((x[:, None] - y) ** 2).sum(-1)


def plan_of(solved, M, a, b, reg):
    independent = a[:, None] * b
    # Between two points without weight the kernel may overflow.
    kernel = np.exp((solved.f[:, None] + solved.g - M) / reg, where=independent > 0, out=np.zeros_like(M))
    return independent * kernel


def marginal_error(plan, a, b):
    return np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum()


def uniform(n):
    return np.full(n, 1 / n)


def problem(kind, n=120, m=150, seed=0):
    rng = np.random.default_rng(seed)
    x, y, a, b = rng.normal(size=(n, 2)), rng.normal(size=(m, 2)), uniform(n), uniform(m)
    if kind == "weights":
        a, b = rng.random(n) ** 2 + 1e-3, rng.random(m) + 1e-3
    elif kind == "tiny weights":
        a[:3], b[-2:] = 1e-200, 1e-100
    elif kind == "zero weights":
        a[:20], b[5:9] = 0, 0
    elif kind == "clusters":
        centres = 5 * rng.normal(size=(4, 2))
        x, y = (centres[rng.integers(4, size=len(z))] + 0.3 * z for z in (x, y))
    elif kind == "outlier":
        x[0] = 1e3
    elif kind == "more rows":
        x, y, a, b = y, x, b, a
    return squared_distances(x, y), a / a.sum(), b / b.sum()


# Oracle: POT


@pytest.mark.parametrize("kind", ["plain", "weights", "clusters", "more rows"])
def test_plan_is_that_of_pot(kind):
    M, a, b = problem(kind, 30, 40)
    reg = 0.05 * M.mean()
    solved = entropic_potentials(M, a, b, reg, tol=1e-10)
    theirs = ot.sinkhorn(a, b, M, reg, "sinkhorn_log", numItermax=100_000, stopThr=1e-12)
    np.testing.assert_allclose(plan_of(solved, M, a, b, reg), theirs, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_methods_of_pot_by_name_agree(method):
    M, a, b = problem("zero weights", 30, 20)
    reg = 0.3 * M.mean()
    ours = entropic_potentials(M, a, b, reg, tol=1e-9)
    theirs = entropic_potentials(M, a, b, reg, tol=1e-7, method=method, max_iter=100_000)
    assert theirs.converged
    np.testing.assert_allclose(plan_of(theirs, M, a, b, reg), plan_of(ours, M, a, b, reg), atol=1e-7)


@pytest.mark.filterwarnings("ignore")  # POT's own, which `solve_each` keeps quiet
@pytest.mark.parametrize("method", ["sinkhorn", "greenkhorn", "sinkhorn_stabilized"])
def test_method_that_underflows_does_not_claim_to_have_converged(method):
    M, a, b = problem("plain", 30, 20)
    try:
        solved = entropic_potentials(M, a, b, 1e-5 * M.mean(), method=method, max_iter=100)
    except ValueError as error:
        assert "underflows at reg" in str(error)  # noqa: PT017
    else:
        assert not solved.converged


# Laws: what is claimed is so, and it is reached


@pytest.mark.parametrize("relative", [1.0, 0.1, 0.02, 4e-3, 1e-3, 1e-4])
@pytest.mark.parametrize(
    "kind", ["plain", "weights", "tiny weights", "zero weights", "clusters", "outlier", "more rows"]
)
def test_converges_and_measures_its_error(kind, relative):
    M, a, b = problem(kind)
    reg = relative * float(a @ M @ b)
    solved = entropic_potentials(M, a, b, reg)
    error = marginal_error(plan_of(solved, M, a, b, reg), a, b)
    assert solved.converged
    assert error == pytest.approx(solved.marginal_error, abs=1e-9)
    # Plain iterations need ten to a hundred times as many.
    assert solved.n_iter < 2500


@pytest.mark.parametrize("max_iter", [1, 4, 13, 40])
@pytest.mark.parametrize("relative", [1e-2, 1e-3, 1e-6])
@pytest.mark.parametrize("kind", ["plain", "tiny weights", "zero weights", "outlier", "more rows", "itself"])
def test_unfinished_potentials_measure_their_error_and_bound_the_cost(kind, relative, max_iter):
    M, a, b = problem("tiny weights" if kind == "itself" else kind, 40, 50)
    if symmetric := kind == "itself":
        x, b = np.random.default_rng(0).normal(size=(40, 2)), a
        M = squared_distances(x, x)
    reg = relative * float(a @ M @ b)
    solved = entropic_potentials(M, a, b, reg, max_iter=max_iter, symmetric=symmetric)
    assert np.isfinite(solved.f).all()
    assert np.isfinite(solved.g).all()
    error = marginal_error(plan_of(solved, M, a, b, reg), a, b)
    assert solved.marginal_error == pytest.approx(error, rel=1e-6, abs=1e-9)
    optimum = entropic_potentials(M, a, b, reg, tol=1e-8)
    # Where it converged, the mass of the plan is one up to tol.
    assert solved.f @ a + solved.g @ b <= optimum.f @ a + optimum.g @ b + 1e-6 * reg


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("max_iter", [1, 5])
@pytest.mark.parametrize("method", METHODS)
def test_unfinished_methods_of_pot_bound_the_cost(method, max_iter):
    M, a, b = problem("weights", 30, 20)
    reg = 0.02 * M.mean()
    solved = entropic_potentials(M, a, b, reg, max_iter=max_iter, method=method)
    optimum = entropic_potentials(M, a, b, reg, tol=1e-10)
    assert solved.f @ a + solved.g @ b <= optimum.f @ a + optimum.g @ b


@pytest.mark.parametrize("reg", [1e3, 1e9])
@pytest.mark.parametrize("method", METHODS)
def test_methods_of_pot_keep_the_digits_of_the_cost(method, reg):
    """POT's potentials may have a constant in them that is far larger than the costs."""
    M, a, b = problem("weights", 30, 20)
    ours, theirs = (entropic_potentials(M, a, b, reg, tol=1e-10, method=name) for name in ("auto", method))
    assert theirs.f @ a + theirs.g @ b == pytest.approx(ours.f @ a + ours.g @ b, rel=1e-10)


TIED = np.stack([np.arange(6.0), np.zeros(6)], axis=1)


@given(measures(2), measures(2), st.sampled_from([1.0, 1e-1, 1e-2, 1e-4]))
@example((TIED, uniform(6)), (TIED + np.array([0.5, 0.0]), uniform(6)), 1e-4)  # crawled
@example((np.eye(2), np.array([1.0, 0.0])), (np.eye(2), np.array([1.0, 0.0])), 1e-4)  # two points without weight
def test_small_problems_converge_at_once(first, second, relative):
    (x, a), (y, b) = first, second
    M = squared_distances(x, y)
    reg = relative * max(float(M.mean()), 1e-3)
    solved = entropic_potentials(M, a, b, reg)
    assert marginal_error(plan_of(solved, M, a, b, reg), a, b) < 2e-6
    assert solved.converged
    assert solved.n_iter < 2500


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_tied_matchings_do_not_crawl(n):
    """Moving every point by half the spacing leaves many plans nearly as good."""
    x = np.arange(float(n))[:, None]
    solved = entropic_potentials(squared_distances(x, x + 0.5), uniform(n), uniform(n), 1e-3)
    assert solved.converged
    assert solved.n_iter < 100


def test_costs_plus_a_constant_move_the_potentials_alone():
    M, a, b = problem("weights", 20, 25)
    plain = entropic_potentials(M, a, b, 0.05, tol=1e-10)
    for constant in (-50.0, 1e4):
        moved = entropic_potentials(M + constant, a, b, 0.05, tol=1e-9)
        assert moved.f @ a + moved.g @ b == pytest.approx(plain.f @ a + plain.g @ b + constant, rel=1e-9)


@pytest.mark.parametrize("p", [2, 12])
def test_symmetric_has_one_potential_and_the_same_plan(p):
    """With exponent 12 the kernel is not positive definite."""
    rng = np.random.default_rng(0)
    x, a = rng.normal(size=(60, 2)), rng.random(60)
    M, a = squared_distances(x, x) ** (p / 2), a / a.sum()
    reg = 0.01 * float(a @ M @ a)
    one = entropic_potentials(M, a, a, reg, symmetric=True, tol=1e-9)
    two = entropic_potentials(M, a, a, reg, tol=1e-9)
    assert one.converged
    np.testing.assert_array_equal(one.f, one.g)
    np.testing.assert_allclose(plan_of(one, M, a, a, reg), plan_of(two, M, a, a, reg), atol=1e-8)


def test_symmetric_goes_over_to_newtons_method(monkeypatch):
    rng = np.random.default_rng(0)
    x, a = rng.normal(size=(20, 2)), uniform(20)
    M = squared_distances(x, x)
    by_averages = entropic_potentials(M, a, a, 0.1, symmetric=True, tol=1e-12)
    monkeypatch.setattr(_symmetric, "_PATIENCE", 1)
    by_newton = entropic_potentials(M, a, a, 0.1, symmetric=True, tol=1e-12)
    assert by_newton.converged
    np.testing.assert_array_equal(by_newton.f, by_newton.g)
    np.testing.assert_allclose(by_newton.f, by_averages.f, atol=1e-10)


def test_newtons_direction_by_both_solvers():
    M, a, b = problem("weights", 80, 90)
    scaling = Scaling(M, a, b, 0.05 * float(M.mean()), None, Watch(100))
    plan = scaling.u[:, None] * scaling.K * scaling.v
    schur = np.diag(plan.sum(1)) - plan @ np.diag(1 / b) @ plan.T
    by_factor, (by_gradients, enough) = scaling.cholesky(), scaling.conjugate_gradients(1e-12, 200)
    assert enough
    for direction in (by_factor, by_gradients):
        np.testing.assert_allclose(schur @ direction, a - plan.sum(1), atol=1e-12)


@pytest.mark.parametrize("order", [np.ascontiguousarray, np.asfortranarray])
@pytest.mark.parametrize("kind", [ot.dist, lambda x, y: ot.dist(x, y, "euclidean")])
def test_the_few_entries_that_matter_make_the_same_products(kind, order):
    r = np.random.default_rng(1)
    x, y = r.normal(size=(150, 2)), r.normal(size=(180, 2))
    M, a, b = order(kind(x, y)), uniform(150), r.random(180) + 0.1
    b = b / b.sum()
    scaling = Scaling(M, a, b, 1e-3 * float(M.mean()), entropic_potentials(M, a, b, 1e-3 * float(M.mean())).g, Watch(9))
    left, p = scaling.u / np.sqrt(scaling.r), r.normal(size=150)
    few, price = scaling.few_entries(left)
    assert few is not None
    assert few.nnz < 0.2 * M.size
    assert price < 0.5
    dense = left * (scaling.K @ (scaling.v**2 / b * (scaling.K.T @ (left * p))))
    np.testing.assert_allclose(few @ (few.T @ p), dense, rtol=0, atol=1e-14 * np.linalg.norm(p))
    assert Scaling(M, a, b, float(M.mean()), None, Watch(9)).few_entries(left) == (None, 1.0)


def test_a_small_reg_is_solved_on_few_entries_without_a_factorisation(monkeypatch):
    """Conjugate gradients on K itself would have given up here."""
    r = np.random.default_rng(0)
    M, a = ot.dist(*r.normal(size=(2, 600, 8))), uniform(600)
    reg = 1e-3 * float(M.mean())
    monkeypatch.setattr(Scaling, "cholesky", lambda self: pytest.fail("a factorisation"))
    found = entropic_potentials(M, a, a, reg)
    assert found.converged
    plan = a[:, None] * a * np.exp((found.f[:, None] + found.g - M) / reg)
    assert abs(plan.sum(1) - a).sum() + abs(plan.sum(0) - a).sum() <= 1.001e-6


def test_path_ends_at_reg():
    assert regularisations(1.0, 0.2) == [0.2]
    np.testing.assert_allclose(regularisations(1.0, 0.004), [0.05, 0.036, 0.012, 0.004])


# Status


@pytest.mark.parametrize("symmetric", [False, True])
def test_interrupted_gives_the_best_so_far(symmetric):
    M, a, _ = problem("plain", 60, 60)
    M = M + M.T if symmetric else M
    np.fill_diagonal(M, 0)

    def interrupt(n_iter, error):
        if n_iter >= 10:
            raise KeyboardInterrupt

    solved = entropic_potentials(M, a, a, 1e-3, symmetric=symmetric, progress=interrupt)
    assert not solved.converged
    assert np.isfinite(solved.f).all()
    assert np.isfinite(solved.g).all()
    assert np.isfinite(solved.marginal_error)


@pytest.mark.parametrize("symmetric", [False, True])
def test_interrupted_without_progress_raises(monkeypatch, symmetric):
    """A loop over problems, a training say, would go on with what is unfinished."""
    M, a, _ = problem("plain", 60, 60)
    M = M + M.T
    count = Watch.count

    def interrupted(watch, iterations, error):
        before = watch.n_iter
        count(watch, iterations, error)
        if before < 10 <= watch.n_iter:
            raise KeyboardInterrupt

    monkeypatch.setattr(Watch, "count", interrupted)
    with pytest.raises(KeyboardInterrupt):
        entropic_potentials(M, a, a, 1e-3, symmetric=symmetric)


def test_small_systems_are_factored_and_others_are_not():
    for n, direct in ((64, True), (65, False)):
        M, a, b = problem("plain", n, 70)
        assert Scaling(M, a, b, 1.0, None, Watch(1)).direct is direct


def test_progress_is_shown(capsys):
    M, a, b = problem("plain", 10, 10)
    entropic_potentials(M, a, b, 0.1, progress=True)
    shown = capsys.readouterr().err
    assert shown.endswith("\n")
    assert "Sinkhorn: " in shown
    assert " iterations" in shown
    assert "marginal error" in shown


def test_progress_is_shown_without_tqdm(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    M, a, b = problem("plain", 10, 10)
    entropic_potentials(M, a, b, 0.1, progress=True)
    shown = capsys.readouterr().err
    assert "\rSinkhorn: iteration 1, marginal error " in shown
    assert shown.endswith("\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "newton"}, "method is 'newton'; expected one of 'auto', 'sinkhorn'"),
        ({"reg": 1e-14}, "reg is 1e-14 beside a largest cost"),
        ({"reg": 0.0}, "reg is 0.0; expected a finite number > 0"),
        ({"max_iter": 0}, "max_iter is 0"),
    ],
)
def test_bad_input_names_the_argument(options, message):
    M, a, b = problem("plain", 4, 5)
    with pytest.raises(ValueError, match=message):
        entropic_potentials(M, a, b, **{"reg": 1.0, **options})
