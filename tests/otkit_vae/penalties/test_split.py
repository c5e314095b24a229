"""The energy form over more processes than it has terms; its values and derivatives are in `test_formulas`."""

import pytest
import torch
import torch.distributed as dist

from otkit.empirical import transport_cost
from otkit_vae import processes
from otkit_vae.penalties._split import energy


@pytest.mark.parametrize("n", [8, 9])
@pytest.mark.parametrize("ranks", [4, 8])
def test_shares_average_to_the_whole_over_any_number_of_processes(monkeypatch, n, ranks):
    x, y = torch.randn(2, n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = energy(transport_cost, z := x.clone().requires_grad_(), y)
    expected.backward()
    monkeypatch.setattr(processes, "spread", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: ranks)
    # What each process adds to the average of the derivatives.
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: None)
    values, gradients = [], []
    with processes.known(ranks, 0):
        for rank in range(ranks):
            monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
            mine = energy(transport_cost, part := x.clone().requires_grad_(), y)
            mine.backward()
            values.append(mine.item())
            gradients.append(part.grad)
    assert sum(values) / ranks == pytest.approx(expected.item(), rel=1e-12)
    assert sum(gradients) == pytest.approx(z.grad, rel=1e-12)
