"""The default weight of each penalty, in one place.

In nats for a unit of penalty, chosen on the digits with the default network (256-256, latent 8, 120 epochs) by the
exact W2 of 359 samples to the held-out digits; the penalties that are not listed start at 1.
"""

DEFAULT_WEIGHTS = {
    "gaussian_w2": 0.03,
    "wasserstein": 3.0,
}
