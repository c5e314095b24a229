"""One training from options to a run folder."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path

import torch
import yaml

from otkit_vae import pictures
from otkit_vae.config import TrainConfig
from otkit_vae.data import Data, load_data
from otkit_vae.engine import fit
from otkit_vae.evaluation import Evaluation, evaluate
from otkit_vae.model import VAE
from otkit_vae.objective import Objective
from otkit_vae.report import write_report
from otkit_vae.runs import open_run


@dataclass(frozen=True)
class Run:
    """What a training left: its folder, the model, and its numbers on held-out data."""

    folder: Path
    model: VAE
    evaluation: Evaluation


def train(config: TrainConfig) -> Run:
    """Train as the options say, and write the run folder.

    The folder has config.yaml, checkpoint.ckpt, metrics.csv (a row an epoch), reconstructions.png, samples.png,
    latent.png and report.html; ``otkit-vae train --config RUN/config.yaml --out OTHER`` repeats the training.

    Raises:
        ValueError: An option or the data are not as they should be; nothing was written.
        FileExistsError: The run folder has something in it.
    """
    data = load_data(config.data, root=config.data_root)
    config = config.with_weight(data.train.shape[1:])
    model, objective = prepare(config, data)
    folder = _new_folder(config.out, f"{data.name}-{config.penalty}")
    # A balanced weight is a result, not an option: given again it would be balanced again.
    config = replace(config, out=str(folder))
    (folder / "config.yaml").write_text(yaml.safe_dump(asdict(config), sort_keys=False))
    print(
        f"{data.name}: {len(data.train)} observations to train on, {len(data.held_out)} held out, "
        f"of shape {tuple(data.train.shape[1:])}; penalty {config.penalty}, weight {objective.weight:g}",
        file=sys.stderr,
    )
    fit(
        model,
        objective,
        data.train,
        data.held_out,
        folder,
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        seed=config.seed,
        progress=config.progress,
    )
    model.cpu()
    pictures.reconstructions(model, data.held_out, folder / "reconstructions.png")
    pictures.samples(model, folder / "samples.png", seed=config.seed)
    pictures.latent_map(model, data.held_out, data.held_out_labels, folder / "latent.png")
    evaluation = evaluate(model, objective, data.held_out, batch_size=config.batch_size, seed=config.seed)
    write_report(open_run(folder, data), evaluation)
    return Run(folder, model, evaluation)


def prepare(config: TrainConfig, data: Data) -> tuple[VAE, Objective]:
    """The untrained model and the objective that the options ask for, checked to fit the data and each other.

    Raises:
        ValueError: They do not fit.
    """
    config = config.with_weight(data.train.shape[1:])
    torch.manual_seed(config.seed)
    try:
        model = VAE.sized(
            data.train.shape[1:],
            config.latent_dim,
            config.likelihood,
            config.widths,
            network=config.network,
            posterior=config.posterior,
            prior=config.prior,
            components=config.components,
            scale=config.scale,
        )
    except RuntimeError as error:  # torch's word for too little memory
        raise MemoryError(
            f"latent_dim {config.latent_dim} and widths {config.widths} make a model that does not fit: {error}"
        ) from None
    objective = Objective(config.make_penalty(), config.weight, warmup=config.warmup)
    for part in (data.train, data.held_out):
        model.likelihood.check(part)
        if len(part) < objective.penalty.min_batch:
            raise ValueError(
                f"data: {len(data.train)} observations to train on and {len(data.held_out)} held out; the penalty "
                f"{config.penalty!r} needs at least {objective.penalty.min_batch} of each"
            )
    first = data.train[: config.batch_size]
    objective.check(model, first)
    if config.balance == "gradient":
        objective.balance(model, first, generator=torch.Generator().manual_seed(config.seed))
    return model, objective


def _new_folder(out: str | None, stem: str) -> Path:
    if out is None:
        for k in count(1):
            folder = Path("runs") / f"{stem}-{k}"
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            return folder
    folder = Path(str(out))
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(f"out: {folder} exists and is not empty; expected a new or empty folder")
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise
    except OSError as error:
        raise OSError(
            f"out: {folder} cannot be made ({error.strerror}); expected a folder that can be written"
        ) from None
    return folder
