r"""The matrix Q with orthonormal columns that brings two factors closest, :math:`\min_Q \|F - G Q^\top\|_F`.

Q is the polar factor of :math:`M = F^\top G`, but a product has the rounding of its largest numbers: where F and G are
both small in a direction, by :math:`\varepsilon`, M is small by :math:`\varepsilon^2`, and below :math:`\varepsilon =
10^{-8}` nothing of it is left in float64, not even a sign. The factors know the direction still. What M shows of Q,

.. math:: Q_1 = \sum_{h_k > \tau h_1} u_k v_k^\top

with its singular values :math:`h_k`, is therefore taken out of the factors,

.. math:: F_2 = F (I - Q_1 Q_1^\top), \qquad G_2 = G (I - Q_1^\top Q_1), \qquad
          M_2 = (I - Q_1 Q_1^\top)\, F_2^\top G_2\, (I - Q_1^\top Q_1) ,

and the rest of Q is that of their product, :math:`Q = Q_1 + \operatorname{polar}(M_2)`, of which the same may be said.
A direction of relative size :math:`\varepsilon` is then known to about :math:`10^{-16} / \varepsilon`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from otkit._derivatives import Function
from otkit._operators import operator, transforming
from otkit._units import power_of_two
from otkit.linalg._polar import polar_factor_and_singular_values

HIDDEN = 1e-8
"""The relative size below which a singular value of the product is found again: it has half of its digits."""

NOTHING = 1e-13
"""The relative size of what is left of a factor that is looked at no further: it may be rounding."""


def align(F: Tensor, G: Tensor) -> Tensor:
    """Q (..., r, s) for F (..., d, r) and G (..., d, s), r >= s, completed where FᵀG lacks full rank.

    Its derivatives are those of the polar factor of the product as it is.
    """
    Q, h, V = polar_factor_and_singular_values(_product(F, G))
    return _Unhidden.at(F, G, Q, h, V)


def _product(F: Tensor, G: Tensor) -> Tensor:
    r""":math:`F^\top G`; where it would overflow, only up to a positive factor, which changes no polar factor."""
    product = F.mT @ G
    if not transforming() and math.isfinite(product.detach().sum().item()):
        return product
    F, G = _scaled(F), _scaled(G)
    return F.mT @ G


def _scaled(factor: Tensor) -> Tensor:
    return factor / power_of_two(factor.detach().abs().amax((-2, -1), keepdim=True))


class _Unhidden(Function):
    @staticmethod
    def forward(F: Tensor, G: Tensor, Q: Tensor, h: Tensor, V: Tensor) -> Tensor:
        return _unhidden(F, G, Q, h, V)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        # Nothing to keep, as the derivative is that of Q; and where none is asked for, none of Q is.
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[None, None, Tensor | None, None, None]:
        return None, None, grad_outputs[0], None, None


@operator("unhidden", lambda F, G, Q, h, V: torch.empty_like(Q))
def _unhidden(F: Tensor, G: Tensor, Q: Tensor, h: Tensor, V: Tensor) -> Tensor:
    """Q, with what its product hides of it found again.

    Args:
        F: The factors F, with shape (..., d, r).
        G: The factors G, with shape (..., d, s).
        Q: The polar factors of their products, with shape (..., r, s).
        h: The singular values of the products, ascending, with shape (..., s).
        V: Their right singular vectors, in columns, with shape (..., s, s).
    """
    out = Q.clone()
    found = out.view(-1, *Q.shape[-2:])
    F, G, Q, h, V = (each.reshape(-1, *each.shape[len(out.shape) - 2 :]) for each in (F, G, Q, h, V))
    at = torch.arange(len(found), device=out.device)
    while True:
        hidden = h <= HIDDEN * h[:, -1:]
        again = hidden.any(-1)
        if bool(again.any()):
            # Where a factor is singular, as one of centred samples is, there is nothing to find.
            most = int(hidden.sum(-1).max())  # singular values ascend, so that the first are hidden
            directions = (V * hidden.unsqueeze(-2))[..., :most]
            again &= _is_something(G, directions)
            if Q.shape[-2] == Q.shape[-1]:
                again &= _is_something(F, Q @ directions)
        if not bool(again.any()):
            return out
        at, F, G, Q, V, hidden = (each[again] for each in (at, F, G, Q, V, hidden))
        shown = Q @ (V * ~hidden.unsqueeze(-2)) @ V.mT
        F, G = _scaled(F - (F @ shown) @ shown.mT), _scaled(G - (G @ shown.mT) @ shown)
        M = F.mT @ G
        M = M - shown @ (shown.mT @ M)
        M = M - (M @ shown.mT) @ shown
        size = torch.linalg.matrix_norm(M)
        # With what was shown as its largest part, so that the rest is orthogonal to it.
        U, h, Vh = torch.linalg.svd(M + size[:, None, None] * shown, full_matrices=False)
        Q, h, V = U @ Vh, h.flip(-1), Vh.mT.flip(-1)
        some = size > 0
        at, F, G, Q, h, V = (each[some] for each in (at, F, G, Q, h, V))
        found[at] = Q


def _is_something(factor: Tensor, directions: Tensor) -> Tensor:
    """Whether a factor (n, d, r) is more than rounding in directions (n, r, s)."""
    norm = torch.linalg.matrix_norm
    return norm(factor @ directions) > NOTHING * norm(factor)
