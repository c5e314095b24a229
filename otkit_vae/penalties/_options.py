"""Checks of a penalty's options against the types in its constructor: what YAML and a shell can get wrong."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from torch import nn


def check_options(name: str, penalty: type[nn.Module], options: Mapping[str, Any]) -> None:
    """Raise the errors documented in `get`, for options that a penalty does not have or that are not of their types."""
    # A class without an __init__ of its own has nn.Module's, whose signature takes anything.
    known = {} if penalty.__init__ is nn.Module.__init__ else inspect.signature(penalty).parameters
    unknown = set(options) - set(known)
    if unknown:
        raise TypeError(
            f"penalty {name!r} does not take the options {', '.join(sorted(unknown))}; "
            f"expected some of {', '.join(known) or '(none)'}"
        )
    try:
        types = get_type_hints(penalty.__init__)
    except Exception:
        return  # names that are known to a type checker only
    for option, value in options.items():
        if value is not known[option].default and not _fits(value, types.get(option, Any)):
            said = known[option].annotation
            expected = said if isinstance(said, str) else inspect.formatannotation(said)
            raise ValueError(f"penalty {name!r}: {option} is {value!r}; expected {expected}")


def _fits(value: Any, expected: Any) -> bool:
    """Whether a value is of a type, where that is one of those that options in a file have; True for any other."""
    origin, arguments = get_origin(expected), get_args(expected)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is Literal:
        return True  # which of them it is, the penalty says
    if origin in (Sequence, list, tuple):
        listed = isinstance(value, Collection) and not isinstance(value, str | Mapping)
        return listed and all(_fits(part, arguments[0]) for part in value)
    flag = isinstance(value, bool | np.bool_)
    if expected is bool:
        return flag
    if expected in (int, float):
        return isinstance(value, Integral if expected is int else Real) and not flag
    return isinstance(value, expected) if expected in (str, type(None)) else True
