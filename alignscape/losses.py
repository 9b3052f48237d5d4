"""Losses by name: what a network is trained by, and what its landscape is of."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from alignscape.errors import InputError
from alignscape.imports import import_reference, reason

if TYPE_CHECKING:
    from torch import Tensor

LOSSES = ("cross-entropy", "mse")
FORMS = "cross-entropy, mse or package.module:function"


def named_loss(name: str, *, flag: str = "--loss") -> "Callable[..., Tensor]":
    """Return the loss called ``name``: ``loss(outputs, targets)`` is one number, a mean over samples.

    ``mse`` is the mean over samples and outputs of the squared error, as ``torch.nn.MSELoss`` has it; of classes the
    targets are 1 for the right one and 0 for the others (:func:`targets_of`). One of the user's gets outputs and labels
    as they are.

    Raises:
        InputError: the name is unknown, or what it names cannot be imported.
    """
    from torch import nn

    if name == "cross-entropy":
        return nn.CrossEntropyLoss()
    if name == "mse":
        return nn.MSELoss()
    if ":" not in name:
        raise InputError(f"{flag} {name!r} is unknown; known: {FORMS}")
    found = import_reference(name, flag=flag)
    if not callable(found):
        raise InputError(f"{flag} {name} is a {type(found).__name__}, not a function")
    made = found() if isinstance(found, type) else found
    return made if isinstance(made, nn.Module) else functools.partial(_called, made, f"{flag} {name}")


def _called(loss: "Callable[..., Tensor]", place: str, *args: Any) -> "Tensor":
    try:
        return loss(*args)
    except InputError:
        raise
    except Exception as error:  # whatever the user's own code raises becomes one line that names it
        raise InputError(f"{place}: {reason(error)}") from error


def targets_of(name: str, labels: "Tensor", outputs: int) -> "Tensor":
    """Return what the loss ``name`` compares ``outputs`` numbers a sample with: of ``mse`` floats (N, outputs).

    Raises:
        InputError: cross-entropy, and labels that are no classes.
    """
    from torch.nn import functional as F

    if name == "mse":
        if labels.is_floating_point():
            return labels if labels.dim() > 1 else labels[:, None]
        return F.one_hot(labels, outputs).float()
    if name == "cross-entropy" and labels.is_floating_point():
        raise InputError("the labels are floats and no classes, as a cross-entropy takes: give --loss mse")
    return labels
