"""Data sets: the official bytes, normalised as promised, and errors that name the missing file."""

import hashlib

import pytest
import torch

from alignscape.errors import InputError
from training.data import SOURCES, Normalise, load_dataset, load_split, source


def test_digits_need_no_files_and_split_without_overlap():
    data = load_dataset("digits")
    assert (len(data.train), len(data.test)) == (1437, 360)
    assert data.input_shape == (1, 8, 8)
    assert data.train.images.dtype == torch.uint8
    assert (data.train.images.min(), data.train.images.max()) == (0, 255)
    assert set(data.train.labels.tolist()) == set(data.test.labels.tolist()) == set(range(10))
    together = torch.cat([data.train.images, data.test.images])
    assert len(together.unique(dim=0)) == 1797, "the digits hold no duplicates, so no test image is in the train split"


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10"])
def test_normalised_train_split_has_zero_mean_and_unit_variance(name, cifar_root, mnist_root):
    data = load_dataset(name, cifar_root if name == "cifar10" else mnist_root)
    images = Normalise(data.mean, data.std)(data.train.images[:20_000])
    assert images.dtype == torch.float32
    # Constants have 4 digits; a subset of 20,000 images moves the mean by less than .02.
    assert images.mean((0, 2, 3)).abs().max() < 0.02
    assert (images.std((0, 2, 3)) - 1).abs().max() < 0.02


def test_normalise_agrees_on_bytes_and_on_unit_pixels():
    pixels = torch.randint(256, (5, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    normalise = Normalise((0.4, 0.5, 0.6), (0.1, 0.2, 0.3))
    expected = (pixels.double() / 255 - torch.tensor([0.4, 0.5, 0.6]).double()[:, None, None]) / torch.tensor(
        [0.1, 0.2, 0.3]
    ).double()[:, None, None]
    torch.testing.assert_close(normalise(pixels).double(), expected, rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(normalise(pixels.float() / 255).double(), expected, rtol=1e-6, atol=2e-6)
    before = pixels.clone()
    normalise(pixels)
    assert torch.equal(pixels, before)


def test_cifar10_is_the_official_test_set(cifar_root):
    split = load_split("cifar10", "test", cifar_root)
    assert split.images.shape == (10_000, 3, 32, 32)
    # The md5 of the labels as CIFAR-10-C publishes them is of another format; these are of the raw official bytes.
    raw = split.images.flatten(1).numpy().tobytes()
    import pickle

    with (cifar_root / "cifar-10-batches-py" / "test_batch").open("rb") as handle:
        official = pickle.load(handle, encoding="bytes")
    assert hashlib.md5(raw).hexdigest() == hashlib.md5(official[b"data"].tobytes()).hexdigest()
    assert split.labels.tolist() == official[b"labels"]


def test_subsets_are_nested_seeded_and_checked():
    split = load_split("digits", "train")
    small, large = split.subset(50, seed=1), split.subset(100, seed=1)
    assert torch.equal(small.images, large.images[:50])
    assert not torch.equal(small.images, split.subset(50, seed=2).images)
    assert split.subset(None, seed=1) is split
    for size in (0, 1438):
        with pytest.raises(InputError, match=f"{size} samples were asked for; the split has 1437"):
            split.subset(size, seed=0)


def test_digest_moves_with_pixels_labels_and_shape():
    split = load_split("digits", "test")
    digests = {split.digest()}
    pixel, label = split.images.clone(), split.labels.clone()
    pixel[0, 0, 0, 0] += 1
    label[0] = (label[0] + 1) % 10
    for images, labels in ((pixel, split.labels), (split.images, label), (split.images.flatten(2), split.labels)):
        digests.add(type(split)(images=images, labels=labels).digest())
    assert len(digests) == 4
    assert split.digest() == load_split("digits", "test").digest()


def test_digits32_are_the_digits_in_larger_pixels():
    small, large = (load_split(name, "test") for name in ("digits", "digits32"))
    assert large.images.shape == (360, 1, 32, 32)
    assert (large.images.unfold(2, 4, 4).unfold(3, 4, 4) == small.images[..., None, None]).all()
    assert (large.labels == small.labels).all()


@pytest.mark.parametrize("name", [name for name in SOURCES if not name.startswith("digits")])
def test_missing_files_are_named(name, tmp_path):
    with pytest.raises(InputError, match=rf"{name} is not complete under .*missing .*{source(name).files['train'][0]}"):
        load_split(name, "train", tmp_path)
    with pytest.raises(InputError, match="--data-root"):
        load_split(name, "train", None)


def test_damaged_files_are_refused(tmp_path):
    for file in source("cifar10").files["test"]:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"not the official bytes")
    with pytest.raises(InputError, match=r"cifar10 under .* cannot be read"):
        load_split("cifar10", "test", tmp_path)


def test_unknown_data_set_lists_the_known_ones():
    with pytest.raises(InputError, match="unknown data set 'imagenet'; known: digits, digits32, mnist, cifar10"):
        load_dataset("imagenet")


def write_cifar100(root):
    import pickle

    import numpy as np

    folder = root / "cifar-100-python"
    folder.mkdir()
    pixels = np.arange(2 * 3072, dtype=np.uint32).astype(np.uint8).reshape(2, 3072)
    for name in ("train", "test"):
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "fine_labels": [5, 99]}))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [str(i) for i in range(100)]}))
    return pixels.reshape(2, 3, 32, 32)


def write_svhn(root):
    import numpy as np
    from scipy.io import savemat

    pixels = np.arange(2 * 3072, dtype=np.uint32).astype(np.uint8).reshape(2, 3, 32, 32)
    for name in ("train", "test"):
        savemat(root / f"{name}_32x32.mat", {"X": pixels.transpose(2, 3, 1, 0), "y": np.array([[10], [3]])})
    return pixels


def write_stl10(root):
    import numpy as np

    folder = root / "stl10_binary"
    folder.mkdir()
    pixels = np.arange(2 * 27648, dtype=np.uint32).astype(np.uint8).reshape(2, 3, 96, 96)
    for name in ("train", "test"):
        pixels.transpose(0, 1, 3, 2).tofile(folder / f"{name}_X.bin")
        np.array([1, 10], dtype=np.uint8).tofile(folder / f"{name}_y.bin")
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
    return pixels


@pytest.mark.parametrize(
    ("name", "write", "labels"),
    [("cifar100", write_cifar100, [5, 99]), ("svhn", write_svhn, [0, 3]), ("stl10", write_stl10, [0, 9])],
)
def test_layouts_of_the_other_data_sets(name, write, labels, tmp_path, monkeypatch):
    """Tiny files in the real formats, through torchvision's own readers (its checksums set aside)."""
    import torchvision.datasets as tv

    expected = write(tmp_path)
    for reader in (tv.CIFAR100, tv.STL10):
        monkeypatch.setattr(reader, "_check_integrity", lambda self: True)
    monkeypatch.setattr(tv.SVHN, "_check_integrity", lambda self: True)
    import torchvision.datasets.cifar as cifar

    monkeypatch.setattr(cifar, "check_integrity", lambda *_: True)
    split = load_split(name, "test", tmp_path)
    assert split.labels.tolist() == labels
    assert torch.equal(split.images, torch.as_tensor(expected))
