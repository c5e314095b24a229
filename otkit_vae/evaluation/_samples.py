r"""How samples of a model compare with held-out data, in the features of a classifier.

With the features of n held-out observations and of as many samples: the Fréchet distance

.. math:: \|m_1 - m_2\|^2
          + \operatorname{Tr}\bigl(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1^{1/2} \Sigma_2 \Sigma_1^{1/2})^{1/2}\bigr)

between their Gaussian fits (`otkit.gaussian.frechet_distance`; a square, as FID is), the exact and the sliced
:math:`W_2` between the points themselves, and improved precision and recall. The null value of each is the same number
with as many *training observations* in place of the samples: what a generator would get that repeats them. The
classifier learned these, and fresh observations may be closer to the held-out ones in its features. Exact transport
takes at most 2,000 points of each kind, precision and recall at most 5,000, and their titles say how many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Generator, Tensor
from torch.distributions import Distribution

from otkit import gaussian
from otkit_vae.evaluation._codes import decode
from otkit_vae.evaluation._distances import LARGEST_EXACT, exact_w2, sliced_w2
from otkit_vae.evaluation._measures import Better, Measure
from otkit_vae.evaluation._precision_recall import LARGEST_SUPPORT, NEIGHBOUR, precision_recall
from otkit_vae.model import VAE
from otkit_vae.sampling import sample


@dataclass(frozen=True)
class Quality:
    r"""One set of n observations against n held-out ones, in the features of a classifier.

    Attributes:
        n: The number of observations.
        frechet: The Fréchet distance, a square.
        w2: The exact :math:`W_2`, of 2,000 points at most.
        sliced_w2: The sliced :math:`W_2`.
        precision: Improved precision, of 5,000 points at most; None for 3 or fewer, which have no third neighbour.
        recall: Improved recall, likewise.
    """

    n: int
    frechet: float
    w2: float
    sliced_w2: float
    precision: float | None
    recall: float | None

    def notes(self, source: str, null: Quality) -> list[str]:
        """What to know of the numbers of samples from a source, in words, beside those of training observations.

        Given the real points, those generated are within their support or not independently of each other, so that a
        precision is off by its binomial standard error. It is said to be above the null value by more than twice that.
        A recall is said to be low below a tenth of its null value.
        """
        if self.precision is None or self.recall is None or null.precision is None or null.recall is None:
            return []
        variances = [share * (1 - share) / min(self.n, LARGEST_SUPPORT) for share in (self.precision, null.precision)]
        if self.recall < 0.1 * null.recall and self.precision > 0:
            said = f"recall is {self.recall:.2g}, less than a tenth of that of real data"
        elif self.precision - null.precision > 2 * sum(variances) ** 0.5:
            said = "precision is above that of real data"
        else:
            return []
        return [f"samples of {source}: {said}, as where samples lie in few places; precision alone says nothing then"]

    def measures(self, source: str, null: Quality) -> list[Measure]:
        """The numbers of samples from a source, "prior" or "mixture", beside those of training observations."""
        few, some = min(self.n, LARGEST_EXACT), min(self.n, LARGEST_SUPPORT)
        titles: tuple[tuple[str, str, Better], ...] = (
            ("frechet", f"Fréchet distance, n = {self.n}", "lower"),
            ("w2", f"W2, n = {few}", "lower"),
            ("sliced_w2", f"sliced W2, n = {self.n}", "lower"),
            ("precision", f"precision, n = {some}", "higher"),
            ("recall", f"recall, n = {some}", "higher"),
        )
        return [
            Measure(f"{source}_{name}", title, getattr(self, name), getattr(null, name), better)
            for name, title, better in titles
            if getattr(self, name) is not None
        ]


def quality(features: Tensor, real: Tensor, *, generator: Generator | None = None) -> Quality:
    """Compare features with those of real observations, both with shape (n, d) and in random order."""
    some, covered = LARGEST_SUPPORT, None
    if min(len(real), len(features)) > NEIGHBOUR:
        covered = precision_recall(real[:some], features[:some])
    return Quality(
        n=len(features),
        frechet=float(gaussian.frechet_distance(features.double(), real.double())),
        w2=exact_w2(features, real),
        sliced_w2=sliced_w2(features, real, generator=generator),
        precision=None if covered is None else covered.precision,
        recall=None if covered is None else covered.recall,
    )


def sample_quality(
    model: VAE,
    codes: Distribution,
    features: Callable[[Tensor], Tensor],
    real: Tensor,
    *,
    generator: Generator | None = None,
) -> Quality:
    """Compare samples of a model with real observations.

    Args:
        model: The model, whose samples are the means of p(x|z).
        codes: Where z is drawn from: the model's prior, or a mixture fitted to its codes.
        features: The function from observations (n, *event) to the features (n, d) to compare in, such as
            `Classifier.features`.
        real: The features of n held-out observations, with shape (n, d), as many as there will be samples.
        generator: The source of randomness.
    """
    drawn = decode(model, sample(codes, len(real), generator))
    return quality(features(drawn), real, generator=generator)
