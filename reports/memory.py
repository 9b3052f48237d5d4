"""Networks that are in memory, with a named data set or with tensors, as subjects of an analysis."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alignscape.device import resolve_device
from alignscape.errors import DivergedError, InputError
from reports.fitting import check_fit, normalise_for, range_of, with_logits
from reports.found import state_digest
from reports.subjects import Subject, at_hand, find_data_root
from training.checkpoint import not_finite
from training.data import Split, described, load_split
from training.data.given import given_split
from training.data.samples import Lazy


class Unit(nn.Module):
    """Pixels as floats: uint8 divided by 255, floats as they are; for data that come without mean and deviation."""

    def forward(self, images: Any) -> Any:
        is_pixels = isinstance(images, Tensor) and images.dtype == torch.uint8
        return images.float() / 255 if is_pixels else images


@dataclass(frozen=True, kw_only=True)
class InMemory:
    """Modules by name with their data; loads as :class:`reports.loading.Loading` does.

    Attributes:
        modules: plain networks that return logits (N, classes).
        data: a data set's name, or inputs (N, ...) and labels (N,), which then are both splits; tensors or arrays, or
            what else a function for ``dataset`` may return for a split (:mod:`training.data.given`).
        mean, std: of each channel of pixels in [0, 1], as the networks were trained; those of the data set if None, or
            inputs as they are (uint8 divided by 255).
        data_root: folder of the data sets.
        download: fetch a missing data set first.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        image_size: pixels a side, of ``imagefolder:``.
        output: which part of what the networks return are the logits.
    """

    modules: Mapping[str, nn.Module]
    data: Any
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    data_root: Path | None = None
    download: bool = False
    device: str = "auto"
    image_size: int | None = None
    output: str | None = None

    def subject(self, path: Path, *, split: str = "test", samples: int | None = None, seed: int = 0) -> Subject:
        """Return a copy of a module, which stays where it is and in the mode that it is in, with samples of ``split``.

        Raises:
            InputError: there is no such module, or it does not fit the data; weights that are not finite.
        """
        name = str(path)
        if name not in self.modules:
            raise InputError(f"{name} is no network here; there are {', '.join(self.modules)}")
        target = resolve_device(self.device)
        state = self.modules[name].state_dict()
        if broken := not_finite(state):
            raise DivergedError(f"the weights hold NaN or infinity in {', '.join(broken[:4])}")
        whole = self._split(split)
        dataset = self.data if isinstance(self.data, str) else "tensors"
        data = whole.subset(samples if samples is None else min(samples, len(whole)), seed).to(target)
        data = at_hand(data, dataset)
        normalise = self._normalise(data).to(target)
        network = with_logits(_copied(self.modules[name]).to(target).eval(), normalise, data, dataset, self.output)
        check_fit(network, normalise, data, dataset)
        return Subject(
            name=name,
            path=path,
            digest=state_digest(state),
            model=network,
            normalise=normalise,
            images=data.images,
            labels=data.labels,
            dataset=dataset,
            split=split,
            data_digest=data.digest(),
            data_root=self.data_root,
            checkpoint=None,
            mapped=data.mapped,
            range=(0.0, 1.0) if isinstance(whole.images, Lazy) else range_of(whole.images),
            load=lambda other: self.subject(other, split=split, samples=samples, seed=seed),
        )

    def _split(self, split: str) -> Split:
        if isinstance(self.data, str):
            root = find_data_root(self.data_root, Path())
            size = {} if self.image_size is None else {"image_size": self.image_size}
            return load_split(self.data, split, root, download=self.download, **size)
        return samples_of(self.data)

    def _normalise(self, data: Split) -> nn.Module:
        if isinstance(self.data, str):
            known = described(self.data, self.image_size)
            return normalise_for(self.mean or known.mean, self.std or known.std, data)
        if self.mean is None and self.std is None:
            return Unit()  # which leaves several tensors, and tokens, as they are
        if self.mean is None or self.std is None:
            raise InputError("data of your own need both mean and std, or neither")
        return normalise_for(self.mean, self.std, data)


def _copied(module: nn.Module) -> nn.Module:
    """Return a copy; the module itself if it holds what cannot be copied, such as tensors of a graph."""
    try:
        return copy.deepcopy(module)
    except (RuntimeError, TypeError):
        return module


def _is_plain_pair(data: Any) -> bool:
    """Whether data are inputs and labels, or meant to be: a tuple that starts with a tensor or array."""
    return isinstance(data, (tuple, list)) and len(data) > 1 and isinstance(data[0], (Tensor, np.ndarray))


def samples_of(data: Any) -> Split:
    """Return inputs and labels that were given, tensors or arrays, as samples; labels of any whole type.

    Raises:
        InputError: they are no such pair.
    """
    if not isinstance(data, (Tensor, np.ndarray)) and not _is_plain_pair(data):
        return given_split(data, "data")
    try:
        inputs, labels = (torch.as_tensor(part).detach() for part in data)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError("data are a pair of tensors or arrays: inputs (N, ...) and labels (N,)") from error
    shapes = f"{tuple(inputs.shape)} and {tuple(labels.shape)}"
    if labels.ndim == 0 or inputs.ndim == 0 or len(inputs) != len(labels) or not len(labels):
        raise InputError(f"data are inputs (N, ...) and labels (N,), not of the shapes {shapes}")
    if labels.is_floating_point() and labels.ndim == 2 and not bool((labels.sum(1) == 1).all()):
        return Split(images=inputs, labels=labels)  # no classes, and no ones for them: for the loss mse and users' own
    if labels.ndim != 1:
        raise InputError(f"data are inputs (N, ...) and labels (N,), not of the shapes {shapes}")
    if labels.is_floating_point() or labels.is_complex() or labels.min() < 0:
        raise InputError("labels are the numbers of the classes, whole and from 0")
    return Split(images=inputs, labels=labels.long())
