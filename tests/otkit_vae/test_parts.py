"""Parts of a model that are one's own: what does not fit is told by its name, before training."""

import pytest
import torch
from torch.distributions import Normal

from otkit_vae import VAE, Objective, penalties, posteriors
from otkit_vae.likelihoods import Bernoulli
from otkit_vae.posteriors import FullPosterior


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "mlp"}, "encoder is 'mlp'; expected a torch.nn.Module"),
        ({"decoder": torch.nn.Linear}, "decoder is <class .*Linear'>; expected a torch.nn.Module"),
        ({"likelihood": "gaussian"}, r"likelihood is 'gaussian'; expected a Likelihood, such as \S+Gaussian\(\)"),
        ({"posterior": "full"}, r"posterior is 'full'; expected a Posterior, such as \S+FullPosterior\(\)"),
        ({"prior": "mixture"}, r"prior is 'mixture'; expected a torch distribution or a Prior, such as"),
    ],
)
def test_parts_of_a_model_are_modules(change, message):
    linear = torch.nn.Linear(4, 4)
    with pytest.raises(TypeError, match=f"^{message}"):
        VAE(**{"encoder": linear, "decoder": linear, "likelihood": Bernoulli(), "latent_dim": 2} | change)
    with pytest.raises(ValueError, match=r"^latent_dim is 2\.0; expected a whole number"):
        VAE(linear, linear, Bernoulli(), 2.0)


@pytest.mark.parametrize(
    ("encoder", "decoder", "posterior", "message"),
    [
        (
            (4, 15),
            (8, 4),
            None,
            r"encoder gives features of shape \(2, 15\); .* DiagonalPosterior expects \(2, 16\), as",
        ),
        (
            *((4, 43), (8, 4), FullPosterior()),
            r"encoder gives features of shape \(2, 43\); the posterior FullPosterior expects \(2, 44\), as",
        ),
        ((5, 16), (8, 4), None, r"encoder fails on observations of shape \(2, 4\) \(.*5x16.*\); expected"),
        (
            (4, 16),
            (7, 4),
            None,
            r"decoder fails on codes of shape \(2, 8\) \(.*7x4.*\); expected .* \(N, 8\), as latent_dim",
        ),
    ],
    ids=("diagonal", "full", "observations", "codes"),
)
def test_a_check_says_which_of_ones_own_parts_does_not_fit(encoder, decoder, posterior, message):
    model = VAE(torch.nn.Linear(*encoder), torch.nn.Linear(*decoder), Bernoulli(), 8, posterior)
    with pytest.raises(ValueError, match=f"^{message}"):
        Objective(penalties.get("wasserstein")).check(model, torch.rand(2, 4))


class Gives(torch.nn.Module):
    """A linear layer whose output a function changes."""

    def __init__(self, inward, outward, change):
        super().__init__()
        self.layer, self.change = torch.nn.Linear(inward, outward), change

    def forward(self, x):
        return self.change(self.layer(x))


@pytest.mark.parametrize(
    ("encoder", "decoder", "error", "message"),
    [
        (lambda x: x.chunk(2, -1), torch.relu, TypeError, r"encoder gives a tuple; expected one torch tensor \(N, n\)"),
        (torch.relu, lambda x: [x], TypeError, r"decoder gives a list; expected one torch tensor \(N, \*event\)"),
        (
            *(lambda x: Normal(x[:, :2], 1.0), torch.relu, ValueError),
            r"prior has event shape \(2,\), and posterior \(\); expected .*\.Independent makes batch dimensions events",
        ),
    ],
    ids=("tuple", "list", "batch"),
)
def test_a_check_says_what_a_part_is_to_give(encoder, decoder, error, message):
    model = VAE(Gives(4, 4, encoder), Gives(2, 4, decoder), Bernoulli(), 2)
    with pytest.raises(error, match=f"^{message}"):
        Objective(penalties.get("sliced")).check(model, torch.rand(6, 4))


def test_a_penalty_gives_a_tensor():
    class Number(penalties.LatentPenalty):
        estimand = "aggregated"

        def forward(self, posterior, z, prior, *, generator=None):
            return z.mean().item()

    with pytest.raises(TypeError, match=r"^the penalty Number gives -?[\d.e-]+; expected a scalar tensor"):
        Objective(Number())(VAE.sized((4,), 2), torch.rand(6, 4))


@pytest.mark.parametrize(("dims", "shape"), [((0, 1), r"\(\)"), ((), r"\(6, 2\)")], ids=("scalar", "each coordinate"))
def test_a_penalty_of_each_posterior_gives_one_number_for_each(dims, shape):
    """The mean over processes of what is a mean already would be another penalty."""

    class Length(penalties.PerSamplePenalty):
        def per_observation(self, posterior, z, prior, *, generator=None):
            return z.square().sum(dims) if dims else z.square()

    with pytest.raises(
        ValueError, match=rf"^per_observation of the penalty Length gives shape {shape}; expected \(6,\)"
    ):
        Objective(Length())(VAE.sized((4,), 2), torch.rand(6, 4))


def test_a_check_passes_on_what_else_fails():
    class Fails(penalties.LatentPenalty):
        estimand = "aggregated"

        def forward(self, posterior, z, prior, *, generator=None):
            raise RuntimeError("of the penalty")

    class Mine(posteriors.DiagonalPosterior):
        def forward(self, features):
            raise ValueError("of the posterior")

    linear = torch.nn.Linear(4, 4)
    with pytest.raises(ValueError, match=r"^of the posterior$"):
        Objective(penalties.get("kl")).check(VAE(linear, linear, Bernoulli(), 2, Mine()), torch.rand(2, 4))
    with pytest.raises(RuntimeError, match=r"^of the penalty$"):
        Objective(Fails()).check(VAE.sized((4,), 2), torch.rand(2, 4))
