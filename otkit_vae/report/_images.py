"""Observations in a page: images as small PNG files in data URIs, others as curves, and a single value as a level."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import torch
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from otkit_vae.networks import ImageShape

LONGEST_CURVE = 400
"""The most points of a curve; of longer observations every k-th is drawn."""


@dataclass(frozen=True)
class Painter:
    """How the observations of a data set are shown: all on one scale, that of the data.

    Attributes:
        low: The value that is black, or at the bottom.
        high: The value that is white, or at the top.
        image: The shape of an image; None where observations are not images.
        single: Whether an observation is a single value.
    """

    low: float
    high: float
    image: ImageShape | None
    single: bool = False

    @classmethod
    def of(cls, x: Tensor) -> Painter:
        """For observations like x (n, *event): from 0 to 1 where they are within that, else over their own range."""
        low, high = x.min().item(), x.max().item()
        if low >= 0 and high <= 1:
            low, high = 0.0, 1.0
        high = high if high > low else low + 1.0
        try:
            image = ImageShape.of(x.shape[1:])
        except ValueError:
            image = None
        image = image if image is not None and min(image.height, image.width) > 1 else None
        return cls(low, high, image, single=x[0].numel() == 1)

    @property
    def size(self) -> str:
        """How large an observation is shown: the name of a style of the page."""
        if self.image is None:
            return "medium"
        width = max(self.image.width, 40 * self.image.width / self.image.height)
        return "small" if width <= 56 else "medium" if width <= 112 else "large"

    @property
    def drawn(self) -> str:
        """How observations that are not images are drawn, in words."""
        return "levels, each of a single value" if self.single else "curves over their index"

    @property
    def scale(self) -> str:
        """The scale in words."""
        what = "Black to white" if self.image is not None else "Bottom to top"
        return f"{what}: {self.low:.3g} to {self.high:.3g}"

    def tiles(self, *columns: Tensor) -> list[Markup]:
        """An element for each observation of the arguments, each (n, *event), those of one index together."""
        return [self._tile(list(together)) for together in zip(*columns, strict=True)]

    def _tile(self, observations: list[Tensor]) -> Markup:
        return self._curves(observations) if self.image is None else Markup("").join(map(self._picture, observations))

    def _picture(self, x: Tensor) -> Markup:
        pixels, buffer = self.pixels(x), io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
        height, width = pixels.shape[:2]
        return Markup('<img alt="" width="{}" height="{}" src="data:image/png;base64,{}">').format(
            width, height, base64.b64encode(buffer.getvalue()).decode()
        )

    def pixels(self, x: Tensor) -> np.ndarray:
        """The bytes (H, W) or (H, W, 3) of an image; transparency is left out."""
        image, x = ImageShape.of(x.shape), x.detach().cpu().float()
        if not image.channels_last:
            x = x.reshape(image[:3]).movedim(0, -1)
        x = (255 * (x - self.low) / (self.high - self.low)).clamp(0, 255).round().to(torch.uint8)
        return x[..., 0].numpy() if image.channels == 1 else np.ascontiguousarray(x[..., :3].numpy())

    def heights(self, x: Tensor) -> np.ndarray:
        """The values of a curve, 0 at the bottom and 1 at the top, `LONGEST_CURVE` of them at most.

        A single value has two ends, as a curve of one point cannot be seen; beyond the scale it is on its edge.
        """
        y = x.detach().cpu().double().flatten().numpy()
        y = (y[:: -(-len(y) // LONGEST_CURVE)] - self.low) / (self.high - self.low)
        return y.repeat(2).clip(0, 1) if len(y) == 1 else y

    def _curves(self, observations: list[Tensor]) -> Markup:
        """The first solid, a second dashed over it."""
        lines = Markup("").join(
            Markup('<polyline class="curve{}" points="{}"/>').format(k, self._points(x))
            for k, x in enumerate(observations)
        )
        return Markup(
            '<svg class="tile" viewBox="0 0 100 50" preserveAspectRatio="none" aria-hidden="true">{}</svg>'
        ).format(lines)

    def _points(self, x: Tensor) -> str:
        y = (48 - 46 * self.heights(x)).clip(-50, 100)
        across = np.linspace(1, 99, len(y))
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across.tolist(), y.tolist(), strict=True))
