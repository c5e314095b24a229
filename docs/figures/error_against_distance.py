import matplotlib.pyplot as plt

from tests.benchmarks.recorded import read, size

figure, axes = plt.subplots(1, 2, figsize=(6.8, 3.2), sharey=True)
for axis, what in zip(axes, ("value", "gradient"), strict=True):
    rows = read("w2_keeps_its_digits_near_coincidence", f"{what}, float64, cond 1e2,")
    distance = [size(row["case"], "W2²/Tr") for row in rows]
    for method in rows[0]["errors"]:
        axis.loglog(
            distance, [row["errors"][method] for row in rows], ".-", label=method, lw=3 if method == "otkit" else 1
        )
    axis.axhline(1, color="k", lw=0.5)
    axis.set(title=what, xlabel="$W_2^2$ / Tr", ylim=(1e-17, 1e6))
axes[0].set_ylabel("relative error")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
