r"""The objective of a Wasserstein VAE, to be minimised:

.. math:: -\mathrm{ELBO}_W = E\bigl[-\log p(x|z)\bigr] + \text{weight} \cdot W(q, p), \qquad z \sim q(z|x) .

The log-likelihood is summed over the dimensions of an observation and averaged over the batch, in nats; the penalty
is a mean over the batch as well. A weight thus means the same at every image size and batch size.

References:
    Tolstikhin, Bousquet, Gelly & Schölkopf, 2018. *Wasserstein auto-encoders*, eq. (4).
    Chen & Liu, 2021. *Wasserstein distance in VAEs, for data augmentation* (ELBO_W).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Generator, Tensor, nn
from torch.distributions import Distribution

from otkit_vae.model import VAE
from otkit_vae.penalties import LatentPenalty
from otkit_vae.sampling import sample


class Terms(NamedTuple):
    """The objective on one batch, and what it is made of.

    Attributes:
        loss: reconstruction + weight · penalty, a scalar in nats.
        reconstruction: The mean of -log p(x|z), a scalar in nats.
        penalty: The penalty before its weight, a scalar.
        posterior: q(z|x) of the batch.
        z: The codes that were drawn, with shape (N, d).
    """

    loss: Tensor
    reconstruction: Tensor
    penalty: Tensor
    posterior: Distribution
    z: Tensor


class Objective(nn.Module):
    """-ELBO_W for one penalty and one weight.

    Args:
        penalty: The penalty W.
        weight: Its weight, >= 0; the penalty's own default if None.

    Example:
        >>> import torch
        >>> from otkit_vae import VAE, Objective, penalties
        >>> model, objective = VAE.sized((8, 8), latent_dim=2), Objective(penalties.get("gaussian_w2"))
        >>> objective(model, torch.rand(16, 8, 8)).loss.backward()
    """

    def __init__(self, penalty: LatentPenalty, weight: float | None = None):
        super().__init__()
        weight = penalty.default_weight if weight is None else weight
        if not 0 <= weight < math.inf:
            raise ValueError(f"weight is {weight}; expected a finite number >= 0")
        self.penalty, self.weight = penalty, float(weight)

    def forward(self, model: VAE, x: Tensor, *, generator: Generator | None = None) -> Terms:
        """The objective of a model on observations x (N, *event)."""
        if len(x) < self.penalty.min_batch:
            raise ValueError(
                f"x has {len(x)} observations; the penalty {type(self.penalty).__name__} needs "
                f"at least {self.penalty.min_batch} in a batch"
            )
        posterior = model.encode(x)
        z = sample(posterior, generator=generator)
        reconstruction = -model.decode(z).log_prob(x).mean()
        penalty = self.penalty(posterior, z, model.prior, generator=generator)
        if penalty.shape != ():
            raise ValueError(
                f"the penalty {type(self.penalty).__name__} has shape {tuple(penalty.shape)}; "
                "expected a scalar, a mean over the batch"
            )
        return Terms(reconstruction + self.weight * penalty, reconstruction, penalty, posterior, z)
