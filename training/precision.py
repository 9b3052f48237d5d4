"""The arithmetic of a training step: float32, TensorFloat-32 products, or bfloat16 products."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Compute float32 matrix products and convolutions in TF32 (``"tf32"``, on GPUs that have it) or in full.

    torch leaves TF32 on for convolutions; here ``"fp32"`` means float32. Restores what was set before.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context of the forward pass: with ``"bf16"`` its products are of bfloat16, while weights, their
    gradients, the optimiser, feedback tensors and losses stay float32."""
    if precision != "bf16":
        return nullcontext()  # a disabled autocast costs a tenth of a small network's step
    # No cache of cast weights: it would outlive the step that a CUDA graph records.
    return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)


def in_autocast(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the operands of a layer in the type that the active autocast wants of a product, if one is active.

    What autocast does by itself, but for products under ``torch.func.vmap``: there it does not reach a convolution on
    a CPU, and a linear layer adds its bias in float32, so that all behind it and the whole backward pass is float32.
    """
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        return x, weight, bias
    dtype = torch.get_autocast_dtype(kind)
    return x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
