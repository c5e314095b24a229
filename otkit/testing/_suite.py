"""All laws that apply to a distance, on examples that Hypothesis finds and shrinks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject, DrawFn, SearchStrategy

from otkit._arguments import require_count
from otkit.testing import _gradients as gradients_of
from otkit.testing import _laws as checks
from otkit.testing._distance import AsArray, Distance
from otkit.testing._measures import AnyMeasure, dimension, points_of
from otkit.testing._problems import problems
from otkit.testing._rounding import SLACK
from otkit.testing._strategies import MAX_POINTS, gaussians, isometries, measures, near, point_clouds, weights
from otkit.testing._violation import LawViolation

DOMAINS: dict[str, Callable[[int, int | None], SearchStrategy[Any]]] = {
    "points": lambda d, n: point_clouds(d, n=n),
    "line": lambda d, n: point_clouds(1, n=n).map(np.ravel),
    "measures": lambda d, n: measures(d, n=n),
    "gaussians": lambda d, n: gaussians(d),
    "diagonal gaussians": lambda d, n: gaussians(d, diagonal=True),
    "degenerate gaussians": lambda d, n: gaussians(d, singular=True),
}
"""What `check_laws` can be asked for: functions from a dimension d, and a number of points n or None, to measures."""

_POINTS = ("points", "line", "measures")
_GAUSSIANS = ("gaussians", "diagonal gaussians", "degenerate gaussians")
_SHIFT = st.integers(-8, 8).map(float)


@dataclass(frozen=True)
class _Ask:
    """What is asked for: the domain, its dimensions and sizes, and the exponents of a distance that takes them."""

    on: str
    dimensions: Sequence[int]
    equal_sizes: bool
    max_points: int
    exponents: Sequence[float]


@st.composite
def _several(draw: DrawFn, ask: _Ask, count: int, equal_sizes: bool = False) -> list[AnyMeasure]:
    """Measures of one and the same dimension, some of them near the one before."""
    d = draw(st.sampled_from(list(ask.dimensions)))
    size = st.integers(1, ask.max_points)
    if ask.equal_sizes or equal_sizes:
        size = st.just(draw(size))
    elif ask.max_points == MAX_POINTS:
        size = st.none()  # the strategies' own, which shrink better
    found: list[Any] = [draw(DOMAINS[ask.on](d, draw(size)))]
    for _ in range(count - 1):
        close = draw(st.sampled_from([False, False, True]))
        found.append(draw(near(found[-1]) if close else DOMAINS[ask.on](d, draw(size))))
    return found


@dataclass(frozen=True)
class Law:
    """A law: how it is checked on examples, and of what.

    Attributes:
        run: The check, a function of drawn data, the ask, a distance and options.
        domains: Where it applies.
        needs: What the distance must have: "p", "batched", "differentiable", an exponent ("p >= 2"),
            "sizes that differ".
    """

    run: Callable[..., None]
    domains: tuple[str, ...] = (*_POINTS, *_GAUSSIANS)
    needs: str = ""


def _with(check: Callable[..., None], count: int, **more: Callable[[list[Any]], SearchStrategy[Any]]) -> Any:
    def run(data: DataObject, ask: _Ask, distance: Callable[..., Any], options: dict[str, Any]) -> None:
        drawn = data.draw(_several(ask, count, equal_sizes=check in (checks.check_convexity, checks.check_batch)))
        named = {name: data.draw(strategy(drawn)) for name, strategy in more.items()}
        check(distance, *drawn, **named, **options)

    return run


def _scaling(data: DataObject, ask: _Ask, distance: Callable[..., Any], options: dict[str, Any]) -> None:
    x, y = data.draw(_several(ask, 2))
    # All, not one drawn: an error of a fixed size shows at one end only, which a search may never draw.
    for scale in (2.0, -1.0, 1e3, 1e-3):
        checks.check_scaling(distance, x, y, scale, **options)


def _monotone(data: DataObject, ask: _Ask, distance: Callable[..., Any], options: dict[str, Any]) -> None:
    x, y = data.draw(_several(ask, 2))
    pair = data.draw(st.sampled_from(list(combinations(sorted(ask.exponents), 2))))
    checks.check_monotone_in_p(distance, x, y, pair, **options)


def _known(data: DataObject, ask: _Ask, distance: Callable[..., Any], options: dict[str, Any]) -> None:
    d = data.draw(st.sampled_from(list(ask.dimensions)))
    problem = data.draw(problems(ask.on, d, p=options["p"], equal_sizes=ask.equal_sizes))
    checks.check_problem(distance, problem, **{key: v for key, v in options.items() if key != "p"})


def _shifts(drawn: list[Any]) -> SearchStrategy[Any]:
    d = dimension(drawn[0])
    return st.lists(_SHIFT, min_size=d, max_size=d).map(np.array)


def _orders(drawn: list[Any]) -> SearchStrategy[Any]:
    return st.permutations(range(len(points_of(drawn[0])))).map(np.array)


_FRACTIONS = st.sampled_from([0.5, 0.0, 0.25])
_GELBRICH = "p >= 2"
_SIZES = "sizes that differ"

LAWS: dict[str, Law] = {
    "identity": Law(_with(checks.check_identity, 1)),
    "symmetry": Law(_with(checks.check_symmetry, 2)),
    "triangle inequality": Law(_with(checks.check_triangle_inequality, 3)),
    "translation": Law(_with(checks.check_translation, 2, shift=_shifts)),
    "scaling": Law(_scaling),
    "rotation": Law(
        _with(checks.check_rotation, 2, Q=lambda drawn: isometries(dimension(drawn[0]))),
        (*_POINTS, "gaussians", "degenerate gaussians"),
    ),
    "relabelling": Law(_with(checks.check_relabelling, 2, order=_orders), _POINTS),
    "splitting": Law(_with(checks.check_splitting, 2, fraction=lambda _: _FRACTIONS), ("measures",), _SIZES),
    "bounds": Law(_with(checks.check_bounds, 2)),
    "monotonicity in p": Law(_monotone, _POINTS, "p"),
    "Gelbrich bound": Law(_with(checks.check_gelbrich_bound, 2), needs=_GELBRICH),
    "convexity": Law(_with(checks.check_convexity, 4)),
    "Talagrand's inequality": Law(_with(checks.check_talagrand, 1), ("gaussians", "diagonal gaussians")),
    "known answers": Law(_known),
    "batch": Law(_with(checks.check_batch, 4), needs="batched"),
    "gradient": Law(_with(gradients_of.check_gradient, 2), needs="differentiable"),
    "gradient in the weights": Law(
        _with(
            gradients_of.check_gradient_in_weights,
            2,
            a=lambda drawn: weights(len(drawn[0].weights)),
            b=lambda drawn: weights(len(drawn[1].weights)),
        ),
        ("measures",),
        "differentiable",
    ),
}
"""The laws that `check_laws` knows, by name."""

_OF_W2 = ("bounds", "Gelbrich bound", "convexity", "Talagrand's inequality", "known answers")
"""Those that have a form between Gaussians for p = 2 only."""


def _laws_on(on: str, p: float) -> list[str]:
    if on not in DOMAINS:
        raise ValueError(f"on is {on!r}; expected one of {', '.join(DOMAINS)}")
    w2 = on not in _GAUSSIANS or p == 2
    return [name for name, law in LAWS.items() if on in law.domains and (w2 or name not in _OF_W2)]


def applicable_laws(
    distance: Callable[..., Any],
    *,
    on: str,
    batched: bool = False,
    differentiable: bool = False,
    p: float = 2,
    equal_sizes: bool = False,
) -> list[str]:
    """The names of the laws that apply to a distance on a domain, of those in `LAWS`; see `check_laws`."""
    known, takes_p = _laws_on(on, p), Distance(distance).takes_p
    has = {
        "": True,
        "p": takes_p,
        "batched": batched,
        "differentiable": differentiable,
        _GELBRICH: takes_p or p >= 2,
        _SIZES: not equal_sizes,  # an atom that is split is one more
    }
    return [name for name in known if has[LAWS[name].needs]]


def find_violation(
    distance: Callable[..., Any],
    law: str,
    *,
    on: str,
    p: float = 2,
    exponents: Sequence[float] = (1.0, 1.5, 2.0, 3.0),
    power: bool = False,
    dimensions: Sequence[int] = (1, 2, 3),
    equal_sizes: bool = False,
    max_points: int = MAX_POINTS,
    as_array: AsArray | None = None,
    slack: float = SLACK,
    max_examples: int | None = None,
    shrink: bool = True,
) -> LawViolation | None:
    """The simplest counterexample to one law that Hypothesis finds, or None.

    Args:
        distance: As in `check_laws`.
        law: A name of `LAWS`.
        on: As in `check_laws`.
        p: As in `check_laws`.
        exponents: The exponents at which a distance of points with a parameter p is checked.
        power: Whether it returns :math:`W_p^p`.
        dimensions: The dimensions d.
        equal_sizes: Whether it needs the same number of points on both sides.
        max_points: The most points of a set; what a distance does to larger ones is not seen.
        as_array: A function from a float64 NumPy array to what it takes, such as torch.as_tensor.
        slack: How many units of rounding are granted.
        max_examples: How many examples are tried; by default those of the Hypothesis profile.
        shrink: Whether to look for the simplest counterexample, which takes seconds, or take the first.

    Returns:
        The violation, not raised, or None where the law held on all examples.

    Raises:
        ValueError: An unknown law or domain, or a law that does not apply on the domain.
        TypeError: A distance without the parameters that the law or the domain needs.
    """
    if law not in (known := _laws_on(on, p)):
        raise ValueError(f"law is {law!r}; expected one of {', '.join(known)}")
    sizes = (1,) if on == "line" else tuple(dimensions), equal_sizes, require_count("max_points", max_points)
    rule, ask = LAWS[law], _Ask(on, *sizes, exponents)
    takes_p = Distance(distance).takes_p and on in _POINTS
    choices = [e for e in exponents if e >= 2 or rule.needs != _GELBRICH] if takes_p else [float(p)]
    if not choices or (rule.needs == "p" and len(exponents) < 2):
        return None  # none of the exponents asks for anything
    exponent = st.sampled_from(choices)
    profile = settings(
        max_examples=max_examples or settings().max_examples,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        print_blob=False,
        phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if shrink else [])],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )

    @profile
    @given(st.data(), exponent)
    def hold(data: DataObject, p: float) -> None:
        rule.run(data, ask, distance, {"p": p, "power": power, "as_array": as_array, "slack": slack})

    try:
        hold()
    except LawViolation as violation:
        # Hypothesis adds how to repeat its own search; the message has the inputs themselves.
        violation.__notes__ = []
        return violation.with_traceback(None)
    return None


def check_laws(
    distance: Callable[..., Any],
    *,
    on: str = "points",
    laws: Iterable[str] | None = None,
    batched: bool = False,
    differentiable: bool = False,
    p: float = 2,
    equal_sizes: bool = False,
    shrink: bool = True,
    **options: Any,
) -> None:
    r"""Hold a distance to every law that applies to it, on examples that Hypothesis looks for.

    Raises the first violation, with its simplest counterexample, and notes which other laws are broken.

    Args:
        distance: A function of points, f(x, y), f(x, y, p), f(x, y, a=, b=) or f(x, y, p, a=, b=), or of Gaussians,
            f(loc1, cov1, loc2, cov2), in NumPy, or in what as_array makes; it returns one number.
        on: Where: "points" (n, d), "line" (n,), "measures" (points with weights), "gaussians", "diagonal gaussians" or
            "degenerate gaussians", which may have eigenvalues of zero.
        laws: Names of `LAWS`, to hold it to these only.
        batched: Whether it takes leading batch dimensions.
        differentiable: Whether it has gradients in torch; give ``as_array=torch.as_tensor`` too.
        p: The exponent of a distance without a parameter p.
        equal_sizes: Whether it needs the same number of points on both sides.
        shrink: Whether to look for the simplest counterexample of the first law that is broken.
        **options: Of `find_violation`: power=True, as_array=torch.as_tensor, dimensions, max_points, max_examples, ...

    Raises:
        LawViolation: A law is broken.
        ValueError: An unknown domain, or laws that do not apply.
        TypeError: A distance without the parameters that the domain needs, or laws that are one string.

    Example:
        >>> from otkit import wasserstein
        >>> def my_w2(x, y):
        ...     return wasserstein(x, y, 2)
        >>> check_laws(my_w2, on="points", max_examples=5)
    """
    if isinstance(laws, str):
        raise TypeError(f"laws is {laws!r}, one name; expected several, as in laws=[{laws!r}]")
    has = {"batched": batched, "differentiable": differentiable, "equal_sizes": equal_sizes}
    found = applicable_laws(distance, on=on, p=p, **has)
    chosen = list(found if laws is None else laws)
    if unknown := set(chosen) - set(found):
        raise ValueError(f"laws {', '.join(map(repr, sorted(unknown)))}; expected some of {', '.join(found)}")
    first, others = None, []
    for law in chosen:
        # One is shown, so one is made simple.
        shown = shrink and first is None
        violation = find_violation(distance, law, on=on, p=p, equal_sizes=equal_sizes, shrink=shown, **options)
        if violation is not None:
            first, others = (violation, others) if first is None else (first, [*others, law])
    if first is not None:
        if others:
            first.add_note(f"It also breaks: {', '.join(others)}.")
        raise first
