r"""Likelihoods p(x|z): how the decoder's output becomes a distribution over observations.

Every log-likelihood is *summed* over the dimensions of an observation, in nats, so a weight on the
penalty means the same whatever the size of the image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import inf, log, pi
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Distribution, Independent, Normal
from torch.nn.functional import mse_loss, softplus

from otkit._derivatives import Function


class Likelihood(nn.Module, ABC):
    """The map from a decoder's output to p(x|z)."""

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

    The decoder's output is the logit of :math:`\pi`. Grey values in [0, 1] are allowed, as is usual; the sum is then
    the negative cross-entropy, no longer a normalised density.
    """

    def forward(self, output: Tensor) -> Distribution:  # noqa: D102
        return _BernoulliPixels(TorchBernoulli(logits=output, validate_args=False), output.ndim - 1)

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
        scale: The standard deviation s > 0, in units of the data; by default learned with the decoder, as
            :math:`s = 10^{-3} + \operatorname{softplus}(\text{raw})`, from 0.694 on.
    """

    floor = 1e-3
    """The smallest learned scale: below it a density over digitised data only gets ever larger."""

    def __init__(self, scale: float | None = None):
        super().__init__()
        if scale is not None and not 0 < scale < inf:
            raise ValueError(f"scale is {scale}; expected a finite standard deviation > 0, or None to learn it")
        self.fixed_scale = None if scale is None else float(scale)
        if scale is None:
            self.raw_scale = nn.Parameter(torch.zeros(()))

    def extra_repr(self) -> str:  # noqa: D102
        return "" if self.fixed_scale is None else f"scale={self.fixed_scale}"

    @property
    def scale(self) -> Tensor:
        """The standard deviation s."""
        if self.fixed_scale is None:
            return self.floor + softplus(self.raw_scale)
        # In float64, so that the number is that of the caller whatever the dtype of the data.
        return torch.tensor(self.fixed_scale, dtype=torch.float64)

    def forward(self, output: Tensor) -> Distribution:  # noqa: D102
        return _GaussianPixels(output, self.scale.to(output) if self.fixed_scale is None else self.fixed_scale)


# The density of a whole image at once, as that is most of what an objective costs besides the network's products.


class _BernoulliPixels(Independent):
    base_dist: TorchBernoulli

    def log_prob(self, value: Tensor) -> Tensor:
        logits = self.base_dist.logits
        # Other shapes, such as many draws of one code, are rare, and left to the general code.
        if value.shape != logits.shape or value.dtype != logits.dtype:
            return super().log_prob(value)
        return _LogLikelihood.at(logits, value, self.reinterpreted_batch_ndims)


class _LogLikelihood(Function):
    r"""The sum over the last dimensions of :math:`x l - \log(1 + e^l)`, differentiable in both to any order.

    It is :math:`-\sum (l^+ - x l + \log(1 + e^{-|l|}))`, in few passes, none of which overflows.
    """

    @staticmethod
    def forward(logits: Tensor, x: Tensor, ndims: int) -> Tensor:
        rest = logits.abs().neg_().exp_().log1p_()
        return (torch.addcmul(logits.relu(), x, logits, value=-1) + rest).flatten(-ndims).sum(-1).neg()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        logits, x, ctx.ndims = inputs
        ctx.save_for_backward(logits, x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        logits, x = ctx.saved_tensors
        grad = grad_outputs[0].reshape(*grad_outputs[0].shape, *[1] * ctx.ndims)
        of_logits = grad * (x - torch.sigmoid(logits)) if ctx.needs_input_grad[0] else None
        of_x = grad * logits if ctx.needs_input_grad[1] else None
        return of_logits, of_x, None


class _GaussianPixels(Independent):
    base_dist: Normal

    def __init__(self, loc: Tensor, scale: Tensor | float):
        each = scale if isinstance(scale, Tensor) else loc.new_full((), scale)
        super().__init__(Normal(loc, each, validate_args=False), loc.ndim - 1)
        self.scale = scale  # one number for all pixels, where the Normal has as many as there are pixels

    def expand(self, batch_shape: Any, _instance: Any = None) -> Distribution:
        return Independent(self.base_dist, self.reinterpreted_batch_ndims).expand(batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        loc, scale = self.base_dist.loc, self.scale
        alike = value.shape == loc.shape and value.dtype == loc.dtype
        # The same in one pass, and its derivative too.
        squares = mse_loss(loc, value, reduction="none") if alike else (loc - value).square()
        squares = squares.flatten(-self.reinterpreted_batch_ndims)
        log_scale = scale.log() if isinstance(scale, Tensor) else log(scale)
        return squares.sum(-1) / (-2 * scale**2) - squares.shape[-1] * (log_scale + log(2 * pi) / 2)


LIKELIHOODS: dict[str, Callable[[], Likelihood]] = {"bernoulli": Bernoulli, "gaussian": Gaussian}
