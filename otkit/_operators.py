"""Functions that depend on the data, as operators that torch sees as one piece.

A check that may raise, a fallback for some matrices of a batch, an iteration that stops when it is done: none of them
can be traced by ``torch.compile`` or mapped by `torch.func`. `operator` hides such a function where torch traces or
maps, and leaves it alone elsewhere; `checked` does so for checks of values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from otkit._derivatives import Function

Operator = TypeVar("Operator", bound=Callable[..., Any])
Check = Callable[[str, Tensor, float], None]
AnyCheck = TypeVar("AnyCheck", bound=Check)


def transforming() -> bool:
    """Whether torch traces this, or maps or differentiates it by `torch.func`."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def operator(name: str, shapes: Callable[..., Any]) -> Callable[[Operator], Operator]:
    """Make a function of tensors an operator ``otkit::name`` wherever `transforming`.

    The function's parameters are annotated; its tensors and its results all have the same leading dimensions, which are
    batches. No result shares memory with an argument.

    Args:
        name: The operator's name.
        shapes: A function from the same arguments to empty tensors of the results' shapes.
    """

    def decorate(function: Operator) -> Operator:
        hidden: Any = torch.library.custom_op(f"otkit::{name}", mutates_args=())(function)
        hidden.register_fake(shapes)

        def over_batch(info: Any, in_dims: Any, *arguments: Any) -> Any:
            moved = [
                argument
                if not isinstance(argument, Tensor)
                else argument.expand(info.batch_size, *argument.shape)
                if dim is None
                else argument.movedim(dim, 0)
                for argument, dim in zip(arguments, in_dims, strict=True)
            ]
            result = hidden(*moved)
            return result, 0 if isinstance(result, Tensor) else type(result)([0] * len(result))

        hidden.register_vmap(over_batch)

        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            return hidden(*arguments) if transforming() else function(*arguments)

        return call  # pyright: ignore[reportReturnType]

    return decorate


_CHECKS: dict[str, Check] = {}


def value_check(check: AnyCheck) -> AnyCheck:
    """Make a check of values, a function ``check(name, tensor, eps)`` that raises, known to `checked`."""
    _CHECKS[check.__name__] = check
    return check


def checked(check: Check, name: str, tensor: Tensor, eps: float = 0.0) -> Tensor:
    """The tensor (..., *event), known to pass a check; later code must use the result, or torch drops the check.

    Args:
        check: A function that was decorated with `value_check`.
        name: What an error calls the tensor.
        tensor: What is checked.
        eps: The rounding of its entries, for checks that judge by it.
    """
    if not transforming():
        check(name, tensor, eps)
        return tensor
    return _Checked.at(tensor, check.__name__, name, eps)


@operator("checked", lambda tensor, check, name, eps: torch.empty_like(tensor))
def _checked(tensor: Tensor, check: str, name: str, eps: float) -> Tensor:
    _CHECKS[check](name, tensor, eps)
    return tensor.clone()


class _Checked(Function):
    @staticmethod
    def forward(tensor: Tensor, check: str, name: str, eps: float) -> Tensor:
        return _checked(tensor, check, name, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing to keep: the derivative is the identity."""

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        return grad_outputs[0], None, None, None
