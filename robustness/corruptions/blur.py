"""Blur: defocus, glass, motion, zoom (constants and quirks of CIFAR-10-C)."""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from robustness.corruptions.motion import motion_blur_images
from robustness.corruptions.pixels import Floats, Images, axis_operator, to_bytes, unit
from robustness.corruptions.streams import Streams

DEFOCUS_RADIUS_ALIAS = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))
GLASS_SIGMA_ITERATIONS = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))
MOTION_RADIUS_SIGMA = ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))
ZOOM_LIMIT = (1.06, 1.11, 1.16, 1.21, 1.26)


def defocus_blur(images: Images, severity: int, streams: Streams) -> Images:
    """Convolve with a disk whose rim is softened by a small gaussian."""
    kernel = _disk(*DEFOCUS_RADIUS_ALIAS[severity - 1])
    # Per image: OpenCV filters a kernel this large by a Fourier transform, and the truncation to uint8 keeps its
    # rounding. Another order of summation would not be bit-identical to the official file.
    return to_bytes(np.stack([cv2.filter2D(image, -1, kernel) for image in unit(images)]))


def _disk(radius: float, alias_blur: float) -> NDArray[np.float32]:
    along = np.arange(-8, 9)
    disk = (along[:, None] ** 2 + along**2 <= radius**2).astype(np.float32)
    disk /= disk.sum()
    return np.asarray(cv2.GaussianBlur(disk, ksize=(3, 3), sigmaX=alias_blur), dtype=np.float32)


def glass_blur(images: Images, severity: int, streams: Streams) -> Images:
    """Blur, displace pixels at random to a neighbour's value, blur again.

    The original walks over the pixels from the bottom right and "swaps" each with a neighbour up or left of it. Its
    swap works on views, so it only copies the neighbour; and the neighbour, coming later in the walk, is still
    untouched. One round is therefore one gather.
    """
    sigma, iterations = GLASS_SIGMA_ITERATIONS[severity - 1]
    count, height, width, _ = images.shape
    shifts = np.stack([s.integers(-1, 1, (iterations, height - 2, width - 2, 2), dtype=np.int8) for s in streams])
    shuffled = to_bytes(gaussian_blur_images(images, sigma))
    number = np.arange(count)[:, None, None]
    row, column = np.arange(2, height)[:, None], np.arange(2, width)
    for shift in np.moveaxis(shifts, 1, 0):
        shuffled[:, 2:, 2:] = shuffled[number, row + shift[..., 0], column + shift[..., 1]]
    return to_bytes(gaussian_blur_images(shuffled, sigma))


def gaussian_blur_images(images: Images, sigma: float) -> Floats:
    """Return the images (N, H, W, C) in [0, 1], blurred by a normal density of ``sigma`` pixels, edges continued."""
    return ndimage.gaussian_filter(unit(images), sigma, mode="nearest", axes=(1, 2))


def motion_blur(images: Images, severity: int, streams: Streams) -> Images:
    """Smear along a direction within 45 degrees of the horizontal."""
    radius, sigma = MOTION_RADIUS_SIGMA[severity - 1]
    return motion_blur_images(images, radius, sigma, np.array([s.uniform(-45, 45) for s in streams]))


def zoom_blur(images: Images, severity: int, streams: Streams) -> Images:
    """Average the image with its magnifications by 1, 1.01, ... below the limit (the unmagnified one counts twice)."""
    count, height, width, channels = images.shape
    factors = np.arange(1, ZOOM_LIMIT[severity - 1], 0.01)
    original = unit(images).astype(np.float32)
    pixels = original.reshape(count, height * width, channels).transpose(1, 0, 2).reshape(height * width, -1)
    exact = pixels.astype(np.float64)
    total = np.zeros_like(pixels)
    for factor in factors:
        total += (_zoom_pixels(height, width, float(factor)) @ exact).astype(np.float32)
    mean = (pixels + total) / (len(factors) + 1)
    return to_bytes(mean).reshape(height * width, count, channels).transpose(1, 0, 2).reshape(images.shape)


@lru_cache(maxsize=64)
def _zoom_pixels(height: int, width: int, factor: float) -> sparse.csr_array:
    """Return the zoom of a flattened image as an (H W, H W) matrix with at most four weights a row."""
    rows, columns = axis_operator(height, "zoom", factor), axis_operator(width, "zoom", factor)
    return sparse.csr_array(sparse.kron(sparse.csr_array(rows), sparse.csr_array(columns)))
