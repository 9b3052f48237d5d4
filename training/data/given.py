"""What a user's function returns as data: ``--dataset package.module:function``.

It returns a mapping with ``train`` and ``test``, and if need be ``mean, std, classes``; or a tuple of these in that
order, a named tuple, any object with these attributes (:class:`training.Dataset` is one). Each split is

- inputs and labels: a pair of tensors or arrays; or a mapping of tensors of which one is called ``labels``;
- a ``torch.utils.data.Dataset``, or anything else with a length and places, of such pairs or mappings for one sample;
- an iterable of batches of such pairs or mappings: a ``DataLoader``, a list, a generator, which is read once.

Inputs may themselves be a tuple or mapping of tensors, as networks for text take them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignscape.errors import InputError
from alignscape.imports import import_reference, reason
from alignscape.trees import map_tensors, shapes, tensors_in
from training.data.checks import as_images, checked, checked_split
from training.data.samples import Dataset, Lazy, Split

FIELDS = ("train", "test", "mean", "std", "classes")
LABELS = ("labels", "label", "targets", "target", "y")  # what a mapping may call them


def call_function(reference: str, flag: str = "--dataset") -> Dataset:
    """Return the data set that the function ``reference`` (``package.module:function``) returns.

    Raises:
        InputError: it cannot be imported or called, or returns something else than described here.
    """
    function = import_reference(reference, flag=flag)
    if not callable(function):
        raise InputError(f"{flag} {reference} is a {type(function).__name__}, not a function")
    try:
        return returned(function(), reference)
    except InputError as error:
        raise InputError(f"{flag} {error}") from error
    except (Exception, SystemExit) as error:  # whatever the user's own code raises becomes one line that names it
        raise InputError(f"{flag} {reference}: {reason(error)}") from error


def returned(found: Any, name: str) -> Dataset:
    """Return what a function returned as the data set ``name``.

    Raises:
        InputError: it is nothing of what is described here.
    """
    fields = _fields(found, name)
    splits = {what: _split(fields.pop(what), f"{name}: {what}") for what in ("train", "test")}
    return checked(name, **splits, **fields)


def given_split(part: Any, what: str) -> Split:
    """Return samples that are given in any of the ways in which a function may return a split.

    Raises:
        InputError: they are in none.
    """
    return checked_split(what, "given", _split(part, what))


def _fields(found: Any, name: str) -> dict[str, Any]:
    if isinstance(found, Mapping):
        fields = dict(found)
    elif isinstance(found, (tuple, list)) and not hasattr(found, "_fields"):
        if not 2 <= len(found) <= len(FIELDS):
            raise InputError(
                f"{name} returned {len(found)} things; return {', '.join(FIELDS)}, the last three if need be"
            )
        fields = dict(zip(FIELDS, found, strict=False))
    else:
        fields = {field: getattr(found, field) for field in FIELDS if hasattr(found, field)}
    if missing := [field for field in FIELDS[:2] if fields.get(field) is None]:
        what = "a mapping without" if isinstance(found, Mapping) else f"{type(found).__name__} without"
        raise InputError(f"{name} returned {what} {' and '.join(map(repr, missing))}; return a dict(train=, test=)")
    if unknown := [str(field) for field in fields if field not in FIELDS]:
        raise InputError(f"{name} returned {unknown[0]!r}, which nothing uses; known: {', '.join(FIELDS)}")
    return fields


def _split(part: Any, what: str) -> Split:
    if isinstance(part, Split):
        return part
    if isinstance(part, (str, bytes)) or not (isinstance(part, Iterable) or hasattr(part, "__getitem__")):
        raise InputError(f"{what} is a {type(part).__name__}: give inputs and labels, a Dataset, or batches")
    whole = isinstance(part, Mapping) or _is_pair(part)
    if whole or isinstance(getattr(part, "tensors", None), tuple):  # or a TensorDataset
        inputs, labels = _parts(part if whole else part.tensors, what)
        return Split(images=_images(inputs), labels=labels)
    places = hasattr(part, "__getitem__") and hasattr(part, "__len__") and not isinstance(part, (tuple, list))
    items = (part[i] for i in range(len(part))) if places else iter(part)
    return _joined([_parts(item, what) for item in items], what)


def _is_pair(part: Any) -> bool:
    """Whether ``part`` is inputs and labels, and no list of two batches."""
    if not isinstance(part, (tuple, list)) or len(part) != 2:
        return False
    return isinstance(part[1], (Tensor, np.ndarray)) or (isinstance(part[1], list) and not _is_batch(part[1]))


def _is_batch(item: Any) -> bool:
    return any(isinstance(one, (Tensor, np.ndarray, Mapping)) for one in item)


def _parts(item: Any, what: str) -> tuple[Any, Tensor]:
    """Return inputs and labels of a sample, of a batch or of all."""
    if isinstance(item, Mapping):
        found = [key for key in LABELS if key in item]
        if not found or len(item) < 2:
            keys = ", ".join(map(str, item))
            raise InputError(f"{what} has a mapping of {keys}: one of {', '.join(LABELS)} is needed beside the inputs")
        return _tree({k: v for k, v in item.items() if k != found[0]}, what), _tensor(item[found[0]], what)
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return _tree(item[0], what), _tensor(item[1], what)
    got = f"{len(item)} things" if isinstance(item, (tuple, list)) else f"a {type(item).__name__}"
    raise InputError(f"{what} gives {got} at a time; give (inputs, labels), or a mapping with labels")


def _tree(part: Any, what: str) -> Any:
    if isinstance(part, Mapping):
        return {str(name): _tree(one, what) for name, one in part.items()}
    if isinstance(part, tuple):
        return tuple(_tree(one, what) for one in part)
    return part if isinstance(part, Lazy) else _tensor(part, what)


def _tensor(part: Any, what: str) -> Tensor:
    """Return a tensor, array, list of numbers, number, or picture of Pillow's (as channels first)."""
    if hasattr(part, "getbands"):  # a picture
        pixels = torch.as_tensor(np.array(part))
        return pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)
    try:
        return torch.as_tensor(part).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        kind = f"an array of {part.dtype}" if isinstance(part, np.ndarray) else f"a {type(part).__name__}"
        raise InputError(f"{what} holds {kind}, of which no tensor can be made") from error


def _joined(items: list[tuple[Any, Tensor]], what: str) -> Split:
    """Return samples, or batches of them, as one split."""
    if not items:
        raise InputError(f"{what} holds no sample")
    alone = items[0][1].dim() == 0  # samples, not batches
    join = torch.stack if alone else torch.cat
    columns = [list(tensors_in(inputs)) for inputs, _ in items]
    try:
        joined = iter([join(list(column)) for column in zip(*columns, strict=True)])
        labels = join([labels for _, labels in items])
    except (RuntimeError, ValueError, TypeError) as error:
        seen = list(dict.fromkeys(shapes(inputs) for inputs, _ in items))[:2]
        unlike = f"inputs of {' and '.join(seen)}" if len(seen) > 1 else "samples or batches that are not alike"
        raise InputError(f"{what} has {unlike}: they do not go together") from error
    return Split(images=_images(map_tensors(lambda _: next(joined), items[0][0])), labels=labels)


def _images(inputs: Any) -> Any:
    return as_images(inputs) if isinstance(inputs, Tensor) else inputs
