"""Where data sets come from: read whole, as uint8 tensors that live on the device and are normalised there.

Reading, layouts and checksums are torchvision's; ``digits`` come with scikit-learn and need no files. A data set
is small enough to sit on the device whole (CIFAR-10: 184 MB), so there is no loader and no worker process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alignscape.errors import InputError
from alignscape.seeding import generator
from training.data.samples import Dataset, Split

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


_MNIST = "MNIST/raw/{}-images-idx3-ubyte", "MNIST/raw/{}-labels-idx1-ubyte"
_CIFAR = "cifar-10-batches-py"

# Means and standard deviations are those the field uses (CIFAR-10's is fixed by the paper); a test compares the
# ones whose data is at hand with the data.
SOURCES: dict[str, DataSource] = {
    "digits": DataSource(files={"train": (), "test": ()}, mean=(0.3051,), std=(0.3757,), classes=10),
    # each pixel as a square of 4 x 4, for networks that need images of 32 x 32
    "digits32": DataSource(files={"train": (), "test": ()}, mean=(0.3051,), std=(0.3757,), classes=10),
    "mnist": DataSource(
        files={
            "train": tuple(name.format("train") for name in _MNIST),
            "test": tuple(name.format("t10k") for name in _MNIST),
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
}

_DIGITS_TEST = 360  # the last fifth of a fixed shuffle: scikit-learn's digits have no official split


def source(name: str) -> DataSource:
    """Return the description of the data set called ``name``.

    Raises:
        InputError: the name is unknown; the message lists the known ones.
    """
    if name not in SOURCES:
        raise InputError(f"unknown data set {name!r}; known: {', '.join(SOURCES)}")
    return SOURCES[name]


def load_split(name: str, split: str, root: str | Path | None = None, *, download: bool = False) -> Split:
    """Read one split (``"train"`` or ``"test"``) from torchvision's folder layout under ``root``, on the CPU.

    Args:
        name: one of :data:`SOURCES`; ``digits`` and ``digits32`` need no files.
        split: ``"train"`` or ``"test"``.
        root: folder with the data set's files.
        download: fetch what is missing.

    Raises:
        InputError: unknown name; missing files (named) when not ``download``; files that fail their checksum.

    Example:
        >>> from training import load_split
        >>> test = load_split("digits", "test")
        >>> test.images.shape, test.images.dtype
        (torch.Size([360, 1, 8, 8]), torch.uint8)
    """
    files = source(name).files[split]
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
    device: torch.device | str = "cpu",
) -> Dataset:
    """Read both splits, cut the train split to ``train_size`` samples, and place them on ``device``.

    Args:
        name: as for :func:`load_split`.
        root: as for :func:`load_split`.
        download: as for :func:`load_split`.
        train_size: samples of the train split; all if None.
        subset_seed: which samples those are.
        device: where both splits lie.

    Raises:
        InputError: as :func:`load_split` and :meth:`Split.subset`.

    Example:
        >>> from training import load_dataset
        >>> data = load_dataset("digits", train_size=100)
        >>> len(data.train), len(data.test), data.input_shape, data.classes
        (100, 360, (1, 8, 8), 10)
    """
    described = source(name)
    train = load_split(name, "train", root, download=download).subset(train_size, subset_seed)
    test = load_split(name, "test", root, download=download)
    return Dataset(
        name=name,
        train=train.to(device),
        test=test.to(device),
        mean=described.mean,
        std=described.std,
        classes=described.classes,
    )


def _from_torchvision(name: str, split: str, root: Path, download: bool) -> Split:
    from torchvision import datasets

    is_train = split == "train"
    readers: dict[str, Callable[[], Any]] = {
        "mnist": lambda: datasets.MNIST(root, train=is_train, download=download),
        "cifar10": lambda: datasets.CIFAR10(root, train=is_train, download=download),
        "cifar100": lambda: datasets.CIFAR100(root, train=is_train, download=download),
        "svhn": lambda: datasets.SVHN(root, split=split, download=download),
        "stl10": lambda: datasets.STL10(root, split=split, download=download),
    }
    read = readers[name]()
    images = torch.as_tensor(np.asarray(read.data))
    labels = torch.as_tensor(np.asarray(read.targets if hasattr(read, "targets") else read.labels))
    if name == "mnist":
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
