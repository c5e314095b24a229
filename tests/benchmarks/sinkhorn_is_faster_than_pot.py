"""Sinkhorn with the cost matrix given, to an L1 marginal error of 1e-6, against POT's matrix-vector Sinkhorn.

That one is the fastest of POT's solvers wherever it converges. POT stops on an L2 error: it is given the largest that
leaves an L1 error of 1e-6, and `MOST_SECONDS`, or one and a half times what was asked if that is longer. Where it needs
more than one second it runs once, and its time is the part of that run by which it was there; where it does not arrive,
the ratio is a lower bound.
"""

import time
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import ot

from otkit.empirical._sinkhorn import entropic_potentials
from tests.benchmarks.paired import Row, paired

ASKED = {0.1: {1000: 1 / 1.2, 2000: 1 / 1.2}, 0.02: {1000: 2.5, 2000: 2.5}, 0.004: {1000: 8, 2000: 5}}
KINDS = ("normal d 8", "normal d 2", "weighted d 2", "clusters d 2", "shifted d 8")
TOL = 1e-6
MOST_SECONDS = 15.0


def problem(kind: str, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights a and b, and costs."""
    rng = np.random.default_rng(n)
    d = int(kind[-1])
    x, y = rng.normal(size=(2, n, d))
    a, b = np.full((2, n), 1 / n)
    if kind.startswith("weighted"):
        a, b = rng.random(n) + 0.05, rng.random(n) ** 2 + 0.01
    elif kind.startswith("clusters"):
        centres = 5 * rng.normal(size=(6, d))
        x, y = (centres[rng.integers(6, size=n)] + 0.3 * points for points in (x, y))
    elif kind.startswith("shifted"):
        y = 1.5 * y + 1
    return a / a.sum(), b / b.sum(), ot.dist(x, y)


class Pot(NamedTuple):
    """POT's seconds to an L1 error of `TOL`, whether it arrived, and the L2 error that it has there."""

    seconds: float
    arrived: bool
    stop: float


def pot(a: np.ndarray, b: np.ndarray, M: np.ndarray, reg: float, stop: float, most: int = 300_000) -> tuple:
    return ot.sinkhorn(a, b, M, reg, "sinkhorn", numItermax=most, stopThr=stop, warn=False, log=True)


def l1_error(plan: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum())


def pot_alone(a: np.ndarray, b: np.ndarray, M: np.ndarray, reg: float, limit: float) -> Pot:
    start = time.perf_counter()
    pot(a, b, M, reg, 0.0, 100)
    most = max(100, int(100 * limit / (time.perf_counter() - start)))
    start = time.perf_counter()
    # An L2 error of so much is an L1 error of at most TOL; errors shrink together at the end.
    plan, log = pot(a, b, M, reg, TOL / len(b) ** 0.5, most)
    seconds = time.perf_counter() - start
    reached, errors = l1_error(plan, a, b), np.array(log["err"])
    if not reached <= TOL:
        return Pot(seconds, False, 0.0)
    stop = float(errors[-1]) * TOL / reached
    return Pot(seconds * float(np.argmax(errors <= stop) + 1) / len(errors), True, stop)


def solve(a: np.ndarray, b: np.ndarray, M: np.ndarray, reg: float) -> None:
    if not entropic_potentials(M, a, b, reg, tol=TOL).converged:
        raise RuntimeError("did not converge")


def compared(case: str, a: np.ndarray, b: np.ndarray, M: np.ndarray, reg: float, asked: float) -> list[Row]:
    ours = []
    for _ in range(3):
        start = time.perf_counter()
        solve(a, b, M, reg)
        ours.append(time.perf_counter() - start)
    alone = pot_alone(a, b, M, reg, max(MOST_SECONDS, 1.5 * asked * float(np.median(ours))))
    if not alone.arrived or alone.seconds > 1:
        name = "POT sinkhorn" if alone.arrived else "POT, not there after"
        ratios = alone.seconds / np.sort(ours)[::-1]
        return [Row(case, name, float(np.median(ours)), alone.seconds, *map(float, ratios[[1, 0, 2]]), asked)]
    stop = alone.stop
    while l1_error(pot(a, b, M, reg, stop)[0], a, b) > TOL:
        stop *= 0.95
    other = {"POT sinkhorn": (lambda: pot(a, b, M, reg, stop), asked)}
    return paired(case, lambda: solve(a, b, M, reg), other, seconds=2.0)


def rows() -> Iterator[Row]:
    warnings.simplefilter("ignore")
    for n in (1000, 2000):
        for kind in KINDS:
            a, b, M = problem(kind, n)
            mean = float(M.mean())
            for relative, asked in ASKED.items():
                yield from compared(f"{kind}, n {n}, reg {relative:g}", a, b, M, relative * mean, asked[n])
            if kind == KINDS[0]:
                # Asked is that it converges where POT does not arrive.
                yield from compared(f"{kind}, n {n}, reg 0.001", a, b, M, 1e-3 * mean, 1.0)
            for relative in (1e-3, 1e-4):
                start = time.perf_counter()
                solve(a, b, M, relative * mean)
                seconds = time.perf_counter() - start
                yield Row(f"{kind}, n {n}, reg {relative:g}", "ten seconds", seconds, 10.0, 10 / seconds, 0, 0, 1)
