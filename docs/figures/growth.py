import matplotlib.pyplot as plt

from tests.benchmarks.recorded import read

figure, axes = plt.subplots(3, 1, figsize=(6.4, 8))
groups = {
    "d": ("^w2_squared$", "^w2_squared and", "^sqrtm", "^transport_map", "^w2_squared_diagonal"),
    "n": ("^wasserstein_1d$", "^sliced_wasserstein, ", "^transport_cost, d", "^sinkhorn_cost, d"),
    "batch": ("kl", "gaussian_w2", "sliced and", "mmd", "wasserstein and", "sinkhorn and"),
}
for axis, (grows, cases) in zip(axes, groups.items(), strict=True):
    for case in cases:
        row = read("cost_grows_as_documented", case, 1)[-1]
        name = row["case"].removeprefix("penalty ").removesuffix(" and its gradient, d 8").partition(",")[0]
        axis.loglog(row["sizes"], row["seconds"], ".-", label=name)
    axis.set(xlabel=grows, ylabel="seconds", title="penalties with their gradients" if grows == "batch" else "")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
