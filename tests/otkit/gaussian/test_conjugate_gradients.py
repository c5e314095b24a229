import pytest
import torch

from otkit import ConvergenceWarning
from otkit.gaussian._conjugate_gradients import conjugate_gradients


def test_each_problem_of_a_batch_is_solved_on_its_own():
    generator = torch.Generator().manual_seed(0)
    factor, right = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=generator)
    A = factor @ factor.mT + torch.tensor([1.0, 10.0, 1e3]).double()[:, None, None] * torch.eye(4).double()
    right[1] = 0
    torch.testing.assert_close(A @ conjugate_gradients(lambda X: A @ X, right), right, rtol=1e-11, atol=1e-11)


def test_a_system_without_solution_warns_of_its_residual():
    right = torch.eye(2, dtype=torch.float64)
    projection = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    with pytest.warns(ConvergenceWarning, match=r"not solved to 1e-13, its residual is .* of the right-hand side"):
        X = conjugate_gradients(lambda X: projection @ X, right)
    assert X.isfinite().all()
