"""What is to be known of classes with few observations to train on, or none."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from otkit_vae.data import Data


class Rarest(NamedTuple):
    """The class with the fewest training observations.

    Attributes:
        name: Its name, or its number if classes have no names.
        n: How many observations it has.
    """

    name: str
    n: int


def rarest(data: Data) -> Rarest | None:
    """The class with the fewest training observations, of those that have one; None without labels."""
    if data.train_labels is None:
        return None
    labels, counts = data.train_labels.unique(return_counts=True)
    return Rarest(_names(data, labels[counts.argmin()].reshape(1)), int(counts.min()))


def untrained(data: Data) -> str | None:
    """That classes have held-out observations only, in words; None if none has."""
    if data.train_labels is None or data.held_out_labels is None:
        return None
    labels = data.held_out_labels.unique()
    only = labels[~torch.isin(labels, data.train_labels)]
    if not len(only):
        return None
    return f"no training observation has the label {_names(data, only)}: none is generated, and no classifier finds one"


def rare_classes(data: Data, labelled_per_class: int) -> tuple[str, ...]:
    """What to know of an evaluation that takes so many labelled observations of each class, where some have fewer."""
    least, never = rarest(data), untrained(data)
    notes = () if never is None else (never,)
    if least is None or least.n >= labelled_per_class:
        return notes
    has = f"the class {least.name} has {least.n} training observation{'s' * (least.n > 1)}"
    if least.n < 2:
        return (*notes, f"no augmented training: {has}, and a Gaussian of codes is fitted to two at least")
    return (*notes, f"augmented training: {has}, fewer than the {labelled_per_class} that are labelled of others")


def _names(data: Data, labels: Tensor) -> str:
    return ", ".join(map(str, data.named(labels).tolist()))
