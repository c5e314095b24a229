"""A law on one set of inputs: what the functions of `otkit.testing._laws` and `_gradients` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

import numpy as np

from otkit.testing._distance import AsArray, Distance
from otkit.testing._measures import AnyMeasure, Gaussian, as_measure
from otkit.testing._rounding import SLACK, Rounding, rounding
from otkit.testing._violation import require_at_most, require_equal


class Options(TypedDict, total=False):
    """What all laws take besides the distance and its measures."""

    p: float
    power: bool
    slack: float
    as_array: AsArray | None


class Trial:
    """One law on one set of inputs: the measures in NumPy, the distance between them, and what rounding does to it."""

    def __init__(self, law: str, distance: Callable[..., Any], options: Options, **measures: Any) -> None:
        first = next(iter(measures.values()))
        as_array = options.get("as_array") or kind_of(first[0] if isinstance(first, tuple) else first)
        self.law, self.p, self.slack = law, float(options.get("p", 2)), float(options.get("slack", SLACK))
        self.distance = Distance(distance, p=self.p, power=options.get("power", False), as_array=as_array)
        self.measures: list[Any] = [as_measure(given, name) for name, given in measures.items()]
        self.inputs: dict[str, Any] = dict(zip(measures, self.measures, strict=True))
        if self.distance.takes_p:
            self.inputs["p"] = self.p

    def rounding(self, *more: AnyMeasure, p: float | None = None) -> Rounding:
        return rounding(*self.measures, *more, p=p or self.p, eps=self.distance.eps, slack=self.slack)

    def equal(self, statement: str, left: float, right: float, rounding: Rounding, tolerance: float) -> None:
        require_equal(self.law, statement, left, right, tolerance, **self._context(rounding))

    def at_most(self, statement: str, left: float, right: float, rounding: Rounding, tolerance: float) -> None:
        require_at_most(self.law, statement, left, right, tolerance, **self._context(rounding))

    def _context(self, derivation: Rounding) -> dict[str, Any]:
        return {"of": self.distance.name, "derivation": derivation, "inputs": self.inputs}

    def require_w2_of_gaussians(self) -> None:
        """Raise where the law is one of second moments, which between Gaussians only p = 2 is about."""
        if isinstance(self.measures[0], Gaussian) and self.p != 2:
            raise ValueError(f"p is {self.p:g}; between Gaussians the law of {self.law} is one of W_2, expected p = 2")


def kind_of(array: Any) -> AsArray:
    """How to make arrays of the kind, dtype and device of this one, without a gradient."""
    if hasattr(array, "detach"):
        return lambda values: array.detach().new_tensor(values)
    dtype = getattr(array, "dtype", np.dtype(float))
    return lambda values: values.astype(dtype)
