"""The Fréchet distance of d = 1024 features against torchmetrics' `_compute_fid`: of covariances, and of samples.

From samples the peer is given the covariances by `torch.cov`, so that both do that part.
torchmetrics itself where it is installed, and otherwise the same two torch operations that are all of its formula.
"""

import math
from collections.abc import Iterator

import torch

from otkit.gaussian import frechet_distance, w2_squared
from tests.benchmarks.paired import Row, paired

try:
    from torchmetrics.image.fid import _compute_fid
except ImportError:

    def _compute_fid(m1: torch.Tensor, C1: torch.Tensor, m2: torch.Tensor, C2: torch.Tensor) -> torch.Tensor:
        cross = torch.linalg.eigvals(C1 @ C2).sqrt().real.sum()
        return (m1 - m2).square().sum() + C1.trace() + C2.trace() - 2 * cross


def features(n: int, d: int, seed: int, least: float) -> torch.Tensor:
    """Samples whose standard deviations fall from 1 to `least`, in directions of their own, the same for all seeds."""
    generator = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    scale = torch.logspace(0, math.log10(least), d, dtype=torch.float64)
    return (torch.randn(n, d, dtype=torch.float64, generator=generator) * scale) @ Q.T + 0.01 * seed


def fid(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return _compute_fid(x.mean(0), torch.cov(x.T), y.mean(0), torch.cov(y.T))


def rows() -> Iterator[Row]:
    d = 1024
    for least in (1.0, 1e-2):
        x, y = features(4 * d, d, 1, least), features(4 * d, d, 2, least)
        moments = [part for samples in (x, y) for part in (samples.mean(0), torch.cov(samples.T))]
        yield from paired(
            f"covariances, d {d}, deviations 1 to {least:g}",
            lambda moments=moments: w2_squared(*moments),
            {"torchmetrics": (lambda moments=moments: _compute_fid(*moments), 2)},
            least=5,
        )
        yield from paired(
            f"{len(x)} and {len(y)} samples, deviations 1 to {least:g}",
            lambda x=x, y=y: frechet_distance(x, y),
            {"torchmetrics": (lambda x=x, y=y: fid(x, y), 2)},
            least=5,
        )
