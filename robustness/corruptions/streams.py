"""Random streams, one for every (seed, corruption, severity, image)."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import numpy as np

Streams: TypeAlias = Iterable[np.random.Generator]
"""One generator per image of a batch, in the batch's order."""


def image_streams(seed: int, corruption: str, severity: int, first: int, count: int) -> Iterator[np.random.Generator]:
    """Yield a generator for each of the images ``first ... first + count - 1`` of a set.

    Philox is counter based (Salmon et al. 2011): the key comes from seed, corruption and severity, the image's number
    is the counter's highest word. So an image gets the same draws whatever batch, process or subset it is part of,
    and two streams meet only after 2^192 draws.
    """
    digest = hashlib.sha256(f"{seed}/{corruption}/{severity}".encode()).digest()
    key = np.frombuffer(digest[:16], dtype="<u8")
    for image in range(first, first + count):
        yield np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, image]))
