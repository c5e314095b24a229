import itertools
import re
import threading
import time
import warnings

import numpy as np
import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otkit import ConvergenceWarning
from otkit.empirical import sinkhorn_cost, sinkhorn_divergence, solve, transport_cost
from otkit.testing import measures
from tests.otkit.random_inputs import weights

rng = np.random.default_rng(0)


# Known answers


def test_between_two_points_the_plan_is_forced():
    """One point on each side: no choice, no entropy."""
    assert sinkhorn_cost(np.zeros((1, 2)), np.array([[3.0, 4.0]]), reg=0.3) == pytest.approx(25.0, rel=1e-12)


def test_two_by_two_in_closed_form():
    """For M = [[0, 1], [1, 0]] the plan is symmetric, with odds exp(1/reg)."""
    x = np.array([[0.0], [1.0]])
    reg = 0.7
    q = 0.5 / (1 + np.exp(-1 / reg))
    plan = np.array([[q, 0.5 - q], [0.5 - q, q]])
    expected = 2 * plan[0, 1] + reg * (plan * np.log(plan / 0.25)).sum()
    assert sinkhorn_cost(x, x, 1, reg=reg, tol=1e-12) == pytest.approx(expected, rel=1e-10)


def test_large_reg_gives_the_independent_coupling():
    x, y = rng.normal(size=(2, 8, 2))
    assert sinkhorn_cost(x, y, reg=1e6) == pytest.approx(((x[:, None] - y) ** 2).sum(-1).mean(), rel=1e-5)


@pytest.mark.parametrize("reg", [1e6, 1e12, 1e200])
def test_huge_reg_keeps_its_digits(reg):
    """The next term of the expansion is -Var(M under a⊗b, less rows and columns) / 2 reg."""
    x, y = np.random.default_rng(0).normal(size=(2, 8, 2))
    M = ((x[:, None] - y) ** 2).sum(-1)
    residual = M - M.mean(0) - M.mean(1, keepdims=True) + M.mean()
    expected = M.mean() - (residual**2).mean() / (2 * reg)
    assert sinkhorn_cost(x, y, reg=reg) == pytest.approx(expected, rel=1e-12)


# Oracle


@pytest.mark.parametrize("p", [1, 2])
def test_batched_against_pot(p):
    x, y, a, b = rng.normal(size=(3, 9, 2)), rng.normal(size=(7, 2)), weights(9), weights(7)
    ours = sinkhorn_cost(x, y, p, reg=0.5, a=a, b=b, tol=1e-10)
    costs = [np.linalg.norm(each[:, None] - y, axis=-1) ** p for each in x]
    theirs = [ot.solve(M, a, b, reg=0.5, reg_type="KL", tol=1e-12, max_iter=10_000).value for M in costs]
    np.testing.assert_allclose(ours, theirs, rtol=1e-7)


# Laws


@given(st.integers(1, 3).flatmap(lambda d: st.tuples(measures(d), measures(d))), st.floats(0.5, 10))
def test_between_exact_and_independent_and_symmetric(both, relative):
    (x, a), (y, b) = both
    M = ((x[:, None] - y) ** 2).sum(-1)
    reg = relative * max(M.max(), 1e-3)
    value = sinkhorn_cost(x, y, reg=reg, a=a, b=b)
    scale = M.max() + reg
    assert transport_cost(x, y, a=a, b=b) - 1e-5 * scale <= value <= a @ M @ b + 1e-5 * scale
    assert value == pytest.approx(sinkhorn_cost(y, x, reg=reg, a=b, b=a), abs=1e-5 * scale)


def test_converges_to_the_exact_cost():
    x, y = rng.normal(size=(2, 10, 2))
    exact = transport_cost(x, y)
    gaps = [sinkhorn_cost(x, y, reg=reg) - exact for reg in (3.0, 1.0, 0.3)]
    assert gaps[0] > gaps[1] > gaps[2] > 0
    # The entropy of a plan relative to the product is at most log n.
    assert gaps[2] <= 0.3 * np.log(10)


def test_small_reg_uses_the_log_domain_and_does_not_underflow():
    x = rng.normal(size=(6, 2))
    value = sinkhorn_cost(x, x + 30.0, reg=0.5)
    assert value == pytest.approx(transport_cost(x, x + 30.0) + 0.5 * np.log(6), rel=1e-2)


# Derivatives


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
def test_gradients_by_finite_differences_with_weights_that_are_not_uniform(p):
    arrays = (rng.normal(size=(2, 6, 2)), rng.normal(size=(5, 2)), weights(6), weights(5))
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]

    def on_the_simplex(x, y, a, b):
        return sinkhorn_cost(x, y, p, reg=1.0, a=a / a.sum(), b=b / b.sum(), tol=1e-12)

    assert torch.autograd.gradcheck(on_the_simplex, tensors)


def test_gradient_at_identical_points_is_finite():
    x = torch.tensor(rng.normal(size=(5, 2)), requires_grad=True)
    for p in (1, 1.5, 2):
        sinkhorn_cost(x, x.detach(), p, reg=0.5).backward()
        assert torch.isfinite(x.grad).all()


def test_weight_zero_has_the_gradient_of_its_limit():
    x, y, a = (
        torch.tensor(rng.normal(size=(4, 2))),
        torch.tensor(rng.normal(size=(3, 2))),
        np.array([0.5, 0.0, 0.3, 0.2]),
    )
    at = torch.tensor(a, requires_grad=True)
    sinkhorn_cost(x, y, reg=1.0, a=at, tol=1e-12).backward()
    step = 1e-6 * np.array([-1.0, 1.0, 0.0, 0.0])
    values = [sinkhorn_cost(x, y, reg=1.0, a=torch.tensor(a + s), tol=1e-12).item() for s in (step, 0 * step)]
    assert (values[0] - values[1]) / 1e-6 == pytest.approx((at.grad[1] - at.grad[0]).item(), rel=1e-4)


@pytest.mark.parametrize("p", [1.5, 2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_points_of_weight_zero_on_both_sides_have_gradient_zero_at_a_small_reg(p, dtype):
    """Their potentials are those of the points that have weight, and add up to far more than their cost."""
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=dtype, requires_grad=True)
    y = torch.tensor([[1.5, 0.0], [0.0, 0.1]], dtype=dtype, requires_grad=True)
    one = torch.tensor([1.0, 0.0], dtype=dtype)
    for first, second in torch.autograd.grad(sinkhorn_cost(x, y, p, reg=1e-3, a=one, b=one), (x, y)):
        assert abs(float(first[0])) == pytest.approx(p * 0.5 ** (p - 1), rel=1e-4)
        assert first[1] == 0
        assert (second == 0).all()


@pytest.mark.parametrize("far", [1e4, 1e10, 1e200])
@pytest.mark.parametrize(
    "cost",
    [
        lambda x, y, a: sinkhorn_cost(x, y, reg=0.1, a=a, tol=1e-10),
        lambda x, y, a: sinkhorn_divergence(x, y, reg=0.1, a=a, tol=1e-10),
        lambda x, y, a: solve(x, y, reg=0.1, a=a, tol=1e-10).value,
    ],
    ids=["cost", "divergence", "solve"],
)
def test_points_of_weight_zero_take_no_digits_however_far(cost, far):
    """As what a batch is filled up with; and reg is above the rounding of what costs are paid."""
    x, y, a = rng.normal(size=(6, 2)), rng.normal(size=(5, 2)), rng.dirichlet(np.ones(6))

    def found(x, a):
        points, mass = (torch.tensor(part, requires_grad=True) for part in (x, a))
        value = cost(points, torch.tensor(y), mass)
        value.backward()
        return value.item(), points.grad[:6].numpy(), (mass.grad[1:6] - mass.grad[0]).numpy()

    filled = found(np.concatenate([x, np.full((2, 2), far)]), np.concatenate([a, [0.0, 0.0]]))
    for ours, expected in zip(filled, found(x, a), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("p", [5, 10])
@pytest.mark.parametrize(
    "cost",
    [
        transport_cost,
        lambda x, y, p, a: solve(x, y, p, a=a).value,
        lambda x, y, p, a: solve(x, y, p, a=a, reg=0.1).value,
        lambda x, y, p, a: sinkhorn_cost(x, y, p, a=a, reg=0.1),
        lambda x, y, p, a: sinkhorn_divergence(x, y, p, a=a, reg=0.1),
    ],
    ids=["exact", "solve", "solve with reg", "cost", "divergence"],
)
def test_nor_do_they_at_a_large_exponent(cost, p):
    """Where their own costs, as far away as they are, would be beyond float64."""
    x, y, a = rng.normal(size=(4, 2)), rng.normal(size=(3, 2)), np.full(4, 0.25)
    filled = np.concatenate([x, [[1e100, 0.0]]]), np.concatenate([a, [0.0]])
    assert cost(filled[0], y, p, a=filled[1]) == pytest.approx(cost(x, y, p, a=a), rel=1e-9)


def test_what_overflows_without_weight_is_refused():
    x = np.array([[0.0], [1e9], [1e30]])
    with pytest.raises(ValueError, match="costs overflow"):
        sinkhorn_cost(x, x[:2], 34, reg=1e300, a=np.array([0.5, 0.5, 0.0]))


def test_second_derivatives_are_refused():
    x = torch.tensor(rng.normal(size=(4, 2)), requires_grad=True)
    (grad,) = torch.autograd.grad(sinkhorn_cost(x, x.detach() + 1, reg=1.0), x, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives of sinkhorn_cost"):
        grad.sum().backward()


def test_float32_keeps_its_dtype():
    x = torch.randn(8, 3, requires_grad=True)
    value = sinkhorn_cost(x, torch.randn(6, 3), reg=1.0)
    value.backward()
    assert value.dtype == x.grad.dtype == torch.float32


# Threads


BATCHED = {
    "sinkhorn_cost": lambda *points, **options: sinkhorn_cost(*points, reg=1.0, **options),
    "solve": lambda *points, **options: solve(*points, reg=1.0, **options).value,
}


@pytest.mark.parametrize("name", BATCHED)
def test_the_filters_of_warnings_are_as_before(name, monkeypatch):
    """They are of the process: a thread that saves and restores them may restore what is another's."""
    torch.set_num_threads(2)
    both, count, of_pot = threading.Barrier(2, timeout=10), itertools.count(), ot.sinkhorn

    def last_in_last_out(*args, **options):
        number = next(count)
        both.wait()
        time.sleep(0.1 * number)
        return of_pot(*args, **options)

    points = rng.normal(size=(2, 6, 2)), rng.normal(size=(5, 2))
    BATCHED[name](*points)  # what a first call imports has filters of its own
    monkeypatch.setattr(ot, "sinkhorn", last_in_last_out)
    before = list(warnings.filters)
    BATCHED[name](*points, method="sinkhorn")
    assert warnings.filters == before


@pytest.mark.parametrize("name", BATCHED)
def test_who_watches_a_batch_may_stop_it(name):
    """Ctrl-C reaches the main thread only, which is to be the one that works."""
    torch.set_num_threads(2)
    problems, seen = rng.normal(size=(3, 6, 2)), []

    def interrupt(n_iter, error):
        seen.append((threading.current_thread(), n_iter))
        if len(seen) == 1:
            raise KeyboardInterrupt

    with pytest.warns(ConvergenceWarning, match="in 1 of 3 problems"):
        values = BATCHED[name](problems, rng.normal(size=(5, 2)), progress=interrupt)
    assert np.isfinite(values).all()
    assert {thread for thread, _ in seen} == {threading.current_thread()}
    assert [n_iter for _, n_iter in seen].count(1) == 3  # one problem after the other


# Status and bad input


def test_not_converged_warns():
    x, y = rng.normal(size=(2, 20, 2))
    with pytest.warns(ConvergenceWarning, match="raise max_iter or tol, or take a larger reg"):
        sinkhorn_cost(x, y, reg=0.05, tol=1e-10, max_iter=3)


@pytest.mark.parametrize("with_itself", [False, True])
@pytest.mark.parametrize("stop", ["max_iter", "Ctrl-C"])
@pytest.mark.parametrize("n_iter", [1, 2, 3, 10])
@pytest.mark.parametrize("reg", [1e-2, 1e-4, 1e-6])
def test_not_converged_is_a_lower_bound_with_finite_gradients(reg, n_iter, stop, with_itself):
    r = np.random.default_rng(0)
    x, y = (torch.tensor(r.normal(size=(40, 2)), requires_grad=True) for _ in range(2))
    y = x.detach().clone().requires_grad_() if with_itself else y

    def interrupt(done, _):
        if done >= n_iter:
            raise KeyboardInterrupt

    options = {"max_iter": n_iter} if stop == "max_iter" else {"progress": interrupt}
    with warnings.catch_warnings(record=True, action="always") as caught:
        value = sinkhorn_cost(x, y, reg=reg, **options)
    # Of a measure with itself the plan at a small reg is the identity, which the last transform may find.
    assert caught or with_itself
    assert all(re.search(r"off by \d", str(each.message)) for each in caught)
    optimum = sinkhorn_cost(x, y, reg=reg, tol=1e-9).item()
    assert optimum - 0.2 < value.item() <= optimum + 1e-12
    for gradient in torch.autograd.grad(value, (x, y)):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"tol": 0}, "tol is 0"), ({"max_iter": 1.5}, "max_iter is 1.5"), ({"method": "fast"}, "method is 'fast'")],
)
def test_bad_options(options, message):
    for function in (sinkhorn_cost, sinkhorn_divergence):
        with pytest.raises(ValueError, match=message):
            function(np.zeros((3, 2)), np.ones((4, 2)), reg=1.0, **options)
