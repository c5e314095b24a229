"""The checks of answers, gradients, plans and potentials."""

import numpy as np
import ot
import pytest
import torch

from otkit import empirical
from otkit.testing import (
    LawViolation,
    Problem,
    check_dual_feasibility,
    check_gradient,
    check_gradient_in_weights,
    check_marginals,
    check_problem,
)

x, y, _ = np.random.default_rng(0).normal(size=(3, 5, 2))


def test_a_problem_is_checked_by_its_answer():
    problem = Problem(x, x + 1.0, 2, 2**0.5, "a translation")
    check_problem(empirical.wasserstein, problem)
    with pytest.raises(LawViolation, match=r"W\(x, y\) = the answer \(a translation\)"):
        check_problem(empirical.transport_cost, problem)


def test_the_gradient_of_a_power_has_its_degree():
    check_gradient(empirical.transport_cost, torch.as_tensor(x), torch.as_tensor(y), p=3, power=True)
    with pytest.raises(LawViolation, match="Euler"):
        check_gradient(lambda x, y: (x - y).square().sum(), torch.as_tensor(x), torch.as_tensor(y))


def test_gradients_are_granted_the_rounding_of_the_data_and_no_more():
    """Two points 1 apart, far from the origin: a cost by |x|² + |y|² - 2<x, y> has eps times their size to lose."""
    x, y = torch.tensor([[1e3]], dtype=torch.float64), torch.tensor([[1e3 + 1]], dtype=torch.float64)

    def off_by(error):
        def cost(x, y):
            return (x - y).square().sum() + error * x.sum() - error * x.sum().detach()

        return lambda: check_gradient(cost, x, y, power=True)

    off_by(1e-13)()
    with pytest.raises(LawViolation, match="breaks the law of gradient"):
        off_by(1e-9)()


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("power", [True, False])
def test_gradients_in_the_weights_are_subgradients_also_at_kinks_and_zero_weights(p, power):
    points = torch.as_tensor(x)
    exact = empirical.transport_cost if power else empirical.wasserstein

    def check(distance=exact, a=(1.0, 0.0, 0.0, 0.0, 0.0), b=(0.2, 0.2, 0.2, 0.2, 0.2)):
        first, second = ((cloud, torch.tensor(w, dtype=torch.float64)) for cloud, w in ((points, a), (points + 1, b)))
        other = np.array([0.0, 0.5, 0.0, 0.3, 0.2])
        for step in (1.0, 0.1, 0.01):
            others = [(1 - step) * np.array(w) + step * to for w, to in ((a, other), (b, other[::-1]))]
            check_gradient_in_weights(distance, first, second, *others, p=p, power=power)

    check()
    check(a=(0.2, 0.2, 0.2, 0.2, 0.2))
    check(a=(0.0, 0.5, 0.5, 0.0, 0.0), b=(0.0, 0.5, 0.5, 0.0, 0.0))
    check(lambda x, y, p, a, b: exact(x, y, p, a=a, b=b) + a.sum() - b.sum())  # a constant on each side
    for wrong in (
        lambda x, y, p, a, b: exact(x, y, p, a=a.detach(), b=b),
        lambda x, y, p, a, b: exact(x, y, p, a=a, b=b.detach()),
        lambda x, y, p, a, b: exact(x, y, p, a=2 * a - a.detach(), b=b),
        lambda x, y, p, a, b: exact(x, y, p, a=a, b=2 * b.detach() - b),
        lambda x, y, p, a, b: exact(x, y, p, a=a, b=b) + 0 * torch.log(a).sum(),
    ):
        with pytest.raises(LawViolation, match="breaks the law of gradient in the weights"):
            check(wrong)


@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 0.0), (torch.float64, 5e-10)])
def test_other_weights_may_have_the_sum_but_for_rounding(dtype, off):
    """In float32 those of x sum to 1 + 1.5e-8, those of y to 1 + 3.7e-8."""
    points, a, b = (torch.tensor(part, dtype=dtype) for part in (x[:3], [0.2, 0.3, 0.5], [0.6, 0.3, 0.1]))
    others = np.array([0.7, 0.2, 0.1]) * (1 + off), [0.1, 0.2, 0.7]
    check_gradient_in_weights(empirical.wasserstein, (points, a), (points + 1, b), *others)


def test_plans_and_potentials():
    a, b = np.full(5, 0.2), np.array([0.1, 0.2, 0.3, 0.4])
    M = ot.dist(x, y[:4])
    plan, log = ot.emd(a, b, M, log=True)
    check_marginals(plan, a, b)
    check_dual_feasibility(log["u"], log["v"], M, a=a, b=b, value=(plan * M).sum())
    with pytest.raises(LawViolation, match=r"\|P 1 - a\|_1 = 0"):
        check_marginals(plan * 1.001, a, b)
    with pytest.raises(LawViolation, match=r"\|P\^T 1 - b\|_1 = 0"):
        check_marginals(plan[:, ::-1], a, b)
    with pytest.raises(LawViolation, match="0 <= min P"):
        check_marginals(plan - 1e-9, a, b)
    check_marginals(plan * 1.001, a, b, tol=1e-2)
    with pytest.raises(LawViolation, match=r"f\[\d\] \+ g\[\d\] <= M\[\d, \d\]"):
        check_dual_feasibility(log["u"] + 1e-6, log["v"], M)
    with pytest.raises(LawViolation, match="= the value"):
        check_dual_feasibility(log["u"] - 1e-6, log["v"], M, a=a, b=b, value=(plan * M).sum())
