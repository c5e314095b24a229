"""Penalties by name."""

import re

import numpy as np
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
    for stated in ({}, {"estimand": "per_sample"}):
        said = rf"^estimand of Other of \S+ is {stated.get('estimand')!r}; expected one of per-sample, aggregated"
        with pytest.raises(ValueError, match=said):
            penalties.register("mine")(type("Other", (penalties.LatentPenalty,), stated))
    assert "mine" not in penalties.names()


def test_unknown_name_lists_the_names():
    with pytest.raises(
        ValueError, match="penalty is 'wassserstein'; expected one of aggregated_gaussian_w2, cramer_wold, gaussian_w2"
    ):
        penalties.get("wassserstein")


def test_unknown_option():
    with pytest.raises(TypeError, match=r"penalty 'kl' does not take the options reg; expected some of"):
        penalties.get("kl", reg=1.0)


@pytest.mark.usefixtures("registry")
def test_a_class_of_another_module_does_not_take_the_place_of_one_of_the_same_name():
    mine = type("KL", (penalties.KL,), {})
    with pytest.raises(ValueError, match=r"name 'kl' is taken by the penalty KL of otkit_vae\.penalties\.kl"):
        penalties.register("kl")(mine)
    assert type(penalties.get("kl")) is penalties.KL
    # A notebook cell that runs twice.
    penalties.register("mine")(mine)
    again = penalties.register("mine")(type("KL", (penalties.KL,), {}))
    assert type(penalties.get("mine")) is again


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("wasserstein", {"debiased": "false"}, "debiased is 'false'; expected bool"),
        ("wasserstein", {"root": 0}, "root is 0; expected bool"),
        ("wasserstein", {"p": "abc"}, "p is 'abc'; expected float"),
        ("sinkhorn", {"reg": True}, "reg is True; expected float"),
        ("sliced", {"n_projections": 50.0}, "n_projections is 50.0; expected int"),
        ("mmd", {"scales": 3}, "scales is 3; expected Sequence[float] | None"),
        ("mmd", {"scales": "12"}, "scales is '12'; expected Sequence[float] | None"),
        ("wae_gan", {"widths": [8.5]}, "widths is [8.5]; expected Sequence[int]"),
    ],
)
def test_options_are_of_the_types_that_the_penalty_says(name, options, said):
    with pytest.raises(ValueError, match="^" + re.escape(f"penalty {name!r}: {said}") + "$"):
        penalties.get(name, **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("wasserstein", {"p": 0.5}, "p is 0.5"),
        ("sinkhorn", {"reg": 0}, "reg is 0"),
        ("sinkhorn", {"tol": -1}, "tol is -1"),
        ("sinkhorn", {"p": 0.5}, "p is 0.5"),
        ("sliced", {"n_projections": 0}, "n_projections is 0"),
        ("max_sliced", {"n_steps": 0}, "n_steps is 0"),
        ("mmd", {"kernel": "linear"}, "kernel is 'linear'; expected one of imq, gaussian"),
        ("mmd", {"scales": []}, "scales is"),
        ("cramer_wold", {"gamma": -1}, "gamma is -1"),
        ("wae_gan", {"widths": []}, "widths is"),
        ("wae_gan", {"learning_rate": 0}, "learning_rate is 0"),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        penalties.get(name, **options)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: penalties.Sliced("50"), "n_projections is '50'"),
        (lambda: penalties.MaxSliced(n_steps=2.5), "n_steps is 2.5"),
        (lambda: penalties.Sinkhorn(reg="0.1"), "reg is '0.1'"),
        (lambda: penalties.Wasserstein("2"), "p is '2'"),
        (lambda: penalties.CramerWold("1"), "gamma is '1'"),
        (lambda: penalties.WaeGan(learning_rate="1e-3"), "learning_rate is '1e-3'"),
    ],
)
def test_so_are_those_of_a_penalty_made_by_its_class(make, said):
    with pytest.raises((ValueError, TypeError), match="^" + re.escape(said)):
        make()


def test_options_of_numpy_and_of_penalties_that_say_no_types():
    assert penalties.get("sinkhorn", reg=1, p=np.float32(1.5)).p == 1.5
    assert penalties.get("sliced", n_projections=np.int64(7)).n_projections == 7
    assert penalties.get("mmd", scales=np.array([1.0, 2.0]), kernel="imq").scales == (1, 2)
    assert penalties.get("cramer_wold", gamma=None).gamma is None


@pytest.mark.usefixtures("registry")
def test_an_option_without_a_type_takes_anything():
    @penalties.register("free")
    class Free(penalties.LatentPenalty):
        estimand = "aggregated"

        def __init__(self, power, kernel: "Unknown" = None, floor: float = None):  # noqa: F821, RUF013
            super().__init__()
            self.power = power

        def forward(self, posterior, z, prior, *, generator=None):
            return z.sum()

    assert penalties.get("free", power="three", kernel=3, floor=None).power == "three"


def test_default_weights_grow_with_the_size_of_an_observation():
    wasserstein, kl = penalties.get("wasserstein"), penalties.get("kl")
    assert wasserstein.weight_for((28, 28)) == wasserstein.default_weight
    assert wasserstein.weight_for((3, 28, 28)) == pytest.approx(3**0.75 * wasserstein.default_weight)
    # The weight of kl is that of the ELBO; one that is registered says its own.
    assert kl.weight_for((8, 8)) == 1
    assert TrainConfig(penalty="wasserstein").with_weight((7, 7)).weight == wasserstein.default_weight / 8
    assert TrainConfig(penalty="wasserstein", weight=0.7).with_weight((7, 28)).weight == 0.7
    assert TrainConfig(penalty="wasserstein", balance="gradient").with_weight((7, 28)).weight is None


def test_a_penalty_that_no_module_has_registered_here_is_told_how_it_is_known():
    with pytest.raises(ValueError, match=r"or from Python one of your own, once its module has registered it$"):
        penalties.get("mine")
