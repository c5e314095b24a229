"""Warnings name the line that called, whatever stands between it and where they arise."""

import _thread
import contextlib
import inspect
import itertools
import queue

import numpy as np
import pytest
import torch
from torch.distributions import Normal

import otkit
from otkit import ConvergenceWarning, _convergence, distributions, empirical, gaussian
from otkit.gaussian import _conjugate_gradients, _mixture
from otkit.pairwise import _tiles

r = np.random.default_rng(0)
x, y = r.normal(size=(2, 60, 2))
locs, factors = r.normal(size=(4, 3)), r.normal(size=(4, 3, 3))
covs = factors @ factors.mT
MIXTURE = np.full(4, 0.25), locs, covs
POINTS = [x, y]


def my_distance(first, second):
    return empirical.wasserstein(first, second, max_iter=1)


CALLS = {
    "wasserstein": lambda: otkit.wasserstein(x, y, max_iter=1),
    "empirical.wasserstein": lambda: empirical.wasserstein(x, y, max_iter=1),
    "transport_cost": lambda: empirical.transport_cost(x, y, max_iter=1),
    "sinkhorn_cost": lambda: empirical.sinkhorn_cost(x, y, reg=0.01, max_iter=1),
    "sinkhorn_divergence": lambda: empirical.sinkhorn_divergence(x, y, reg=0.01, max_iter=1),
    "solve": lambda: empirical.solve(x, y, max_iter=1),
    "solve with reg": lambda: empirical.solve(x, y, reg=0.01, max_iter=1),
    "solve_matrix": lambda: empirical.solve_matrix(x @ y.T, max_iter=1),
    "max_sliced_wasserstein": lambda: empirical.max_sliced_wasserstein(x, y, max_iter=1),
    "barycenter": lambda: gaussian.barycenter(locs, covs, max_iter=1),
    "mixture_w2": lambda: gaussian.mixture_w2(*MIXTURE, MIXTURE[0], locs + 1, covs),
    "mixture_plan": lambda: gaussian.mixture_plan(*MIXTURE, MIXTURE[0], locs + 1, covs),
    "pairwise_distances": lambda: otkit.pairwise_distances(POINTS, max_iter=1),
    "pairwise_tiles": lambda: list(otkit.pairwise_tiles(POINTS, max_iter=1)),
    "with a bar": lambda: otkit.pairwise_distances(POINTS, max_iter=1, progress=True),
    "certified": lambda: otkit.pairwise_distances(POINTS, max_iter=1, bounds=True),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_line_that_called(name, monkeypatch):
    couple = _mixture.couple
    monkeypatch.setattr(_mixture, "couple", lambda a, b, M: couple(a, b, M)._replace(optimal=False))
    with pytest.warns(ConvergenceWarning) as record:
        CALLS[name]()
    assert (record[0].filename, record[0].lineno) == (__file__, CALLS[name].__code__.co_firstlineno)


def test_of_another_process(monkeypatch):
    monkeypatch.setattr(_tiles.os, "getpid", itertools.count().__next__)
    test_the_line_that_called("pairwise_distances", monkeypatch)


def test_a_distance_of_ones_own_is_named_and_not_the_matrix():
    with pytest.warns(ConvergenceWarning) as record:
        otkit.pairwise_distances(POINTS, distance=my_distance)
    assert record[0].filename == __file__
    assert record[0].lineno == inspect.getsourcelines(my_distance)[1] + 1


def test_the_line_that_asked_for_a_gradient(monkeypatch):
    monkeypatch.setattr(_conjugate_gradients, "range", lambda n: range(1), raising=False)
    C = torch.tensor(covs, requires_grad=True)
    S = gaussian.barycenter(torch.tensor(locs), C)[1]
    with pytest.warns(ConvergenceWarning, match="linear system of a gradient") as record:
        S.square().sum().backward()
    assert record[0].filename == __file__


def test_of_distributions():
    class Mine(Normal):
        pass

    before = dict(distributions._FORMS)
    for types in ((Mine, Normal), (Normal, Mine)):
        distributions.register_w2_squared(*types)(lambda p, q: torch.tensor(1.0))
    try:
        with pytest.warns(RuntimeWarning, match="ambiguous") as record:
            otkit.wasserstein(Mine(0.0, 1.0), Mine(0.0, 1.0))
    finally:
        distributions._FORMS.clear()
        distributions._FORMS.update(before)
    assert record[0].filename == __file__


def test_where_nothing_called(monkeypatch):
    """As in a thread of autograd."""
    said = queue.SimpleQueue()
    monkeypatch.setattr(_convergence.warnings, "warn", lambda *args, **_: said.put(args))
    _thread.start_new_thread(otkit.wasserstein, (x, y), {"max_iter": 1})
    assert said.get(timeout=60)[1] is ConvergenceWarning


def test_failures_are_noted_by_the_innermost_that_is_open():
    with _convergence.noted_failures() as outer:
        with _convergence.noted_failures() as inner:
            ConvergenceWarning("within")
        with contextlib.suppress(ZeroDivisionError), _convergence.noted_failures():
            _ = 1 / 0
        ConvergenceWarning("after")
    ConvergenceWarning("later")
    assert (outer, inner) == (["after"], ["within"])
