"""Weights that the zoos publish, from where their libraries keep them on this machine."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alignscape.errors import InputError
from alignscape.imports import reason
from training.checkpoint import load_weights
from training.foreign import load_hugging_face, load_state_dict
from training.models.imported import ZOOS, extra, import_model


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A network with the weights that its zoo has published.

    Attributes:
        model: the network.
        file: that holds its weights; None where a library knows it alone.
        mean: of each channel of pixels in [0, 1] that it was trained with, where the zoo says.
        std: standard deviation, likewise.
    """

    model: nn.Module
    file: Path | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


def load_pretrained(reference: str, *, download: bool = False) -> Pretrained:
    """Return the network ``torchvision:NAME``, ``timm:NAME`` or ``hf:NAME`` with its weights, from the user's cache.

    Args:
        reference: as ``--model`` has it.
        download: fetch what is missing.

    Raises:
        InputError: another form; no such network, or no weights of it; they are not in the cache, where the message
            says how to get them.
    """
    zoo, _, name = reference.partition(":")
    if zoo not in ZOOS or not name:
        raise InputError("--pretrained is of a zoo's network: --model torchvision:NAME, timm:NAME or hf:NAME")
    if zoo == "hf":
        return Pretrained(model=load_hugging_face(name), file=_hugging_face_file(name), mean=None, std=None)
    file, mean, std = (_torchvision if zoo == "torchvision" else _timm)(name, download)
    model = import_model(reference)
    load_weights(model, load_state_dict(file))
    return Pretrained(model=model, file=file, mean=mean, std=std)


Found = tuple[Path, tuple[float, ...] | None, tuple[float, ...] | None]


def _torchvision(name: str, download: bool) -> Found:
    from torchvision.models import get_model_weights

    try:
        published: Any = get_model_weights(name)
    except ValueError as error:
        raise InputError(f"--model torchvision:{name}: {reason(error)}") from error
    wanted = published.DEFAULT
    known = [wanted, *(one for one in published if one != wanted)]
    there = next((one for one in known if _hub_file(one.url).is_file()), None)
    if there is None:
        file = _hub_file(wanted.url)
        if not download:
            call = f"torchvision.models.get_model('{name}', weights='DEFAULT')"
            raise _missing(f"torchvision:{name}", file, f'python -c "import torchvision; {call}"')
        _fetch(wanted.url, file)
        there = wanted
    how = there.transforms()
    return _hub_file(there.url), _channels(getattr(how, "mean", None)), _channels(getattr(how, "std", None))


def _timm(name: str, download: bool) -> Found:
    try:
        with extra("timm"):
            import timm
        about: Any = timm.create_model(name, pretrained=False).pretrained_cfg
    except Exception as error:  # theirs raises whatever it meets
        raise InputError(f"--model timm:{name}: {reason(error)}") from error
    mean, std = _channels(about.get("mean")), _channels(about.get("std"))
    if about.get("hf_hub_id"):
        from huggingface_hub import try_to_load_from_cache

        for file in ("model.safetensors", "pytorch_model.bin"):
            if isinstance(found := try_to_load_from_cache(about["hf_hub_id"], file), str):
                return Path(found), mean, std
    if about.get("url") and (kept := _hub_file(about["url"])).is_file():
        return kept, mean, std
    if not about.get("hf_hub_id") and not about.get("url"):
        raise InputError(f"--model timm:{name} has no published weights")
    if download:
        timm.create_model(name, pretrained=True)
        return _timm(name, False)
    call = f"python -c \"import timm; timm.create_model('{name}', pretrained=True)\""
    raise _missing(f"timm:{name}", None, call)


def _hugging_face_file(name: str) -> Path | None:
    from training.foreign import weights_in

    return weights_in(Path(name)) if Path(name).is_dir() else None


def _hub_file(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(url)


def _fetch(url: str, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(file), hash_prefix=file.stem.rpartition("-")[2], progress=False)
    except (OSError, RuntimeError) as error:
        raise InputError(f"{url} cannot be fetched: {reason(error)}") from error


def _missing(what: str, file: Path | None, call: str) -> InputError:
    where = f" ({file})" if file is not None else ""
    return InputError(f"the weights of {what} are not in your cache{where}: give --download, or fetch them by {call}")


def _channels(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(map(float, values))
