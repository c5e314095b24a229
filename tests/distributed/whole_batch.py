"""What each of two processes computes of its part of a batch, and one process of all of it."""

import torch
import torch.distributed as dist
from torch.distributions import Independent, MultivariateNormal, Normal
from torch.nn.parallel import DistributedDataParallel

from otkit_vae import VAE, Objective, penalties, processes
from otkit_vae.priors import MixturePrior

N, d, SEED = 13, 3, 5
PARTS = {"7 and 6": 7, "12 and 1": 12}
"""How many observations of the whole batch the first process has."""

OPTIONS = {
    "mmd, gaussian": ("mmd", {"kernel": "gaussian"}),
    "wasserstein, whole": ("wasserstein", {"debiased": False}),
    "wasserstein, p = 1": ("wasserstein", {"p": 1.0, "root": True}),
    "sinkhorn": ("sinkhorn", {"tol": 1e-8}),
    "sinkhorn, divergence": ("sinkhorn", {"split": False, "tol": 1e-8}),
}
CASES = {name: (name, {}) for name in penalties.names()} | OPTIONS
PRIORS = ("normal", "learned mixture")
POSTERIORS = ("diagonal", "full")
GAUSSIAN_ONLY = {"gaussian_w2", "cramer_wold", "mmd, gaussian"}
ALL = [
    (case, prior, posterior)
    for case in CASES
    for prior in PRIORS
    for posterior in POSTERIORS
    if not (prior == "learned mixture" and case in GAUSSIAN_ONLY)
    and not (posterior == "full" and case not in {"kl", "gaussian_w2", "aggregated_gaussian_w2"})
]


def compute(case, prior, posterior, part, generator):
    """The loss of a part of the batch, and the gradients of all parameters.

    Of the whole batch, with a slice of all of it.
    """
    torch.manual_seed(0)
    x, noise = torch.randn(2, N, d, dtype=torch.float64)[:, part]
    encoder, decoder = (torch.nn.Linear(d, n, dtype=torch.float64) for n in (d + d * d, d))
    learned = MixturePrior(d, 2).double()
    p = learned() if prior == "learned mixture" else Independent(Normal(0 * x.new_ones(d), x.new_ones(d)), 1)
    name, options = CASES[case]
    penalty = penalties.get(name, **options).double()
    loc, raw = encoder(x).split([d, d * d], -1)
    tril = raw.unflatten(-1, (d, d)).tril(-1) + torch.diag_embed(0.1 + raw[:, :d].square())
    if posterior == "diagonal":
        scale = tril.diagonal(dim1=-2, dim2=-1)
        q, z = Independent(Normal(loc, scale), 1), loc + scale * noise
    else:
        q, z = MultivariateNormal(loc, scale_tril=tril), loc + (tril @ noise[..., None]).squeeze(-1)
    (error,) = processes.means((decoder(z) - x).square().sum(-1))
    loss = error + 2 * penalty(q, z, p, generator=generator())
    loss.backward()
    parameters = {"encoder": encoder, "decoder": decoder, "prior": learned}
    found = {"loss": loss.detach()} | gradients(parameters)
    if isinstance(penalty, penalties.AdversarialPenalty):
        assert not gradients({"penalty": penalty})
        theirs = penalty.adversary_loss(z, p, generator=generator())
        theirs.backward()
        found |= {"adversary": theirs.detach()} | gradients({"penalty": penalty})
    return found


def gradients(modules):
    return {
        f"{key}.{name}": parameter.grad
        for key, module in modules.items()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def averaged(found):
    """The gradients as DistributedDataParallel makes them; losses as they are."""
    for key, value in found.items():
        if "." in key:
            dist.all_reduce(value)
            value /= dist.get_world_size()
    return found


def here():
    """The draws of each process differ, were they not shared."""
    return torch.Generator().manual_seed(7 + 100 * dist.get_rank())


def of_the_first():
    seed = torch.randint(2**62, (1,), generator=torch.Generator().manual_seed(7))
    return torch.Generator().manual_seed(int(seed))


def of_a_seed():
    """What is shared where the seed is known, call by call."""
    seeds = torch.Generator().manual_seed(SEED)
    return lambda: torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=seeds)))


def local(x):
    """What a penalty of each process's own part would see."""
    return x


def naive(x):
    """The usual way: all_gather has no gradient, and one's own part is put back."""
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.detach().contiguous())
    parts[dist.get_rank()] = x
    return torch.cat(parts)


def process(rank):
    found = {}
    for name, first in PARTS.items():
        part = slice(0, first) if rank == 0 else slice(first, N)
        for case in ALL:
            found["/".join((name, *case))] = averaged(compute(*case, part, here))
    for case in ALL:
        with processes.known(N, SEED):
            mine = averaged(compute(*case, slice(0, 7) if rank == 0 else slice(7, N), lambda: None))
        found["/".join(("known", *case))] = mine | {"loss": processes.total(mine["loss"]) / dist.get_world_size()}
    half = slice(6 * rank, 6 * rank + 6)
    right = processes.collect
    for wrong in (local, naive):
        processes.collect = wrong
        found[wrong.__name__] = averaged(compute("sliced", "normal", "diagonal", half, here))
    processes.collect = right
    found["right"] = averaged(compute("sliced", "normal", "diagonal", half, here))
    found["model"] = train(slice(0, 7) if rank == 0 else slice(7, N))
    with processes.alone():
        found["alone"] = processes.collect(torch.ones(rank + 1, 2)).shape[0], processes.count(torch.ones(rank + 1))
    with processes.known(N, SEED):
        mine = processes.shares(3)
    found["shares"] = mine, processes.shares(3)
    found["counts"] = counts(torch.ones(7 - rank, 2))
    found["errors"], found["talks"] = errors(), talks()
    return found


def train(part):
    """Losses and weights of a model in a loop as users write it, under DistributedDataParallel if there are several."""
    torch.manual_seed(0)
    x = torch.rand(N, 6, dtype=torch.float64)
    model = VAE.sized((6,), 2, widths=[8], posterior="deterministic").double()
    objective = Objective(penalties.get("sliced"))

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.objective = model, objective

        def forward(self, x):
            return self.objective(self.model, x).loss

    both = Both()
    loop = DistributedDataParallel(both) if processes.spread() else both
    optimizer = torch.optim.SGD(both.parameters(), lr=0.1)
    losses = []
    for k in range(3):
        torch.manual_seed(k)
        if not processes.spread():
            # What several processes share is seeded by a draw of the first.
            torch.manual_seed(int(torch.randint(2**62, (1,))))
        loss = loop(x[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return {"losses": torch.stack(losses)} | {k: v.detach() for k, v in model.named_parameters()}


class Mine(penalties.LatentPenalty):
    estimand = "aggregated"

    def forward(self, posterior, z, prior, *, generator=None):
        return (z.mean(0) - prior.mean).square().sum()


def talks():
    """How often processes talk, and wait, in the two passes of a step, apart from gradients; where the batch is known.

    With a penalty of each observation, where it is not known and where it is; and with three of the whole batch.
    """
    told, names = [], ("all_reduce", "all_gather", "broadcast")
    before = {name: getattr(dist, name) for name in names}
    for name in names:
        setattr(dist, name, lambda *given, name=name: (told.append(name), before[name](*given)))

    def step(penalty):
        told.clear()
        loss = Objective(penalties.get(penalty))(VAE.sized((6,), 2), torch.rand(7 - dist.get_rank(), 6)).loss
        forward = len(told)
        loss.backward()
        return forward, len(told) - forward

    try:
        unknown = step("kl")
        with processes.known(N, SEED):
            return unknown, *(step(name) for name in ("kl", "sliced", "wasserstein", "aggregated_gaussian_w2"))
    finally:
        for name in names:
            setattr(dist, name, before[name])


def counts(x):
    """What all processes have, where the batch is not known and where it is; and what is here, as it was."""
    here, n = x.sum(), processes.count(x)
    total = processes.total(here).item()
    with processes.known(N, SEED):
        return n, total, processes.count(x), processes.total(here).item(), here.item()


def errors():
    x, found = torch.rand(4, 6), []
    try:
        Objective(Mine())(VAE.sized((6,), 2), x)
    except ValueError as error:
        found.append(str(error))
    z = torch.rand(4, 2, requires_grad=True)

    def twice(of):
        (first,) = torch.autograd.grad(of(z).pow(3).sum(), z, create_graph=True)
        try:
            first.sum().backward()
        except RuntimeError as error:
            found.append(str(error))

    for of in (processes.collect, processes.total, lambda z: processes.means(z)[0]):
        twice(of)
    with processes.known(N, SEED):
        twice(processes.average_gradient)
    try:
        with processes.known(N, SEED):
            processes.collect(z)
    except ValueError as error:
        found.append(str(error))
    return found
