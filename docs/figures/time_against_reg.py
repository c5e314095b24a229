import matplotlib.pyplot as plt

from tests.benchmarks.recorded import read, size

figure, axes = plt.subplots(1, 2, figsize=(6.4, 3.2), sharey=True)
for axis, n in zip(axes, (1000, 2000), strict=True):
    rows = read("sinkhorn_is_faster_than_pot", f"normal d 8, n {n},", 1)
    ours = sorted((size(row["case"], "reg"), row["ours_seconds"]) for row in rows)
    pot = sorted((size(row["case"], "reg"), row["other_seconds"]) for row in rows if row["other"].startswith("POT"))
    axis.loglog(*zip(*ours, strict=True), ".-", label="otkit")
    axis.loglog(*zip(*pot, strict=True), ".-", label="POT")
    axis.set(title=f"n = {n}", xlabel="reg / mean cost")
axes[0].set_ylabel("seconds")
axes[0].legend()
