r"""The Kullback–Leibler divergence of the posterior from the prior: with weight 1, the ELBO.

.. math:: \mathrm{KL}(q \| p) = E_{q}[\log q(z|x) - \log p(z)]
          = \tfrac12 \sum_k \bigl(\mu_k^2 + \sigma_k^2 - 1 - \log \sigma_k^2\bigr)

for a diagonal Gaussian posterior and a standard normal prior; between diagonal ones with :math:`(\mu_k - m_k) / s_k`
and :math:`\sigma_k / s_k` for :math:`\mu_k` and :math:`\sigma_k`. Between any two Gaussians it has a closed form; for
another prior, such as a mixture, the expectation is taken at the one code that was drawn,

.. math:: \log q(z|x) - \log p(z), \qquad z \sim q(z|x),

which is unbiased, as is its gradient, and can be negative. As :math:`\sigma \to 0` it is infinite, and a deterministic
posterior has no density at all.

References:
    Kingma & Welling, 2014. *Auto-encoding variational Bayes*, eqs. (2), (3) and appendix B.
"""

from __future__ import annotations

from torch import Generator, Tensor
from torch.distributions import Distribution, MultivariateNormal, kl_divergence

from otkit_vae.distributions import Deterministic, gaussian_form, map_tensors
from otkit_vae.penalties._interface import PerSamplePenalty
from otkit_vae.penalties._registry import register
from otkit_vae.precision import single


@register("kl")
class KL(PerSamplePenalty):
    """KL(q(z|x) ‖ p(z)), per sample, in nats; in closed form between Gaussians, from one code otherwise."""

    known_null = 0.0

    def check(self, posterior: Distribution, prior: Distribution) -> None:  # noqa: D102
        if isinstance(posterior, Deterministic):
            raise ValueError(
                "posterior is deterministic; the penalty kl expects one with a density (take posterior diagonal or "
                "full, or another penalty)"
            )

    def per_observation(  # noqa: D102
        self, posterior: Distribution, z: Tensor, prior: Distribution, *, generator: Generator | None = None
    ) -> Tensor:
        self.check(posterior, prior)
        q, p = gaussian_form(posterior), gaussian_form(prior)
        if q is None or p is None:
            if z.itemsize < 4:  # not all densities exist in half precision
                posterior, prior = (map_tensors(each, single) for each in (posterior, prior))
            return (posterior.log_prob(single(z)) - prior.log_prob(single(z))).to(z.dtype)
        if q.is_diagonal and p.is_diagonal:
            ratios, shifts = q.scale / p.scale, (q.loc - p.loc) / p.scale
            return (0.5 * (ratios.square() + shifts.square() - 1) - ratios.log()).sum(-1)
        full = (MultivariateNormal(single(f.loc), scale_tril=single(f.factor), validate_args=False) for f in (q, p))
        return kl_divergence(*full).to(z.dtype)
