"""Inputs and outputs that are several tensors: nested tuples, lists, mappings and dataclasses of them."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor


def tensors_in(structure: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists, mappings and dataclasses (the outputs of Hugging Face's models)."""
    if isinstance(structure, Tensor):
        yield structure
    elif _is_record(structure):
        for name in _fields(structure):
            yield from tensors_in(getattr(structure, name))
    elif isinstance(structure, Mapping):
        for part in structure.values():
            yield from tensors_in(part)
    elif isinstance(structure, (tuple, list)):
        for part in structure:
            yield from tensors_in(part)


def map_tensors(function: Callable[[Tensor], Tensor], structure: Any) -> Any:
    """Return ``structure`` with ``function`` applied to its tensors; mappings become dicts, the others stay what they
    are."""
    if isinstance(structure, Tensor):
        return function(structure)
    if _is_record(structure):
        parts = {name: map_tensors(function, getattr(structure, name)) for name in _fields(structure)}
        return type(structure)(**parts)
    if isinstance(structure, Mapping):
        return {name: map_tensors(function, part) for name, part in structure.items()}
    if isinstance(structure, (tuple, list)):
        several = [map_tensors(function, part) for part in structure]
        if hasattr(structure, "_fields"):  # a named tuple
            return type(structure)(*several)
        return several if isinstance(structure, list) else tuple(several)
    return structure


def call(model: Callable[..., Any], inputs: Any) -> Any:
    """Return what ``model`` gives for a batch: a mapping is given by name, a tuple or list by place."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)


def shapes(structure: Any) -> str:
    """Return what a person reads of the shapes in a structure."""
    if isinstance(structure, Tensor):
        return f"({', '.join(map(str, structure.shape))})"
    if isinstance(structure, Mapping):
        return ", ".join(f"{name} {shapes(part)}" for name, part in structure.items())
    if isinstance(structure, (tuple, list)):
        return ", ".join(map(shapes, structure))
    return type(structure).__name__


def _is_record(structure: Any) -> bool:
    return dataclasses.is_dataclass(structure) and not isinstance(structure, type)


def _fields(record: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(record) if field.init]
