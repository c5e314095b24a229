r"""The squared Bures distance by decompositions: for every matrix and every device, and not in a hurry.

Cholesky factors where they exist, :math:`V \operatorname{diag}(\sqrt\lambda)` elsewhere; the completed polar factor
by a singular value decomposition. This is the reference of the faster routes, and what they fall back to.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from otkit._arguments import require_nonnegative_spectrum
from otkit.gaussian._bures.cholesky import steepest
from otkit.linalg._lyapunov import rounding
from otkit.linalg._symmetric import symmetric


def value_and_gradients(cov1: Tensor, cov2: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    r"""The value (n,) and the gradients I - T and I - T⁻¹ (n, d, d) of pairs of covariances (n, d, d).

    With pseudo-inverses for singular covariances, :math:`I - F^{+\top} (F^\top \Sigma_2 F)^{1/2} F^+`: the gradient
    within the range, and I on the null space, where moving mass only costs.

    Args:
        cov1: The first covariances.
        cov2: The second covariances.
        eps: The rounding of the entries, which decides what is indefinite.
    """
    F, F_inverse, null1 = factor("cov1", cov1, eps)
    G, G_inverse, null2 = factor("cov2", cov2, eps)
    U, _, Vh = torch.linalg.svd(G.mT @ F)
    R = U @ Vh
    residual = F - G @ R
    gradient1 = (F @ F_inverse).mT @ residual @ F_inverse
    gradient2 = (G @ G_inverse).mT @ (-residual @ R.mT) @ G_inverse
    return residual.square().sum((-2, -1)), symmetric(gradient1) + null1, symmetric(gradient2) + null2


def maps(cov1: Tensor, cov2: Tensor) -> tuple[Tensor, Tensor]:
    """T and T⁻¹ themselves (n, d, d), of which I - T keeps no digits where T is far below I; singular ones likewise."""
    F, F_inverse, _ = factor("cov1", cov1)
    G, G_inverse, _ = factor("cov2", cov2)
    U, _, Vh = torch.linalg.svd(G.mT @ F)
    R = U @ Vh
    T = (F @ F_inverse).mT @ G @ R @ F_inverse
    T_inverse = (G @ G_inverse).mT @ F @ R.mT @ G_inverse
    return symmetric(T), symmetric(T_inverse)


def factor(name: str, cov: Tensor, eps: float = math.inf) -> tuple[Tensor, Tensor, Tensor]:
    """A factor F (..., d, d) of covariances, its pseudo-inverse, and the projection onto the null space.

    Args:
        name: What an error calls the covariances.
        cov: The covariances, with shape (..., d, d).
        eps: The rounding of the entries, beyond which negative eigenvalues are an error; by default they are zeros.
    """
    d = cov.shape[-1]
    F, info = torch.linalg.cholesky_ex(cov)
    identity, null = torch.eye(d, dtype=cov.dtype, device=cov.device), torch.zeros_like(F)
    F_inverse = torch.linalg.solve_triangular(F, identity, upper=False)
    bound = F.diagonal(dim1=-2, dim2=-1).amax(-1).square() * F_inverse.square().sum((-2, -1))
    steep = steepest(d, torch.finfo(cov.dtype).eps)
    singular = (info != 0) | ~(bound < steep)
    if bool(singular.any()):
        eigenvalues, V = torch.linalg.eigh(cov[singular])
        require_nonnegative_spectrum(name, eigenvalues, eps)
        largest = eigenvalues[..., -1:]
        # What may be more than rounding counts in the value; the slopes in its directions are those of rounding still.
        scale = torch.where(eigenvalues > rounding(eigenvalues) * largest, eigenvalues, 0 * eigenvalues).sqrt()
        regular = eigenvalues * steep > largest
        F, V_null = F.clone(), V * (~regular).unsqueeze(-2)
        F[singular] = V * scale.unsqueeze(-2)
        F_inverse[singular] = torch.where(regular, 1 / scale, 0 * scale).unsqueeze(-1) * V.mT
        null[singular] = V_null @ V_null.mT
    return F, F_inverse, null
