"""The problems of a batch: on all threads, unless somebody watches."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from otkit.empirical._measures import in_parallel
from otkit.empirical._sinkhorn._watch import Progress

Result = TypeVar("Result")


def solve_each(
    solve: Callable[..., Result], problems: Sequence[tuple[Any, ...]], method: str, progress: Progress
) -> list[Result]:
    """Solve independent entropic problems; with progress one after the other, as Ctrl-C is heard in one thread only."""
    run = _in_turn if progress else in_parallel
    if method == "auto":
        return run(solve, problems)
    with warnings.catch_warnings():
        # POT warns in its own words; entered here, in one thread, as the filters are global.
        warnings.simplefilter("ignore")
        return run(solve, problems)


def _in_turn(solve: Callable[..., Result], problems: Sequence[tuple[Any, ...]]) -> list[Result]:
    return [solve(*problem) for problem in problems]
