import matplotlib.pyplot as plt

from tests.benchmarks.recorded import read

figure, axes = plt.subplots(1, 3, figsize=(7.2, 3.2), sharey=True)
groups = {
    "d": ("^w2_squared$", "^w2_squared and", "^sqrtm", "^transport_map", "^w2_squared_diagonal"),
    "n": ("^wasserstein_1d$", "^sliced_wasserstein, ", "^transport_cost, d", "^sinkhorn_cost, d"),
    "batch": ("kl", "sliced and", "mmd", "wasserstein and", "sinkhorn and"),
}
for axis, (grows, cases) in zip(axes, groups.items(), strict=True):
    for case in cases:
        row = read("cost_grows_as_documented", case, 1)[-1]
        name = row["case"].removeprefix("penalty ").removesuffix(" and its gradient, d 8").partition(",")[0]
        axis.loglog(row["sizes"], row["seconds"], ".-", label=name)
    axis.set(xlabel=grows, title="a penalty and its gradient" if grows == "batch" else "")
    axis.legend(fontsize=7)
axes[0].set_ylabel("seconds")
