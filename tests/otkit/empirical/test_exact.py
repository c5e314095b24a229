from itertools import pairwise

import numpy as np
import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otkit import ConvergenceWarning
from otkit.empirical import solve, solve_matrix, transport_cost, wasserstein
from otkit.gaussian import w2_squared
from otkit.testing import measures, rotations
from tests.otkit.empirical.linear_programme import linear_programme
from tests.otkit.random_inputs import weights

rng = np.random.default_rng(0)
dimensions = st.integers(1, 3)
exponents = st.sampled_from([1.0, 1.5, 2.0, 3.0])


# Known answers


def test_translation_in_every_exponent():
    x = rng.normal(size=(20, 3))
    for p in (1, 1.5, 2, 3):
        assert wasserstein(x, x + np.array([3.0, 4.0, 0.0]), p) == pytest.approx(5.0, rel=1e-14)


def test_gradient_of_a_convex_function_is_optimal():
    """Brenier: the identity matches x with T(x), which ties samples to the closed form without sampling error."""
    x = rng.normal(size=(500, 3))
    B = rng.normal(size=(3, 3))
    T = B @ B.T + 0.1 * np.eye(3)
    y = x @ T + 1.0
    expected = ((x - y) ** 2).sum(-1).mean()
    assert transport_cost(x, y) == pytest.approx(expected, rel=1e-12)
    moments = [part for points in (x, y) for part in (points.mean(0), np.cov(points.T, bias=True))]
    assert w2_squared(*moments) == pytest.approx(expected, rel=1e-10)


def test_one_dimension_sorts():
    x, y = rng.normal(size=(2, 50, 1))
    assert transport_cost(x, y, 3) == pytest.approx(
        (np.abs(np.sort(x[:, 0]) - np.sort(y[:, 0])) ** 3).mean(), rel=1e-12
    )


def test_far_from_the_origin_no_digit_is_lost():
    x, y = rng.normal(size=(2, 30, 2)).astype(np.float32)
    shifted = [(points + np.float32(4096)).astype(np.float32) for points in (x, y)]
    back = [(points - np.float32(4096)).astype(np.float32) for points in shifted]
    assert transport_cost(*shifted) == pytest.approx(transport_cost(*back), rel=1e-6)


# Oracles


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
def test_against_linear_programming(p):
    x, y, a, b = rng.normal(size=(15, 2)), rng.normal(size=(11, 2)), weights(15), weights(11, 1)
    M = np.linalg.norm(x[:, None] - y, axis=-1) ** p
    assert transport_cost(x, y, p, a=a, b=b) == pytest.approx(linear_programme(a, b, M), rel=1e-9)


def test_batched_on_threads_against_pot_in_a_loop():
    torch.set_num_threads(2)
    x, y, a, b = rng.normal(size=(4, 1, 9, 2)), rng.normal(size=(3, 7, 2)), weights(9), weights(7)
    ours = transport_cost(x, y, a=a, b=b)
    theirs = [[ot.emd2(a, b, ot.dist(x[i, 0], y[j])) for j in range(3)] for i in range(4)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


# Laws


@given(dimensions.flatmap(lambda d: st.tuples(measures(d), measures(d))), exponents)
def test_symmetry(both, p):
    (x, a), (y, b) = both
    assert wasserstein(x, y, p, a=a, b=b) == pytest.approx(wasserstein(y, x, p, a=b, b=a), rel=1e-10, abs=1e-12)


@given(dimensions.flatmap(measures), exponents)
def test_identity(measure, p):
    x, a = measure
    assert wasserstein(x, x, p, a=a, b=a) == pytest.approx(0, abs=1e-5)


@given(dimensions.flatmap(lambda d: st.tuples(*[measures(d)] * 3)), exponents)
def test_triangle_inequality(three, p):
    (x, a), (y, b), (z, c) = three
    direct = wasserstein(x, z, p, a=a, b=c)
    assert direct <= (wasserstein(x, y, p, a=a, b=b) + wasserstein(y, z, p, a=b, b=c)) * (1 + 1e-9) + 1e-6


@given(dimensions.flatmap(lambda d: st.tuples(measures(d), measures(d), rotations(d))), exponents, st.floats(0.1, 10))
def test_moves_with_rotation_translation_and_scale(problem, p, scale):
    (x, a), (y, b), Q = problem
    moved = [scale * points @ Q.T + 1.0 for points in (x, y)]
    assert wasserstein(*moved, p, a=a, b=b) == pytest.approx(scale * wasserstein(x, y, p, a=a, b=b), rel=1e-6, abs=1e-5)


@given(dimensions.flatmap(lambda d: st.tuples(measures(d), measures(d))))
def test_gelbrich_bound_and_monotonicity_in_p(both):
    (x, a), (y, b) = both
    distances = [wasserstein(x, y, p, a=a, b=b) for p in (1, 1.5, 2, 3)]
    assert all(low <= high * (1 + 1e-9) + 1e-9 for low, high in pairwise(distances))
    moments = [
        part for points, w in both for part in (w @ points, np.atleast_2d(np.cov(points.T, aweights=w, bias=True)))
    ]
    assert distances[2] ** 2 >= w2_squared(*moments) * (1 - 1e-9) - 1e-7


# Derivatives


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
@pytest.mark.parametrize("distance", [transport_cost, wasserstein])
def test_gradients_by_finite_differences(distance, p):
    arrays = (rng.normal(size=(2, 6, 2)), rng.normal(size=(5, 2)), weights(6), weights(5))
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]

    def on_the_simplex(x, y, a, b):
        return distance(x, y, p, a=a / a.sum(), b=b / b.sum())

    assert torch.autograd.gradcheck(on_the_simplex, tensors)


@pytest.mark.parametrize("p", [1.5, 2, 3])
def test_second_derivatives_in_the_points(p):
    x, y = (torch.tensor(rng.normal(size=(n, 2)), requires_grad=True) for n in (6, 5))
    assert torch.autograd.gradgradcheck(lambda x, y: transport_cost(x, y, p), (x, y))


def test_second_derivatives_in_the_weights_are_refused():
    x = torch.tensor(rng.normal(size=(4, 2)), requires_grad=True)
    a = torch.full((4,), 0.25, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(transport_cost(x, x.detach() + 1, a=a), a, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives of transport_cost in the weights"):
        grad.sum().backward()


@given(dimensions.flatmap(lambda d: st.tuples(measures(d), measures(d))), exponents)
def test_weight_gradients_are_dual_potentials(both, p):
    """Feasible, and of the same value: also at points of weight zero, and between two of them."""
    (x, a), (y, b) = both
    a_, b_ = (torch.tensor(w, requires_grad=True) for w in (a, b))
    value = transport_cost(torch.tensor(x), torch.tensor(y), p, a=a_, b=b_)
    value.backward()
    f, g = a_.grad.numpy(), b_.grad.numpy()
    M = np.linalg.norm(x[:, None] - y, axis=-1) ** p
    scale = 1 + M.max()
    assert (f[:, None] + g - M).max() <= 1e-9 * scale
    assert f @ a + g @ b == pytest.approx(value.item(), rel=1e-9, abs=1e-9 * scale)


def test_two_points_of_weight_zero_are_worth_no_more_than_what_is_between_them():
    """Mass that comes to both third points costs nothing there; from the first points f and g alone cost 100 each."""
    x = torch.tensor([[0.0, 0], [5, 0], [10, 0]], dtype=torch.float64)
    a, b = (torch.tensor([1.0, 0, 0], dtype=torch.float64, requires_grad=True) for _ in range(2))
    transport_cost(x, x, a=a, b=b).backward()
    assert float(a.grad[2] + b.grad[2] - a.grad[0] - b.grad[0]) <= 1e-12


def test_gradient_of_the_root_at_identical_points_is_zero():
    x = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    for p in (1, 1.5, 2, 3):
        value = wasserstein(x, x.detach().clone(), p)
        value.backward()
        assert value.item() == 0
        assert (x.grad == 0).all()


def test_a_point_of_weight_zero_beside_which_others_would_underflow():
    """Also where the squares of their differences do, and with them the length."""
    x, y = np.array([[0.0, 0.0], [1.0, 0.0], [1e200, 0.0]]), np.array([[0.5, 0.0], [2.0, 0.0]])
    assert wasserstein(x, y, a=np.array([0.5, 0.5, 0.0])) == pytest.approx(0.625**0.5, rel=1e-14)


@pytest.mark.parametrize("distance", [transport_cost, lambda x, y, a: solve(x, y, a=a).value])
@pytest.mark.parametrize("far", [1e4, 1e7, 1e10, 1e200])
def test_far_points_of_weight_zero_take_no_digits_from_the_gradient_in_the_weights(far, distance):
    generator = np.random.default_rng(0)
    x, y, a = generator.normal(size=(6, 2)), generator.normal(size=(5, 2)), generator.dirichlet(np.ones(6))

    def slopes(x, a):
        held = torch.tensor(a, requires_grad=True)
        distance(torch.tensor(x), torch.tensor(y), a=held).backward()
        assert held.grad is not None
        return (held.grad[1:6] - held.grad[0]).numpy()

    filled = slopes(np.concatenate([x, np.full((2, 2), far)]), np.concatenate([a, [0.0, 0.0]]))
    np.testing.assert_allclose(filled, slopes(x, a), atol=1e-10)


def test_zero_weights_change_nothing():
    x, y = rng.normal(size=(5, 2)), rng.normal(size=(4, 2))
    a = np.array([0.5, 0.0, 0.25, 0.25, 0.0])
    assert transport_cost(x, y, a=a) == pytest.approx(transport_cost(x[a > 0], y, a=a[a > 0]), rel=1e-14)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, 50])
@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1e-7, 1e6, 1e150])
def test_no_scale_is_too_small_or_too_large(p, scale):
    """The solver's tolerances are absolute: without scaling it calls a wrong plan optimal."""
    x, y = np.random.default_rng(1).normal(size=(2, 20, 2))
    a = weights(20)
    expected = wasserstein(x, y, p, a=a)
    assert wasserstein(scale * x, scale * y, p, a=a) == pytest.approx(scale * expected, rel=1e-9)
    tensor = torch.tensor(scale * x, requires_grad=True)
    wasserstein(tensor, torch.tensor(scale * y), p, a=torch.tensor(a)).backward()
    plain = torch.tensor(x, requires_grad=True)
    wasserstein(plain, torch.tensor(y), p, a=torch.tensor(a)).backward()
    torch.testing.assert_close(tensor.grad, plain.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("mass", [1e-280, 1e-30, 1e30, 1e280])
def test_no_mass_is_too_small_or_too_large(mass):
    x, y = np.random.default_rng(1).normal(size=(2, 6, 2))
    a, b = weights(6), weights(6, 1)
    assert transport_cost(x, y, a=mass * a, b=mass * b) == pytest.approx(
        mass * transport_cost(x, y, a=a, b=b), rel=1e-12
    )


def test_float32_does_not_overflow_on_the_way_to_the_root():
    far = np.array([[1e25]], dtype=np.float32)
    assert wasserstein(far, -far) == np.float32(2e25)
    assert wasserstein(far * np.float32(1e-50), far * 0) >= 0
    tiny = np.array([[1e-25]], dtype=np.float32)
    assert wasserstein(tiny, -tiny) == np.float32(2e-25)


@pytest.mark.parametrize("p", [1, 1.5, 3])
def test_second_derivatives_at_a_coinciding_pair_are_finite(p):
    x = torch.tensor(rng.normal(size=(4, 2)), requires_grad=True)
    y = x.detach() + torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.0, 0.1], [0.1, 0.1]])
    (grad,) = torch.autograd.grad(transport_cost(x, y, p), x, create_graph=True)
    (second,) = torch.autograd.grad(grad.square().sum(), x)
    assert torch.isfinite(second).all()


def test_mass_scales_the_cost():
    x, y = rng.normal(size=(2, 5, 2))
    assert transport_cost(x, y, a=np.ones(5), b=np.ones(5)) == pytest.approx(5 * transport_cost(x, y), rel=1e-12)


def test_float32_keeps_its_dtype():
    x = torch.randn(8, 3, requires_grad=True)
    value = transport_cost(x, torch.randn(6, 3))
    value.backward()
    assert value.dtype == x.grad.dtype == torch.float32


def test_empty_batch():
    assert transport_cost(np.zeros((0, 3, 2)), np.zeros((4, 2))).shape == (0,)


@pytest.mark.parametrize("reg", [None, 0.5])
@pytest.mark.parametrize("batch", [(0,), (2, 0)])
def test_an_empty_batch_has_gradients(batch, reg):
    """As those of a step of training without data, they are zero in what the batch shares."""

    def inputs(*shapes):
        return [torch.ones(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    x, y, a, M = inputs((*batch, 4, 2), (4, 2), (*batch, 4), (*batch, 4, 4))
    (b,) = inputs((4,))
    values = [solve(x, y, a=a, b=b, reg=reg).value]
    if reg is None:
        values += [transport_cost(x, y, a=a, b=b), wasserstein(x, y, a=a, b=b)]
    for value, inputs_of in [*((v, (x, y, a, b)) for v in values), (solve_matrix(M, a, b, reg=reg).value, (M, a, b))]:
        assert value.shape == batch
        for gradient, of in zip(torch.autograd.grad(value.sum(), inputs_of), inputs_of, strict=True):
            torch.testing.assert_close(gradient, torch.zeros_like(of))


def test_stopping_early_warns():
    x, y = rng.normal(size=(2, 50, 2))
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        transport_cost(x, y, max_iter=2)


# Bad input

x2, y2 = np.zeros((3, 2)), np.ones((4, 2))


@pytest.mark.parametrize(
    ("x", "y", "options", "error", "message"),
    [
        (np.zeros(3), y2, {}, ValueError, r"x has shape \(3,\); expected points"),
        (x2, y2, {"a": np.array([[0.0, 0, 0], [0.2, 0.3, 0.5]])}, ValueError, "a has weights that are all zero"),
        (
            np.zeros((2, 3, 2)),
            np.zeros((3, 3, 2)),
            {},
            ValueError,
            r"batch shapes do not broadcast; got x: \(2,\), y: \(3,\)",
        ),
        (x2, y2, {"max_iter": 0}, ValueError, "max_iter is 0"),
        (x2, y2, {"max_iter": True}, ValueError, "max_iter is True"),
        (None, y2, {}, TypeError, "x is None"),
        (x2, y2, {"a": np.full(3, 1e308)}, ValueError, "a has a sum of inf"),
        (x2, y2, {"a": np.array([[1.0], [1e300]]) * np.ones(3), "validate": False}, ValueError, r"a sum of 3e\+300"),
        (x2, y2, {"a": np.zeros(3), "validate": False}, ValueError, "a has a sum of 0"),
        (x2, np.ma.masked_less(y2, 2.0), {}, TypeError, "y is a masked array"),
        (1e308 * (x2 + 1), -1e308 * y2, {}, ValueError, "farther apart than the largest float64"),
    ],
)
def test_bad_input_names_the_argument(x, y, options, error, message):
    for distance in (transport_cost, wasserstein):
        with pytest.raises(error, match=message):
            distance(x, y, **options)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_measures_that_are_equal_but_for_rounding_are_no_cause_for_a_warning(p):
    """Their costs are lost beside the largest, but at a moderate p no other plan is as good."""
    local = np.random.default_rng(1)
    x, w = 10 * local.normal(size=(6, 2)), local.integers(1, 9, 6) / 1.0
    x[5], w = x[0], w / w.sum()
    y = x + 1e-13 * local.normal(size=x.shape)
    assert wasserstein(x, y, p, a=w, b=w) == pytest.approx(0, abs=1e-12)
    assert solve(x, y, p, a=w, b=w).converged
