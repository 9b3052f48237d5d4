"""What every attack asks of its inputs, and the care it takes of the model it is given."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isfinite

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from alignscape.errors import InputError
from alignscape.seeding import kept_streams
from robustness.norms import Norm


def check_images(images: Tensor, labels: Tensor) -> None:
    """Check a batch of pixels and labels.

    Args:
        images: floats in [0, 1], shape (N, ...).
        labels: int64, shape (N,).

    Raises:
        InputError: anything else.
    """
    if not images.is_floating_point():
        raise InputError(f"images are {images.dtype}; attacks need floats in [0, 1] (divide uint8 by 255)")
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise InputError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}; "
            f"{images.shape[0]} images need int64 of shape ({images.shape[0]},)"
        )
    if not len(labels):
        raise InputError("there are no images to attack")
    low, high = images.aminmax()
    if not (low >= 0 and high <= 1):  # also catches NaN
        raise InputError(
            f"pixels are in [{low:.3g}, {high:.3g}]; attacks need [0, 1] (normalise inside the model instead)"
        )


def check_eps(eps: Sequence[float], norm: Norm, n_pixels: int) -> None:
    """Check radii in pixel units.

    Raises:
        InputError: one is negative, not finite, or beyond what changes any image in [0, 1].
    """
    largest = norm.largest_eps(n_pixels)
    for value in eps:
        if not (isfinite(value) and 0 <= value <= largest):
            raise InputError(f"eps {value:g} is outside [0, {largest:g}]; eps is in pixel units of images in [0, 1]")
    if not eps:
        raise InputError("no eps was given")


def check_logits(logits_NC: Tensor, labels_N: Tensor) -> None:
    """Check a model's clean outputs against the labels.

    Raises:
        InputError: not one row of logits an image, too few classes, or values that are not finite.
    """
    if logits_NC.ndim != 2 or logits_NC.shape[0] != labels_N.shape[0]:
        raise InputError(
            f"the model gives {tuple(logits_NC.shape)} for {labels_N.shape[0]} images; it must give (N, classes)"
        )
    low, high = int(labels_N.min()), int(labels_N.max())
    if low < 0 or high >= logits_NC.shape[1]:
        raise InputError(
            f"labels are {low} ... {high} but the model has {logits_NC.shape[1]} outputs; is this its data set?"
        )
    if not logits_NC.isfinite().all():
        raise InputError("the model's outputs are not finite; its weights may be NaN (a diverged run)")


def check_batch_size(batch_size: int) -> None:
    """Check the number of images at once.

    Raises:
        InputError: it is less than 1.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1")


def check_model(model: nn.Module) -> None:
    """Check that a network answers each image by itself.

    Raises:
        InputError: a layer normalises by the statistics of the batch in evaluation mode too.
    """
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise InputError(
                f"module {name or '(root)'} normalises by the batch at test time too: an image's answer depends on the "
                "others of its batch, and no attack on single images means anything; give it running statistics"
            )


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Let a network that draws at random draw by ``seed``, and leave torch's generators as they were."""
    with kept_streams(device):
        torch.manual_seed(seed)
        yield


@contextmanager
def evaluating(*models: nn.Module | None) -> Iterator[None]:
    """Hold ``models`` in evaluation mode, then give every module back the mode that it had.

    Module by module, because a frozen BatchNorm inside a model in training mode must stay frozen.
    """
    modules = [module for model in models if model is not None for module in model.modules()]
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
