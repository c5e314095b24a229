"""How Hypothesis runs here: the same examples each time, so that a run means the same everywhere.

``pytest --hypothesis-profile=explore`` looks further, with new examples each time.
"""

from hypothesis import settings

settings.register_profile("default", deadline=None, max_examples=40, derandomize=True, print_blob=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("default")
