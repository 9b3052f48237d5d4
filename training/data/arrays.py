"""``--dataset npz:FILE``: the arrays that Keras and MedMNIST keep a data set in, or a folder of them as ``.npy`` files.

What is not compressed is mapped into memory, so that a file may be larger than that.
"""

import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from alignscape.errors import InputError
from alignscape.memory import require_memory
from training.data.checks import as_images, checked
from training.data.samples import Dataset, Split

NAMES = {  # each with the names that are taken for it
    "x_train": ("x_train", "X_train", "train_images", "train_x"),
    "y_train": ("y_train", "Y_train", "train_labels", "train_y"),
    "x_test": ("x_test", "X_test", "test_images", "test_x"),
    "y_test": ("y_test", "Y_test", "test_labels", "test_y"),
}
MORE = ("mean", "std", "classes", "layout")
CHANNELS = (1, 3, 4)  # of images


def read_arrays(path: Path, name: str) -> Dataset:
    """Return the data set in ``path``: a ``.npz`` file, or a folder of ``.npy`` files of the same names.

    Images of four axes are taken as (N, H, W, C) or (N, C, H, W) by which axis has 1, 3 or 4 places; ``layout``
    (``"NHWC"`` or ``"NCHW"``) says where both have.

    Raises:
        InputError: no such file; a missing array; arrays that are no data set.
    """
    arrays = _folder(path, name) if path.is_dir() else _npz(path, name)
    found = {}
    for wanted, names in NAMES.items():
        there = [one for one in names if one in arrays]
        if not there:
            raise InputError(f"{name} has no array {wanted}; it has {', '.join(arrays) or 'none'}")
        found[wanted] = arrays[there[0]]
    more: dict[str, Any] = {one: arrays[one]() for one in MORE if one in arrays}
    layout = str(more.pop("layout")) if "layout" in more else None
    if layout not in (None, "NHWC", "NCHW"):
        raise InputError(f"{name}: layout is {layout!r}; it must be NHWC or NCHW")
    if "classes" in more:
        more["classes"] = more["classes"].item() if more["classes"].size == 1 else more["classes"].tolist()
    splits = {}
    for split in ("train", "test"):
        inputs, labels = _tensor(found[f"x_{split}"](), name), _tensor(found[f"y_{split}"](), name)
        if not inputs.is_floating_point() and inputs.dtype != torch.uint8:
            kind = str(inputs.dtype).removeprefix("torch.")
            raise InputError(f"{name}: x_{split} is {kind}; pixels are uint8, and anything else floats")
        splits[split] = Split(images=_channels_first(inputs, layout, name), labels=labels, mapped=True)
    return checked(name, splits["train"], splits["test"], **more)


def _tensor(array: NDArray[Any], name: str) -> Tensor:
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        raise InputError(f"{name} holds an array of {array.dtype}, of which no tensor can be made") from error


def _channels_first(inputs: Tensor, layout: str | None, name: str) -> Tensor:
    if inputs.dim() == 3:
        return inputs[:, None]  # grey images, as Keras has MNIST
    if inputs.dim() != 4:
        return as_images(inputs)
    first, last = inputs.shape[1] in CHANNELS, inputs.shape[3] in CHANNELS
    if layout is None and first and last:
        shape = tuple(inputs.shape)
        raise InputError(f"{name}: images of {shape} may have channels first or last: add layout='NCHW' or 'NHWC'")
    return inputs.permute(0, 3, 1, 2) if layout == "NHWC" or (layout is None and last) else inputs


Arrays = Mapping[str, Callable[[], NDArray[Any]]]


def _folder(path: Path, name: str) -> Arrays:
    return {one.stem: _reader(one, name) for one in sorted(path.glob("*.npy"))}


def _reader(path: Path, name: str) -> Callable[[], NDArray[Any]]:
    def read() -> NDArray[Any]:
        try:
            array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise InputError(f"{name}: {path.name} cannot be read: {str(error).splitlines()[0]}") from error
        return array

    return read


def _npz(path: Path, name: str) -> Arrays:
    if not path.is_file():
        raise InputError(f"{name}: no such file: {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            members = [one for one in archive.infolist() if one.filename.endswith(".npy")]
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{name} is no .npz file, or is cut short: {str(error).splitlines()[0]}") from error
    return {one.filename.removesuffix(".npy"): _member(path, one, name) for one in members}


def _member(path: Path, member: zipfile.ZipInfo, name: str) -> Callable[[], NDArray[Any]]:
    def read() -> NDArray[Any]:
        try:
            if member.compress_type == zipfile.ZIP_STORED:
                return _mapped(path, member)
            advice = "save it by np.savez, without compression: that need not be in memory as a whole"
            require_memory({member.filename: member.file_size}, f"reading {path.name}", advice)
            with np.load(path, allow_pickle=False) as arrays:
                array: NDArray[Any] = arrays[member.filename.removesuffix(".npy")]
            return array
        except InputError:
            raise
        except Exception as error:  # of damaged files: of zip, of zlib, of the array's head
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"{name}: {member.filename} cannot be read: {first}") from error

    return read


def _mapped(path: Path, member: zipfile.ZipInfo) -> NDArray[Any]:
    """Return an array of a .npz file where it lies; what is written into it stays in memory."""
    with zipfile.ZipFile(path) as archive, archive.open(member) as handle:
        version = npy.read_magic(handle)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(handle)
        head = handle.tell()
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not loaded")
    with open(path, "rb") as file:
        file.seek(member.header_offset + 26)  # lengths of the name and of the extra field, which precede the data
        lengths = struct.unpack("<HH", file.read(4))
    offset = member.header_offset + 30 + sum(lengths) + head
    if not np.prod(shape) or dtype.byteorder == ">":
        with np.load(path, allow_pickle=False) as arrays:
            found: NDArray[Any] = arrays[member.filename.removesuffix(".npy")]
        return found.astype(found.dtype.newbyteorder("="))
    return np.memmap(path, dtype, "c", offset, shape, "F" if fortran else "C")
