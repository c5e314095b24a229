"""Networks in half precision, and what is made of them in float32."""

import pytest
import torch

from otkit_vae import VAE, Objective, penalties
from otkit_vae.precision import single
from otkit_vae.sampling import sample

PENALTIES = penalties.names()


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
    ids=str,
)
def test_no_digits_are_lost(dtype, expected):
    x = torch.tensor([1 / 3], dtype=dtype)
    assert single(x).dtype == expected
    assert single(x).double() == x.double()


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in PENALTIES), ("mmd", {"kernel": "gaussian"}), ("sinkhorn", {"split": False})],
    ids=str,
)
@pytest.mark.parametrize("posterior", ["diagonal", "full"])
def test_under_autocast_only_networks_are_in_half_precision(name, options, posterior):
    model, x = VAE.sized((6,), 3, posterior=posterior), torch.rand(16, 6, generator=torch.Generator().manual_seed(0))
    objective = Objective(penalties.get(name, **options))
    objective.check(model, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = objective(model, x, generator=torch.Generator().manual_seed(1))
        assert torch.is_autocast_enabled("cpu")
    terms.loss.backward()
    assert {value.dtype for value in terms if isinstance(value, torch.Tensor)} == {torch.float32}
    # Codes that have more digits than the network that gave their means.
    assert not torch.equal(terms.z, terms.z.bfloat16().float())
    generator = torch.Generator().manual_seed(1)
    torch.testing.assert_close(sample(terms.posterior, None, generator), terms.z)
    expected = objective.penalty(terms.posterior, terms.z, model.prior, generator=generator)
    torch.testing.assert_close(terms.penalty, expected)


@pytest.mark.parametrize("prior", ["normal", "mixture"])
@pytest.mark.parametrize("posterior", ["diagonal", "full"])
@pytest.mark.parametrize("name", PENALTIES)
def test_every_penalty_of_a_model_in_bfloat16(name, posterior, prior):
    if name in ("gaussian_w2", "cramer_wold") and prior == "mixture":
        pytest.skip("it expects a Gaussian")
    model, x = VAE.sized((6,), 3, posterior=posterior, prior=prior).bfloat16(), torch.rand(16, 6).bfloat16()
    terms = Objective(penalties.get(name))(model, x)
    terms.loss.backward()
    assert terms.penalty.dtype == torch.bfloat16
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
