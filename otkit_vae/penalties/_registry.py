"""Penalties by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from otkit_vae.penalties._interface import LatentPenalty
from otkit_vae.penalties._options import check_options
from otkit_vae.penalties._weights import DEFAULT_WEIGHTS

Penalty = TypeVar("Penalty", bound=type[LatentPenalty])

ESTIMANDS = ("per-sample", "aggregated")
"""What penalties compare with the prior; see `LatentPenalty`."""

_CLASSES: dict[str, type[LatentPenalty]] = {}


def register(name: str) -> Callable[[Penalty], Penalty]:
    """Make a penalty class known under a name.

    Raises:
        ValueError: The name is taken by another class, or the class does not say what its estimand is.
        TypeError: What is registered is not a class derived from `LatentPenalty`.

    Example:
        >>> @register("mean_only")
        ... class MeanOnly(LatentPenalty):
        ...     estimand = "aggregated"
        ...
        ...     def forward(self, posterior, z, prior, *, generator=None):
        ...         return (z.mean(0) - prior.mean).square().sum()
        >>> type(get("mean_only")).__name__
        'MeanOnly'
        >>> del _CLASSES["mean_only"]
    """

    def add(penalty: Penalty) -> Penalty:
        if not (isinstance(penalty, type) and issubclass(penalty, LatentPenalty)):
            raise TypeError(f"register({name!r}) got {penalty!r}; expected a class derived from LatentPenalty")
        known = _CLASSES.get(name)
        # The same class again, as when a notebook cell runs twice, replaces itself.
        if known is not None and _place(known) != _place(penalty):
            raise ValueError(f"name {name!r} is taken by the penalty {_place(known)}; expected a new name")
        estimand = getattr(penalty, "estimand", None)
        if estimand not in ESTIMANDS:  # by it null values are found, of codes or of posteriors
            raise ValueError(f"estimand of {_place(penalty)} is {estimand!r}; expected one of {', '.join(ESTIMANDS)}")
        _CLASSES[name] = penalty
        penalty.name = name
        penalty.default_weight = DEFAULT_WEIGHTS.get(name, penalty.default_weight)
        return penalty

    return add


def get(name: str, **options: Any) -> LatentPenalty:
    """The penalty of that name, made with the given options.

    Raises:
        ValueError: An unknown name (the message lists all names), or an option that is not of the type that the
            penalty's constructor says.
        TypeError: An option that the penalty does not have.
    """
    if name not in _CLASSES:
        raise ValueError(
            f"penalty is {name!r}; expected one of {', '.join(names())}, or from Python one of your own, once its "
            "module has registered it"
        )
    penalty = _CLASSES[name]
    check_options(name, penalty, options)
    return penalty(**options)


def names() -> tuple[str, ...]:
    """The names of all registered penalties, in alphabetical order."""
    return tuple(sorted(_CLASSES))


def _place(penalty: type[LatentPenalty]) -> str:
    """Where a class is written."""
    return f"{penalty.__qualname__} of {penalty.__module__}"
