"""Trainings that differ in the penalty and the seed only, and one table of what they are worth.

A comparison is a folder with a run folder for each penalty and seed. A run is finished once it has its evaluation.json,
written last and in one step; a comparison that is started again goes on with the first that is not, from its last
checkpoint. Penalties and seeds can be added later; all other options must stay, or the runs would not compare.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from torch import Generator, Tensor
from tqdm import tqdm

from otkit_vae import pictures
from otkit_vae._files import partial_of, write_text
from otkit_vae.config import TrainConfig
from otkit_vae.data import Data
from otkit_vae.evaluation import EvaluationOptions, Reference, decode, ex_post
from otkit_vae.report import write_comparison, write_report
from otkit_vae.runs import (
    CONFIG,
    EVALUATION,
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

COLUMNS = {
    "squared_error": "squared error",
    "log_likelihood_bound": "log p(x) ≥",
    "moments_w2": "W2(q, p) moments",
    "w2": "W2(q, p) samples",
    "active_units": "active units",
    "posterior_scale": "posterior scale",
    "prior_frechet": "Fréchet, prior",
    "mixture_frechet": "Fréchet, mixture",
    "prior_precision": "precision, prior",
    "prior_recall": "recall, prior",
    "augmented_accuracy": "augmented accuracy",
}
"""The measures of the table, by their headings; the files have them all."""

SHOWN = 12
"""How many observations there are in a row of a picture."""


class Row(NamedTuple):
    """One measure of one penalty over the seeds.

    Attributes:
        penalty: The penalty.
        measure: The key of the measure.
        title: What it is, in words.
        mean: The mean over the seeds.
        sd: The standard deviation over the seeds; None of a single one.
        null: The mean of its null values; None where it has none.
        better: "lower" or "higher"; None where neither is.
        n_seeds: The number of seeds.
    """

    penalty: str
    measure: str
    title: str
    mean: float
    sd: float | None
    null: float | None
    better: str | None
    n_seeds: int


@dataclass(frozen=True)
class Comparison:
    """What a comparison found: its folder, and a row for each penalty and measure."""

    folder: Path
    rows: tuple[Row, ...]

    def markdown(self) -> str:
        """The table of all penalties and, where `kl` is among them, that of the winners against it."""
        with_kl = any(row.penalty == "kl" for row in self.rows)
        return self.table() + (f"\n\n{self.winners()}" if with_kl else "")

    def table(self) -> str:
        """A table with a row for each penalty, mean ± standard deviation over the seeds; the best means are bold.

        The last row has the null values: where codes follow the prior, or training data stand for samples.
        """
        cells = {(row.penalty, row.measure): row for row in self.rows}
        penalties = list(dict.fromkeys(row.penalty for row in self.rows))
        keys = [key for key in COLUMNS if any(row.measure == key for row in self.rows)]
        best = {key: _best([row for row in self.rows if row.measure == key]) for key in keys}

        def cell(penalty: str, key: str) -> str:
            row = cells.get((penalty, key))
            if row is None:
                return "–"
            text = f"{row.mean:.4g}" if row.sd is None else f"{row.mean:.4g} ± {row.sd:.2g}"
            return f"**{text}**" if penalty == best[key] else text

        def null(key: str) -> str:
            values = [row.null for row in self.rows if row.measure == key and row.null is not None]
            return f"{np.mean(values):.4g}" if values else ""

        lines = [["penalty", *(COLUMNS[key] for key in keys)]]
        lines += [[penalty, *(cell(penalty, key) for key in keys)] for penalty in penalties]
        lines += [["null value", *(null(key) for key in keys)]]
        return _aligned(lines)

    def winners(self, baseline: str = "kl") -> str:
        """A table of the best penalty by each measure of which one is best, and how it differs from a baseline."""
        lines = [["measure", "best", "mean", baseline, "difference"]]
        for key, heading in COLUMNS.items():
            rows = {row.penalty: row for row in self.rows if row.measure == key}
            name = _best(list(rows.values()))
            if name is None or baseline not in rows:
                continue
            best, base = rows[name].mean, rows[baseline].mean
            relative = f" ({best / base - 1:+.0%})" if min(best, base) > 0 else ""
            lines.append([heading, name, f"{best:.4g}", f"{base:.4g}", f"{best - base:+.3g}{relative}"])
        return _aligned(lines)


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
        weights: The weights of penalties that shall not have their default.
        progress: Whether to show a progress bar over the trainings.

    Raises:
        ValueError: An unknown penalty, options that do not fit the data or a penalty, or data that have changed since
            the comparison began; nothing was trained.
        FileExistsError: The folder has something else in it, or a comparison with other options; or the folder of a run
            has files, and not its options. What can be seen of that beforehand is said before the first training.
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
    comparison = Comparison(out, tuple(_rows(evaluations)))
    _write(comparison)
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
    if isinstance(n_seeds, bool) or not isinstance(n_seeds, int) or n_seeds < 1:
        raise ValueError(f"seeds is {n_seeds!r}; expected a whole number >= 1")
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
        other = [name for name in options if name not in known or known[name] != options[name]]
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
    """The content of a run's evaluation.json, after what is left to do for it."""
    folder, options = Path(str(config.out)), EvaluationOptions(seed=config.seed)
    known = _begun(config)
    if not known and (folder / CONFIG).is_file():
        resume(folder)
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
    # Of an evaluation by hand it is not known whether the training had ended.
    known = {"training", "evaluation", "measures"} <= content.keys() and content.get("ended") is True
    return content if known else {}


def _clear(folder: Path) -> None:
    """Empty the folder of a start that was killed: a training writes its options first, so a part of them is all."""
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
        if known.get(name) != value
    )
    if other:
        raise FileExistsError(f"out: {folder} was trained with {other}; expected the same options, or a new folder")


def _rows(evaluations: Mapping[tuple[str, int], dict[str, Any]]) -> list[Row]:
    """The measures of each penalty, over its seeds."""
    rows = []
    for penalty in dict.fromkeys(name for name, _ in evaluations):
        parts = [content["measures"] for (name, _), content in evaluations.items() if name == penalty]
        for key in dict.fromkeys(key for part in parts for key in part):
            found = [part[key] for part in parts if key in part]
            values = [measure["value"] for measure in found]
            nulls = [measure["null"] for measure in found if measure["null"] is not None]
            sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
            null = float(np.mean(nulls)) if nulls else None
            rows.append(
                Row(penalty, key, found[0]["title"], float(np.mean(values)), sd, null, found[0]["better"], len(values))
            )
    return rows


def _best(rows: Sequence[Row]) -> str | None:
    """The penalty with the best finite mean; None where there is no better and worse, or no single best."""
    rows = [row for row in rows if math.isfinite(row.mean)]
    if len(rows) < 2 or rows[0].better is None:
        return None
    best = (min if rows[0].better == "lower" else max)(row.mean for row in rows)
    first, *others = (row.penalty for row in rows if row.mean == best)
    return None if others else first


def _aligned(lines: list[list[str]]) -> str:
    """A table in Markdown, of which the first line is the headings."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "| " + " | ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)) + " |"
        for line in [lines[0], ["-" * width for width in widths], *lines[1:]]
    )


def _write(comparison: Comparison) -> None:
    lines = io.StringIO(newline="")
    csv.writer(lines).writerows([Row._fields, *comparison.rows])
    rows = [row._asdict() for row in comparison.rows]
    write_text(comparison.folder / "comparison.csv", lines.getvalue())
    write_text(comparison.folder / "comparison.json", json.dumps(rows, indent=2, ensure_ascii=False))
    write_text(comparison.folder / "comparison.md", comparison.markdown() + "\n")


def _draw(configs: Sequence[TrainConfig], data: Data, out: Path) -> dict[str, dict[str, Tensor]]:
    """Samples of the prior and of a mixture, and reconstructions, the same codes and originals for each penalty."""
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
