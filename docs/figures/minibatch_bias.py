import matplotlib.pyplot as plt
import torch

from otkit.empirical import transport_cost

scales = torch.linspace(0, 1.4, 15, dtype=torch.float64)
figure, axes = plt.subplots(1, 2, figsize=(6.4, 2.8))
for axis, d in zip(axes, (8, 64), strict=True):
    generator = torch.Generator().manual_seed(d)
    z, y = torch.randn(2, 20, 2, 64, d, dtype=torch.float64, generator=generator)
    biased, energy = [], []
    for s in scales:
        biased.append(transport_cost((s * z).flatten(1, 2), y.flatten(1, 2)).mean())
        cross = transport_cost(s * z[:, :, None], y[:, None]).mean((1, 2))
        own = transport_cost(s * z[:, 0], s * z[:, 1]) + transport_cost(y[:, 0], y[:, 1])
        energy.append((cross - 0.5 * own).mean())
    for values, label in ((biased, "one batch, biased"), (energy, "energy form")):
        values = torch.stack(values)
        axis.plot(scales, values - values[10], label=label)
    axis.axvline(1, color="k", lw=0.5)
    axis.set(title=f"d = {d}", xlabel="s")
axes[0].legend()
