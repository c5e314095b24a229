r"""The squared 2-Wasserstein distance between the posterior and a Gaussian prior, in closed form.

For a posterior :math:`N(\mu, L L^\top)` and a prior :math:`N(m, G G^\top)`,

.. math:: W_2^2(q(z|x), p(z)) = \|\mu - m\|^2 + \min_{R^\top R = I} \|L - G R\|_F^2 ,

for diagonal covariances :math:`\|\mu - m\|^2 + \|\sigma - s\|^2`, and to N(0, I)
:math:`\|\mu\|^2 + \operatorname{Tr} L L^\top + d - 2 \|L\|_*` with the nuclear norm.

By Talagrand's inequality half of it is at most KL(q ‖ N(0, I)): with weight ½, ELBO_W is never below the ELBO.
Unlike KL it stays finite as :math:`\sigma \to 0`, and pushes back there only linearly: an encoder that gains from
precision can become nearly deterministic, so watch the mean scale that training reports. For a deterministic posterior
it is :math:`\|\mu - m\|^2` and a constant, the penalty of a regularised auto-encoder.

References:
    Chen & Liu, 2021. *Towards better data augmentation using Wasserstein distance in variational auto-encoder* (the
    penalised objective ELBO_W).
    Talagrand, 1996. *Transportation cost for Gaussian and other product measures*, theorem 1.1.
"""

from __future__ import annotations

from torch import Generator, Tensor
from torch.distributions import Distribution

from otkit.gaussian import w2_squared_diagonal, w2_squared_from_factors
from otkit_vae.distributions import GaussianForm, require_gaussian_form
from otkit_vae.penalties._interface import PerSamplePenalty
from otkit_vae.penalties._registry import register


@register("gaussian_w2")
class GaussianW2(PerSamplePenalty):
    r"""W2²(q(z|x), p(z)), per sample, for Gaussians with diagonal or full covariances, in squared units of the codes.

    Between full ones it has a kink where :math:`L^\top G` is singular; the gradient there is that of one optimal R.
    """

    known_null = 0.0

    def check(self, posterior: Distribution, prior: Distribution) -> None:  # noqa: D102
        self._forms(posterior, prior)

    def per_observation(  # noqa: D102
        self, posterior: Distribution, z: Tensor, prior: Distribution, *, generator: Generator | None = None
    ) -> Tensor:
        q, p = self._forms(posterior, prior)
        if q.is_diagonal and p.is_diagonal:
            return w2_squared_diagonal(q.loc, q.scale, p.loc, p.scale, validate=False)
        return w2_squared_from_factors(q.loc, q.factor, p.loc, p.factor, validate=False)

    def _forms(self, posterior: Distribution, prior: Distribution) -> tuple[GaussianForm, GaussianForm]:
        q = require_gaussian_form("posterior", posterior, self.name)
        return q, require_gaussian_form("prior", prior, self.name)
