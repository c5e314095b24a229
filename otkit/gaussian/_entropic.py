r"""Entropic optimal transport between Gaussians, in closed form.

.. math:: \mathrm{OT}_\varepsilon(p, q) = \min_{P \in \Pi(p, q)} \int |x - y|^2\, dP
          + \varepsilon\, \mathrm{KL}(P \mid p \otimes q), \qquad \varepsilon = 2 s ,

is attained by a Gaussian P. With factors :math:`\Sigma_1 = F F^\top`, :math:`\Sigma_2 = G G^\top` and
:math:`G^\top F = U \operatorname{diag}(\lambda) V^\top`, P correlates the i-th pair of singular directions by

.. math:: k_i = \frac{2 \lambda_i}{q_i + s}, \qquad q_i = \sqrt{4 \lambda_i^2 + s^2}, \qquad
          1 - k_i^2 = \frac{2 s}{q_i + s} ,

where unregularised transport has :math:`k_i = 1`, and the excess over its cost is non-negative term by term,

.. math:: \mathrm{OT}_\varepsilon = W_2^2 + \sum_i \bigl(2 \lambda_i (1 - k_i) - s \log(1 - k_i^2)\bigr)
          = \|m_1 - m_2\|^2 + \operatorname{Tr}(\Sigma_1 + \Sigma_2)
          - \sum_i \Bigl(q_i - s - s \log \frac{q_i + s}{2 s}\Bigr) ,

the formula of Janati et al. The entropic map from p to q is affine; its linear part is the positive semidefinite
solution T of a Riccati equation, smooth in both covariances also where they are singular,

.. math:: T \Sigma_1 T + s\,T = \Sigma_2, \qquad
          \frac{\partial\, \mathrm{OT}_\varepsilon}{\partial \Sigma_1} = I - T .

For the divergence let :math:`T_1` be the map from p to p, :math:`X = T - T_1`, and :math:`D = \Sigma_2 - \Sigma_1`;
primes denote the same from q. The difference of the Riccati equations of T and :math:`T_1` is linear in X for given T,

.. math:: T \Sigma_1 X + X\,\Sigma_1 T_1 + s\,X = D ,

so that X, the negative of the gradient, is found from D without a subtraction of near quantities. When it is put into
the value, the terms of first order cancel on paper, and what is left is

.. math:: S_\varepsilon = \|m_1 - m_2\|^2 + \tfrac12 \operatorname{Tr}\bigl((T'_2 - T_1) D\bigr)
          + \sum_{\text{p, q}} \tfrac12 \operatorname{Tr}(T_1 X \Sigma_1 X)
          - \tfrac{s}{2} \bigl(\operatorname{Tr} Y - \log\det(I + Y)\bigr), \qquad Y = T_1^{1/2} X\,T_1^{1/2} ,

of second order in D term by term, and near equality the last term is at most half the one before it: the divergence
keeps its digits as the Gaussians approach each other.

References:
    Janati, Muzellec, Peyré & Cuturi, 2020. *Entropic optimal transport between unbalanced Gaussian measures has a
    closed form*, theorem 1, eqs. (13) and (14) (where :math:`\sigma^2` is s).
    Mallasto, Gerolin & Minh, 2022. *Entropy-regularized 2-Wasserstein distance between Gaussian measures*.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from otkit._arguments import Array, as_tensors, require_positive, working_precision
from otkit._derivatives import Function
from otkit.gaussian._checks import checked_values, require_gaussians
from otkit.gaussian._riccati import correlate, entropic_map, q_plus_s
from otkit.linalg._symmetric import symmetric, trace


def entropic_cost(loc1: Array, cov1: Array, loc2: Array, cov2: Array, *, reg: float, validate: bool = True) -> Array:
    r"""The regularised cost :math:`\mathrm{OT}_\varepsilon(N(m_1, \Sigma_1), N(m_2, \Sigma_2))`, its entropy included.

    It grows with reg from :math:`W_2^2` to the cost of independence,
    :math:`\|m_1 - m_2\|^2 + \operatorname{Tr}(\Sigma_1 + \Sigma_2)`. It is not 0 at equal Gaussians: see
    `sinkhorn_divergence`.

    Gradients are :math:`2(m_1 - m_2)` and :math:`I - T`, exact everywhere, singular covariances and Diracs included,
    and differentiable to any order. Along the null space of a covariance they grow as 1/reg: where reg is far below
    the covariances, second derivatives lose digits. A reg below the rounding of the covariances,
    :math:`2 \mathrm{eps} \operatorname{Tr}(\Sigma_1 + \Sigma_2)`, is raised to that, and to 4.5e-308 at least.
    Everything is computed in float64 and returned in the dtype that came.

    Cost: :math:`O(d^3)` a pair: two symmetric eigendecompositions and one SVD.

    Args:
        loc1: The mean :math:`m_1`, with shape (..., d).
        cov1: The covariance :math:`\Sigma_1`, with shape (..., d, d).
        loc2: The mean :math:`m_2`, with shape (..., d).
        cov2: The covariance :math:`\Sigma_2`, with shape (..., d, d).
        reg: The regularisation :math:`\varepsilon > 0`, absolute, in squared units of the data: as in
            `empirical.sinkhorn_cost`, beside the full :math:`|x - y|^2`.
        validate: Whether to check values (finite, symmetric, positive semidefinite).

    Returns:
        :math:`\mathrm{OT}_\varepsilon \ge 0` in squared units of the data, with the broadcast batch shape (...).

    Raises:
        ValueError: Shapes that do not fit, covariances that are not finite, symmetric, positive semidefinite, reg <= 0.
        TypeError: Arrays that are not floating point, or of mixed kinds, dtypes or devices; a reg that is no number.

    Example:
        >>> import numpy as np
        >>> loc, cov = np.zeros(2), np.eye(2)
        >>> print(f"{entropic_cost(loc, cov, loc + 3.0, 4 * cov, reg=1e-6):.4f}")  # W2² = 20, and a little entropy
        20.0000
    """
    return _between(_EntropicCost, loc1, cov1, loc2, cov2, reg, validate)


def sinkhorn_divergence(
    loc1: Array, cov1: Array, loc2: Array, cov2: Array, *, reg: float, validate: bool = True
) -> Array:
    r"""The Sinkhorn divergence, the entropic cost without its bias:

    .. math:: S_\varepsilon(p, q) = \mathrm{OT}_\varepsilon(p, q) - \tfrac12 \mathrm{OT}_\varepsilon(p, p)
              - \tfrac12 \mathrm{OT}_\varepsilon(q, q) .

    It is positive between different Gaussians and exactly 0, with gradient exactly 0, at equal ones; it tends to
    :math:`W_2^2` as reg tends to 0, and to :math:`\|m_1 - m_2\|^2` as reg grows. Its relative error, about
    eps·min(cond, Tr/reg), does not depend on how near the Gaussians are; cond is the largest eigenvalue of the two
    covariances over the smallest of them.

    Gradients are :math:`2(m_1 - m_2)` and :math:`-X`. Arguments, errors and cost are those of `entropic_cost`, and its
    remarks on small reg and on derivatives hold here too.

    Returns:
        :math:`S_\varepsilon \ge 0` in squared units of the data, with the broadcast batch shape (...).

    Example:
        >>> import numpy as np
        >>> loc, cov = np.zeros(1), np.eye(1)
        >>> print(sinkhorn_divergence(loc, cov, loc, cov, reg=1.0))
        0.0
        >>> print(f"{sinkhorn_divergence(loc, cov, loc, (1 + 1e-9)**2 * cov, reg=1e-6):.4g}")  # near W2² = 1e-18
        1e-18
    """
    return _between(_SinkhornDivergence, loc1, cov1, loc2, cov2, reg, validate)


def _between(dispersion: Any, loc1: Any, cov1: Any, loc2: Any, cov2: Any, reg: float, validate: bool) -> Any:
    reg = require_positive("reg", reg)
    (m1, C1, m2, C2), restore = as_tensors(loc1=loc1, cov1=cov1, loc2=loc2, cov2=cov2)
    require_gaussians(m1, C1, m2, C2)
    if validate:
        m1, C1, m2, C2 = checked_values(m1, C1, m2, C2, restore.eps)
    m1, C1, m2, C2 = (working_precision(t) for t in (m1, C1, m2, C2))
    C1, C2 = torch.broadcast_tensors(C1, C2)
    eps, tiny = torch.finfo(C1.dtype).eps, torch.finfo(C1.dtype).tiny
    s = (eps * trace(C1 + C2)).detach().clamp(min=max(reg / 2, tiny))
    return restore((m1 - m2).square().sum(-1) + dispersion.at(C1, C2, s[..., None])[0])


class _EntropicCost(Function):
    r""":math:`(\Sigma_1, \Sigma_2, s) \mapsto` the cost without the means, and its gradients :math:`I - T`."""

    @staticmethod
    def forward(cov1: Tensor, cov2: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, _, P, _, _, N, x = correlate(cov1, cov2)
        r = q_plus_s(x, s)
        k = 2 * x / r
        excess = 4 * x * (s / r) / (1 + k) + s * torch.log1p(x * k / s)  # no product of two covariances
        value = (P - N).square().sum((-2, -1)) + excess.sum(-1)
        identity = torch.eye(cov1.shape[-1], dtype=cov1.dtype, device=cov1.device)
        scale = (2 / r).unsqueeze(-2)
        return value, identity - (N * scale) @ N.mT, identity - (P * scale) @ P.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs, *output[1:])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        cov1, cov2, s, gradient1, gradient2 = ctx.saved_tensors
        if torch.is_grad_enabled():
            # Somebody will differentiate again: the same gradients, by operations that keep their history.
            identity = torch.eye(cov1.shape[-1], dtype=cov1.dtype, device=cov1.device)
            gradient1, gradient2 = identity - entropic_map(cov1, cov2, s), identity - entropic_map(cov2, cov1, s)
        grad = grad_outputs[0][..., None, None]
        return grad * gradient1, grad * gradient2, None


class _SinkhornDivergence(Function):
    r""":math:`(\Sigma_1, \Sigma_2, s) \mapsto` the divergence without the means, and its gradients -X and -X'."""

    @staticmethod
    def forward(cov1: Tensor, cov2: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, W, P, b, Z, N, x = correlate(cov1, cov2)
        D = cov2 - cov1
        r, r1, r2 = (q_plus_s(t, s) for t in (x, a, b))
        k, k1, k2 = 2 * x / r, 2 * a / r1, 2 * b / r2
        # T'₂ - T₁ by the divided difference of k, which has no differences in it.
        slope = 4 * (s / r1)[..., :, None] / (r2[..., None, :] * (1 + k1[..., :, None] * k2[..., None, :]))
        difference = W.mT @ D @ Z
        value = 0.5 * (slope * difference * difference).sum((-2, -1))
        gradients = []
        for e, V, k_self, P_, N_, D_ in ((a, W, k1, P, N, D), (b, Z, k2, N, P, -D)):
            X = _map_difference(e * k_self, V, P_, N_ * k.unsqueeze(-2), x * k, D_, s)
            half = k_self.sqrt()
            y = torch.linalg.eigvalsh(half[..., :, None] * X * half[..., None, :])
            value = value + 0.5 * (k_self[..., :, None] * X.square() * e[..., None, :]).sum((-2, -1))
            value = value - 0.5 * (s * _minus_log1p(y)).sum(-1)
            gradients.append(-(V @ X @ V.mT))
        gradient1, gradient2 = map(symmetric, gradients)
        return value, gradient1, gradient2

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs, *output[1:])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        cov1, cov2, s, gradient1, gradient2 = ctx.saved_tensors
        if torch.is_grad_enabled():
            # The history of these, but not their digits, which cancel near equality.
            same1 = entropic_map(cov1, cov1, s) - entropic_map(cov1, cov2, s)
            same2 = entropic_map(cov2, cov2, s) - entropic_map(cov2, cov1, s)
            gradient1 = gradient1 + (same1 - same1.detach())
            gradient2 = gradient2 + (same2 - same2.detach())
        grad = grad_outputs[0][..., None, None]
        return grad * gradient1, grad * gradient2, None


def _map_difference(w: Tensor, W: Tensor, P: Tensor, Nk: Tensor, z: Tensor, D: Tensor, s: Tensor) -> Tensor:
    r"""X in the eigenbasis W of :math:`\Sigma_1 T_1 = W w W^\top`, with :math:`T \Sigma_1 = (N k) P^\top`.

    On each column :math:`W_j` the equation reads :math:`(T \Sigma_1 + w_j + s) X W_j = D W_j`, a perturbation of a
    multiple of I whose inverse is known. X is symmetric, but its computed halves differ: they are weighted so that
    nothing is divided by the smaller of :math:`w_i + s` and :math:`w_j + s`.
    """
    columns = (w + s).unsqueeze(-2)
    DW = D @ (W / columns)  # of size one: what is of that of D, times P, could overflow
    C = columns * (W.mT @ (DW - Nk @ ((P.mT @ DW) / (z.unsqueeze(-1) + columns))))
    return (C + C.mT) / (columns + columns.mT)


def _minus_log1p(y: Tensor) -> Tensor:
    """The gap y - log(1 + y) for y > -1, accurate to rounding also near 0."""
    y = y.clamp(min=torch.finfo(y.dtype).eps - 1)
    small = y.abs() < 0.4
    # log(1 + y) = 2 artanh(w).
    w = torch.where(small, y, 0.0)
    w = w / (2 + w)
    series = torch.zeros_like(w)
    for n in range(29, 1, -2):
        series = (series + 2 / n) * w.square()
    return torch.where(small, w * (y - series), y - torch.log1p(y))
