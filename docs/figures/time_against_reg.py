import matplotlib.pyplot as plt

from tests.benchmarks.recorded import read

(row,) = read("cost_grows_as_documented", "^sinkhorn_cost, n 500", 1)
plt.loglog([1 / k for k in row["sizes"]], row["seconds"], ".-")
plt.xlabel("reg (the mean cost is 24)")
plt.ylabel("seconds")
