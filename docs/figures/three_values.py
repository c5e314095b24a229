import matplotlib.pyplot as plt
import numpy as np

from otkit.empirical import sinkhorn_cost, transport_cost

rng = np.random.default_rng(0)
x, y = rng.normal(size=(60, 2)), rng.normal(size=(60, 2)) * [1.0, 0.3] + [1.0, 0.0]
exact = transport_cost(x, y)
regs = np.geomspace(0.1, 30, 25)
value = np.array([sinkhorn_cost(x, y, reg=reg) for reg in regs])
own = np.array([[sinkhorn_cost(z, z, reg=reg) for z in (x, y)] for reg in regs]).sum(1) / 2
# By the envelope theorem the derivative of the value in reg is the KL.
kl = np.array(
    [(sinkhorn_cost(x, y, reg=1.01 * r) - sinkhorn_cost(x, y, reg=r / 1.01)) / (1.01 * r - r / 1.01) for r in regs]
)

plt.fill_between(regs, exact, exact + regs * np.log(60), color="0.93")
plt.axhline(exact, color="k", lw=1, label="exact")
plt.semilogx(regs, value, label="sinkhorn_cost")
plt.semilogx(regs, value - regs * kl, label="⟨P, M⟩")
plt.semilogx(regs, value - own, label="sinkhorn_divergence")
plt.ylim(0, 1.3 * value.max())
plt.xlabel("reg")
plt.legend()
