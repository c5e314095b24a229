import matplotlib.pyplot as plt
import torch
from torch.distributions import Independent, Normal

from otkit_vae import penalties

torch.manual_seed(0)
z = 0.3 + 0.8 * torch.randn(10, 256, 8)
prior = Independent(Normal(torch.zeros(8), torch.ones(8)), 1)
counts = (1, 2, 4, 8, 16, 32)


def mean_over_parts(penalty, k):
    parts = [part for codes in z for part in codes.chunk(k)]
    values = [
        penalty(Independent(Normal(p, 1e-3), 1), p, prior, generator=torch.Generator().manual_seed(0)) for p in parts
    ]
    return torch.stack(values).mean().item()


for name, options in (
    ("kl", {}),
    ("aggregated_gaussian_w2", {}),
    ("sliced", {}),
    ("wasserstein", {"debiased": False}),
    ("wasserstein", {}),
):
    penalty = penalties.get(name, **options)
    values = [mean_over_parts(penalty, k) for k in counts]
    label = name + (", biased" if options else "")
    plt.semilogx(counts, [v / values[0] for v in values], ".-", base=2, label=label)
plt.xlabel("parts")
plt.ylabel("relative to the whole batch")
plt.legend()
