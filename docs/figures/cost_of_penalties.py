import matplotlib.pyplot as plt

from tests.benchmarks.recorded import read

rows = sorted(read("penalties_cost_little_beside_the_network", "", 1), key=lambda row: -row["ratio"])
names = [row["case"].removeprefix("step with ").partition(", its")[0] for row in rows]
middle = [1 / row["ratio"] for row in rows]
spread = [[1 / row["ratio"] - 1 / row["high"] for row in rows], [1 / row["low"] - 1 / row["ratio"] for row in rows]]
plt.barh(names, middle, xerr=spread, height=0.6)
plt.axvline(1, color="k", lw=0.5)
plt.gca().invert_yaxis()
plt.xlabel("time of a training step, relative to that with kl")
