r"""The squared maximum mean discrepancy between codes and prior, by an unbiased estimate.

For a kernel k,

.. math:: \mathrm{MMD}^2(q, p) = E\,k(z, z') - 2\, E\,k(z, y) + E\,k(y, y'), \qquad z, z' \sim q,\; y, y' \sim p

is a squared distance for the kernels here, and averages over pairs of *different* points estimate it without bias (a
U-statistic): the null value is 0, and a value can be negative. Each kernel is a sum over the scales :math:`c`; with
:math:`v = \operatorname{Tr} \Sigma_p`, which is d for N(0, I),

- "imq", the inverse multiquadric :math:`k(x, y) = \sum_c \frac{2 v c}{2 v c + \|x - y\|^2}`, with a sample of the
  prior for y. Its tails are heavy: codes far from the prior still feel it;
- "gaussian", :math:`k(x, y) = \sum_c e^{-\|x - y\|^2 / 2h}`, :math:`h = v c`, whose expectations over a Gaussian prior
  :math:`N(m, \Sigma)` are known, so that the prior adds no noise,

.. math:: E_y\, k(z, y) = \Bigl|I + \frac{\Sigma}{h}\Bigr|^{-1/2}
          e^{-\frac12 (z - m)^\top (\Sigma + h I)^{-1} (z - m)}, \qquad
          E_{y, y'}\, k(y, y') = \Bigl|I + \frac{2 \Sigma}{h}\Bigr|^{-1/2} ,

for N(0, I) :math:`(h/(h+1))^{d/2} e^{-\|z\|^2 / 2(h + 1)}` and :math:`(h/(h+2))^{d/2}`.

References:
    Gretton et al., 2012. *A kernel two-sample test*, eq. (3) (the unbiased estimate).
    Tolstikhin, Bousquet, Gelly & Schölkopf, 2018. *Wasserstein auto-encoders*, algorithm 2 (WAE-MMD) and
    section 4 (the multiquadric).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from otkit._derivatives import attach
from otkit_vae.distributions import GaussianForm, check_variance, require_gaussian_form
from otkit_vae.penalties._interface import AggregatedPenalty
from otkit_vae.penalties._registry import register
from otkit_vae.precision import single
from otkit_vae.sampling import sample

SCALES = {"imq": (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0), "gaussian": (0.2, 1.0, 5.0)}


@register("mmd")
class MMD(AggregatedPenalty):
    """MMD² between the codes of the batch and the prior, aggregated.

    A number without units. A second derivative with the kernel "imq" raises a RuntimeError.

    Args:
        kernel: "imq" or "gaussian".
        scales: The scales c, relative to the squared size of the prior; the kernel's own by default.
    """

    known_null = 0.0

    def __init__(self, kernel: Literal["imq", "gaussian"] = "imq", scales: Sequence[float] | None = None):
        super().__init__()
        if kernel not in SCALES:
            raise ValueError(f"kernel is {kernel!r}; expected one of {', '.join(SCALES)}")
        self.kernel, self.scales = kernel, tuple(SCALES[kernel] if scales is None else scales)
        if not self.scales or not all(0 < c < float("inf") for c in self.scales):
            raise ValueError(f"scales is {scales}; expected at least one finite number, all > 0")

    def check(self, posterior: Distribution, prior: Distribution) -> None:  # noqa: D102
        if self.kernel == "gaussian":
            self._form(prior)
        check_variance(self.name, prior)

    def compare(self, statistics: Tensor, prior: Distribution, generator: Generator | None) -> Tensor:  # noqa: D102
        imq = self.kernel == "imq"
        squared = self._multiquadric(statistics, prior, generator) if imq else self._gaussian(statistics, prior)
        return squared.to(statistics.dtype)

    def _multiquadric(self, z: Tensor, prior: Distribution, generator: Generator | None) -> Tensor:
        z, y = single(z), single(sample(prior, len(z), generator))
        size = 2 * prior.variance.double().sum()
        # Differences, without the products that lose the digits of points far from the origin.
        cross = torch.cdist(z, y, compute_mode="donot_use_mm_for_euclid_dist")
        of_z, of_y, between = (mean_multiquadric(r, size, self.scales) for r in (torch.pdist(z), torch.pdist(y), cross))
        return of_z + of_y - 2 * between

    def _gaussian(self, z: Tensor, prior: Distribution) -> Tensor:
        form = self._form(prior)
        own = squares_of_pairs(z)
        if form.is_diagonal:
            return self._gaussian_diagonal(z.double() - form.loc.double(), form.scale.double().square(), own)
        centred, factor = z.double() - form.loc.double(), form.factor.double()
        cov = factor @ factor.mT
        # All scales at once: h is (S, 1, 1).
        h = cov.diagonal().sum() * cov.new_tensor(self.scales)[:, None, None]
        eye = torch.eye(len(cov), dtype=cov.dtype, device=cov.device)
        one, two = torch.linalg.cholesky(torch.stack([eye + cov / h, eye + 2 * cov / h]))
        far = torch.linalg.solve_triangular(one, centred.mT, upper=False).square().sum(-2, keepdim=True) / h
        to_prior = torch.exp(-far / 2).mean((-2, -1)) / one.diagonal(dim1=-2, dim2=-1).prod(-1)
        own_of_prior = 1 / two.diagonal(dim1=-2, dim2=-1).prod(-1)
        own = torch.exp(own / (-2 * h.squeeze(-1))).mean(-1)
        return (own - 2 * to_prior + own_of_prior).sum()

    def _gaussian_diagonal(self, centred: Tensor, variances: Tensor, own: Tensor) -> Tensor:
        # The same, without matrices: h is (S, 1).
        h = variances.sum() * variances.new_tensor(self.scales)[:, None]
        ratios = variances / h
        far = (h + variances).reciprocal() @ centred.square().mT
        to_prior = torch.exp(far / -2).mean(-1) * (1 + ratios).prod(-1).rsqrt()
        own_of_prior = (1 + 2 * ratios).prod(-1).rsqrt()
        return (torch.exp(own / (-2 * h)).mean(-1) - 2 * to_prior + own_of_prior).sum()

    def _form(self, prior: Distribution) -> GaussianForm:
        expected = "a Gaussian (kernel 'imq' takes any prior with a variance)"
        return require_gaussian_form("prior", prior, f"{self.name} with kernel 'gaussian'", expected)


def squares_of_pairs(x: Tensor) -> Tensor:
    """The squared distances of the n(n - 1)/2 pairs of different points of x (n, d): what a U-statistic averages over.

    The derivative is 0 where two points coincide, as that of the square is.
    """
    return torch.pdist(single(x)).square().double()


BLOCK = 8192
"""How many distances a kernel is computed for at a time: what fits into a core's cache with one number a scale."""


def mean_multiquadric(distances: Tensor, size: Tensor, scales: Sequence[float]) -> Tensor:
    r"""The mean over distances r of the multiquadric :math:`k = \sum_c a / (a + r^2)`, :math:`a = c \cdot \text{size}`.

    Value and derivatives come from one pass over the distances, in blocks: with the history of each scale's matrix of
    the batch the time would go into memory. The kernel depends on :math:`r^2 / \text{size}` only, so that

    .. math:: \frac{\partial k}{\partial r} = -2 r \sum_c \frac{a}{(a + r^2)^2}, \qquad
              \frac{\partial k}{\partial\, \text{size}} = -\frac{r}{2\, \text{size}} \frac{\partial k}{\partial r} .
    """
    n = distances.numel()
    with torch.no_grad():
        a = size * size.new_tensor(scales)
        slopes = torch.empty_like(distances)
        total, moment = size.new_zeros(2)
        for r, slope in zip(distances.flatten().split(BLOCK), slopes.view(-1).split(BLOCK), strict=True):
            squares = r.to(a.dtype).square()
            u = torch.add(squares, a[:, None]).reciprocal_()
            total += (a @ u).sum()
            in_square = a @ u.square_()
            moment += in_square @ squares
            slope.copy_(in_square.mul_(r).mul_(-2 / n))
    return attach(
        total / n,
        (distances, size),
        (slopes, moment / (n * size.detach())),
        refuse="second derivatives of the penalty mmd are not implemented",
    )
