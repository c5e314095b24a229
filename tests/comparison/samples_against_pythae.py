"""Samples of a VAE on Fashion-MNIST, ours against pythae's: ``python -m tests.comparison.samples_against_pythae``.

All models have the same network (MLP 784-512-8-512-784) and budget (60,000 images, 10 epochs of batches of 128, Adam at
1e-3, one seed). 10,000 decoded draws of N(0, I) are compared with the 10,000 held-out images by their Fréchet distance
in the features of one classifier, the same for all; beside it is the squared error of held-out images, decoded from the
mean of their posterior. pythae's own network of that size is ours as well. With --json FILE every model is a line, and
those that are there are not trained again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from otkit.gaussian import frechet_distance
from otkit_vae import penalties
from otkit_vae.config import TrainConfig
from otkit_vae.data import Data, load_data
from otkit_vae.engine import fit
from otkit_vae.evaluation import Reference
from otkit_vae.trainer import make_trainer
from otkit_vae.training import prepare

D, WIDTH, BATCH, RATE = 8, 512, 128, 1e-3
Functions = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
"""From codes to images, and from images to their reconstructions."""

WAE_WEIGHTS = (0.03, 10.0, 30.0, 100.0, 300.0, 1000.0)


def ours(penalty: str, weight: float | None, options: dict[str, Any], data: Data, epochs: int, seed: int) -> Functions:
    """Decoder and reconstruction of our model, with a sigmoid where the likelihood has none."""
    config = TrainConfig(
        penalty=penalty,
        weight=weight,
        latent_dim=D,
        widths=[WIDTH],
        epochs=epochs,
        seed=seed,
        progress=False,
        **options,
    )
    model, objective = prepare(config, data)
    if config.likelihood == "gaussian":
        model.decoder = nn.Sequential(model.decoder, nn.Sigmoid())  # as pythae's; images are in [0, 1]
    with tempfile.TemporaryDirectory() as folder:
        fit(
            make_trainer({}, objective.penalty, epochs=epochs),
            model,
            objective,
            data.train,
            data.held_out[:BATCH],
            Path(folder),
            batch_size=BATCH,
            learning_rate=RATE,
            seed=seed,
            progress=False,
        )
    return lambda z: model.decode(z).mean, model.reconstruct


def pythaes(name: str, weight: float | None, data: Data, epochs: int, seed: int) -> Functions:
    """Decoder and reconstruction of a model of pythae's."""
    from pythae.models import VAE, WAE_MMD, VAEConfig, WAE_MMD_Config
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    torch.manual_seed(seed)
    shape = {"input_dim": (1, 28, 28), "latent_dim": D}
    model = VAE(VAEConfig(**shape)) if name == "vae" else WAE_MMD(WAE_MMD_Config(**shape, reg_weight=weight))
    with tempfile.TemporaryDirectory() as folder:
        training = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=epochs,
            learning_rate=RATE,
            per_device_train_batch_size=BATCH,
            seed=seed,
            no_cuda=True,
        )
        BaseTrainer(model, _dataset(data.train), training_config=training).train()
    model.eval()
    return (
        lambda z: model.decoder(z).reconstruction[:, 0],
        lambda x: model.decoder(model.encoder(x[:, None]).embedding).reconstruction[:, 0],
    )


def _dataset(x: Tensor) -> torch.utils.data.Dataset:
    from pythae.data.datasets import BaseDataset

    return BaseDataset(x[:, None], torch.zeros(len(x)))


@torch.no_grad()
def measures(functions: Functions, reference: Reference) -> dict[str, float]:
    """The Fréchet distance of decoded draws, and the squared error."""
    decode, reconstruct = functions
    z = torch.randn(len(reference.real), D, generator=torch.Generator().manual_seed(0))
    x = reference.data.held_out
    return {
        "frechet": float(frechet_distance(reference.features(decode(z)).double(), reference.real.double())),
        "squared_error": (x - reconstruct(x)).square().flatten(1).sum(-1).mean().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--penalties", default=",".join(penalties.names()), help="ours, NAME or NAME:WEIGHT, by commas")
    parser.add_argument(
        "--options",
        type=json.loads,
        default={},
        help="of our trainings, as JSON, such as "
        '{"likelihood": "gaussian", "scale": 0.7071, "posterior": "deterministic"}',
    )
    parser.add_argument("--wae-weights", default=",".join(f"{w:g}" for w in WAE_WEIGHTS), help="of pythae's WAE-MMD")
    parser.add_argument("--no-vae", action="store_true", help="without pythae's VAE")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--classifier", type=Path, help="where the classifier is kept")
    parser.add_argument("--json", type=Path, help="where the lines are kept")
    options = parser.parse_args()
    data = load_data("fashion-mnist")
    reference = Reference(data, options.classifier)
    lines = options.json.read_text().splitlines() if options.json and options.json.is_file() else []
    rows = [json.loads(line) for line in lines]
    wanted: list[tuple[str, float | None, dict[str, Any]]] = [] if options.no_vae else [("pythae VAE", None, {})]
    wanted += [("pythae WAE-MMD", float(weight), {}) for weight in options.wae_weights.split(",") if weight]
    for text in filter(None, options.penalties.split(",")):
        penalty, _, weight = text.partition(":")
        wanted.append((penalty, float(weight or penalties.get(penalty).default_weight), options.options))
    epochs, seed = options.epochs, options.seed
    for model, weight, given in wanted:
        about = {"model": model, "weight": weight, "options": given, "epochs": epochs, "seed": seed}
        row = next((row for row in rows if about.items() <= row.items()), None)
        if row is None:
            if model.startswith("pythae"):
                name = "vae" if model.endswith("VAE") else "wae"
                functions = pythaes(name, weight, data, epochs, seed)
            else:
                functions = ours(model, weight, given, data, epochs, seed)
            row = about | measures(functions, reference)
            if options.json:
                with options.json.open("a") as file:
                    print(json.dumps(row), file=file)
        name = model if weight is None else f"{model}, {weight:g}"
        found = f"Fréchet {row['frechet']:7.2f}   squared error {row['squared_error']:6.2f}"
        print(f"{name:<32}{found}   {json.dumps(given) if given else ''}".rstrip(), flush=True)


if __name__ == "__main__":
    main()
