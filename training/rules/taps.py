"""Activations at which signals of their own arrive, and what each parameter learns from them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor


class Tap(NamedTuple):
    """An activation (N, ...) on its way into a layer, and the feedback (classes, values) that leads the error to it."""

    activation: Tensor
    feedback: Tensor


_open: ContextVar[list[Tap] | None] = ContextVar("taps", default=None)


@contextmanager
def recording() -> Iterator[list[Tap]]:
    """Collect what layers :func:`record` inside, in order of execution.

    The activations are not kept in the layers, so that those of one batch never meet the error of another, and so
    that a forward pass leaves no trace in the network (``torch.func`` wants it pure).
    """
    taps: list[Tap] = []
    token = _open.set(taps)
    try:
        yield taps
    finally:
        _open.reset(token)


def record(activation: Tensor, feedback: Tensor) -> None:
    """Add a tap to the open recording; without one (an evaluation, say) do nothing."""
    if (taps := _open.get()) is not None:
        taps.append(Tap(activation, feedback))


def learn_from_first(
    parameters: Mapping[str, Tensor],
    ends: Sequence[Tensor],
    signals: Sequence[Tensor],
    owned: Sequence[Sequence[str]] | None = None,
) -> tuple[dict[str, Tensor | None], list[list[str]]]:
    """Send ``signals`` down from the tensors ``ends``; each parameter learns from the first one that reaches it.

    With a skip connection several may reach a parameter: all but the first would be signals that its own block has
    already been given by direct feedback, sent once more along the skip. ``owned`` are the names that each end has to
    teach, as an earlier call found them; finding them takes a larger backward pass.

    Returns:
        the gradients by name, None for parameters that nothing reaches; and the names owned by each end.
    """
    found: dict[str, Tensor | None] = dict.fromkeys(parameters)
    left = list(parameters)
    owners: list[list[str]] = []
    for index, (end, signal) in enumerate(zip(ends, signals, strict=True)):
        names = left if owned is None else owned[index]
        if not names or not end.requires_grad:
            owners.append([])
            continue
        gradients = torch.autograd.grad(
            end, [parameters[name] for name in names], signal, retain_graph=True, allow_unused=owned is None
        )
        reached = {name: g for name, g in zip(names, gradients, strict=True) if g is not None}
        found.update(reached)
        owners.append(list(reached))
        left = [name for name in left if name not in reached]
    return found, owners
