r"""Likelihoods p(x|z): how the decoder's output becomes a distribution over observations.

Every log-likelihood is *summed* over the dimensions of an observation, in nats, so a weight on the
penalty means the same whatever the size of the image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Distribution, Independent, Normal
from torch.nn.functional import softplus


class Likelihood(nn.Module, ABC):
    """From a decoder's output to p(x|z)."""

    @abstractmethod
    def forward(self, output: Tensor) -> Distribution:
        """The distribution p(x|z), with batch shape (N,), for the decoder's output (N, *event)."""

    def check(self, x: Tensor) -> None:
        """Raise a ValueError if observations are outside the range of the likelihood, NaN or infinite."""
        bad = int((~torch.isfinite(x)).sum())
        if bad:
            raise ValueError(f"data has {bad} values that are NaN or infinite of {x.numel()}; expected finite numbers")


class Bernoulli(Likelihood):
    r"""Independent Bernoulli pixels, :math:`\log p(x|z) = \sum_k x_k \log \pi_k + (1 - x_k) \log(1 - \pi_k)`.

    The decoder's output is the logit of :math:`\pi`. Grey values in [0, 1] are allowed, as everyone does; the sum
    then is the negative cross-entropy, no longer a normalised density.
    """

    def forward(self, output: Tensor) -> Distribution:  # noqa: D102
        return Independent(TorchBernoulli(logits=output, validate_args=False), output.ndim - 1)

    def check(self, x: Tensor) -> None:  # noqa: D102
        super().check(x)
        low, high = x.min().item(), x.max().item()
        if low < 0 or high > 1:
            raise ValueError(
                f"data has values from {low:.6g} to {high:.6g}; the bernoulli likelihood expects [0, 1] "
                "(scale the data, or take the gaussian likelihood)"
            )


class Gaussian(Likelihood):
    r"""Independent Gaussian pixels, :math:`x_k \sim N(\hat x_k, s^2)`, with one scale s for all.

    Args:
        scale: The standard deviation s > 0, in units of the data; learned with the decoder by default.
    """

    floor = 1e-3
    """The smallest learned scale: below it a density over digitised data only gets ever larger."""

    def __init__(self, scale: float | None = None):
        super().__init__()
        if scale is not None and not scale > 0:
            raise ValueError(f"scale is {scale}; expected a standard deviation > 0, or None to learn it")
        # In float64, so that the number is that of the caller whatever the dtype of the data.
        self.fixed_scale = None if scale is None else torch.tensor(scale, dtype=torch.float64)
        if scale is None:
            self.raw_scale = nn.Parameter(torch.zeros(()))

    @property
    def scale(self) -> Tensor:
        """The standard deviation s."""
        return self.floor + softplus(self.raw_scale) if self.fixed_scale is None else self.fixed_scale

    def forward(self, output: Tensor) -> Distribution:  # noqa: D102
        return Independent(Normal(output, self.scale.to(output), validate_args=False), output.ndim - 1)


LIKELIHOODS: dict[str, Callable[[], Likelihood]] = {"bernoulli": Bernoulli, "gaussian": Gaussian}
