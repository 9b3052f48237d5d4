"""What all corruptions share: pixel scaling, and linear maps of an image axis read off scipy's own filters."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Images = NDArray[np.uint8]
"""(N, H, W, C) pixels 0 ... 255."""
Floats = NDArray[np.floating[Any]]


def unit(images: Images) -> NDArray[np.float64]:
    """Return pixels as float64 in [0, 1]."""
    return images / 255.0


def to_bytes(images: Floats) -> Images:
    """Clip to [0, 1], scale by 255 and *truncate* to uint8, as CIFAR-10-C was made (rounding would not be it)."""
    scaled = np.clip(images, 0, 1)
    scaled *= 255
    return scaled.astype(np.uint8)


@lru_cache(maxsize=64)
def axis_operator(size: int, kind: str, value: float) -> NDArray[np.float64]:
    """Return the (size, size) matrix by which a scipy filter acts on one image axis.

    The filters are linear and separable, so filtering the identity gives the matrix, and a batch is filtered by two
    small products instead of one call per image.

    Args:
        size: pixels along the axis.
        kind: ``"zoom"`` (crop the middle, magnify linearly, trim to ``size``) or ``"gaussian"`` (reflecting borders,
            cut at three sigma).
        value: the zoom factor, or sigma in pixels.
    """
    filters: dict[str, Callable[[], NDArray[np.float64]]] = {
        "zoom": lambda: _zoom_operator(size, value),
        "gaussian": lambda: ndimage.gaussian_filter1d(np.eye(size), value, axis=0, mode="reflect", truncate=3),
    }
    operator = filters[kind]()
    operator.setflags(write=False)
    return operator


def _zoom_operator(size: int, factor: float) -> NDArray[np.float64]:
    crop = int(np.ceil(size / factor))
    top = (size - crop) // 2
    magnified = ndimage.zoom(np.eye(crop), (factor, 1), order=1)
    trim = (len(magnified) - size) // 2
    operator = np.zeros((size, size))
    operator[:, top : top + crop] = magnified[trim : trim + size]
    return operator
