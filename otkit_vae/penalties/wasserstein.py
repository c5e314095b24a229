r"""The exact transport cost between the codes of a batch and a sample of the prior.

.. math:: W_p^p\Bigl(\tfrac1N \sum_i \delta_{z_i},\; \tfrac1N \sum_j \delta_{y_j}\Bigr),
          \qquad z_i \sim q(z|x_i),\; y_j \sim p(z)

estimates the cost between the aggregated posterior and the prior, and its gradient in the codes moves each towards the
prior point it is matched with. In high dimension a batch is a poor picture of a measure: even where q = p the value
is far from 0 (see `null_value`), and it is biased towards codes that shrink.

References:
    Tolstikhin, Bousquet, Gelly & Schölkopf, 2018. *Wasserstein auto-encoders*, eq. (4).
    Fatras et al., 2020. *Learning with minibatch Wasserstein* (the bias of the minibatch).
"""

from __future__ import annotations

from torch import Generator, Tensor
from torch.distributions import Distribution

from otkit.empirical import transport_cost
from otkit_vae.penalties._interface import LatentPenalty
from otkit_vae.penalties._registry import register
from otkit_vae.sampling import sample


@register("wasserstein")
class Wasserstein(LatentPenalty):
    """W_p^p between the codes of the batch and as many prior samples, aggregated, by exact transport.

    Args:
        p: The exponent, p >= 1.
    """

    estimand = "aggregated"
    min_batch = 2
    default_weight = 3.0

    def __init__(self, p: float = 2.0):
        super().__init__()
        self.p = p

    def forward(  # noqa: D102
        self, posterior: Distribution, z: Tensor, prior: Distribution, *, generator: Generator | None = None
    ) -> Tensor:
        return transport_cost(z, sample(prior, len(z), generator), self.p)
