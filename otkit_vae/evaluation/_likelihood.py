r"""A lower bound of the log-likelihood by importance sampling, which tightens with the number of samples.

.. math:: \mathcal L_K(x) = E_{z_1, \dots, z_K \sim q(z|x)} \log \frac1K \sum_{k=1}^K \frac{p(x|z_k)\, p(z_k)}{q(z_k|x)}
          \le \log p(x) .

:math:`\mathcal L_1` is the ELBO, :math:`\mathcal L_K \le \mathcal L_{K+1}`, and the limit is :math:`\log p(x)` where
the weights are bounded. At q(z|x) = p(z|x) all weights are equal, and the bound is exact at any K. It holds for any
posterior with a density, whatever penalty it was trained with; one without noise has none. A narrow q(z|x) leaves the
bound valid, but loose.

References:
    Burda, Grosse & Salakhutdinov, 2016. *Importance weighted autoencoders*, eq. (8) and theorem 1.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from otkit._arguments import require_count
from otkit_vae.distributions import map_tensors
from otkit_vae.evaluation._mode import evaluating
from otkit_vae.model import VAE
from otkit_vae.precision import single
from otkit_vae.sampling import sample

LARGEST_CHUNK = 2**22
"""The most decoded values that are held at a time."""


@torch.no_grad()
def importance_weighted_bound(
    model: VAE, x: Tensor, *, n_samples: int = 100, generator: Generator | None = None
) -> Tensor:
    r"""One draw of the bound :math:`\mathcal L_K(x)` for each observation, in nats, with the model in evaluation mode.

    Cost: O(n K) decoded observations, in chunks: memory grows neither with n nor with K.

    Args:
        model: The model; its posterior must have a density.
        x: Observations, with shape (n, *event).
        n_samples: The number K of samples for each observation.
        generator: The source of randomness.

    Returns:
        The bounds, with shape (n,); their mean bounds the mean of log p(x).

    Raises:
        ValueError: n_samples < 1, or a posterior without a density.

    Example:
        >>> model = VAE.sized((4,), latent_dim=2)
        >>> importance_weighted_bound(model, torch.rand(3, 4), n_samples=10).shape
        torch.Size([3])
    """
    require_count("n_samples", n_samples)
    if not has_density(model, x[:1]):
        raise ValueError("the posterior is deterministic and has no density; expected one with noise")
    rows = max(1, LARGEST_CHUNK // max(1, x[0].numel()))
    at_once = min(n_samples, rows)
    with evaluating(model):
        return torch.cat(
            [_bound(model, batch, n_samples, at_once, generator) for batch in x.split(max(1, rows // at_once))]
        )


def has_density(model: VAE, x: Tensor) -> bool:
    """Whether the posterior of observations x (n, *event) has a density, as a deterministic one has not."""
    with evaluating(model):
        posterior = map_tensors(model.encode(x), single)  # not all densities exist in half precision
    try:
        posterior.log_prob(posterior.mean)
    except NotImplementedError:
        return False
    return True


def _bound(model: VAE, x: Tensor, n_samples: int, at_once: int, generator: Generator | None) -> Tensor:
    encoded = model.encode(x)
    posterior, prior = (map_tensors(each, single) for each in (encoded, model.prior))
    total = x.new_full((len(x),), -math.inf, dtype=torch.float64)
    for start in range(0, n_samples, at_once):
        k = min(at_once, n_samples - start)
        z = sample(encoded, k, generator)
        repeated = x.expand(k, *x.shape).flatten(0, 1)
        log_likelihood = model.decode(z.flatten(0, 1)).log_prob(repeated).unflatten(0, (k, len(x)))
        weights = log_likelihood + prior.log_prob(single(z)) - posterior.log_prob(single(z))
        total = torch.logaddexp(total, weights.double().logsumexp(0))
    return total - math.log(n_samples)
