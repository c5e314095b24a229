r"""From a power to its root, with a *defined* gradient where the power is zero.

What is smooth in optimal transport is the power :math:`W_p^p`. The root
:math:`W_p = (W_p^p)^{1/p}` has a kink at coinciding measures, where autograd gives
:math:`\infty \cdot 0 = \mathrm{NaN}`. There, 0 is a subgradient (W is non-negative and 0), and it is
the one that this project defines.
"""

from __future__ import annotations

from torch import Tensor


def root(power: Tensor, p: float) -> Tensor:
    """The p-th root of non-negative numbers, with gradient 0 at 0.

    Args:
        power: :math:`W_p^p`, with shape (...).
        p: The exponent, p >= 1.

    Returns:
        :math:`W_p`, with shape (...).

    Example:
        >>> import torch
        >>> power = torch.tensor([0.0, 4.0], requires_grad=True)
        >>> root(power, 2).sum().backward()
        >>> power.grad
        tensor([0.0000, 0.2500])
    """
    if p == 1:
        return power
    zero = power <= 0
    # Filled before as well, which keeps the infinite derivative of the root at 0 out of the graph.
    safe = power.masked_fill(zero, 1.0)
    return (safe.sqrt() if p == 2 else safe ** (1 / p)).masked_fill(zero, 0.0)
