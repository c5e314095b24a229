"""What models of the same data are judged against, computed once for all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from torch import Generator, Tensor

from otkit_vae.data import Data
from otkit_vae.evaluation._augmentation import Labelled, real_accuracies
from otkit_vae.evaluation._classifier import Classifier, cached_classifier
from otkit_vae.evaluation._samples import Quality, quality


class Reference:
    """The classifier of the data, held-out data in its features, and what no model is needed for.

    Args:
        data: The data.
        cache: The file of the classifier, read if it fits the data and written otherwise; none if None.
    """

    def __init__(self, data: Data, cache: Path | None = None):
        self.data, self.cache = data, cache
        self._accuracies: dict[tuple[int, int], tuple[float, ...]] = {}

    @cached_property
    def train(self) -> Labelled | None:
        """The training data and their labels, of two classes at least; None if there are none."""
        return labelled(self.data)

    @cached_property
    def held_out(self) -> Labelled | None:
        """The held-out data and their labels; None if there are none."""
        labels = self.data.held_out_labels
        return None if labels is None else Labelled(self.data.held_out, labels)

    @cached_property
    def classifier(self) -> Classifier | None:
        """The classifier; None without labels of both parts, as one of unknown accuracy is no judge."""
        if self.train is None or self.held_out is None:
            return None
        return cached_classifier(*self.train, cache=self.cache)

    @cached_property
    def accuracy(self) -> float | None:
        """The classifier's accuracy on held-out data; None without one."""
        return None if self.classifier is None or self.held_out is None else self.classifier.accuracy(*self.held_out)

    @property
    def features(self) -> Callable[[Tensor], Tensor]:
        """The function from observations (n, *event) to the features (n, d) to compare in; without a classifier, these
        are the observations as they are.
        """
        return flat if self.classifier is None else self.classifier.features

    @cached_property
    def real(self) -> Tensor:
        """The features of n held-out observations, n at most the number of training observations."""
        return self.features(self.data.held_out[: len(self.data.train)])

    @cached_property
    def null(self) -> Quality:
        """The quality of n training observations in place of samples."""
        some = self.features(self.data.train[: len(self.real)])
        return quality(some, self.real, generator=Generator().manual_seed(0))

    def real_accuracies(self, labelled_per_class: int, seed: int) -> tuple[float, ...] | None:
        """The accuracies of classifiers without generated data; None without labels, or two of each class."""
        if self.train is None or self.held_out is None:
            return None
        if int(self.train.labels.unique(return_counts=True)[1].min()) < 2:
            return None
        key = labelled_per_class, seed
        if key not in self._accuracies:
            self._accuracies[key] = real_accuracies(
                self.train, self.held_out, labelled_per_class=labelled_per_class, seed=seed
            )
        return self._accuracies[key]


def labelled(data: Data) -> Labelled | None:
    """The training data and their labels, of two classes at least; None if there are none."""
    labels = data.train_labels
    return None if labels is None or len(labels.unique()) < 2 else Labelled(data.train, labels)


def flat(x: Tensor) -> Tensor:
    """Observations (n, *event) as features (n, d)."""
    return x.flatten(1)
