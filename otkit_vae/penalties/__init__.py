"""Latent penalties: what holds the code of a VAE to its prior, interchangeable by name.

>>> from otkit_vae import penalties
>>> penalties.names()
('gaussian_w2', 'kl', 'none', 'sinkhorn', 'wasserstein')
>>> penalties.get("sinkhorn", reg=0.5).estimand
'aggregated'
"""

from otkit_vae.penalties._interface import LatentPenalty as LatentPenalty
from otkit_vae.penalties._interface import PerSamplePenalty as PerSamplePenalty
from otkit_vae.penalties._registry import get as get
from otkit_vae.penalties._registry import names as names
from otkit_vae.penalties._registry import register as register
from otkit_vae.penalties.gaussian_w2 import GaussianW2 as GaussianW2
from otkit_vae.penalties.kl import KL as KL
from otkit_vae.penalties.none import NoPenalty as NoPenalty
from otkit_vae.penalties.sinkhorn import Sinkhorn as Sinkhorn
from otkit_vae.penalties.wasserstein import Wasserstein as Wasserstein

__all__ = [
    "KL",
    "GaussianW2",
    "LatentPenalty",
    "NoPenalty",
    "PerSamplePenalty",
    "Sinkhorn",
    "Wasserstein",
    "get",
    "names",
    "register",
]
