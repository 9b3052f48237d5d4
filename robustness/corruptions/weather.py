"""Weather: snow, frost, fog, brightness (constants and quirks of CIFAR-10-C)."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import color

from robustness.corruptions.motion import motion_blur_images
from robustness.corruptions.pixels import Floats, Images, axis_operator, to_bytes, unit
from robustness.corruptions.streams import Streams

SNOW = (  # flake mean, flake standard deviation, zoom, threshold, blur radius, blur sigma, weight of the image
    (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
    (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
    (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
    (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
    (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
)
FROST_WEIGHTS = ((1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))  # of the image, of the texture
FOG_SCALE_DECAY = ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))
BRIGHTNESS_SHIFT = (0.05, 0.1, 0.15, 0.2, 0.3)


def snow(images: Images, severity: int, streams: Streams) -> Images:
    """Whiten the image and lay streaks of falling flakes over it, and the same streaks turned by 180 degrees."""
    mean, deviation, zoom, threshold, radius, sigma, weight = SNOW[severity - 1]
    height, width = images.shape[1:3]
    noise, angles = [], []
    for stream in streams:
        noise.append(stream.normal(mean, deviation, (height, width)))
        angles.append(stream.uniform(-135, -45))
    rows, columns = axis_operator(height, "zoom", zoom), axis_operator(width, "zoom", zoom)
    flakes = rows @ np.stack(noise) @ columns.T
    flakes[flakes < threshold] = 0
    streaks = unit(motion_blur_images(to_bytes(flakes)[..., None], radius, sigma, np.array(angles)))
    pixels = images.astype(np.float32) / np.float32(255)
    whitened = np.maximum(pixels, _grey(pixels) * np.float32(1.5) + np.float32(0.5))
    pixels = np.float32(weight) * pixels + np.float32(1 - weight) * whitened
    return to_bytes(pixels + streaks + streaks[:, ::-1, ::-1])


def _grey(pixels: Floats) -> Floats:
    """Return the luminance (N, H, W, 1) of RGB images, by OpenCV's weights."""
    count, height, width, _ = pixels.shape
    tall = cv2.cvtColor(np.ascontiguousarray(pixels).reshape(count * height, width, 3), cv2.COLOR_RGB2GRAY)
    return np.asarray(tall, dtype=pixels.dtype).reshape(count, height, width, 1)


def frost(images: Images, severity: int, streams: Streams, *, textures: Sequence[Images]) -> Images:
    """Add a random cut of one of the frost ``textures``, each (h, w, 3) uint8 RGB, already scaled."""
    of_image, of_frost = FROST_WEIGHTS[severity - 1]
    height, width = images.shape[1:3]
    cuts = np.empty(images.shape, dtype=np.uint8)
    for cut, stream in zip(cuts, streams, strict=True):
        texture = textures[int(stream.integers(len(textures)))]
        top = stream.integers(0, texture.shape[0] - height)
        left = stream.integers(0, texture.shape[1] - width)
        cut[...] = texture[top : top + height, left : left + width]
    return np.clip(of_image * images + of_frost * cuts, 0, 255).astype(np.uint8)


def fog(images: Images, severity: int, streams: Streams) -> Images:
    """Add a fractal cloud and rescale so that the image's brightest value stays what it was."""
    scale, decay = FOG_SCALE_DECAY[severity - 1]
    height, width = images.shape[1:3]
    size = 1 << (max(height, width) - 1).bit_length()
    draws = np.stack([stream.uniform(-1, 1, size * size - 1) for stream in streams])
    pixels = unit(images)
    brightest = pixels.max(axis=(1, 2, 3), keepdims=True)
    pixels += scale * plasma(draws, decay)[:, :height, :width, None]
    return to_bytes(pixels * brightest / (brightest + scale))


def plasma(draws: NDArray[np.float64], decay: float) -> NDArray[np.float64]:
    """Return fractal height maps (N, M, M) in [0, 1] by the diamond-square method on a torus.

    Args:
        draws: uniform on [-1, 1], (N, M^2 - 1) for M a power of two: one for each point but the first.
        decay: by which the displacement (the draw times w^2, w from 100) shrinks from one scale to the next.
    """
    count, drawn = draws.shape
    size = round((drawn + 1) ** 0.5)
    heights = np.zeros((count, size, size))
    used, step, wobble = 0, size, 100.0

    def displaced(sum_of_four: NDArray[np.float64]) -> NDArray[np.float64]:
        nonlocal used
        points = sum_of_four[0].size
        block = draws[:, used : used + points].reshape(sum_of_four.shape)
        used += points
        return sum_of_four / 4 + wobble * wobble * block

    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        below = corners + np.roll(corners, -1, axis=1)
        heights[:, half::step, half::step] = displaced(below + np.roll(below, -1, axis=2))
        centres = heights[:, half::step, half::step]
        vertical = centres + np.roll(centres, 1, axis=1)
        heights[:, ::step, half::step] = displaced(vertical + corners + np.roll(corners, -1, axis=2))
        horizontal = centres + np.roll(centres, 1, axis=2)
        heights[:, half::step, ::step] = displaced(horizontal + corners + np.roll(corners, -1, axis=1))
        step, wobble = half, wobble / decay
    heights -= heights.min(axis=(1, 2), keepdims=True)
    return heights / heights.max(axis=(1, 2), keepdims=True)


def brightness(images: Images, severity: int, streams: Streams) -> Images:
    """Raise the value of every pixel in HSV space."""
    hsv = color.rgb2hsv(unit(images))
    hsv[..., 2] = np.clip(hsv[..., 2] + BRIGHTNESS_SHIFT[severity - 1], 0, 1)
    return to_bytes(color.hsv2rgb(hsv))
