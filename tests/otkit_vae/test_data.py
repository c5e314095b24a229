import numpy as np
import pytest
import torch

from otkit_vae.data import load_data
from otkit_vae.likelihoods import Bernoulli

rng = np.random.default_rng(0)


def test_digits_are_split_the_same_way_each_time():
    first, second = load_data("digits"), load_data("digits")
    assert (len(first.train), len(first.held_out)) == (1438, 359)
    assert first.train.shape[1:] == (8, 8)
    assert (first.train.min(), first.train.max()) == (0, 1)
    assert torch.equal(first.held_out, second.held_out)
    assert first.held_out_labels.shape == (359,)


def test_files(tmp_path):
    bytes_, numbers = rng.integers(0, 256, (20, 5, 5), dtype=np.uint8), rng.normal(size=(20, 7))
    np.savez(tmp_path / "images.npz", x=bytes_, y=np.arange(20) % 3)
    np.save(tmp_path / "numbers.npy", numbers)
    images = load_data(str(tmp_path / "images.npz"))
    both = torch.cat([images.train, images.held_out])
    np.testing.assert_allclose(both.sum(), (bytes_ / 255).sum(), rtol=1e-6)
    assert images.name == "images"
    assert images.held_out_labels.shape == (4,)
    plain = load_data(str(tmp_path / "numbers.npy"), held_out=0.5)
    assert plain.train.shape == (10, 7)
    assert plain.held_out_labels is None


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 4)), "expected observations"),
        (np.zeros(4), "expected observations"),
        (np.array([["a", "b"]] * 9), "dtype <U1; expected numbers"),
        (np.where(np.eye(9) > 0, np.nan, 0), "has 9 values that are NaN or infinite of 81"),
        (np.ones((9, 4)), "9 observations that are all the same"),
        (rng.normal(size=(9, 2)) * 1e300, "expected numbers that fit float32"),
        (rng.normal(size=(3, 2)), "has 3 observations; expected enough"),
    ],
)
def test_bad_arrays(tmp_path, array, message):
    np.save(tmp_path / "bad.npy", array)
    with pytest.raises(ValueError, match=r"data.*bad\.npy.*") as raised:
        load_data(str(tmp_path / "bad.npy"))
    assert message in str(raised.value)


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data: no file .*nowhere\.npz"):
        load_data(str(tmp_path / "nowhere.npz"))
    for content in (b"", b"not numpy", b"PK\x03\x04broken"):
        (tmp_path / "broken.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"is not a \.npy or \.npz file of numbers"):
            load_data(str(tmp_path / "broken.npz"))
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(ValueError, match="has the arrays weights; expected observations under one of x"):
        load_data(str(tmp_path / "other.npz"))
    np.savez(tmp_path / "labels.npz", x=rng.normal(size=(9, 2)), y=np.zeros(8, dtype=int))
    with pytest.raises(ValueError, match=r"labels of shape \(8,\)"):
        load_data(str(tmp_path / "labels.npz"))
    np.save(tmp_path / "objects.npy", np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"is not a \.npy or \.npz file of numbers"):
        load_data(str(tmp_path / "objects.npy"))


def test_outside_the_range_of_the_likelihood():
    with pytest.raises(ValueError, match=r"data has values from -1 to 2; the bernoulli likelihood expects \[0, 1\]"):
        Bernoulli().check(torch.tensor([-1.0, 2.0]))
