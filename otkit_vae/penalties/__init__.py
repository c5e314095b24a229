"""Latent penalties: what holds the code of a VAE to its prior, interchangeable by name.

>>> from otkit_vae import penalties
>>> len(penalties.names()), "wasserstein" in penalties.names()
(11, True)
>>> penalties.get("sinkhorn", reg=0.5).estimand
'aggregated'
"""

from otkit_vae.penalties._interface import AdversarialPenalty as AdversarialPenalty
from otkit_vae.penalties._interface import AggregatedPenalty as AggregatedPenalty
from otkit_vae.penalties._interface import LatentPenalty as LatentPenalty
from otkit_vae.penalties._interface import PerSamplePenalty as PerSamplePenalty
from otkit_vae.penalties._registry import get as get
from otkit_vae.penalties._registry import names as names
from otkit_vae.penalties._registry import register as register
from otkit_vae.penalties.aggregated_gaussian_w2 import AggregatedGaussianW2 as AggregatedGaussianW2
from otkit_vae.penalties.cramer_wold import CramerWold as CramerWold
from otkit_vae.penalties.gaussian_w2 import GaussianW2 as GaussianW2
from otkit_vae.penalties.kl import KL as KL
from otkit_vae.penalties.max_sliced import MaxSliced as MaxSliced
from otkit_vae.penalties.mmd import MMD as MMD
from otkit_vae.penalties.none import NoPenalty as NoPenalty
from otkit_vae.penalties.sinkhorn import Sinkhorn as Sinkhorn
from otkit_vae.penalties.sliced import Sliced as Sliced
from otkit_vae.penalties.wae_gan import WaeGan as WaeGan
from otkit_vae.penalties.wasserstein import Wasserstein as Wasserstein

__all__ = [
    "KL",
    "MMD",
    "AdversarialPenalty",
    "AggregatedGaussianW2",
    "AggregatedPenalty",
    "CramerWold",
    "GaussianW2",
    "LatentPenalty",
    "MaxSliced",
    "NoPenalty",
    "PerSamplePenalty",
    "Sinkhorn",
    "Sliced",
    "WaeGan",
    "Wasserstein",
    "get",
    "names",
    "register",
]
