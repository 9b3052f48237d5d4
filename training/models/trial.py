"""One image through a network that somebody else may have written."""

import torch
from torch import Tensor, nn

from training.errors import InputError


def try_forward(model: nn.Module, input_shape: tuple[int, ...]) -> Tensor:
    """Return the logits (1, classes) of ``model`` in evaluation mode for one black image; nothing in it changes.

    Raises:
        InputError: the model fails on it, or returns something else than a matrix of logits.
    """
    some = next((t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()), torch.empty(0))
    modes = [(module, module.training) for module in model.modules()]
    shape = " x ".join(str(side) for side in input_shape)
    try:
        model.eval()
        with torch.enable_grad():
            logits = model(torch.zeros(1, *input_shape, dtype=some.dtype, device=some.device))
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{type(model).__name__} cannot take images of {shape}: {reason}") from error
    finally:
        for module, mode in modes:
            module.training = mode
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 1:
        got = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"{type(model).__name__} gives {got} for one image of {shape}; logits (1, classes) are needed")
    return logits
