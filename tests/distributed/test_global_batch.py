"""Two processes have the loss and the gradients of one with the whole batch, for every penalty."""

import pytest

from tests.distributed import two
from tests.distributed.whole_batch import ALL, PARTS, N, compute, of_a_seed, of_the_first, process, train


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return two.run(process, tmp_path_factory.mktemp("two"))


def wrong_by(found, expected):
    """The largest difference, relative to the largest number of its kind."""
    assert found.keys() == expected.keys()
    return max(
        ((found[key] - expected[key]).abs().max() / expected[key].abs().max().clamp_min(1e-12)).item()
        for key in expected
    )


@pytest.mark.parametrize("case", ALL, ids=" / ".join)
@pytest.mark.parametrize("part", PARTS)
def test_loss_and_gradients_are_those_of_one_process(found, part, case):
    expected = compute(*case, slice(0, N), of_the_first)
    for rank in range(two.WORLD):
        assert wrong_by(found[rank]["/".join((part, *case))], expected) < 1e-6


@pytest.mark.parametrize("case", ALL, ids=" / ".join)
def test_where_the_batch_is_known_shares_average_to_the_loss(found, case):
    expected = compute(*case, slice(0, N), of_a_seed())
    for rank in range(two.WORLD):
        assert wrong_by(found[rank]["/".join(("known", *case))], expected) < 1e-6


def test_a_penalty_of_each_part_and_the_naive_gather_are_caught(found):
    expected = compute("sliced", "normal", "diagonal", slice(0, 12), of_the_first)
    assert wrong_by(found[0]["right"], expected) < 1e-6
    assert wrong_by(found[0]["local"], expected) > 0.01
    assert wrong_by(found[0]["naive"], expected) > 0.01
    # The value of the naive one is right: only gradients tell.
    assert found[0]["naive"]["loss"].item() == pytest.approx(expected["loss"].item(), rel=1e-12)


def test_training_under_distributed_data_parallel_is_that_of_one_process(found):
    expected = train(slice(0, N))
    for rank in range(two.WORLD):
        assert wrong_by(found[rank]["model"], expected) < 1e-6


def test_processes_talk_once_for_a_loss_of_means_and_not_at_all_where_the_batch_is_known(found):
    # Codes are collected once, and where terms are shared out so are their derivatives; moments are two sums, each with
    # one of its derivative.
    expected = ((1, 0), (0, 0), (1, 0), (1, 1), (2, 2))
    assert [found[rank]["talks"] for rank in range(two.WORLD)] == [expected] * two.WORLD


def test_what_costs_much_is_computed_once(found):
    assert [found[rank]["shares"] for rank in range(two.WORLD)] == [([2, 0, 2], [1, 1, 1]), ([0, 2, 0], [1, 1, 1])]


def test_observations_are_counted_over_all_processes_and_what_is_here_stays(found):
    counts = [found[rank]["counts"] for rank in range(two.WORLD)]
    assert counts == [(N, 2 * N, N, 2 * N, here) for here in (14, 12)]


def test_alone_a_batch_is_what_is_here(found):
    assert [found[rank]["alone"] for rank in range(two.WORLD)] == [(1, 1), (2, 2)]


def test_what_is_not_possible_over_several_processes_says_so(found):
    for rank in range(two.WORLD):
        mine, *second, rows = found[rank]["errors"]
        assert "the penalty Mine was computed of the part of the batch that one process has" in mine
        assert ["second derivatives over several processes" in said for said in second] == [True] * 4
        assert f"x has 4 rows; expected {7 - rank}, one for each observation" in rows
