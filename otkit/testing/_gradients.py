r"""Laws of the gradients of a distance in torch, as functions like those of `otkit.testing._laws`.

References:
    Peyré & Cuturi, 2019. *Computational Optimal Transport*, section 9.1 (potentials as gradients in the weights).
    Feydy et al., 2019. *Interpolating between optimal transport and MMD using Sinkhorn divergences*, theorem 1
    (convexity in each measure).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

import numpy as np

from otkit.testing._distance import Distance, to_number
from otkit.testing._measures import Gaussian, Measure, dimension, to_numpy
from otkit.testing._trial import Options, Trial


def check_gradient(distance: Callable[..., Any], x: Any, y: Any, **options: Unpack[Options]) -> None:
    r"""Euler's identity and translation, for the gradients of a distance in torch.

    W is homogeneous of degree one in the points (W^p of degree p), and does not change when all of them move, so

    .. math:: \langle x, \partial_x W \rangle + \langle y, \partial_y W \rangle = W, \qquad
              \sum_i \partial_{x_i} W + \sum_j \partial_{y_j} W = 0 ,

    and between Gaussians :math:`\langle m, \partial_m W \rangle + 2 \langle \Sigma, \partial_\Sigma W \rangle`, summed
    over both, is W. These hold for every subgradient that an optimal plan gives; a gradient that is NaN, infinite,
    missing (detached) or off by a factor breaks them, and no step size enters.
    """
    trial = Trial("gradient", distance, options, x=x, y=y)
    x, y = trial.measures
    call, unit = trial.distance, trial.rounding()
    arguments, weights = call.arguments(x, y)
    value, gradients = _differentiated(call, arguments, weights, in_weights=False)
    degrees = [1, 2, 1, 2] if isinstance(x, Gaussian) else [1, 1]
    euler = sum(float(k * (a * g).sum()) for k, a, g in zip(degrees, arguments, gradients, strict=True))
    p, distance_value = trial.p, abs(call.rooted(value))
    # The power's own identity is off by its rounding; the root divides that by p W^(p-1).
    tolerance = unit.of_powers(distance_value)
    degree, inner = (p, "W^p") if call.power else (1, "W")
    if not call.power and distance_value > 0:
        tolerance = tolerance / (p * distance_value ** (p - 1)) + unit.of(distance_value)
    statement = f"<x, ∂x {inner}> + <y, ∂y {inner}> = {degree:g} {inner} (Euler)"
    trial.equal(statement, euler, degree * value, unit, degree * tolerance)
    locations = gradients[::2] if isinstance(x, Gaussian) else gradients
    moved = sum(g.reshape(-1, dimension(x)).sum(0) for g in locations)
    # Besides their own rounding, gradients come from differences of the data, which carry that of the data.
    size = sum(float(np.abs(g).sum()) for g in locations)
    data = p * (unit.power / unit.eps) ** ((p - 1) / p)
    if not call.power:
        data = data / (p * distance_value ** (p - 1)) if distance_value > 0 else 1.0
    trial.equal(
        f"Σ ∂x {inner} + Σ ∂y {inner} = 0 (translation)",
        float(np.abs(moved).max()),
        0.0,
        unit,
        trial.slack * unit.eps * (size + data) * sum(a.size for a in arguments),
    )


def check_gradient_in_weights(
    distance: Callable[..., Any], x: Any, y: Any, a: Any, b: Any, **options: Unpack[Options]
) -> None:
    r"""The gradients in the weights are subgradients of the power, which is convex in those of each measure.

    With f the gradient of :math:`W_p^p` in the weights of x, and a' any other weights of the same points with the same
    sum,

    .. math:: W_p^p(a', b) \ge W_p^p(a, b) + \langle f, a' - a \rangle ,

    and the same from a' to a, and for the weights of y. A constant that is added to f changes nothing. Where the cost
    is linear between the two, as between near weights, both are equalities: a gradient that is NaN, detached or off by
    a factor breaks one of them. All optimal potentials obey it, at kinks and at weights of zero too, those of the
    regularised cost and of Sinkhorn divergences among them.

    Args:
        distance: A distance with weights a and b that is differentiable in them.
        x: A measure with weights.
        y: Another one.
        a: Other weights of the points of x, with the same sum.
        b: Other weights of the points of y, with the same sum.
        **options: Those of all laws.

    Raises:
        LawViolation: The gradient is no subgradient.
        TypeError: Points without weights, or Gaussians.
        ValueError: Weights of another shape or sum.

    Example:
        >>> import torch
        >>> from otkit import wasserstein
        >>> points, a, b = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])
        >>> check_gradient_in_weights(wasserstein, (points, a), (points, b), a=[0.9, 0.1], b=[0.3, 0.7])
    """
    trial = Trial("gradient in the weights", distance, options, x=x, y=y)
    x, y = trial.measures
    if not (isinstance(x, Measure) and isinstance(y, Measure)):
        raise TypeError("x and y are not both points with weights; expected pairs (points, weights)")
    call, unit = trial.distance, trial.rounding()
    other_x, other_y = _with_weights("a", a, x, call.eps), _with_weights("b", b, y, call.eps)
    trial.inputs |= {"a": other_x.weights, "b": other_y.weights}

    def at(x: Measure, y: Measure) -> tuple[float, list[np.ndarray]]:
        """The distance, and the gradients of its power."""
        value, gradients = _differentiated(call, *call.arguments(x, y), in_weights=True)
        value = call.rooted(value)
        return value, gradients if call.power else [call.p * value ** (call.p - 1) * g for g in gradients]

    def hold(name: str, side: int, start: tuple[float, list[np.ndarray]], end: float, step: np.ndarray) -> None:
        gradient, rounded = start[1][side], trial.slack * unit.eps * len(step)
        tolerance = unit.of_powers(start[0], end) + rounded * float(np.abs(gradient) @ np.abs(step))
        from_start = start[0] ** call.p + float(gradient @ step)
        trial.at_most(f"W^p + <∂W^p, step> <= W^p after the step, {name}", from_start, end**call.p, unit, tolerance)

    here = at(x, y)
    for side, (name, there, step) in enumerate(
        (("a", at(other_x, y), other_x.weights - x.weights), ("b", at(x, other_y), other_y.weights - y.weights))
    ):
        hold(f"from {name} to {name}'", side, here, there[0], step)
        hold(f"from {name}' to {name}", side, there, here[0], -step)


def _with_weights(name: str, given: Any, measure: Measure, eps: float) -> Measure:
    """The points of a measure with other weights, whose sum may be off by their rounding, and is then made the same."""
    found, known = to_numpy(given), measure.weights
    allowed = max(1e-9, eps * len(known))
    if found.shape != known.shape or not np.isclose(found.sum(), known.sum(), rtol=allowed, atol=0):
        raise ValueError(
            f"{name} has shape {found.shape} and sum {found.sum():.12g}; expected {known.shape} and {known.sum():.12g} "
            "as the weights have that it is to replace"
        )
    return Measure(measure.points, found * (known.sum() / found.sum()))


def _differentiated(
    call: Distance, arguments: list[Any], weights: dict[str, Any], *, in_weights: bool
) -> tuple[float, list[np.ndarray]]:
    """What a distance returns, and its gradients in the arguments or the weights: 0 in what it does not depend on."""
    import torch

    points = [torch.as_tensor(call.as_array(part)).detach().clone() for part in arguments]
    masses = {name: torch.as_tensor(call.as_array(w)).detach().clone() for name, w in weights.items()}
    wanted = list(masses.values()) if in_weights else points
    for part in wanted:
        part.requires_grad_()
    result = call.call(points, masses)
    found = [None] * len(wanted)
    if getattr(result, "requires_grad", False):
        found = torch.autograd.grad(result.sum(), wanted, allow_unused=True)
    gradients = [np.zeros(part.shape) if g is None else to_numpy(g) for g, part in zip(found, wanted, strict=True)]
    return to_number(result, call.name), gradients
