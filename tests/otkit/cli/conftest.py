import numpy as np
import pytest


@pytest.fixture
def files(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 2)), rng.normal(size=(9, 2)).astype(np.float32)
    a, b = rng.random(12), rng.random(9)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    np.save(tmp_path / "a.npy", a / a.sum())
    np.savez(tmp_path / "data.npz", codes=y, mass=b / b.sum())
    np.savez(tmp_path / "one.npz", y)
    np.savez(tmp_path / "sets.npz", first=x, second=y, third=x[:5] + 1)
    np.savetxt(tmp_path / "y.csv", y, delimiter=",", fmt="%.18g")
    np.savetxt(tmp_path / "named.csv", y, delimiter=",", fmt="%.18g", header="u,v", comments="")
    (tmp_path / "excel.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "y.csv").read_bytes().replace(b"\n", b"\r\n"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def arrays(files):
    data = np.load("data.npz")
    return np.load("x.npy"), data["codes"].astype(float), np.load("a.npy"), data["mass"]
