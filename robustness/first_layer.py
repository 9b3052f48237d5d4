"""Outputs of a fully connected first layer, where an attack knows them without passing the pixels on.

Where pixels reach the logits by one Linear layer alone, what that layer puts out changes by the changed pixels times
their columns of its weights; of an image of 3072 pixels a query of Square mostly changes fewer than 50. And
the outputs for a point between two others lie between theirs. No class of network is assumed: the layer that runs first
is found, and held against the whole network before it is relied upon.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from alignscape.errors import InputError
from robustness.attacks import Batch, input_gradient
from robustness.inputs import seeded
from robustness.losses import AttackLoss

PROBED = 16  # images that the layer is held against the whole network on
TOLERANCE = 1e-4  # of the largest output: float32 rounds by 1e-6; a head that is not affine is off by far more
AT_ONCE = 128  # images (each with one target) that a CPU's cache holds all that a step of an attack works on of


def at_once(rows: Tensor) -> list[Tensor]:
    """Return the ``rows``, (N,), in parts that an attack works on together; of none, no part."""
    size = AT_ONCE if rows.device.type == "cpu" else max(1, len(rows))
    return [part for part in rows.split(size) if len(part)]


class Whole:
    """A network that is not cut: what stands for the outputs of its first layer are the pixels themselves."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def passed(self, points: Tensor) -> Tensor:
        """Return the points, shape (N, ...)."""
        return points

    def logits(self, points: Tensor) -> Tensor:
        """Return the logits of the points, (N, C)."""
        found: Tensor = self.model(points)
        return found

    def slope(self, points: Tensor, labels: Tensor, loss: AttackLoss) -> tuple[Tensor, Tensor]:
        """Return the gradient of each point's own loss at its pixels, (N, ...), and the logits, (N, C)."""
        return input_gradient(self.model, points, labels, loss)


class FirstLayer:
    """A network cut after its first layer; made by :func:`cut_after_first_layer`."""

    def __init__(self, model: nn.Module, layer: nn.Linear, columns: Tensor, offset: Tensor, blank: Tensor) -> None:
        self.model, self.layer, self.blank = model, layer, blank
        self.columns = columns  # of the weights, times what the pixels are scaled by before: (..., outputs)
        self.offset = offset  # the outputs for pixels that are all 0, (outputs,)

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the layer's outputs, (N, outputs), and the logits, by a full forward pass."""
        seen: list[Tensor] = []
        handle = self.layer.register_forward_hook(lambda *call: seen.append(call[2]))
        try:
            logits = self.model(images)
        finally:
            handle.remove()
        return seen[0], logits

    def passed(self, points: Tensor) -> Tensor:
        """Return the layer's outputs for points, (N, outputs), without the rest of the network."""
        return torch.addmm(self.offset, points.flatten(1), self.columns.flatten(0, -2))

    def slope(self, outputs: Tensor, labels: Tensor, loss: AttackLoss) -> tuple[Tensor, Tensor]:
        """Return the gradient by the pixels, (N, ...), and the logits, (N, C), of points whose outputs are known.

        Raises:
            InputError: as :func:`robustness.attacks.input_gradient`.
        """
        by_outputs, logits = input_gradient(self.logits, outputs, labels, loss)
        by_pixels = by_outputs @ self.columns.flatten(0, -2).T
        return by_pixels.reshape(-1, *self.columns.shape[:-1]), logits

    def change(self, moved: Tensor, window: tuple[slice, slice]) -> Tensor:
        """Return by how much the outputs change, (N, outputs), where the pixels of ``window`` change by ``moved``."""
        return moved.flatten(1) @ self.columns[:, window[0], window[1]].flatten(0, 2)

    def logits(self, outputs: Tensor) -> Tensor:
        """Return the logits of images of which the layer's outputs are known."""
        with _answering(self.layer, outputs):
            return self.model(self.blank.expand(len(outputs), *self.blank.shape[1:]))


@contextmanager
def _answering(layer: nn.Linear, outputs: Tensor) -> Iterator[None]:
    """Let ``layer`` answer ``outputs``, whatever it is given."""
    layer.forward = lambda _: outputs  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del layer.forward


def followed(batch: Batch) -> FirstLayer | Whole:
    """Return the network whose gradient an attack on ``batch`` follows, cut after its first layer where it is the
    attacked one, can be cut, and has the gradient that its weights say (a masked one is followed as it is)."""
    cut = None
    if batch.gradient_model is batch.model:
        with seeded(batch.seed, batch.images.device):  # a network that draws is left where it was
            cut = cut_after_first_layer(batch.model, batch.images)
            if cut is not None and not _has_gradient_of_weights(cut, batch.images[:PROBED]):
                cut = None
    return Whole(batch.gradient_model) if cut is None else cut


def _has_gradient_of_weights(cut: FirstLayer, images: Tensor) -> bool:
    """Return whether autograd takes the weights of the cut layer from its outputs down to the pixels."""

    def spread(logits: Tensor, _: Tensor) -> Tensor:
        return logits @ torch.linspace(-1, 1, logits.shape[1]).to(logits)

    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    try:
        by_autograd, _ = input_gradient(cut.model, images, labels, spread)
        with torch.no_grad():
            outputs, _ = cut.outputs(images)  # to the bit those of autograd's pass, so that no unit switches
        by_weights, _ = cut.slope(outputs, labels, spread)
    except InputError:
        return False
    return _close(by_weights, by_autograd)


@torch.no_grad()
def cut_after_first_layer(model: nn.Module, images: Tensor) -> FirstLayer | None:
    """Return the network cut after its first layer, or None where its structure is another.

    It is cut where, on some of the images and on random ones, the first Linear layer takes every pixel scaled and
    shifted and nothing else, is run once, and alone decides the logits.

    Args:
        model: logits (N, C) from pixels in [0, 1], in evaluation mode.
        images: pixels, shape (N, ...), at least one.
    """
    some = images[:PROBED]
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(some.shape, generator=generator, dtype=torch.float64).to(some)
    probes = torch.cat((some, noise, torch.zeros_like(some[:1]), torch.ones_like(some[:1])))
    calls: list[tuple[Any, ...]] = []  # layer, input, outputs
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    handles = [one.register_forward_hook(lambda m, given, out: calls.append((m, *given, out))) for one in linear]
    try:
        logits = model(probes)
    finally:
        for handle in handles:
            handle.remove()
    if not calls or len(calls[0]) != 3:
        return None
    layer, inputs, outputs = calls[0]
    once = sum(call[0] is layer for call in calls) == 1
    if not once or inputs.shape != (len(probes), images[0].numel()) or outputs.ndim != 2:
        return None
    shift, scale = inputs[-2], inputs[-1] - inputs[-2]
    columns = (layer.weight * scale).T
    offset = shift @ layer.weight.T + (0 if layer.bias is None else layer.bias)
    by_hand = torch.addmm(offset, probes.flatten(1), columns)
    affine = _close(probes.flatten(1) * scale + shift, inputs) and _close(by_hand, outputs)
    if not affine:
        return None
    small = images[:1, :, :1, :1] if images.ndim == 4 else images[:1]
    for blank in (torch.zeros_like(small), torch.zeros_like(images[:1])):
        cut = FirstLayer(model, layer, columns.reshape(*images.shape[1:], -1).contiguous(), offset, blank)
        try:
            alone = cut.logits(outputs)
        except (RuntimeError, ValueError):  # something before the layer insists on the size of images
            continue
        if alone.shape == logits.shape and _close(alone, logits):
            return cut
    return None


def _close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= TOLERANCE * other.abs().max())
