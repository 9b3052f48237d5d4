"""Samples on one device: uint8 pixels with labels, what normalises them, and both splits of a data set."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alignscape.errors import InputError
from alignscape.seeding import generator


@dataclass(frozen=True, kw_only=True)
class Split:
    """Samples on one device.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.

    Example:
        >>> import torch
        >>> from training import Split
        >>> split = Split(images=torch.zeros(5, 1, 2, 2, dtype=torch.uint8), labels=torch.arange(5))
        >>> few, fewer = split.subset(3, seed=0), split.subset(2, seed=0)
        >>> len(few), bool((few.labels[:2] == fewer.labels).all())
        (3, True)
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Split":
        """Return the split on ``device``."""
        return Split(images=self.images.to(device), labels=self.labels.to(device))

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
        order = torch.randperm(len(self), generator=generator(seed, "subset"))[:size].to(self.labels.device)
        return Split(images=self.images[order], labels=self.labels[order])

    def digest(self) -> str:
        """Return the SHA-256 (64 hex digits) of shape, pixels and labels: the bytes that a result depends on."""
        state = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        state.update(self.images.cpu().contiguous().numpy().data)
        state.update(self.labels.cpu().contiguous().numpy().data)
        return state.hexdigest()


class Normalise(nn.Module):
    """Map pixels to zero mean and unit variance per channel: ``(x / 255 - mean) / std`` for uint8, and
    ``(x - mean) / std`` for floats in [0, 1]. Accepts (..., C, H, W); returns float of the module's dtype.

    Args:
        mean: of pixels in [0, 1], one a channel.
        std: standard deviation of the same.

    Example:
        >>> import torch
        >>> from training import Normalise
        >>> normalise = Normalise(mean=(0.5,), std=(0.25,))
        >>> normalise(torch.tensor([[[0, 255]]], dtype=torch.uint8))
        tensor([[[-2.,  2.]]])
        >>> normalise(torch.tensor([[[0.0, 0.5]]]))
        tensor([[[-2.,  0.]]])
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        mean_c11 = torch.tensor(mean, dtype=torch.float64)[:, None, None]
        std_c11 = torch.tensor(std, dtype=torch.float64)[:, None, None]
        self.register_buffer("scale", (1 / std_c11).float())
        self.register_buffer("byte_scale", (1 / (255 * std_c11)).float())
        self.register_buffer("shift", (-mean_c11 / std_c11).float())
        self.scale: Tensor
        self.byte_scale: Tensor
        self.shift: Tensor

    def forward(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            # In place on the one float copy: a training step on a CPU is short enough to notice a second one.
            return images.to(self.shift.dtype).mul_(self.byte_scale).add_(self.shift)
        return images * self.scale + self.shift


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Both splits on one device, with what a model and a checkpoint need to know of them.

    Attributes:
        name: of the data set; a name of your own for data of your own.
        train: split to learn from.
        test: split to measure on.
        mean: of the train split's pixels in [0, 1], one a channel.
        std: standard deviation of the same.
        classes: number of classes.
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
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def digest(self) -> str:
        """Return one SHA-256 over both splits as used (after subsetting)."""
        return hashlib.sha256(f"{self.train.digest()}{self.test.digest()}".encode()).hexdigest()


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Return ``split`` without a ``share`` of its samples, drawn by ``seed``, and these: what a run learns from and
    what it is validated on.

    Raises:
        InputError: nothing is left of one of them.
    """
    held = round(share * len(split))
    if not 0 < held < len(split):
        raise InputError(f"a validation share of {share:g} holds out {held} of {len(split)} samples")
    order = torch.randperm(len(split), generator=generator(seed, "validation")).to(split.labels.device)
    parts = [Split(images=split.images[some], labels=split.labels[some]) for some in (order[held:], order[:held])]
    return parts[0], parts[1]
