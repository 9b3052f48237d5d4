"""Layers with the parameters of the plain ones and another backward pass.

Fixed feedback is a buffer called ``feedback``: the optimiser does not see it, and it is never decayed. Plastic feedback
is a parameter called ``feedback_plastic``: it is trained, and decayed, with the weights. A checkpoint keeps both.
"""

from typing import NamedTuple

from torch import Tensor, nn

from training.rules.functions import DirectInputFunction, FeedbackFunction, ProductFeedbackFunction
from training.rules.operations import operation_of
from training.rules.taps import record, recording
from training.rules.wrapping import Use


class Layer(NamedTuple):
    """A weight layer of the plain network, as a rule gets to see it."""

    name: str
    plain: nn.Linear | nn.Conv2d
    use: Use  # what flows through it


class LayerSize(NamedTuple):
    """What the size of a layer's feedback follows from, before there is a layer."""

    weight: tuple[int, ...]  # (out, in / groups, ...)
    inputs: int  # values that go into it
    first: bool  # as in Use
    groups: int = 1
    outputs: int | None = None  # values that come out; None: as many as the weight has rows


class WrappedLayer(nn.Module):
    """What stands in the place of a Linear or Conv2d: its very parameters, so that training this trains the plain
    network, and its constants (``in_features``, ``stride``, ...), which a network may read in its forward pass.
    ``sends_down`` is whether anything below it learns from the signal it sends there."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        for constant in layer.plain.__constants__:
            setattr(self, constant, getattr(layer.plain, constant))
        self.weight = layer.plain.weight
        self.bias = layer.plain.bias
        self.operation, self.pad = operation_of(layer.plain)
        self.sends_down = not layer.use.first

    def padded(self, x: Tensor) -> Tensor:
        """Return ``x`` with the padding that the operation does not do itself."""
        return x if self.pad is None else self.pad(x)

    def forward(self, input: Tensor) -> Tensor:  # called so, as in the plain layer, by networks that name it
        return FeedbackFunction.apply(
            self.padded(input), self.weight, self.bias, self.backward_weight(), self.operation
        )

    def backward_weight(self) -> Tensor:
        """The matrix, of the shape of W, in the place of W on the way down."""
        raise NotImplementedError


class FixedFeedback(WrappedLayer):
    """The signal goes down through ``feedback`` B, of the shape of W, which no gradient moves."""

    feedback: Tensor

    def __init__(self, layer: Layer, feedback: Tensor) -> None:
        super().__init__(layer)
        self.register_buffer("feedback", feedback)

    def backward_weight(self) -> Tensor:
        return self.feedback


class SignFeedback(WrappedLayer):
    """The signal goes down through ``feedback`` times sign(W); ``feedback`` is a magnitude for each weight, or one.
    Where ``feedback_mask`` is given, the signal passes only where it is 1."""

    feedback: Tensor
    feedback_mask: Tensor | None

    def __init__(self, layer: Layer, magnitude: Tensor, mask: Tensor | None = None) -> None:
        super().__init__(layer)
        self.register_buffer("feedback", magnitude)
        self.register_buffer("feedback_mask", mask)

    def backward_weight(self) -> Tensor:
        down = self.feedback * self.weight.detach().sign()
        return down if self.feedback_mask is None else down * self.feedback_mask


class LearnedFeedback(WrappedLayer):
    """The signal goes down through ``feedback_plastic`` B, of the shape of W, which gets the gradient of W."""

    def __init__(self, layer: Layer, feedback: Tensor) -> None:
        super().__init__(layer)
        self.feedback_plastic = nn.Parameter(feedback)

    def backward_weight(self) -> Tensor:
        return self.feedback_plastic


class ProductFeedback(WrappedLayer):
    """The signal goes down through ``feedback`` B, fixed, from outputs to a middle, then ``feedback_plastic`` R, which
    learns. Where ``feedback_mask`` is given, R acts only where it is 1."""

    feedback: Tensor
    feedback_mask: Tensor | None

    def __init__(self, layer: Layer, fixed: Tensor, plastic: Tensor, mask: Tensor | None = None) -> None:
        super().__init__(layer)
        self.register_buffer("feedback", fixed)
        self.feedback_plastic = nn.Parameter(plastic)
        self.register_buffer("feedback_mask", mask)

    def plastic(self) -> Tensor:
        """R where its mask lets it act."""
        return self.feedback_plastic if self.feedback_mask is None else self.feedback_plastic * self.feedback_mask

    def forward(self, input: Tensor) -> Tensor:
        tensors = (self.padded(input), self.weight, self.bias, self.feedback, self.plastic())
        return ProductFeedbackFunction.apply(*tensors, self.operation)

    def backward_weight(self) -> Tensor:
        return self.operation.path(self.feedback, self.plastic())


class DirectFeedback(WrappedLayer):
    """A layer that cuts the signal to its input, and records that input for the direct one.

    ``feedback`` F (classes, values of the input) carries the output error straight to what made the input, in place of
    all that the cut withholds (Nokland 2016, eq. 3).
    """

    feedback: Tensor

    def __init__(self, layer: Layer, feedback: Tensor) -> None:
        super().__init__(layer)
        self.use = layer.use
        self.register_buffer("feedback", feedback)
        self.teacher: str | None = None  # the layer through whose F these weights learn; None: the loss itself

    def forward(self, input: Tensor) -> Tensor:
        if self.sends_down:
            record(input, self.feedback)
        return self.operation.forward(self.padded(input.detach()), self.weight, self.bias)

    def counterpart(self, above: Tensor) -> Tensor | None:
        """Return what W would have to be for BP's signal to be DFA's: ``F_above^T F`` (Refinetti et al. 2021).

        For a convolution it is the nearest convolution to that, up to a factor: the mean over the positions. ``above``
        is (classes, values); None if these are not this layer's outputs, but pooled ones, say.
        """
        if above.shape[1] != self.use.output_shape.numel():
            return None
        delta, x = above.unflatten(1, self.use.output_shape), self.feedback.unflatten(1, self.use.input_shape)
        return self.operation.weight_gradient(delta, self.padded(x), self.weight)


class DirectInputPath(nn.Module):
    """A DFA network as a naive attack sees it: its logits, with ``e F_0`` for the gradient by the pixels."""

    feedback: Tensor

    def __init__(self, twin: nn.Module, feedback: Tensor) -> None:
        super().__init__()
        self.twin = twin
        self.register_buffer("feedback", feedback)

    def forward(self, x: Tensor) -> Tensor:
        return DirectInputFunction.apply(x, self.twin(x.detach()).detach(), self.feedback)


class DirectHiddenPath(nn.Module):
    """A DFA network whose first layer is a plain one, as a naive attack sees it: ``e F`` arrives where the first signal
    of training does, and goes on to the pixels through what lies below, the first layer's own W included."""

    def __init__(self, twin: nn.Module) -> None:
        super().__init__()
        self.twin = twin

    def forward(self, x: Tensor) -> Tensor:
        with recording() as taps:
            logits: Tensor = self.twin(x)
        if not taps:  # the first layer is the only one
            return logits
        return DirectInputFunction.apply(taps[0].activation, logits.detach(), taps[0].feedback)
