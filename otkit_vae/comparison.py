"""Trainings that differ only in the penalty and the seed, and one table of what they are worth.

A comparison is a folder with a run folder for each penalty and seed. A run is finished once it has the comparison's
evaluation.json, written last and in one step, which says that the training has ended; a comparison that is started
again goes on with the first run that is not finished, from its last checkpoint. Penalties and seeds can be added later,
and the data may have moved; all other options must stay, or the runs could not be compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Generator, Tensor
from tqdm import tqdm

from otkit._arguments import require_count
from otkit_vae import pictures
from otkit_vae._files import partial_of, write_text
from otkit_vae.compared import Comparison, rows_of
from otkit_vae.config import TrainConfig
from otkit_vae.data import Data
from otkit_vae.evaluation import EvaluationOptions, Reference, decode, ex_post
from otkit_vae.report import write_comparison, write_report
from otkit_vae.runs import (
    CONFIG,
    EVALUATION,
    PLACE,
    data_of,
    evaluated,
    open_run,
    read_config,
    result_options,
    same_data,
    write_evaluation,
)
from otkit_vae.sampling import sample
from otkit_vae.trainer import make_trainer, restored
from otkit_vae.training import prepare, resume, train

SHOWN = 12
"""How many observations there are in a row of a picture."""


def compare(
    base: TrainConfig,
    penalties: Sequence[str],
    *,
    n_seeds: int = 3,
    out: str | Path,
    weights: Mapping[str, float] | None = None,
    progress: bool = True,
) -> Comparison:
    """Train with each penalty and seed, evaluate, and leave a table and pictures.

    The folder gets comparison.csv and comparison.json with all measures, comparison.md with those of the table,
    samples.png, mixture.png and reconstructions.png with a row for each penalty (of the first seed), and report.html.

    Args:
        base: The options of every training, whose seed is the first; its penalty, penalty_options, weight and out are
            not used.
        penalties: The names of the penalties.
        n_seeds: The number of seeds: base.seed, base.seed + 1, ...
        out: The folder, which is new, empty, or a comparison with the same options, that is then continued.
        weights: The weights of penalties that are not to have their default.
        progress: Whether to show a progress bar over the trainings.

    Raises:
        ValueError: An unknown penalty, options that do not fit the data or a penalty, or data that have changed since
            the comparison began; nothing was trained.
        FileExistsError: The folder has something else in it, or a comparison with other options; or the folder of a run
            has files, but not its options. As far as it can be seen beforehand, this is said before the first training.
    """
    out = Path(out)
    configs = _configs(base, penalties, n_seeds, out, dict(weights or {}))
    data = data_of(base)
    configs = [config.with_weight(data.train.shape[1:]) for config in configs]
    for config in configs[::n_seeds]:
        _try(config, data)
    _claim(out, configs[0], data)
    for config in configs:
        _begun(config)
    evaluations, reference = {}, Reference(data, out / "classifier.pt")
    with tqdm(configs, unit="run", desc="comparison", disable=not progress) as bar:
        for config in bar:
            bar.set_postfix(penalty=config.penalty, seed=config.seed)
            evaluations[config.penalty, config.seed] = _run(config, reference)
    comparison = Comparison(out, tuple(rows_of(evaluations)))
    comparison.write()
    shown = _draw([config for config in configs if config.seed == base.seed], data, out)
    write_comparison(comparison, configs, shown)
    return comparison


def _configs(
    base: TrainConfig, names: Sequence[str], n_seeds: int, out: Path, weights: dict[str, float]
) -> list[TrainConfig]:
    """The options of all trainings, checked."""
    if not names:
        raise ValueError("penalties is empty; expected the names of penalties, separated by commas")
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ValueError(f"penalties has {', '.join(twice)} twice; expected each once")
    require_count("seeds", n_seeds)
    unknown = sorted(set(weights) - set(names))
    if unknown:
        raise ValueError(f"weights has {', '.join(unknown)}; expected names among penalties, {', '.join(names)}")
    configs = []
    for name in names:
        for seed in range(base.seed, base.seed + n_seeds):
            folder = str(out / f"{name}-{seed}")
            try:
                configs.append(
                    replace(
                        base,
                        penalty=name,
                        penalty_options=None,
                        weight=weights.get(name),
                        seed=seed,
                        out=folder,
                        progress=False,
                    )
                )
            except ValueError as error:
                raise ValueError(f"penalties: {error}") from None
    return configs


def _try(config: TrainConfig, data: Data) -> None:
    """Make model, objective and trainer once, so that what cannot work says so before the first training."""
    with torch.random.fork_rng(), restored():
        try:
            _, objective = prepare(config, data)
            trainer = make_trainer(config.trainer, objective.penalty, epochs=config.epochs)
            # Each of the processes would go on with this program, to the evaluation and the next training.
            if (n := trainer.num_devices * trainer.num_nodes) > 1:
                raise ValueError(f"trainer asks for {n} processes; expected one, in which a comparison trains all")
        except (ValueError, NotImplementedError) as error:
            raise ValueError(f"penalties: {config.penalty} cannot be trained with these options: {error}") from None


def _claim(out: Path, config: TrainConfig, data: Data) -> None:
    """Make the folder a comparison of these options, or see that it is one."""
    file = out / "options.yaml"
    options = {
        name: value
        for name, value in result_options(config).items()
        if name not in ("penalty", "penalty_options", "weight", "seed")
    }
    if file.is_file():
        known = _options(file)
        # Data may have moved: whether they are the same, their fingerprint says.
        other = [name for name in options if name not in PLACE and (name not in known or known[name] != options[name])]
        if other:
            raise FileExistsError(
                f"out: {out} is a comparison with other options: "
                + ", ".join(f"{name} is {known.get(name)!r} there, {options[name]!r} here" for name in other)
                + "; expected the same options, or a new folder"
            )
        same_data(known.get("fingerprint", {}), data, config.data, out)
        return
    if out.exists() and (not out.is_dir() or any(path != partial_of(file) for path in out.iterdir())):
        raise FileExistsError(f"out: {out} exists and is no comparison; expected a new or empty folder, or one")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"out: {out} cannot be made ({error.strerror}); expected a folder that can be written") from None
    write_text(file, yaml.safe_dump(options | {"fingerprint": data.fingerprint}, sort_keys=False))


def _options(file: Path) -> dict[str, Any]:
    """The options of a comparison that was begun."""
    try:
        return dict(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(
            f"out: {file} does not hold the options of a comparison ({error}); expected the file as it was written, or "
            "a new folder"
        ) from None


def _begun(config: TrainConfig) -> dict[str, Any]:
    """The content of a finished run's evaluation.json, else nothing, after seeing that the run has these options."""
    folder = Path(str(config.out))
    known = _evaluated(folder / EVALUATION)
    if known:
        _same(folder, known["training"], config)
    elif (folder / CONFIG).is_file():
        _same(folder, result_options(read_config(folder / CONFIG)), config)
    return known


def _run(config: TrainConfig, reference: Reference) -> dict[str, Any]:
    """The content of a run's evaluation.json, after doing what is left to do for it."""
    folder, options = Path(str(config.out)), EvaluationOptions(seed=config.seed)
    known = _begun(config)
    if not known and (folder / CONFIG).is_file():
        resume(folder, data=config.data, data_root=config.data_root)
    elif not known:
        _clear(folder)
        train(config)
    if not known or known["evaluation"] != asdict(options):
        run = open_run(folder, reference.data)
        evaluation = evaluated(run, options, reference)
        write_report(run, evaluation)
        write_evaluation(run, options, evaluation, ended=True)
    return _evaluated(folder / EVALUATION)


def _evaluated(file: Path) -> dict[str, Any]:
    """The content of the evaluation.json of a run that has ended; empty if there is none of this version."""
    if not file.is_file():
        return {}
    try:
        content = dict(json.loads(file.read_text(encoding="utf-8")))
    except (TypeError, ValueError):
        return {}
    # For an evaluation by hand it is not known whether the training had ended.
    known = {"training", "evaluation", "measures"} <= content.keys() and content.get("ended") is True
    return content if known else {}


def _clear(folder: Path) -> None:
    """Empty the folder of a start that was killed: a training writes its options first, so it has part of them only."""
    if not folder.is_dir():
        return
    partial = partial_of(folder / CONFIG)
    if any(path != partial for path in folder.iterdir()):
        raise FileExistsError(f"out: {folder} has files but no {CONFIG}; expected a run with its options, or no folder")
    partial.unlink(missing_ok=True)


def _same(folder: Path, known: Mapping[str, Any], config: TrainConfig) -> None:
    """See that a run was trained, or begun, with the options of this comparison."""
    other = ", ".join(
        f"{name} {known.get(name)!r}, not {value!r}"
        for name, value in result_options(config).items()
        if name not in PLACE and known.get(name) != value
    )
    if other:
        raise FileExistsError(f"out: {folder} was trained with {other}; expected the same options, or a new folder")


def _draw(configs: Sequence[TrainConfig], data: Data, out: Path) -> dict[str, dict[str, Tensor]]:
    """Samples of the prior and of a mixture, and reconstructions, of the same codes and originals for each penalty."""
    originals = data.held_out[:SHOWN]
    samples, mixtures, reconstructions = {}, {}, {"originals": originals}
    for config in configs:
        model, generator = open_run(str(config.out), data).model, Generator().manual_seed(config.seed)
        mixture = ex_post(model, data.train, seed=config.seed, generator=generator)
        samples[config.penalty] = model.sample(SHOWN, generator=generator)
        mixtures[config.penalty] = decode(model, sample(mixture, SHOWN, generator))
        reconstructions[config.penalty] = model.reconstruct(originals)
    pictures.side_by_side(samples, out / "samples.png", title="samples: decoded from z ~ p(z)")
    pictures.side_by_side(mixtures, out / "mixture.png", title="samples: decoded from z ~ a mixture of Gaussians")
    pictures.side_by_side(reconstructions, out / "reconstructions.png", title="held-out originals, reconstructions")
    return {"samples": samples, "mixture": mixtures, "reconstructions": reconstructions}
