"""How the tests run: on one thread, and with the same examples each time.

The problems are small, and two threads that wait for each other on a busy machine can take a hundred times as long.
``pytest --hypothesis-profile=explore`` looks further, with new examples each time.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start

import torch
from hypothesis import settings

torch.set_num_threads(1)

settings.register_profile("default", deadline=None, max_examples=40, derandomize=True, print_blob=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("default")
