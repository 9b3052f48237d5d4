"""What a Linear or a Conv2d computes, apart from its weights: the products of its forward and backward pass.

``delta`` is the error signal at the output, already multiplied by the derivative of the activation. A rule puts
another matrix in the place of the weights on the way down; the gradient of the weights themselves is the true one for
the ``delta`` that arrives.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Operation(Protocol):
    """The products of a layer with a weight matrix."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the output for the input ``x``."""
        ...

    def signal(self, delta: Tensor, x: Tensor, feedback: Tensor) -> Tensor:
        """Return ``delta B``, of the shape of ``x``, for ``feedback`` B of the shape of the weights."""
        ...

    def weight_gradient(self, delta: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Return ``delta^T x``, of the shape of ``weight`` (whose values do not enter)."""
        ...

    def both(self, delta: Tensor, x: Tensor, feedback: Tensor) -> tuple[Tensor, Tensor]:
        """Return :meth:`signal` and :meth:`weight_gradient`."""
        ...

    def bias_gradient(self, delta: Tensor) -> Tensor:
        """Return the sum of ``delta`` over all but the outputs."""
        ...

    def mix(self, delta: Tensor, fixed: Tensor) -> Tensor:
        """Return ``delta B`` for a square or wide B from outputs to a middle: (out, k out), convolutions 1 x 1."""
        ...

    def path(self, fixed: Tensor, plastic: Tensor) -> Tensor:
        """Return the one matrix, of the shape of the weights, that ``fixed`` and then ``plastic`` amount to."""
        ...


@dataclass(frozen=True)
class LinearOperation:
    """Weights (out, in), inputs (..., in)."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    def signal(self, delta: Tensor, x: Tensor, feedback: Tensor) -> Tensor:
        return delta @ feedback

    def weight_gradient(self, delta: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return delta.flatten(0, -2).T @ x.flatten(0, -2)

    def both(self, delta: Tensor, x: Tensor, feedback: Tensor) -> tuple[Tensor, Tensor]:
        return self.signal(delta, x, feedback), self.weight_gradient(delta, x, feedback)

    def bias_gradient(self, delta: Tensor) -> Tensor:
        return delta.flatten(0, -2).sum(0)

    def mix(self, delta: Tensor, fixed: Tensor) -> Tensor:
        return delta @ fixed

    def path(self, fixed: Tensor, plastic: Tensor) -> Tensor:
        return fixed @ plastic


@dataclass(frozen=True)
class ConvOperation:
    """Weights (out, in / groups, kh, kw), inputs (N, in, H, W); zero padding by ``padding`` pixels on both sides."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def signal(self, delta: Tensor, x: Tensor, feedback: Tensor) -> Tensor:
        return self._backward(delta, x, feedback, [True, False, False])[0]

    def weight_gradient(self, delta: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return self._backward(delta, x, weight, [False, True, False])[1]

    def both(self, delta: Tensor, x: Tensor, feedback: Tensor) -> tuple[Tensor, Tensor]:
        signal, gradient, _ = self._backward(delta, x, feedback, [True, True, False])
        return signal, gradient

    def bias_gradient(self, delta: Tensor) -> Tensor:
        return delta.sum((0, 2, 3))

    def mix(self, delta: Tensor, fixed: Tensor) -> Tensor:
        return F.conv_transpose2d(delta, fixed, groups=self.groups)

    def path(self, fixed: Tensor, plastic: Tensor) -> Tensor:
        left = fixed.flatten(1).unflatten(0, (self.groups, -1))  # (groups, out / groups, middle / groups)
        right = plastic.flatten(1).unflatten(0, (self.groups, -1))
        return (left @ right).flatten(0, 1).view(len(fixed), *plastic.shape[1:])

    def _backward(self, delta: Tensor, x: Tensor, weight: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, ...]:
        # The backward pass of a convolution as autograd calls it: the gradient by the input uses the values of
        # `weight`, the gradient by the weights only its shape.
        return torch.ops.aten.convolution_backward(
            *(delta, x, weight, None, self.stride, self.padding, self.dilation, False, (0, 0), self.groups, wanted)
        )


@dataclass(frozen=True)
class Padding:
    """Padding that a convolution cannot do itself: other than zeros, or of different widths on two sides."""

    widths: tuple[int, ...]  # as torch.nn.functional.pad takes them
    mode: str

    def __call__(self, x: Tensor) -> Tensor:
        return F.pad(x, self.widths, mode=self.mode)


def operation_of(layer: nn.Linear | nn.Conv2d) -> tuple[Operation, Padding | None]:
    """Return what ``layer`` computes, and the padding that its input needs first."""
    if isinstance(layer, nn.Linear):
        return LinearOperation(), None
    separate = None
    padding: tuple[int, ...]
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        separate = Padding(tuple(layer._reversed_padding_repeated_twice), mode)
        padding = (0, 0)
    else:
        padding = layer.padding
    return ConvOperation(layer.stride, padding, layer.dilation, layer.groups), separate
