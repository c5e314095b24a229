"""W2² of paired Gaussians with both gradients, and alone, against POT's closed form and one eigendecomposition.

Ours is the public call, `otkit.gaussian.w2_squared`, validation on, of which the accuracy is tested on a grid. The
environment variable SIZES restricts it to some dimensions: ``SIZES="8 16" python -m tests.benchmarks ...``.
"""

import os
import warnings
from collections.abc import Iterator

import ot
import torch

from otkit.gaussian import w2_squared
from tests.benchmarks.paired import Row, paired

SIZES = {2: 4096, 8: 4096, 16: 2048, 32: 512, 64: 128, 128: 32, 256: 8, 512: 2}
KINDS = ("1e2", "1e4", "one in ten 1e8")


def covariances(n: int, d: int, kind: str, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(n, d, d, dtype=torch.float64, generator=generator))[0]
    cond = torch.full((n, 1), 1e4 if kind == "1e4" else 1e2, dtype=torch.float64)
    if kind == "one in ten 1e8":
        cond[::10] = 1e8
    spectrum = cond ** -torch.rand(n, d, dtype=torch.float64, generator=generator)
    spectrum[:, 0], spectrum[:, -1] = 1, 1 / cond[:, 0]
    A = (Q * spectrum.unsqueeze(-2)) @ Q.mT
    return 0.5 * (A + A.mT)


def differentiated(distance_squared, *inputs: torch.Tensor) -> None:
    distance_squared(*(t.detach().requires_grad_() for t in inputs)).sum().backward()


def pot_squared(m1: torch.Tensor, C1: torch.Tensor, m2: torch.Tensor, C2: torch.Tensor) -> torch.Tensor:
    return ot.gaussian.bures_wasserstein_distance(m1, m2, C1, C2, paired=True) ** 2


def rows() -> Iterator[Row]:
    warnings.simplefilter("ignore")
    chosen = [int(d) for d in os.environ.get("SIZES", "").split()] or SIZES
    for d in chosen:
        n = SIZES[d]
        generator = torch.Generator().manual_seed(d)
        m1, m2 = torch.randn(2, n, d, dtype=torch.float64, generator=generator)
        for kind in KINDS:
            C1, C2 = covariances(n, d, kind, 1), covariances(n, d, kind, 2)
            inputs = (m1, C1, m2, C2)
            yield from paired(
                f"value and gradients, d {d}, {n} pairs, {kind}",
                lambda inputs=inputs: differentiated(w2_squared, *inputs),
                {
                    "POT": (lambda inputs=inputs: differentiated(pot_squared, *inputs), 4 if d <= 64 else 2),
                    "torch.linalg.eigh": (lambda C1=C1: torch.linalg.eigh(C1), 1 if d <= 64 else None),
                },
            )
            yield from paired(
                f"value, d {d}, {n} pairs, {kind}",
                lambda inputs=inputs: w2_squared(*inputs),
                {"POT": (lambda inputs=inputs: pot_squared(*inputs), 2 if d <= 64 else 1.5)},
            )
