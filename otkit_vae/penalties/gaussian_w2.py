r"""The squared 2-Wasserstein distance between the posterior and a Gaussian prior, in closed form.

For a diagonal Gaussian posterior with mean :math:`\mu` and scales :math:`\sigma`, and a prior with m and s,

.. math:: W_2^2(q(z|x), p(z)) = \|\mu - m\|^2 + \|\sigma - s\|^2 .

By Talagrand's inequality half of it is at most KL(q ‖ N(0, I)): with weight ½, ELBO_W is never below the ELBO.
Unlike KL it stays finite as :math:`\sigma \to 0`, and pushes back there only linearly: an encoder that gains from
precision can become nearly deterministic, so watch the mean scale that training reports.

References:
    Chen & Liu, 2021. *Wasserstein distance in VAEs, for data augmentation* (the penalised objective ELBO_W).
    Talagrand, 1996. *Transportation cost for Gaussian and other product measures*, theorem 1.1.
"""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from otkit.gaussian import w2_squared_diagonal
from otkit_vae.penalties._interface import PerSamplePenalty
from otkit_vae.penalties._registry import register


@register("gaussian_w2")
class GaussianW2(PerSamplePenalty):
    """W2²(q(z|x), p(z)), per sample, for diagonal Gaussians."""

    default_weight = 0.03

    def per_observation(self, posterior: Distribution, z: Tensor, prior: Distribution) -> Tensor:  # noqa: D102
        q, p = _diagonal_normal("posterior", posterior), _diagonal_normal("prior", prior)
        return w2_squared_diagonal(q.loc, q.scale, p.loc, p.scale, validate=False)


def _diagonal_normal(name: str, distribution: Distribution) -> Normal:
    base = distribution.base_dist if isinstance(distribution, Independent) else None
    if not isinstance(base, Normal):
        raise TypeError(
            f"{name} is a {type(distribution).__name__}; the penalty gaussian_w2 expects a diagonal Gaussian, "
            "Independent(Normal(loc, scale), 1)"
        )
    return base
