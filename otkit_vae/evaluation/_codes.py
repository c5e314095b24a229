r"""What is known of the codes of many observations, and distributions that are fitted to them afterwards.

A decoder is trained on draws :math:`z \sim q(z|x)`, so the distribution that it knows is the aggregated posterior
:math:`q(z) = E_x\, q(z|x)`, of which one draw for each observation is a sample. Where q(z) is not p(z), draws of p(z)
lie where the decoder never was, and a density fitted to that sample *ex post* serves better: a mixture of
Gaussians of all codes, or one Gaussian for the codes of each class where labels are to be generated as well.

References:
    Ghosh, Sajjadi, Vergari, Black & Schölkopf, 2020. *From variational to deterministic autoencoders*, section 4
    (ex-post density estimation; 10 components).
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from otkit._arguments import require_count
from otkit._convergence import ConvergenceWarning
from otkit_vae.evaluation._mode import evaluating
from otkit_vae.model import VAE
from otkit_vae.sampling import sample

COMPONENTS = 10
"""The Gaussians of the ex-post mixture."""

LARGEST_FIT = 20_000
"""The most codes that a mixture is fitted to."""

RIDGE = 1e-6
"""What is added to the variances of fitted Gaussians, relative to the mean variance of the codes."""


class Codes(NamedTuple):
    """The posteriors of n observations, and a draw of each.

    Attributes:
        mean: The posterior means, with shape (n, d).
        scale: The posterior standard deviations, with shape (n, d); 0 where the posterior is deterministic.
        z: One draw of each posterior, with shape (n, d).
    """

    mean: Tensor
    scale: Tensor
    z: Tensor


@torch.no_grad()
def encode(model: VAE, x: Tensor, *, generator: Generator | None = None, batch_size: int = 2000) -> Codes:
    """The codes of observations x (n, *event), batch by batch, with the model in evaluation mode."""
    with evaluating(model):
        posteriors = [model.encode(batch) for batch in x.split(batch_size)]
    parts = [(q.mean, q.stddev, sample(q, generator=generator)) for q in posteriors]
    return Codes(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


@torch.no_grad()
def decode(model: VAE, z: Tensor, *, batch_size: int = 2000) -> Tensor:
    """The means of p(x|z) for codes z (n, d), with shape (n, *event), batch by batch, in evaluation mode."""
    with evaluating(model):
        return torch.cat([model.decode(batch).mean for batch in z.split(batch_size)])


def fit_mixture(z: Tensor, *, components: int = COMPONENTS, seed: int = 0) -> MixtureSameFamily:
    """A mixture of Gaussians with full covariances, fitted to codes by scikit-learn's EM.

    A millionth of the mean variance of the codes is added to variances, so that Gaussians of codes on a plane exist
    too, in any units.

    Args:
        z: The codes, with shape (n, d); of more than 20,000 only the first count, so they should be in random order.
        components: The number of Gaussians, fewer where there are not ten codes for each.
        seed: Seeds the start, by k-means.

    Returns:
        The mixture, with event shape (d,), in the dtype and on the device of z.

    Raises:
        ValueError: Fewer than two codes, or components < 1.

    Warns:
        ConvergenceWarning: EM stopped at its last step.
    """
    from sklearn.exceptions import ConvergenceWarning as SklearnConvergenceWarning
    from sklearn.mixture import GaussianMixture

    if len(z) < 2:
        raise ValueError(f"z has {len(z)} codes; expected at least 2 to fit a mixture to")
    require_count("components", components)
    codes = z[:LARGEST_FIT].double().numpy(force=True)
    gaussians = GaussianMixture(
        min(components, max(1, len(codes) // 10)), reg_covar=_ridge(codes), max_iter=500, random_state=seed
    )
    with warnings.catch_warnings():
        # k-means says so where codes coincide, and EM where it stopped; the second is said below.
        warnings.simplefilter("ignore", SklearnConvergenceWarning)
        gaussians.fit(codes)
    if not gaussians.converged_:
        warnings.warn(
            "the ex-post mixture of the codes stopped at its 500th step of EM (take fewer components)",
            ConvergenceWarning,
            stacklevel=2,
        )
    weights, locs, covs = map(torch.from_numpy, (gaussians.weights_, gaussians.means_, gaussians.covariances_))
    return MixtureSameFamily(
        Categorical(probs=weights.to(z), validate_args=False), _normal(z, locs, covs), validate_args=False
    )


def ex_post(model: VAE, train: Tensor, *, seed: int, generator: Generator | None = None) -> MixtureSameFamily:
    """`fit_mixture` of a draw of each posterior of training observations (n, *event): of the first 20,000 at most.

    Args:
        model: The model.
        train: The observations that it was trained on, with shape (n, *event).
        seed: Seeds the start of the fit.
        generator: The source of the draws.
    """
    return fit_mixture(encode(model, train[:LARGEST_FIT], generator=generator).z, seed=seed)


class ClassGaussians(NamedTuple):
    """A Gaussian of codes for each class.

    Attributes:
        classes: The labels, with shape (C,), in ascending order.
        gaussians: The Gaussians, with batch shape (C,) and event shape (d,).
    """

    classes: Tensor
    gaussians: MultivariateNormal

    def draw(self, n: int, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """N codes of each class, (C·n, d), and their labels (C·n,)."""
        z = sample(self.gaussians, n, generator)
        return z.transpose(0, 1).flatten(0, 1), self.classes.repeat_interleave(n)


def fit_classes(z: Tensor, labels: Tensor) -> ClassGaussians:
    """A Gaussian for the codes of each class, with scikit-learn's Ledoit–Wolf covariance, for which few codes suffice.

    Args:
        z: The codes, with shape (n, d).
        labels: Their labels, with shape (n,).

    Raises:
        ValueError: A class has a single code.
    """
    from sklearn.covariance import LedoitWolf

    classes, counts = labels.unique(return_counts=True)
    if int(counts.min()) < 2:
        raise ValueError(
            f"labels: class {int(classes[counts.argmin()])} has one observation; expected at least 2 of each class to "
            "fit a Gaussian to their codes"
        )
    codes, of = z.double().numpy(force=True), labels.numpy(force=True)
    fits = [LedoitWolf().fit(codes[of == label]) for label in classes.tolist()]
    # The ridge of the mixture: codes that coincide have a covariance of 0, which has no Cholesky factor.
    covs = np.stack([fitted.covariance_ for fitted in fits]) + _ridge(codes) * np.eye(codes.shape[-1])
    locs = np.stack([fitted.location_ for fitted in fits])
    return ClassGaussians(classes, _normal(z, torch.from_numpy(locs), torch.from_numpy(covs)))


def _ridge(codes: np.ndarray) -> float:
    """What to add to variances, so that what is fitted does not depend on the units; `RIDGE` where codes coincide."""
    variance = float(codes.var(0).mean())
    return RIDGE * variance if variance > 0 else RIDGE


def _normal(z: Tensor, locs: Tensor, covs: Tensor) -> MultivariateNormal:
    """Gaussians in the dtype and on the device of z, factored in float64: rounded to float32 a ridge may be gone."""
    factors = torch.linalg.cholesky(covs)
    return MultivariateNormal(locs.to(z), scale_tril=factors.to(z), validate_args=False)
