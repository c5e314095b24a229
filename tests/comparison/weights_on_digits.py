"""What samples are worth by the weight of each penalty, on digits: ``python -m tests.comparison.weights_on_digits``.

The training is the default one, of one seed; the figures are the exact W2 between as many samples of the prior as there
are held-out digits and these, the mean of three draws, and the squared error of held-out reconstructions. Arguments are
NAME:WEIGHT, by default those of the sweep that `otkit_vae.penalties._weights` tells of.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from otkit.empirical import wasserstein
from otkit_vae.config import TrainConfig
from otkit_vae.data import load_data
from otkit_vae.engine import fit
from otkit_vae.trainer import make_trainer
from otkit_vae.training import prepare

SWEEP = {
    "kl": (1,),
    "wasserstein": (0.3, 0.9, 3),
    "sinkhorn": (0.3, 0.9, 3),
    "sliced": (10, 30),
    "max_sliced": (3, 10),
    "mmd": (10, 30),
    "cramer_wold": (100, 300),
    "aggregated_gaussian_w2": (3, 10),
    "wae_gan": (0.3, 0.9),
    "gaussian_w2": (0.03, 0.1, 0.3),
}


def main() -> None:
    data = load_data("digits")
    real = data.held_out.flatten(1).double()
    for case in sys.argv[1:] or [f"{name}:{weight:g}" for name, weights in SWEEP.items() for weight in weights]:
        penalty, weight = case.split(":")
        config = TrainConfig(penalty=penalty, weight=float(weight), progress=False)
        model, objective = prepare(config, data)
        with tempfile.TemporaryDirectory() as folder:
            fit(
                make_trainer({}, objective.penalty, epochs=config.epochs),
                model,
                objective,
                data.train,
                data.held_out,
                Path(folder),
                batch_size=config.batch_size,
                learning_rate=config.learning_rate,
                seed=config.seed,
                progress=False,
            )
        generator = torch.Generator().manual_seed(0)
        samples = [model.sample(len(real), generator=generator).flatten(1).double() for _ in range(3)]
        w2 = sum(float(wasserstein(sample, real)) for sample in samples) / len(samples)
        error = (data.held_out - model.reconstruct(data.held_out)).square().flatten(1).sum(-1).mean().item()
        print(f"{case:<28}W2 {w2:.3f}   squared error {error:.3f}", flush=True)


if __name__ == "__main__":
    main()
