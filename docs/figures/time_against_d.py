import matplotlib.pyplot as plt

from tests.benchmarks.recorded import read, size

for what, style in (("value and gradients", "-"), ("value", "--")):
    for cond, color in (("1e2", "C0"), ("1e4", "C1")):
        rows = [r for r in read("gaussian_w2_is_faster_than_pot", f"^{what}, .*, {cond}$", 1) if r["other"] == "POT"]
        d = [size(row["case"], "d") for row in rows]
        low, high = ([row[end] for row in rows] for end in ("low", "high"))
        plt.fill_between(d, low, high, color=color, alpha=0.2)
        plt.plot(d, [row["ratio"] for row in rows], f".{style}", color=color, label=f"{what}, condition {cond}")
plt.axhline(1, color="k", lw=0.5)
plt.xscale("log", base=2)
plt.ylim(bottom=0)
plt.xlabel("d")
plt.ylabel("POT's time / otkit's")
plt.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
