"""Draws and seeds: what they leave behind, and what is no seed."""

import pytest
import torch
from torch.distributions import Normal

from otkit_vae.sampling import checked_seed, sample


def test_a_draw_that_fails_leaves_the_global_state():
    class Broken(Normal):
        def rsample(self, sample_shape=()):
            torch.rand(3)
            raise ArithmeticError("broken")

    state = torch.get_rng_state()
    with pytest.raises(ArithmeticError, match="broken"):
        sample(Broken(torch.zeros(2), 1.0), 3, torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("seed", [True, -1, 2**32, 1.0, "1", None])
def test_what_is_no_seed_is_named(seed):
    with pytest.raises(ValueError, match=rf"^seed is {seed!r}; expected a whole number from 0 to 2\*\*32 - 1$"):
        checked_seed(seed)
