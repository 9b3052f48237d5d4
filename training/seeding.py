"""Independent, named random streams from one user seed."""

import hashlib

import torch


def derive_seed(seed: int, *labels: object) -> int:
    """Return a 63-bit seed for the stream called ``labels`` under ``seed``.

    Streams with different labels are independent, so drawing more from one (a wider layer, another epoch) never
    shifts another: FA and BP with one seed start from the same forward weights and see the same mini-batches.
    """
    text = repr((seed, *labels)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def generator(seed: int, *labels: object) -> torch.Generator:
    """Return a CPU generator for the stream called ``labels``: the same draws whatever the device of the run."""
    return torch.Generator().manual_seed(derive_seed(seed, *labels))
