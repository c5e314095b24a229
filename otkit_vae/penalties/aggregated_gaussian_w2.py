r"""W2² between Gaussians with the moments of the aggregated posterior and of the prior.

The moments of the mixture :math:`q(z) = \frac1N \sum_i N(\mu_i, \Sigma_i)` are known without drawing from it,

.. math:: \bar m = \frac1N \sum_i \mu_i, \qquad
          \bar\Sigma = \frac1N \sum_i \Sigma_i + \frac1N \sum_i (\mu_i - \bar m)(\mu_i - \bar m)^\top ,

so the penalty :math:`W_2^2(N(\bar m, \bar\Sigma), N(m_p, \Sigma_p))` has no noise from reparametrisation. By Gelbrich's
bound it is at most :math:`W_2^2(q(z), p(z))`, with equality where both are Gaussian: it sees the first two moments, and
nothing else.

To an isotropic prior, :math:`\Sigma_p = s^2 I` as in N(0, I), the covariances commute, and with the eigenvalues
:math:`\lambda_k` of :math:`\bar\Sigma` the distance of the covariances is :math:`\sum_k (\sqrt{\lambda_k} - s)^2`,
its gradient :math:`I - s \bar\Sigma^{-1/2}`: one small eigendecomposition, without what it takes to compare any two. An
eigenvalue that is 0 to rounding has the gradient 0, one choice of many. To another prior, at most d codes without noise
are compared as a factor of :math:`\bar\Sigma`, which is singular: the distance is smooth in them, and not in it.

What remains is the noise of N observations. For N deterministic codes drawn from N(0, I) the null value is about
:math:`d (d + 5) / 4N` (0.20 for d = 8 and 9.3 for d = 64 at N = 128; the next order adds to the latter), and as
:math:`E \operatorname{Tr} \bar\Sigma^{1/2} < d` the penalty is least at codes shrunk by the factor
:math:`E \operatorname{Tr} \bar\Sigma^{1/2} / E \operatorname{Tr} \bar\Sigma`: 0.99 at d = 8, 0.93 at d = 64. Take N
well above d.

References:
    Gelbrich, 1990. *On a formula for the L2 Wasserstein metric between measures on Euclidean and Hilbert spaces*.
    Kuhn, Mohajerin Esfahani, Nguyen & Shafieezadeh-Abadeh, 2019. *Wasserstein distributionally robust optimization*,
    theorem 4 (Gelbrich's bound).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from otkit._derivatives import Function
from otkit.gaussian import w2_squared, w2_squared_from_factors
from otkit.linalg import inv_sqrtm, sqrtm
from otkit_vae import processes
from otkit_vae.distributions import (
    Deterministic,
    GaussianForm,
    check_variance,
    gaussian_form,
    moments,
    named,
    require_gaussian_form,
)
from otkit_vae.penalties._interface import AggregatedPenalty
from otkit_vae.penalties._registry import register


@register("aggregated_gaussian_w2")
class AggregatedGaussianW2(AggregatedPenalty):
    """W2² between the Gaussians with the moments of q(z) and p(z), aggregated, in closed form."""

    def check(self, posterior: Distribution, prior: Distribution) -> None:  # noqa: D102
        require_gaussian_form("posterior", posterior, self.name)
        _prior_moments(prior)
        check_variance(self.name, prior)

    def statistics(self, posterior: Distribution, z: Tensor) -> Tensor:
        """The mean and the factor of each posterior, (N, d, 1 + r): r = d for a full one, 1 for the scales, or 0."""
        form = require_gaussian_form("posterior", posterior, self.name)
        loc = form.loc.unsqueeze(-1)
        if isinstance(posterior, Deterministic):
            return loc
        return torch.cat([loc, form.scale.unsqueeze(-1) if form.is_diagonal else form.scale], dim=-1)

    def gather(self, statistics: Tensor) -> Tensor:
        """The statistics stay where they are: the batch's moments are all that is taken of them."""
        return statistics

    def compare(self, statistics: Tensor, prior: Distribution, generator: Generator | None) -> Tensor:  # noqa: D102
        statistics = statistics.double()
        locs, factors = statistics[..., 0], statistics[..., 1:]
        n = processes.count(locs)
        mean = processes.total(locs.sum(0)) / n
        centred = locs - mean
        if factors.shape[-1] > 1:
            spread = torch.einsum("nij,nkj->ik", factors, factors)
        else:
            spread = factors.square().sum((0, -1)).diag()
        cov = processes.total(centred.mT @ centred + spread) / n
        form = gaussian_form(prior)
        if form is not None and _is_isotropic(form):
            shift = (mean - form.loc).square().sum()
            return (shift + _ToIsotropic.at(cov, form.scale[0].double())[0]).to(form.loc.dtype)
        known = _prior_moments(prior)
        prior_mean, prior_cov = (moment.double() for moment in known)
        if factors.shape[-1] == 0 and n <= len(mean):
            codes, root = processes.collect(centred).mT / n**0.5, sqrtm(prior_cov, validate=False)
            squared = w2_squared_from_factors(mean, codes, prior_mean, root, validate=False)
        else:
            squared = w2_squared(mean, cov, prior_mean, prior_cov, validate=False)
        return squared.to(known[0].dtype)


class _ToIsotropic(Function):
    """The squared distance of N(0, cov) to N(0, s² I), differentiable in cov (d, d) to any order, and its gradient."""

    @staticmethod
    def forward(cov: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(cov)
        # The root of an eigenvalue that is mere rounding would magnify its noise a million times.
        certain = values > len(cov) * torch.finfo(cov.dtype).eps * values[-1]
        roots = torch.where(certain, values, 0).sqrt()
        slopes = torch.where(certain, 1 - s / roots, 0)
        return (roots - s).square().sum(), (vectors * slopes) @ vectors.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        cov, s, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            gradient = torch.eye(len(cov), dtype=cov.dtype, device=cov.device) - s * inv_sqrtm(cov)
        return grad_outputs[0] * gradient, None


def _is_isotropic(form: GaussianForm) -> bool:
    return form.is_diagonal and not form.scale.requires_grad and bool((form.scale == form.scale[0]).all())


def _prior_moments(prior: Distribution) -> tuple[Tensor, Tensor]:
    known = moments(prior)
    if known is None:
        raise ValueError(
            f"prior is {named(prior)}; the penalty aggregated_gaussian_w2 expects one whose covariance is "
            "known: a Gaussian, a mixture of Gaussians, or independent coordinates"
        )
    return known
