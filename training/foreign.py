"""Weights that were trained elsewhere, in whatever their trainer wrapped them."""

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from alignscape.errors import InputError
from alignscape.files import sha256_file
from alignscape.imports import reason
from training.checkpoint import read_torch_file, spare_names
from training.models.imported import as_logits, extra
from training.refused import NESTED

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What torch.compile, FSDP and activation checkpointing put into names, anywhere."""
PARALLEL = "module."
"""What DataParallel puts before all of them."""
HUGGING_FACE = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Where ``save_pretrained`` puts the weights; an index names the files of a network that is in several."""
INDEX = ".index.json"
DEEPEST = 4  # dictionaries in dictionaries


def weights_in(folder: Path) -> Path | None:
    """Return the file of a Hugging Face folder that holds its weights, or says where they are; None without one."""
    return next((folder / name for name in HUGGING_FACE if (folder / name).is_file()), None)


def load_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a plain state dict, onto the CPU.

    Args:
        path: of a ``.safetensors`` file; of a torch file that holds a state dict, bare or under one of :data:`NESTED`
            as trainers write it; of the index of a network in several files. What DataParallel, torch.compile and FSDP
            put into the names is dropped; other prefixes are left to :func:`fitting`.

    Raises:
        InputError: as :func:`training.load_checkpoint`; no tensors in the file; a part that an index names is missing.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from training import load_state_dict
        >>> model = torch.nn.DataParallel(torch.nn.Linear(3, 2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"model_state_dict": model.state_dict(), "epoch": 7}, Path(folder) / "theirs.pt")
        ...     weights = load_state_dict(Path(folder) / "theirs.pt")
        >>> {name: tuple(tensor.shape) for name, tensor in weights.items()}
        {'weight': (2, 3), 'bias': (2,)}
    """
    path = Path(path)
    state: dict[str, Tensor] = {}
    for part in parts_of(path):
        state.update(
            _read_safetensors(part) if part.suffix == ".safetensors" else _unpacked(read_torch_file(part), part)
        )
    names = {name: ".".join(part for part in name.split(".") if part not in WRAPPERS) for name in state}
    held = all(name.startswith(PARALLEL) for name in names.values())
    return {names[name].removeprefix(PARALLEL) if held else names[name]: tensor for name, tensor in state.items()}


def parts_of(path: Path) -> list[Path]:
    """Return the files that hold the weights of ``path``: itself, or what it names as an index.

    Raises:
        InputError: no such file, no index, or a part that is missing or elsewhere.
    """
    if not path.name.endswith(INDEX):
        return [path]
    try:
        names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{path} is no index of weights") from error
    if odd := [name for name in names if not isinstance(name, str) or Path(name).name != name]:
        raise InputError(f"{path} names {odd[0]!r}, which is no file beside it")
    parts = [path.with_name(name) for name in names]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise InputError(f"{path} names {', '.join(missing[:4])}, which is not there")
    return parts


def weights_digest(path: Path) -> str:
    """Return the SHA-256 of the file; of an index, that of the digests of its parts."""
    parts = parts_of(path)
    if parts == [path]:
        return sha256_file(path)
    return hashlib.sha256("".join(sha256_file(part) for part in parts).encode()).hexdigest()


def fitting(weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return ``weights`` by the names that ``model`` has for them: without the prefix of what held it.

    A trainer's own module holds the network as ``model`` or ``net`` (Lightning), beside its loss or an average. If
    there is one prefix under which everything that the model wants is found, the rest is left out, with a warning.
    """
    wanted = _required(model)
    if wanted <= weights.keys():
        return dict(weights)
    for prefix in _prefixes(weights):
        inner = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
        if wanted <= inner.keys():
            if rest := [name for name in weights if not name.startswith(prefix)]:
                more = f" and {len(rest) - 3} more" if len(rest) > 3 else ""
                warnings.warn(
                    f"only what is under {prefix[:-1]} was loaded, not {', '.join(rest[:3])}{more}", stacklevel=2
                )
            return inner
    shared = ["", *(one for one in _prefixes(weights) if all(name.startswith(one) for name in weights))]
    likeliest = max(shared, key=lambda one: sum(name.removeprefix(one) in wanted for name in weights))
    return {name.removeprefix(likeliest): tensor for name, tensor in weights.items()}  # where it is said what differs


def load_hugging_face(folder: Path | str) -> nn.Module:
    """Return the image classifier that ``save_pretrained`` wrote into ``folder``, or that is in their cache under this
    name, with its weights. Their library reads it, as it changes names between its versions; code that comes with a
    network is not run.

    Raises:
        InputError: it cannot be read, or weights are missing in it.
    """
    try:
        with extra("transformers"):
            from transformers import AutoModelForImageClassification
            from transformers.utils import logging
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        model, told = AutoModelForImageClassification.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # theirs raises whatever it meets
        raise InputError(f"{folder} cannot be read as a network of Hugging Face's: {reason(error)}") from error
    if lacking := [str(name) for kind in ("missing_keys", "mismatched_keys") for name in told.get(kind, ())]:
        raise InputError(f"{folder} lacks weights of its network: {', '.join(sorted(lacking)[:4])}")
    return as_logits(model)


def outputs_wanted(weights: Mapping[str, Tensor], model: nn.Module) -> int | None:
    """Return the number of outputs of the network that ``weights`` are of, if they fit ``model`` but for its head:
    all tensors of another shape differ in their first dimension alone, and have the same there. Else None."""
    own, given = model.state_dict(), fitting(weights, model)
    if not _required(model) <= given.keys():
        return None
    others = [(tuple(given[name].shape), tuple(own[name].shape)) for name in own if name in given]
    others = [(theirs, ours) for theirs, ours in others if theirs != ours]
    if not others or not all(len(t) == len(o) > 0 and t[1:] == o[1:] for t, o in others):
        return None
    sizes = {theirs[0] for theirs, _ in others}
    return sizes.pop() if len(sizes) == 1 else None


def _required(model: nn.Module) -> set[str]:
    return model.state_dict().keys() - spare_names(model)


def _prefixes(names: Iterable[str]) -> list[str]:
    """Return every leading part of a name that ends in a dot, shorter ones first, in the order they come."""
    found: dict[str, int] = {}
    for name in names:
        parts = name.split(".")[:-1]
        for depth in range(1, len(parts) + 1):
            found.setdefault(".".join(parts[:depth]) + ".", depth)
    return sorted(found, key=lambda prefix: found[prefix])


def _unpacked(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict in what a torch file holds.

    Raises:
        InputError: there is none.
    """
    for _ in range(DEEPEST):
        if _is_state(content):
            return dict(content)
        held = [key for key in NESTED if isinstance(content, dict) and isinstance(content.get(key), dict)]
        if not held:
            break
        if len(states := [key for key in held if _is_state(content[key])]) > 1:
            warnings.warn(f"{path} holds weights as {' and as '.join(states)}: {states[0]} is taken", stacklevel=2)
        content = content[(states or held)[0]]
    raise InputError(f"{path} holds no state dict (a dictionary of tensors){_what(content)}")


def _is_state(content: Any) -> bool:
    return isinstance(content, dict) and bool(content) and all(isinstance(v, Tensor) for v in content.values())


def _what(content: Any) -> str:
    """Say what there is instead."""
    if not isinstance(content, dict):
        return f"; it is a {type(content).__name__}"
    keys = ", ".join(map(str, list(content)[:6]))
    return f"; its keys are {keys}{', ...' if len(content) > 6 else ''}" if keys else "; it is empty"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(f"no such file: {path}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} is truncated or not a safetensors file") from error
