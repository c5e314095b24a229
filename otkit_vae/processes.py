r"""A batch that is spread over processes, as one.

Under torch.distributed each of R processes has a part of the batch, :math:`n_r` of :math:`N = \sum_r n_r` observations,
and ``DistributedDataParallel`` *averages* their gradients, :math:`\frac1R \sum_r \nabla_\theta L_r`. If each computes a
loss of its own part, that is another loss: a mean of means over parts of different sizes is not the mean over the
batch, and a function of the whole batch, such as an aggregated penalty, is not a mean at all.

Here every process computes the same number :math:`L(s_1, \dots, s_R)` of the statistics :math:`s_r(\theta)` of all of
them. What is collected, by `collect` or `total`, has the sum over processes for its derivative: :math:`s_r` receives
:math:`\sum_q \partial L_q / \partial s_r = R\, \partial L / \partial s_r`, and after the average

.. math:: \frac1R \sum_r \Bigl(\frac{\partial s_r}{\partial \theta}\Bigr)^{\!\top} R\, \frac{\partial L}{\partial s_r}
          = \nabla_\theta L .

Parameters that L knows directly, those of a learned prior, have :math:`\partial L / \partial \phi` on every process,
and on average. Both are the gradient on a single process, whatever the sizes of the parts.
(``torch.distributed.all_gather`` with one's own part put back gives :math:`1/R` of the first and all of the second.)

Where L is known to be that same number everywhere, :math:`R\, \partial L / \partial s_r` is what each process has
already, and nothing is sent in the backward pass (`collect`, `means`). In a loop that knows the batch's size beforehand
(`known`) no sizes and no seeds are sent either, and no means: each process has its *share* :math:`\frac{R}{N} \sum_i
x_i` of them, a sum over its own part, whose average over processes is the mean over the batch, as is that of its
derivatives. Where L is itself a sum of T terms that cost much, each has R times its own terms of it (`shares`), and the
derivatives in what was collected are averaged before they go back to the parts (`average_gradient`).

What is random in L must be the same everywhere (`shared`); what is random in :math:`s_r`, the reparametrisation noise,
must not: seed each process differently. All processes take part in every call, and each has at least one observation,
as torch's distributions do not take empty batches; what only some of them compute goes under `alone`. In one process
nothing here does, or costs, anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import reduce
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Generator, Tensor

from otkit._derivatives import refuse_second


class Known(NamedTuple):
    """What every process knows of a batch: how many observations each has, and where shared seeds come from."""

    sizes: list[int]
    seeds: Generator


_ALONE = ContextVar("_ALONE", default=False)
_KNOWN: ContextVar[Known | None] = ContextVar("_KNOWN", default=None)
ONCE = "second derivatives over several processes are not implemented"


def spread() -> bool:
    """Whether batches are spread over several processes: there is a process group, and we are not `alone`."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1 and not _ALONE.get()


def lost(error: RuntimeError) -> bool:
    """Whether an error says that another process is gone, or out of reach: gloo has no type of error of its own."""
    return spread() and (isinstance(error, dist.DistError) or "gloo" in str(error))


@contextmanager
def alone() -> Iterator[None]:
    """Within this context a batch is what is here, as in one process: for an evaluation on one of several processes."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


@contextmanager
def in_training() -> Iterator[None]:
    """Within this context batches are spread over all processes; after it over those they were spread over before.

    The engine leaves the group that it made for a training, by which the next one finds the same processes. What is
    done in between, such as an evaluation by the first of them, is done alone.
    """
    alone_before, spread_before = _ALONE.get(), spread()
    _ALONE.set(False)
    try:
        yield
    finally:
        _ALONE.set(alone_before or (dist.is_available() and dist.is_initialized() and not spread_before))


@contextmanager
def known(n: int, seed: int) -> Iterator[None]:
    """Let the batch have n observations, in parts as `Batches` makes them, and what is shared come from a seed.

    Both must be the same on every process. `means` are then shares, and sums may be shared out (`shares`), see above.
    """
    if not spread():
        yield
        return
    ranks = dist.get_world_size()
    sizes = [n // ranks + (rank < n % ranks) for rank in range(ranks)]
    token = _KNOWN.set(Known(sizes, Generator().manual_seed(seed)))
    try:
        yield
    finally:
        _KNOWN.reset(token)


def collect(x: Tensor) -> Tensor:
    """The parts of all processes in their order, (N, ...), from the part that is here, (n, ...), differentiable once.

    One row for each observation. What is made from them must be the same number on every process.

    Example:
        >>> collect(torch.ones(3, 2)).shape  # in one process
        torch.Size([3, 2])
    """
    if not spread():
        return x
    what = _KNOWN.get()
    if what is not None and len(x) != what.sizes[dist.get_rank()]:
        raise ValueError(
            f"x has {len(x)} rows; expected {what.sizes[dist.get_rank()]}, one for each observation that is here"
        )
    return _Gather.apply(x, what and what.sizes)


def total(x: Tensor) -> Tensor:
    """The sum over processes of x, of the same shape on each, differentiable once."""
    return _Total.apply(x) if spread() else x


def count(x: Tensor) -> int:
    """The number N of observations in the batch, of which the part that is here is x, (n, ...)."""
    if not spread():
        return len(x)
    what = _KNOWN.get()
    return int(_total(torch.tensor(len(x), device=x.device))) if what is None else sum(what.sizes)


def means(*xs: Tensor) -> tuple[Tensor, ...]:
    """The means over the batch's observations, (...), from the parts that are here, (n, ...), differentiable once.

    The processes talk once for all of them, and not in the backward pass: what is made from the means, a loss, must be
    the same number on every process. (What each makes from them and its own part, such as a variance, takes `total`.)

    Example:
        >>> means(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([0.0, 1.0]))  # in one process
        (tensor([2., 3.]), tensor(0.5000))
    """
    if not spread():
        return tuple(x.mean(0) for x in xs)
    what = _KNOWN.get()
    if what is None:
        return _Means.apply(*xs)
    return tuple(len(what.sizes) / sum(what.sizes) * x.sum(0) for x in xs)


def shares(n: int) -> list[int]:
    """How many times each of n terms is in this process's share of their sum, where the batch is `known`.

    R times for those that it computes, 0 for the others: once each on average. Where it is not, or in one process, 1.
    """
    if not spread() or _KNOWN.get() is None:
        return [1] * n
    ranks = dist.get_world_size()
    return [ranks if k % ranks == dist.get_rank() else 0 for k in range(n)]


def average_gradient(x: Tensor) -> Tensor:
    """The same x, (N, ...), alike on every process; derivatives in it of each process's share become their average."""
    return _AverageGradient.apply(x) if spread() and _KNOWN.get() is not None else x


def shared(generator: Generator | None, like: Tensor) -> Generator | None:
    """A source of randomness that is the same on every process: seeded by a draw from that of the first.

    Args:
        generator: The source that is here; the global state if None.
        like: A tensor on the device on which the processes talk.

    Returns:
        The generator itself in one process.
    """
    if not spread():
        return generator
    what = _KNOWN.get()
    if what is not None and generator is None:
        return Generator().manual_seed(int(torch.randint(2**62, (), generator=what.seeds)))
    device = "cpu" if generator is None else generator.device
    seed = torch.randint(2**62, (1,), generator=generator, device=device).to(like.device)
    dist.broadcast(seed, src=0)
    return Generator(device).manual_seed(int(seed))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: list[int] | None) -> Tensor:
        if sizes is None:
            size = torch.tensor([len(x)], device=x.device)
            each = [torch.empty_like(size) for _ in range(dist.get_world_size())]
            dist.all_gather(each, size)
            sizes = [int(n) for n in each]
        ctx.sizes = sizes
        # Every process sends as many as the largest part has.
        sent = x.new_zeros(max(sizes), *x.shape[1:])
        sent[: len(x)] = x
        parts = [torch.empty_like(sent) for _ in sizes]
        dist.all_gather(parts, sent)
        return torch.cat([part[:n] for part, n in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        # Every process has the same derivative, so that the sum over them need not be sent.
        with torch.no_grad():
            mine = len(ctx.sizes) * grad_outputs[0].split(ctx.sizes)[dist.get_rank()]
        return refuse_second(mine, grad_outputs, ONCE), None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _total(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor | None:
        with torch.no_grad():
            whole = _total(grad_outputs[0])
        return refuse_second(whole, grad_outputs, ONCE)


class _AverageGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor | None:
        with torch.no_grad():
            mean = _total(grad_outputs[0]) / dist.get_world_size()
        return refuse_second(mean, grad_outputs, ONCE)


class _Means(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *xs: Tensor) -> tuple[Tensor, ...]:
        sums = [x.sum(0) for x in xs]
        dtype = reduce(torch.promote_types, (x.dtype for x in xs), torch.float32)
        parts = [x.flatten().to(dtype) for x in (*sums, sums[0].new_tensor(len(xs[0]), dtype=dtype))]
        *totals, n = _total(torch.cat(parts)).split([len(part) for part in parts])
        ctx.n, ctx.here = n.item(), len(xs[0])
        return tuple((t / n).view(x.shape).to(x.dtype) for t, x in zip(totals, sums, strict=True))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        # Every process has the same derivative, so that the sum over them need not be sent.
        each = (dist.get_world_size() / ctx.n * grad.detach() for grad in grad_outputs)
        return tuple(refuse_second(grad.expand(ctx.here, *grad.shape), grad_outputs, ONCE) for grad in each)


def _total(x: Tensor) -> Tensor:
    """The sum over processes."""
    x = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(x)
    return x
