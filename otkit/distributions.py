r"""The 2-Wasserstein distance between torch distributions, by the types of the two.

A registry like that of `torch.distributions.kl`: `register_w2_squared` adds a closed form for a pair of types, and a
call takes the most specific pair that the two distributions belong to.

    =================================================  ============================================================
    pair                                               form
    =================================================  ============================================================
    Normal, Normal                                     :math:`(m_1 - m_2)^2 + (\sigma_1 - \sigma_2)^2`
    Independent, Independent                           the sum over the independent parts, whatever these are
    MultivariateNormal, LowRankMultivariateNormal,     `otkit.gaussian.w2_squared_from_factors`
    Independent(Normal, 1), in any combination
    =================================================  ============================================================

A distribution with scale 0, which torch makes with ``validate_args=False``, is a Dirac and legal. An `Independent` of
no dimensions counts as the distribution in it, and nested ones as one. Built-in forms compute in float64.

References:
    Panaretos & Zemel, 2019. *Statistical aspects of Wasserstein distances*.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
)

from otkit._arguments import require_broadcast, require_one_dtype_and_device, working_precision
from otkit._convergence import warn
from otkit._operators import checked
from otkit._root import root
from otkit.gaussian import w2_squared_diagonal, w2_squared_from_factors
from otkit.gaussian._checks import require_nonnegative

__all__ = ["register_w2_squared", "w2", "w2_squared"]

Form: TypeAlias = Callable[[Any, Any], Tensor]

_FORMS: dict[tuple[type[Distribution], type[Distribution]], Form] = {}


def register_w2_squared(type_p: type[Distribution], type_q: type[Distribution]) -> Callable[[Form], Form]:
    """Make a function known as the squared distance of a pair of types, and of their subclasses.

    The function takes the two distributions and returns :math:`W_2^2` with the broadcast batch shape. It serves the
    pair in the other order as well, unless that order is registered itself. Of several pairs that fit, the most
    specific is taken: the one whose types are subclasses of the others'. Where there is none, a warning says so.

    Raises:
        TypeError: A type that is not a subclass of torch's Distribution.

    Example:
        >>> class Mine(torch.distributions.Laplace): ...
        >>> @register_w2_squared(Mine, Mine)
        ... def _(p, q):
        ...     return (p.loc - q.loc) ** 2 + 2 * (p.scale - q.scale) ** 2
        >>> w2(Mine(0.0, 1.0), Mine(3.0, 1.0))
        tensor(3.)
    """
    for name, kind in (("type_p", type_p), ("type_q", type_q)):
        if not (isinstance(kind, type) and issubclass(kind, Distribution)):
            raise TypeError(f"{name} is {kind!r}; expected a subclass of torch.distributions.Distribution")

    def add(form: Form) -> Form:
        _FORMS[type_p, type_q] = form
        return form

    return add


def w2_squared(p: Distribution, q: Distribution) -> Tensor:
    r"""The squared distance :math:`W_2^2(p, q)` between two torch distributions, in closed form.

    Gradients reach the parameters of both distributions, and are those of the forms in the table above.

    Args:
        p: A distribution with batch shape (...) and event shape (*event).
        q: A distribution with the same event shape, and a batch shape that broadcasts.

    Returns:
        :math:`W_2^2`, with the broadcast batch shape (...).

    Raises:
        NotImplementedError: No form is registered for the two types; the message names them.
        ValueError: Event shapes that differ, batch shapes that do not broadcast, or parameters that are not finite or,
            where torch did not check them, of the wrong sign.
        TypeError: Not two distributions, or distributions of mixed dtypes or devices.

    Example:
        >>> print(w2_squared(Normal(0.0, 1.0), Normal(3.0, 5.0)))
        tensor(25.)
    """
    squared, dtype = _squared(p, q)
    return squared.to(dtype)


def w2(p: Distribution, q: Distribution) -> Tensor:
    """The distance :math:`W_2(p, q)`, the root of `w2_squared`, with gradient 0 where it is 0.

    Example:
        >>> print(w2(Normal(0.0, 1.0), Normal(3.0, 5.0)))
        tensor(5.)
    """
    squared, dtype = _squared(p, q)
    return root(squared, 2).to(dtype)


def _squared(p: Distribution, q: Distribution) -> tuple[Tensor, torch.dtype]:
    """The squared distance in the precision in which its form works, and the dtype that is wanted."""
    for name, distribution in (("p", p), ("q", q)):
        if not isinstance(distribution, Distribution):
            raise TypeError(f"{name} is a {type(distribution).__name__}; expected a torch distribution")
    if p.event_shape != q.event_shape:
        raise ValueError(
            f"q has event shape {tuple(q.event_shape)} but p has {tuple(p.event_shape)}; expected the same space"
        )
    require_broadcast(p=p.batch_shape, q=q.batch_shape)
    p, q = _plain(p), _plain(q)
    locs = {name: loc for name, loc in (("p", _loc(p)), ("q", _loc(q))) if loc is not None}
    require_one_dtype_and_device(locs)
    value = _form(type(p), type(q))(p, q)
    return value, next(iter(locs.values())).dtype if locs else value.dtype


def _plain(distribution: Distribution) -> Distribution:
    """The same distribution with at most one `Independent` around it, and none of no dimensions."""
    while isinstance(distribution, Independent):
        base, n = distribution.base_dist, distribution.reinterpreted_batch_ndims
        if n == 0:
            distribution = base
        elif isinstance(base, Independent):
            distribution = Independent(base.base_dist, n + base.reinterpreted_batch_ndims)
        else:
            break
    return distribution


def _loc(distribution: Distribution) -> Tensor | None:
    """The location of a distribution that has one, which has the dtype and device of all its parameters."""
    loc = getattr(distribution.base_dist if isinstance(distribution, Independent) else distribution, "loc", None)
    return loc if isinstance(loc, Tensor) else None


def _form(type_p: type[Distribution], type_q: type[Distribution]) -> Form:
    """The form of the most specific registered pair."""
    found: dict[tuple[type[Distribution], type[Distribution]], Form] = {}
    for (one, other), form in _FORMS.items():
        if issubclass(type_p, other) and issubclass(type_q, one):
            found.setdefault((other, one), _swap(form))
        if issubclass(type_p, one) and issubclass(type_q, other):
            found[one, other] = form
    best = [pair for pair in found if not any(_refines(other, pair) for other in found if other != pair)]
    if not best:
        raise NotImplementedError(
            f"no W2 is registered for p of type {type_p.__name__} and q of type {type_q.__name__} (see "
            "otkit.distributions.register_w2_squared)"
        )
    if len(best) > 1:
        pairs = " and ".join(f"({one.__name__}, {other.__name__})" for one, other in best)
        warn(
            f"W2 of {type_p.__name__} and {type_q.__name__} is ambiguous: {pairs} fit equally well; "
            f"register_w2_squared({type_p.__name__}, {type_q.__name__}) breaks the tie",
            RuntimeWarning,
        )
    return found[best[0]]


def _refines(pair: tuple[type, type], other: tuple[type, type]) -> bool:
    """Whether each type of the pair is a subclass of the other pair's."""
    return all(issubclass(mine, theirs) for mine, theirs in zip(pair, other, strict=True))


def _swap(form: Form) -> Form:
    return lambda p, q: form(q, p)


@register_w2_squared(Normal, Normal)
def _normal(p: Normal, q: Normal) -> Tensor:
    return w2_squared_diagonal(*(working_precision(t).unsqueeze(-1) for t in (p.loc, p.scale, q.loc, q.scale)))


@register_w2_squared(Independent, Independent)
def _product(p: Independent, q: Independent) -> Tensor:
    # The squared distance is a sum over coordinates, so product measures are transported part by part.
    n = min(p.reinterpreted_batch_ndims, q.reinterpreted_batch_ndims)
    inner = (Independent(each.base_dist, each.reinterpreted_batch_ndims - n) for each in (p, q))
    return _squared(*inner)[0].sum(dim=tuple(range(-n, 0)))


@register_w2_squared(MultivariateNormal, MultivariateNormal)
@register_w2_squared(MultivariateNormal, LowRankMultivariateNormal)
@register_w2_squared(LowRankMultivariateNormal, LowRankMultivariateNormal)
@register_w2_squared(MultivariateNormal, Independent)
@register_w2_squared(LowRankMultivariateNormal, Independent)
@register_w2_squared(LowRankMultivariateNormal, MultivariateNormal)  # in both orders: messages name the right one
@register_w2_squared(Independent, MultivariateNormal)
@register_w2_squared(Independent, LowRankMultivariateNormal)
def _gaussian(p: Distribution, q: Distribution) -> Tensor:
    return w2_squared_from_factors(*(working_precision(t) for each in (p, q) for t in _loc_and_factor(each)))


def _loc_and_factor(distribution: Distribution) -> tuple[Tensor, Tensor]:
    if isinstance(distribution, MultivariateNormal):
        return distribution.loc, distribution.scale_tril
    if isinstance(distribution, LowRankMultivariateNormal):
        diag = checked(require_nonnegative, "cov_diag", distribution.cov_diag)
        scales = root(working_precision(diag), 2)  # whose rounding would be one of the distance
        factor = torch.cat([working_precision(distribution.cov_factor), torch.diag_embed(scales)], dim=-1)
        return distribution.loc, factor
    if isinstance(distribution, Independent) and isinstance(distribution.base_dist, Normal):
        scale = checked(require_nonnegative, "scale", distribution.base_dist.scale)
        return distribution.base_dist.loc, torch.diag_embed(scale)
    raise NotImplementedError(f"no factor of the covariance of {distribution} is known; see register_w2_squared")
