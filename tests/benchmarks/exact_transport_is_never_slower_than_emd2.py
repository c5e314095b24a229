"""The exact cost against `ot.emd2`, with its own cost matrix or a given one, and a batch against a loop.

A ratio above one says that ours is faster; at n = 1000 and 2000, costs given, 0.95 is an overhead of 5 %. The
certificate of `solve_matrix`, its plan and its two bounds, is in our time. `exact_transport_of_8000_points` has the
largest.
"""

from collections.abc import Iterator

import numpy as np
import ot
import torch

from otkit.empirical import solve_matrix, transport_cost
from tests.benchmarks.paired import Row, paired

PIVOTS = 10**8
KINDS = ("normal d 8", "normal d 2", "weighted d 2", "clusters d 2")


def problem(kind: str, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points x and y, weights a and b."""
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(2, n, int(kind[-1])))
    a, b = np.full((2, n), 1 / n)
    if kind.startswith("weighted"):
        a, b = rng.random(n) + 0.05, rng.random(n) ** 2 + 0.01
    elif kind.startswith("clusters"):
        centres = 5 * rng.normal(size=(6, x.shape[1]))
        x, y = (centres[rng.integers(6, size=n)] + 0.3 * points for points in (x, y))
    return x, y, a / a.sum(), b / b.sum()


def against_emd2(kind: str, n: int, asked: float, *, from_points: bool = False) -> list[Row]:
    x, y, a, b = problem(kind, n)
    M = ot.dist(x, y)
    few = {"seconds": 3.0 if n <= 2000 else 0.0, "least": 7 if n <= 2000 else 3 if n <= 4000 else 1}
    emd2 = {"ot.emd2": (lambda: ot.emd2(a, b, M, numItermax=PIVOTS), asked)}
    rows = paired(f"costs given, {kind}, n {n}", lambda: solve_matrix(M, a, b), emd2, **few)
    if from_points:
        del M
        other = {"ot.dist, ot.emd2": (lambda: ot.emd2(a, b, ot.dist(x, y), numItermax=PIVOTS), asked)}
        rows += paired(f"points given, {kind}, n {n}", lambda: transport_cost(x, y, a=a, b=b), other, **few)
    return rows


def loop(x: np.ndarray, y: np.ndarray) -> list[float]:
    a = np.full(x.shape[1], 1 / x.shape[1])
    return [ot.emd2(a, a, ot.dist(*pair)) for pair in zip(x, y, strict=True)]


def rows() -> Iterator[Row]:
    for n, asked in ((1000, 0.95), (2000, 0.95), (4000, 1.0)):
        for kind in KINDS:
            yield from against_emd2(kind, n, asked, from_points=n >= 4000 and kind == KINDS[0])
    x, y = np.random.default_rng(0).normal(size=(2, 256, 64, 8))
    asked = 1.6 if torch.get_num_threads() > 1 else None
    yield from paired(
        "256 problems, n 64, d 8", lambda: transport_cost(x, y), {"ot.emd2 in a loop": (lambda: loop(x, y), asked)}
    )
