"""Sinkhorn with the cost matrix given, to an L1 marginal error of 1e-6, against POT's matrix-vector Sinkhorn.

That one is the fastest of POT's solvers wherever it converges. POT stops on an L2 error: it is given the largest of a
few that still leaves an L1 error of at most 1e-6. At reg = 0.001 and below it does not arrive.
"""

import time
import warnings
from collections.abc import Iterator

import numpy as np
import ot

from otkit.empirical._sinkhorn import entropic_potentials
from tests.benchmarks.paired import Row, paired

ASKED = {0.1: {1000: 1 / 1.2, 2000: 1 / 1.2}, 0.02: {1000: 2.5, 2000: 2.5}, 0.004: {1000: 8, 2000: 5}}
KINDS = ("normal d 8", "normal d 2", "weighted d 2", "clusters d 2", "shifted d 8")
TOL = 1e-6
MOST_SECONDS = 60.0


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


def pot(a: np.ndarray, b: np.ndarray, M: np.ndarray, reg: float, stop: float) -> np.ndarray:
    return np.asarray(ot.sinkhorn(a, b, M, reg, "sinkhorn", numItermax=300_000, stopThr=stop, warn=False))


def stop_for(a: np.ndarray, b: np.ndarray, M: np.ndarray, reg: float) -> tuple[float, float]:
    """The L2 error at which POT may stop, and the seconds it took to."""
    for stop in TOL * 0.5 ** np.arange(1, 13):
        start = time.perf_counter()
        plan = pot(a, b, M, reg, stop)
        if np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum() <= TOL:
            return float(stop), time.perf_counter() - start
    raise RuntimeError("POT does not reach an L1 error of 1e-6")


def solve(a: np.ndarray, b: np.ndarray, M: np.ndarray, reg: float) -> None:
    if not entropic_potentials(M, a, b, reg, tol=TOL).converged:
        raise RuntimeError("did not converge")


def rows() -> Iterator[Row]:
    warnings.simplefilter("ignore")
    for n in (1000, 2000):
        for kind in KINDS:
            a, b, M = problem(kind, n)
            for relative, asked in ASKED.items():
                reg = relative * float(M.mean())
                try:
                    stop, seconds = stop_for(a, b, M, reg)
                except RuntimeError as error:
                    print(f"{kind}, n {n}, reg {relative:g}: {error}")
                    continue
                yield from paired(
                    f"{kind}, n {n}, reg {relative:g}",
                    lambda a=a, b=b, M=M, reg=reg: solve(a, b, M, reg),
                    {"POT sinkhorn": (lambda a=a, b=b, M=M, reg=reg, s=stop: pot(a, b, M, reg, s), asked[n])},
                    seconds=2.0,
                    least=7 if seconds < 1 else 1,
                )
            for relative in (1e-3, 1e-4):
                reg = relative * float(M.mean())
                start = time.perf_counter()
                solve(a, b, M, reg)
                seconds = time.perf_counter() - start
                yield Row(f"{kind}, n {n}, reg {relative:g}", "ten seconds", seconds, 10.0, 10 / seconds, 0, 0, 1)
