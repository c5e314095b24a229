"""What the objective does before a training: it is checked and balanced, on models of one's own too."""

import numpy as np
import pytest
import torch

from otkit_vae import VAE, Objective, penalties
from otkit_vae.checkpoint import describe
from otkit_vae.config import TrainConfig
from otkit_vae.data import Data
from otkit_vae.runs import data_of
from otkit_vae.training import prepare

X = torch.rand(16, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["kl", "sliced", "wae_gan"])
def test_a_check_leaves_the_global_state(name):
    model, objective = VAE.sized((4,), 2), Objective(penalties.get(name))
    state = torch.get_rng_state()
    objective.check(model, X)
    assert torch.equal(torch.get_rng_state(), state)


def test_parameters_of_an_encoder_that_are_not_used_or_held_have_no_part_in_the_balance():
    model, objective = VAE.sized((4,), 2, widths=[8]), Objective(penalties.get("kl"))

    def balanced():
        return objective.balance(model, X, generator=torch.Generator().manual_seed(1))

    whole = balanced()
    model.encoder.unused = torch.nn.Parameter(torch.ones(3))
    assert balanced() == whole
    model.encoder.network[0].requires_grad_(False)
    terms = objective(model, X, generator=torch.Generator().manual_seed(1))
    head = list(model.encoder.network[2].parameters())
    norms = [
        torch.cat([part.flatten() for part in torch.autograd.grad(term, head, retain_graph=True)]).norm()
        for term in (terms.reconstruction, terms.penalty)
    ]
    assert balanced() == pytest.approx(float(norms[0] / norms[1]))
    assert balanced() != pytest.approx(whole, rel=1e-3)


def test_the_balance_of_a_training_is_that_of_its_seed_and_its_first_batch(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((40, 4)))
    options = {"penalty": "kl", "balance": "gradient", "batch_size": 8, "widths": [8], "seed": 4}
    config = TrainConfig(data=tmp_path / "x.npy", **options)
    data = data_of(config)
    model, objective = prepare(config, data)
    weight = Objective(penalties.get("kl")).balance(model, data.train[:8], generator=torch.Generator().manual_seed(4))
    assert objective.weight == weight


@pytest.mark.parametrize(("n", "m"), [(16, 1), (1, 16)])
def test_a_training_has_as_many_observations_of_each_part_as_its_penalty_needs(n, m):
    config = TrainConfig(penalty="sliced", widths=[8])
    prepare(config, Data("noise", X[:2], X[:2], None, None))
    with pytest.raises(ValueError, match=rf"^data: {n} observations to train on and {m} held out; the penalty"):
        prepare(config, Data("noise", X[:n], X[:m], None, None))


def test_the_model_of_a_training_is_the_one_that_its_options_name():
    options = {"likelihood": "gaussian", "scale": 0.2, "posterior": "full", "prior": "mixture", "components": 5}
    options |= {"network": "conv", "widths": [4], "latent_dim": 3}
    x = X.view(1, 8, 8)[[0] * 4]
    model, _ = prepare(TrainConfig(penalty="sliced", seed=4, **options), Data("noise", x, x))
    torch.manual_seed(4)
    expected = VAE.sized((8, 8), **options)
    assert describe(model)["architecture"] == describe(expected)["architecture"]
    for name, weight in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name


def test_observations_of_either_part_are_checked_to_be_those_of_the_likelihood():
    wrong = X.clone()
    wrong[-1, -1] = 2  # after the first batch
    for train, held_out in ((X, wrong), (wrong, X)):
        with pytest.raises(ValueError, match=r"the bernoulli likelihood expects \[0, 1\]"):
            prepare(TrainConfig(penalty="sliced", widths=[8], batch_size=8), Data("noise", train, held_out))
