"""What `torch.func` can do with these functions, and that it is refused in words where it cannot."""

import pytest
import torch

from otkit import empirical

x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
y = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
SOLVED = {
    "transport_cost": empirical.transport_cost,
    "wasserstein": empirical.wasserstein,
    "solve": lambda x, y: empirical.solve(x, y).value,
    "solve_matrix": lambda x, y: empirical.solve_matrix((x[:, None] - y).square().sum(-1)).value,
    "sinkhorn_cost": lambda x, y: empirical.sinkhorn_cost(x, y, reg=1.0),
    "sinkhorn_divergence": lambda x, y: empirical.sinkhorn_divergence(x, y, reg=1.0),
    "max_sliced_cost": lambda x, y: empirical.max_sliced_cost(x, y, generator=0),
}
SORTED = {
    "transport_cost on the line": lambda x, y: empirical.transport_cost(x[:, :1], y[:, :1]),
    "wasserstein_1d": lambda x, y: empirical.wasserstein_1d(x[:, 0], y[:, 0]),
    "wasserstein_1d_to_normal": lambda x, y: empirical.wasserstein_1d_to_normal(x[:, 0]),
    "sliced_cost": lambda x, y: empirical.sliced_cost(x, y, generator=0),
    "sliced_cost_to_normal": lambda x, y: empirical.sliced_cost_to_normal(x, generator=0),
}


@pytest.mark.parametrize("name", SORTED)
def test_what_sorts_is_differentiated(name):
    points = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(SORTED[name](points, y), points)
    torch.testing.assert_close(torch.func.grad(SORTED[name])(x, y), expected)


@pytest.mark.parametrize("name", SOLVED)
@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacrev])
def test_what_solves_refuses_to_be_differentiated(name, transform):
    with pytest.raises(NotImplementedError, match=r"torch\.func\.grad of this function .* not implemented; batches"):
        transform(SOLVED[name])(x, y)


@pytest.mark.parametrize("name", [*SOLVED, *SORTED])
def test_none_is_mapped(name):
    function = (SOLVED | SORTED)[name]
    for mapped in (function, torch.func.grad(function)):
        with pytest.raises(NotImplementedError, match=r"torch\.func\.\w+ of this function .* not implemented"):
            torch.func.vmap(mapped)(torch.stack([x, x]), torch.stack([y, y]))
