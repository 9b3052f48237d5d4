"""Samples with labels, what normalises them, and both splits of a data set."""

import functools
import hashlib
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from alignscape.errors import InputError
from alignscape.memory import free_memory
from alignscape.seeding import generator
from alignscape.trees import map_tensors, shapes, tensors_in

ROOM_VARIABLE = "ALIGNSCAPE_DATA_MEMORY"
ROOM_SHARE = 0.5  # of what is free on the device, that a split may take there
_PIECE = 2**26  # bytes of a large file that are looked at at once


class Lazy(ABC):
    """Images that are made when they are asked for; they behave as a tensor (N, C, H, W) on the CPU does."""

    shape: torch.Size
    dtype: torch.dtype
    device = torch.device("cpu")

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all of them."""
        return math.prod(self.shape) * self.dtype.itemsize

    @abstractmethod
    def __getitem__(self, index: Any) -> Tensor:
        """Make those at ``index``, a slice or a tensor of any shape."""

    @abstractmethod
    def at(self, index: Tensor) -> "Lazy":
        """Return those at ``index`` (M,), of which none is made yet."""


class Chosen(Lazy):
    """Some of the samples of a file that is mapped into memory, too many for a copy."""

    def __init__(self, images: Tensor, index: Tensor) -> None:
        self.images, self.index = images, index
        self.shape, self.dtype = torch.Size([len(index), *images.shape[1:]]), images.dtype

    def __getitem__(self, index: Any) -> Tensor:
        return self.images[self.index[index]].contiguous()

    def at(self, index: Tensor) -> "Chosen":
        return Chosen(self.images, self.index[index])


@dataclass(frozen=True, kw_only=True)
class Split:
    """Samples, as a rule on one device.

    What does not fit there (see :meth:`to`) stays in main memory or in its file, and comes batch by batch; results do
    not depend on it.

    Attributes:
        images: inputs (N, ...): uint8 pixels (N, C, H, W), floats of any shape, or a tuple or mapping of tensors.
        labels: (N,) int64; floats (N,) or (N, k) where what is learnt is no class.
        mapped: whether the inputs lie in a file that is mapped into memory.
        marks: (N, 32) uint8, the SHA-256 of each sample's pixels, where they are known without reading all of these.

    Example:
        >>> import torch
        >>> from training import Split
        >>> split = Split(images=torch.zeros(5, 1, 2, 2, dtype=torch.uint8), labels=torch.arange(5))
        >>> few, fewer = split.subset(3, seed=0), split.subset(2, seed=0)
        >>> len(few), bool((few.labels[:2] == fewer.labels).all())
        (3, True)
    """

    images: Any
    labels: Tensor
    mapped: bool = False
    marks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        """Bytes of the inputs."""
        return self.images.nbytes if isinstance(self.images, Lazy) else sum(t.nbytes for t in tensors_in(self.images))

    @property
    def streams(self) -> bool:
        """Whether inputs come to the labels' device batch by batch."""
        if isinstance(self.images, Lazy):
            return True
        return any(tensor.device != self.labels.device for tensor in tensors_in(self.images))

    def to(self, device: torch.device | str) -> "Split":
        """Return the split on ``device``. Inputs that would take more than half of what is free there, or more than
        ``$ALIGNSCAPE_DATA_MEMORY`` (1e9 bytes), stay where they are."""
        device = torch.device(device)
        labels = self.labels.to(device)
        if isinstance(self.images, Tensor) and not self.mapped and self.images.device == device:
            return replace(self, labels=labels)
        if self.nbytes > room_for_data(device):
            return replace(self, labels=labels)
        if isinstance(self.images, Lazy):
            return replace(self, images=self.images[:].to(device), labels=labels)

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, copy=self.mapped).contiguous()

        return replace(self, images=map_tensors(moved, self.images), labels=labels, mapped=False)

    def take(self, index: Tensor) -> tuple[Any, Tensor]:
        """Return inputs and labels of the samples ``index``, of any shape, where the labels are."""
        target = self.labels.device
        if isinstance(self.images, Tensor) and not self.mapped and self.images.device == index.device:
            return self.images[index], self.labels[index]
        images = _each(lambda part: part[index.to(part.device)].to(target).contiguous(), self.images)
        return images, self.labels[index.to(target)]

    def batches(self, size: int) -> Iterator[tuple[Any, Tensor]]:
        """Yield inputs and labels in order, ``size`` at a time, where the labels are."""
        target = self.labels.device
        for first in range(0, len(self), size):
            part = slice(first, first + size)
            images = _each(functools.partial(_part, part=part, device=target), self.images)
            yield images, self.labels[part]

    def subset(self, size: int | None, seed: int) -> "Split":
        """Return ``size`` samples: the first of a permutation by ``seed``, so smaller subsets are nested in larger.

        Raises:
            InputError: ``size`` is less than 1 or more than there are.
        """
        if size is None:
            return self
        if not 1 <= size <= len(self):
            raise InputError(f"{size} samples were asked for; the split has {len(self)}")
        if size == len(self):
            return self
        return self.at(torch.randperm(len(self), generator=generator(seed, "subset"))[:size])

    def at(self, order: Tensor) -> "Split":
        """Return the samples ``order`` (M,): a copy, but of inputs that are streamed."""
        marks = None if self.marks is None else self.marks[order.cpu()]
        labels = self.labels[order.to(self.labels.device)]
        share = self.nbytes * len(order) // max(len(self), 1)
        if isinstance(self.images, Lazy):
            images: Any = self.images.at(order.cpu())
        elif self.mapped and isinstance(self.images, Tensor) and share > room_for_data(torch.device("cpu")):
            images = Chosen(self.images, order.cpu())
        else:
            images = map_tensors(lambda t: t[order.to(t.device)].contiguous(), self.images)
        return Split(images=images, labels=labels, marks=marks)

    def digest(self) -> str:
        """Return the SHA-256 (64 hex digits) of shape, pixels and labels: the bytes that a result depends on."""
        one = isinstance(self.images, (Tensor, Lazy))
        state = hashlib.sha256((repr(tuple(self.images.shape)) if one else shapes(self.images)).encode())
        if self.labels.dtype != torch.int64:
            state.update(f"{self.labels.dtype}{tuple(self.labels.shape)}".encode())
        for part in [self.marks] if self.marks is not None else tensors_in(self.images):
            for piece in pieces(part):
                state.update(piece.cpu().contiguous().numpy().data)
        state.update(self.labels.cpu().contiguous().numpy().data)
        return state.hexdigest()


def _part(images: Any, part: slice, device: torch.device) -> Tensor:
    found: Tensor = images[part]
    return found.to(device).contiguous()  # channels that come last in a file: other kernels round otherwise


def _each(function: Callable[[Any], Tensor], images: Any) -> Any:
    """Return what ``function`` makes of images that are one thing, or of every tensor of those that are several."""
    return function(images) if isinstance(images, Lazy) else map_tensors(function, images)


def pieces(tensor: Tensor) -> Iterator[Tensor]:
    """Yield a tensor in parts along its first axis: one that lies in a file need not be in memory as a whole."""
    rows = max(1, _PIECE * len(tensor) // max(tensor.nbytes, 1))
    yield from tensor.split(rows) if len(tensor) else ()


def room_for_data(device: torch.device) -> float:
    """Return the bytes that the inputs of a split may take on ``device``; more than that is streamed.

    Raises:
        InputError: ``$ALIGNSCAPE_DATA_MEMORY`` is no number of 1e9 bytes.
    """
    if told := os.environ.get(ROOM_VARIABLE):
        try:
            limit = float(told) * 1e9
        except ValueError:
            limit = -1.0
        if not limit >= 0:
            raise InputError(f"{ROOM_VARIABLE} is {told!r}; it must be a number of 1e9 bytes, 0 or more")
        return limit
    free = free_memory(device)
    return float("inf") if free is None else ROOM_SHARE * free


class Normalise(nn.Module):
    """Map pixels to zero mean and unit variance per channel: ``(x / 255 - mean) / std`` for uint8, and
    ``(x - mean) / std`` for floats in [0, 1]. Accepts (..., C, H, W); returns float of the module's dtype.

    Args:
        mean: of pixels in [0, 1], one a channel.
        std: standard deviation of the same.
        axes: of one input: 3 of an image; 1 of a vector (d,), of which each number is a channel. One value of ``mean``
            and ``std`` stands for all channels.

    Example:
        >>> import torch
        >>> from training import Normalise
        >>> normalise = Normalise(mean=(0.5,), std=(0.25,))
        >>> normalise(torch.tensor([[[0, 255]]], dtype=torch.uint8))
        tensor([[[-2.,  2.]]])
        >>> normalise(torch.tensor([[[0.0, 0.5]]]))
        tensor([[[-2.,  0.]]])
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], axes: int = 3) -> None:
        super().__init__()
        mean_c11 = torch.tensor(mean, dtype=torch.float64).reshape(-1, *(1,) * (axes - 1))
        std_c11 = torch.tensor(std, dtype=torch.float64).reshape(-1, *(1,) * (axes - 1))
        self.register_buffer("scale", (1 / std_c11).float())
        self.register_buffer("byte_scale", (1 / (255 * std_c11)).float())
        self.register_buffer("shift", (-mean_c11 / std_c11).float())
        self.scale: Tensor
        self.byte_scale: Tensor
        self.shift: Tensor

    def forward(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            # In place on the one float copy: a training step on a CPU is short enough to notice a second one.
            floats = images.to(self.shift.dtype, memory_format=torch.contiguous_format)
            return floats.mul_(self.byte_scale).add_(self.shift)
        return images * self.scale + self.shift


class AsItIs(nn.Module):
    """Inputs that nothing normalises: token numbers, or several tensors."""

    def forward(self, inputs: Any) -> Any:
        return inputs


def normaliser(mean: Sequence[float], std: Sequence[float], inputs: Any) -> nn.Module:
    """Return what normalises ``inputs``: pixels and floats by :class:`Normalise`, anything else by nothing."""
    if isinstance(inputs, (Tensor, Lazy)) and (inputs.dtype == torch.uint8 or inputs.dtype.is_floating_point):
        return Normalise(tuple(mean), tuple(std), max(len(inputs.shape) - 1, 1))
    return AsItIs()


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Both splits, as a rule on one device, with what a model and a checkpoint need to know of them.

    Attributes:
        name: of the data set; a name of your own for data of your own.
        train: split to learn from.
        test: split to measure on.
        mean: of the train split's pixels in [0, 1], one a channel; of floats as they are.
        std: standard deviation of the same.
        classes: number of classes, which is that of a network's outputs.
        validation: what a run holds out of the train split, see :func:`hold_out`; None as it is loaded.

    Example:
        >>> import torch
        >>> from training import Dataset, Split
        >>> images = torch.randint(256, (30, 3, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
        >>> split = Split(images=images, labels=torch.arange(30) % 2)
        >>> mine = Dataset(name="mine", train=split, test=split, mean=(0.5,) * 3, std=(0.3,) * 3, classes=2)
        >>> mine.input_shape, mine.digest()[:8] == mine.digest()[:8]
        ((3, 4, 4), True)
    """

    name: str
    train: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int
    validation: Split | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input: (C, H, W) of an image.

        Raises:
            InputError: an input is several tensors.
        """
        if isinstance(self.train.images, (Tensor, Lazy)):
            return tuple(self.train.images.shape[1:])
        raise InputError(f"{self.name} has inputs of several tensors ({shapes(self.train.images)}), and one is needed")

    def normaliser(self) -> nn.Module:
        """Return what normalises the inputs, on the device of the labels."""
        return normaliser(self.mean, self.std, self.train.images).to(self.train.labels.device)

    def to(self, device: torch.device | str) -> "Dataset":
        """Return both splits on ``device``, as :meth:`Split.to`."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    def digest(self) -> str:
        """Return one SHA-256 over both splits as used (after subsetting); of data of a user's, whose name says nothing
        about these, over mean, deviation and number of classes too."""
        more = f"{self.mean}{self.std}{self.classes}" if ":" in self.name else ""
        return hashlib.sha256(f"{self.train.digest()}{self.test.digest()}{more}".encode()).hexdigest()


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Return ``split`` without a ``share`` of its samples, drawn by ``seed``, and these: what a run learns from and
    what it is validated on.

    Raises:
        InputError: nothing is left of one of them.
    """
    held = round(share * len(split))
    if not 0 < held < len(split):
        raise InputError(f"a validation share of {share:g} holds out {held} of {len(split)} samples")
    order = torch.randperm(len(split), generator=generator(seed, "validation"))
    return split.at(order[held:]), split.at(order[:held])
