r"""The adversarial penalty: a discriminator tells codes from draws of the prior, and the encoder makes it fail.

The discriminator's logit D is trained to minimise

.. math:: -E_{y \sim p} \log \sigma(D(y)) - E_{z \sim q} \log(1 - \sigma(D(z))) ,

whose optimum is :math:`D = \log p(z) / q(z)`, and the penalty is :math:`E_{z \sim q}[-\log \sigma(D(z))]`, the
non-saturating form. At q = p a perfect discriminator says ½ everywhere, so the null value is log 2; below it the
discriminator takes codes for *better* than the prior, which says something about the discriminator only. A value is
therefore no measure of the distance, and cannot be compared between models.

The penalty owns the discriminator; its parameters get no gradient from the penalty, and the training loop gives them an
optimiser of their own:

    terms = objective(model, x)                                  # the encoder's and decoder's turn
    ...
    penalty.adversary_loss(terms.z, model.prior)                 # then the discriminator's

References:
    Tolstikhin, Bousquet, Gelly & Schölkopf, 2018. *Wasserstein auto-encoders*, algorithm 1 (WAE-GAN).
    Goodfellow et al., 2014. *Generative adversarial nets*, proposition 1.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution
from torch.func import functional_call
from torch.nn.functional import softplus

from otkit._arguments import require_positive
from otkit_vae import processes
from otkit_vae.penalties._interface import AdversarialPenalty
from otkit_vae.penalties._registry import register
from otkit_vae.sampling import sample, seeded


@register("wae_gan")
class WaeGan(AdversarialPenalty):
    """A latent adversary, aggregated.

    Args:
        widths: The widths of the discriminator's hidden layers; its input takes the dimension of the first codes.
        learning_rate: The learning rate of its optimiser, Adam.
    """

    known_null = math.log(2)

    def __init__(self, widths: Sequence[int] = (256, 256), learning_rate: float = 1e-3):
        super().__init__()
        if not widths or any(width < 1 for width in widths):
            raise ValueError(f"widths is {tuple(widths)}; expected at least one whole number, all >= 1")
        self.learning_rate = require_positive("learning_rate", learning_rate)
        with warnings.catch_warnings():
            # torch warns that lazy modules are new.
            warnings.simplefilter("ignore")
            layers: list[nn.Module] = [nn.LazyLinear(widths[0]), nn.SiLU()]
        for inward, outward in zip(widths, (*widths[1:], 1), strict=True):
            layers += [nn.Linear(inward, outward), nn.SiLU()]
        self.discriminator = nn.Sequential(*layers[:-1])

    def compare(self, statistics: Tensor, prior: Distribution, generator: Generator | None) -> Tensor:  # noqa: D102
        self._size(statistics, generator)
        held = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        return (
            softplus(-functional_call(self.discriminator, held, (self._own(statistics),))).mean().to(statistics.dtype)
        )

    def adversary_loss(self, z: Tensor, prior: Distribution, *, generator: Generator | None = None) -> Tensor:
        """The discriminator's cross-entropy on the codes and as many draws from the prior, a scalar."""
        z, generator = self.gather(z.detach()), processes.shared(generator, z)
        self._size(z, generator)
        y = sample(prior, len(z), generator).detach()
        real, coded = self.discriminator(self._own(y)), self.discriminator(self._own(z))
        return (softplus(-real).mean() + softplus(coded).mean()).to(z.dtype)

    def _own(self, z: Tensor) -> Tensor:
        """The codes in the dtype of the discriminator."""
        return z.to(next(self.discriminator.parameters()).dtype)

    def _size(self, z: Tensor, generator: Generator | None) -> None:
        """Give the first layer its input dimension, once."""
        if any(isinstance(layer, nn.LazyLinear) for layer in self.discriminator.modules()):
            with seeded(generator), torch.no_grad():
                self.discriminator(self._own(z[:1]))
