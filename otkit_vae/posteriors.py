r"""Posteriors :math:`q(z|x)`: how the encoder's output becomes a distribution over codes.

The three differ in what they can say of the uncertainty of a code:

- "deterministic": none, :math:`q(z|x) = \delta_{\mu(x)}`, as in a Wasserstein auto-encoder;
- "diagonal": :math:`N(\mu, \operatorname{diag} \sigma^2)`, as in most VAEs;
- "full": :math:`N(\mu, L L^\top)` with L lower triangular, its diagonal positive.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal
from torch.nn.functional import softplus

from otkit_vae.distributions import Deterministic

FLOOR = 1e-5
"""The smallest standard deviation: zero is no normal distribution."""


class Posterior(nn.Module, ABC):
    """The map from an encoder's output to q(z|x)."""

    @abstractmethod
    def n_features(self, latent_dim: int) -> int:
        """How many numbers the encoder gives for a code of d dimensions."""

    @abstractmethod
    def forward(self, features: Tensor) -> Distribution:
        """The posteriors, with batch shape (N,), for the encoder's output (N, n_features)."""


class DeterministicPosterior(Posterior):
    r""":math:`\delta_{\mu}`; the output is :math:`\mu`."""

    def n_features(self, latent_dim: int) -> int:  # noqa: D102
        return latent_dim

    def forward(self, features: Tensor) -> Distribution:  # noqa: D102
        return Deterministic(features, validate_args=False)


class DiagonalPosterior(Posterior):
    r""":math:`N(\mu, \operatorname{diag} \sigma^2)`; the output is :math:`\mu` and r, from which
    :math:`\sigma = 10^{-5} + \operatorname{softplus}(r)`.
    """

    def n_features(self, latent_dim: int) -> int:  # noqa: D102
        return 2 * latent_dim

    def forward(self, features: Tensor) -> Distribution:  # noqa: D102
        loc, raw_scale = features.chunk(2, dim=-1)
        return Independent(Normal(loc, FLOOR + softplus(raw_scale), validate_args=False), 1)


class FullPosterior(Posterior):
    r""":math:`N(\mu, L L^\top)`; the output is :math:`\mu`, r, from which the diagonal of L is
    :math:`10^{-5} + \operatorname{softplus}(r)`, and the d(d - 1)/2 entries of L below it, row by row.
    """

    def n_features(self, latent_dim: int) -> int:  # noqa: D102
        return 2 * latent_dim + latent_dim * (latent_dim - 1) // 2

    def forward(self, features: Tensor) -> Distribution:  # noqa: D102
        # n_features = (d² + 3 d) / 2
        d = round(((9 + 8 * features.shape[-1]) ** 0.5 - 3) / 2)
        loc, raw_scale, below = features.split([d, d, d * (d - 1) // 2], dim=-1)
        tril = torch.diag_embed(FLOOR + softplus(raw_scale))
        row, column = torch.tril_indices(d, d, -1, device=features.device)
        tril[..., row, column] = below
        return MultivariateNormal(loc, scale_tril=tril, validate_args=False)


POSTERIORS: dict[str, type[Posterior]] = {
    "deterministic": DeterministicPosterior,
    "diagonal": DiagonalPosterior,
    "full": FullPosterior,
}
