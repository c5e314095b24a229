"""Improved precision and recall: configurations that can be counted by hand, and the definition written out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otkit_vae.evaluation import precision_recall


def by_definition(real, generated, k):
    """Equations (1) and (2) of Kynkäänniemi et al. (2019), point by point."""

    def inside(point, support):
        for i, centre in enumerate(support):
            others = sorted(np.linalg.norm(centre - other) for j, other in enumerate(support) if j != i)
            if np.linalg.norm(point - centre) <= others[k - 1]:
                return True
        return False

    return (
        np.mean([inside(point, real) for point in generated]),
        np.mean([inside(point, generated) for point in real]),
    )


@given(st.integers(0, 10_000), st.integers(4, 12), st.integers(4, 12), st.integers(1, 3))
def test_it_is_the_definition(seed, n, m, k):
    rng = np.random.default_rng(seed)
    # Whole numbers, so that points coincide and lie on the edges of balls.
    real, generated = rng.integers(0, 5, (n, 2)).astype(float), rng.integers(1, 7, (m, 2)).astype(float)
    found = precision_recall(torch.tensor(real), torch.tensor(generated), k=k)
    assert found == pytest.approx(by_definition(real, generated, k), abs=1e-15)


def test_known_configurations():
    line = torch.arange(6.0)[:, None]
    # Balls of radius one around whole numbers (k = 1): 5.5 and 6 are inside, 6.5 is not.
    found = precision_recall(line, torch.tensor([[5.5], [6.0], [6.5], [100.0]]), k=1)
    # Balls of the generated: radius .5 around 5.5, 6 and 6.5, 93.5 around 100; of the real, 5 is in the first.
    assert found == (0.5, 1 / 6)
    assert precision_recall(line, line, k=1) == (1, 1)
    assert precision_recall(line, line + 1000, k=1) == (0, 0)


def test_modes_that_are_missing_cost_recall_and_modes_that_are_invented_cost_precision():
    torch.manual_seed(0)
    first, second = torch.randn(200, 4), torch.randn(200, 4) + 100
    both = torch.cat([first, second])
    one = torch.randn(400, 4)
    missing, invented = precision_recall(both, one), precision_recall(one, both)
    assert missing.precision > 0.9
    assert 0.4 < missing.recall <= 0.5
    assert 0.4 < invented.precision <= 0.5
    assert invented.recall > 0.9


def test_chunks_make_no_difference(monkeypatch):
    torch.manual_seed(0)
    x, y = torch.randn(50, 3), torch.randn(40, 3) + 0.5
    whole = precision_recall(x, y)
    monkeypatch.setattr("otkit_vae.evaluation._precision_recall.CHUNK", 7)
    assert precision_recall(x, y) == whole


@pytest.mark.parametrize(
    ("real", "generated", "k", "message"),
    [
        (torch.zeros(5), torch.zeros(5, 2), 3, "real has shape"),
        (torch.zeros(5, 3), torch.zeros(5, 2), 3, "generated has shape"),
        (torch.zeros(5, 2), torch.zeros(3, 2), 3, "k is 3, and generated has 3 points"),
        (torch.zeros(5, 2), torch.zeros(5, 2), 0, "k is 0"),
        (torch.full((5, 2), float("nan")), torch.zeros(5, 2), 3, "real has NaN"),
    ],
)
def test_bad_input(real, generated, k, message):
    with pytest.raises(ValueError, match=message):
        precision_recall(real, generated, k=k)
