r"""The objective of a Wasserstein VAE, to be minimised:

.. math:: -\mathrm{ELBO}_W = E\bigl[-\log p(x|z)\bigr] + \text{weight} \cdot W(q, p), \qquad z \sim q(z|x) .

The log-likelihood is summed over the dimensions of an observation and averaged over the batch, in nats; the penalty
is a mean over the batch as well. A weight thus means the same at every image size and batch size.

Penalties have different units: a squared length, a kernel's value, a logarithm. To start them on one footing
(`Objective.balance`), the weight is multiplied once by the ratio of the gradients that the two parts send into the
encoder's parameters :math:`\theta` on a first batch,

.. math:: \text{weight} = \text{weight}_0 \cdot \frac{\|\nabla_\theta\, E[-\log p(x|z)]\|}{\|\nabla_\theta\, W\|} ,

so that the given :math:`\text{weight}_0` (1 if none is given) is the ratio of the penalty's gradient to the
reconstruction's.

References:
    Tolstikhin, Bousquet, Gelly & Schölkopf, 2018. *Wasserstein auto-encoders*, eq. (4).
    Chen & Liu, 2021. *Towards better data augmentation using Wasserstein distance in variational auto-encoder*
    (ELBO_W).
    Bowman et al., 2016. *Generating sentences from a continuous space*, section 3.1 (a weight that warms up).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution

from otkit_vae import processes
from otkit_vae.model import VAE
from otkit_vae.penalties import AggregatedPenalty, LatentPenalty, PerSamplePenalty
from otkit_vae.precision import without_autocast
from otkit_vae.sampling import sample


class Terms(NamedTuple):
    """The objective on one batch, and what it is made of.

    Attributes:
        loss: reconstruction + weight · penalty, a scalar in nats.
        reconstruction: The mean of -log p(x|z), a scalar in nats.
        penalty: The penalty before its weight, a scalar.
        posterior: q(z|x) of the batch.
        z: The codes that were drawn, with shape (N, d).
        weight: The weight at this step.
        reconstructions: -log p(x|z) of each observation, with shape (N,), in nats.
        penalties: The penalty of each observation, with shape (N,), before its weight; None for an aggregated penalty,
            which has none.
    """

    loss: Tensor
    reconstruction: Tensor
    penalty: Tensor
    posterior: Distribution
    z: Tensor
    weight: float
    reconstructions: Tensor
    penalties: Tensor | None


class Objective(nn.Module):
    """-ELBO_W for one penalty and one weight.

    Args:
        penalty: The penalty W.
        weight: Its weight, >= 0; the penalty's own default if None.
        warmup: Over how many steps the weight grows linearly from 0; or your own schedule, a function from the step
            (the first is 0) to a factor >= 0 of the weight.

    Example:
        >>> import torch
        >>> from otkit_vae import VAE, Objective, penalties
        >>> model, objective = VAE.sized((8, 8), latent_dim=2), Objective(penalties.get("gaussian_w2"), warmup=100)
        >>> terms = objective(model, torch.rand(16, 8, 8), step=50)
        >>> terms.loss.backward()
        >>> terms.weight / objective.weight
        0.5
    """

    def __init__(
        self, penalty: LatentPenalty, weight: float | None = None, *, warmup: int | Callable[[int], float] = 0
    ):
        super().__init__()
        if not isinstance(penalty, LatentPenalty):
            raise TypeError(f"penalty is {penalty!r}; expected a LatentPenalty, such as penalties.get('kl')")
        if weight is not None and not isinstance(weight, Real | Tensor):
            raise TypeError(f"weight is {weight!r}; expected a finite number >= 0")
        self.given_weight = weight
        weight = penalty.default_weight if weight is None else weight
        if not 0 <= weight < math.inf:
            raise ValueError(f"weight is {weight}; expected a finite number >= 0")
        if not callable(warmup) and (isinstance(warmup, bool) or not isinstance(warmup, int) or warmup < 0):
            raise ValueError(f"warmup is {warmup!r}; expected a whole number of steps >= 0, or a function of the step")
        self.penalty, self.weight, self.warmup = penalty, float(weight), warmup

    def weight_at(self, step: int | None) -> float:
        """The weight at a step, counted from 0; the full weight for None."""
        if step is None:
            return self.weight
        if callable(self.warmup):
            factor = float(self.warmup(step))
            if not 0 <= factor < math.inf:
                raise ValueError(f"warmup at step {step} is {factor}; expected a finite factor >= 0")
            return self.weight * factor
        return self.weight * min(1.0, step / self.warmup) if self.warmup else self.weight

    def forward(self, model: VAE, x: Tensor, *, generator: Generator | None = None, step: int | None = None) -> Terms:
        """The objective of a model on observations x (N, *event), at a step of its weight's schedule.

        Raises:
            ValueError: The batch is too small, the decoder's observations have another shape, or the penalty is not a
                scalar, or has not one number for each observation.
            TypeError: The encoder, the decoder or the penalty does not give a tensor.
        """
        if not processes.spread() and len(x) < self.penalty.min_batch:
            raise ValueError(
                f"x has {len(x)} observations; the penalty {type(self.penalty).__name__} needs "
                f"at least {self.penalty.min_batch} in a batch"
            )
        posterior = model.encode(x)
        precise = without_autocast(x)
        with precise:
            z = sample(posterior, generator=generator)
        decoded = model.decode(z)
        if decoded.event_shape != x.shape[1:]:
            raise ValueError(
                f"decoder gives observations of shape {tuple(decoded.event_shape)}; expected {tuple(x.shape[1:])}"
            )
        with precise:
            reconstructions = -decoded.log_prob(x)
            penalties = None
            if isinstance(self.penalty, PerSamplePenalty):
                penalties = self.penalty.per_observation(posterior, z, model.prior, generator=generator)
                if penalties.shape != reconstructions.shape:
                    raise ValueError(
                        f"per_observation of the penalty {type(self.penalty).__name__} gives shape "
                        f"{tuple(penalties.shape)}; expected {tuple(reconstructions.shape)}, one for each observation"
                    )
                reconstruction, penalty = processes.means(reconstructions, penalties)
            else:
                (reconstruction,) = processes.means(reconstructions)
                penalty = self.penalty(posterior, z, model.prior, generator=generator)
        if processes.spread() and not isinstance(self.penalty, AggregatedPenalty | PerSamplePenalty):
            raise ValueError(
                f"the penalty {type(self.penalty).__name__} was computed of the part of the batch that one process "
                "has; expected, over several processes, one derived from AggregatedPenalty or PerSamplePenalty"
            )
        if not isinstance(penalty, Tensor):
            raise TypeError(
                f"the penalty {type(self.penalty).__name__} gives {penalty!r}; expected a scalar tensor of torch"
            )
        if penalty.shape != ():
            raise ValueError(
                f"the penalty {type(self.penalty).__name__} has shape {tuple(penalty.shape)}; "
                "expected a scalar, a mean over the batch"
            )
        weight = self.weight_at(step)
        loss = reconstruction + weight * penalty
        return Terms(loss, reconstruction, penalty, posterior, z, weight, reconstructions, penalties)

    def check(self, model: VAE, x: Tensor) -> None:
        """Raise a ValueError, before training, if model, penalty and observations do not fit together.

        The objective is computed once, so that any part that takes its shape from the first codes has it afterwards.

        Args:
            model: The model.
            x: A first batch of observations, with shape (N, *event).
        """
        model.likelihood.check(x)
        first = x[: self.penalty.min_batch]
        with torch.no_grad():
            try:
                posterior, prior = model.encode(first), model.prior
            except (RuntimeError, ValueError):
                _check_encoder(model, first)
                raise
            if posterior.event_shape != prior.event_shape:
                raise ValueError(
                    f"prior has event shape {tuple(prior.event_shape)}, and posterior {tuple(posterior.event_shape)}; "
                    "expected codes of the dimension of the prior (latent_dim; torch.distributions.Independent makes "
                    "batch dimensions events)"
                )
            self.penalty.check(posterior, prior)
            with torch.random.fork_rng(), processes.alone():
                try:
                    self(model, x)
                except RuntimeError:
                    _check_decoder(model, sample(posterior))
                    raise

    def balance(self, model: VAE, x: Tensor, *, generator: Generator | None = None) -> float:
        """Set the weight so that the penalty's gradient starts as large as the reconstruction's, by the formula above.

        Args:
            model: The model, as it is before training.
            x: A first batch of observations, with shape (N, *event).
            generator: The source of randomness.

        Returns:
            The new weight; the weight that was given, or 1, is the ratio of the gradients.

        Raises:
            ValueError: A gradient is 0 or not finite, as that of the penalty `none` is.
        """
        with processes.alone():
            terms = self(model, x, generator=generator)
        parameters = [parameter for parameter in model.encoder.parameters() if parameter.requires_grad]

        def norm(value: Tensor) -> float:
            if not (value.requires_grad and parameters):
                return 0.0
            parts = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            return float(sum(part.square().sum().double() for part in parts if part is not None)) ** 0.5

        reconstruction, penalty = norm(terms.reconstruction), norm(terms.penalty)
        if not (0 < reconstruction < math.inf and 0 < penalty < math.inf):
            raise ValueError(
                f"balance: the gradients have norms {reconstruction:.3g} (reconstruction) and {penalty:.3g} (penalty "
                f"{self.penalty.name or type(self.penalty).__name__}); expected both positive and finite"
            )
        self.weight = (1.0 if self.given_weight is None else self.given_weight) * reconstruction / penalty
        return self.weight


def _check_encoder(model: VAE, x: Tensor) -> None:
    """Raise a ValueError if the encoder fails on observations, or gives other features than the posterior takes."""
    features = _tried("encoder", model.encoder, "observations", x, "(N, *event)")
    (d,) = model.prior.event_shape
    if isinstance(features, Tensor) and features.shape != (expected := (len(x), model.posterior.n_features(d))):
        raise ValueError(
            f"encoder gives features of shape {tuple(features.shape)}; the posterior {type(model.posterior).__name__} "
            f"expects {expected}, as latent_dim is {d}"
        )


def _check_decoder(model: VAE, z: Tensor) -> None:
    """Raise a ValueError if the decoder fails on codes."""
    _tried("decoder", model.decoder, "codes", z, f"(N, {z.shape[-1]}), as latent_dim is {z.shape[-1]}")


def _tried(name: str, part: nn.Module, what: str, value: Tensor, expected: str) -> Any:
    try:
        return part(value)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{name} fails on {what} of shape {tuple(value.shape)} ({error}); expected one that takes {expected}"
        ) from None
