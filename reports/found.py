"""Where a network that is analysed comes from: a checkpoint of ours, a file of anybody's, or a zoo."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alignscape.errors import DivergedError, InputError
from training.checkpoint import Checkpoint, find_checkpoint, load_weights
from training.data import source
from training.data_names import is_own
from training.foreign import fitting, load_hugging_face, load_state_dict, outputs_wanted, weights_digest, weights_in
from training.models import import_model
from training.models.imported import ZOOS
from training.pretrained import load_pretrained

CHECKPOINT = "ckpt.pt"  # of a run folder


@dataclass(frozen=True, kw_only=True)
class Found:
    """A network as it was found: with its file, and for one of a zoo with what its images are normalised by."""

    model: nn.Module
    file: Path
    digest: str
    checkpoint: Checkpoint | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None


def find_network(path: Path, *, model: str | None, dataset: str | None, pretrained: bool, download: bool) -> Found:
    """Return the network at ``path``: a checkpoint of ours, somebody else's weights, or with ``pretrained`` those that
    a zoo has published, where ``path`` is what ``model`` says."""
    if pretrained and os.fspath(path) == os.fspath(Path(model or "")):
        return _of_zoo(model or "", dataset, download)
    file = _file_of(path)
    of_others = model is not None or (path.is_dir() and file.name != CHECKPOINT)
    if (checkpoint := None if of_others else find_checkpoint(file)) is not None:
        network = checkpoint.plain_model()
        if checkpoint.metrics.get("diverged"):
            raise DivergedError("the run has diverged")
        return Found(model=network, file=file, digest=checkpoint.digest, checkpoint=checkpoint)
    network = _foreign_model(path, file, model, dataset)
    return Found(model=network, file=file, digest=weights_digest(file))


def _of_zoo(model: str, dataset: str | None, download: bool) -> Found:
    if dataset is None:
        raise InputError(f"--model {model} --pretrained needs --dataset: what it is to be analysed on")
    found = load_pretrained(model, download=download)
    digest = state_digest(found.model.state_dict()) if found.file is None else weights_digest(found.file)
    file = Path(model) if found.file is None else found.file
    return Found(model=found.model, file=file, digest=digest, mean=found.mean, std=found.std)


def state_digest(state: Mapping[str, Any]) -> str:
    """Return the SHA-256 of names, shapes and values of a state dict."""
    found = hashlib.sha256()
    for name, tensor in state.items():
        found.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _foreign_model(path: Path, file: Path, model: str | None, dataset: str | None) -> nn.Module:
    """Return the network of somebody else's weights, which are in ``file``, to be analysed on ``dataset``."""
    if path.is_dir() and model is None and dataset is not None and (path / "config.json").is_file():
        if not is_own(dataset):
            source(dataset)
        network = load_hugging_face(path)
        load_weights(network, network.state_dict())  # which refuses those that are not finite
        return network
    if model is None or dataset is None:
        state = load_state_dict(file)  # says so if the file is broken or refused, before asking for more
        known = model is not None or (path.is_dir() and (path / "config.json").is_file())
        flags = " and ".join(f for f, v in (("--model", known), ("--dataset", dataset is not None)) if not v)
        raise InputError(f"{file} is a plain state dict ({len(state)} tensors): give {flags}")
    if not is_own(dataset):
        source(dataset)
    state = load_state_dict(file)
    network = import_model(model)
    if model.partition(":")[0] in ZOOS and (outputs := outputs_wanted(state, network)) is not None:
        network = import_model(model, classes=outputs)
    load_weights(network, fitting(state, network))
    return network


def _file_of(path: Path) -> Path:
    """Return the file that holds the weights of ``path``.

    Raises:
        InputError: there is none.
    """
    if not path.is_dir():
        if path.is_file():
            return path
        raise InputError(f"no such checkpoint: {path}")
    if (file := path / CHECKPOINT).is_file():
        return file
    if (weights := weights_in(path)) is not None:
        return weights
    hint = "; the run is not finished" if (path / "metrics.csv").is_file() or (path / ".lock").is_file() else ""
    raise InputError(f"no such checkpoint: {file}{hint}")
