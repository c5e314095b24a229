r"""All numbers of a trained model: on held-out data, of its codes, likelihood and samples, and of the use of these."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from otkit._arguments import require_count
from otkit_vae.data import Data
from otkit_vae.evaluation._augmentation import Augmentation, augmentation
from otkit_vae.evaluation._codes import encode, ex_post
from otkit_vae.evaluation._held_out import Evaluation, evaluate
from otkit_vae.evaluation._latent import Latent, latent
from otkit_vae.evaluation._likelihood import has_density, importance_weighted_bound
from otkit_vae.evaluation._measures import Measure, Section, table
from otkit_vae.evaluation._precision_recall import NEIGHBOUR
from otkit_vae.evaluation._rare import rare_classes
from otkit_vae.evaluation._reference import Reference
from otkit_vae.evaluation._samples import Quality, sample_quality
from otkit_vae.model import VAE
from otkit_vae.objective import Objective
from otkit_vae.sampling import checked_seed

LARGEST_BOUND = 1000
"""The most held-out observations of which the importance-weighted bound is computed."""


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of a full evaluation.

    Args:
        importance_samples: How many samples for each observation in the bound of the log-likelihood.
        labelled_per_class: How many training observations of each class are labelled, where data are augmented.
        generated_per_class: How many observations of each class are generated then.
        seed: Seeds all draws. The classifier of the features is the same for every seed.
    """

    importance_samples: int = 100
    labelled_per_class: int = 10
    generated_per_class: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("importance_samples", 1), ("labelled_per_class", 2), ("generated_per_class", 1)):
            object.__setattr__(self, name, require_count(name, getattr(self, name), least))
        checked_seed(self.seed)


@dataclass(frozen=True)
class Bound:
    r"""The importance-weighted bound on some held-out observations.

    Attributes:
        n: The number of observations.
        n_samples: The number of samples K for each.
        value: The mean bound of log p(x), in nats.
    """

    n: int
    n_samples: int
    value: float

    def measure(self) -> Measure:
        """The number, with its title."""
        title = f"log p(x) >= (K = {self.n_samples}, n = {self.n}), nats"
        return Measure("log_likelihood_bound", title, self.value, better="higher")


@dataclass(frozen=True)
class Samples:
    """Samples in the features of a classifier of the data, or, where these have no labels, as they are.

    Attributes:
        accuracy: The classifier's accuracy on held-out data; None where there is no classifier.
        prior: The samples that are decoded from the prior.
        mixture: Those from a mixture of Gaussians fitted to the training codes.
        real: As many training observations in their place.
    """

    accuracy: float | None
    prior: Quality
    mixture: Quality
    real: Quality


@dataclass(frozen=True)
class FullEvaluation:
    """All numbers of a trained model.

    Attributes:
        held_out: Reconstruction, penalty, and the distance of the codes to the prior.
        latent: More of the codes: sliced distance, active units.
        bound: The importance-weighted bound; None for a posterior without a density.
        samples: What is generated.
        augmentation: What that is worth to a classifier; None without labels, or without two of each class.
        rare: What to know of classes with few training observations, or none, in words.
    """

    held_out: Evaluation
    latent: Latent
    bound: Bound | None
    samples: Samples
    augmentation: Augmentation | None
    rare: tuple[str, ...] = ()

    @property
    def sections(self) -> tuple[Section, ...]:
        """The numbers under headings."""
        bound = () if self.bound is None else (self.bound.measure(),)
        held_out = self.held_out.section
        s, space = self.samples, "classifier features" if self.samples.accuracy is not None else "data space"
        accuracy = () if s.accuracy is None else (Measure("classifier_accuracy", "classifier's accuracy", s.accuracy),)
        parts = [
            held_out._replace(measures=(*held_out.measures, *bound)),
            Section("codes of held-out data", "at q = p", tuple(self.latent.measures())),
            Section(f"samples of the prior, in {space}", "real data", (*s.prior.measures("prior", s.real), *accuracy)),
            Section(f"samples of a mixture, in {space}", "real data", tuple(s.mixture.measures("mixture", s.real))),
        ]
        if self.augmentation is not None:
            parts.append(Section("augmented training", "real only", tuple(self.augmentation.measures())))
        return tuple(parts)

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of the numbers."""
        s, n = self.samples, self.samples.real.n
        few = f"no precision and recall: they need more than {NEIGHBOUR} points, and there are {n}"
        return (
            *self.held_out.notes,
            *self.latent.notes,
            *([] if self.bound else ["no bound of log p(x): the posterior is deterministic and has no density"]),
            *([few] if s.real.precision is None else []),
            *s.prior.notes("the prior", s.real),
            *s.mixture.notes("a mixture", s.real),
            *(self.rare if s.accuracy is not None else ()),
            "classifier features: of a small classifier trained on these data, not Inception's"
            if s.accuracy is not None
            else "the data have no labels of two classes in both parts: samples are compared in data space, and what "
            "they are worth to a classifier is not known",
        )

    @property
    def measures(self) -> tuple[Measure, ...]:
        """All numbers, in the order of the table."""
        return tuple(measure for section in self.sections for measure in section.measures)

    def table(self) -> str:
        """The numbers as a table for a terminal."""
        return table(self.sections, self.notes)

    def as_dict(self) -> dict[str, Any]:
        """The numbers by their keys, and the notes, ready for JSON."""
        return {
            "measures": {
                measure.key: {name: part for name, part in measure._asdict().items() if name != "key"}
                for measure in self.measures
            },
            "sections": [
                {"heading": part.heading, "null": part.null, "measures": [measure.key for measure in part.measures]}
                for part in self.sections
            ],
            "notes": list(self.notes),
        }


@torch.no_grad()
def evaluate_fully(
    model: VAE,
    objective: Objective,
    data: Data,
    options: EvaluationOptions = EvaluationOptions(),
    *,
    batch_size: int = 128,
    reference: Reference | None = None,
    progress: bool = False,
) -> FullEvaluation:
    """Compute all numbers of a trained model.

    Each is computed on all held-out observations where that is feasible, and otherwise on the first of them,
    in which case its title says how many.

    Args:
        model: The model.
        objective: The objective that it was trained with.
        data: The data that it was trained on, with what was held out.
        options: The options of the evaluation: how many of what.
        batch_size: The batch size at which the penalty is computed.
        reference: The `Reference` of these data, to be shared by models of them; made anew if None.
        progress: Whether to show, on a terminal, which part is computed.
    """
    reference = Reference(data) if reference is None else reference
    generator = torch.Generator().manual_seed(options.seed)
    parts: dict[str, Callable[[], Any]] = {
        "held-out data": lambda: evaluate(model, objective, data.held_out, batch_size=batch_size, seed=options.seed),
        "codes": lambda: latent(
            encode(model, data.held_out, generator=generator), model.prior, generator=generator, seed=options.seed
        ),
        "bound of log p(x)": lambda: _bound(model, data.held_out, options.importance_samples, generator),
        "samples": lambda: _samples(model, reference, options.seed, generator),
        "augmented training": lambda: _augmentation(model, reference, options),
        "rare classes": lambda: rare_classes(data, options.labelled_per_class),
    }
    return FullEvaluation(*(part() for part in (_shown(parts) if progress else parts.values())))


def _shown(parts: Mapping[str, Callable[[], Any]]) -> Iterator[Callable[[], Any]]:
    """The parts, and on a terminal a bar that says which is computed, gone once all are."""
    from tqdm import tqdm

    with tqdm(parts.items(), unit="part", disable=None, leave=False) as bar:
        for name, part in bar:
            bar.set_description(f"evaluation: {name}")
            yield part


def _augmentation(model: VAE, reference: Reference, options: EvaluationOptions) -> Augmentation | None:
    real = reference.real_accuracies(options.labelled_per_class, options.seed)
    if real is None or reference.train is None or reference.held_out is None:
        return None
    return augmentation(
        model,
        reference.train,
        reference.held_out,
        labelled_per_class=options.labelled_per_class,
        generated_per_class=options.generated_per_class,
        seed=options.seed,
        real=real,
    )


def _bound(model: VAE, x: Tensor, n_samples: int, generator: torch.Generator) -> Bound | None:
    x = x[:LARGEST_BOUND]
    if not has_density(model, x[:1]):
        return None
    bounds = importance_weighted_bound(model, x, n_samples=n_samples, generator=generator)
    return Bound(len(x), n_samples, bounds.mean().item())


def _samples(model: VAE, reference: Reference, seed: int, generator: torch.Generator) -> Samples:
    fitted = ex_post(model, reference.data.train, seed=seed, generator=generator)
    prior, mixture = (
        sample_quality(model, codes, reference.features, reference.real, generator=generator)
        for codes in (model.prior, fitted)
    )
    return Samples(accuracy=reference.accuracy, prior=prior, mixture=mixture, real=reference.null)
