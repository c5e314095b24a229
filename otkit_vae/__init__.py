"""Variational auto-encoders whose latent penalty is a Wasserstein distance, or any other, by name.

Plain `torch.nn`: `VAE`, `Objective` and `penalties` work in anyone's own training loop. The command ``otkit-vae``
trains with them; it needs the ``train`` extra.
"""

from otkit_vae import penalties as penalties
from otkit_vae.checkpoint import load as load
from otkit_vae.evaluation import Evaluation as Evaluation
from otkit_vae.evaluation import evaluate as evaluate
from otkit_vae.model import VAE as VAE
from otkit_vae.objective import Objective as Objective
from otkit_vae.objective import Terms as Terms

__all__ = ["VAE", "Evaluation", "Objective", "Terms", "evaluate", "load", "penalties"]
