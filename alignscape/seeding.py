"""Independent, named random streams from one user seed."""

import hashlib
from contextlib import AbstractContextManager

import torch


def derive_seed(seed: int, *labels: object) -> int:
    """Return a 63-bit seed for the stream called ``labels`` under ``seed``.

    Streams with different labels are independent, so drawing more from one (a wider layer, another epoch) never
    shifts another: FA and BP with one seed start from the same forward weights and see the same mini-batches.
    """
    text = repr((seed, *labels)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def generator(seed: int, *labels: object, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator for the stream called ``labels``. What it draws depends on its kind of device, so
    everything that a CPU and a GPU run must share comes from the CPU."""
    return torch.Generator(device).manual_seed(derive_seed(seed, *labels))


def kept_streams(device: torch.device) -> AbstractContextManager[None]:
    """Return a context that leaves torch's global random streams, the CPU's and that of ``device``, as they were."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])
