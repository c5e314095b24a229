"""How far one core goes: what was measured at a size that takes seconds, and the arithmetic from there.

Time is scaled by the leading term of the cost, memory counted from the shapes and, for exact transport, the lists of
arcs at their longest. An estimate; where the steps are iterations their number is taken not to grow. The jobs of 20,000
points are done as well, so that the estimate can be held against them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import ClassVar

import torch

from otkit import empirical, gaussian
from otkit.empirical._simplex import BYTES_A_POINT
from tests.benchmarks.cost_grows_as_documented import clouds, gaussians

FAR, MILLION, BILLION = 20_000, 10**6, 10**9


@dataclass(frozen=True)
class Far:
    """A large job, by a small one.

    Attributes:
        case: The job.
        measured: What was measured instead.
        measured_seconds: How long it took.
        growth: By which term time is scaled.
        far_seconds: The time of the job on one core.
        far_bytes: The memory of its data, its result and its lists.
    """

    case: str
    measured: str
    measured_seconds: float
    growth: str
    far_seconds: float
    far_bytes: float

    HEAD: ClassVar[str] = ""

    def __str__(self) -> str:
        return (
            f"{self.case:<48}{self.measured:<18}{self.measured_seconds:8.3f} s  by {self.growth:<10}"
            f"{self.far_seconds:12.3g} s {self.far_bytes / 1e9:12.3g} GB"
        )

    def json(self) -> dict[str, object]:
        return asdict(self)


def median_of_three(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return sorted(times)[1]


def once(function: Callable[..., object], n: int) -> float:
    points = clouds(n, 8)
    start = time.perf_counter()
    function(*points)
    return time.perf_counter() - start


def rows() -> Iterator[Far]:
    d, n = 32, 4096
    g = gaussians(n, d)
    seconds = median_of_three(lambda: gaussian.w2_squared(*g))
    data = MILLION * 2 * (d + d * d) * 8
    yield Far("W2 of a million pairs of Gaussians, d 32", f"{n} pairs", seconds, "n", seconds * MILLION / n, data)

    n = 200
    seconds = median_of_three(lambda: gaussian.pairwise_w2(g[0][:n], g[1][:n]))
    for many, name in ((10_000, "ten thousand"), (MILLION, "a million")):
        scale, memory = (many / n) ** 2, many * (d + d * d) * 8 + many**2 * 8
        yield Far(f"all pairs of {name} Gaussians, d 32", f"{n} of them", seconds, "n²", seconds * scale, memory)

    n = MILLION
    x, y = torch.randn(2, n, dtype=torch.float64)
    seconds = median_of_three(lambda: empirical.wasserstein_1d(x, y))
    scale = BILLION * math.log(BILLION) / (n * math.log(n))
    yield Far("a billion points on the line", f"{n} points", seconds, "n log n", seconds * scale, 2 * BILLION * 8)

    n = 20_000
    points = clouds(n, 8)
    seconds = median_of_three(lambda: empirical.sliced_wasserstein(*points))
    scale = BILLION * math.log(BILLION) / (n * math.log(n))
    yield Far("a billion points, sliced, d 8", f"{n} points", seconds, "n log n", seconds * scale, 2 * BILLION * 8 * 8)

    seconds = median_of_three(lambda: gaussian.frechet_distance(*points))
    yield Far("their Fréchet distance, d 8", f"{n} points", seconds, "n", seconds * BILLION / n, 2 * BILLION * 8 * 8)

    # The costs of the small problem are stored as little as those of the large one: the same method, and one law.
    for name, function, n in (
        ("exactly", empirical.transport_cost, 12_000),
        ("by Sinkhorn", lambda *c: empirical.sinkhorn_cost(*c, reg=0.8), 8200),
    ):
        lists = BYTES_A_POINT if name == "exactly" else 0
        size = {many: 2 * many * (8 * 8 + lists) for many in (FAR, BILLION)}
        seconds = once(function, n)
        scaled = seconds * (FAR / n) ** 2
        yield Far(f"{FAR:,} points {name}, d 8", f"{n} points", seconds, "n²", scaled, size[FAR])
        seconds = once(function, FAR)
        yield Far(f"{FAR:,} points {name}, measured", "itself", seconds, "–", seconds, size[FAR])
        scaled = seconds * (BILLION / FAR) ** 2
        yield Far(f"a billion points {name}, d 8", f"{FAR} points", seconds, "n²", scaled, size[BILLION])

    n, batches = 512, 1000
    x, y = clouds(n, 8)
    seconds = median_of_three(lambda: empirical.transport_cost(x, y))
    yield Far(
        "mean of 1000 exact costs of 512 points, d 8", "one of them", seconds, "number", seconds * batches, 2 * n * 64
    )
