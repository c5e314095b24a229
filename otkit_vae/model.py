r"""The variational auto-encoder: a posterior :math:`q(z|x)`, a prior p(z), a likelihood p(x|z)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from otkit_vae.likelihoods import LIKELIHOODS, Likelihood
from otkit_vae.networks import Decoder, DiagonalGaussianEncoder, default_widths
from otkit_vae.sampling import sample


class VAE(nn.Module):
    """An encoder, a decoder and a likelihood, with a standard normal prior.

    Args:
        encoder: A module from observations (N, *event) to the distribution q(z|x), with batch shape (N,).
        decoder: A module from codes (N, d) to outputs (N, *event).
        likelihood: A module from those outputs to p(x|z).
        latent_dim: The dimension d of a code.

    Example:
        >>> model = VAE.sized(event_shape=(8, 8), latent_dim=2)
        >>> model.sample(3).shape
        torch.Size([3, 8, 8])
    """

    prior_loc: Tensor
    prior_scale: Tensor

    def __init__(self, encoder: nn.Module, decoder: nn.Module, likelihood: Likelihood, latent_dim: int):
        super().__init__()
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.architecture: dict[str, Any] | None = None
        # Buffers, so that the prior follows the model to its device and dtype.
        self.register_buffer("prior_loc", torch.zeros(latent_dim))
        self.register_buffer("prior_scale", torch.ones(latent_dim))

    @classmethod
    def sized(
        cls,
        event_shape: Sequence[int],
        latent_dim: int,
        likelihood: str = "bernoulli",
        widths: Sequence[int] | None = None,
    ) -> VAE:
        """A model of perceptrons that fits observations of a shape.

        Args:
            event_shape: The shape of an observation.
            latent_dim: The dimension d of a code.
            likelihood: "bernoulli" or "gaussian".
            widths: The widths of the encoder's hidden layers, mirrored in the decoder; from the data by default.
        """
        if not event_shape or min(event_shape) < 1:
            raise ValueError(
                f"event_shape is {tuple(event_shape)}; expected at least one dimension, none of them empty"
            )
        if latent_dim < 1:
            raise ValueError(f"latent_dim is {latent_dim}; expected a whole number >= 1")
        if likelihood not in LIKELIHOODS:
            raise ValueError(f"likelihood is {likelihood!r}; expected one of {', '.join(LIKELIHOODS)}")
        widths = default_widths(event_shape) if widths is None else widths
        if any(width < 1 for width in widths):
            raise ValueError(f"widths is {tuple(widths)}; expected whole numbers >= 1")
        model = cls(
            DiagonalGaussianEncoder(event_shape, latent_dim, widths),
            Decoder(event_shape, latent_dim, widths),
            LIKELIHOODS[likelihood](),
            latent_dim,
        )
        model.architecture = {
            "event_shape": list(event_shape),
            "latent_dim": latent_dim,
            "likelihood": likelihood,
            "widths": list(widths),
        }
        return model

    @property
    def prior(self) -> Distribution:
        """p(z), with event shape (d,)."""
        return Independent(Normal(self.prior_loc, self.prior_scale, validate_args=False), 1)

    def encode(self, x: Tensor) -> Distribution:
        """The posteriors q(z|x), with batch shape (N,), of observations (N, *event)."""
        return self.encoder(x)

    def decode(self, z: Tensor) -> Distribution:
        """The distributions p(x|z), with batch shape (N,), for codes (N, d)."""
        return self.likelihood(self.decoder(z))

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """The means of p(x|z) for n codes from the prior, with shape (n, *event)."""
        return self.decode(sample(self.prior, n, generator)).mean

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """The means of p(x|z) at the posterior means, with the shape of x."""
        return self.decode(self.encode(x).mean).mean
