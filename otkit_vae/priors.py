r"""Priors p(z): fixed ones, from any torch distribution, and a mixture of Gaussians that is learned with the model.

The learned mixture has equal weights,

.. math:: p(z) = \frac1K \sum_k N(z;\, m_k, \operatorname{diag} s_k^2) .

A component is drawn without regard to the parameters, so a sample :math:`m_k + s_k \epsilon` is differentiable in all
of them, and every penalty that draws from the prior has its full gradient. With learned weights it would not: the draw
of a component has no derivative.

References:
    Tomczak & Welling, 2018. *VAE with a VampPrior*, section 3 (equal weights, learned components).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal
from torch.nn.functional import softplus

from otkit_vae.distributions import map_tensors


class Prior(nn.Module, ABC):
    """A module whose call gives p(z), with batch shape () and event shape (d,)."""

    @abstractmethod
    def forward(self) -> Distribution:
        """The distribution, with the parameters as they are now."""


class StandardNormal(Prior):
    """N(0, I) in d dimensions."""

    loc: Tensor
    scale: Tensor

    def __init__(self, latent_dim: int):
        super().__init__()
        # Buffers, so that the prior follows the model to its device and dtype.
        self.register_buffer("loc", torch.zeros(latent_dim))
        self.register_buffer("scale", torch.ones(latent_dim))

    def forward(self) -> Distribution:  # noqa: D102
        return Independent(Normal(self.loc, self.scale, validate_args=False), 1)


class FixedPrior(Prior):
    """Any torch distribution with batch shape () and event shape (d,); it follows the model to its device and dtype.

    Its tensors are not in the model's state dict: that has to be loaded into a model made with the same prior.
    """

    def __init__(self, distribution: Distribution):
        super().__init__()
        if distribution.batch_shape != () or len(distribution.event_shape) != 1:
            raise ValueError(
                f"prior has batch shape {tuple(distribution.batch_shape)} and event shape "
                f"{tuple(distribution.event_shape)}; expected () and (d,) (torch.distributions.Independent makes "
                "batch dimensions events)"
            )
        self.distribution = distribution

    def forward(self) -> Distribution:  # noqa: D102
        return self.distribution

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self.distribution = map_tensors(self.distribution, fn)
        return super()._apply(fn, recurse)


class EqualMixture(MixtureSameFamily):
    """A mixture whose weights are fixed, so that its samples have derivatives in all that is learned.

    The components have samples with derivatives, and event shape (d,).
    """

    has_rsample = True

    def rsample(self, sample_shape: Any = ()) -> Tensor:  # noqa: D102
        k = self.mixture_distribution.sample(sample_shape)[..., None, None]
        draws = self.component_distribution.rsample(sample_shape)
        return draws.gather(-2, k.expand(*k.shape[:-1], draws.shape[-1])).squeeze(-2)

    def sample(self, sample_shape: Any = ()) -> Tensor:  # noqa: D102
        with torch.no_grad():
            return self.rsample(sample_shape)


COMPONENTS = 10
"""How many Gaussians a learned mixture has, unless it is told."""


class MixturePrior(Prior):
    """K diagonal Gaussians of equal weight, learned with the model.

    Args:
        latent_dim: The dimension d.
        components: The number K; the means start as draws from N(0, I), the scales, never below 0.001, at 1.001.
    """

    def __init__(self, latent_dim: int, components: int = COMPONENTS):
        super().__init__()
        self.locs = nn.Parameter(torch.randn(components, latent_dim))
        self.raw_scales = nn.Parameter(torch.full((components, latent_dim), 0.5413))  # softplus(0.5413) = 1

    def forward(self) -> Distribution:  # noqa: D102
        scales = 1e-3 + softplus(self.raw_scales)
        weights = Categorical(logits=scales.detach().new_zeros(len(scales)), validate_args=False)
        return EqualMixture(
            weights, Independent(Normal(self.locs, scales, validate_args=False), 1), validate_args=False
        )


PRIORS: dict[str, type[StandardNormal] | type[MixturePrior]] = {"normal": StandardNormal, "mixture": MixturePrior}
