"""Which observations come in which batch, in one process and over several."""

from itertools import chain

import pytest
import torch
import torch.distributed as dist

from otkit_vae import processes
from otkit_vae.batches import Batches


def contents(batches):
    return [batch.tolist() for batch in batches]


def joined(lists):
    return list(chain.from_iterable(lists))


@pytest.fixture
def processes_of(monkeypatch):
    """Be one of several processes."""

    def become(rank, world):
        monkeypatch.setattr(processes, "spread", lambda: True)
        monkeypatch.setattr(dist, "get_rank", lambda: rank)
        monkeypatch.setattr(dist, "get_world_size", lambda: world)

    return become


def test_the_seed_and_the_epoch_order_the_data():
    x = torch.arange(20.0)
    one, two, other = Batches(x, 5, seed=1), Batches(x, 5, seed=1), Batches(x, 5, seed=2)
    first = contents(one)
    assert first == contents(two)
    assert first != contents(other)
    assert one.epoch == 1
    assert contents(one) != first
    two.set_epoch(0)
    assert contents(two) == first
    assert sorted(joined(first)) == x.tolist()


def test_no_epoch_of_a_seed_is_one_of_another():
    orders = [tuple(Batches(torch.arange(20.0), 20, seed=s).indices(k, 0).tolist()) for s in range(8) for k in range(8)]
    assert len(set(orders)) == 64


def test_a_remainder_is_left_out_in_training_another_each_epoch():
    batches = Batches(torch.arange(11.0), 4, seed=0)
    assert len(batches) == 2
    epochs = [joined(contents(batches)) for _ in range(20)]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert set(joined(epochs)) == set(range(11))


def test_fewer_observations_than_a_batch_are_one():
    batches = Batches(torch.arange(3.0), 10, seed=0)
    assert len(batches) == 1
    assert sorted(joined(contents(batches))) == [0, 1, 2]


@pytest.mark.parametrize("n", [2, 3, 7, 8, 9, 40, 41])
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("size", [4, 2])
def test_held_out_observations_come_exactly_once_and_evenly(processes_of, n, size, world):
    if n < world:
        pytest.skip("fewer observations than processes")
    parts = []
    for rank in range(world):
        if world > 1:
            processes_of(rank, world)
        parts.append(contents(Batches(torch.arange(float(n)), size, min_batch=2)))
    whole = [joined(batch) for batch in zip(*parts, strict=True)]
    assert joined(whole) == list(range(n))
    sizes = [len(batch) for batch in whole]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= max(2, world)
    assert max(sizes) <= 5
    assert all(len(part) >= 1 for batches in parts for part in batches)


def test_the_parts_of_processes_make_up_the_batch_of_one(processes_of):
    x = torch.arange(50.0)
    whole = contents(Batches(x, 7, seed=3))
    parts = []
    for rank in range(3):
        processes_of(rank, 3)
        parts.append(contents(Batches(x, 7, seed=3)))
    assert [joined(batch) for batch in zip(*parts, strict=True)] == whole
    assert [len(part) for part in (batches[0] for batches in parts)] == [3, 2, 2]


def test_an_epoch_goes_on_where_it_was():
    x = torch.arange(50.0)
    batches = Batches(x, 7, seed=3)
    batches.set_epoch(4)
    whole = contents(batches)
    for k in range(len(whole)):
        begun = Batches(x, 7, seed=3)
        begun.set_epoch(4)
        iterator = iter(begun)
        for _ in range(k):
            next(iterator)
        other = Batches(x, 7, seed=3)
        other.load_state_dict(begun.state_dict())
        other.set_epoch(4)  # as the epoch that it is in already
        assert contents(other) == whole[k:]


def test_held_out_batches_always_start_at_the_first():
    batches = Batches(torch.arange(6.0), 2)
    next(iter(batches))
    assert contents(batches) == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]


def test_a_batch_is_refused_if_a_process_would_get_none_of_it(processes_of):
    processes_of(0, 3)
    with pytest.raises(ValueError, match="a batch has 2 observations; expected at least one for each of 3 processes"):
        contents(Batches(torch.arange(6.0), 2, seed=0))
