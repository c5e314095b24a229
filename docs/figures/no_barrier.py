import matplotlib.pyplot as plt
import numpy as np

sigma = np.geomspace(1e-3, 2, 200)
plt.semilogx(sigma, 0.5 * sigma * (sigma - 1), label="½ W₂²")
plt.semilogx(sigma, 0.5 * (sigma**2 - 1), label="KL")
plt.axhline(0, color="k", lw=0.5)
plt.xlabel("σ")
plt.ylabel("derivative in log σ²")
plt.legend()
