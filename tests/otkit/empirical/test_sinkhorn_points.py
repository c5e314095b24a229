import numpy as np
import pytest
import torch

from otkit import ConvergenceWarning
from otkit.empirical import _costs, sinkhorn_cost, sinkhorn_divergence
from otkit.empirical._sinkhorn import _cost, _points, entropic_potentials, entropic_potentials_of_points
from otkit.empirical._sinkhorn._watch import Watch


def clouds(n=300, m=250, d=3):
    rng = np.random.default_rng(0)
    a, b = (rng.random(k) + 0.1 for k in (n, m))
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + 0.5, a / a.sum(), b / b.sum()


@pytest.fixture
def small(monkeypatch):
    """Sizes at which tiles and samples matter, and no matrix is allowed."""
    monkeypatch.setattr(_costs, "MATRIX_BYTES", 1600)
    monkeypatch.setattr(_cost, "_TILE", 1000)
    monkeypatch.setattr(_points, "_TILE", 1000)
    monkeypatch.setattr(_points, "_SAMPLE", 50)


@pytest.mark.parametrize(("p", "tol"), [(1, 1e-4), (1, 1e-8), (2, 1e-4), (2, 1e-8), (3, 1e-8)])
def test_potentials_are_those_with_the_matrix(small, p, tol):
    x, y, a, b = clouds()
    a[:5], b[-3:] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    M = np.linalg.norm(x[:, None] - y, axis=-1) ** p
    reg = 0.05 * M.mean()
    solved = entropic_potentials_of_points(x, y, a, b, p, reg, tol=tol)
    plan = a[:, None] * b * np.exp((solved.f[:, None] + solved.g - M) / reg)
    error = np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum()
    assert solved.converged
    assert error == pytest.approx(solved.marginal_error, rel=1e-3, abs=1e-12)
    exact = entropic_potentials(M, a, b, reg, tol=1e-10)
    assert solved.f @ a + solved.g @ b == pytest.approx(exact.f @ a + exact.g @ b, rel=10 * tol)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
def test_exponents_are_those_of_the_costs(p, dtype, atol):
    """In float32 as well, whose errors later iterations in float64 would hide."""
    x, y, f, g = (torch.as_tensor(part) for part in clouds(40, 30))
    expected = (f[:, None] + g - torch.linalg.vector_norm(x[:, None] - y, dim=-1) ** p) / 0.5
    found = _points._Exponents(y, g, p, 0.5, dtype)(x, f)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=atol)


def test_potentials_far_from_the_origin(small):
    x, y, a, b = clouds()
    near, far = (entropic_potentials_of_points(x + s, y + s, a, b, 2, 0.5, tol=1e-5) for s in (0, 1e4))
    np.testing.assert_allclose(far.f - far.f.mean(), near.f - near.f.mean(), atol=1e-4)


@pytest.mark.parametrize("reg", [0.5, 50.0])
@pytest.mark.parametrize("far", [1e10, 1e200])
@pytest.mark.parametrize("cost", [sinkhorn_cost, sinkhorn_divergence])
def test_far_points_of_weight_zero_take_no_digits(small, cost, far, reg):
    x, y, a, b = clouds(90, 80)
    filled = np.concatenate([x, np.full((5, 3), far)]), np.concatenate([a, np.zeros(5)])
    value = cost(filled[0], y, a=filled[1], b=b, reg=reg, tol=1e-8)
    assert value == pytest.approx(cost(x, y, a=a, b=b, reg=reg, tol=1e-8), rel=1e-7)


def test_small_reg_recovers_sums_that_underflow(small):
    x, y, a, b = clouds(120, 100, 1)
    y[0] = 300.0
    solved = entropic_potentials_of_points(x, y, a, b, 2, 0.5, tol=1e-5)
    assert solved.converged


@pytest.mark.parametrize("p", [1, 2])
def test_cost_and_gradients_are_those_with_the_matrix(monkeypatch, p):
    arrays = [torch.tensor(array, requires_grad=True) for array in clouds(60, 50)]
    x, y, a, b = arrays
    value = sinkhorn_cost(x, y, p, reg=0.5, a=a, b=b, tol=1e-9)
    expected = torch.autograd.grad(value, arrays)
    for module, name, size in ((_costs, "MATRIX_BYTES", 1600), (_cost, "_TILE", 130), (_points, "_TILE", 130)):
        monkeypatch.setattr(module, name, size)
    monkeypatch.setattr(_points, "_SAMPLE", 20)
    tiled = sinkhorn_cost(x, y, p, reg=0.5, a=a, b=b, tol=1e-9)
    torch.testing.assert_close(tiled, value, rtol=1e-8, atol=0)
    for ours, theirs in zip(torch.autograd.grad(tiled, arrays), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)


def test_divergence_without_the_matrix(small):
    x, y, a, b = clouds(100, 80)
    assert sinkhorn_divergence(x, x.copy(), reg=0.5, a=a, b=a) == 0
    M = np.linalg.norm(x[:, None] - y, axis=-1) ** 2
    with_matrix = [
        entropic_potentials(c, w, v, 0.5, tol=1e-10)
        for c, w, v in (
            (M, a, b),
            (((x[:, None] - x) ** 2).sum(-1), a, a),
            (((y[:, None] - y) ** 2).sum(-1), b, b),
        )
    ]
    xy, xx, yy = (s.f @ w + s.g @ v for s, w, v in zip(with_matrix, (a, a, b), (b, a, b), strict=True))
    assert sinkhorn_divergence(x, y, reg=0.5, a=a, b=b) == pytest.approx(xy - xx / 2 - yy / 2, rel=1e-6)


def test_interrupted_gives_the_best_so_far_and_warns(small):
    x, y, a, b = clouds()

    def interrupt(n_iter, error):
        if n_iter >= 4:
            raise KeyboardInterrupt

    with pytest.warns(ConvergenceWarning, match="raise max_iter or tol, or take a larger reg"):
        value = sinkhorn_cost(x, y, reg=0.5, a=a, b=b, tol=1e-9, progress=interrupt)
    cost = sinkhorn_cost(x, y, reg=0.5, a=a, b=b, tol=1e-5)
    assert 0.9 * cost < value <= cost * (1 + 1e-9)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("stop", ["max_iter", "Ctrl-C"])
@pytest.mark.parametrize("n_iter", [1, 3])
@pytest.mark.parametrize("relative", [1e-2, 1e-4])
def test_unfinished_potentials_measure_their_error_and_bound_the_cost(small, relative, n_iter, stop, symmetric):
    x, y, a, b = clouds(60, 50)
    a[0] = b[0] = 0
    x[0] = y[0] = 30.0
    a, b = a / a.sum(), b / b.sum()
    y, b = (x, a) if symmetric else (y, b)
    M = ((x[:, None] - y) ** 2).sum(-1)
    reg = relative * float(a @ M @ b)

    def interrupt(done, _):
        if done >= n_iter:
            raise KeyboardInterrupt

    options = {"max_iter": n_iter} if stop == "max_iter" else {"progress": interrupt}
    solved = entropic_potentials_of_points(x, y, a, b, 2, reg, symmetric=symmetric, **options)
    assert symmetric or not solved.converged
    kernel = np.exp((solved.f[:, None] + solved.g - M) / reg, where=a[:, None] * b > 0, out=np.zeros_like(M))
    plan = a[:, None] * b * kernel
    error = np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum()
    assert solved.marginal_error == pytest.approx(error, rel=1e-6, abs=1e-12)
    optimum = entropic_potentials(M, a, b, reg, tol=1e-9)
    assert solved.f @ a + solved.g @ b <= optimum.f @ a + optimum.g @ b + 1e-12


@pytest.mark.parametrize("n_iter", [1, 4])  # on the sample that it starts from, and after it
def test_interrupted_without_progress_raises(small, monkeypatch, n_iter):
    x, y, a, b = clouds()
    count = Watch.count

    def interrupted(watch, iterations, error):
        count(watch, iterations, error)
        if watch.n_iter >= n_iter:
            raise KeyboardInterrupt

    monkeypatch.setattr(Watch, "count", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sinkhorn_cost(x, y, reg=0.5, a=a, b=b, tol=1e-9)


def test_methods_that_need_the_matrix_are_refused(small):
    x, y, a, b = clouds()
    with pytest.raises(ValueError, match=r"method is 'sinkhorn', which holds the 300 x 250 cost matrix"):
        sinkhorn_cost(x, y, reg=0.5, a=a, b=b, method="sinkhorn")
