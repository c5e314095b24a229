"""How the tests run: on one thread, and by one of four profiles.

The problems are small, and two threads that wait for each other on a busy machine can take a hundred times as long.
The profile is named by ``pytest --hypothesis-profile=NAME``, or by the variable OTKIT_PROFILE:

- dev, the default: few examples, the same each time;
- ci: ten times as many, the same each time;
- nightly: thousands, new ones each time; what it finds is pinned in the test by ``@example``;
- mutation: a handful, for the mutants of ``tests/mutation``.
"""

import os
import zlib

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start

import numpy as np
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

# Programs, of which some need what the tests do not.
collect_ignore_glob = ["benchmarks/*", "comparison/*", "mutation/*"]

settings.register_profile("dev", deadline=None, max_examples=40, derandomize=True, print_blob=True)
settings.register_profile("ci", settings.get_profile("dev"), max_examples=400)
settings.register_profile("mutation", settings.get_profile("dev"), max_examples=8)
settings.register_profile("nightly", deadline=None, max_examples=5000, print_blob=True)
settings.load_profile(os.environ.get("OTKIT_PROFILE", "dev"))


def pytest_runtest_setup(item):
    """Let what a test draws depend on its name alone, and not on which tests ran before it."""
    seed = zlib.crc32(item.name.encode())
    torch.manual_seed(seed)
    if isinstance(rng := getattr(getattr(item, "module", None), "rng", None), np.random.Generator):
        rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state


def pytest_runtest_teardown():
    """Go back to one thread, whatever a test set."""
    torch.set_num_threads(1)


@pytest.fixture
def untrained(tmp_path):
    """A function that makes a run folder of any kind without the training, for what is shown of runs."""
    from otkit_vae.config import TrainConfig
    from otkit_vae.data import Data
    from otkit_vae.runs import SavedRun
    from otkit_vae.training import prepare

    def make(shape, *, labels=3, n=40, epochs=3, low=0.0, high=1.0, **options):
        generator = torch.Generator().manual_seed(0)
        x, y = (low + (high - low) * torch.rand(m, *shape, generator=generator) for m in (n, n // 2))
        of = {m: None if labels is None else torch.arange(m) % labels for m in (n, n // 2)}
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        config = TrainConfig(
            **{"penalty": "sliced", "latent_dim": 3, "batch_size": min(16, n // 2), "out": str(folder), **options}
        )
        data = Data("noise", x, y, of[n // 2], of[n])
        model, objective = prepare(config, data)
        scale = 0.0 if config.posterior == "deterministic" else 0.5
        rows = [f"{k},{4 - k},{3 - k},1.0,{scale},{5 - k},{4 - k},1.0,{scale}" for k in range(epochs)]
        columns = [
            f"{p}_{c}" for p in ("train", "held_out") for c in ("loss", "reconstruction", "penalty", "posterior_scale")
        ]
        (folder / "metrics.csv").write_text("\n".join([",".join(["epoch", *columns]), *rows]) + "\n")
        return SavedRun(folder, config, data, model.eval(), objective)

    return make
