"""One name for the distance of whatever comes: two sets of points, or two torch distributions."""

from __future__ import annotations

from typing import Any

from torch.distributions import Distribution

from otkit import distributions, empirical


def wasserstein(x: Any, y: Any, p: float = 2, **options: Any) -> Any:
    r"""The Wasserstein distance :math:`W_p` between two sets of points, or between two torch distributions.

    Points are compared exactly by `otkit.empirical.wasserstein`, distributions in closed form by
    `otkit.distributions.w2`.

    Args:
        x: Points, with shape (..., n, d), or a torch distribution.
        y: Points, with shape (..., m, d), or a torch distribution.
        p: The exponent; 2 for distributions.
        **options: For points: weights a and b, and the other options of `otkit.empirical.wasserstein`.

    Returns:
        :math:`W_p`, with the broadcast batch shape (...).

    Raises:
        TypeError: A distribution beside points, or options that do not apply.
        ValueError: Two distributions and p other than 2, and all that the two functions raise.

    Warns:
        ConvergenceWarning: Between points, as `otkit.empirical.wasserstein` warns: the value is not known to be the
            distance.
        RuntimeWarning: Between distributions whose types fit several registered pairs equally well.

    Example:
        >>> import torch
        >>> from torch.distributions import MultivariateNormal
        >>> p = MultivariateNormal(torch.zeros(2), torch.eye(2))
        >>> q = MultivariateNormal(torch.tensor([3.0, 4.0]), torch.eye(2))
        >>> print(wasserstein(p, q), wasserstein(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]), p=1))
        tensor(5.) tensor(5.)
    """
    if not isinstance(x, Distribution) and not isinstance(y, Distribution):
        return empirical.wasserstein(x, y, p, **options)
    if options:
        raise TypeError(f"{', '.join(options)}: an option for sets of points; expected none beside torch distributions")
    if p != 2:
        raise ValueError(f"p is {p}; between torch distributions only W_2 has closed forms, so expected p = 2")
    return distributions.w2(x, y)
