"""Whether a step may be recorded: what a replay could not do, seen while the step runs as ever."""

import random
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Kernels that take their course from where masks are set, and so wait for them; with numbers for indices they do not.
_INDEXING = {"index.Tensor", "index_put.default", "index_put_.default", "_unsafe_index_put.default"}


class Watch(TorchDispatchMode):
    """While active, notes the first thing that keeps a step from being replayed: ``reason``, None if there is none.

    A replay runs kernels on the tensors of the recording, and nothing else. So a step must not look at values (the host
    would wait for them, which a recording forbids), bring numbers from the host, or draw from another stream of random
    numbers than the device's own; and no attribute of ``keepers`` may change, since the Python that changes it, or
    follows it, is not run again. Python's and NumPy's global random numbers are attributes in this sense.
    """

    def __init__(self, device: torch.device, keepers: Sequence[object]) -> None:
        super().__init__()
        self.device = device
        self.keepers = keepers
        self.reason: str | None = None

    def __enter__(self) -> "Watch":
        self._before = [_snapshot(vars(keeper)) for keeper in self.keepers]
        self._drawn = _host_random()
        super().__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        super().__exit__(*raised)
        after = [_snapshot(vars(keeper)) for keeper in self.keepers]
        if self.reason is None and self._drawn != _host_random():
            self.reason = "it draws random numbers on the host"
        for keeper, one, other in zip(self.keepers, self._before, after, strict=True):
            if self.reason is None and (changed := _difference(one, other)) is not None:
                self.reason = f"each call changes {changed} of {type(keeper).__name__}"

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.reason is None:
            self.reason = obstacle(func, args, kwargs or {}, result, self.device)
        return result


def obstacle(func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any, device: torch.device) -> str | None:
    """Return why a call of the operator ``func`` cannot be recorded on ``device``, None if it can."""
    name = str(func).removeprefix("aten.")
    if name in _INDEXING:
        if any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
            return f"it picks values by a mask ({name})"
    elif torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags:
        return f"it looks at values on the host ({name})"
    if name.startswith("lift_fresh"):
        return "it brings numbers from the host (torch.tensor)"
    if isinstance(kwargs.get("generator"), torch.Generator):
        return f"it draws from a random stream of its own ({name})"
    if any(isinstance(leaf, Tensor) and leaf.device != device for leaf in tree_leaves((args, kwargs, result))):
        return f"it works on another device too ({name})"
    return None


def _host_random() -> tuple[Any, ...]:
    kind, keys, *position = np.random.get_state()  # noqa: NPY002
    return random.getstate(), kind, np.asarray(keys).tobytes(), position


def _snapshot(value: Any) -> Any:
    """Return ``value`` with its dictionaries, lists, tuples and sets copied, and all else as it is."""
    if isinstance(value, dict):
        return {key: _snapshot(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_snapshot(item) for item in value]
    return set(value) if isinstance(value, set) else value


def _difference(one: Any, other: Any, name: str = "its state") -> str | None:
    """Return the name of the first thing in which two snapshots differ. Tensors and other objects are the same if they
    are one; numbers, text and sets if they are equal."""
    if one is other:
        return None
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return _first(_difference(one[key], other[key], str(key)) for key in one)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return _first(_difference(a, b, name) for a, b in zip(one, other, strict=True))
    if type(one) is type(other) and isinstance(one, bool | int | float | complex | str | bytes | set | torch.Size):
        return None if one == other or one != one else name
    return name


def _first(found: Iterable[str | None]) -> str | None:
    return next((name for name in found if name is not None), None)


def modules_of(*modules: nn.Module) -> list[nn.Module]:
    """Return ``modules`` and all that is in them, each once."""
    return list({id(inner): inner for module in modules for inner in module.modules()}.values())
