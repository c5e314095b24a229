r"""The Wasserstein barycenter of Gaussians, and its derivative by the implicit function theorem.

The measure that minimises :math:`\sum_k w_k W_2^2(\,\cdot\,, N(m_k, \Sigma_k))` is Gaussian, with mean
:math:`\sum_k w_k m_k` and a covariance S to which the optimal maps :math:`T_k` from S to :math:`\Sigma_k` average to
the identity,

.. math:: \sum_k w_k T_k = I \qquad\Longleftrightarrow\qquad
          \sum_k w_k \bigl(S^{1/2} \Sigma_k S^{1/2}\bigr)^{1/2} = S .

The fixed point of Álvarez-Esteban et al. applies the average map, :math:`S \leftarrow \bar T S \bar T`. For factors
:math:`S = F F^\top`, :math:`\Sigma_k = G_k G_k^\top` it is a mean of factors, each turned towards F by Procrustes,

.. math:: F \leftarrow \sum_k w_k G_k R_k, \qquad R_k \text{ the polar factor of } G_k^\top F ,

which inverts nothing. The step :math:`\|(\bar T - I) F\|` is the norm of the objective's (half) gradient in Wasserstein
space. The start :math:`\sum_k w_k \Sigma_k^{1/2}` is the answer where the covariances commute.

Differentiate at the fixed point. With :math:`G_k^\top F = U_k \operatorname{diag}(s) V_k^\top`, :math:`A_k = F V_k` and
:math:`dS = F X F^\top`, the basis of `_coupling.py` turns :math:`F^\top (\sum_k w_k\,dT_k + dw_k T_k) F = 0` into

.. math:: \sum_k w_k V_k \Bigl( \frac{s_i s_j}{s_i + s_j} (V_k^\top X V_k)_{ij} \Bigr) V_k^\top
          = \sum_k w_k V_k \Bigl( \frac{(A_k^\top d\Sigma_k A_k)_{ij}}{s_i + s_j} \Bigr) V_k^\top
          + \sum_k dw_k H_k, \qquad H_k = V_k \operatorname{diag}(s) V_k^\top ,

whose left side :math:`\mathcal L X` is symmetric and positive semidefinite: conjugate gradients solve :math:`\mathcal L
Y = F^\top \bar S F`, and then :math:`\bar w_k = \langle Y, H_k \rangle` and :math:`\bar\Sigma_k = w_k A_k
((V_k^\top Y V_k)_{ij} / (s_i + s_j)) A_k^\top`.

References:
    Agueh & Carlier, 2011. *Barycenters in the Wasserstein space*, theorem 6.1.
    Álvarez-Esteban, del Barrio, Cuesta-Albertos & Matrán, 2016. *A fixed-point approach to barycenters in
    Wasserstein space*, theorem 4.2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from otkit._arguments import (
    Array,
    as_tensors,
    checked_finite,
    require_broadcast,
    require_count,
    require_positive,
    working_precision,
)
from otkit._convergence import warn
from otkit._derivatives import Function, refuse_second
from otkit._operators import checked, operator
from otkit.gaussian._bures.procrustes import factor
from otkit.gaussian._checks import require_covariance, require_mixture, require_probabilities
from otkit.gaussian._conjugate_gradients import conjugate_gradients
from otkit.gaussian._coupling import reciprocal_sums
from otkit.linalg import sqrtm
from otkit.linalg._symmetric import symmetric


def barycenter(
    locs: Array,
    covs: Array,
    weights: Array | None = None,
    *,
    tol: float = 1e-12,
    max_iter: int = 1000,
    validate: bool = True,
) -> tuple[Array, Array]:
    r"""The Gaussian nearest to K Gaussians in the weighted mean of squared distances.

    .. math:: \operatorname*{arg\,min}_{m, S} \sum_k w_k W_2^2\bigl(N(m, S), N(m_k, \Sigma_k)\bigr)

    Gradients in locs, covs and weights are those of the fixed point, exact up to tol, also at equal covariances; those
    in the weights are along weights of sum one. Second derivatives of the covariance in covs and weights are refused.
    Degenerate cases: singular covariances are legal. Where all are singular, the barycenter may not be unique and is
    one of several, convergence can be slow, and a rounding that changes the rank moves the result by its root. The
    gradient at singular covariances is that at fixed rank; where the barycenter is singular too, it is that of the
    fixed point with the range of S held: exact if that range contains those of all the covariances, and otherwise
    without the turning of the range, whose rate may be infinite; it is finite in any case.
    Everything is computed in float64 and returned in the dtype that came.

    Cost: :math:`O(K d^3)` an iteration, of which 10 to 20 are needed at condition numbers of 10 and about 100 at 1e8;
    the problems of a batch stop one by one. The backward pass is some tens of products of the same order.

    Args:
        locs: The means :math:`m_k`, with shape (..., K, d).
        covs: The covariances :math:`\Sigma_k`, with shape (..., K, d, d).
        weights: The weights :math:`w_k \ge 0`, with sum one and shape (..., K); uniform by default.
        tol: The step in a factor of S, relative to it, at which to stop.
        max_iter: The most iterations.
        validate: Whether to check values (finite, symmetric, positive semidefinite, weights of sum one).

    Returns:
        The mean :math:`\sum_k w_k m_k`, with shape (..., d), and the covariance S, with shape (..., d, d).

    Raises:
        ValueError: Shapes that do not fit; covariances that are not finite, symmetric, positive semidefinite; weights
            that are negative or not of sum one.
        TypeError: Arrays that are not floating point, or of mixed kinds, dtypes or devices.

    Warns:
        ConvergenceWarning: The last step was above tol after max_iter iterations.

    Example:
        >>> import numpy as np
        >>> loc, cov = barycenter(np.array([[0.0], [4.0]]), np.array([[[1.0]], [[9.0]]]), np.array([0.5, 0.5]))
        >>> print(loc, cov.round(12))
        [2.] [[4.]]
    """
    tol = require_positive("tol", tol)
    max_iter = require_count("max_iter", max_iter)
    (m, C, w), restore = as_tensors(locs=locs, covs=covs, weights=weights, optional=("weights",))
    require_mixture("", w, m, C)
    batches = {"locs": m.shape[:-2], "covs": C.shape[:-3]} | ({} if w is None else {"weights": w.shape[:-1]})
    batch = require_broadcast(**batches)
    if validate:
        m = checked_finite("locs", m)
        C = checked(require_covariance, "covs", C, restore.eps)
        w = None if w is None else checked(require_probabilities, "weights", w, restore.eps)
    m, C = working_precision(m), working_precision(C)
    w = torch.full_like(C[..., 0, 0], 1 / C.shape[-3]) if w is None else working_precision(w)
    w = w / w.sum(-1, keepdim=True)
    together = torch.broadcast_shapes(C.shape[:-3], w.shape[:-1])
    S = _Barycenter.at(C.expand(*together, *C.shape[-3:]), w.expand(*together, -1), tol, max_iter)
    loc = (w.unsqueeze(-1) * m).sum(-2)
    return restore(loc.expand(*batch, -1)), restore(S.expand(*batch, -1, -1))


class _Barycenter(Function):
    """(covs, weights) -> S."""

    @staticmethod
    def forward(C: Tensor, w: Tensor, tol: float, max_iter: int) -> Tensor:
        return _covariance(C, w, tol, max_iter)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], inputs[1], output)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        C, w, S = ctx.saved_tensors
        with torch.no_grad():
            grad_C, grad_w = _implicit_gradients(C, w, S, grad_outputs[0])
        inputs = (grad_outputs[0], C, w)
        return refuse_second(grad_C, inputs, _NO_SECOND), refuse_second(grad_w, inputs, _NO_SECOND), None, None


_NO_SECOND = "second derivatives of barycenter are not implemented, and are refused rather than wrong"
_SINGULAR = 1e-12
"""An eigenvalue of the barycenter below this share of the largest counts as zero in its derivatives."""


@operator("barycenter", lambda C, w, tol, max_iter: C.new_empty(*C.shape[:-3], *C.shape[-2:]))
def _covariance(C: Tensor, w: Tensor, tol: float, max_iter: int) -> Tensor:
    """The barycenters' S (..., d, d) of covariances (..., K, d, d) with weights (..., K)."""
    n = C.shape[:-3].numel()
    F = _fixed_point(C.reshape(n, *C.shape[-3:]), w.reshape(n, w.shape[-1], 1, 1), tol, max_iter)
    return symmetric(F @ F.mT).reshape(*C.shape[:-3], *F.shape[-2:])


def _fixed_point(C: Tensor, w: Tensor, tol: float, max_iter: int) -> Tensor:
    """A factor F (n, d, d) of the barycenters of covariances (n, K, d, d) with weights (n, K, 1, 1)."""
    G, _, _ = factor("covs", C)
    F = (w * sqrtm(C, validate=False)).sum(1)
    error = torch.zeros_like(F[:, 0, 0])
    active = torch.arange(len(F), device=F.device)
    for _ in range(max_iter):
        U, _, Vh = torch.linalg.svd(G[active].mT @ F[active].unsqueeze(1))
        moved = (w[active] * (G[active] @ U @ Vh)).sum(1)
        size = torch.linalg.matrix_norm(moved).clamp(min=torch.finfo(F.dtype).tiny)
        error[active] = torch.linalg.matrix_norm(moved - F[active]) / size
        F[active] = moved
        active = active[error[active] > tol]
        if len(active) == 0:
            return F
    warn(
        f"the barycenter's last step was {error.max().item():.1e} of its factor after max_iter = {max_iter} "
        f"iterations, above tol = {tol:.1e}, in {len(active)} of {len(F)} problems; raise max_iter or tol"
    )
    return F


@operator("barycenter_gradients", lambda C, w, S, grad: (C.new_empty(C.shape), w.new_empty(w.shape)))
def _implicit_gradients(C: Tensor, w: Tensor, S: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients in covs and weights, from that in S, as in the last display of the module."""
    eigenvalues, Q = torch.linalg.eigh(S)
    null = eigenvalues <= _SINGULAR * eigenvalues[..., -1:]
    eigenvalues = torch.where(null, 0.0, eigenvalues)
    F = (Q * eigenvalues.sqrt().unsqueeze(-2)).unsqueeze(-3)
    _, s, Vh = torch.linalg.svd(factor("covs", C)[0].mT @ F)
    V, s, w = Vh.mT, torch.where(s > 1e-15 * s[..., :1], s, 0.0), w[..., None, None]
    quotients, harmonic = reciprocal_sums(s), _harmonic(s)

    def average(X: Tensor) -> Tensor:
        return (w * (V @ ((Vh @ X.unsqueeze(-3) @ V) * harmonic) @ Vh)).sum(-3)

    # In these coordinates the average is diagonal where all the covariances are S: what is left is near the identity.
    scale = _harmonic(eigenvalues)
    scale = torch.where(scale > 0, scale.rsqrt(), 0.0)
    right = scale * (F.mT @ grad.unsqueeze(-3) @ F).squeeze(-3)
    Y = (scale * conjugate_gradients(lambda X: scale * average(scale * X), right)).unsqueeze(-3)
    A = F @ V
    grad_C = w * symmetric(A @ ((Vh @ Y @ V) * quotients) @ A.mT)
    grad_w = (Y * ((V * s.unsqueeze(-2)) @ Vh)).sum((-2, -1))
    return grad_C, grad_w


def _harmonic(s: Tensor) -> Tensor:
    """The products s_i s_j / (s_i + s_j), 0 where both are, for s (..., d)."""
    return s.unsqueeze(-1) * (s.unsqueeze(-2) * reciprocal_sums(s))
