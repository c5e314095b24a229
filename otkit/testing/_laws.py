r"""Laws of optimal transport, as functions that take any distance and any data.

Each checks whether a distance obeys it on given measures, and if it does not, raises a `LawViolation` that shows the
inputs, both sides and what rounding explains. A distance is a function

- of points, f(x, y), x (n, d) and y (m, d), or (n,) and (m,) on the line; with a parameter p it is asked for that
  exponent; with parameters a and b it takes weights too;
- or of Gaussians, f(loc1, cov1, loc2, cov2).

A measure is given as an array of points, as a pair (points, weights) or as a pair (loc, cov), in NumPy or in torch; the
distance receives it as it came. All laws share four options:

    p         the exponent: asked for where the distance has a parameter p, else the one that it is taken to have (2)
    power     whether the distance returns W_p^p (False)
    slack     how many units of rounding are granted: `otkit.testing._rounding` derives the unit (16)
    as_array  from a float64 NumPy array to what the distance takes (the kind of array that came)

For all measures :math:`\alpha, \beta, \gamma` on :math:`\mathbb{R}^d`, all p >= 1, and T x = A x + t,

.. math:: W_p(\alpha, \beta) = W_p(\beta, \alpha), \qquad W_p(\alpha, \alpha) = 0, \qquad
          W_p(\alpha, \gamma) \le W_p(\alpha, \beta) + W_p(\beta, \gamma), \qquad
          W_p(T_\# \alpha, T_\# \beta) = s\, W_p(\alpha, \beta) \text{ for } A = s Q ,

.. math:: W_p \le W_q \text{ for } p \le q, \qquad |m_\alpha - m_\beta| \le W_p(\alpha, \beta) \le
          \Bigl(\int |x - y|^p\, d\alpha\, d\beta\Bigr)^{1/p}, \qquad
          W_2(N(m_\alpha, \Sigma_\alpha), N(m_\beta, \Sigma_\beta)) \le W_2(\alpha, \beta) .

References:
    Villani, 2009. *Optimal Transport: Old and New*, definitions 6.1 and 6.4 (a distance), remark 6.6 (the order in p)
    and theorem 4.8 (convexity).
    Gelbrich, 1990. *On a formula for the L2 Wasserstein metric between measures on Euclidean and Hilbert spaces*,
    theorem 2.1.
    Kuhn, Mohajerin Esfahani, Nguyen & Shafieezadeh-Abadeh, 2019. *Wasserstein distributionally robust optimization*,
    theorem 4 (Gelbrich's bound).
    Talagrand, 1996. *Transportation cost for Gaussian and other product measures*, theorem 1.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

import numpy as np

from otkit.testing._measures import (
    AnyMeasure,
    Gaussian,
    Measure,
    costs,
    dimension,
    mixture,
    moments,
    pushforward,
    to_numpy,
    weights_of,
)
from otkit.testing._problems import Problem
from otkit.testing._rounding import rounding
from otkit.testing._trial import Options, Trial

# A metric


def check_symmetry(distance: Callable[..., Any], x: Any, y: Any, **options: Unpack[Options]) -> None:
    """W(x, y) = W(y, x)."""
    trial = Trial("symmetry", distance, options, x=x, y=y)
    x, y = trial.measures
    left, right, unit = trial.distance(x, y), trial.distance(y, x), trial.rounding()
    trial.equal("W(x, y) = W(y, x)", left, right, unit, unit.of(left, right))


def check_identity(distance: Callable[..., Any], x: Any, **options: Unpack[Options]) -> None:
    """W(x, x) = 0."""
    trial = Trial("identity", distance, options, x=x)
    (x,) = trial.measures
    value, unit = trial.distance(x, x), trial.rounding(x)
    trial.equal("W(x, x) = 0", value, 0.0, unit, unit.of(0.0))


def check_triangle_inequality(distance: Callable[..., Any], x: Any, y: Any, z: Any, **options: Unpack[Options]) -> None:
    """W(x, z) <= W(x, y) + W(y, z).

    Example:
        >>> import numpy as np
        >>> x, y, z = np.array([[0.0]]), np.array([[1.0]]), np.array([[2.0]])
        >>> squared = lambda x, y: float(((x - y) ** 2).mean())
        >>> check_triangle_inequality(squared, x, y, z)
        Traceback (most recent call last):
        otkit.testing._violation.LawViolation: <lambda> breaks the law of triangle inequality...
    """
    trial = Trial("triangle inequality", distance, options, x=x, y=y, z=z)
    x, y, z = trial.measures
    direct, first, second = trial.distance(x, z), trial.distance(x, y), trial.distance(y, z)
    unit = trial.rounding()
    trial.at_most("W(x, z) <= W(x, y) + W(y, z)", direct, first + second, unit, unit.of(direct, first, second))


# What moves with the space


def check_translation(distance: Callable[..., Any], x: Any, y: Any, shift: Any, **options: Unpack[Options]) -> None:
    r"""W(x + t, y + t) = W(x, y); and, for p = 2, moving x alone adds what it adds to the means:

    .. math:: W_2^2(x + t, y) = W_2^2(x, y) + |m_x + t - m_y|^2 - |m_x - m_y|^2 .
    """
    trial = Trial("translation", distance, options, x=x, y=y)
    (x, y), t = trial.measures, np.atleast_1d(to_numpy(shift))
    trial.inputs["t"] = t
    eye = np.eye(dimension(x))
    moved_x, moved_y = pushforward(x, eye, t), pushforward(y, eye, t)
    value, moved, unit = trial.distance(x, y), trial.distance(moved_x, moved_y), trial.rounding(moved_x, moved_y)
    trial.equal("W(x + t, y + t) = W(x, y)", moved, value, unit, unit.of(moved, value))
    if trial.p == 2:
        alone, (m1, _), (m2, _) = trial.distance(moved_x, y), moments(x), moments(y)
        expected = value**2 + float(t @ (t + 2 * (m1 - m2)))
        statement = "W2²(x + t, y) = W2²(x, y) + |m_x + t - m_y|² - |m_x - m_y|²"
        trial.equal(statement, alone**2, expected, unit, unit.of_powers(alone, value))


def check_scaling(distance: Callable[..., Any], x: Any, y: Any, scale: float = 2.0, **options: Unpack[Options]) -> None:
    """Scaling both measures by s scales the distance by its absolute value."""
    trial = Trial("scaling", distance, options, x=x, y=y)
    (x, y), d = trial.measures, dimension(trial.measures[0])
    trial.inputs["s"] = scale
    scaled = [pushforward(each, scale * np.eye(d), np.zeros(d)) for each in (x, y)]
    # Each side has the rounding of its own scale.
    before, after = trial.rounding(), rounding(*scaled, p=trial.p, eps=trial.distance.eps, slack=trial.slack)
    value, moved = trial.distance(x, y), trial.distance(scaled[0], scaled[1])
    tolerance = after.of(moved) + abs(scale) * before.of(value)
    trial.equal("W(s x, s y) = |s| W(x, y)", moved, abs(scale) * value, after, tolerance)


def check_rotation(distance: Callable[..., Any], x: Any, y: Any, Q: Any, **options: Unpack[Options]) -> None:
    """W(Q x, Q y) = W(x, y) for orthogonal Q (d, d), reflections among them."""
    trial = Trial("rotation", distance, options, x=x, y=y)
    (x, y), Q = trial.measures, to_numpy(Q)
    trial.inputs["Q"] = Q
    turned = [pushforward(each, Q, np.zeros(len(Q))) for each in (x, y)]
    value, moved, unit = trial.distance(x, y), trial.distance(turned[0], turned[1]), trial.rounding(*turned)
    trial.equal("W(Q x, Q y) = W(x, y)", moved, value, unit, unit.of(moved, value))


# What does not matter: order, splitting, nothing


def check_relabelling(distance: Callable[..., Any], x: Any, y: Any, order: Any, **options: Unpack[Options]) -> None:
    """W(x[order], y) = W(x, y): the points of a measure have no order."""
    trial = Trial("relabelling", distance, options, x=x, y=y)
    (x, y), order = trial.measures, np.asarray(order)
    trial.inputs["order"] = order
    again = Measure(x.points[order], x.weights[order]) if isinstance(x, Measure) else x[order]
    value, moved, unit = trial.distance(x, y), trial.distance(again, y), trial.rounding()
    trial.equal("W(x[order], y) = W(x, y)", moved, value, unit, unit.of(moved, value))


def check_splitting(
    distance: Callable[..., Any], x: Any, y: Any, fraction: float = 0.5, **options: Unpack[Options]
) -> None:
    """An atom of x split in two at the same place, with a fraction of its weight and the rest, is the same measure.

    With fraction 0 a point without mass is added.
    """
    trial = Trial("splitting", distance, options, x=x, y=y)
    (x, y), masses = trial.measures, np.array([fraction, 1 - fraction])
    trial.inputs["fraction"] = fraction
    points, weights = (x.points, x.weights) if isinstance(x, Measure) else (x, weights_of(x))
    split = Measure(np.concatenate([points[:1], points]), np.concatenate([masses * weights[0], weights[1:]]))
    value, moved, unit = trial.distance(x, y), trial.distance(split, y), trial.rounding(split)
    trial.equal("W(x with its first atom split, y) = W(x, y)", moved, value, unit, unit.of(moved, value))


def check_batch(distance: Callable[..., Any], x: Any, y: Any, z: Any, w: Any, **options: Unpack[Options]) -> None:
    """The distance of a batch, [x, z] to [y, w], is the batch of the distances; x, z and y, w of equal sizes."""
    trial = Trial("batch", distance, options, x=x, y=y, z=z, w=w)
    x, y, z, w = trial.measures
    call, unit = trial.distance, trial.rounding()
    alone = [call(x, y), call(z, w)]
    pairs = [call.arguments(x, y), call.arguments(z, w)]
    stacked = [call.as_array(np.stack(parts)) for parts in zip(*(p for p, _ in pairs), strict=True)]
    weights = {name: call.as_array(np.stack([o[name] for _, o in pairs])) for name in pairs[0][1]}
    together = to_numpy(call.call(stacked, weights))
    if together.shape != (2,):
        raise TypeError(f"{call.name} returned shape {together.shape} for a batch of 2; expected (2,)")
    for i, name in enumerate(("W(x, y)", "W(z, w)")):
        value = call.rooted(float(together[i]))
        statement = f"W([x, z], [y, w])[{i}] = {name}"
        trial.equal(statement, value, alone[i], unit, unit.of(value, alone[i]))


# Inequalities


def check_monotone_in_p(
    distance: Callable[..., Any], x: Any, y: Any, exponents: tuple[float, float] = (1, 2), **options: Unpack[Options]
) -> None:
    """W_p(x, y) <= W_q(x, y) for exponents p <= q (Jensen's inequality), for a distance with a parameter p."""
    (p, q), trial = exponents, Trial("monotonicity in p", distance, options, x=x, y=y)
    if not trial.distance.takes_p:
        raise TypeError(f"{trial.distance.name} has no parameter p; expected one")
    x, y = trial.measures
    trial.inputs |= {"p": p, "q": q}
    low, high, units = trial.distance(x, y, p), trial.distance(x, y, q), [trial.rounding(p=e) for e in (p, q)]
    trial.at_most("W_p(x, y) <= W_q(x, y)", low, high, units[1], units[0].of(low) + units[1].of(high))


def check_bounds(distance: Callable[..., Any], x: Any, y: Any, **options: Unpack[Options]) -> None:
    r"""W lies between the distance of the means (Jensen) and the cost of the independent coupling:

    .. math:: |m_x - m_y| \le W_p(x, y) \le \Bigl(\int |x - y|^p\, d\alpha\, d\beta\Bigr)^{1/p} .

    Between Gaussians p is 2.
    """
    trial = Trial("bounds", distance, options, x=x, y=y)
    trial.require_w2_of_gaussians()
    x, y = trial.measures
    (m1, F1), (m2, F2) = moments(x), moments(y)
    value, unit, p = trial.distance(x, y), trial.rounding(), trial.p
    means = float(np.linalg.norm(m1 - m2))
    trial.at_most("|m_x - m_y| <= W(x, y)", means, value, unit, unit.of(means, value))
    if isinstance(x, Gaussian):
        independent = means**2 + float((F1**2).sum() + (F2**2).sum())
    else:
        independent = float(weights_of(x) @ costs(x, y, p) @ weights_of(y))
    above = independent ** (1 / p)
    trial.at_most("W(x, y) <= E[|x - y|^p]^(1/p), independent", value, above, unit, unit.of(value, above))


def check_gelbrich_bound(distance: Callable[..., Any], x: Any, y: Any, **options: Unpack[Options]) -> None:
    r"""The distance of the Gaussians with the moments of x and y, taken with 1/n, is a lower bound for p >= 2:

    .. math:: W_2^2(x, y) \ge |m_x - m_y|^2 + \operatorname{Tr}(\Sigma_x + \Sigma_y) -
              2 \operatorname{Tr}(\Sigma_x^{1/2} \Sigma_y \Sigma_x^{1/2})^{1/2} .

    The trace of the root is the sum of singular values of :math:`G^\top F`, F and G the centred data. Between Gaussians
    it is an equality, and p is 2.
    """
    trial = Trial("Gelbrich bound", distance, options, x=x, y=y)
    trial.require_w2_of_gaussians()
    if trial.p < 2:
        raise ValueError(f"p is {trial.p:g}; the bound holds for p >= 2")
    x, y = trial.measures
    (m1, F), (m2, G) = moments(x), moments(y)
    power = float(((m1 - m2) ** 2).sum() + (F**2).sum() + (G**2).sum() - 2 * np.linalg.norm(G.T @ F, "nuc"))
    bound, value, unit = max(power, 0.0) ** 0.5, trial.distance(x, y), trial.rounding()
    tolerance = trial.rounding(p=2).of(bound) + unit.of(value)
    if isinstance(x, Gaussian):
        trial.equal("W2(x, y) = the closed form", value, bound, unit, tolerance)
    else:
        trial.at_most("W2(Gaussians of the same moments) <= W(x, y)", bound, value, unit, tolerance)


def check_convexity(
    distance: Callable[..., Any], x: Any, y: Any, z: Any, w: Any, weight: float = 0.5, **options: Unpack[Options]
) -> None:
    r"""Joint convexity of the power, with :math:`\lambda` the weight:

    .. math:: W_p^p(\lambda x + (1 - \lambda) z, \lambda y + (1 - \lambda) w) \le
              \lambda W_p^p(x, y) + (1 - \lambda) W_p^p(z, w) .

    For measures with weights these are mixtures; for points without weights, which need equal sizes of x and z and of y
    and w, unions with :math:`\lambda = 1/2`; for Gaussians, p = 2, averages of means and of covariances.
    """
    trial = Trial("convexity", distance, options, x=x, y=y, z=z, w=w)
    trial.require_w2_of_gaussians()
    x, y, z, w = trial.measures
    trial.inputs["weight"] = weight
    left = trial.distance(_mixed(x, z, weight), _mixed(y, w, weight))
    first, second, unit = trial.distance(x, y), trial.distance(z, w), trial.rounding()
    p, tolerance = trial.p, unit.of_powers(left, first, second)
    right = weight * first**p + (1 - weight) * second**p
    trial.at_most(
        "W^p(mixture of x, z; mixture of y, w) <= mixture of W^p(x, y), W^p(z, w)", left**p, right, unit, tolerance
    )


def _mixed(first: Any, second: Any, weight: float) -> AnyMeasure:
    if isinstance(first, Gaussian):
        return Gaussian(*(weight * a + (1 - weight) * b for a, b in zip(first, second, strict=True)))
    if isinstance(first, Measure):
        return mixture(first, second, weight)
    if len(first) != len(second) or weight != 0.5:
        raise ValueError(f"{len(first)} and {len(second)} points, weight {weight:g}; expected equal sizes and 0.5")
    return np.concatenate([first, second])


def check_talagrand(distance: Callable[..., Any], x: Any, **options: Unpack[Options]) -> None:
    r"""½ W2²(x, N(0, I)) <= KL(x ‖ N(0, I)) for a Gaussian x, Talagrand's inequality (infinite at singular ones)."""
    trial = Trial("Talagrand's inequality", distance, options, x=x)
    trial.require_w2_of_gaussians()
    (x,) = trial.measures
    if not isinstance(x, Gaussian):
        raise TypeError("x is a set of points, at infinite KL; expected a Gaussian (loc, cov)")
    d, spectrum = len(x.loc), np.linalg.eigvalsh(x.cov)
    with np.errstate(divide="ignore"):
        divergence = 0.5 * float((x.loc**2).sum() + (spectrum - 1 - np.log(spectrum.clip(0))).sum())
    standard = Gaussian(np.zeros(d), np.eye(d))
    value, unit = trial.distance(x, standard), trial.rounding(standard)
    # An error of eps in the largest eigenvalue moves the logarithm of the smallest by eps times the condition number.
    logarithm = trial.slack * unit.eps * d * float(spectrum[-1]) / float(max(spectrum[0], np.finfo(float).tiny))
    tolerance = 0.5 * unit.of_powers(value) + logarithm
    trial.at_most("½ W2²(x, N(0, I)) <= KL(x ‖ N(0, I))", 0.5 * value**2, divergence, unit, tolerance)


# Known answers


def check_problem(distance: Callable[..., Any], problem: Problem, **options: Unpack[Options]) -> None:
    """The distance of a problem is its answer."""
    trial = Trial("known answers", distance, {**options, "p": problem.p}, x=problem.x, y=problem.y)
    x, y = trial.measures
    value, unit = trial.distance(x, y), trial.rounding()
    tolerance = unit.of(value, problem.value) + problem.error
    trial.equal(f"W(x, y) = the answer ({problem.theorem})", value, problem.value, unit, tolerance)
