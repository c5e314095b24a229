"""What the objective does before a training: it is checked and balanced, on models of one's own too."""

import pytest
import torch

from otkit_vae import VAE, Objective, penalties

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
