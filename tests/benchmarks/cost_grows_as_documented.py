"""How the time of each main function grows with d, n and the batch, beside the exponent that theory gives.

The exponent is the slope of log time against log size over the larger half of the sizes, where fixed costs have faded.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch

from otkit.empirical import sinkhorn_cost, transport_cost
from otkit.gaussian import barycenter, entropic_cost, frechet_distance, transport_map, w2_squared, w2_squared_diagonal


@dataclass(frozen=True)
class Growth:
    """One function against one size.

    Attributes:
        case: The function and what else was held.
        size: The name of what grew.
        sizes: Its values.
        seconds: The median time of one call at each.
        exponent: The slope of log seconds against log size over the larger half.
        theory: The exponent of the leading term.
    """

    case: str
    size: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    exponent: float
    theory: float

    def __str__(self) -> str:
        times = "  ".join(f"{n}: {1e3 * s:.3g} ms" for n, s in zip(self.sizes, self.seconds, strict=True))
        return f"{self.case:<52}{self.size} ^ {self.exponent:.2f} (theory {self.theory:g})   {times}"

    def json(self) -> dict[str, object]:
        return asdict(self)


def growth(
    case: str, size: str, sizes: tuple[int, ...], theory: float, prepare: Callable[[int], Callable[[], object]]
) -> Growth:
    """Time what ``prepare(n)`` gives, for each size."""
    seconds = []
    for n in sizes:
        call = prepare(n)
        call()
        times: list[float] = []
        end = time.perf_counter() + 1
        while len(times) < 3 or time.perf_counter() < end:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        seconds.append(float(np.median(times)))
    half = len(sizes) // 2 + 1
    exponent = float(np.polyfit(np.log(sizes[-half:]), np.log(seconds[-half:]), 1)[0])
    return Growth(case, size, sizes, tuple(seconds), exponent, theory)


def gaussians(n: int, d: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    locs = torch.randn(2, n, d, dtype=torch.float64, generator=generator)
    factors = torch.randn(2, n, d, 2 * d, dtype=torch.float64, generator=generator)
    covs = factors @ factors.mT / (2 * d)
    return locs[0], covs[0], locs[1], covs[1]


def clouds(n: int, d: int, batch: tuple[int, ...] = ()) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, *batch, n, d, dtype=torch.float64, generator=generator)
    return x, y + 1


def rows() -> Iterator[Growth]:
    dimensions = (32, 64, 128, 256, 512, 1024)
    yield growth("w2_squared, one pair", "d", dimensions, 3, lambda d: lambda g=gaussians(1, d): w2_squared(*g))
    for d in (8, 32):
        batches = (16, 64, 256, 1024)
        yield growth(f"w2_squared, d {d}", "batch", batches, 1, lambda n, d=d: lambda g=gaussians(n, d): w2_squared(*g))
    for name, function in (("transport_map", transport_map), ("entropic_cost", lambda *g: entropic_cost(*g, reg=0.1))):
        yield growth(
            f"{name}, one pair", "d", dimensions[:-1], 3, lambda d, f=function: lambda g=gaussians(1, d): f(*g)
        )
    scales = (1_000, 10_000, 100_000, 1_000_000)
    yield growth("w2_squared_diagonal, one pair", "d", scales, 1, _diagonal)
    yield growth(
        "frechet_distance, n 4096", "d", dimensions[:-1], 3, lambda d: lambda c=clouds(4096, d): frechet_distance(*c)
    )
    yield growth(
        "frechet_distance, d 64",
        "n",
        (1024, 4096, 16384, 65536),
        1,
        lambda n: lambda c=clouds(n, 64): frechet_distance(*c),
    )
    yield growth("barycenter of 16", "d", (8, 16, 32, 64), 3, lambda d: lambda g=gaussians(16, d): barycenter(*g[:2]))
    points = (250, 500, 1000, 2000, 4000)
    yield growth("transport_cost, d 8", "n", points, 2, lambda n: lambda c=clouds(n, 8): transport_cost(*c))
    yield growth(
        "transport_cost, n 64, d 8",
        "batch",
        (8, 32, 128),
        1,
        lambda k: lambda c=clouds(64, 8, (k,)): transport_cost(*c),
    )
    yield growth(
        "sinkhorn_cost, d 8, reg 0.8", "n", points, 2, lambda n: lambda c=clouds(n, 8): sinkhorn_cost(*c, reg=0.8)
    )


def _diagonal(d: int) -> Callable[[], object]:
    loc, scale = torch.rand(2, d, dtype=torch.float64)
    return lambda: w2_squared_diagonal(loc, scale, 2 * loc, 2 * scale)
