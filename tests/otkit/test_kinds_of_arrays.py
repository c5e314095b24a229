"""Kinds of arrays that all functions take, shown by a few of them: numbers, records, sequences."""

import numpy as np
import pytest
import torch

from otkit import empirical, gaussian
from otkit.linalg import polar, sqrtm

PAIR = (np.zeros(2), np.eye(2), np.ones(2), 4 * np.eye(2))


@pytest.mark.parametrize("number", [np.float64(0.25), np.float32(0.25), np.float16(0.25), 0.25, [0.25]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numpys_numbers_are_numbers_beside_arrays(number, dtype):
    tensors = [torch.from_numpy(each).to(dtype) for each in PAIR]
    loc, _ = gaussian.geodesic(*tensors, number)
    assert loc.dtype == dtype
    np.testing.assert_array_equal(loc.numpy().ravel(), 0.25)
    loc, _ = gaussian.geodesic(*(each.numpy() for each in tensors), number)
    assert loc.dtype == tensors[0].numpy().dtype
    np.testing.assert_array_equal(loc.ravel(), 0.25)


def test_numpys_numbers_are_numbers_wherever_they_stand():
    x = np.array([1.0, 3.0], dtype=np.float32)
    cost = empirical.wasserstein_1d_to_normal(x, loc=np.float64(2), scale=np.float64(0))
    assert isinstance(cost, np.float32)
    assert cost == 1


def test_numpys_numbers_alone_are_arrays():
    cost = empirical.wasserstein_1d_to_normal([1.0, 3.0], loc=np.float32(2), scale=np.float32(0))
    assert isinstance(cost, np.float32)
    with pytest.raises(TypeError, match=r"t has dtype int64; expected float64 or float32"):
        gaussian.geodesic(*PAIR, np.int64(1))


def test_fields_of_packed_records():
    """A field's stride need not be a multiple of its size, nor its place in memory."""
    records = np.zeros(3, dtype=[("label", np.int32), ("x", np.float64), ("A", np.float64, (2, 2))])
    records["x"], records["A"] = [3.0, 1.0, 2.0], 4 * np.eye(2)
    for part in (records, records[:1]):
        assert empirical.wasserstein_1d(part["x"], part["x"] + 2) == 2
        np.testing.assert_array_equal(sqrtm(part["A"]), 0.5 * part["A"])


def test_a_field_of_one_record():
    """A single entry is in its place, however long the step to the next would be."""
    record = np.zeros(1, dtype=[("x", np.float64), ("label", np.int32)])
    assert empirical.wasserstein_1d(record["x"], record["x"] + 2) == 2


def test_of_a_batch_the_worst_matrix_is_named():
    A = np.stack([np.eye(2), np.diag([-2.0, 5.0]), np.diag([-1.0, 1.0])])
    with pytest.raises(ValueError, match="a smallest eigenvalue of -2 beside a largest of 5"):
        sqrtm(A)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_sequences_of_tensors_are_refused(requires_grad):
    row = torch.ones(2, requires_grad=requires_grad)
    for rows in ([row, row], [[1.0, 2.0], row], ([row[0], row[1]], [0.0, 1.0])):
        with pytest.raises(TypeError, match=rf"M is a {type(rows).__name__} of torch tensors; .*torch.stack\(M\)"):
            polar(rows)
