import matplotlib.pyplot as plt

from tests.benchmarks.recorded import read, size

rows = read("exact_transport_is_never_slower_than_emd2", "^costs given.*d 8", 1)
n = [size(row["case"], "n") for row in rows]
for key, label in (("ours_seconds", "otkit"), ("other_seconds", "ot.emd2")):
    plt.loglog(n, [row[key] for row in rows], ".-", label=label)
plt.xlabel("n")
plt.ylabel("seconds")
plt.legend()
