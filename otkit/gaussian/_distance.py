r"""The 2-Wasserstein distance between Gaussians, factor first.

Write each Gaussian with a factor of its covariance, :math:`\Sigma_1 = F F^\top`, :math:`\Sigma_2 = G G^\top`.
Every coupling of the two that is Gaussian and optimal moves :math:`F\xi` to :math:`G R \xi` for one standard normal
:math:`\xi` and one orthogonal R, so the distance is an orthogonal Procrustes problem,

.. math:: W_2^2 = \|m_1 - m_2\|^2 + \min_{R^\top R = I} \|F - G R\|_F^2 ,

solved by the polar factor :math:`R = U V^\top` of :math:`G^\top F = U \operatorname{diag}(\sigma) V^\top`. Expanding
the square gives the formula of the textbooks,

.. math:: W_2^2 = \|m_1 - m_2\|^2 + \operatorname{Tr}\bigl(\Sigma_1 + \Sigma_2
          - 2 (\Sigma_1^{1/2} \Sigma_2 \Sigma_1^{1/2})^{1/2}\bigr) ,

which is the same number but a difference of large traces: as the Gaussians approach each other it loses
every digit, and its gradient through nested eigendecompositions is not defined at repeated eigenvalues.
R minimises, so by the envelope theorem its own derivative drops out, and with the optimal map
:math:`T = G R F^{-1}`

.. math:: \frac{\partial W_2^2}{\partial m_1} = 2 (m_1 - m_2), \qquad
          \frac{\partial W_2^2}{\partial \Sigma_1} = I - T, \qquad
          \frac{\partial W_2^2}{\partial \Sigma_2} = I - T^{-1} .

References:
    Olkin & Pukelsheim, 1982. *The distance between two random vectors with given dispersion matrices*.
    Bhatia, Jain & Lim, 2019. *On the Bures–Wasserstein distance between positive definite matrices*, eq. (1)
    (the trace form; also Procrustes and the optimal map).
    Peyré & Cuturi, 2019. *Computational Optimal Transport*, remark 2.31.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from otkit._arguments import (
    Array,
    Restore,
    as_tensors,
    checked_finite,
    require_broadcast,
    shape,
    working_precision,
)
from otkit._operators import checked
from otkit._root import root
from otkit._units import power_of_two
from otkit.gaussian._bures import bures_squared
from otkit.gaussian._checks import require_covariance, require_gaussians, require_nonnegative
from otkit.gaussian._lengths import hypotenuse, moderate, ordinary, units
from otkit.linalg import sqrtm
from otkit.linalg._symmetric import symmetric, trace

Method = Literal["procrustes", "trace"]


def w2_squared(
    loc1: Array,
    cov1: Array,
    loc2: Array,
    cov2: Array,
    *,
    method: Method = "procrustes",
    validate: bool = True,
) -> Array:
    r"""The squared distance :math:`W_2^2(N(m_1, \Sigma_1), N(m_2, \Sigma_2))`.

    Gradients are those of the module's last display, exact also at equal covariances and at repeated
    eigenvalues, and exactly 0 at equal Gaussians. A singular covariance (a Dirac is the extreme) is legal:
    the value is exact; the derivative towards full rank is infinite, and the gradient
    given is that within the range of the covariance, with the pseudo-inverse for :math:`F^{-1}`. (A covariance of d
    samples in d dimensions has a smallest eigenvalue the size of a rounding, of either sign: below 16·d·eps of the
    largest it counts as 0.)
    Second derivatives are exact at positive definite covariances; at singular ones, where they are infinite, those
    within the ranges are given. Everything is computed in float64 and returned in the dtype that came.

    Cost: :math:`O(d^3)` a pair, about that of one symmetric eigendecomposition, gradients included, or down to a third
    of it where Numba is installed (the extra ``fast``; the first call on a machine then compiles for some ten to forty
    seconds); elementwise for d = 1, 2. The pairs of a batch share torch's threads; beyond d = 128 they do so only where
    threadpoolctl is installed (the same extra), which meanwhile holds BLAS to one thread in the whole process.

    Args:
        loc1: The mean :math:`m_1`, with shape (..., d).
        cov1: The covariance :math:`\Sigma_1`, with shape (..., d, d).
        loc2: The mean :math:`m_2`, with shape (..., d).
        cov2: The covariance :math:`\Sigma_2`, with shape (..., d, d).
        method: "procrustes", or "trace" for the textbook formula, which loses its digits between near Gaussians and can
            come out slightly negative there.
        validate: Whether to check values (finite, symmetric, positive semidefinite); "procrustes" refuses indefinite
            covariances in any case.

    Returns:
        :math:`W_2^2 \ge 0` in squared units of the data, with the broadcast batch shape (...).

    Raises:
        ValueError: Shapes that do not fit, or covariances that are not finite, symmetric, positive semidefinite.
        TypeError: Arrays that are not floating point, or of mixed kinds, dtypes or devices.

    Example:
        >>> import numpy as np
        >>> loc, cov = np.zeros(2), np.eye(2)
        >>> print(w2_squared(loc, cov, loc + 3.0, 4 * cov))
        20.0
    """
    difference, dispersion, restore = _parts(loc1, cov1, loc2, cov2, method, validate)
    return restore(_squared_length(difference) + dispersion)


def _parts(
    loc1: Any, cov1: Any, loc2: Any, cov2: Any, method: Method, validate: bool
) -> tuple[Tensor, Tensor, Restore]:
    """The difference of the means and the squared Bures distance, in working precision."""
    (m1, C1, m2, C2), restore = as_tensors(loc1=loc1, cov1=cov1, loc2=loc2, cov2=cov2)
    require_gaussians(m1, C1, m2, C2)
    if validate:
        m1, m2 = checked_finite("loc1", m1), checked_finite("loc2", m2)
    m1, C1, m2, C2 = (working_precision(t) for t in (m1, C1, m2, C2))
    if method == "procrustes":
        dispersion = bures_squared(*torch.broadcast_tensors(C1, C2), eps=restore.eps, validate=validate)
    elif method == "trace":
        if validate:
            C1, C2 = (checked(require_covariance, f"cov{k}", C, restore.eps) for k, C in ((1, C1), (2, C2)))
        # A product of both covariances leaves the range of float64 long before they do.
        u1, u2 = (power_of_two(C.detach().abs().amax((-2, -1), keepdim=True).sqrt()) for C in (C1, C2))
        half = sqrtm(C1 / u1 / u1, validate=False)
        inner = half @ (C2 / u2 / u2) @ half
        cross = sqrtm(symmetric(inner), validate=False) * u1 * u2
        dispersion = trace(C1) + trace(C2) - 2 * trace(cross)
    else:
        raise ValueError(f"method is {method!r}; expected 'procrustes' or 'trace'")
    return m1 - m2, dispersion, restore


def _squared_length(vectors: Tensor) -> Tensor:
    # A product with ones, which is how rows of a few numbers are added fast.
    return vectors.square() @ vectors.new_ones(vectors.shape[-1])


def w2_squared_diagonal(loc1: Array, scale1: Array, loc2: Array, scale2: Array, *, validate: bool = True) -> Array:
    r"""The squared distance between Gaussians with diagonal covariances, which commute:

    .. math:: W_2^2 = \|m_1 - m_2\|^2 + \|\sigma_1 - \sigma_2\|^2 .

    Smooth in the standard deviations everywhere, zero included, where it is a distance to a Dirac, with derivatives of
    any order. Cost: O(d) a pair.

    Args:
        loc1: The mean :math:`m_1`, with shape (..., d).
        scale1: The standard deviations :math:`\sigma_1 \ge 0`, with shape (..., d).
        loc2: The mean :math:`m_2`, with shape (..., d).
        scale2: The standard deviations :math:`\sigma_2 \ge 0`, with shape (..., d).
        validate: Whether to check values (finite, not negative).

    Returns:
        :math:`W_2^2 \ge 0`, with the broadcast batch shape (...).

    Raises:
        ValueError: Shapes that do not fit, NaN or infinities, negative standard deviations.
        TypeError: Arrays that are not floating point, or of mixed kinds, dtypes or devices.

    Example:
        >>> import numpy as np
        >>> print(w2_squared_diagonal(np.zeros(2), np.ones(2), np.zeros(2), np.array([1.0, 3.0])))
        4.0
    """
    (m1, s1, m2, s2), restore = as_tensors(loc1=loc1, scale1=scale1, loc2=loc2, scale2=scale2)
    named = {"loc1": m1, "scale1": s1, "loc2": m2, "scale2": s2}
    for name, tensor in named.items():
        if tensor.ndim < 1 or tensor.shape[-1:] != m1.shape[-1:]:
            raise ValueError(f"{name} has shape {shape(tensor)}; expected (..., d), where loc1 has shape {shape(m1)}")
    require_broadcast(**{name: tensor.shape[:-1] for name, tensor in named.items()})
    if validate:
        m1, m2 = checked_finite("loc1", m1), checked_finite("loc2", m2)
        s1, s2 = checked(require_nonnegative, "scale1", s1), checked(require_nonnegative, "scale2", s2)
    m1, s1, m2, s2 = (working_precision(t) for t in (m1, s1, m2, s2))
    return restore((m1 - m2).square().sum(-1) + (s1 - s2).square().sum(-1))


def w2(
    loc1: Array,
    cov1: Array,
    loc2: Array,
    cov2: Array,
    *,
    method: Method = "procrustes",
    validate: bool = True,
) -> Array:
    r"""The distance :math:`W_2`, the root of `w2_squared`, in units of the data.

    Arguments, cost and errors are those of `w2_squared`. At equal Gaussians the value is exactly 0 and
    the gradient is defined to be 0, a subgradient. Means may be so far apart, or so near, that the square is beyond
    float64.

    Example:
        >>> import numpy as np
        >>> print(w2(np.zeros(1), np.eye(1), np.array([3.0]), 25 * np.eye(1)))
        5.0
    """
    difference, dispersion, restore = _parts(loc1, cov1, loc2, cov2, method, validate)
    squared = _squared_length(difference) + dispersion
    if moderate(squared) or ordinary(difference):
        return restore(root(squared, 2))
    unit = units(difference.abs().amax(-1), dispersion)
    return restore(hypotenuse(_squared_length(difference / unit.unsqueeze(-1)), dispersion, unit))
