r"""Problems with their exact answers, each by a theorem.

A `Problem` is two measures and the distance between them, known without a solver. Most of them come from one theorem:
a coupling that is concentrated on the graph of the gradient of a convex function is optimal for :math:`|x - y|^2`
(Brenier 1991; Knott & Smith 1984), at any number of samples, so

.. math:: W_2^2(\alpha, (\nabla\varphi)_\# \alpha) = \int |x - \nabla\varphi(x)|^2\, d\alpha(x) .

Translations, positive scalings, affine maps with a positive semidefinite matrix, and sums of convex functions of
projections are such gradients.

References:
    Brenier, 1991. *Polar factorization and monotone rearrangement of vector-valued functions*.
    Knott & Smith, 1984. *On the optimal mapping of distributions*.
    Villani, 2009. *Optimal Transport: Old and New*, theorem 5.10 (ii), with particular case 5.3 for this cost.
    Villani, 2003. *Topics in Optimal Transportation*, theorem 2.18 (the line).
    Olkin & Pukelsheim, 1982. *The distance between two random vectors with given dispersion matrices*.
    Janati, Muzellec, Peyré & Cuturi, 2020. *Entropic optimal transport between unbalanced Gaussian measures has a
    closed form*, theorem 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from otkit.testing._measures import AnyMeasure, Gaussian, Measure, points_of, pushforward, show, weights_of
from otkit.testing._strategies import (
    COORDINATES,
    gaussians,
    measures,
    point_clouds,
    psd_matrices,
    rotations,
    spectra,
    vector,
)

_EXPONENTS = st.sampled_from([1.0, 1.5, 2.0, 3.0])


@dataclass(frozen=True)
class Problem:
    """Two measures and the exact distance between them.

    Attributes:
        x: The first measure.
        y: The second, of the same form.
        p: The exponent.
        value: W_p(x, y); with a reg the entropic cost OT_reg(x, y).
        theorem: Why.
        reg: The regularisation of the entropic cost, in squared units of the points; None for a distance.
        error: How far the answer for x and y as given may be from `value`, beyond rounding.
    """

    x: AnyMeasure
    y: AnyMeasure
    p: float
    value: float
    theorem: str
    reg: float | None = None
    error: float = 0.0

    def __repr__(self) -> str:
        named = {name: getattr(self, name) for name in ("p", "value", "theorem", "reg", "error")}
        return f"Problem({show(self.x)}, {show(self.y)}, {', '.join(f'{k}={v!r}' for k, v in named.items())})"


def _one(d: int, weighted: bool, n: int | None = None) -> SearchStrategy[np.ndarray | Measure]:
    return measures(d, n=n) if weighted else point_clouds(d, n=n)


def _of_displacements(x: np.ndarray | Measure, images: np.ndarray, theorem: str) -> Problem:
    """X against its image under an optimal map for p = 2, given at each point."""
    lengths = np.linalg.norm(points_of(x) - images, axis=1)
    y = Measure(images, x.weights) if isinstance(x, Measure) else images
    return Problem(x, y, 2, float(weights_of(x) @ lengths**2) ** 0.5, theorem)


@st.composite
def translations(draw: DrawFn, d: int, *, weighted: bool = False, p: float | None = None) -> Problem:
    """X against x + t: the length of t, for every p."""
    x, p, shift = draw(_one(d, weighted)), p or draw(_EXPONENTS), vector(draw, d)
    y = pushforward(x, np.eye(d), shift)
    return Problem(x, y, p, float(np.linalg.norm(shift)), "a translation: Jensen's inequality on the means")


@st.composite
def scalings(draw: DrawFn, d: int, *, weighted: bool = False) -> Problem:
    """X against c + s (x - c), s >= 0, for p = 2."""
    x, scale = draw(_one(d, weighted)), draw(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]))
    centre = vector(draw, d)
    return _of_displacements(x, centre + scale * (points_of(x) - centre), "a scaling: Brenier, ∇ of s|x - c|²/2")


@st.composite
def relabellings(draw: DrawFn, d: int, *, weighted: bool = False, p: float | None = None) -> Problem:
    """X against its own points in another order: 0."""
    x, p = draw(_one(d, weighted)), p or draw(_EXPONENTS)
    order = np.array(draw(st.permutations(range(len(points_of(x))))))
    y = Measure(x.points[order], x.weights[order]) if isinstance(x, Measure) else x[order]
    return Problem(x, y, p, 0.0, "the same measure, in another order")


@st.composite
def convex_gradients(draw: DrawFn, d: int, *, weighted: bool = False) -> Problem:
    r"""X against :math:`\nabla\varphi(x)`, p = 2, for a smooth convex function.

    .. math:: \varphi(x) = \tfrac12 \langle x, A x \rangle + \sum_k \log(1 + e^{\langle w_k, x \rangle}), \qquad
              \nabla\varphi(x) = A x + \sum_k w_k / (1 + e^{-\langle w_k, x \rangle}) , \qquad A \succeq 0 .
    """
    x, A = draw(_one(d, weighted)), draw(psd_matrices(d, cond=100, singular=True))
    w = np.array(draw(st.lists(st.lists(COORDINATES, min_size=d, max_size=d), max_size=3))).reshape(-1, d)
    points = points_of(x)
    sigmoid = 0.5 * (1 + np.tanh(0.5 * points @ w.T))
    return _of_displacements(x, points @ A + sigmoid @ w, "Brenier: the gradient of a convex function")


@st.composite
def diracs(draw: DrawFn, d: int, *, weighted: bool = False, p: float | None = None) -> Problem:
    """A single point against anything, for every p: there is one coupling."""
    y, p = draw(_one(d, weighted)), p or draw(_EXPONENTS)
    point = vector(draw, d)[None]
    x = Measure(point, np.ones(1)) if isinstance(y, Measure) else point
    power = weights_of(y) @ np.linalg.norm(points_of(y) - point, axis=1) ** p
    return Problem(x, y, p, float(power) ** (1 / p), "a Dirac: the only coupling is the product")


@st.composite
def quantiles(
    draw: DrawFn, *, weighted: bool = False, flat: bool = False, p: float | None = None, equal_sizes: bool = False
) -> Problem:
    r"""Two measures on the line, for every p: :math:`W_p^p = \int_0^1 |F^{-1} - G^{-1}|^p`.

    Args:
        draw: Supplied by Hypothesis.
        weighted: Whether the measures have weights.
        flat: Whether the points have shape (n,) rather than (n, 1).
        p: The exponent; several by default.
        equal_sizes: Whether both have the same number of points.
    """
    n, p = draw(st.integers(1, 6)) if equal_sizes else None, p or draw(_EXPONENTS)
    x, y = draw(_one(1, weighted, n)), draw(_one(1, weighted, n))
    power = _by_quantiles(x, y, p)
    if flat:
        x, y = (Measure(m.points[:, 0], m.weights) if isinstance(m, Measure) else m[:, 0] for m in (x, y))
    return Problem(x, y, p, power ** (1 / p), "the line: the quantile coupling (Villani 2003, theorem 2.18)")


def _by_quantiles(x: np.ndarray | Measure, y: np.ndarray | Measure, p: float) -> float:
    """The north-west corner rule on sorted points: both quantile functions are constant between merged levels."""
    sides = []
    for measure in (x, y):
        points, weights = points_of(measure)[:, 0], weights_of(measure)
        order = np.argsort(points, kind="stable")
        sides.append([points[order], weights[order].copy()])
    (u, a), (v, b) = sides
    i = j = 0
    total = 0.0
    while i < len(u) and j < len(v):
        mass = min(a[i], b[j])
        total += mass * abs(u[i] - v[j]) ** p
        a[i] -= mass
        b[j] -= mass
        i, j = (i + 1, j) if a[i] <= b[j] else (i, j + 1)
    return float(total)


# Gaussians


@st.composite
def commuting_gaussians(draw: DrawFn, d: int, *, singular: bool = False, diagonal: bool = False) -> Problem:
    r"""Covariances with one eigenbasis: :math:`W_2^2 = |m_1 - m_2|^2 + \sum_k (\sqrt{\lambda_k} - \sqrt{\mu_k})^2`."""
    Q = np.eye(d) if diagonal else draw(rotations(d))
    both = []
    for _ in range(2):
        loc, roots = vector(draw, d), np.sqrt(draw(spectra(d, singular=singular)))
        cov = (Q * roots**2) @ Q.T
        both.append((loc, roots, Gaussian(loc, (cov + cov.T) / 2)))
    (m1, s1, x), (m2, s2, y) = both
    power = float(((m1 - m2) ** 2).sum() + ((s1 - s2) ** 2).sum())
    return Problem(x, y, 2, power**0.5, "commuting covariances")


@st.composite
def affine_gaussians(draw: DrawFn, d: int, *, singular: bool = False) -> Problem:
    r""":math:`N(m, \Sigma)` against its image under :math:`x \mapsto T x + t`, T positive semidefinite:
    :math:`W_2^2 = |T m + t - m|^2 + \operatorname{Tr}((T - I) \Sigma (T - I))`.
    """
    x = draw(gaussians(d, cond=100, singular=singular))
    T, shift = draw(psd_matrices(d, cond=100, singular=singular)), vector(draw, d)
    y = pushforward(x, T, shift)
    change = T - np.eye(d)
    power = float(((T @ x.loc + shift - x.loc) ** 2).sum() + np.trace(change @ x.cov @ change))
    return Problem(x, y, 2, power**0.5, "an affine map with T >= 0: Brenier, Olkin & Pukelsheim 1982")


@st.composite
def dirac_gaussians(draw: DrawFn, d: int) -> Problem:
    r"""A point against a Gaussian: :math:`W_2^2 = |m_1 - m_2|^2 + \operatorname{Tr} \Sigma`."""
    y, loc = draw(gaussians(d, singular=True)), vector(draw, d)
    power = float(((loc - y.loc) ** 2).sum() + np.trace(y.cov))
    return Problem(Gaussian(loc, np.zeros((d, d))), y, 2, power**0.5, "a Dirac: the only coupling is the product")


@st.composite
def entropic_gaussians_on_a_grid(draw: DrawFn) -> Problem:
    r"""Two Gaussians on the line as weights on a fine grid, and their entropic cost in closed form.

    With standard deviations :math:`\sigma, \tau` and :math:`s = \mathrm{reg}/2`, where the cost is :math:`|x - y|^2`
    and reg multiplies :math:`\mathrm{KL}(P \mid \alpha \otimes \beta)` (Janati et al. 2020),

    .. math:: \mathrm{OT}_{\mathrm{reg}} = (m_1 - m_2)^2 + \sigma^2 + \tau^2 - q + s + s \log\frac{q + s}{2 s},
              \qquad q = \sqrt{4 \sigma^2 \tau^2 + s^2} .

    The optimal P is a Gaussian density, whose sums over a grid of step h are its integrals up to Poisson's
    :math:`2 e^{-2 \pi^2 w^2 / h^2}`, w its narrowest width: h = 0.7 w leaves 4e-18. Cut off at 7.5 standard deviations,
    the measures miss 1e-13 of their mass, and the cost :math:`\mathrm{error} = 10^{-11}` of its size.
    """
    centres = [draw(st.integers(-2, 2)) for _ in range(2)]
    sigma, tau = (draw(st.sampled_from([1.0, 0.75, 1.5])) for _ in range(2))
    reg = draw(st.sampled_from([2.0, 1.0, 4.0]))
    s = reg / 2
    q = np.sqrt(4 * sigma**2 * tau**2 + s**2)
    # The narrowest width: sqrt of the smallest eigenvalue of P's covariance, of correlation 2 sigma tau / (q + s).
    P = np.array([[sigma**2, (q - s) / 2], [(q - s) / 2, tau**2]])
    step = 0.7 * float(np.sqrt(np.linalg.eigvalsh(P)[0]))
    both = []
    for centre, width in zip(centres, (sigma, tau), strict=True):
        count = int(np.ceil(7.5 * width / step))
        grid = centre + step * np.arange(-count, count + 1)
        weights = np.exp(-0.5 * ((grid - centre) / width) ** 2)
        both.append(Measure(grid[:, None], weights / weights.sum()))
    value = float((centres[0] - centres[1]) ** 2 + sigma**2 + tau**2 - q + s + s * np.log((q + s) / (2 * s)))
    return Problem(both[0], both[1], 2, value, "Janati et al. 2020", reg=reg, error=1e-11 * (1 + value))


def problems(on: str, d: int, *, p: float | None = None, equal_sizes: bool = False) -> SearchStrategy[Problem]:
    """All problems on a domain of `check_laws`, in d dimensions.

    Args:
        on: The domain.
        d: The dimension.
        p: The exponent; several by default. Gaussians have 2.
        equal_sizes: Whether both measures have the same number of points.
    """
    if on == "line":
        return quantiles(flat=True, p=p, equal_sizes=equal_sizes)
    if on in ("points", "measures"):
        weighted = on == "measures"
        found = [kind(d, weighted=weighted, p=p) for kind in (translations, relabellings)]
        if p in (None, 2):
            found += [scalings(d, weighted=weighted), convex_gradients(d, weighted=weighted)]
        if not equal_sizes:
            found.append(diracs(d, weighted=weighted, p=p))
        if d == 1:
            found.append(quantiles(weighted=weighted, p=p, equal_sizes=equal_sizes))
        return st.one_of(*found)
    if on == "diagonal gaussians":
        return commuting_gaussians(d, diagonal=True)
    singular = on == "degenerate gaussians"
    found = [commuting_gaussians(d, singular=singular), affine_gaussians(d, singular=singular)]
    return st.one_of(*found, *([dirac_gaussians(d)] if singular else []))
