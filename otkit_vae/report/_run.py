"""What the report of one run shows."""

from __future__ import annotations

import csv
import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from markupsafe import Markup
from torch import Generator, Tensor

from otkit_vae.checkpoint import METRICS
from otkit_vae.config import TrainConfig
from otkit_vae.evaluation import Codes, Evaluation, FullEvaluation, decode, encode, evaluate, ex_post
from otkit_vae.evaluation._measures import Measure, Section
from otkit_vae.report import _codes, _figures
from otkit_vae.report._images import Painter
from otkit_vae.runs import CONFIG, EVALUATION, SavedRun, fixed_options
from otkit_vae.sampling import sample

PAIRS, SAMPLES, WAYS, MARGINALS = 20, 40, 4, 12
"""How many reconstructions, samples of each kind, pairs to go between, and coordinates are shown."""

HEADLINE = ("squared_error", "log_likelihood_bound", "penalty", "moments_w2", "prior_frechet", "mixture_frechet")
"""The measures above the page."""

SOURCES = {"prior_": "samples of the prior", "mixture_": "samples of a mixture"}
"""What the measures whose keys begin so are of; in the tables of a run the heading says it, elsewhere `titled` does."""

EXPLAINED = {
    "active_units": "An active unit is a coordinate of the codes whose posterior mean depends on the observation: its "
    "variance over held-out data is above 0.01.",
    "prior_precision": "Precision is the share of samples that lie among real data, recall the share of real data that "
    "lie among samples: within the ball of some point out to its third nearest neighbour.",
}
"""What is said below the numbers of the measures that there are."""

GREY = (
    "The data have grey values, of which a Bernoulli likelihood is no normalised density: −log p(x|z), and the bound "
    "of log p(x) where there is one, compare models with this likelihood, and no others."
)

CURVES = {
    "loss": ("loss", "nats"),
    "reconstruction": ("reconstruction, −log p(x|z)", "nats"),
    "penalty": ("penalty, before its weight", ""),
    "posterior_scale": ("posterior scale, mean σ of q(z|x)", "units of z"),
}


class Numbers(NamedTuple):
    """The metrics of a run, under headings, and what to know of them."""

    sections: tuple[Section, ...]
    notes: tuple[str, ...]

    def find(self, *keys: str) -> list[tuple[Measure, str]]:
        """The measures of those keys that there are, each with the heading of its null value."""
        known = {measure.key: (measure, section.null) for section in self.sections for measure in section.measures}
        return [known[key] for key in keys if key in known]


def numbers(run: SavedRun, evaluation: Evaluation | FullEvaluation | None) -> Numbers:
    """The numbers of an evaluation; else those of evaluation.json; else those that a training ends with."""
    if isinstance(evaluation, FullEvaluation):
        return Numbers(evaluation.sections, evaluation.notes)
    file = run.folder / EVALUATION
    if evaluation is None and file.is_file():
        return _from_file(file, run)
    if evaluation is None:
        options = {"batch_size": run.config.batch_size, "seed": run.config.seed}
        evaluation = evaluate(run.model, run.objective, run.data.held_out, **options)
    return Numbers((evaluation.section,), evaluation.notes)


def _from_file(file: Path, run: SavedRun) -> Numbers:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        measures = {key: Measure(key, **about) for key, about in content["measures"].items()}
        sections = [
            Section(part["heading"], part["null"], tuple(measures[key] for key in part["measures"]))
            for part in content["sections"]
        ]
        found, training = Numbers(tuple(sections), tuple(content["notes"])), dict(content.get("training", {}))
        for measure in measures.values():
            for value in (measure.value, measure.null):
                number(value)  # what is no number cannot be shown as one
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"run: {file} does not hold an evaluation of this version ({error}); evaluate the run again"
        ) from None
    other = [name for name, value in fixed_options(run.config).items() if training.get(name, value) != value]
    if other:
        raise ValueError(f"run: {file} is of a training with other {', '.join(other)}; evaluate the run again")
    if content.get("step", run.step) != run.step:
        raise ValueError(
            f"run: {file} is of step {content['step']}, and the checkpoint of step {run.step}; evaluate the run again"
        )
    return found


@torch.no_grad()
def content(run: SavedRun, evaluation: Evaluation | FullEvaluation | None) -> dict[str, Any]:
    """All that the page shows, by the names of its template; ``missing`` says why something cannot be shown."""
    generator = Generator().manual_seed(run.config.seed)
    model, data, missing = run.model, run.data, {}
    shown = numbers(run, evaluation)
    codes = encode(model, data.held_out, generator=generator)
    painter = Painter.of(data.held_out)
    mixture = ex_post(model, data.train, seed=run.config.seed, generator=generator)
    drawn = {
        "prior": model.sample(SAMPLES, generator=generator),
        "mixture": decode(model, sample(mixture, SAMPLES, generator)),
    }
    originals = data.held_out[:PAIRS]
    return {
        "title": f"{data.name} · {run.config.penalty}",
        "facts": facts(run),
        "headline": [
            (measure._replace(title=titled(measure.key, measure.title)), null)
            for measure, null in shown.find(*HEADLINE)
        ],
        "curves": _curves(read_metrics(run.folder), shown, missing),
        "painter": painter,
        "reconstructions": painter.tiles(originals, model.reconstruct(originals)),
        "samples": {source: painter.tiles(x) for source, x in drawn.items()},
        "components": mixture.mixture_distribution.probs.shape[-1],
        "map": _map(codes, run, missing),
        "ways": _ways(run, painter, generator, missing),
        "marginals": _marginals(codes, run, generator),
        "n_held_out": len(data.held_out),
        "numbers": shown,
        "explained": explained(run, shown),
        "config": options(run.config),
        "commands": commands(run),
        "missing": missing,
    }


def titled(key: str, title: str) -> str:
    """The title of a measure that stands alone, with the source of the samples that it is of, if it is of some."""
    return ", ".join([title, *(said for start, said in SOURCES.items() if key.startswith(start))])


def explained(run: SavedRun, shown: Numbers) -> list[str]:
    """What the measures that there are mean, a sentence each."""
    x = run.data.held_out
    grey = run.config.likelihood == "bernoulli" and bool(((x != 0) & (x != 1)).any())
    return [*(EXPLAINED[measure.key] for measure, _ in shown.find(*EXPLAINED)), *[GREY] * grey]


def read_metrics(folder: Path) -> dict[str, dict[int, float]]:
    """The columns of metrics.csv, values by their epochs from 1 on; none if there is no such file."""
    file = folder / METRICS
    if not file.is_file():
        return {}
    try:
        with file.open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        return {
            name: {int(row["epoch"]) + 1: float(row[name]) for row in rows if row[name]}
            for name in (rows[0] if rows else ())
        }
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise ValueError(
            f"run: {file} does not hold the metrics of epochs ({error}); expected it as it was written: "
            f"otkit-vae train --resume {shlex.quote(str(folder))} writes it again"
        ) from None


def facts(run: SavedRun) -> list[str]:
    """What was trained on what, in a few words each."""
    config, data = run.config, run.data
    done = "" if run.epochs in (None, config.epochs) else f"{run.epochs} of "
    n_parameters = sum(parameter.numel() for parameter in run.model.parameters())
    shape = " × ".join(map(str, data.train.shape[1:]))
    return [
        f"{len(data.train):,} observations of {shape}, {len(data.held_out):,} held out",
        f"penalty {config.penalty}, weight {run.objective.weight:.4g}",
        f"{config.latent_dim} latent dimension{'s' * (config.latent_dim > 1)}, {config.posterior} posterior, "
        f"{config.prior} prior",
        f"{config.network}, {n_parameters:,} parameters, {config.likelihood} likelihood",
        f"{done}{config.epochs} epoch{'s' * (config.epochs > 1)}, batches of {config.batch_size}, seed {config.seed}",
    ]


def options(config: TrainConfig) -> dict[str, str]:
    """The options of a training as a command line has them."""
    return {name: _text(value) for name, value in asdict(config).items()}


def commands(run: SavedRun) -> dict[str, str]:
    """How to repeat the training, by where: with the run's config, and with nothing but this page."""
    defaults = asdict(TrainConfig())
    changed = [
        part
        for name, value in asdict(run.config).items()
        if value != defaults[name] and name not in ("out", "progress")
        for part in (f"--{name}", _text(value))
    ]
    config = run.folder / CONFIG
    # The data may have a path that is relative as well, to where the training was started.
    near = "on this machine" if config.is_absolute() else f"from the folder in which {run.folder} is this run’s folder"
    return {
        near: shlex.join(["otkit-vae", "train", "--config", str(config), "--out", "NEW"]),
        "from anywhere": shlex.join(["otkit-vae", "train", *changed, "--out", "NEW"]),
    }


def _text(value: Any) -> str:
    """A value as YAML in one line."""
    return value if isinstance(value, str) else json.dumps(value)


def _curves(metrics: Mapping[str, Mapping[int, float]], shown: Numbers, missing: dict[str, str]) -> list[Markup]:
    panels, null = [], {measure.key: measure.null for measure, _ in shown.find("penalty")}
    for name, (title, unit) in CURVES.items():
        parts = {
            said: metrics[f"{part}_{name}"]
            for part, said in (("train", "training"), ("held_out", "held out"))
            if metrics.get(f"{part}_{name}")
        }
        if name == "posterior_scale" and parts and not any(any(values.values()) for values in parts.values()):
            missing["posterior scale"] = "The posterior is deterministic: it has no scale to show."
        elif parts:
            panels.append(_figures.curves(title, unit, parts, null.get(name)))
    if not panels:
        missing["curves"] = "There are no curves: the run folder has no metrics.csv with an epoch in it."
    return panels


def _map(codes: Codes, run: SavedRun, missing: dict[str, str]) -> dict[str, Any] | None:
    labels = run.data.held_out_labels
    if codes.mean.shape[-1] == 1:
        missing["map"] = "There is no map: codes have one dimension, and their distribution is shown whole below."
        return None
    if labels is None:
        missing["labels"] = "The data have no labels to colour the map by."
    found = _codes.map_of(codes, run.model.prior)
    named = None if labels is None else run.data.named(labels[: len(found.points)])
    main = codes.mean.shape[-1] > 2
    # Across units, the standard deviations of each are not all of the noise of a posterior that is not diagonal.
    known = found.spread.any() and not (main and run.config.posterior == "full")
    figure = _figures.latent_map(found.points, named, found.prior, found.axes)
    kinds = [] if named is None else _figures.legend(sorted(set(named.tolist())))
    return {
        "figure": figure,
        "n": len(found.points),
        "share": found.share,
        "kinds": kinds,
        "spread": found.spread.tolist() if known else None,
        "main": main,
    }


def _ways(run: SavedRun, painter: Painter, generator: Generator, missing: dict[str, str]) -> dict[str, Any]:
    x, model = run.data.held_out, run.model
    found = [
        _codes.way(model, x[list(pair)], generator) for pair in _codes.ends(run.data.held_out_labels, len(x), WAYS)
    ]

    def strip(z: Tensor | None) -> list[Markup] | None:
        return None if z is None else painter.tiles(decode(model, z))

    spreads = [way.spread for way in found if way.spread is not None]
    figure = None
    if spreads:
        geodesic, line = (torch.stack(parts).square().mean(0).sqrt().numpy() for parts in zip(*spreads, strict=True))
        figure = _figures.spreads(torch.linspace(0, 1, _codes.STEPS).numpy(), geodesic, line)
    elif run.config.posterior == "deterministic":
        missing["geodesic"] = (
            "The posterior is deterministic: between two points the geodesic is the straight line, and there is no "
            "spread to keep."
        )
    else:
        missing["geodesic"] = "The posterior is no Gaussian: there is no geodesic in closed form."
    return {
        "rows": [{name: strip(getattr(way, name)) for name in ("means", "line", "geodesic")} for way in found],
        "figure": figure,
    }


def _marginals(codes: Codes, run: SavedRun, generator: Generator) -> dict[str, Any]:
    found = _codes.marginals(codes, run.model.prior, generator)
    figures = [
        _figures.marginal(unit, found.q[:, unit], found.p[:, unit], float(found.w2[unit]))
        for unit in found.order[:MARGINALS]
    ]
    return {"figures": figures, "null": found.null, "d": len(found.order), "largest": float(found.w2.max())}


def number(value: float | None, digits: int = 4) -> str:
    """A number as a reader wants it; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.{digits}g}".replace("-", "−") if math.isfinite(value) else str(value)
