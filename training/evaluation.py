"""Loss and accuracy of one network, or of many on the same samples."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from training.data import Normalise, Split


@torch.no_grad()
def evaluate(model: nn.Module, normalise: Normalise, split: Split, batch_size: int = 2500) -> tuple[float, float]:
    """Return mean cross-entropy (nats) and accuracy (0 to 1) of ``model`` on ``split``, in evaluation mode.

    Args:
        model: normalised images (N, C, H, W) -> logits (N, classes), on the split's device.
        normalise: what its images are normalised by.
        split: the samples.
        batch_size: images a forward pass.

    Example:
        >>> import math
        >>> import torch
        >>> from training import Normalise, evaluate, load_dataset
        >>> data = load_dataset("digits")
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).requires_grad_(False)
        >>> _ = model[1].weight.zero_(), model[1].bias.zero_()  # knows nothing
        >>> loss, accuracy = evaluate(model, Normalise(data.mean, data.std), data.test)
        >>> abs(loss - math.log(10)) < 1e-6, accuracy < 0.2
        (True, True)
    """
    was_training = model.training
    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=split.labels.device)
    correct = torch.zeros((), dtype=torch.int64, device=split.labels.device)
    for images, labels in zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True):
        logits = model(normalise(images))
        loss += F.cross_entropy(logits, labels, reduction="sum")
        correct += (logits.argmax(1) == labels).sum()
    model.train(was_training)
    return loss.item() / len(split), correct.item() / len(split)


@torch.no_grad()
def evaluate_stack(
    model: nn.Module, stacked: Mapping[str, Tensor], normalise: Normalise, split: Split, samples: int = 20_000
) -> list[tuple[float, float]]:
    """As :func:`evaluate`, for E networks at once: ``stacked`` holds (E, ...) for parameters and buffers of ``model``;
    ``samples`` bounds networks x images in one batch."""
    size = len(next(iter(stacked.values())))
    was_training = model.training
    model.eval()
    loss = torch.zeros(size, dtype=torch.float64, device=split.labels.device)
    correct = torch.zeros(size, dtype=torch.int64, device=split.labels.device)
    forward = vmap(lambda tensors, inputs: functional_call(model, tensors, (inputs,)), in_dims=(0, None))
    batch_size = max(1, samples // size)
    for images, labels in zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True):
        logits = forward(dict(stacked), normalise(images))  # (E, N, classes)
        every = labels.expand(size, -1)
        loss += F.cross_entropy(logits.flatten(0, 1), every.flatten(), reduction="none").view(size, -1).sum(1)
        correct += (logits.argmax(-1) == every).sum(1)
    model.train(was_training)
    return [(x / len(split), c / len(split)) for x, c in zip(loss.tolist(), correct.tolist(), strict=True)]
