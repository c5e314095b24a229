r"""What generated data are worth to a classifier: its accuracy with and without them.

Of the training data only a few observations of each class are taken to be labelled. A Gaussian is fitted to the codes
of those of each class (where classes overlap little in the latent space, a Gaussian for each is a fair model),

.. math:: q(z | y) \approx N(m_y, \Sigma_y), \qquad
          z = \text{one draw of } q(z|x) \text{ for each } x \text{ of class } y,

with the Ledoit–Wolf covariance, and codes drawn from it are decoded: labelled observations that nobody took. The model
itself saw all training observations, but no labels. A classifier trained on the labelled observations is then compared
with one trained, for the same number of steps, on these and the generated ones together; both are judged on
held-out data, over several seeds of the classifier.

Chen & Liu (2021) augment with a Wasserstein VAE to the same end; the Gaussian for each class is our way to ask an
unconditional model for a class.

References:
    Chen & Liu, 2021. *Towards better data augmentation using Wasserstein distance in variational auto-encoder*,
    arXiv 2109.14795.
    Ledoit & Wolf, 2004. *A well-conditioned estimator for large-dimensional covariance matrices*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from otkit._arguments import require_count
from otkit_vae.evaluation._classifier import fit_classifier
from otkit_vae.evaluation._codes import decode, encode, fit_classes
from otkit_vae.evaluation._measures import Measure
from otkit_vae.model import VAE

STEPS = 200
"""The steps of the two classifiers."""


class Labelled(NamedTuple):
    """Observations and their labels.

    Attributes:
        x: Observations, with shape (n, *event).
        labels: Whole numbers, with shape (n,).
    """

    x: Tensor
    labels: Tensor


def labelled_subset(x: Tensor, labels: Tensor, per_class: int, *, generator: Generator | None = None) -> Labelled:
    """Some observations of each class, drawn without replacement; all of a class that has fewer.

    Args:
        x: Observations, with shape (n, *event).
        labels: Whole numbers, with shape (n,).
        per_class: How many of each class.
        generator: The source of randomness.
    """
    order = torch.randperm(len(x), generator=generator)
    chosen = torch.cat([order[labels[order] == label][:per_class] for label in labels.unique()])
    return Labelled(x[chosen], labels[chosen])


def augment(model: VAE, labelled: Labelled, per_class: int, *, generator: Generator | None = None) -> Labelled:
    """Generate labelled observations from a Gaussian of codes for each class.

    Args:
        model: The model.
        labelled: Observations with labels, at least two of each class, to which the Gaussians are fitted.
        per_class: How many to generate of each class.
        generator: The source of randomness.

    Returns:
        The generated observations, means of p(x|z), class after class, and their labels.
    """
    gaussians = fit_classes(encode(model, labelled.x, generator=generator).z, labelled.labels)
    z, labels = gaussians.draw(per_class, generator=generator)
    return Labelled(decode(model, z), labels)


@dataclass(frozen=True)
class Augmentation:
    """Accuracies on held-out data, over several seeds of the classifier.

    Attributes:
        labelled_per_class: How many real observations of each class; of the largest, where classes have fewer.
        generated_per_class: How many generated ones of each class.
        real: The accuracies of classifiers trained on real observations only.
        augmented: The accuracies of classifiers trained on real and generated observations.
        fewest: How many of the smallest class then; None where all have as many.
    """

    labelled_per_class: int
    generated_per_class: int
    real: tuple[float, ...]
    augmented: tuple[float, ...]
    fewest: int | None = None

    def measures(self) -> list[Measure]:
        """The mean accuracies, for a table."""
        fewest = "" if self.fewest is None else f"{self.fewest} to "
        title = f"accuracy, {fewest}{self.labelled_per_class} real + {self.generated_per_class} generated a class"
        augmented, real = (float(np.mean(accuracies)) for accuracies in (self.augmented, self.real))
        return [Measure("augmented_accuracy", title, augmented, real, "higher")]


def augmentation(
    model: VAE,
    train: Labelled,
    held_out: Labelled,
    *,
    labelled_per_class: int = 10,
    generated_per_class: int = 30,
    n_seeds: int = 3,
    seed: int = 0,
    real: Sequence[float] | None = None,
) -> Augmentation:
    """Compare classifiers trained with and without generated data.

    Args:
        model: The model.
        train: The training data and their labels.
        held_out: Held-out data and their labels, to judge on.
        labelled_per_class: How many of each class are taken to be labelled, at least 2.
        generated_per_class: How many to generate of each class.
        n_seeds: How many seeds; each draws another labelled subset as well.
        seed: The first of them. The subsets are the same for every model.
        real: What `real_accuracies` gives for the same arguments, where it is known from another model.

    Raises:
        ValueError: A number that is too small, or a class with one observation.
    """
    require_count("generated_per_class", generated_per_class)
    subsets = _subsets(train, labelled_per_class, n_seeds, seed)
    if real is None:
        real = real_accuracies(train, held_out, labelled_per_class=labelled_per_class, n_seeds=n_seeds, seed=seed)
    augmented = []
    for k, labelled in subsets:
        generated = augment(model, labelled, generated_per_class, generator=torch.Generator().manual_seed(k))
        both = Labelled(*(torch.cat(parts) for parts in zip(labelled, generated, strict=True)))
        augmented.append(fit_classifier(*both, steps=STEPS, seed=k).accuracy(*held_out))
    counts = train.labels.unique(return_counts=True)[1].clamp(max=labelled_per_class)
    fewest, most = int(counts.min()), int(counts.max())
    return Augmentation(most, generated_per_class, tuple(real), tuple(augmented), fewest if fewest < most else None)


def real_accuracies(
    train: Labelled, held_out: Labelled, *, labelled_per_class: int = 10, n_seeds: int = 3, seed: int = 0
) -> tuple[float, ...]:
    """The accuracies without generated data, which depend on no model; arguments as for `augmentation`."""
    return tuple(
        fit_classifier(*labelled, steps=STEPS, seed=k).accuracy(*held_out)
        for k, labelled in _subsets(train, labelled_per_class, n_seeds, seed)
    )


def _subsets(train: Labelled, per_class: int, n_seeds: int, seed: int) -> list[tuple[int, Labelled]]:
    """A seed for each classifier, and the labelled observations that it sees."""
    require_count("labelled_per_class", per_class, least=2)
    require_count("n_seeds", n_seeds)
    seeds = range(seed * n_seeds, (seed + 1) * n_seeds)  # no two evaluations share one
    return [(k, labelled_subset(*train, per_class, generator=torch.Generator().manual_seed(k))) for k in seeds]
