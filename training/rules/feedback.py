"""Layers with the parameters of the plain ones and another backward pass: the signal sent down goes through a
feedback matrix in place of the transposed forward weights.

``W`` and ``B`` are (out, in) and ``delta`` is (N, out), already multiplied by the derivative of the activation.
The weight gradient is always ``delta^T x``. The functions are written with ``setup_context`` and
``generate_vmap_rule``, so that ``torch.func.vmap(grad(...))`` trains many networks with them at once.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FeedbackLinearFunction(torch.autograd.Function):
    """``x W^T + b`` forward; ``delta B`` backward (Lillicrap et al. 2016, eq. 2)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, feedback: Tensor) -> Tensor:
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, _, _, feedback = inputs
        ctx.save_for_backward(x, feedback)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        x, feedback = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        return (
            delta @ feedback if needs_x else None,
            delta.flatten(0, -2).T @ x.flatten(0, -2) if needs_weight else None,
            delta.flatten(0, -2).sum(0) if needs_bias else None,
            None,
        )


class ProductFeedbackLinearFunction(torch.autograd.Function):
    """``x W^T + b`` forward; ``(delta B) R`` backward, and ``R`` learns from ``(delta B)^T x``
    (Li et al. 2024, "Deep Learning without Weight Symmetry", arXiv 2405.20594)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, fixed: Tensor, plastic: Tensor) -> Tensor:
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, _, _, fixed, plastic = inputs
        ctx.save_for_backward(x, fixed, plastic)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        x, fixed, plastic = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, _, needs_plastic = ctx.needs_input_grad
        delta_mid = delta @ fixed if needs_x or needs_plastic else None  # (N, k out)
        return (
            delta_mid @ plastic if delta_mid is not None and needs_x else None,
            delta.flatten(0, -2).T @ x.flatten(0, -2) if needs_weight else None,
            delta.flatten(0, -2).sum(0) if needs_bias else None,
            None,
            delta_mid.flatten(0, -2).T @ x.flatten(0, -2) if delta_mid is not None and needs_plastic else None,
        )


class WrappedLinear(nn.Module):
    """What stands in the place of a linear layer: its very parameters, so that training this trains the plain
    network, and a fixed ``feedback`` buffer, which the optimiser does not see and a checkpoint keeps."""

    feedback: Tensor

    def __init__(self, plain: nn.Linear, feedback: Tensor) -> None:
        super().__init__()
        self.weight = plain.weight
        self.bias = plain.bias
        self.register_buffer("feedback", feedback)


class FeedbackLinear(WrappedLinear):
    """A linear layer whose error signal goes down through ``feedback`` B (out, in)."""

    def forward(self, x: Tensor) -> Tensor:
        return FeedbackLinearFunction.apply(x, self.weight, self.bias, self.feedback)

    def backward_weight(self) -> Tensor:
        """The matrix (out, in) in the place of W on the way down."""
        return self.feedback


class ProductFeedbackLinear(WrappedLinear):
    """A linear layer whose error signal goes down through ``feedback`` B (out, k out), fixed, then
    ``feedback_plastic`` R (k out, in), which learns."""

    def __init__(self, plain: nn.Linear, fixed: Tensor, plastic: Tensor) -> None:
        super().__init__(plain, fixed)
        self.feedback_plastic = nn.Parameter(plastic)

    def forward(self, x: Tensor) -> Tensor:
        return ProductFeedbackLinearFunction.apply(x, self.weight, self.bias, self.feedback, self.feedback_plastic)

    def backward_weight(self) -> Tensor:
        """The path B R (out, in) in the place of W on the way down."""
        return self.feedback @ self.feedback_plastic.detach()


class DirectFeedbackLinear(WrappedLinear):
    """A linear layer that cuts the signal to its input, and remembers that input for the direct one.

    ``feedback`` F (classes, in) carries the output error straight to the block below. The rule's objective adds
    ``(input * (e F)).sum()``, whose gradient inside that block is exactly DFA's (Nokland 2016, eq. 3); nothing
    else crosses the cut, so skip connections cannot count a signal twice.
    """

    def __init__(self, plain: nn.Linear, feedback: Tensor) -> None:
        super().__init__(plain, feedback)
        self.tap: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.tap = x
        return F.linear(x.detach(), self.weight, self.bias)

    def local_objective(self, error: Tensor) -> Tensor:
        """Return ``sum(input * (e F))`` for ``error`` e (N, classes), and forget the input: an error of one batch
        must never meet the activations of another."""
        tap, self.tap = self.tap, None
        if tap is None:
            raise RuntimeError("local_objective needs a forward pass before each call")
        return (tap * (error @ self.feedback).detach()).sum()


class DirectInputFunction(torch.autograd.Function):
    """Pass logits through; send their gradient to the pixels through F (classes, pixels) directly."""

    @staticmethod
    def forward(x: Tensor, logits: Tensor, feedback: Tensor) -> Tensor:
        return logits.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, _, feedback = inputs
        ctx.shape = x.shape
        ctx.save_for_backward(feedback)

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        (feedback,) = ctx.saved_tensors
        return (error @ feedback).view(ctx.shape), None, None


class DirectInputPath(nn.Module):
    """A DFA network as a naive attack sees it: its logits, with ``e F_0`` for the gradient by the pixels."""

    feedback: Tensor

    def __init__(self, twin: nn.Module, feedback: Tensor) -> None:
        super().__init__()
        self.twin = twin
        self.register_buffer("feedback", feedback)

    def forward(self, x: Tensor) -> Tensor:
        return DirectInputFunction.apply(x, self.twin(x.detach()).detach(), self.feedback)
