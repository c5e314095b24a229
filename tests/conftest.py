"""How the tests run: on one thread, and by one of four profiles.

The problems are small, and two threads that wait for each other on a busy machine can take a hundred times as long.
The profile is named by ``pytest --hypothesis-profile=NAME``, or by the variable OTKIT_PROFILE:

- dev, the default: few examples, the same each time;
- ci: ten times as many, the same each time;
- nightly: thousands, new ones each time; what it finds is pinned in the test by ``@example``;
- mutation: a handful, for the mutants of ``tests/mutation``.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start

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
