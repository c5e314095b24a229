"""Encoder and decoder networks, sized from the data: perceptrons for anything, convolutions for images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from torch import Size, Tensor, nn


def default_widths(event_shape: Sequence[int]) -> tuple[int, ...]:
    """Two hidden layers of about four units for each dimension of an observation, 64 at least and 512 at most.

    >>> default_widths((3,)), default_widths((5, 5)), default_widths((8, 8)), default_widths((28, 28))
    ((64, 64), (128, 128), (256, 256), (512, 512))
    """
    width = 2 ** round(math.log2(4 * math.prod(event_shape)))
    return (min(max(width, 64), 512),) * 2


CHANNELS = (16, 32, 64, 128)
"""The channels of the four convolutions, by default."""


def perceptron(*widths: int) -> nn.Sequential:
    """Linear layers of the given widths with ReLU between them."""
    layers: list[nn.Module] = []
    for inward, outward in pairwise(widths):
        layers += [nn.Linear(inward, outward), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Encoder(nn.Module):
    """A perceptron x -> features, from which a posterior makes q(z|x).

    Args:
        event_shape: The shape of an observation.
        n_features: The number of features.
        widths: The widths of the hidden layers.
    """

    def __init__(self, event_shape: Sequence[int], n_features: int, widths: Sequence[int]):
        super().__init__()
        self.network = perceptron(math.prod(event_shape), *widths, n_features)

    def forward(self, x: Tensor) -> Tensor:
        """The features (N, n_features) of observations (N, *event)."""
        return self.network(x.flatten(1))


class Decoder(nn.Module):
    """A perceptron z -> output (N, *event), which a likelihood turns into p(x|z)."""

    def __init__(self, event_shape: Sequence[int], latent_dim: int, widths: Sequence[int]):
        super().__init__()
        self.event_shape = Size(event_shape)
        self.network = perceptron(latent_dim, *reversed(widths), math.prod(event_shape))

    def forward(self, z: Tensor) -> Tensor:
        """The outputs (N, *event) of codes (N, d)."""
        return self.network(z).unflatten(-1, self.event_shape)


class ImageShape(NamedTuple):
    """An image's channels, height and width, and whether its channels come last, first, or not at all."""

    channels: int
    height: int
    width: int
    channels_last: bool

    @classmethod
    def of(cls, event_shape: Sequence[int]) -> ImageShape:
        """Read (H, W), (C, H, W) or (H, W, C), the number of channels C being 1, 3 or 4.

        Raises:
            ValueError: The shape is not that of an image.
        """
        shape = tuple(event_shape)
        if len(shape) == 2:
            return cls(1, *shape, channels_last=False)
        if len(shape) == 3 and shape[0] in (1, 3, 4):
            return cls(*shape, channels_last=False)
        if len(shape) == 3 and shape[2] in (1, 3, 4):
            return cls(shape[2], shape[0], shape[1], channels_last=True)
        raise ValueError(
            f"network is 'conv', and observations have shape {shape}; expected images (H, W), (C, H, W) or (H, W, C) "
            "with 1, 3 or 4 channels (take network mlp)"
        )

    def sizes(self, n_layers: int) -> list[tuple[int, int]]:
        """The height and width before and after each layer: halved, rounded up, while more than two pixels are left.

        >>> ImageShape.of((28, 28)).sizes(4), ImageShape.of((8, 8)).sizes(4)
        ([(28, 28), (14, 14), (7, 7), (4, 4), (2, 2)], [(8, 8), (4, 4), (2, 2), (2, 2), (2, 2)])
        """
        sizes = [(self.height, self.width)]
        for _ in range(n_layers):
            height, width = sizes[-1]
            sizes.append((height if height <= 2 else (height + 1) // 2, width if width <= 2 else (width + 1) // 2))
        return sizes


def _group_norm(channels: int) -> nn.GroupNorm:
    # Statistics of one observation: BatchNorm would make a batch, and a process, part of the model.
    return nn.GroupNorm(math.gcd(8, channels), channels)


def _stride(size: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return (1 if size[0] == other[0] else 2, 1 if size[1] == other[1] else 2)


class ConvEncoder(nn.Module):
    """Convolutions 3 x 3 with strides, GroupNorm and SiLU, then one linear layer: x -> features.

    Args:
        event_shape: The shape of an image, (H, W), (C, H, W) or (H, W, C).
        n_features: The number of features.
        channels: The channels of each convolution.
    """

    def __init__(self, event_shape: Sequence[int], n_features: int, channels: Sequence[int] = CHANNELS):
        super().__init__()
        self.image = ImageShape.of(event_shape)
        sizes = self.image.sizes(len(channels))
        layers: list[nn.Module] = []
        for (inward, outward), (before, after) in zip(
            pairwise((self.image.channels, *channels)), pairwise(sizes), strict=True
        ):
            convolution = nn.Conv2d(inward, outward, 3, _stride(before, after), padding=1)
            layers += [convolution, _group_norm(outward), nn.SiLU()]
        self.network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * math.prod(sizes[-1]), n_features))

    def forward(self, x: Tensor) -> Tensor:
        """The features (N, n_features) of images (N, *event)."""
        x = x.movedim(-1, 1) if self.image.channels_last else x
        return self.network(x.reshape(-1, *self.image[:3]))


class ConvDecoder(nn.Module):
    """The encoder's mirror: one linear layer, then transposed convolutions, the last to the pixels."""

    def __init__(self, event_shape: Sequence[int], latent_dim: int, channels: Sequence[int] = CHANNELS):
        super().__init__()
        self.event_shape, self.image = Size(event_shape), ImageShape.of(event_shape)
        sizes = self.image.sizes(len(channels))[::-1]
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, channels[-1] * math.prod(sizes[0])),
            nn.Unflatten(1, (channels[-1], *sizes[0])),
        ]
        for (inward, outward), (before, after) in zip(
            pairwise((*reversed(channels), self.image.channels)), pairwise(sizes), strict=True
        ):
            stride = _stride(before, after)
            # A transposed convolution gives stride · (size - 1) + 1 pixels, and what is missing is asked for.
            missing = (after[0] - stride[0] * (before[0] - 1) - 1, after[1] - stride[1] * (before[1] - 1) - 1)
            layers += [_group_norm(inward), nn.SiLU(), nn.ConvTranspose2d(inward, outward, 3, stride, 1, missing)]
        self.network = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        """The outputs (N, *event) of codes (N, d)."""
        output = self.network(z)
        return output.movedim(1, -1) if self.image.channels_last else output.reshape(-1, *self.event_shape)


NETWORKS = {"mlp": (Encoder, Decoder), "conv": (ConvEncoder, ConvDecoder)}
