r"""The variational auto-encoder: a posterior :math:`q(z|x)`, a prior p(z), a likelihood p(x|z)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution

from otkit._arguments import require_count
from otkit_vae import pretrained
from otkit_vae.likelihoods import LIKELIHOODS, Gaussian, Likelihood
from otkit_vae.networks import CHANNELS, NETWORKS, default_widths
from otkit_vae.posteriors import POSTERIORS, DiagonalPosterior, Posterior
from otkit_vae.precision import widened
from otkit_vae.priors import COMPONENTS, PRIORS, FixedPrior, MixturePrior, Prior, StandardNormal
from otkit_vae.sampling import sample

EXPECTED = {
    "likelihood": "a Likelihood, such as otkit_vae.likelihoods.Gaussian() (VAE.sized takes names)",
    "posterior": "a Posterior, such as otkit_vae.posteriors.FullPosterior() (VAE.sized takes names)",
    "prior": "a torch distribution or a Prior, such as otkit_vae.priors.MixturePrior(d) (VAE.sized takes names)",
}
"""What parts of a model are to be, where a name may have been given instead."""


class VAE(nn.Module):
    """An encoder with a posterior, a decoder with a likelihood, and a prior.

    Args:
        encoder: Your own module, from observations (N, *event) either to the features (N, n) from which the posterior
            makes q(z|x), or to the distribution q(z|x) itself, with batch shape (N,), which needs ``mean`` and
            ``stddev``.
        decoder: Your own module from codes (N, d) to outputs (N, *event).
        likelihood: A module from those outputs to p(x|z).
        latent_dim: The dimension d of a code.
        posterior: A module from features to q(z|x); a diagonal Gaussian by default.
        prior: A torch distribution with event shape (d,), or a `Prior` to learn; N(0, I) by default.

    Example:
        >>> model = VAE.sized(event_shape=(8, 8), latent_dim=2)
        >>> model.sample(3).shape
        torch.Size([3, 8, 8])
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        latent_dim: int,
        posterior: Posterior | None = None,
        prior: Prior | Distribution | None = None,
    ):
        super().__init__()
        parts = {"encoder": encoder, "decoder": decoder, "likelihood": likelihood}
        parts |= {} if posterior is None else {"posterior": posterior}
        parts |= {} if prior is None or isinstance(prior, Distribution) else {"prior": prior}
        for name, part in parts.items():
            if not isinstance(part, nn.Module):
                raise TypeError(f"{name} is {part!r}; expected {EXPECTED.get(name, 'a torch.nn.Module')}")
        latent_dim = require_count("latent_dim", latent_dim)
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.posterior = DiagonalPosterior() if posterior is None else posterior
        prior = StandardNormal(latent_dim) if prior is None else prior
        self.prior_module = FixedPrior(prior) if isinstance(prior, Distribution) else prior
        self.architecture: dict[str, Any] | None = None
        shape = tuple(self.prior.event_shape)
        if shape != (latent_dim,):
            raise ValueError(f"prior has event shape {shape}; expected ({latent_dim},), as latent_dim is {latent_dim}")

    @classmethod
    def sized(
        cls,
        event_shape: Sequence[int],
        latent_dim: int,
        likelihood: str = "bernoulli",
        widths: Sequence[int] | None = None,
        *,
        network: str = "mlp",
        posterior: str = "diagonal",
        prior: str = "normal",
        components: int = COMPONENTS,
        scale: float | None = None,
    ) -> VAE:
        """A model for observations of a given shape.

        Args:
            event_shape: The shape of an observation.
            latent_dim: The dimension d of a code.
            likelihood: "bernoulli" or "gaussian".
            widths: The widths of the encoder's hidden layers, or the channels of its convolutions, mirrored in the
                decoder; sized from the data by default.
            network: "mlp", or "conv" for images (H, W), (C, H, W) or (H, W, C).
            posterior: "deterministic", "diagonal" or "full".
            prior: "normal" for N(0, I), or "mixture" for Gaussians learned with the model.
            components: The number of Gaussians of the mixture.
            scale: The standard deviation of the gaussian likelihood; learned if None.
        """
        _require_sizes("event_shape", event_shape)
        if not event_shape or min(event_shape) < 1:
            raise ValueError(
                f"event_shape is {tuple(event_shape)}; expected at least one dimension, none of them empty"
            )
        latent_dim, components = require_count("latent_dim", latent_dim), require_count("components", components)
        tables = {"likelihood": LIKELIHOODS, "network": NETWORKS, "posterior": POSTERIORS, "prior": PRIORS}
        chosen = {"likelihood": likelihood, "network": network, "posterior": posterior, "prior": prior}
        for name, value in chosen.items():
            if value not in tables[name]:
                raise ValueError(f"{name} is {value!r}; expected one of {', '.join(tables[name])}")
        if scale is not None and likelihood != "gaussian":
            raise ValueError(f"scale is {scale} and likelihood is {likelihood!r}; expected a scale with gaussian only")
        if components != COMPONENTS and prior != "mixture":
            raise ValueError(
                f"components is {components} and prior is {prior!r}; expected a number of components with mixture only"
            )
        if widths is None:
            widths = CHANNELS if network == "conv" else default_widths(event_shape)
        _require_sizes("widths", widths)
        if any(width < 1 for width in widths):
            raise ValueError(f"widths is {tuple(widths)}; expected whole numbers >= 1")
        if network == "conv" and not widths:
            raise ValueError("widths is empty; expected the channels of at least one convolution")
        encoder, decoder = NETWORKS[network]
        head = POSTERIORS[posterior]()
        model = cls(
            encoder(event_shape, head.n_features(latent_dim), widths),
            decoder(event_shape, latent_dim, widths),
            Gaussian(scale) if likelihood == "gaussian" else LIKELIHOODS[likelihood](),
            latent_dim,
            head,
            MixturePrior(latent_dim, components) if prior == "mixture" else None,
        )
        model.architecture = {
            "event_shape": [int(size) for size in event_shape],
            "latent_dim": latent_dim,
            "widths": [int(width) for width in widths],
            "components": components,
            "scale": None if scale is None else float(scale),
            **chosen,
        }
        return model

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write model.safetensors and config.json into a folder, to share: see `otkit_vae.pretrained.save`."""
        return pretrained.save(self, folder)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> VAE:
        """The model in such a folder, on the CPU, in evaluation mode: see `otkit_vae.pretrained.load`."""
        return pretrained.load(folder)

    @property
    def prior(self) -> Distribution:
        """p(z), with event shape (d,)."""
        return self.prior_module()

    def encode(self, x: Tensor) -> Distribution:
        """The posteriors q(z|x), with batch shape (N,), of observations (N, *event)."""
        if not isinstance(x, Tensor):
            raise TypeError(f"x is a {type(x).__name__}; expected a torch tensor of observations (N, *event)")
        encoded = self.encoder(x)
        if isinstance(encoded, Distribution):
            return encoded
        return self.posterior(widened(_tensor("encoder", encoded, "(N, n), such as torch.cat([mean, raw], -1)")))

    def decode(self, z: Tensor) -> Distribution:
        """The distributions p(x|z), with batch shape (N,), for codes (N, d)."""
        return self.likelihood(widened(_tensor("decoder", self.decoder(z), "(N, *event)")))

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """The means of p(x|z) for n codes from the prior, with shape (n, *event)."""
        return self.decode(sample(self.prior, require_count("n", n, least=0), generator)).mean

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """The means of p(x|z) at the posterior means, with the shape of x."""
        return self.decode(self.encode(x).mean).mean


def _tensor(name: str, output: Any, shape: str) -> Tensor:
    """What a part gave, which is a tensor; a TypeError if it is a tuple, say."""
    if not isinstance(output, Tensor):
        raise TypeError(f"{name} gives a {type(output).__name__}; expected one torch tensor {shape}")
    return output


def _require_sizes(name: str, value: Any) -> None:
    if not isinstance(value, Sequence | np.ndarray) or not all(isinstance(size, int | np.integer) for size in value):
        raise TypeError(f"{name} is {value!r}; expected a sequence of whole numbers, such as (64,)")
