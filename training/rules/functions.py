"""Autograd functions whose backward pass is a rule's, not the gradient.

Written with ``setup_context`` and ``generate_vmap_rule``, so that ``torch.func.vmap`` runs many networks through them
at once. Under autocast ``delta`` has the lower precision, and the products of the backward pass follow it.
"""

from typing import Any

import torch
from torch import Tensor

from training.precision import in_autocast
from training.rules.operations import Operation


class FeedbackFunction(torch.autograd.Function):
    """The layer's output forward; ``delta B`` backward (Lillicrap et al. 2016, eq. 2).

    A feedback B that requires a gradient gets that of the weights (Kolen and Pollack 1994).
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, feedback: Tensor, operation: Operation) -> Tensor:
        return operation.forward(*in_autocast(x, weight, bias))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, _, _, feedback, ctx.operation = inputs
        ctx.save_for_backward(x, feedback)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        x, feedback = (saved.to(delta.dtype) for saved in ctx.saved_tensors)
        needs_x, needs_weight, needs_bias, needs_feedback, _ = ctx.needs_input_grad
        signal = gradient = None
        if needs_x and (needs_weight or needs_feedback):
            signal, gradient = ctx.operation.both(delta, x, feedback)
        elif needs_x:
            signal = ctx.operation.signal(delta, x, feedback)
        elif needs_weight or needs_feedback:
            gradient = ctx.operation.weight_gradient(delta, x, feedback)
        bias_gradient = ctx.operation.bias_gradient(delta) if needs_bias else None
        return signal, gradient if needs_weight else None, bias_gradient, gradient if needs_feedback else None, None


class ProductFeedbackFunction(torch.autograd.Function):
    """The layer's output forward; ``(delta B) R`` backward, and ``R`` learns from ``(delta B)^T x``
    (Li et al. 2024, "Deep Learning without Weight Symmetry", arXiv 2405.20594)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, fixed: Tensor, plastic: Tensor, operation: Operation
    ) -> Tensor:
        return operation.forward(*in_autocast(x, weight, bias))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, fixed, plastic, ctx.operation = inputs
        ctx.save_for_backward(x, weight, fixed, plastic)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, fixed, plastic = (saved.to(delta.dtype) for saved in ctx.saved_tensors)
        needs_x, needs_weight, needs_bias, _, needs_plastic, _ = ctx.needs_input_grad
        signal = plastic_gradient = None
        if needs_x or needs_plastic:
            delta_mid = ctx.operation.mix(delta, fixed)
            signal, plastic_gradient = ctx.operation.both(delta_mid, x, plastic)
        return (
            signal if needs_x else None,
            ctx.operation.weight_gradient(delta, x, weight) if needs_weight else None,
            ctx.operation.bias_gradient(delta) if needs_bias else None,
            None,
            plastic_gradient if needs_plastic else None,
            None,
        )


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
