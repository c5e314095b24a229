import gzip
import struct

import numpy as np
import pytest
import sklearn.datasets
import torch
from PIL import Image

from otkit_vae import data
from otkit_vae.data import load_data, warn_of_unlike_columns
from otkit_vae.likelihoods import Bernoulli, Gaussian

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
    # What else there is may be anything, and is not read.
    np.savez(tmp_path / "images.npz", allow_pickle=True, x=bytes_, y=np.arange(20) % 3, names=np.array([{}]))
    np.save(tmp_path / "numbers.npy", numbers)
    images = load_data(str(tmp_path / "images.npz"))
    both = torch.cat([images.train, images.held_out])
    np.testing.assert_allclose(both.sum(), (bytes_ / 255).sum(), rtol=1e-6)
    assert images.name == "images"
    assert images.held_out_labels.shape == (4,)
    plain = load_data(str(tmp_path / "numbers.npy"), held_out=0.5)
    assert plain.train.shape == (10, 7)
    assert plain.held_out_labels is None


@pytest.mark.parametrize("key", ["x", "images", "data", "arr_0"])
@pytest.mark.parametrize("label_key", ["y", "labels", "target"])
def test_arrays_are_found_under_each_of_their_names(tmp_path, key, label_key):
    x, labels = rng.normal(size=(18, 3)).astype(np.float32), np.arange(18)
    np.savez(tmp_path / "named.npz", **{key: x, label_key: labels})
    loaded = load_data(str(tmp_path / "named.npz"))
    assert (len(loaded.train), len(loaded.held_out)) == (14, 4)  # 3.6 of 18
    np.testing.assert_array_equal(loaded.train, x[loaded.train_labels])
    np.testing.assert_array_equal(loaded.held_out, x[loaded.held_out_labels])


def written(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_tables(tmp_path):
    x = np.round(rng.normal(size=(18, 3)), 3).astype(np.float32)
    rows = [f"{a},{b},{c}" for a, b, c in x]
    plain = load_data(written(tmp_path / "plain.csv", ["a,y,c", *rows]), held_out=0.5)
    assert plain.name == "plain"
    assert plain.train_labels is None  # a coordinate may be called y
    both = torch.cat([plain.train, plain.held_out])
    np.testing.assert_array_equal(both[both[:, 0].argsort()], x[x[:, 0].argsort()])


@pytest.mark.parametrize("texts", [False, True])
@pytest.mark.parametrize("name", ["label", " Labels", "target"])
def test_a_column_of_a_table_has_the_labels(tmp_path, name, texts):
    x = rng.normal(size=(18, 2)).astype(np.float32)
    rows = [f"{a},{chr(65 + k) if texts else k},{b}" for k, (a, b) in enumerate(x)]
    loaded = load_data(written(tmp_path / "labelled.csv", [f"a,{name},b", *rows]))
    np.testing.assert_array_equal(loaded.train, x[loaded.train_labels])
    np.testing.assert_array_equal(loaded.held_out, x[loaded.held_out_labels])


def test_labels_that_are_texts_are_numbered_in_alphabetical_order(tmp_path):
    x = rng.normal(size=(18, 2)).astype(np.float32)
    np.savez(tmp_path / "texts.npz", x=x, y=np.array([f"{k:02d} of 18" for k in range(18)]))
    loaded = load_data(str(tmp_path / "texts.npz"))
    np.testing.assert_array_equal(loaded.train, x[loaded.train_labels])


def test_blanks_around_the_labels_of_a_table_are_none_of_their_names(tmp_path):
    loaded = load_data(
        written(tmp_path / "blanks.csv", ["a, label", *(f"{k}, cat\n{k}.5,cat \n{k}.2,dog" for k in "123")])
    )
    assert loaded.classes == ("cat", "dog")


def test_columns_of_scales_far_apart_are_warned_of():
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    scales = torch.tensor([0.01, 1.0, 0.0, 3.0])
    with pytest.warns(UserWarning, match=r"standard deviations from 0\.00\d+ to [234]\.\d+, and the gaussian"):
        warn_of_unlike_columns(x * torch.tensor([0.01, 0.01, 0.0, 3.0]))
    for alike in (x, 30 * x + 1e3, x * scales.sqrt(), 0 * x, (x * torch.tensor([1e-3, 1, 1, 1])).reshape(50, 2, 2)):
        warn_of_unlike_columns(alike)


def test_a_column_of_texts_that_has_no_name_of_labels_is_told_which_ones_there_are(tmp_path):
    expected = "column 2 is 'cat'; expected a number, or a header that calls the column label or labels or target$"
    for header in ([], ["a,species"]):
        with pytest.raises(ValueError, match=expected):
            load_data(written(tmp_path / "bad.csv", [*header, "1,cat", "2,dog"]))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a,label", "1,0", "2,"], "has 1 labels that are empty of 2"),
        (["a,label", "1,0", "2,1.5"], "has labels of .* whole numbers"),
        (["a,label", "1,0,3"], "line 2 has 3 cells; expected 2"),
        (["a,label", "b,0", "c,1", "1,2"], "line 2, column 1 is 'b'; expected a number"),
        (["1,cat", "2,dog"], "line 1, column 2 is 'cat'; expected a number"),
        (["a,b"], "holds no line of numbers"),
        (["label", "1", "2"], "expected observations"),
    ],
)
def test_bad_tables(tmp_path, lines, message):
    with pytest.raises(ValueError, match=r"^data: .*bad\.csv.*" + message):
        load_data(written(tmp_path / "bad.csv", lines))


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
    for odd in (np.inf, np.nan, 0.5, 1e30, 2**63):
        np.savez(
            tmp_path / "odd.npz", x=rng.normal(size=(9, 2)), y=np.array([odd] + 8 * [1], dtype=np.array(odd).dtype)
        )
        with pytest.raises(ValueError, match=r"has labels of .*; expected \(9,\) whole numbers that fit int64"):
            load_data(str(tmp_path / "odd.npz"))
    np.save(tmp_path / "objects.npy", np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"is not a \.npy or \.npz file of numbers"):
        load_data(str(tmp_path / "objects.npy"))


# MNIST and its kin


def write_idx(path, array, *, compress):
    content = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.with_name(path.name + ".gz" * compress).write_bytes(gzip.compress(content) if compress else content)


@pytest.fixture(params=[False, True], ids=["plain", "gzipped"])
def idx(tmp_path, request):
    arrays = {}
    for part, n in (("train", 30), ("t10k", 10)):
        arrays[part] = rng.integers(0, 256, (n, 4, 5), dtype=np.uint8), rng.integers(0, 10, n, dtype=np.uint8)
        for content, array in zip(("images-idx3", "labels-idx1"), arrays[part], strict=True):
            (tmp_path / "mnist").mkdir(exist_ok=True)
            write_idx(tmp_path / "mnist" / f"{part}-{content}-ubyte", array, compress=request.param)
    return tmp_path, arrays


@pytest.mark.parametrize("arguments", [("mnist", ""), ("mnist", "mnist"), ("fashion-mnist", "mnist"), ("folder", None)])
def test_idx_files_keep_their_published_split(idx, arguments):
    root, arrays = idx
    source, folder = arguments
    loaded = load_data(str(root / "mnist")) if folder is None else load_data(source, root=str(root / folder))
    for x, labels, part in (
        (loaded.train, loaded.train_labels, "train"),
        (loaded.held_out, loaded.held_out_labels, "t10k"),
    ):
        assert x.dtype == torch.float32
        images, numbers = arrays[part][0] / np.float32(255), arrays[part][1]
        if folder is None:  # in random order, which keeps each image with its label
            found = [np.flatnonzero((images == image.numpy()).all((1, 2))).item() for image in x]
            assert sorted(found) == list(range(len(images))) != found
            images, numbers = images[found], numbers[found]
        np.testing.assert_allclose(x, images)
        np.testing.assert_array_equal(labels, numbers)
    assert loaded.name == ("mnist" if folder is None else source)


def test_fashion_mnist_of_the_system_is_found(idx, monkeypatch):
    root, arrays = idx
    monkeypatch.setattr(data, "PACKAGED", {"fashion-mnist": root / "mnist"})
    assert len(load_data("fashion-mnist").train) == len(arrays["train"][0])


def test_without_files_scikit_learn_fetches(monkeypatch):
    images, labels = np.tile(np.arange(784.0) % 256, (10_020, 1)), np.array(["3", "7"] * 10 + ["1", "8"] * 5000)
    images[0], images[-1] = 0, 51
    asked = []

    def fetch(name, **options):
        asked.append(name)
        return images, labels

    monkeypatch.setattr(data, "PACKAGED", {})
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    loaded = load_data("fashion-mnist")
    assert asked == ["Fashion-MNIST"]
    assert (len(loaded.train), len(loaded.held_out)) == (20, 10_000)
    assert loaded.train.max() == 1
    assert (loaded.train[0] == 0).all()
    np.testing.assert_allclose(loaded.held_out[-1], 0.2)
    assert loaded.train_labels.tolist() == [3, 7] * 10
    assert loaded.held_out_labels.tolist() == [1, 8] * 5000

    def fail(name, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fail)
    with pytest.raises(OSError, match=r"data: mnist could not be fetched .*no route.*data_root"):
        load_data("mnist")


def test_broken_idx_files(idx, tmp_path):
    root, _ = idx
    with pytest.raises(FileNotFoundError, match=r"data_root: no file train-images-idx3-ubyte"):
        load_data("mnist", root=str(root / "nowhere"))
    with pytest.raises(ValueError, match=r"data_root is .*; expected it with mnist or fashion-mnist only"):
        load_data("digits", root=str(root))
    (images,) = (root / "mnist").glob("t10k-images*")
    content = images.read_bytes()
    for broken, message in (
        (content[:-9], "cannot be read|has .* values; expected"),
        (b"something", "not an IDX file"),
    ):
        images.write_bytes(broken)
        with pytest.raises(ValueError, match=message):
            load_data("mnist", root=str(root))
    images.unlink()
    with pytest.raises(FileNotFoundError, match="t10k-images-idx3-ubyte"):
        load_data("mnist", root=str(root))


@pytest.mark.parametrize(
    ("cells", "classes"),
    [(("01", "1", "02"), ("01", "02", "1")), (("0", "1", "10"), ()), (("0.0", "1.0", "2.0"), ())],
)
def test_labels_of_a_csv_file_that_differ_are_different_classes(tmp_path, cells, classes):
    written(tmp_path / "t.csv", ["a,label", *(f"{k},{cells[k % 3]}" for k in range(18))])
    loaded = load_data(str(tmp_path / "t.csv"))
    assert loaded.classes == classes
    assert len(loaded.train_labels.unique()) == 3


# Folders of images


def test_classes_have_the_names_that_the_data_give_them(tmp_path):
    names, x = ("ape", "bee", "cat"), rng.normal(size=(18, 2)).astype(np.float32)
    labels = np.array([names[k % 3] for k in range(18)])
    np.savez(tmp_path / "texts.npz", x=x, y=labels)
    written(tmp_path / "texts.csv", ["a,b,label", *(f"{a},{b},{name}" for (a, b), name in zip(x, labels, strict=True))])
    for k in range(18):
        folder = tmp_path / "photos" / names[k % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((2, 2), 10 * k, dtype=np.uint8)).save(folder / f"{k:02}.png")
    for source in ("texts.npz", "texts.csv", "photos"):
        loaded = load_data(str(tmp_path / source))
        assert loaded.classes == names
        for part, numbers in ((loaded.train, loaded.train_labels), (loaded.held_out, loaded.held_out_labels)):
            if source == "photos":
                at = (part[:, 0, 0] * 25.5).round().long().numpy()
            else:
                at = np.array([np.flatnonzero((x == row.numpy()).all(1))[0] for row in part])
            assert loaded.named(numbers).tolist() == labels[at].tolist()
    assert load_data("digits").named(torch.tensor([3, 1])).tolist() == [3, 1]


def test_a_folder_of_images(tmp_path):
    for k in range(12):
        folder = tmp_path / "shapes" / ("circle", "square")[k % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((5, 6), 20 * k, dtype=np.uint8)).save(folder / f"{k:02}.png")
    grey = load_data(str(tmp_path / "shapes"))
    assert grey.train.shape == (10, 5, 6)
    both, labels = torch.cat([grey.train, grey.held_out]), torch.cat([grey.train_labels, grey.held_out_labels])
    numbers = (both[:, 0, 0] * 255 / 20).round().long()
    assert numbers.sort().values.tolist() == list(range(12))
    assert torch.equal(numbers % 2, labels)
    # One in colour makes all of them so.
    Image.fromarray(np.full((5, 6, 3), [255, 0, 51], dtype=np.uint8)).save(tmp_path / "shapes" / "red.png")
    colour = load_data(str(tmp_path / "shapes"))
    assert colour.train.shape[1:] == (3, 5, 6)
    red = next(x for x in torch.cat([colour.train, colour.held_out]) if x[0, 0, 0] == 1)
    np.testing.assert_allclose(red[:, 0, 0], [1, 0, 0.2])


@pytest.mark.parametrize(("mode", "shape"), [("1", (5, 6)), ("LA", (5, 6)), ("P", (3, 5, 6)), ("RGBA", (3, 5, 6))])
def test_images_are_in_grey_or_colour_whatever_their_palette_and_transparency(tmp_path, mode, shape):
    bits = rng.integers(0, 2, (12, 5, 6))
    for k, image in enumerate(bits):
        Image.fromarray((255 * image).astype(np.uint8)).convert(mode).save(tmp_path / f"{k:02}.PNG")
    loaded = load_data(str(tmp_path))
    assert loaded.train.shape[1:] == shape
    found = torch.cat([loaded.train, loaded.held_out]).reshape(12, -1, 30)
    assert sorted(map(tuple, found[:, 0].tolist())) == sorted(map(tuple, bits.reshape(12, 30).tolist()))
    assert (found == found[:, :1]).all()


@pytest.mark.parametrize(
    ("suffix", "dtype", "scale"),
    [(".png", np.uint16, 65535), (".tif", np.uint16, 65535), (".pgm", ">u2", 65535), (".tif", np.int32, 1),
     (".tif", np.float32, 1), (".png", np.uint8, 255)],
)  # fmt: skip
def test_images_of_more_than_a_byte_a_pixel_keep_their_numbers(tmp_path, suffix, dtype, scale):
    pixels = rng.integers(0, 256 if dtype == np.uint8 else 65536, (12, 5, 6)).astype(dtype)
    for k, image in enumerate(pixels):
        if suffix == ".pgm":
            (tmp_path / f"{k:02}.pgm").write_bytes(b"P5 6 5 65535\n" + image.tobytes())
        else:
            Image.fromarray(image).save(tmp_path / f"{k:02}{suffix}")
    loaded = load_data(str(tmp_path))
    both = torch.cat([loaded.train, loaded.held_out])
    assert both.dtype == torch.float32
    expected = (pixels / np.float32(scale)).astype(np.float32)
    order = np.lexsort(expected.reshape(12, -1).T)
    np.testing.assert_array_equal(both[np.lexsort(both.flatten(1).T.numpy())], expected[order])


def test_images_of_bytes_and_of_more_are_not_mixed(tmp_path):
    for name, dtype in (("a", np.uint16), ("b", np.uint8)):
        Image.fromarray(np.zeros((5, 6), dtype=dtype)).save(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match=r"b\.png has pixels of uint8, .*a\.png of uint16; expected one kind"):
        load_data(str(tmp_path))


def test_bytes_that_are_0_and_1_are_a_mask_to_be_warned_of(tmp_path):
    mask = rng.integers(0, 2, (20, 4), dtype=np.uint8)
    np.save(tmp_path / "mask.npy", mask)
    with pytest.warns(UserWarning, match=r"mask\.npy has bytes of 0 and 1 only, which are scaled to 0 and 1/255"):
        load_data(str(tmp_path / "mask.npy"))
    np.save(tmp_path / "bool.npy", mask.astype(bool))
    assert load_data(str(tmp_path / "bool.npy")).train.max() == 1


def test_a_class_whose_folder_is_a_link_is_one_of_the_classes(tmp_path):
    for name in ("images/a", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
        for k in range(5):
            Image.fromarray(np.full((4, 4), 40 * k, dtype=np.uint8)).save(tmp_path / name / f"{k}.png")
    (tmp_path / "images" / "b").symlink_to(tmp_path / "elsewhere")
    assert load_data(str(tmp_path / "images")).classes == ("a", "b")
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "images")
    with pytest.raises(ValueError, match=r"images/b/again is a link to a folder that it is in; expected none"):
        load_data(str(tmp_path / "images"))


def test_bad_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no images; expected files"):
        load_data(str(tmp_path))
    Image.fromarray(np.zeros((5, 6), dtype=np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((5, 7), dtype=np.uint8)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"b\.png has 7 x 5 pixels, .*a\.png 6 x 5; expected one size"):
        load_data(str(tmp_path))
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"b\.png cannot be read as an image"):
        load_data(str(tmp_path))


def test_outside_the_range_of_the_likelihood():
    with pytest.raises(ValueError, match=r"data has values from -1 to 2; the bernoulli likelihood expects \[0, 1\]"):
        Bernoulli().check(torch.tensor([-1.0, 2.0]))


@pytest.mark.parametrize("likelihood", [Bernoulli(), Gaussian()])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_likelihood_takes_nan(likelihood, bad):
    with pytest.raises(ValueError, match="data has 1 values that are NaN or infinite of 3"):
        likelihood.check(torch.tensor([0.5, bad, 0.2]))
