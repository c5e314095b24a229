import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otkit.gaussian import _crossed, _pairwise, pairwise_w2, pairwise_w2_squared, w2_squared
from otkit.gaussian._pairwise import SquaredDifferences
from otkit.testing import gaussians
from tests.otkit.gaussian.test_accuracy import ROUTES, by

rng = np.random.default_rng(0)


def covariances(n, d, cond, seed=0):
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.normal(size=(n, d, d)))[0]
    spectrum = np.broadcast_to(cond, (n,))[:, None] ** -np.linspace(0, 1, d)
    C = (Q * spectrum[:, None]) @ np.swapaxes(Q, -1, -2)
    return (C + np.swapaxes(C, -1, -2)) / 2


def family(n, d, cond, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)), covariances(n, d, cond, seed)


def one_by_one(locs1, covs1, locs2, covs2):
    return w2_squared(
        locs1[..., :, None, :], covs1[..., :, None, :, :], locs2[..., None, :, :], covs2[..., None, :, :, :]
    )


def singular(d):
    """Regular, singular and zero covariances, of very different conditions, in no order."""
    covs = covariances(9, d, np.array([1e2, 1.0, 1e8, 1e10, 1e2, 1e4, 1.0, 1e2, 1e9]))
    covs[[1, 4]] = 0
    covs[1, 0, 0] = 2
    covs[6, -1] = covs[6, :, -1] = 0
    return covs


# Known answers


@pytest.fixture(params=ROUTES, autouse=True)
def route(request):
    with by(request.param):
        yield


def test_a_small_matrix_by_hand():
    locs, covs = np.array([[0.0], [3.0], [3.0]]), np.array([[[1.0]], [[1.0]], [[4.0]]])
    np.testing.assert_array_equal(pairwise_w2_squared(locs, covs), [[0, 9, 10], [9, 0, 1], [10, 1, 0]])


@pytest.mark.parametrize("d", [1, 2, 3, 8, 20, 64])
@pytest.mark.parametrize("cond", [1e2, 1e6])
def test_each_entry_is_that_of_the_pair(d, cond):
    cond = cond if d > 1 else 1.0
    first, second = family(7, d, cond), family(5, d, cond, seed=1)
    np.testing.assert_allclose(pairwise_w2_squared(*first, *second), one_by_one(*first, *second), rtol=1e-12)
    np.testing.assert_allclose(pairwise_w2(*first, *second), one_by_one(*first, *second) ** 0.5, rtol=1e-12)


@pytest.mark.parametrize("d", [1, 2, 3, 17])
def test_singular_covariances_among_regular_ones(d):
    covs, locs = singular(d), rng.normal(size=(9, d))
    expected = one_by_one(locs, covs, locs, covs)
    np.testing.assert_allclose(pairwise_w2_squared(locs, covs, locs, covs), expected, rtol=1e-7, atol=1e-13)
    np.testing.assert_allclose(pairwise_w2_squared(locs, covs), expected, rtol=1e-7, atol=1e-13)


def test_tiles_without_a_pair_for_eigenvalues(monkeypatch):
    """Where one list is singular or hopeless throughout, no pair of a tile is tried by the trace form."""
    monkeypatch.setattr(_crossed, "TRACE_SIZE", 6)
    first, (locs, covs) = family(4, 6, 10.0), family(3, 6, 10.0, seed=1)
    covs[:, -1] = covs[:, :, -1] = 0
    expected = one_by_one(*first, locs, covs)
    np.testing.assert_allclose(pairwise_w2_squared(*first, locs, covs), expected, rtol=1e-9)
    monkeypatch.setattr(_crossed, "HOPELESS", 1.0)
    np.testing.assert_allclose(pairwise_w2_squared(*first, *first), one_by_one(*first, *first), rtol=1e-12, atol=1e-25)


@pytest.mark.parametrize("d", [2, 8, 64])
def test_many_tiles(d, monkeypatch):
    """More than one row of tiles, more than one column, and more parts than one."""
    monkeypatch.setattr(_crossed, "TILE_BYTES", 8 * d * d * 4)
    conditions = 10.0 ** np.random.default_rng(1).uniform(0, 7, size=11)
    first, second = family(11, d, conditions), family(9, d, conditions[:9], seed=1)
    np.testing.assert_allclose(pairwise_w2_squared(*first, *second), one_by_one(*first, *second), rtol=1e-10)
    np.testing.assert_allclose(pairwise_w2_squared(*first), one_by_one(*first, *first), rtol=1e-10, atol=1e-300)


def test_batches_broadcast():
    locs1, covs1 = rng.normal(size=(3, 1, 4, 2)), covariances(4, 2, 10.0)
    locs2, covs2 = rng.normal(size=(5, 2)), covariances(10, 2, 10.0, seed=1).reshape(2, 5, 2, 2)
    values = pairwise_w2_squared(locs1, covs1, locs2, covs2)
    assert values.shape == (3, 2, 4, 5)
    np.testing.assert_allclose(values, one_by_one(locs1, covs1, locs2, covs2), rtol=1e-13)


@pytest.mark.parametrize("n", [0, 1])
def test_short_lists(n):
    locs, covs = family(n, 3, 10.0)
    assert pairwise_w2_squared(locs, covs).shape == (n, n)
    assert pairwise_w2_squared(locs, covs, *family(2, 3, 10.0)).shape == (n, 2)


# Accuracy: what is subtracted, and where eigenvalues alone may be used


@pytest.mark.parametrize("d", [2, 6, 64])
@pytest.mark.parametrize("delta", [1.0, 1e-3, 1e-6])
def test_keeps_its_digits_as_the_gaussians_approach(d, delta, monkeypatch):
    monkeypatch.setattr(_crossed, "TRACE_SIZE", 6)
    A, X = covariances(1, d, 100.0)[0], np.random.default_rng(3).normal(size=(d, d))
    C = np.eye(d) + delta * (X + X.T) / (4 * np.sqrt(d))
    B = C @ A @ C
    covs1, covs2 = np.stack([A, np.eye(d)]), np.stack([3 * np.eye(d), (B + B.T) / 2])
    D = C - np.eye(d)  # B = C A C for a map C, so that W2² = Tr (C - I) A (C - I), in which nothing cancels
    expected = np.trace(D @ A @ D)
    value = pairwise_w2_squared(np.zeros((2, d)), covs1, np.zeros((2, d)), covs2)[0, 1]
    trace = np.trace(A) + np.trace(B)
    assert abs(value / expected - 1) <= max(1e-13, 8 * np.finfo(float).eps * np.sqrt(100 * trace / expected))


# Laws


@given(st.integers(1, 4).flatmap(lambda d: st.lists(gaussians(d, singular=True), min_size=2, max_size=4)))
def test_the_matrix_of_one_list(members):
    locs, covs = (np.stack(part) for part in zip(*members, strict=True))
    M = pairwise_w2_squared(locs, covs)
    np.testing.assert_array_equal(M, M.T)
    assert (np.diag(M) == 0).all()
    assert (M >= 0).all()
    size = (locs**2).sum() + np.trace(covs.sum(0))
    np.testing.assert_allclose(M, pairwise_w2_squared(locs, covs, locs, covs), rtol=1e-8, atol=1e-11 * size)
    W = np.sqrt(M)
    assert (W[:, None] <= (W[:, :, None] + W) * (1 + 1e-8) + 1e-6 * np.sqrt(size)).all()


def test_threads_change_nothing():
    (locs, covs), results = family(40, 20, 1e3), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        C = torch.tensor(covs, requires_grad=True)
        value = pairwise_w2_squared(torch.tensor(locs), C)
        value.square().sum().backward()
        results.append((value.detach().numpy(), C.grad.numpy()))
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


def test_no_array_holds_all_the_pairs():
    n, d = 60, 32
    (locs, covs), all_the_pairs = family(n, d, 10.0), 8 * n * n * d * d
    tensors = [torch.tensor(part, requires_grad=True) for part in (locs, covs)]
    tracemalloc.start()  # NumPy reports to it
    try:
        value = pairwise_w2_squared(*tensors, *tensors)
        value.sum().backward()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < all_the_pairs / 2


# Derivatives


def gradients(function, *arrays):
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    weights = torch.from_numpy(np.random.default_rng(5).normal(size=function(*tensors).shape))
    (weights * function(*tensors)).sum().backward()
    return [tensor.grad.numpy() for tensor in tensors]


@pytest.mark.parametrize("d", [1, 2, 3, 8, 50])
def test_gradients_are_those_of_the_pairs(d, monkeypatch):
    monkeypatch.setattr(_crossed, "TILE_BYTES", 8 * d * d * 3)
    arrays = (*family(7, d, 1e3 if d > 1 else 1.0), *family(5, d, 1e2 if d > 1 else 1.0, seed=1))
    for ours, theirs in zip(gradients(pairwise_w2_squared, *arrays), gradients(one_by_one, *arrays), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)
    alone = gradients(pairwise_w2_squared, *arrays[:2])
    twice = gradients(lambda m, C: one_by_one(m, C, m, C), *arrays[:2])
    for ours, theirs in zip(alone, twice, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("lists", [1, 2])
def test_the_code_for_other_devices_agrees(lists, monkeypatch):
    arrays = sum((family(n, 3, 1e2, seed=n) for n in (5, 4)[:lists]), ())
    on_cpu = pairwise_w2_squared(*arrays), gradients(pairwise_w2_squared, *arrays)
    monkeypatch.setattr(_pairwise, "_on_cpu", lambda covs: False)
    elsewhere = pairwise_w2_squared(*arrays), gradients(pairwise_w2_squared, *arrays)
    np.testing.assert_allclose(elsewhere[0], on_cpu[0], rtol=1e-11, atol=1e-14)
    for ours, theirs in zip(elsewhere[1], on_cpu[1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10)
    same = pairwise_w2_squared(*arrays[:2], *arrays[:2])
    np.testing.assert_array_equal(np.diagonal(same), 0)


@pytest.mark.parametrize("d", [1, 2, 3, 17])
def test_gradients_at_singular_covariances_are_those_of_the_pairs(d):
    covs, locs = singular(d), rng.normal(size=(9, d))
    other = covariances(4, d, 10.0 if d > 1 else 1.0, seed=1)
    arrays = (locs, covs, rng.normal(size=(4, d)), other)
    for ours, theirs in zip(gradients(pairwise_w2_squared, *arrays), gradients(one_by_one, *arrays), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("m", [2**19, 2**20 + 1])
@pytest.mark.parametrize("relative", [False, True])
def test_means_that_are_compared_some_at_a_time(relative, m):
    """Two and the third, or one by one, as 2^20 numbers are the most."""
    first, second, weights = (torch.from_numpy(rng.normal(size=shape)) for shape in ((3, 1), (m, 1), (3, m)))
    inputs = [t.requires_grad_() for t in (first, second)]
    unit = torch.from_numpy(2.0 ** rng.integers(-3, 3, size=(3, m))) if relative else None
    value = SquaredDifferences.at(first, second, unit)
    expected = ((first - second.mT) / (1 if unit is None else unit)).square()
    torch.testing.assert_close(value, expected)
    for ours, theirs in zip(*(torch.autograd.grad(each, inputs, weights) for each in (value, expected)), strict=True):
        torch.testing.assert_close(ours, theirs)


def parametrised(m1, A, m2, B):
    return pairwise_w2_squared(m1, A @ A.mT, m2, B @ B.mT)


def test_first_and_second_derivatives():
    A, B = torch.tensor(rng.normal(size=(3, 2, 2))), torch.tensor(rng.normal(size=(2, 2, 2)))
    m1, m2 = torch.tensor(rng.normal(size=(3, 2))), torch.tensor(rng.normal(size=(2, 2)))
    inputs = [t.requires_grad_() for t in (m1, A, m2, B)]
    assert torch.autograd.gradcheck(parametrised, inputs)
    assert torch.autograd.gradgradcheck(parametrised, inputs)
    assert torch.autograd.gradgradcheck(lambda m, A: pairwise_w2_squared(m, A @ A.mT), inputs[:2])
    assert torch.autograd.gradgradcheck(lambda m, A: pairwise_w2_squared(m, A @ A.mT, m, A @ A.mT), inputs[:2])


def test_gradient_of_the_root_is_zero_on_the_diagonal():
    locs, covs = (torch.tensor(part, requires_grad=True) for part in family(3, 4, 100.0))
    W = pairwise_w2(locs, covs)
    W.diagonal().sum().backward()
    assert not locs.grad.any()
    assert not covs.grad.any()


def test_functional_transforms():
    locs, covs = (
        torch.from_numpy(rng.normal(size=(2, 3, 2))),
        torch.from_numpy(covariances(6, 2, 10.0).reshape(2, 3, 2, 2)),
    )
    values = torch.func.vmap(pairwise_w2_squared)(locs, covs)
    torch.testing.assert_close(values, pairwise_w2_squared(locs, covs))
    one_to_many = torch.func.vmap(pairwise_w2_squared, in_dims=(None, None, 0, 0))(locs[0], covs[0], locs, covs)
    torch.testing.assert_close(one_to_many, pairwise_w2_squared(locs[0], covs[0], locs, covs))
    total = lambda m, C: pairwise_w2_squared(m, C, m + 1, 2 * C).square().sum()  # noqa: E731
    by_autograd = [t.clone().requires_grad_() for t in (locs, covs)]
    total(*by_autograd).backward()
    for ours, theirs in zip(torch.func.vmap(torch.func.grad(total, (0, 1)))(locs, covs), by_autograd, strict=True):
        torch.testing.assert_close(ours, theirs.grad)
    twice = torch.func.jacrev(torch.func.jacrev(lambda t: total(locs[0], covs[0] * (1 + t))))(
        torch.tensor(0.1, dtype=torch.float64)
    )
    slope = torch.func.grad(lambda t: total(locs[0], covs[0] * (1 + t)))
    at, h = torch.tensor(0.1, dtype=torch.float64), 1e-5
    difference = (slope(at + h) - slope(at - h)) / (2 * h)
    torch.testing.assert_close(twice, difference, rtol=1e-6, atol=1e-8)


def test_float32_is_computed_in_float64():
    locs, covs = (torch.tensor(part).float() for part in family(3, 4, 100.0))
    covs = covs.tril() + covs.tril(-1).mT
    value = pairwise_w2_squared(locs, covs)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, pairwise_w2_squared(locs.double(), covs.double()).float(), rtol=0, atol=0)


@pytest.mark.parametrize("function", [pairwise_w2, pairwise_w2_squared])
def test_half_of_a_second_list(function):
    locs, covs = np.zeros((3, 2)), np.stack([np.eye(2)] * 3)
    with pytest.raises(TypeError, match="covs2 is None, but locs2 is given"):
        function(locs, covs, locs)
    with pytest.raises(TypeError, match="locs2 is None, but covs2 is given"):
        function(locs, covs, None, covs)


def test_gradients_of_a_batch_that_is_transposed_in_memory():
    X = torch.randn(3, 2, 4, 2, 5, dtype=torch.float64)
    given, locs = X @ X.mT, torch.zeros(2, 3, 4, 2, dtype=torch.float64)

    def gradient(covs):
        covs = covs.detach().requires_grad_()
        return torch.autograd.grad(pairwise_w2_squared(locs, covs).square().sum(), covs)[0]

    transposed = given.transpose(0, 1)
    torch.testing.assert_close(gradient(transposed), gradient(transposed.contiguous()))
