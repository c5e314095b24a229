"""How the time of each main function grows with d, n and the batch, beside the exponent that theory gives.

The exponent is the slope of log time against log size over the larger half of the sizes; beside it stands that between
the last two alone, where fixed costs have faded most. Theory is the leading term at these sizes: of the worst case for
the network simplex, of an iteration for what iterates. Rows in brackets are what the others are made of, and the
numbers of their iterations: they say why a row is not as steep as theory.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import ClassVar
from unittest.mock import patch

import numpy as np
import ot
import torch
from torch.distributions import Independent, Normal

from otkit import empirical, gaussian, linalg
from otkit_vae import penalties
from tests.benchmarks.recorded import slope_at_the_end


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
        unit: What is counted, if not seconds.
    """

    case: str
    size: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    exponent: float
    theory: float
    unit: str = "seconds"

    HEAD: ClassVar[str] = f"{'':<56}measured exponent, at the end   time of a call at each size"

    def __str__(self) -> str:
        shown = (f"{1e3 * s:.3g} ms" if self.unit == "seconds" else f"{s:.0f}" for s in self.seconds)
        times = "  ".join(f"{n}: {text}" for n, text in zip(self.sizes, shown, strict=True))
        last = slope_at_the_end(self.sizes, self.seconds)
        return f"{self.case:<56}{self.size} ^ {self.exponent:.2f}, {last:.2f} (theory {self.theory:g})   {times}"

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
        end = time.perf_counter() + 0.5
        while len(times) < 3 or time.perf_counter() < end:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        seconds.append(float(np.median(times)))
    return fitted(case, size, sizes, tuple(seconds), theory)


def fitted(
    case: str, size: str, sizes: tuple[int, ...], counts: tuple[float, ...], theory: float, unit: str = "seconds"
) -> Growth:
    half = len(sizes) // 2 + 1
    exponent = float(np.polyfit(np.log(sizes[-half:]), np.log(counts[-half:]), 1)[0])
    return Growth(case, size, sizes, counts, exponent, theory, unit)


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


def differentiated(function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> Callable[[], object]:
    leaves = [t.requires_grad_() for t in inputs]
    return lambda: torch.autograd.grad(function(*leaves).sum(), leaves)


def rows() -> Iterator[Growth]:
    yield from in_dimension()
    yield from in_number_of_gaussians()
    yield from in_points()
    yield from in_batch()


def in_dimension() -> Iterator[Growth]:
    to_1024, to_512 = (32, 64, 128, 256, 512, 1024), (32, 64, 128, 256, 512)
    for name, function in (
        ("(a matrix product)", lambda A: A @ A),
        ("(torch.linalg.cholesky)", torch.linalg.cholesky),
        ("(torch.linalg.eigh)", torch.linalg.eigh),
        ("(torch.linalg.svd)", torch.linalg.svd),
        ("sqrtm", linalg.sqrtm),
        ("inv_sqrtm", linalg.inv_sqrtm),
        ("polar", linalg.polar),
    ):
        yield growth(name, "d", to_512, 3, lambda d, f=function: lambda A=gaussians(1, d)[1]: f(A))
    yield growth("w2_squared", "d", to_1024, 3, lambda d: lambda g=gaussians(1, d): gaussian.w2_squared(*g))
    yield growth(
        "w2_squared and gradients", "d", to_1024, 3, lambda d: differentiated(gaussian.w2_squared, *gaussians(1, d))
    )
    yield growth("w2_squared_diagonal", "d", (1_000, 10_000, 100_000, 1_000_000), 1, _diagonal)
    yield growth("w2_squared_from_factors, 16 columns", "d", (1_000, 10_000, 100_000), 1, _factors)
    for name, function in (
        ("transport_map", gaussian.transport_map),
        ("geodesic", lambda *g: gaussian.geodesic(*g, 0.5)),
        ("entropic_cost", lambda *g: gaussian.entropic_cost(*g, reg=0.1)),
        ("sinkhorn_divergence of Gaussians", lambda *g: gaussian.sinkhorn_divergence(*g, reg=0.1)),
    ):
        yield growth(name, "d", to_512, 3, lambda d, f=function: lambda g=gaussians(1, d): f(*g))
    small = (8, 16, 32, 64, 128)
    yield growth("barycenter of 16", "d", small, 3, lambda d: lambda g=gaussians(16, d): gaussian.barycenter(*g[:2]))
    counts = tuple(map(_iterations_of_barycenter, small))
    yield fitted("(barycenter of 16: iterations)", "d", small, counts, 0, "iterations")
    yield growth(
        "frechet_distance, n 4096",
        "d",
        to_512,
        2,
        lambda d: lambda c=clouds(4096, d): gaussian.frechet_distance(*c),
    )
    yield growth("fit, n 4096", "d", to_512, 2, lambda d: lambda c=clouds(4096, d): gaussian.fit(c[0]))


def in_number_of_gaussians() -> Iterator[Growth]:
    for d in (8, 32):
        yield growth(
            f"w2_squared, d {d}",
            "pairs",
            (16, 64, 256, 1024, 4096, 16384),
            1,
            lambda n, d=d: lambda g=gaussians(n, d): gaussian.w2_squared(*g),
        )
    lists = (25, 50, 100, 200, 400)
    yield growth(
        "pairwise_w2 of one list, d 8", "n", lists, 2, lambda n: lambda g=gaussians(n, 8): gaussian.pairwise_w2(*g[:2])
    )
    yield growth("mixture_w2, d 8", "components", lists, 2, _mixtures)


def in_points() -> Iterator[Growth]:
    lines, many, few = (10_000, 100_000, 1_000_000), (1_000, 10_000, 100_000), (250, 500, 1000, 2000, 4000)
    yield growth("wasserstein_1d", "n", lines, 1, lambda n: lambda c=_line(n): empirical.wasserstein_1d(*c))
    yield growth(
        "wasserstein_1d_to_normal", "n", lines, 1, lambda n: lambda c=_line(n): empirical.wasserstein_1d_to_normal(c[0])
    )
    yield growth(
        "sliced_wasserstein, d 8", "n", many, 1, lambda n: lambda c=clouds(n, 8): empirical.sliced_wasserstein(*c)
    )
    yield growth(
        "sliced_wasserstein_to_normal, d 8",
        "n",
        many,
        1,
        lambda n: lambda c=clouds(n, 8): empirical.sliced_wasserstein_to_normal(c[0]),
    )
    yield growth(
        "max_sliced_wasserstein, d 8",
        "n",
        (1_000, 4_000, 16_000),
        1,
        lambda n: lambda c=clouds(n, 8): empirical.max_sliced_wasserstein(*c),
    )
    yield growth(
        "frechet_distance, d 64",
        "n",
        (1024, 4096, 16384, 65536),
        1,
        lambda n: lambda c=clouds(n, 64): gaussian.frechet_distance(*c),
    )
    yield growth("transport_cost, d 8", "n", few, 3, lambda n: lambda c=clouds(n, 8): empirical.transport_cost(*c))
    yield growth("(ot.emd2, d 8)", "n", few, 3, _emd2)
    for name, function in (
        ("sinkhorn_cost", empirical.sinkhorn_cost),
        ("sinkhorn_divergence", empirical.sinkhorn_divergence),
    ):
        yield growth(
            f"{name}, d 8, reg 0.8", "n", few[:-1], 2, lambda n, f=function: lambda c=clouds(n, 8): f(*c, reg=0.8)
        )
    counts = tuple(float(empirical.solve(*clouds(n, 8), reg=0.8).n_iter) for n in few[:-1])
    yield fitted("(sinkhorn_cost, d 8, reg 0.8: iterations)", "n", few[:-1], counts, 0, "iterations")
    inverses = (1, 4, 16, 64, 256)
    yield growth(
        "sinkhorn_cost, n 500, d 8",
        "1 / reg",
        inverses,
        1,
        lambda k: lambda c=clouds(500, 8): empirical.sinkhorn_cost(*c, reg=1 / k),
    )
    counts = tuple(float(empirical.solve(*clouds(500, 8), reg=1 / k).n_iter) for k in inverses)
    yield fitted("(sinkhorn_cost, n 500, d 8: iterations)", "1 / reg", inverses, counts, 1, "iterations")


def in_batch() -> Iterator[Growth]:
    yield growth(
        "transport_cost, n 64, d 8",
        "problems",
        (8, 32, 128),
        1,
        lambda k: lambda c=clouds(64, 8, (k,)): empirical.transport_cost(*c),
    )
    theory = {"kl": 1, "gaussian_w2": 1, "aggregated_gaussian_w2": 1, "sliced": 1, "max_sliced": 1, "mmd": 2}
    theory |= {"cramer_wold": 2, "wasserstein": 3, "sinkhorn": 2}
    prior = Independent(Normal(torch.zeros(8), torch.ones(8)), 1)
    for name, exponent in theory.items():
        penalty, sizes = penalties.get(name), (64, 256, 1024, 4096, 16384) if exponent == 1 else (64, 256, 1024)

        def prepare(n: int, penalty: penalties.LatentPenalty = penalty) -> Callable[[], object]:
            loc = torch.randn(n, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
            posterior = Independent(Normal(loc, torch.full_like(loc, 0.5)), 1)
            z, seed = posterior.rsample(), torch.Generator()
            return lambda: torch.autograd.grad(penalty(posterior, z, prior, generator=seed), loc, retain_graph=True)

        yield growth(f"penalty {name} and its gradient, d 8", "batch", sizes, exponent, prepare)


def _diagonal(d: int) -> Callable[[], object]:
    loc, scale = torch.rand(2, d, dtype=torch.float64)
    return lambda: gaussian.w2_squared_diagonal(loc, scale, 2 * loc, 2 * scale)


def _factors(d: int) -> Callable[[], object]:
    loc, (F, G) = torch.zeros(d, dtype=torch.float64), torch.rand(2, d, 16, dtype=torch.float64)
    return lambda: gaussian.w2_squared_from_factors(loc, F, loc, G)


def _iterations_of_barycenter(d: int) -> float:
    # A singular value decomposition an iteration, and no other.
    locs, covs, *_ = gaussians(16, d)
    with patch.object(torch.linalg, "svd", wraps=torch.linalg.svd) as decomposed:
        gaussian.barycenter(locs, covs)
    return float(decomposed.call_count)


def _emd2(n: int) -> Callable[[], object]:
    x, y = (t.numpy() for t in clouds(n, 8))
    weights = np.full(n, 1 / n)
    return lambda: ot.emd2(weights, weights, ot.dist(x, y), numItermax=10**8)


def _mixtures(k: int) -> Callable[[], object]:
    m1, C1, m2, C2 = gaussians(k, 8)
    weights = torch.full((k,), 1 / k, dtype=torch.float64)
    return lambda: gaussian.mixture_w2(weights, m1, C1, weights, m2, C2)


def _line(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = clouds(n, 1)
    return x[:, 0], y[:, 0]
