"""Data sets that are no data set of ours: files, folders and functions of the user's, named by what they are."""

import os
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from alignscape.errors import InputError
from alignscape.imports import locate
from training.data.samples import Dataset, Split
from training.data_names import FORMS, is_own


def own_dataset(name: str, image_size: int | None = None) -> Dataset:
    """Return a data set of the user's, on the CPU; what is in files may be mapped into memory. It is read again when
    its files have changed.

    Raises:
        InputError: whatever is wrong with it; ``image_size`` of one that is not ``imagefolder:``.
    """
    form, _, rest = name.partition(":")
    if not form or not rest:
        raise InputError(f"--dataset {name!r} must be a data set of ours, {FORMS}")
    if image_size is not None and form != "imagefolder":
        raise InputError("--image-size has an effect with --dataset imagefolder:DIR only: leave it out")
    return _read(name, image_size, os.getcwd(), stamps_of(name))


def own_digest(name: str, image_size: int | None = None, train_size: int | None = None, subset_seed: int = 0) -> str:
    """Return the digest of :func:`own_dataset` with so many samples in its train split, remembered as long as its files
    are as they were.

    Raises:
        InputError: as :func:`own_dataset`, and :meth:`Split.subset`.
    """
    return _digest(name, image_size, train_size, subset_seed, os.getcwd(), stamps_of(name))


@lru_cache(maxsize=64)
def _digest(name: str, image_size: int | None, train_size: int | None, subset_seed: int, *_: object) -> str:
    whole = own_dataset(name, image_size)
    return replace(whole, train=whole.train.subset(train_size, subset_seed)).digest()


def split_digest(
    name: str, split: str, image_size: int | None = None, train_size: int | None = None, subset_seed: int = 0
) -> str:
    """Return the digest of one split of :func:`own_dataset`, of as many of its samples as there are up to
    ``train_size``; remembered as :func:`own_digest` is.

    Raises:
        InputError: as :func:`own_dataset`.
    """
    return _split_digest(name, split, image_size, train_size, subset_seed, os.getcwd(), stamps_of(name))


@lru_cache(maxsize=64)
def _split_digest(
    name: str, split: str, image_size: int | None, train_size: int | None, subset_seed: int, *_: object
) -> str:
    whole: Split = getattr(own_dataset(name, image_size), split)
    return whole.subset(None if train_size is None else min(train_size, len(whole)), subset_seed).digest()


def files_of(name: str) -> list[str]:
    """Return the files that a data set of the user's is in, for their time stamps; of a function its module."""
    form, _, rest = name.partition(":")
    path = Path(rest).expanduser()
    if form == "npz":
        return [os.fspath(one) for one in (sorted(path.glob("*.npy")) if path.is_dir() else [path])]
    if form == "imagefolder":  # of its folders, which pictures come into and go from; their reader looks at each
        return [os.fspath(one) for one in (path, *sorted(path.glob("*/")), *sorted(path.glob("*/*/")))]
    source = locate(form)
    return [] if source is None else [os.fspath(source)]


def stamps_of(name: str) -> tuple[tuple[str, int, int], ...]:
    """Return what tells whether the files of a data set of the user's have changed; of a data set of ours nothing."""
    return tuple(map(_stamp, files_of(name))) if is_own(name) else ()


def _stamp(file: str) -> tuple[str, int, int]:
    try:
        stat = os.stat(file)
    except OSError:
        return file, 0, 0
    return file, stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=2)
def _read(name: str, image_size: int | None, folder: str, stamps: tuple[tuple[str, int, int], ...]) -> Dataset:
    form, _, rest = name.partition(":")
    path = Path(rest).expanduser()
    if form == "npz":
        from training.data.arrays import read_arrays

        return read_arrays(path, name)
    if form == "imagefolder":
        from training.data.folders import read_folder

        return read_folder(path, name, image_size)
    from training.data.given import call_function

    return call_function(name)
