"""A training step with each penalty against the step with `kl`: MLP 784-512-8, batch 128, Adam, as training does it.

The ratio is kl's time over ours, so 1.10 times kl's step is 1 / 1.10 = 0.91.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from otkit_vae import VAE, Objective, penalties
from tests.benchmarks.paired import Row, paired

CASES: dict[str, tuple[str, dict[str, Any], float | None]] = {
    "gaussian_w2": ("gaussian_w2", {}, 1.10),
    "aggregated_gaussian_w2": ("aggregated_gaussian_w2", {}, 1.10),
    "mmd, gaussian": ("mmd", {"kernel": "gaussian"}, 1.10),
    "cramer_wold": ("cramer_wold", {}, 1.10),
    "sliced": ("sliced", {}, 1.5),
    "sinkhorn": ("sinkhorn", {}, 1.5),
    "wasserstein": ("wasserstein", {}, 2.0),
    "mmd, imq": ("mmd", {}, None),
    "max_sliced": ("max_sliced", {}, None),
    "wae_gan, its discriminator's step included": ("wae_gan", {}, None),
}


def step(name: str, options: dict[str, Any]) -> Callable[[], None]:
    """One training step of a model of its own."""
    torch.manual_seed(0)
    x = torch.rand(128, 28, 28)
    model, objective = VAE.sized((28, 28), 8, widths=[512]), Objective(penalties.get(name, **options))
    objective.check(model, x)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    penalty = objective.penalty
    adversary = (
        torch.optim.Adam(penalty.discriminator.parameters(), lr=penalty.learning_rate)
        if isinstance(penalty, penalties.AdversarialPenalty)
        else None
    )

    def call() -> None:
        terms = objective(model, x)
        optimizer.zero_grad()
        terms.loss.backward()
        optimizer.step()
        if adversary is not None and isinstance(penalty, penalties.AdversarialPenalty):
            adversary.zero_grad()
            penalty.adversary_loss(terms.z, model.prior).backward()
            adversary.step()

    for _ in range(3):
        call()
    return call


def rows() -> Iterator[Row]:
    for case, (name, options, allowed) in CASES.items():
        asked = None if allowed is None else 1 / allowed
        yield from paired(f"step with {case}", step(name, options), {"step with kl": (step("kl", {}), asked)})
