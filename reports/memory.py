"""Networks that are in memory, with a named data set or with tensors, as subjects of an analysis."""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alignscape.device import resolve_device
from alignscape.errors import DivergedError, InputError
from reports.subjects import Subject, check_fit, find_data_root, normalise_for
from training.checkpoint import not_finite
from training.data import Split, load_split, source


class Unit(nn.Module):
    """Pixels as floats: uint8 divided by 255, floats as they are; for data that come without mean and deviation."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float() / 255 if images.dtype == torch.uint8 else images


@dataclass(frozen=True, kw_only=True)
class InMemory:
    """Modules by name with their data; loads as :class:`reports.loading.Loading` does.

    Attributes:
        modules: plain networks that return logits (N, classes).
        data: a data set's name, or inputs (N, ...) and labels (N,), which then are both splits; tensors or arrays.
        mean, std: of each channel of pixels in [0, 1], as the networks were trained; those of the data set if None, or
            inputs as they are (uint8 divided by 255).
        data_root: folder of the data sets.
        download: fetch a missing data set first.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    modules: Mapping[str, nn.Module]
    data: str | tuple[Tensor, Tensor]
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    data_root: Path | None = None
    download: bool = False
    device: str = "auto"

    def subject(self, path: Path, *, split: str = "test", samples: int | None = None, seed: int = 0) -> Subject:
        """Return a copy of a module, which stays where it is and in the mode that it is in, with samples of ``split``.

        Raises:
            InputError: there is no such module, or it does not fit the data; weights that are not finite.
        """
        name = str(path)
        state = self._module(path).state_dict()
        target = resolve_device(self.device)
        if broken := not_finite(state):
            raise DivergedError(f"the weights hold NaN or infinity in {', '.join(broken[:4])}")
        data = self._split(split)
        data = data.subset(samples if samples is None else min(samples, len(data)), seed).to(target)
        network = _copied(self.modules[name]).to(target).eval()
        normalise = self._normalise(data).to(target)
        dataset = self.data if isinstance(self.data, str) else "tensors"
        check_fit(network, normalise, data, dataset)
        return Subject(
            name=name,
            path=path,
            digest=_digest(state),
            model=network,
            normalise=normalise,
            images=data.images,
            labels=data.labels,
            dataset=dataset,
            split=split,
            data_digest=data.digest(),
            data_root=self.data_root,
            checkpoint=None,
            load=lambda other: self.subject(other, split=split, samples=samples, seed=seed),
        )

    def digest(self, path: Path) -> str:
        """Return the SHA-256 of a module's weights.

        Raises:
            InputError: there is no such module.
        """
        return _digest(self._module(path).state_dict())

    def _module(self, path: Path) -> nn.Module:
        if str(path) not in self.modules:
            raise InputError(f"{path} is no network here; there are {', '.join(self.modules)}")
        return self.modules[str(path)]

    def _split(self, split: str) -> Split:
        if isinstance(self.data, str):
            return load_split(self.data, split, find_data_root(self.data_root, Path()), download=self.download)
        return samples_of(self.data)

    def _normalise(self, data: Split) -> nn.Module:
        if isinstance(self.data, str):
            known = source(self.data)
            return normalise_for(self.mean or known.mean, self.std or known.std, data)
        if self.mean is None and self.std is None:
            return Unit()
        if self.mean is None or self.std is None:
            raise InputError("data of your own need both mean and std, or neither")
        return normalise_for(self.mean, self.std, data)


def _copied(module: nn.Module) -> nn.Module:
    """Return a copy; the module itself if it holds what cannot be copied, such as tensors of a graph."""
    try:
        return copy.deepcopy(module)
    except (RuntimeError, TypeError):
        return module


def samples_of(data: Any) -> Split:
    """Return inputs and labels that were given, tensors or arrays, as samples; labels of any whole type.

    Raises:
        InputError: they are no such pair.
    """
    try:
        inputs, labels = (torch.as_tensor(part).detach() for part in data)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError("data are a pair of tensors or arrays: inputs (N, ...) and labels (N,)") from error
    if labels.ndim != 1 or inputs.ndim == 0 or len(inputs) != len(labels) or not len(labels):
        shapes = f"{tuple(inputs.shape)} and {tuple(labels.shape)}"
        raise InputError(f"data are inputs (N, ...) and labels (N,), not of the shapes {shapes}")
    if labels.is_floating_point() or labels.is_complex() or labels.min() < 0:
        raise InputError("labels are the numbers of the classes, whole and from 0")
    return Split(images=inputs, labels=labels.long())


def _digest(state: Mapping[str, Any]) -> str:
    """Return the SHA-256 of names, shapes and values of a state dict."""
    found = hashlib.sha256()
    for name, tensor in state.items():
        found.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
