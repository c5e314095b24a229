"""The checks of a Gaussian's location and covariance, shared by the functions of this package."""

from __future__ import annotations

import torch
from torch import Tensor

from otkit._arguments import (
    allowance,
    checked_finite,
    require_broadcast,
    require_finite,
    require_nonnegative_spectrum,
    require_square,
    shape,
)
from otkit._operators import checked, value_check
from otkit._symmetry import require_symmetric


def require_gaussian(loc_name: str, loc: Tensor, cov_name: str, cov: Tensor) -> None:
    """Raise unless loc is (..., d) and cov (..., d, d)."""
    d = require_square(cov_name, cov)
    if loc.ndim < 1 or loc.shape[-1] != d:
        raise ValueError(
            f"{loc_name} has shape {shape(loc)}; expected (..., {d}), as {cov_name} has shape {shape(cov)}"
        )


def require_same_dimension(name: str, cov1: Tensor, cov2: Tensor) -> None:
    """Raise if covariances, of a name and 1 or 2, belong to spaces of different dimension."""
    if cov1.shape[-1] != cov2.shape[-1]:
        raise ValueError(
            f"{name}2 has shape {shape(cov2)}, a Gaussian in {cov2.shape[-1]} dimensions; "
            f"expected {cov1.shape[-1]}, as {name}1 has shape {shape(cov1)}"
        )


def require_gaussians(loc1: Tensor, cov1: Tensor, loc2: Tensor, cov2: Tensor) -> None:
    """Raise if the shapes are not those of two Gaussians in one space, with batches that broadcast."""
    require_gaussian("loc1", loc1, "cov1", cov1)
    require_gaussian("loc2", loc2, "cov2", cov2)
    require_same_dimension("cov", cov1, cov2)
    require_broadcast(loc1=loc1.shape[:-1], cov1=cov1.shape[:-2], loc2=loc2.shape[:-1], cov2=cov2.shape[:-2])


def checked_values(
    loc1: Tensor, cov1: Tensor, loc2: Tensor, cov2: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The arguments, known to be finite means and finite, symmetric, positive semidefinite covariances, to rounding."""
    loc1, loc2 = checked_finite("loc1", loc1), checked_finite("loc2", loc2)
    cov1, cov2 = (checked(require_covariance, f"cov{k}", cov, eps) for k, cov in ((1, cov1), (2, cov2)))
    return loc1, cov1, loc2, cov2


def require_list(which: str, locs: Tensor, covs: Tensor) -> int:
    """Return K if locs is (..., K, d) and covs (..., K, d, d); which, "1", "2" or "", is what their names end in."""
    d = require_square(f"covs{which}", covs)
    if covs.ndim < 3:
        raise ValueError(f"covs{which} has shape {shape(covs)}; expected a list of covariances (..., K, d, d)")
    K = covs.shape[-3]
    if locs.shape[-2:] != (K, d):
        raise ValueError(
            f"locs{which} has shape {shape(locs)}; expected (..., {K}, {d}), as covs{which} has shape {shape(covs)}"
        )
    return K


def require_mixture(which: str, weights: Tensor | None, locs: Tensor, covs: Tensor) -> None:
    """Raise unless locs are (..., K, d), covs (..., K, d, d), and weights, if there are any, (..., K), with K >= 1."""
    K = require_list(which, locs, covs)
    if K == 0:
        raise ValueError(f"covs{which} has shape {shape(covs)}; expected at least one covariance (..., K, d, d)")
    if weights is not None and (weights.ndim < 1 or weights.shape[-1] != K):
        raise ValueError(
            f"weights{which} has shape {shape(weights)}; expected (..., {K}), as covs{which} has shape {shape(covs)}"
        )


@value_check
def require_covariance(name: str, cov: Tensor, eps: float) -> None:
    """Raise if matrices (..., d, d) are not finite, symmetric and positive semidefinite to rounding."""
    require_symmetric(name, cov, eps)
    require_semidefinite(name, cov, eps)


def require_semidefinite(name: str, cov: Tensor, eps: float) -> None:
    """Raise if symmetric matrices (..., d, d) are not positive semidefinite to rounding."""
    _, info = torch.linalg.cholesky_ex(cov)
    if bool((failed := info != 0).any()):
        spectra = cov.new_ones(cov.shape[:-1])
        spectra[failed] = torch.linalg.eigvalsh(cov[failed])
        require_nonnegative_spectrum(name, spectra, eps)


@value_check
def require_nonnegative(name: str, tensor: Tensor, eps: float) -> None:
    """Raise if anything is NaN, infinite or negative."""
    require_finite(name, tensor)
    if bool((tensor < 0).any()):
        raise ValueError(f"{name} must not be negative; got {tensor.min().item():.6g}")


@value_check
def require_probabilities(name: str, weights: Tensor, eps: float) -> None:
    """Raise if weights (..., K) are not finite, negative, or not of sum one to rounding."""
    require_nonnegative(name, weights, eps)
    sums = weights.double().sum(-1)
    off = (sums - 1).abs()
    if bool((off > allowance(16 * weights.shape[-1], eps)).any()):
        raise ValueError(
            f"{name} must sum to one; got {sums.flatten()[int(off.argmax())].item():.12g} "
            f"(normalise them: {name} / {name}.sum(-1, keepdims=True))"
        )
