r"""The entropically regularised transport cost between the codes of a batch and a sample of the prior.

As `wasserstein`, with :math:`\mathrm{OT}_\varepsilon` for the exact cost. The regularisation is relative to the scale
of the prior: :math:`\varepsilon = \text{reg} \cdot E\,\|y - y'\|^2` for independent :math:`y, y' \sim p(z)`, which is
:math:`2 d` for a standard normal, so that one value of reg means the same smoothing at any latent dimension. The
entropy blurs the plan and by itself draws codes together; the value at q = p is not 0 (see `null_value`).

References:
    Cuturi, 2013. *Sinkhorn distances*, eq. (2). Patrini et al., 2019. *Sinkhorn autoencoders*, section 4.
"""

from __future__ import annotations

from torch import Generator, Tensor
from torch.distributions import Distribution

from otkit.empirical import sinkhorn_cost
from otkit_vae.penalties._interface import LatentPenalty
from otkit_vae.penalties._registry import register
from otkit_vae.sampling import sample


@register("sinkhorn")
class Sinkhorn(LatentPenalty):
    """OT_ε with cost |z - y|² between the codes of the batch and as many prior samples, aggregated.

    Args:
        reg: The regularisation, relative to the mean squared distance of two prior samples.
        tol: The L1 marginal error at which Sinkhorn's iterations stop.
    """

    estimand = "aggregated"
    min_batch = 2

    def __init__(self, reg: float = 0.05, tol: float = 1e-3):
        super().__init__()
        self.reg, self.tol = reg, tol

    def forward(  # noqa: D102
        self, posterior: Distribution, z: Tensor, prior: Distribution, *, generator: Generator | None = None
    ) -> Tensor:
        scale = 2 * float(prior.variance.sum())
        y = sample(prior, len(z), generator)
        return sinkhorn_cost(z, y, reg=self.reg * scale, tol=self.tol)
