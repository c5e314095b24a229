"""Derivatives that are known beforehand, and derivatives that are refused.

The value of an optimisation problem is differentiated with its optimal variables held (the envelope theorem), so a
solver that has the optimum has the gradient too. `attach` ties such a gradient to the value; `refuse_second` makes a
gradient that must not be differentiated again raise, instead of coming out as a constant. `Function` is what all
operations with a derivative of their own are made of.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor


class Function(torch.autograd.Function):
    """An operation whose passes consist of operations that torch can map and differentiate, backwards.

    It has no `jvp`, the derivative forwards: ``torch.compile(fullgraph=True)`` refuses functions that have one.
    """

    generate_vmap_rule = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # torch asks for it at every call, and Python would work it out each time.
        cls.forward.__signature__ = inspect.signature(cls.forward)  # pyright: ignore[reportFunctionMemberAccess]

    @classmethod
    def at(cls, *arguments: Any) -> Any:
        """The operation at these arguments, with its derivatives."""
        # Not an override of torch's own `apply`, which is a method of Python or of C, as the version goes.
        try:
            return cls.apply(*arguments)
        except NotImplementedError as error:
            if "jvp" not in str(error):
                raise
            raise NotImplementedError(
                "derivatives by forward mode (torch.func.jvp, jacfwd, hessian) are not implemented; those by reverse "
                "mode are: instead of torch.func.hessian(f), take torch.func.jacrev(torch.func.jacrev(f))"
            ) from None


def needs_gradient(*tensors: Tensor) -> bool:
    """Whether a derivative of these may be asked for; inside `torch.func` transforms only the caller knows."""
    if torch._C._are_functorch_transforms_active():
        return True
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def attach(
    value: Tensor, inputs: tuple[Tensor, ...], gradients: tuple[Tensor, ...], *, refuse: str | None = None
) -> Tensor:
    """The value, with given gradients in given inputs added to those that it has.

    Args:
        value: Values, with shape (...); their own history stays.
        inputs: Tensors of shapes (..., *event), with the batch shape of the value.
        gradients: The derivative of the value in each input, of the input's shape. A gradient may have a history
            itself; second derivatives then follow it.
        refuse: What the error says when a second derivative is asked for, where gradients have no such history.
    """
    return _Attach.at(refuse, value, *inputs, *gradients)


def refuse_second(first: Tensor | None, inputs: tuple[Tensor, ...], message: str) -> Tensor | None:
    """The first derivative, such that differentiating it again raises a RuntimeError.

    To be called in the backward pass of a Function: torch's ``once_differentiable`` only refuses where the
    incoming gradient itself has a history, and returns a constant otherwise.

    Args:
        first: The derivative, computed without history.
        inputs: The tensors on which it depends.
        message: What the error says.
    """
    if first is None or not torch.is_grad_enabled():
        return first
    return refuse_gradient(first, inputs, message)


def refuse_gradient(value: Tensor, inputs: tuple[Tensor, ...], message: str) -> Tensor:
    """The value, such that differentiating it in the inputs raises a RuntimeError with the message."""
    return _Refusal.at(message, value, *inputs)


class _Attach(Function):
    @staticmethod
    def forward(refuse: str | None, value: Tensor, *inputs_and_gradients: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.refuse, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (value, *rest) = grad_outputs, ctx.saved_tensors
        inputs, gradients = rest[: len(rest) // 2], rest[len(rest) // 2 :]
        products = [
            grad.reshape((*grad.shape, *[1] * (gradient.ndim - grad.ndim))).to(gradient.dtype) * gradient
            for gradient in gradients
        ]
        if ctx.refuse is not None:
            products = [refuse_second(product, (grad, value, *inputs), ctx.refuse) for product in products]
        return None, grad, *products, *[None] * len(gradients)


class _Refusal(Function):
    @staticmethod
    def forward(message: str, first: Tensor, *inputs: Tensor) -> Tensor:
        return first.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.message = inputs[0]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        raise RuntimeError(ctx.message)
