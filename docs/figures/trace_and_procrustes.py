import matplotlib.pyplot as plt
import numpy as np

from otkit.gaussian import w2_squared

rng = np.random.default_rng(0)
Q = np.linalg.qr(rng.normal(size=(8, 8)))[0]
cov = (Q * np.geomspace(1, 1e-2, 8)) @ Q.T
cov, loc, trace = (cov + cov.T) / 2, np.zeros(8), np.trace(cov)

t = np.geomspace(1e-13, 1, 60)
exact = t**2 * trace
near = (1 + t[:, None, None]) ** 2 * cov
for method, label in (("trace", "trace form"), ("procrustes", "Procrustes, the default")):
    error = np.abs(w2_squared(loc, cov, loc, near, method=method) / exact - 1)
    plt.loglog(exact / trace, error + 1e-17, ".", label=label)
eps = np.finfo(float).eps
plt.loglog(exact / trace, 2 * eps * np.sqrt(100 * trace / exact), "k--", lw=1, label="rounding of the inputs")
plt.ylim(1e-17, 1e4)
plt.xlabel("$W_2^2$ / Tr Σ")
plt.ylabel("relative error")
plt.legend()
