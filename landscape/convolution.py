"""Convolutions whose second derivatives are six plain convolutions, and batch normalisation that costs none.

torch differentiates the gradient of a convolution by weights as a convolution whose kernel is as large as the image:
on a CPU that takes several times as long as the gradient itself. Here each part of a Hessian-vector product is one of
the three kinds that a training step has too (forward, to the inputs, to the weights), for which there are fast
kernels: two each, which is the least an exact product can do.

Batch normalisation by running statistics is a scale and a shift a channel. Right behind a convolution it goes into
that convolution's weights, ``W' = W gamma / sigma``: its derivatives are then those of small tensors, and of the images
that would have passed through it nothing is kept.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_backward = torch.ops.aten.convolution_backward
_top_hooks: Any = torch._C._autograd._top_saved_tensors_default_hooks  # of saved tensors; None where there are none


class Geometry(NamedTuple):
    """How a kernel moves over an image: the arguments of a convolution behind the bias."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the images."""
        zero = [0] * len(self.stride)
        return torch.convolution(x, weight, bias, self.stride, self.padding, self.dilation, False, zero, self.groups)

    def gradients(
        self, grad: Tensor, x: Tensor, weight: Tensor, *, wanted: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients to inputs, weights and bias, where ``wanted``."""
        zero, bias = [0] * len(self.stride), [weight.shape[0]]
        geometry = self.stride, self.padding, self.dilation, False, zero, self.groups
        x_grad, weight_grad, bias_grad = _backward(grad, x, weight, bias, *geometry, list(wanted))
        return (
            x_grad if wanted[0] else None,
            weight_grad if wanted[1] else None,
            bias_grad if wanted[2] else None,
        )


class _Convolution(torch.autograd.Function):
    """A convolution; its gradient is :class:`_Gradient`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return geometry.convolve(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Any, ...]:
        if grad is None:
            return None, None, None, None
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():
            return *_Gradient.apply(grad, x, weight, ctx.geometry, wanted), None
        return *ctx.geometry.gradients(grad, x, weight, wanted=wanted), None


class _Gradient(torch.autograd.Function):
    """The gradients of a convolution, as a function of the gradient of its images, its inputs and its weights."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, wanted: Sequence[bool]) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(grad, x, weight)
        ctx.geometry = geometry
        return geometry.gradients(grad, x, weight, wanted=wanted)

    @staticmethod
    def backward(ctx: Any, to_x: Tensor | None, to_weight: Tensor | None, to_bias: Tensor | None) -> tuple[Any, ...]:
        """Return the products with what was added to the three gradients: every part is bilinear."""
        grad, x, weight = ctx.saved_tensors
        geometry: Geometry = ctx.geometry
        for_grad, for_x, for_weight, *_ = ctx.needs_input_grad
        images = x_part = weight_part = None
        if for_grad:
            if to_weight is not None:
                images = geometry.convolve(x, to_weight, to_bias)
            elif to_bias is not None:
                images = to_bias.view(-1, *[1] * (grad.dim() - 2)).expand_as(grad)
            if to_x is not None:
                moved = geometry.convolve(to_x, weight)
                images = moved if images is None else images + moved
        if for_x and to_weight is not None:
            x_part, _, _ = geometry.gradients(grad, x, to_weight, wanted=(True, False, False))
        if for_weight and to_x is not None:
            _, weight_part, _ = geometry.gradients(grad, to_x, weight, wanted=(False, True, False))
        return images, x_part, weight_part, None, None


class DirectConvolutions(TorchFunctionMode):
    """Computes the convolutions of a network, and the batch normalisation right behind them, as said above.

    Attributes:
        hooked: some of what ran keeps its tensors by hooks, as checkpointed segments do.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hooked = False
        self._last: tuple[weakref.ref[Tensor], Tensor, Tensor, Tensor | None, Geometry] | None = None

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``function``, or what takes its place."""
        kwargs = kwargs or {}
        if _top_hooks(False) is not None:
            # A checkpointed segment runs again in the backward pass, outside of this, and must save the same tensors.
            self.hooked = True
            return function(*args, **kwargs)
        if function in _CONVOLUTIONS and torch._C._functorch.peek_interpreter_stack() is None:
            return self._convolution(function, *args, **kwargs)
        if function is F.batch_norm and self._last is not None:
            found = self._normalised(*args, **kwargs)
            if found is not None:
                return found
        return function(*args, **kwargs)

    def _convolution(
        self,
        function: Callable[..., Tensor],
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        axes = weight.dim() - 2
        plain = input.dim() == weight.dim() and input.dtype == weight.dtype and not input.is_complex()
        if isinstance(padding, str) or not plain or torch.is_autocast_enabled(input.device.type):
            return function(input, weight, bias, stride, padding, dilation, groups)
        geometry = Geometry(_list(stride, axes), _list(padding, axes), _list(dilation, axes), groups)
        images: Tensor = _Convolution.apply(input, weight, bias, geometry)
        self._last = weakref.ref(images), input, weight, bias, geometry
        return images

    def _normalised(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor | None:
        """Return the normalised images of the last convolution, None where ``input`` is something else."""
        assert self._last is not None
        images, x, kernel, offset, geometry = self._last
        if images() is not input or training or running_mean is None or running_var is None:
            return None
        if input._version or input.requires_grad != (x.requires_grad or kernel.requires_grad):  # changed in place
            return None
        scale = torch.rsqrt(running_var + eps)
        scale = scale if weight is None else scale * weight
        shift = -scale * running_mean if offset is None else scale * (offset - running_mean)
        shift = shift if bias is None else shift + bias
        folded: Tensor = _Convolution.apply(x, kernel * scale.view(-1, *[1] * (kernel.dim() - 1)), shift, geometry)
        return folded


_CONVOLUTIONS = {torch.conv1d, torch.conv2d, torch.conv3d}


def _list(value: Any, axes: int) -> list[int]:
    """Return one number an axis, of one for all or one for each."""
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values
