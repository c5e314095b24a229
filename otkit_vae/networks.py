"""Encoder and decoder networks, sized from the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.nn.functional import softplus


def default_widths(event_shape: Sequence[int]) -> tuple[int, ...]:
    """Two hidden layers of about four units for each dimension of an observation, 64 at least and 512 at most.

    >>> default_widths((8, 8)), default_widths((28, 28))
    ((256, 256), (512, 512))
    """
    width = 2 ** round(math.log2(4 * math.prod(event_shape)))
    return (min(max(width, 64), 512),) * 2


def perceptron(*widths: int) -> nn.Sequential:
    """Linear layers of the given widths with SiLU between them."""
    layers: list[nn.Module] = []
    for inward, outward in pairwise(widths):
        layers += [nn.Linear(inward, outward), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


class DiagonalGaussianEncoder(nn.Module):
    r"""A perceptron x -> :math:`q(z|x) = N(\mu(x), \operatorname{diag} \sigma(x)^2)`.

    Args:
        event_shape: The shape of an observation.
        latent_dim: The dimension d of a code.
        widths: The widths of the hidden layers.
    """

    floor = 1e-5
    """The smallest standard deviation: zero is no normal distribution."""

    def __init__(self, event_shape: Sequence[int], latent_dim: int, widths: Sequence[int]):
        super().__init__()
        self.network = perceptron(math.prod(event_shape), *widths, 2 * latent_dim)

    def forward(self, x: Tensor) -> Distribution:
        """The posteriors (N,) of observations (N, *event)."""
        loc, raw_scale = self.network(x.flatten(1)).chunk(2, dim=-1)
        return Independent(Normal(loc, self.floor + softplus(raw_scale), validate_args=False), 1)


class Decoder(nn.Module):
    """A perceptron z -> output (N, *event), which a likelihood turns into p(x|z)."""

    def __init__(self, event_shape: Sequence[int], latent_dim: int, widths: Sequence[int]):
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.network = perceptron(latent_dim, *reversed(widths), math.prod(event_shape))

    def forward(self, z: Tensor) -> Tensor:
        """The outputs (N, *event) of codes (N, d)."""
        return self.network(z).unflatten(-1, self.event_shape)
