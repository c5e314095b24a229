import matplotlib.pyplot as plt
import torch

from otkit.empirical import transport_cost

sizes = (8, 16, 32, 64, 128, 256)
for d, color in ((2, "C0"), (8, "C1"), (32, "C2")):
    generator = torch.Generator().manual_seed(d)
    plain, debiased = [], []
    for k in sizes:
        x1, x2, y1, y2 = torch.randn(4, 2048 // k, k, d, dtype=torch.float64, generator=generator)
        plain.append(transport_cost(x1, y1).mean() / d)
        own = transport_cost(x1, x2) + transport_cost(y1, y2)
        debiased.append((transport_cost(x1, y1) - 0.5 * own).mean() / d)
    plt.semilogx(sizes, plain, ".-", base=2, color=color, label=f"d = {d}")
    plt.semilogx(sizes, debiased, ".--", base=2, color=color)
plt.axhline(0, color="k", lw=0.5)
plt.xlabel("k")
plt.legend()
