r"""The entropic map between centred Gaussians, solution of a Riccati equation, and its derivative.

For covariances A and B and :math:`\varepsilon = 2 s`, entropic transport moves x to T x on average, where T is
the positive semidefinite solution of

.. math:: T A T + s\,T = B .

With factors :math:`A = P P^\top`, :math:`B = N N^\top` chosen such that
:math:`P^\top N = \operatorname{diag}(\lambda)` it is

.. math:: T = N \operatorname{diag}\Bigl(\frac{2}{q_i + s}\Bigr) N^\top, \qquad
          A\,T = P \operatorname{diag}(k_i)\,N^\top, \qquad
          q_i = \sqrt{4 \lambda_i^2 + s^2}, \quad k_i = \frac{2 \lambda_i}{q_i + s} ,

as :math:`4 \lambda^2 = (q + s)(q - s)` shows. It is analytic in A and B, singular ones included, though its factors
are not: differentiating the equation gives

.. math:: (T A)\,dT + dT\,(A T) + s\,dT = dB - T\,dA\,T ,

a Sylvester equation whose solution divides by :math:`z_i + z_j + s` with :math:`z_i = \lambda_i k_i \ge 0`, never by 0.

References:
    Janati, Muzellec, Peyré & Cuturi, 2020. *Entropic optimal transport between unbalanced Gaussian measures has a
    closed form*, theorem 1, eq. (15) (where :math:`C_\sigma` is A T, and :math:`\sigma^2` is s).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from otkit._derivatives import Function
from otkit.linalg._symmetric import symmetric


def entropic_map(A: Tensor, B: Tensor, s: Tensor) -> Tensor:
    """T, with shape (..., d, d), differentiable to any order in both covariances; s has shape (..., 1)."""
    return _Riccati.at(A, B, s)[0]


class Correlation(NamedTuple):
    """Spectra of A = W diag(a) Wᵀ and B = Z diag(b) Zᵀ, factors A = P Pᵀ and B = N Nᵀ, and λ, with Pᵀ N = diag(λ)."""

    a: Tensor
    W: Tensor
    P: Tensor
    b: Tensor
    Z: Tensor
    N: Tensor
    lambdas: Tensor


def correlate(A: Tensor, B: Tensor) -> Correlation:
    """Two symmetric eigendecompositions and an SVD; an eigenvalue that is zero to rounding becomes 0."""
    (a, W), (b, Z) = _spectrum(A), _spectrum(B)
    F, G = W * a.sqrt().unsqueeze(-2), Z * b.sqrt().unsqueeze(-2)
    U, lambdas, Vh = torch.linalg.svd(G.mT @ F)
    return Correlation(a, W, F @ Vh.mT, b, Z, G @ U, lambdas)


def _spectrum(cov: Tensor) -> tuple[Tensor, Tensor]:
    eigenvalues, vectors = torch.linalg.eigh(cov)
    zero = cov.shape[-1] * torch.finfo(cov.dtype).eps * eigenvalues[..., -1:]
    return torch.where(eigenvalues > zero, eigenvalues, 0.0), vectors


def q_plus_s(x: Tensor, s: Tensor) -> Tensor:
    """The denominator q + s of everything here, for λ = x."""
    return torch.hypot(2 * x, s) + s


class _Riccati(Function):
    r""":math:`(A, B, s) \mapsto T`, with P, N diag(k) and z, which help to solve for its derivative.

    The adjoints are :math:`\bar B = Y` and :math:`\bar A = -T\,Y\,T`, with Y the solution of the Sylvester equation
    with A T in place of T A and the incoming gradient on the right.
    """

    @staticmethod
    def forward(A: Tensor, B: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        _, _, P, _, _, N, x = correlate(A, B)
        r = q_plus_s(x, s)
        k = 2 * x / r
        return (N * (2 / r).unsqueeze(-2)) @ N.mT, P, N * k.unsqueeze(-2), x * k

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(inputs[0], inputs[2], *output)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        A, s, T, P, Nk, z = ctx.saved_tensors
        Y = _Sylvester.at(A @ T, symmetric(grad_outputs[0]), s, P, Nk, z)
        return -(T @ Y @ T), Y, None


class _Sylvester(Function):
    r""":math:`(M, C, s) \mapsto X` with :math:`M X + X M^\top + s\,X = C`, where :math:`M = L R^\top` and
    :math:`R^\top L = \operatorname{diag}(z)`, differentiable in M and C to any order.

    X is the function :math:`1 / (z_i + z_j + s)` of M on the left and on the right. M may be defective in the limit,
    so it is not diagonalised: the function is expanded about 0 in L and R.
    """

    @staticmethod
    def forward(M: Tensor, C: Tensor, s: Tensor, L: Tensor, R: Tensor, z: Tensor) -> Tensor:
        s = s.unsqueeze(-1)
        zi, zj = z.unsqueeze(-1), z.unsqueeze(-2)
        L_one = L / (zj + s)
        both = (zi + zj + 2 * s) / (zi + zj + s)

        def solve(C: Tensor) -> Tensor:
            left = L_one @ (R.mT @ C)
            right = (C @ R) @ L_one.mT
            return (C - left - right + L_one @ (both * (R.mT @ C @ R)) @ L_one.mT) / s

        X = solve(C)
        # The terms cancel where s is small beside M; a step of refinement brings back what that costs.
        return X + solve(C - M @ X - X @ M.mT - s * X)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        M, _, s, L, R, z = inputs
        ctx.save_for_backward(M, s, L, R, z, output)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        M, s, L, R, z, X = ctx.saved_tensors
        Y = _Sylvester.at(M.mT, grad_outputs[0], s, R, L, z)
        return -(Y @ X.mT + Y.mT @ X), Y, None, None, None, None
