"""What a short training can do without, seconds of each, and a training that has ended, to go on from."""

import shutil

import pytest
from markupsafe import Markup

from tests.otkit_vae.shell import train


@pytest.fixture
def unpictured(monkeypatch):
    """Without the pictures of a training."""
    for picture in ("reconstructions", "samples", "latent_map"):
        monkeypatch.setattr(f"otkit_vae.pictures.{picture}", lambda *_, **__: None)


@pytest.fixture
def undrawn(monkeypatch):
    """Without the figures of reports, which have tests of their own and take most of a report."""
    monkeypatch.setattr("otkit_vae.report._figures.to_svg", lambda *_: Markup("<svg></svg>"))


@pytest.fixture
def unreported(monkeypatch):
    """Without report.html, which takes most of a short training."""
    monkeypatch.setattr("otkit_vae.training.write_report", lambda *_: None)


@pytest.fixture
def bare(unpictured, unreported):
    """Without both."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert train("--epochs", 2, "--penalty", "kl", "--widths", "[8]", "--out", folder) == 0
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it, in the folder of the test."""
    return shutil.copytree(trained, tmp_path / "run")
