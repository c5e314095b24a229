"""Problems too large to look at all arcs, or to hold the costs: the same answers by short lists and in blocks."""

import numpy as np
import ot
import pytest
import torch
from scipy import sparse

from otkit import ConvergenceWarning
from otkit.empirical import _columns, _costs, _simplex, _solve, solve, transport_cost

rng = np.random.default_rng(0)


@pytest.fixture
def small_limits(monkeypatch):
    """Column generation, costs in blocks and sparse plans at a size for tests."""
    monkeypatch.setattr(_simplex, "DENSE", 30**2)
    monkeypatch.setattr(_simplex, "COARSEST", 12**2)
    monkeypatch.setattr(_columns, "LISTED", 3)
    monkeypatch.setattr(_columns, "ADDED", 3)
    monkeypatch.setattr(_costs, "BLOCK", 500)
    monkeypatch.setattr(_solve, "DENSE", 30**2)


KINDS = {
    "normal": lambda r, n: r.normal(size=(n, 2)),
    "lattice": lambda r, n: np.round(2 * r.normal(size=(n, 2))),
    "clusters": lambda r, n: 0.05 * r.normal(size=(n, 2)) + r.integers(0, 4, (n, 1)),
    "line": lambda r, n: r.normal(size=(n, 1)) * np.ones(3),
    "one place": lambda r, n: np.ones((n, 2)),
}


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(120, 120), (150, 70), (2000, 3)])
@pytest.mark.parametrize("held", [True, False])
def test_short_lists_of_arcs_are_as_good_as_all(kind, sizes, held, monkeypatch):
    n, m = sizes
    r = np.random.default_rng(n)
    x, y, a, b = KINDS[kind](r, n), KINDS[kind](r, m), r.integers(0, 5, n) / 1.0, r.random(m)
    a, b = a / a.sum(), b / b.sum()
    if not held:
        monkeypatch.setattr(_costs, "MATRIX_BYTES", 0)
    found = solve(x, y, 1.5, a=a, b=b)
    for limit in ("DENSE", "COARSEST"):
        monkeypatch.setattr(_simplex, limit, 10**9)
    expected = transport_cost(x, y, 1.5, a=a, b=b)
    assert found.converged
    assert found.cost == pytest.approx(expected, rel=1e-11, abs=1e-13)
    assert isinstance(found.plan, sparse.coo_array)
    assert found.marginal_error < 1e-12
    np.testing.assert_allclose(found.plan.sum(1), a, atol=1e-14)


@pytest.mark.parametrize(("d", "spread", "lists"), [(8, 0, True), (2, 0, False), (8, 30, False)])
def test_short_lists_are_taken_where_few_arcs_matter(d, spread, lists):
    """In many dimensions, not in two or between clusters."""
    r = np.random.default_rng(0)
    x, y = r.normal(size=(2, 720, d)) + spread * r.integers(0, 3, (2, 720, 1))
    a, b = r.random((2, 720))
    a, b = a / a.sum(), b / b.sum()
    found = solve(x, y, a=a, b=b)
    assert found.converged
    assert (found.n_iter > 1) == lists
    assert found.cost == pytest.approx(ot.emd2(a, b, ot.dist(x, y), numItermax=10**7), rel=1e-11)


@pytest.mark.usefixtures("small_limits")
def test_large_torch_plans_are_sparse_and_unfinished_lists_certify():
    x, y = torch.randn(2, 100, 3, dtype=torch.float64)
    found = solve(x, y)
    assert found.plan.layout == torch.sparse_coo
    assert found.plan.sum().item() == pytest.approx(1)
    with pytest.warns(ConvergenceWarning, match="stopped at max_iter"):
        rough = solve(x, y, max_iter=30)
    assert not rough.converged
    assert rough.lower_bound < found.cost < rough.upper_bound
    assert solve(x, y, reg=1.0).plan is None


def test_matrix_free_gradients_are_those_of_the_matrix(monkeypatch):
    tensors = [torch.tensor(rng.normal(size=(n, 2)), requires_grad=True) for n in (12, 10)]
    for reg in (None, 0.5):
        gradients = []
        for limit in (2**30, 0):
            monkeypatch.setattr(_costs, "MATRIX_BYTES", limit)
            gradients.append(torch.autograd.grad(solve(*tensors, 1.5, reg=reg, tol=1e-9).value, tensors))
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
