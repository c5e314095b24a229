r"""The entropic dual between points, without the n x m matrix.

Entries of the kernel are computed anew for each product, a tile of rows at a time that fits into a cache. With
potentials f and g as they stand, the sums that a sweep needs are those of the plan itself,

.. math:: r_i = \sum_j b_j e^{(f_i + g_j - M_{ij}) / \varepsilon}, \qquad f_i \leftarrow f_i - \varepsilon \log r_i ,

near 1, so no exponential overflows. For p = 2 the exponent is one matrix product of d + 2 columns,

.. math:: \frac{f_i + g_j - |x_i - y_j|^2}{\varepsilon}
          = \Bigl(\frac{2 x_i}{\varepsilon},\; \frac{f_i - |x_i|^2}{\varepsilon},\; 1\Bigr) \cdot
            \Bigl(y_j,\; 1,\; \frac{g_j - |y_j|^2}{\varepsilon}\Bigr) ,

in float32 as long as its rounding is far below the tolerance; the marginal error of the result is measured in float64
and from differences, and iterations go on there if need be.

The start is the solution between some of the points, extended to all by the soft c-transform. From there, Sinkhorn's
sweep :math:`f \mapsto f + \rho(f)` is accelerated by Anderson's method: of the last few f and residuals ρ, it takes the
affine combination with the smallest residual.

References:
    Peyré & Cuturi, 2019. *Computational Optimal Transport*, section 4.4.
    Feydy, 2020. *Geometric data analysis, beyond convolutions* (sums of kernels by tiles).
    Walker & Ni, 2011. *Anderson acceleration for fixed-point iterations*, section 2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from otkit._arguments import require_count, require_positive
from otkit.empirical._costs import cost_matrix
from otkit.empirical._sinkhorn._potentials import Entropic, entropic_potentials, require_reg_above_rounding
from otkit.empirical._sinkhorn._watch import Progress, Watch

_TILE = 2**19
"""The entries of a tile."""

_SAMPLE = 2048
"""How many points of each measure the start is computed from."""

_MEMORY = 6
"""The steps that Anderson's method remembers."""

_STALLED = 10
"""The iterations without progress after which float32 is left."""

_LARGEST_EXPONENT = 700.0
"""Short of overflow at exp(709)."""


class Measure(NamedTuple):
    """Points (n, d), about a common centre, weights (n,) of sum one and a potential (n,)."""

    points: Tensor
    weights: Tensor
    potential: Tensor


def entropic_potentials_of_points(
    x: np.ndarray | Tensor,
    y: np.ndarray | Tensor,
    a: np.ndarray | Tensor,
    b: np.ndarray | Tensor,
    p: float,
    reg: float,
    *,
    tol: float = 1e-6,
    max_iter: int = 10_000,
    progress: Progress = None,
    symmetric: bool = False,
) -> Entropic:
    r"""The potentials for costs :math:`|x_i - y_j|^p`, in O(n + m) memory.

    Cost: O(nmd) an iteration, with :math:`n m` exponentials twice; some ten to some hundred iterations.

    Args:
        x: The points :math:`x_i`, float64, with shape (n, d).
        y: The points :math:`y_j`, with shape (m, d).
        a: The weights :math:`a_i \ge 0`, with shape (n,).
        b: The weights :math:`b_j \ge 0`, with shape (m,), of the same sum.
        p: The exponent.
        reg: The regularisation :math:`\varepsilon > 0`.
        tol: The L1 error of both marginals, relative to the mass, at which to stop.
        max_iter: The most iterations.
        progress: True for a line on the screen, or a function of the iteration and the marginal error.
        symmetric: Whether the two measures are one and the same; f and g then come out equal.

    Returns:
        The potentials and how good they are. With progress, a KeyboardInterrupt gives the best so far, unconverged.
        Unconverged ones are completed as those of `entropic_potentials`.

    Example:
        >>> x = np.linspace(0, 1, 5)[:, None]
        >>> solved = entropic_potentials_of_points(x, x + 1, np.full(5, 0.2), np.full(5, 0.2), 2, 0.1)
        >>> solved.converged
        True
    """
    x, y, a, b = (torch.as_tensor(part).double() for part in (x, y, a, b))
    reg = require_positive("reg", reg)
    a, b = a / a.sum(), b / b.sum()
    centre = 0.5 * (a @ x + b @ y)
    given = [Measure(points - centre, w, torch.zeros_like(w)) for points, w in ((x, a), (y, b))]
    # Points of weight zero have no part in it, and may be too far for float32.
    rows, columns = a > 0, b > 0
    source, target = (Measure(*(part[held] for part in m)) for m, held in zip(given, (rows, columns), strict=True))
    radius = max(float(torch.linalg.vector_norm(m.points, dim=-1).max()) for m in (source, target))
    require_reg_above_rounding(reg, (2 * radius) ** p)
    # That of |x|² and 2xy beside reg; the points that exchange mass are about as far out.
    rounding = 2 * torch.finfo(torch.float32).eps * radius**p / reg
    # The best potentials so far stay in this list whatever interrupts.
    best = [(np.inf, source, target)]
    with Watch(require_count("max_iter", max_iter), progress) as watch:
        try:
            source, target = _start(source, target, p, reg, watch, symmetric)
            for dtype in (torch.float32, torch.float64) if rounding < 0.25 * tol else (torch.float64,):
                best[0] = (np.inf, source, target)
                iterate = _averaged if symmetric else _anderson
                iterate(best, p, reg, 0.8 * tol if dtype == torch.float32 else tol, dtype, watch)
                _, source, target = best[0]
                if watch.over:
                    break
        except KeyboardInterrupt:
            watch.interrupt()
    error, source, target = _completed(*best[0][1:], p, reg, symmetric) if watch.over else best[0]
    f = _everywhere(given[0], rows, source, target, p, reg)
    g = _everywhere(given[1], columns, target, source, p, reg)
    return Entropic(f, g, watch.n_iter, float(error), bool(error <= tol) and not watch.interrupted)


def _everywhere(given: Measure, held: Tensor, own: Measure, other: Measure, p: float, reg: float) -> np.ndarray:
    """The potential at all points: where there is no weight, the soft c-transform of the other's."""
    f = given.potential
    f[held] = own.potential
    if not held.all():
        rest = Measure(*(part[~held] for part in given))
        f[~held] = _transformed(rest, other, p, reg, torch.float64).potential
    return f.numpy(force=True)


def _start(
    source: Measure, target: Measure, p: float, reg: float, watch: Watch, symmetric: bool
) -> tuple[Measure, Measure]:
    """Potentials from those between samples of the two measures."""
    rng = np.random.default_rng(0)

    def sample(measure: Measure) -> Tensor:
        weights = measure.weights.numpy(force=True)
        chosen = rng.choice(len(weights), min(_SAMPLE, len(weights)), p=weights)
        return measure.points[torch.as_tensor(chosen, device=measure.points.device)]

    x = sample(source)
    y = x if symmetric else sample(target)
    a, b = np.full(len(x), 1 / len(x)), np.full(len(y), 1 / len(y))
    M = cost_matrix(x, y, p).numpy(force=True)
    f, g, *_ = entropic_potentials(M, a, b, reg, tol=1e-2, max_iter=watch.max_iter)
    of_x, of_y = (
        Measure(points, torch.as_tensor(w).to(points), torch.as_tensor(potential).to(points))
        for points, w, potential in ((x, a, f), (y, b, g))
    )
    source = _transformed(source, of_y, p, reg, torch.float64)
    return source, source if symmetric else _transformed(target, of_x, p, reg, torch.float64)


def _anderson(
    best: list[tuple[float, Measure, Measure]], p: float, reg: float, tol: float, dtype: torch.dtype, watch: Watch
) -> None:
    """Sinkhorn's sweeps by Anderson's method, from the best pair of measures and into it."""
    _, source, target = best[0]
    scale = source.weights.sqrt()
    potentials: list[Tensor] = []
    residuals: list[Tensor] = []
    since_best = 0
    while True:
        target = _transformed(target, source, p, reg, dtype)
        swept = _transformed(source, target, p, reg, dtype)
        f, residual = source.potential, swept.potential - source.potential
        error = _marginal_error(source, swept, reg)
        watch.count(1, error)
        too_bold = error > 2 * best[0][0]
        if error < best[0][0]:
            best[0], since_best = (error, source, target), 0
        else:
            since_best += 1
        if best[0][0] <= tol or watch.over or (dtype == torch.float32 and since_best > _STALLED):
            return
        if too_bold:
            # Go on from the best, by a sweep.
            potentials, residuals = [], []
            source = _transformed(best[0][1], best[0][2], p, reg, dtype)
            continue
        potentials, residuals = [*potentials, f][-_MEMORY:], [*residuals, residual][-_MEMORY:]
        change_f, change_r = torch.stack(potentials, 1).diff(dim=1), torch.stack(residuals, 1).diff(dim=1)
        mixed = f + residual
        if change_r.shape[1]:
            # A few columns, which may be dependent: for that torch has a solver on the processor only.
            system = (scale[:, None] * change_r).cpu(), (scale * residual)[:, None].cpu()
            least = torch.linalg.lstsq(*system, driver="gelsd").solution.squeeze(1)
            mixed = mixed - (change_f + change_r) @ least.to(f)
        source = source._replace(potential=mixed)


def _averaged(
    best: list[tuple[float, Measure, Measure]], p: float, reg: float, tol: float, dtype: torch.dtype, watch: Watch
) -> None:
    """The averaged iteration of a measure with itself, as in `symmetric_potential`."""
    _, measure, _ = best[0]
    since_best = 0
    while True:
        swept = _transformed(measure, measure, p, reg, dtype)
        residual = swept.potential - measure.potential
        error = 2 * _marginal_error(measure, swept, reg)
        watch.count(1, error)
        if error < best[0][0]:
            best[0] = (error, measure, measure)
            since_best = 0
        else:
            since_best += 1
        if error <= tol or watch.over or (dtype == torch.float32 and since_best > _STALLED):
            return
        measure = measure._replace(potential=measure.potential + 0.5 * residual)


def _completed(
    source: Measure, target: Measure, p: float, reg: float, symmetric: bool
) -> tuple[float, Measure, Measure]:
    """The marginal error, and the potentials that it is of: a lower bound from any, as in `_transform`."""
    swept = _transformed(source, target, p, reg, torch.float64)
    if symmetric:
        mean = source._replace(potential=0.5 * (source.potential + swept.potential))
        return 2 * _marginal_error(mean, _transformed(mean, mean, p, reg, torch.float64), reg), mean, mean
    return _marginal_error(target, _transformed(target, swept, p, reg, torch.float64), reg), swept, target


def _marginal_error(measure: Measure, swept: Measure, reg: float) -> float:
    """The L1 error of the plan's marginal at a measure, from the soft c-transform there."""
    excess = (measure.potential - swept.potential) / reg
    # Bounded where there is weight; a point of weight 0 has no part in it.
    return float((measure.weights * torch.expm1(excess.clamp_max(_LARGEST_EXPONENT))).abs().sum())


def _transformed(measure: Measure, other: Measure, p: float, reg: float, dtype: torch.dtype) -> Measure:
    """The measure with the soft c-transform of the other's potential, found from the potential that it has."""
    x, _, f = measure
    y, b, g = other
    updated = torch.empty_like(f)
    rows = max(1, _TILE // len(y))
    exponents = _Exponents(y, g, p, reg, dtype)
    weights = b.to(dtype)
    extent = sum(torch.linalg.vector_norm(points, dim=1).max() for points in (x, y))
    flat = bool(extent**p + f.abs().max() + g.abs().max() < 0.5 * reg)
    for tile in (slice(start, start + rows) for start in range(0, len(x), rows)):
        if flat:
            # The logarithm of nearly 1, without the digits of the 1.
            updated[tile] = f[tile] - reg * (exponents(x[tile], f[tile]).expm1_() @ weights).double().log1p()
            continue
        sums = (exponents(x[tile], f[tile]).exp_() @ weights).double()
        logarithms = sums.log()
        # Far from the solution: sums that over- or underflowed, and lost their digits near it.
        lost = ~((sums > 1e-30) & (sums < 1e30))
        if bool(lost.any()):
            far = _Exponents(y, g, p, reg, torch.float64)(x[tile][lost], f[tile][lost])
            logarithms[lost] = torch.logsumexp(far + b.log(), 1)
        updated[tile] = f[tile] - reg * logarithms
    return measure._replace(potential=updated)


class _Exponents:
    """(f_i + g_j - |x_i - y_j|^p) / reg for all j and a tile of rows i."""

    def __init__(self, y: Tensor, g: Tensor, p: float, reg: float, dtype: torch.dtype):
        self.p, self.reg, self.dtype = p, reg, dtype
        self.product = p == 2 and dtype == torch.float32
        if self.product:
            last = (g - y.square().sum(1)) / reg
            self.right = torch.cat([y, torch.ones_like(last)[:, None], last[:, None]], 1).to(dtype).T.contiguous()
        else:
            self.y, self.g = y.to(dtype), (g / reg).to(dtype)

    def __call__(self, x: Tensor, f: Tensor) -> Tensor:
        if self.product:
            middle = (f - x.square().sum(1)) / self.reg
            left = torch.cat([x * (2 / self.reg), middle[:, None], torch.ones_like(middle)[:, None]], 1)
            return left.to(self.dtype) @ self.right
        exponents = cost_matrix(x.to(self.dtype), self.y, self.p).mul_(-1 / self.reg)
        return exponents.add_((f / self.reg).to(self.dtype)[:, None]).add_(self.g)
