import matplotlib.pyplot as plt
import numpy as np
import torch

from otkit.linalg import sqrtm

torch.manual_seed(0)
Q = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
C = torch.randn(4, 4, dtype=torch.float64)
C = C + C.mT


def by_eigh(A):
    eigenvalues, V = torch.linalg.eigh(A)
    return (V * eigenvalues.sqrt()) @ V.mT


gaps = np.geomspace(1e-16, 0.5, 60)
errors = {"differentiating eigh": [], "the Lyapunov equation": []}
for gap in gaps:
    spectrum = torch.tensor([1.0, 1.0 + gap, 2.0, 3.0], dtype=torch.float64)
    s = spectrum.sqrt()
    exact = Q @ ((Q.mT @ C @ Q) / (s[:, None] + s)) @ Q.mT
    for label, root in zip(errors, (by_eigh, sqrtm), strict=True):
        A = (Q * spectrum) @ Q.mT
        A = (0.5 * (A + A.mT)).requires_grad_()
        (gradient,) = torch.autograd.grad((C * root(A)).sum(), A)
        error = (0.5 * (gradient + gradient.mT) - exact).norm() / exact.norm()
        errors[label].append(float(error))
for label, error in errors.items():
    plt.loglog(gaps, error, ".", label=label)
plt.xlabel("gap of two eigenvalues")
plt.ylabel("relative error of the gradient")
plt.legend()
