"""Where data sets come from: read whole, as uint8 tensors that live on the device and are normalised there.

Reading, layouts and checksums are torchvision's; ``digits`` come with scikit-learn and need no files. A data set of
ours is small enough to sit on the device whole (CIFAR-10: 184 MB), so there is no loader and no worker process; those
of users' (:mod:`training.data.own`) may be larger.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alignscape.errors import InputError
from alignscape.seeding import generator
from training.data.own import own_dataset
from training.data.samples import Dataset, Split
from training.data_names import FORMS, is_own

SPLITS = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Where a data set's files lie under the root, and the per-channel statistics of its train split.

    Attributes:
        files: of each split, those that must exist, relative to the root.
        mean: of pixels in [0, 1], one a channel.
        std: standard deviation of the same.
        classes: number of classes.
    """

    files: dict[str, tuple[str, ...]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int


_MNIST = "{}/raw/{}-images-idx3-ubyte", "{}/raw/{}-labels-idx1-ubyte"
_CIFAR = "cifar-10-batches-py"

# Means and standard deviations are those the field uses (CIFAR-10's is fixed by the paper); a test compares the
# ones whose data is at hand with the data.
SOURCES: dict[str, DataSource] = {
    "digits": DataSource(files={"train": (), "test": ()}, mean=(0.3051,), std=(0.3757,), classes=10),
    # each pixel as a square of 4 x 4, for networks that need images of 32 x 32
    "digits32": DataSource(files={"train": (), "test": ()}, mean=(0.3051,), std=(0.3757,), classes=10),
    "mnist": DataSource(
        files={
            "train": tuple(name.format("MNIST", "train") for name in _MNIST),
            "test": tuple(name.format("MNIST", "t10k") for name in _MNIST),
        },
        mean=(0.1307,),
        std=(0.3081,),
        classes=10,
    ),
    "cifar10": DataSource(
        files={
            "train": (f"{_CIFAR}/batches.meta", *(f"{_CIFAR}/data_batch_{i}" for i in range(1, 6))),
            "test": (f"{_CIFAR}/batches.meta", f"{_CIFAR}/test_batch"),
        },
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        classes=10,
    ),
    "cifar100": DataSource(
        files={
            "train": ("cifar-100-python/meta", "cifar-100-python/train"),
            "test": ("cifar-100-python/meta", "cifar-100-python/test"),
        },
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        classes=100,
    ),
    "svhn": DataSource(
        files={"train": ("train_32x32.mat",), "test": ("test_32x32.mat",)},
        mean=(0.4377, 0.4438, 0.4728),
        std=(0.1980, 0.2010, 0.1970),
        classes=10,
    ),
    "stl10": DataSource(
        files={
            "train": ("stl10_binary/train_X.bin", "stl10_binary/train_y.bin"),
            "test": ("stl10_binary/test_X.bin", "stl10_binary/test_y.bin"),
        },
        mean=(0.4467, 0.4398, 0.4066),
        std=(0.2603, 0.2566, 0.2713),
        classes=10,
    ),
    "fashionmnist": DataSource(
        files={
            "train": tuple(name.format("FashionMNIST", "train") for name in _MNIST),
            "test": tuple(name.format("FashionMNIST", "t10k") for name in _MNIST),
        },
        mean=(0.2860,),
        std=(0.3530,),
        classes=10,
    ),
}

_DIGITS_TEST = 360  # the last fifth of a fixed shuffle: scikit-learn's digits have no official split


def source(name: str) -> DataSource:
    """Return the description of the data set called ``name``.

    Raises:
        InputError: the name is unknown; the message lists the known ones.
    """
    if name not in SOURCES:
        raise InputError(f"unknown data set {name!r}; known: {', '.join(SOURCES)}, {FORMS}")
    return SOURCES[name]


def described(name: str, image_size: int | None = None) -> DataSource:
    """Return as :func:`source`, of any data set; those of users' are read for it.

    Raises:
        InputError: as :func:`source` and :func:`training.data.own.own_dataset`.
    """
    if not is_own(name):
        refuse_image_size(name, image_size)
        return source(name)
    data = own_dataset(name, image_size)
    return DataSource(files=dict.fromkeys(SPLITS, ()), mean=data.mean, std=data.std, classes=data.classes)


def refuse_image_size(name: str, image_size: int | None) -> None:
    """Refuse a size of images for a data set whose images have theirs.

    Raises:
        InputError: it is given.
    """
    if image_size is not None and not is_own(name):
        raise InputError(f"--image-size is for imagefolder:DIR; the images of {name} are as they are")


def load_split(
    name: str, split: str, root: str | Path | None = None, *, download: bool = False, image_size: int | None = None
) -> Split:
    """Read one split (``"train"`` or ``"test"``) from torchvision's folder layout under ``root``, on the CPU.

    Args:
        name: one of :data:`SOURCES`, of which ``digits`` and ``digits32`` need no files; or data of your own:
            ``npz:FILE``, ``imagefolder:DIR``, ``package.module:function`` (docs/data.md).
        split: ``"train"`` or ``"test"``.
        root: folder with the data set's files; data of your own have theirs in their name.
        download: fetch what is missing.
        image_size: pixels a side, of ``imagefolder:`` (224 if None).

    Raises:
        InputError: unknown name; missing files (named) when not ``download``; files that fail their checksum; data of
            your own that are no data set.

    Example:
        >>> from training import load_split
        >>> test = load_split("digits", "test")
        >>> test.images.shape, test.images.dtype
        (torch.Size([360, 1, 8, 8]), torch.uint8)
    """
    if is_own(name):
        data = own_dataset(name, image_size)
        return data.train if split == "train" else data.test
    files = described(name, image_size).files[split]
    if name == "digits":
        return _digits(split)
    if name == "digits32":
        small = _digits(split)
        return Split(images=small.images.repeat_interleave(4, 2).repeat_interleave(4, 3), labels=small.labels)
    if root is None:
        raise InputError(f"{name} is read from files: give --data-root DIR (and --download to fetch it there)")
    if not download and (missing := [file for file in files if not (Path(root) / file).is_file()]):
        raise InputError(
            f"{name} is not complete under {root}: missing {', '.join(missing)}; "
            "give the folder above as --data-root, or --download"
        )
    try:
        return _from_torchvision(name, split, Path(root), download)
    except (RuntimeError, OSError, ValueError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{name} under {root} cannot be read ({reason}); re-fetch it with --download") from error


def load_dataset(
    name: str,
    root: str | Path | None = None,
    *,
    download: bool = False,
    train_size: int | None = None,
    subset_seed: int = 0,
    image_size: int | None = None,
    device: torch.device | str = "cpu",
) -> Dataset:
    """Read both splits, cut the train split to ``train_size`` samples, and place them on ``device``.

    Inputs that would take more than half of what is free there (or than ``$ALIGNSCAPE_DATA_MEMORY``, in 1e9 bytes) stay
    in main memory or in their file and come batch by batch; results are the same bits.

    Args:
        name: as for :func:`load_split`.
        root: as for :func:`load_split`.
        download: as for :func:`load_split`.
        train_size: samples of the train split; all if None.
        subset_seed: which samples those are.
        image_size: as for :func:`load_split`.
        device: where both splits lie.

    Raises:
        InputError: as :func:`load_split` and :meth:`Split.subset`.

    Example:
        >>> from training import load_dataset
        >>> data = load_dataset("digits", train_size=100)
        >>> len(data.train), len(data.test), data.input_shape, data.classes
        (100, 360, (1, 8, 8), 10)
    """
    if is_own(name):
        whole = own_dataset(name, image_size)
        return replace(whole, train=whole.train.subset(train_size, subset_seed)).to(device)
    about = described(name, image_size)
    train = load_split(name, "train", root, download=download).subset(train_size, subset_seed)
    test = load_split(name, "test", root, download=download)
    return Dataset(
        name=name,
        train=train.to(device),
        test=test.to(device),
        mean=about.mean,
        std=about.std,
        classes=about.classes,
    )


def _from_torchvision(name: str, split: str, root: Path, download: bool) -> Split:
    from torchvision import datasets

    is_train = split == "train"
    readers: dict[str, Callable[[], Any]] = {
        "mnist": lambda: datasets.MNIST(root, train=is_train, download=download),
        "fashionmnist": lambda: datasets.FashionMNIST(root, train=is_train, download=download),
        "cifar10": lambda: datasets.CIFAR10(root, train=is_train, download=download),
        "cifar100": lambda: datasets.CIFAR100(root, train=is_train, download=download),
        "svhn": lambda: datasets.SVHN(root, split=split, download=download),
        "stl10": lambda: datasets.STL10(root, split=split, download=download),
    }
    read = readers[name]()
    images = torch.as_tensor(np.asarray(read.data))
    labels = torch.as_tensor(np.asarray(read.targets if hasattr(read, "targets") else read.labels))
    if name.endswith("mnist"):
        images = images[:, None]
    elif name in ("cifar10", "cifar100"):
        images = images.permute(0, 3, 1, 2)
    return Split(images=images.contiguous(), labels=labels.long())


def _digits(split: str) -> Split:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # 17 grey levels 0..16 spread over 0..255, so that pixels / 255 fill [0, 1] as in every other data set.
    images = torch.as_tensor(np.round(bunch.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.as_tensor(bunch.target).long()
    order = torch.randperm(len(labels), generator=generator(0, "digits"))
    chosen = order[_DIGITS_TEST:] if split == "train" else order[:_DIGITS_TEST]
    return Split(images=images[chosen], labels=labels[chosen])
