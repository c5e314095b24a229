"""Second derivatives that are not defined are refused, never silently zero."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


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
    return _Refusal.apply(message, first, *inputs)


class _Refusal(torch.autograd.Function):
    @staticmethod
    def forward(message: str, first: Tensor, *inputs: Tensor) -> Tensor:
        return first.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.message = inputs[0]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        raise RuntimeError(ctx.message)
