"""Whether a network, its samples and what normalises them go together."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alignscape.errors import InputError
from alignscape.trees import call, shapes
from training.data import Split, normaliser
from training.data.samples import pieces
from training.models.imported import as_logits, parts_of_output

CHANCE_SAMPLES, LEAST_SAMPLES = 256, 50  # that are looked at for chance; fewer say nothing


def normalise_for(mean: Sequence[float], std: Sequence[float], data: Split) -> nn.Module:
    """Return what normalises the inputs of ``data``.

    Raises:
        InputError: not a value for each channel, or a deviation that is not positive.
    """
    if not isinstance(data.images, Tensor):
        return normaliser(mean, std, data.images)
    channels = data.images.shape[1] if data.images.ndim > 1 else 1
    fits = all(len(values) in ({channels} if data.images.ndim == 4 else {1, channels}) for values in (mean, std))
    if not fits and (len(mean), len(std), tuple(mean), tuple(std)) == (1, 1, (0.0,), (1.0,)):
        fits = True  # floats that nothing normalises
    if not fits or min(std) <= 0:
        raise InputError(f"the images have {channels} channels: --mean and --std need {channels} values, std positive")
    return normaliser(mean, std, data.images)


def with_logits(network: nn.Module, normalise: nn.Module, data: Split, dataset: str, output: str | None) -> nn.Module:
    """Return the network, or where it returns several things one that returns the part that is its logits: ``output``,
    else the one of that name."""
    if output is not None:
        return as_logits(network, output)
    with torch.no_grad():
        given = _outputs(network, normalise, data, dataset)
    return network if isinstance(given, Tensor) or "logits" not in parts_of_output(given) else as_logits(network)


def _outputs(network: nn.Module, normalise: nn.Module, data: Split, dataset: str) -> Any:
    """Return what the network gives for two samples.

    Raises:
        InputError: it does not take them.
    """
    few, _ = next(data.batches(2))
    try:
        with torch.no_grad():
            return call(network, normalise(few))
    except InputError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        what = "images" if isinstance(few, Tensor) and few.ndim == 4 else "inputs"
        shape = tuple(few.shape[1:]) if isinstance(few, Tensor) else shapes(few)
        raise InputError(f"the model does not take {dataset}'s {what} of shape {shape}: {reason}") from error


def check_fit(
    network: nn.Module, normalise: nn.Module, data: Split, dataset: str, *, classes: int | None = None
) -> None:
    """Fail early, in one line, where network and data do not go together; None: any number of classes may be.

    Raises:
        InputError: they do not.
    """
    logits = _outputs(network, normalise, data, dataset)
    if not isinstance(logits, Tensor) and (names := parts_of_output(logits)):
        raise InputError(f"the model returns several tensors ({', '.join(names)}): name the logits by --output")
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise InputError("the model must return one tensor of logits (N, classes)")
    if classes is not None and logits.shape[1] != classes:
        numbers = data.labels.is_floating_point()
        what = f"{classes} numbers a label" if numbers else f"{classes} classes"
        raise InputError(f"the model has {logits.shape[1]} outputs, {dataset} has {what}")
    if not data.labels.is_floating_point() and logits.shape[1] <= int(data.labels.max()):
        raise InputError(
            f"the model has {logits.shape[1]} classes, {dataset} has labels up to {int(data.labels.max())}"
        )


@torch.no_grad()
def doubt_of(network: nn.Module, normalise: nn.Module, data: Split, path: Path) -> str:
    """Say so where a network that was trained elsewhere does no better on these samples than guessing would: then it
    is most likely given other pixels, or another order of the classes, than it was trained with. Else nothing."""
    if data.labels.is_floating_point():
        return ""
    some = data.subset(min(len(data), CHANCE_SAMPLES), 0)
    logits = call(network, normalise(some.to(data.labels.device).images))
    right, guessed = int((logits.argmax(1) == some.labels).sum()), 1 / logits.shape[1]
    most = len(some) * guessed + 2 * math.sqrt(len(some) * guessed * (1 - guessed))
    if len(some) < LEAST_SAMPLES or right > most:
        return ""
    text = (
        f"{path} is right on {right} of {len(some)} samples, no more than by chance: is it trained on this data set, "
    )
    return f"{text}with these --mean and --std?"


class Stretch(nn.Module):
    """Map [0, 1] to ``[low, high]``: pixels that an attack changes to the floats that they stand for."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, images: Tensor) -> Tensor:
        return images * (self.high - self.low) + self.low


def range_of(images: Any) -> tuple[float, float]:
    """Return the smallest and largest value of floats; (0, 1) where that is where they lie, and of pixels."""
    if not isinstance(images, Tensor) or not images.is_floating_point():
        return 0.0, 1.0
    ends = [(float(piece.min()), float(piece.max())) for piece in pieces(images)]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    return (0.0, 1.0) if (low >= 0 and high <= 1) or low == high else (low, high)
