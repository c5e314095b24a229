r"""What penalties ask of a posterior or a prior: its Gaussian form, or its moments; and the posterior without noise.

A Gaussian is a location and a factor of its covariance. A diagonal one keeps its standard deviations as a vector, as
that is d numbers and not d².
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
from torch import Size, Tensor, nn
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    Transform,
    constraints,
)


class Deterministic(Distribution):
    r"""A Dirac measure :math:`\delta_{\mu}`: the posterior of an encoder that adds no noise.

    It has a mean and samples, all equal to it, and a variance of 0, but no density: `log_prob` raises.

    Args:
        loc: The point :math:`\mu`, with shape (..., d).
        validate_args: As in every torch distribution.
    """

    arg_constraints: Any = {"loc": constraints.real_vector}  # noqa: RUF012
    support: Any = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Tensor, validate_args: bool | None = None):
        self.loc = loc
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Deterministic:  # noqa: D102
        return Deterministic(self.loc.expand(*batch_shape, *self.event_shape), validate_args=False)

    @property
    def mean(self) -> Tensor:  # noqa: D102
        return self.loc

    @property
    def variance(self) -> Tensor:  # noqa: D102
        return torch.zeros_like(self.loc)

    def rsample(self, sample_shape: Any = ()) -> Tensor:  # noqa: D102
        return self.loc.expand(Size(sample_shape) + self.loc.shape)

    def log_prob(self, value: Tensor) -> Tensor:  # noqa: D102
        raise NotImplementedError("a deterministic posterior has no density (take posterior diagonal or full)")


class GaussianForm(NamedTuple):
    r"""A Gaussian :math:`N(m, F F^\top)` by its mean and a factor, or a Dirac measure, whose factor is 0.

    Attributes:
        loc: The mean m, with shape (..., d).
        scale: The standard deviations, with shape (..., d), of a diagonal covariance; or the lower triangular factor of
            a full one, with shape (..., d, d).
    """

    loc: Tensor
    scale: Tensor

    @property
    def is_diagonal(self) -> bool:
        """Whether the covariance is diagonal, by the type of the distribution."""
        return self.scale.ndim == self.loc.ndim

    @property
    def factor(self) -> Tensor:
        """The factor F as a matrix, with shape (..., d, d)."""
        return torch.diag_embed(self.scale) if self.is_diagonal else self.scale


def gaussian_form(distribution: Distribution) -> GaussianForm | None:
    """The mean and factor of a Gaussian or a Dirac measure, None for anything else."""
    if isinstance(distribution, Independent) and distribution.reinterpreted_batch_ndims == 1:
        base = distribution.base_dist
        return GaussianForm(base.loc, base.scale) if isinstance(base, Normal) else None
    if isinstance(distribution, MultivariateNormal | LowRankMultivariateNormal):
        return GaussianForm(distribution.loc, distribution.scale_tril)
    if isinstance(distribution, Deterministic):
        return GaussianForm(distribution.loc, torch.zeros_like(distribution.loc))
    return None


def moments(distribution: Distribution) -> tuple[Tensor, Tensor] | None:
    r"""The mean (..., d) and the covariance (..., d, d); None where they are not known.

    For a mixture :math:`\sum_k w_k p_k` they are :math:`\bar m = \sum_k w_k m_k` and
    :math:`\sum_k w_k \bigl(\Sigma_k + (m_k - \bar m)(m_k - \bar m)^\top\bigr)`.
    """
    form = gaussian_form(distribution)
    if form is not None:
        cov = torch.diag_embed(form.scale.square()) if form.is_diagonal else form.scale @ form.scale.mT
        return form.loc, cov
    if isinstance(distribution, MixtureSameFamily):
        parts = moments(distribution.component_distribution)
        if parts is None:
            return None
        weights = distribution.mixture_distribution.probs.unsqueeze(-1)
        mean = (weights * parts[0]).sum(-2)
        centred = parts[0] - mean.unsqueeze(-2)
        return mean, (weights.unsqueeze(-1) * parts[1]).sum(-3) + (weights * centred).mT @ centred
    if isinstance(distribution, Independent) and distribution.reinterpreted_batch_ndims == 1:
        # Coordinates that are independent are uncorrelated.
        return distribution.mean, torch.diag_embed(distribution.variance)
    return None


def named(distribution: Distribution) -> str:
    """What a distribution is, for messages: its type, and of what it is Independent."""
    inside = f"({named(distribution.base_dist)})" if isinstance(distribution, Independent) else ""
    return f"{type(distribution).__name__}{inside}"


def require_gaussian_form(role: str, distribution: Distribution, penalty: str, expected: str = "") -> GaussianForm:
    """The mean and factor of the posterior or prior that a penalty takes; a ValueError if it is not Gaussian."""
    form = gaussian_form(distribution)
    if form is None:
        expected = expected or "a Gaussian, Independent(Normal(loc, scale), 1) or MultivariateNormal"
        raise ValueError(f"{role} is {named(distribution)}; the penalty {penalty} expects {expected}")
    return form


def check_variance(name: str, prior: Distribution) -> None:
    """Raise a ValueError if a prior has no variance that is known and finite, from which a penalty takes its scale."""
    try:
        known = bool(torch.isfinite(prior.variance).all())
    except NotImplementedError:
        known = False
    if not known:
        raise ValueError(f"prior is {named(prior)}; the penalty {name} expects one whose variance is known and finite")


def map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """A distribution with a function applied to every tensor in it, its parts included; other values as they are.

    Its parts are distributions, transforms, and lists of these.
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, list):
        return [map_tensors(part, function) for part in value]
    if isinstance(value, Distribution | Transform):
        other = copy.copy(value)  # without the inverse that a transform may remember
        other.__dict__.update({name: map_tensors(part, function) for name, part in other.__dict__.items()})
        return other
    return value


def fingerprint(value: Any) -> Any:
    """What tells one distribution from another: the types and all numbers in it and in its parts, as a key."""
    if isinstance(value, Tensor):
        return value.dtype, tuple(value.shape), value.double().numpy(force=True).tobytes()
    if isinstance(value, list):
        return tuple(map(fingerprint, value))
    if isinstance(value, nn.Module):
        return type(value), fingerprint([*value.state_dict().values()])
    if isinstance(value, Distribution | Transform):
        return type(value), tuple((name, fingerprint(part)) for name, part in copy.copy(value).__dict__.items())
    return value if isinstance(value, Hashable) else repr(value)
