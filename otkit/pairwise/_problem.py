"""From the arguments to what is to be computed: measures of one kind, checked once, and the distance between them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from otkit._arguments import (
    Restore,
    allowance,
    as_tensors,
    require_count,
    require_finite,
    shape,
    working_precision,
)
from otkit.empirical._directions import as_generator, directions_for
from otkit.empirical._measures import SMALLEST_MASS
from otkit.gaussian._checks import require_covariance, require_gaussian
from otkit.pairwise._blocks import BOUNDED, DISTANCES, BetweenPoints, Gaussians, Loop, WithBounds, between_gaussians
from otkit.pairwise._room import require_room_for_measures
from otkit.pairwise._tiles import Block, Problem


def problem_of(
    measures: Any, others: Any, distance: Any, tile: int | None, bounds: bool, options: dict[str, Any]
) -> Problem:
    """The arguments of the public functions, checked."""
    _require_distance(distance, bounds)
    both = [("measures", measures)] if others is None else [("measures", measures), ("others", others)]
    for name, collection in both:
        _require_collection(name, collection)

    restore: Restore | None = None
    device = None
    dtype = np.dtype(np.float64)
    block: Block
    if callable(distance):
        sides = [list(collection) for _, collection in both]
        call = functools.partial(distance, **options) if options else distance
        block = Loop(call, zero_on_diagonal=False, dtype=dtype)
    elif distance == "gaussian_w2":
        if options:
            raise TypeError(f"{', '.join(options)}: not an option of gaussian_w2; expected none")
        read = [_gaussians(name, collection) for name, collection in both]
        sides, (restore, device) = [side for side, *_ in read], _one_kind(read)
        _require_same("dimension", [(n, s.loc.shape[-1], 0.0) for (n, _), s in zip(both, sides, strict=True)])
        block, dtype = between_gaussians, sides[0].loc.dtype
    else:
        read = [_points(name, collection) for name, collection in both]
        sides, (restore, device) = [side for side, *_ in read], _one_kind(read)
        named = [(f"{n}[{k}]", one) for (n, _), side in zip(both, sides, strict=True) for k, one in enumerate(side)]
        first = named[0][1][0]
        _require_same("dimension", [(name, x.shape[-1], 0.0) for name, (x, _) in named])
        # What a distance between the two allows.
        rounding = [allowance(4 * (len(first) + len(x)), restore.eps) for _, (x, _) in named]
        masses = [(name, 1.0 if a is None else float(a.sum(dtype=float))) for name, (_, a) in named]
        _require_same("mass", [(*mass, allowed) for mass, allowed in zip(masses, rounding, strict=True)])
        options = _with_directions(distance, options, first, restore, device)
        dtype = first.dtype
        if bounds:
            dtype, restore = BOUNDED, None
            block = Loop(WithBounds(distance, options), zero_on_diagonal=False, dtype=dtype)
        else:
            block = Loop(BetweenPoints(distance, options), distance != "sinkhorn_cost", dtype)
        # Illegal options are found on one point, before the first tile and before a file is made.
        point = (np.zeros_like(first[:1]), None)
        block([point], [point], False)
    longest = max(len(side) for side in sides)
    return Problem(
        left=sides[0],
        right=None if others is None else sides[1],
        block=block,
        tile=min(32, -(-longest // 8)) if tile is None else require_count("tile", tile),
        dtype=dtype,
        restore=restore,
        device=device,
        inputs=(distance, options),
    )


def _require_distance(distance: Any, bounds: bool) -> None:
    if isinstance(distance, str) and distance not in DISTANCES:
        raise ValueError(f"distance is {distance!r}; expected a function, or one of {', '.join(DISTANCES)}")
    if not isinstance(distance, str) and not callable(distance):
        raise TypeError(f"distance is {distance!r} of type {type(distance).__name__}; expected a name or a function")
    if bounds and distance not in ("wasserstein", "sinkhorn_cost"):
        raise ValueError(f"bounds are those of wasserstein and sinkhorn_cost; got distance = {distance!r}")


def _require_collection(name: str, collection: Any) -> None:
    if not isinstance(collection, Sequence | np.ndarray | torch.Tensor) or isinstance(collection, str):
        raise TypeError(f"{name} is a {type(collection).__name__}; expected a sequence of measures")
    if len(collection) == 0:
        raise ValueError(f"{name} is empty; expected at least one measure")
    require_room_for_measures(name, _nbytes(collection))


def _nbytes(collection: Any) -> int:
    """The size of the arrays of a collection, and of its pairs of them."""
    if isinstance(collection, list | tuple):
        return sum(map(_nbytes, collection))
    return getattr(collection, "nbytes", 0)


def _points(
    name: str, collection: Any
) -> tuple[list[tuple[np.ndarray, np.ndarray | None]], Restore, torch.device | None]:
    """Point sets with their weights or None, checked once here so that no pair need be."""
    sides = []
    for k, measure in enumerate(collection):
        points, weights = measure if isinstance(measure, tuple) and len(measure) == 2 else (measure, None)
        here = f"{name}[{k}]"
        (x, a), restore = as_tensors(**{here: points, f"the weights of {here}": weights},
                                     optional=(f"the weights of {here}",))  # fmt: skip
        _require_no_gradient(here, x, a)
        if x.ndim != 2 or 0 in x.shape:
            raise ValueError(f"{here} has shape {shape(x)}; expected points (n, d), or a tuple of points and weights")
        require_finite(here, x)
        if a is not None:
            if tuple(a.shape) != (len(x),):
                raise ValueError(f"the weights of {here} have shape {shape(a)}; expected ({len(x)},)")
            require_finite(f"the weights of {here}", a)
            if bool((a < 0).any()) or not SMALLEST_MASS < float(a.double().sum()) < 1 / SMALLEST_MASS:
                raise ValueError(f"the weights of {here} must not be negative, and have a positive, finite sum; "
                                 f"got {a.tolist()[:5]} ...")  # fmt: skip
        sides.append(((x.numpy(force=True), None if a is None else a.numpy(force=True)), restore, x.device))
    restore, device = _one_kind(sides)
    return [side for side, *_ in sides], restore, device


def _gaussians(name: str, collection: Any) -> tuple[Gaussians, Restore, torch.device | None]:
    loc_name, cov_name = f"the means of {name}", f"the covariances of {name}"
    if isinstance(collection[0], tuple):
        shapes = [tuple(map(np.shape, pair)) for pair in collection]
        for k, each in enumerate(shapes):
            if len(each) != 2 or each != shapes[0]:
                raise ValueError(f"{name}[{k}] has parts of shapes {', '.join(map(str, each))}, and {name}[0] of "
                                 f"{', '.join(map(str, shapes[0]))}; expected a mean (d,) and a covariance (d, d), of "
                                 "one d for all")  # fmt: skip
        pairs = [as_tensors(**{f"the mean of {name}[{k}]": loc, f"the covariance of {name}[{k}]": cov})
                 for k, (loc, cov) in enumerate(collection)]  # fmt: skip
        restore, _ = _one_kind([(None, restore, None) for _, restore in pairs])
        loc, cov = (torch.stack(part) for part in zip(*(pair for pair, _ in pairs), strict=True))
    elif len(collection) != 2:
        raise ValueError(f"{name} has {len(collection)} parts; expected the pair of means (N, d) and covariances "
                         "(N, d, d), or a sequence of pairs")  # fmt: skip
    else:
        (loc, cov), restore = as_tensors(**{loc_name: collection[0], cov_name: collection[1]})
    _require_no_gradient(name, loc, cov)
    require_gaussian(loc_name, loc, cov_name, cov)
    if loc.ndim != 2 or cov.ndim != 3 or len(loc) != len(cov):
        raise ValueError(f"{loc_name} have shape {shape(loc)} and the covariances {shape(cov)}; expected (N, d) and "
                         "(N, d, d)")  # fmt: skip
    require_finite(loc_name, loc)
    require_covariance(cov_name, cov, restore.eps)
    return Gaussians(loc.numpy(force=True), cov.numpy(force=True)), restore, loc.device


def _one_kind(read: Sequence[tuple[Any, Restore, torch.device | None]]) -> tuple[Restore, torch.device | None]:
    restore, *others = (restore for _, restore, _ in read)
    if any(other != restore for other in others):
        kinds = dict.fromkeys(f"{'torch' if r.to_torch else 'numpy'} {r.dtype}" for r in (restore, *others))
        raise TypeError(f"measures of one kind and dtype expected; got {', '.join(kinds)}")
    return restore, read[0][2] if restore.to_torch else None


def _require_no_gradient(name: str, *tensors: torch.Tensor | None) -> None:
    if any(t is not None and t.requires_grad for t in tensors):
        raise ValueError(f"{name} requires a gradient, and pairwise distances have none; expected {name}.detach()")


def _require_same(what: str, values: Sequence[tuple[str, float, float]]) -> None:
    """Raise unless named values equal the first, each up to what is allowed relative to it."""
    first_name, first, _ = values[0]
    for name, value, allowed in values:
        if abs(value - first) > allowed * first:
            raise ValueError(f"{name} has {what} {value:.12g} but {first_name} has {first:.12g}; expected the same")


def _with_directions(
    distance: str, options: dict[str, Any], points: np.ndarray, restore: Restore, device: torch.device | None
) -> dict[str, Any]:
    """The options with directions given or drawn once, in place of a generator that each process would draw from."""
    options = dict(options)
    if "sliced" not in distance:
        return options
    seed = options.pop("generator", None)
    seed = 0 if seed is None else seed
    source = as_generator(seed)
    if distance == "max_sliced_wasserstein":
        seed = seed if isinstance(seed, int | np.integer) else torch.randint(2**62, (), generator=source)
        return options | {"generator": int(seed)}
    (x, given), _ = as_tensors(
        measures=restore(torch.from_numpy(points).to(device)),
        projections=options.get("projections"),
        optional=("projections",),
    )
    _require_no_gradient("projections", given)
    count = options.pop("n_projections", 256)
    directions, _ = directions_for(working_precision(x), count, source, given, restore, validate=True)
    return options | {"projections": directions.numpy(force=True).astype(points.dtype)}
