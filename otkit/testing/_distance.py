"""How a law calls a function that it knows nothing about."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from otkit.testing._measures import AnyMeasure, Gaussian, Measure, show

AsArray = Callable[[np.ndarray], Any]


class Distance:
    r"""A function as the laws see it: two measures in, the number :math:`W_p` out.

    The function is called as its signature says: f(x, y) on points, with p= where it has a parameter p, with a=
    and b= where it has both, or takes any name; f(loc1, cov1, loc2, cov2) on Gaussians.

    Args:
        function: The distance.
        p: The exponent at which it is called, or which it has.
        power: Whether it returns :math:`W_p^p`.
        as_array: A function from a float64 NumPy array to what it takes; by default the array stays as it is.
    """

    def __init__(
        self, function: Callable[..., Any], *, p: float = 2, power: bool = False, as_array: AsArray | None = None
    ) -> None:
        if not callable(function):
            raise TypeError(f"distance is {function!r} of type {type(function).__name__}; expected a function")
        self.function, self.p, self.power = function, p, power
        self.as_array: AsArray = as_array or (lambda array: array)
        self.name = getattr(function, "__name__", type(function).__name__)
        try:
            names = inspect.signature(function).parameters
        except (TypeError, ValueError):  # builtins have no signature
            names = {}
        self.takes_p = "p" in names
        keywords = any(parameter.kind == parameter.VAR_KEYWORD for parameter in names.values())
        self.takes_weights = keywords or ("a" in names and "b" in names)
        self.eps = machine_epsilon(self.as_array(np.zeros((1, 1))))

    def arguments(self, x: AnyMeasure, y: AnyMeasure) -> tuple[list[Any], dict[str, Any]]:
        """The positional arguments and the weights for two measures, as NumPy arrays."""
        if isinstance(x, Gaussian) or isinstance(y, Gaussian):
            if not (isinstance(x, Gaussian) and isinstance(y, Gaussian)):
                raise TypeError("a Gaussian beside points; expected two measures of one form")
            return [*x, *y], {}
        points = [m.points if isinstance(m, Measure) else m for m in (x, y)]
        weights = {name: m.weights for name, m in (("a", x), ("b", y)) if isinstance(m, Measure)}
        if weights and not self.takes_weights:
            raise TypeError(f"{self.name} has no parameters a and b; expected both for measures with weights")
        return points, weights

    def call(self, arguments: list[Any], options: dict[str, Any], p: float | None = None) -> Any:
        """The function's own result, for arguments already converted."""
        if self.takes_p:
            options = {**options, "p": self.p if p is None else p}
        return self.function(*arguments, **options)

    def __call__(self, x: AnyMeasure, y: AnyMeasure, p: float | None = None) -> float:
        """:math:`W_p(x, y)`, as a number."""
        arguments, options = self.arguments(x, y)
        try:
            result = self.call(
                [self.as_array(part) for part in arguments], {k: self.as_array(w) for k, w in options.items()}, p
            )
        except Exception as error:
            error.add_note(f"raised by {self.name} for\n    x = {show(x)}\n    y = {show(y)}")
            raise
        return self.rooted(to_number(result, self.name), p)

    def rooted(self, value: float, p: float | None = None) -> float:
        """The distance, from what the function returns; a power below zero keeps its sign."""
        if not self.power:
            return value
        return abs(value) ** (1 / (p or self.p)) * (1 if value >= 0 else -1)


def to_number(result: Any, name: str) -> float:
    """One number, from a float, an array or a tensor of one element."""
    # By way of float64, as NumPy has no bfloat16.
    array = np.asarray(result.detach().cpu().double().numpy() if hasattr(result, "detach") else result)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} returned {result!r} of type {type(result).__name__}; expected one number")
    if array.size != 1:
        raise TypeError(
            f"{name} returned an array of shape {array.shape}; expected one number for one pair of measures"
        )
    return float(array.reshape(-1)[0])


def machine_epsilon(array: Any) -> float:
    """The rounding of an array's dtype, by its name, so that torch's and JAX's count too."""
    name = str(getattr(array, "dtype", "float64")).rpartition(".")[-1]
    return float({"float32": 2**-23, "float16": 2**-10, "bfloat16": 2**-7}.get(name, 2**-52))
