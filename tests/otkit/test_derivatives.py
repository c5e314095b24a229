"""Operations with a derivative of their own, in compiled functions."""

import pytest
import torch

from otkit._derivatives import Function


class Cube(Function):
    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        return 3 * ctx.saved_tensors[0] ** 2 * grad


@pytest.mark.filterwarnings("default")  # torch traces with functions that it deprecates
def test_an_operation_that_torch_meets_by_itself_compiles():
    """In a function that is not one graph, torch compiles what it calls, each by itself."""

    def broken(x):
        for _ in range(1):
            torch._dynamo.graph_break()
            y = Cube.apply(x)
        return y

    torch.compiler.reset()
    x = torch.tensor(2.0, requires_grad=True)
    value = torch.compile(broken, backend="eager")(x)
    assert (value.item(), torch.autograd.grad(value, x)[0].item()) == (8.0, 12.0)
