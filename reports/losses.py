"""Losses by name, for networks that are no run of ours, or to be seen by another loss than their own."""

import functools
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

from torch import Tensor, nn

from alignscape.errors import InputError
from alignscape.imports import import_reference, reason
from training.config import TrainConfig
from training.losses import TrainingLoss


def loss_called(name: str) -> TrainingLoss:
    """Return the loss that ``analyze train --loss`` calls so.

    Raises:
        InputError: there is none.
    """
    known = get_args(get_type_hints(TrainConfig)["loss"])
    if name not in known:
        raise InputError(f"--loss {name!r} is unknown; known: {', '.join(known)}, package.module:function")
    return TrainingLoss(name)


def users_loss(reference: str) -> Callable[..., Tensor]:
    """Return the loss ``package.module:function``, which is called with outputs and labels of a batch and returns their
    mean; or a class of such, as ``torch.nn:L1Loss``.

    Raises:
        InputError: it cannot be imported; when it is called, whatever it raises.
    """
    found = import_reference(reference, flag="--loss")
    if not callable(found):
        raise InputError(f"--loss {reference} is a {type(found).__name__}, not a function")
    made = _called(found, f"--loss {reference}") if isinstance(found, type) else found
    return made if isinstance(made, nn.Module) else functools.partial(_called, made, f"--loss {reference}")


def _called(function: Callable[..., Any], place: str, *args: Any) -> Any:
    try:
        return function(*args)
    except InputError:
        raise
    except Exception as error:  # whatever the user's own code raises becomes one line that names it
        raise InputError(f"{place}: {reason(error)}") from error
