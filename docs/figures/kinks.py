import matplotlib.pyplot as plt
import numpy as np
import torch

from otkit.empirical import transport_cost

corners = 2 * np.pi * np.arange(3) / 3
x = torch.tensor(np.stack([np.cos(corners), np.sin(corners)], -1))
angle = torch.linspace(-np.pi, np.pi, 400, dtype=torch.float64, requires_grad=True)
cosine, sine = angle.cos(), angle.sin()
turned = torch.stack([torch.stack([cosine, sine], -1), torch.stack([-sine, cosine], -1)], -2)
cost = transport_cost(x, x @ turned)
(slope,) = torch.autograd.grad(cost.sum(), angle)

figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 2.8))
degrees = np.degrees(angle.detach().numpy())
left.plot(degrees, cost.detach())
right.plot(degrees, slope, ".", ms=2)
for axis, title in ((left, "$W_2^2$"), (right, "its derivative")):
    axis.set(title=title, xlabel="angle in degrees", xticks=(-180, -60, 60, 180))
