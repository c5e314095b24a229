"""What the packages export, and that they need no extra."""

import importlib
import subprocess
import sys
from types import ModuleType

import pytest

import otkit_vae
from otkit_vae import cli

FACES = (
    "otkit",
    "otkit.linalg",
    "otkit.gaussian",
    "otkit.empirical",
    "otkit.testing",
    "otkit_vae",
    "otkit_vae.penalties",
)


@pytest.mark.parametrize("name", FACES)
def test_all_names_exactly_the_public_names(name):
    module = importlib.import_module(name)
    # Files that something has imported; those of the names that are exported count.
    files = {n for n, v in vars(module).items() if isinstance(v, ModuleType) and v.__name__ == f"{name}.{n}"}
    public = {n for n in vars(module) if not n.startswith("_")} - (files - set(module.__all__))
    public |= {"__version__"} if name == "otkit" else set()
    assert set(module.__all__) == public


def test_import_needs_no_extra():
    extras = ["pytorch_lightning", "sklearn", "matplotlib", "jsonargparse", "hypothesis", "joblib", "tqdm", "yaml"]
    program = (
        f"import sys\nfor name in {extras}: sys.modules[name] = None\n"
        "import otkit, otkit_vae, otkit.cli, otkit_vae.cli\n"
        # POT takes longer to import than all else but torch, and Gaussians do without.
        "assert 'ot' not in sys.modules\n"
        "otkit_vae.Objective(otkit_vae.penalties.get('kl'))\n"
        "try: import otkit.testing\n"
        "except ImportError as error: assert \"install the test extra, pip install 'otkit[test]'\" in str(error)\n"
        "else: raise AssertionError\n"
        "sys.exit(otkit_vae.cli.main(['train']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "install the train extra" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_does_without_the_engine_where_it_has_none_of_its_options(monkeypatch, capsys):
    engine = ("training", "engine", "trainer", "callbacks")
    for name in engine:
        monkeypatch.delitem(sys.modules, f"otkit_vae.{name}", raising=False)
        monkeypatch.delattr(otkit_vae, name, raising=False)
    for command in ((), ("sample",), ("compare",)):
        with pytest.raises(SystemExit, match="0"):
            cli.main([*command, "--help"])
    assert not {f"otkit_vae.{name}" for name in engine} & sys.modules.keys()
