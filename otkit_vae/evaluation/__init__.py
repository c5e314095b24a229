"""What a trained model is worth: on held-out data, in its latent space, and by what it generates.

`evaluate` is what a training ends with, a second's work; `evaluate_fully` is all there is to say of a model. The pieces
of the latter serve on their own.
"""

from otkit_vae.evaluation._augmentation import Augmentation as Augmentation
from otkit_vae.evaluation._augmentation import Labelled as Labelled
from otkit_vae.evaluation._augmentation import augment as augment
from otkit_vae.evaluation._augmentation import augmentation as augmentation
from otkit_vae.evaluation._augmentation import labelled_subset as labelled_subset
from otkit_vae.evaluation._augmentation import real_accuracies as real_accuracies
from otkit_vae.evaluation._classifier import Classifier as Classifier
from otkit_vae.evaluation._classifier import cached_classifier as cached_classifier
from otkit_vae.evaluation._classifier import fit_classifier as fit_classifier
from otkit_vae.evaluation._codes import Codes as Codes
from otkit_vae.evaluation._codes import decode as decode
from otkit_vae.evaluation._codes import encode as encode
from otkit_vae.evaluation._codes import ex_post as ex_post
from otkit_vae.evaluation._codes import fit_classes as fit_classes
from otkit_vae.evaluation._codes import fit_mixture as fit_mixture
from otkit_vae.evaluation._collapse import noiseless_units as noiseless_units
from otkit_vae.evaluation._full import Bound as Bound
from otkit_vae.evaluation._full import EvaluationOptions as EvaluationOptions
from otkit_vae.evaluation._full import FullEvaluation as FullEvaluation
from otkit_vae.evaluation._full import Samples as Samples
from otkit_vae.evaluation._full import evaluate_fully as evaluate_fully
from otkit_vae.evaluation._held_out import Evaluation as Evaluation
from otkit_vae.evaluation._held_out import evaluate as evaluate
from otkit_vae.evaluation._latent import Latent as Latent
from otkit_vae.evaluation._latent import active_units as active_units
from otkit_vae.evaluation._latent import latent as latent
from otkit_vae.evaluation._likelihood import importance_weighted_bound as importance_weighted_bound
from otkit_vae.evaluation._measures import Measure as Measure
from otkit_vae.evaluation._precision_recall import PrecisionRecall as PrecisionRecall
from otkit_vae.evaluation._precision_recall import precision_recall as precision_recall
from otkit_vae.evaluation._reference import Reference as Reference
from otkit_vae.evaluation._reference import labelled as labelled
from otkit_vae.evaluation._samples import Quality as Quality
from otkit_vae.evaluation._samples import quality as quality
from otkit_vae.evaluation._samples import sample_quality as sample_quality

__all__ = [
    "Augmentation",
    "Bound",
    "Classifier",
    "Codes",
    "Evaluation",
    "EvaluationOptions",
    "FullEvaluation",
    "Labelled",
    "Latent",
    "Measure",
    "PrecisionRecall",
    "Quality",
    "Reference",
    "Samples",
    "active_units",
    "augment",
    "augmentation",
    "cached_classifier",
    "decode",
    "encode",
    "evaluate",
    "evaluate_fully",
    "ex_post",
    "fit_classes",
    "fit_classifier",
    "fit_mixture",
    "importance_weighted_bound",
    "labelled",
    "labelled_subset",
    "latent",
    "noiseless_units",
    "precision_recall",
    "quality",
    "real_accuracies",
    "sample_quality",
]
