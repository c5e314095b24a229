import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otkit.gaussian._riccati import _Riccati, _Sylvester, correlate, entropic_map
from otkit.testing import psd_matrices

half_regs = st.floats(-4, 4).map(lambda e: torch.tensor([10.0**e], dtype=torch.float64))
pair = st.integers(1, 4).flatmap(lambda d: st.tuples(*[psd_matrices(d, cond=100, singular=True)] * 2))


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(pair)
def test_factors(covs):
    A, B = (torch.tensor(C) for C in covs)
    _, _, P, _, _, N, lambdas = correlate(A, B)
    torch.testing.assert_close(P @ P.mT, A, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(N @ N.mT, B, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(P.mT @ N, torch.diag(lambdas), rtol=1e-10, atol=1e-12)


@given(pair, half_regs)
def test_the_map_solves_its_equation(covs, s):
    A, B = (torch.tensor(C) for C in covs)
    T = entropic_map(A, B, s)
    assert torch.linalg.eigvalsh(T).min() >= -1e-12 * T.abs().max()
    torch.testing.assert_close(T @ A @ T + s * T, B, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("rank", [3, 1])
def test_derivatives_by_finite_differences(rank):
    X, Y, s = random(2, 3, rank), random(2, 3, rank, seed=1), torch.full((2, 1), 0.3, dtype=torch.float64)
    inputs = [t.requires_grad_() for t in (X, Y)]
    assert torch.autograd.gradcheck(lambda X, Y: entropic_map(X @ X.mT, Y @ Y.mT, s), inputs)
    assert torch.autograd.gradgradcheck(lambda X, Y: entropic_map(X @ X.mT, Y @ Y.mT, s), inputs)


def test_the_sylvester_equation_with_any_right_hand_side():
    s = torch.tensor([0.3], dtype=torch.float64)

    def solution(X, Y, C):
        A = X @ X.mT
        T, *help_to_solve = _Riccati.at(A, Y @ Y.mT, s)
        return A @ T, _Sylvester.at(A @ T, C, s, *help_to_solve)

    inputs = [t.requires_grad_() for t in (random(3, 2), random(3, 2, seed=1), random(3, 3, seed=2))]
    M, X = solution(*inputs)
    torch.testing.assert_close(M @ X + X @ M.mT + s * X, inputs[2])
    assert torch.autograd.gradcheck(lambda *t: solution(*t)[1], inputs)
    assert torch.autograd.gradgradcheck(lambda *t: solution(*t)[1], inputs)


@pytest.mark.parametrize("s", [1.0, 1e-4, 1e-8])
def test_the_derivative_keeps_its_digits_as_reg_shrinks(s):
    """Against the linear equation of the derivative, solved as d² equations in d² unknowns."""
    d, X, H = 3, random(3, 3), random(3, 3, seed=1)
    A, B, identity, H = X @ X.mT, torch.eye(d).double(), torch.eye(d).double(), H + H.mT
    A.requires_grad_()
    T = entropic_map(A, B, torch.tensor([s], dtype=torch.float64))
    (ours,) = torch.autograd.grad((T * H).sum(), A)
    A, T = A.detach(), T.detach()
    M = A @ T + s / 2 * identity
    Y = torch.linalg.solve(torch.kron(M, identity) + torch.kron(identity, M), H.flatten()).reshape(d, d)
    torch.testing.assert_close(ours, -T @ Y @ T, rtol=1e-11, atol=1e-11 * (T @ Y @ T).abs().max().item())
