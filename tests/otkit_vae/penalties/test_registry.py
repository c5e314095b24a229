"""Penalties by name."""

import pytest

from otkit_vae import penalties
from otkit_vae.config import TrainConfig
from otkit_vae.penalties import _registry


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(_registry, "_CLASSES", dict(_registry._CLASSES))


@pytest.mark.usefixtures("registry")
def test_a_users_penalty_is_a_class_and_one_line():
    @penalties.register("moments")
    class Moments(penalties.LatentPenalty):
        estimand = "aggregated"

        def forward(self, posterior, z, prior, *, generator=None):
            return (z.mean(0) - prior.mean).square().sum()

    assert "moments" in penalties.names()
    assert isinstance(penalties.get("moments"), Moments)


@pytest.mark.usefixtures("registry")
def test_bad_registrations():
    with pytest.raises(ValueError, match="name 'kl' is taken by the penalty KL"):
        penalties.register("kl")(type("Other", (penalties.LatentPenalty,), {}))
    with pytest.raises(TypeError, match="expected a class derived from LatentPenalty"):
        penalties.register("mine")(dict)


def test_unknown_name_lists_the_names():
    with pytest.raises(
        ValueError, match="penalty is 'wassserstein'; expected one of aggregated_gaussian_w2, cramer_wold, gaussian_w2"
    ):
        penalties.get("wassserstein")


def test_unknown_option():
    with pytest.raises(TypeError, match=r"penalty 'kl' does not take the options reg; expected of"):
        penalties.get("kl", reg=1.0)


def test_default_weights_grow_with_the_size_of_an_observation():
    wasserstein, kl = penalties.get("wasserstein"), penalties.get("kl")
    assert wasserstein.weight_for((28, 28)) == wasserstein.default_weight
    assert wasserstein.weight_for((3, 28, 28)) == pytest.approx(3**0.75 * wasserstein.default_weight)
    # The weight of kl is that of the ELBO; one that is registered says its own.
    assert kl.weight_for((8, 8)) == 1
    assert TrainConfig(penalty="wasserstein").with_weight((7, 7)).weight == wasserstein.default_weight / 8
    assert TrainConfig(penalty="wasserstein", weight=0.7).with_weight((7, 28)).weight == 0.7
    assert TrainConfig(penalty="wasserstein", balance="gradient").with_weight((7, 28)).weight is None
