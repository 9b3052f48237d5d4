"""ImageMagick's motion blur, which CIFAR-10-C uses for motion blur and for the streaks of snow."""

import numpy as np
from numpy.typing import NDArray

from robustness.corruptions.pixels import Images


def motion_kernel(
    radius: float, sigma: float, angle: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the weights (K,) and the pixel offsets (N, K, 2) as (dy, dx) of the blur along ``angle`` (N,) degrees.

    ImageMagick's ``MotionBlurImage`` averages K = 2 ceil(radius) + 1 pixels on *one* side of each pixel, along a ray
    rounded to whole pixels (half rounds down), with the positive half of a normal density as weights.
    """
    taps = np.arange(2 * int(np.ceil(radius)) + 1)
    weights = np.exp(-(taps**2) / (2.0 * sigma**2))
    radians = np.deg2rad(angle)[:, None]
    offsets = np.stack([np.ceil(taps * np.sin(radians) - 0.5), np.ceil(taps * np.cos(radians) - 0.5)], axis=-1)
    return weights / weights.sum(), offsets.astype(np.intp)


def motion_blur_images(images: Images, radius: float, sigma: float, angle: NDArray[np.float64]) -> Images:
    """Blur every image (N, H, W, C) along its own ``angle`` (N,) in degrees; edge pixels continue outside."""
    weights, offsets = motion_kernel(radius, sigma, angle)
    height, width = images.shape[1:3]
    reach = len(weights) - 1
    border = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    padded = np.pad(images, border, mode="edge")
    blurred = np.empty_like(images)
    # Rounded to pixels, a quarter turn has only some hundred distinct rays: images that share one go together.
    rays, ray_of = np.unique(offsets.reshape(len(images), -1), axis=0, return_inverse=True)
    for number, ray in enumerate(rays.reshape(len(rays), -1, 2)):
        members = np.flatnonzero(ray_of == number)
        source = padded[members].astype(np.float32)
        total = np.zeros((len(members), *images.shape[1:]), dtype=np.float32)
        for weight, (dy, dx) in zip(weights.astype(np.float32), ray + reach, strict=True):
            total += weight * source[:, dy : dy + height, dx : dx + width]
        blurred[members] = np.floor(total + np.float32(0.5))  # to the nearest level, as ImageMagick's quantum
    return blurred
