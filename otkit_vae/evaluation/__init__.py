"""What a trained model is worth: on held-out data, in its latent space, and by what it generates."""

from otkit_vae.evaluation._held_out import Evaluation as Evaluation
from otkit_vae.evaluation._held_out import evaluate as evaluate

__all__ = ["Evaluation", "evaluate"]
