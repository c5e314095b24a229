r"""The Kullback–Leibler divergence of the posterior from the prior: with weight 1, the ELBO.

.. math:: \mathrm{KL}(q \| p) = E_{q}[\log q(z|x) - \log p(z)]
          = \tfrac12 \sum_k \bigl(\mu_k^2 + \sigma_k^2 - 1 - \log \sigma_k^2\bigr)

for a diagonal Gaussian posterior and a standard normal prior.

References:
    Kingma & Welling, 2014. *Auto-encoding variational Bayes*, eq. (3) and appendix B.
"""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from otkit_vae.penalties._interface import PerSamplePenalty
from otkit_vae.penalties._registry import register


@register("kl")
class KL(PerSamplePenalty):
    """KL(q(z|x) ‖ p(z)), per sample, in nats, by torch's closed form for the pair of distributions."""

    def per_observation(self, posterior: Distribution, z: Tensor, prior: Distribution) -> Tensor:  # noqa: D102
        return kl_divergence(posterior, prior)
