"""What data of a user's must be, whatever form they come in; what is wrong with them is one line."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignscape.errors import InputError
from alignscape.trees import map_tensors, shapes, tensors_in
from training.data.samples import Dataset, Lazy, Split, pieces

MOST_CLASSES = 10**6


def checked(
    name: str,
    train: Split,
    test: Split,
    mean: Any = None,
    std: Any = None,
    classes: Any = None,
) -> Dataset:
    """Return the data set ``name`` of two splits.

    Inputs come out as uint8, float32, or whole numbers as they are (tokens), labels as int64 (N,) or float32. Without
    ``mean`` and ``std``, pixels get those of the train split, one a channel, and floats stay as they are. Without
    ``classes`` there are as many as the largest label says.

    Raises:
        InputError: what is wrong, and of which split.
    """
    splits = {what: checked_split(name, what, split) for what, split in (("train", train), ("test", test))}
    train, test = splits["train"], splits["test"]
    first, second = (shapes(_one(split.images)) for split in splits.values())
    if first != second:
        raise InputError(f"{name}: train inputs are {first} each, test inputs {second}")
    if train.labels.dtype != test.labels.dtype or train.labels.shape[1:] != test.labels.shape[1:]:
        raise InputError(f"{name}: train labels are {_about(train.labels)}, test labels {_about(test.labels)}")
    count = _classes(name, train, test, classes)
    moments = _moments(name, train, mean, std)
    return Dataset(name=name, train=train, test=test, classes=count, mean=moments["mean"], std=moments["std"])


def checked_split(name: str, what: str, split: Split) -> Split:
    """Return a split with inputs and labels of the types that we compute with; ``what`` is its name in messages.

    Raises:
        InputError: what is wrong with it.
    """
    inputs, labels = split.images, split.labels
    lengths = {len(inputs)} if isinstance(inputs, Lazy) else {len(t) if t.dim() else 0 for t in tensors_in(inputs)}
    if not lengths or lengths == {0}:
        raise InputError(f"{name}: the {what} split holds no sample")
    if labels.dim() == 2 and labels.shape[1] == 1:  # as Keras has them
        labels = labels[:, 0]
    if labels.dim() == 0 or lengths != {len(labels)}:
        found = " and ".join(map(str, sorted(lengths)))
        raise InputError(f"{name}: the {what} split has {found} inputs and {len(labels) if labels.dim() else 1} labels")
    if not isinstance(inputs, Lazy):
        inputs = map_tensors(lambda t: _inputs(name, what, t, alone=isinstance(split.images, Tensor)), inputs)
    mapped = split.mapped and all(a is b for a, b in zip(tensors_in(inputs), tensors_in(split.images), strict=True))
    return Split(images=inputs, labels=_labels(name, what, labels), mapped=mapped, marks=split.marks)


def _inputs(name: str, what: str, inputs: Tensor, *, alone: bool) -> Tensor:
    if inputs.is_complex() or (inputs.dtype == torch.bool and alone):
        raise InputError(f"{name}: the {what} inputs are {_type(inputs)}; they must be uint8 pixels or floats")
    if not inputs.is_floating_point():
        return inputs
    for piece in pieces(inputs):
        if not bool(torch.isfinite(piece).all()):
            raise InputError(f"{name}: the {what} inputs hold NaN or infinity")
    return inputs if inputs.dtype == torch.float32 else inputs.float()


def _labels(name: str, what: str, labels: Tensor) -> Tensor:
    if labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(f"{name}: the {what} labels are {_type(labels)}; they must be whole numbers from 0")
    if labels.is_floating_point():
        if not bool(torch.isfinite(labels).all()):
            raise InputError(f"{name}: the {what} labels hold NaN or infinity")
        return labels.float()
    if labels.dim() != 1:
        raise InputError(f"{name}: the {what} labels are {_about(labels)}; they must be the numbers of classes, (N,)")
    if int(labels.min()) < 0:
        raise InputError(f"{name}: a {what} label is {int(labels.min())}; classes are numbered from 0")
    return labels.long()


def _classes(name: str, train: Split, test: Split, classes: Any) -> int:
    """Return the number of classes, or of a network's outputs where labels are no classes."""
    if train.labels.is_floating_point():
        return train.labels.shape[1] if train.labels.dim() > 1 else 1
    largest = max(int(split.labels.max()) for split in (train, test))
    if classes is None:
        if largest >= MOST_CLASSES:
            raise InputError(f"{name}: a label is {largest}; classes are numbered from 0, without gaps")
        return max(largest + 1, 2)
    try:
        count = int(classes)
        fits = count == classes and not isinstance(classes, bool) and 1 <= count <= MOST_CLASSES
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise InputError(f"{name}: classes is {classes!r}; it must be a whole number of at least 1")
    if largest >= count:
        raise InputError(f"{name}: a label is {largest}; with {count} classes they are 0 to {count - 1}")
    return count


def _moments(name: str, train: Split, mean: Any, std: Any) -> dict[str, tuple[float, ...]]:
    """Return ``mean`` and ``std`` as given, else as :func:`checked` says."""
    images = train.images
    plain = isinstance(images, (Tensor, Lazy)) and (images.dtype == torch.uint8 or images.dtype.is_floating_point)
    if (mean is None) != (std is None):
        raise InputError(f"{name}: give both mean and std, or neither")
    if mean is None:
        if plain and isinstance(images, Tensor) and images.dtype == torch.uint8:
            return dict(zip(("mean", "std"), pixel_moments(images), strict=True))
        return {"mean": (0.0,), "std": (1.0,)}
    if not plain:
        raise InputError(f"{name}: mean and std are for inputs that are pixels or floats")
    found = {"mean": _numbers(name, "mean", mean), "std": _numbers(name, "std", std)}
    for what, values in found.items():
        if len(values) not in (1, images.shape[1] if len(images.shape) > 1 else 1):
            raise InputError(f"{name}: {what} has {len(values)} values; give 1, or {images.shape[1]}, one a channel")
    if min(found["std"]) <= 0:
        raise InputError(f"{name}: std must be above 0, not {min(found['std']):g}")
    several = max(map(len, found.values()))
    return {what: values * (several // len(values)) for what, values in found.items()}


def _numbers(name: str, what: str, values: Any) -> tuple[float, ...]:
    try:
        found = tuple(torch.as_tensor(values, dtype=torch.float64).flatten().tolist())
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name}: {what} is no number and no list of numbers") from error
    if not found or not all(map(math.isfinite, found)):
        raise InputError(f"{name}: {what} must be finite numbers")
    return found


def pixel_moments(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of uint8 pixels in [0, 1]: of each channel of images (N, C, H, W), else of
    all; a deviation of 0 counts as 1."""
    channels = images.shape[1] if images.dim() == 4 else 1
    sums = torch.zeros(2, channels, dtype=torch.float64)
    for piece in pieces(images):
        values = piece.transpose(0, 1).reshape(channels, -1) if channels > 1 else piece.reshape(1, -1)
        counts = torch.stack([torch.bincount(row.cpu(), minlength=256) for row in values]).double()
        levels = torch.arange(256, dtype=torch.float64)
        sums += torch.stack([counts @ levels, counts @ levels**2])
    number = images.numel() // channels
    mean = sums[0] / number
    std = (sums[1] / number - mean**2).clamp_min(0).sqrt()
    std[std == 0] = 255.0
    return _as_tuple(mean / 255), _as_tuple(std / 255)


def _as_tuple(values: Tensor) -> tuple[float, ...]:
    return tuple(round(value, 6) for value in values.tolist())


def _one(images: Any) -> Any:
    """Return what one sample is, without its values."""
    if isinstance(images, Lazy):
        return torch.empty(images.shape[1:], device="meta")
    return map_tensors(lambda t: torch.empty(t.shape[1:], device="meta"), images)


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _about(tensor: Tensor) -> str:
    return f"{_type(tensor)} {shapes(tensor)}"


def byte_images(split: Split, name: str) -> NDArray[np.uint8]:
    """Return the pixels (N, H, W, C) of a split: what is corrupted.

    Raises:
        InputError: its inputs are no uint8 images.
    """
    images = split.images[:] if isinstance(split.images, Lazy) else split.images
    if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.dim() != 4:
        raise InputError(f"corruptions are of uint8 images (N, C, H, W), and {name} has inputs {shapes(images)}")
    found: NDArray[np.uint8] = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
    return found


def as_images(inputs: Tensor) -> Tensor:
    """Return uint8 images (N, H, W) as (N, 1, H, W), and anything else as it is."""
    return inputs[:, None] if inputs.dtype == torch.uint8 and inputs.dim() == 3 else inputs
