"""Digital: contrast, elastic transform, pixelate, JPEG compression (constants and quirks of CIFAR-10-C)."""

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robustness.corruptions.jpeg import jpeg_round_trip
from robustness.corruptions.pixels import Floats, Images, axis_operator, to_bytes, unit
from robustness.corruptions.streams import Streams

CONTRAST_FACTOR = (0.75, 0.5, 0.4, 0.3, 0.15)
ELASTIC_ALPHA_SIGMA_AFFINE = (
    (0.0, 0.0, 0.08),
    (0.05, 0.2, 0.07),
    (0.08, 0.06, 0.06),
    (0.1, 0.04, 0.05),
    (0.1, 0.03, 0.03),
)
PIXELATE_SCALE = (0.95, 0.9, 0.85, 0.75, 0.65)
JPEG_QUALITY = (80, 65, 58, 50, 40)


def contrast(images: Images, severity: int, streams: Streams) -> Images:
    """Pull every pixel towards its channel's mean over the image."""
    return scale_contrast(images, CONTRAST_FACTOR[severity - 1])


def scale_contrast(images: Images, factor: float) -> Images:
    """Return mean + factor (x - mean), with the mean over the pixels of each channel of each image."""
    pixels = unit(images)
    mean = pixels.mean(axis=(1, 2), keepdims=True)
    return to_bytes((pixels - mean) * factor + mean)


def elastic_transform(images: Images, severity: int, streams: Streams) -> Images:
    """Distort by a random affine map, then by a smooth random field of displacements.

    The constants are shares of the image size: the field's amplitude alpha, its smoothness sigma, and the reach of
    the shifts of the affine map's three corner points.
    """
    size = images.shape[1]
    alpha, sigma, affine = (share * size for share in ELASTIC_ALPHA_SIGMA_AFFINE[severity - 1])
    shifts, fields = [], []
    for stream in streams:
        shifts.append(stream.uniform(-affine, affine, (3, 2)))
        fields.append(stream.uniform(-1, 1, (2, *images.shape[1:3])))
    pixels = images.astype(np.float32) / np.float32(255)
    moved = np.stack([_shift_corners(x, s.astype(np.float32)) for x, s in zip(pixels, shifts, strict=True)])
    if alpha == 0:  # severity 1: the affine map alone
        return to_bytes(moved)
    rows, columns = (axis_operator(n, "gaussian", sigma) for n in images.shape[1:3])
    displacement = (rows @ np.stack(fields) @ columns.T * alpha).astype(np.float32)
    return to_bytes(_displace(moved, displacement[:, 1], displacement[:, 0]))


def _shift_corners(image: Floats, shift: NDArray[np.float32]) -> Floats:
    """Apply the affine map that moves three corners of the middle square by ``shift`` (3, 2) pixels (x, y)."""
    centre, half = np.float32(image.shape[0] // 2), np.float32(image.shape[0] // 3)
    low, high = centre - half, centre + half
    corners = np.array([[high, high], [high, low], [low, low]], dtype=np.float32)
    matrix = cv2.getAffineTransform(corners, corners + shift)
    size = (image.shape[1], image.shape[0])
    return np.asarray(cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REFLECT_101), dtype=np.float32)


def _displace(images: Floats, dy: Floats, dx: Floats) -> Floats:
    """Return ``images[n, y + dy, x + dx]`` by linear interpolation; images mirror at their borders, edge repeated."""
    count, height, width, _ = images.shape
    reach = int(np.ceil(max(np.abs(dy).max(), np.abs(dx).max()))) + 1
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    y = np.arange(height, dtype=np.float64)[:, None] + reach + dy
    x = np.arange(width, dtype=np.float64) + reach + dx
    top, left = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
    down, right = (y - top)[..., None], (x - left)[..., None]
    # Flat pixel numbers: one index array per corner is much faster than three.
    stride = padded.shape[2]
    corner = (np.arange(count)[:, None, None] * padded.shape[1] + top) * stride + left
    flat = padded.reshape(-1, images.shape[-1])
    above = flat[corner] * (1 - right) + flat[corner + 1] * right
    below = flat[corner + stride] * (1 - right) + flat[corner + stride + 1] * right
    moved: Floats = above * (1 - down) + below * down
    return moved.astype(np.float32)  # as SciPy returns it: 126.99999 of a flat image is 127 again


def pixelate(images: Images, severity: int, streams: Streams) -> Images:
    """Shrink by averaging boxes of pixels, then magnify the boxes again."""
    height, width = images.shape[1:3]
    scale = PIXELATE_SCALE[severity - 1]
    return pixelate_images(images, int(height * scale), int(width * scale))


def pixelate_images(images: Images, rows: int, columns: int) -> Images:
    """Reduce every image to ``rows`` x ``columns`` boxes and back to its size (Pillow's BOX filter both ways)."""
    height, width = images.shape[1:3]
    coarse = np.empty_like(images)
    for target, image in zip(coarse, images, strict=True):
        small = Image.fromarray(image.squeeze()).resize((columns, rows), Image.Resampling.BOX)
        target[...] = np.asarray(small.resize((width, height), Image.Resampling.BOX)).reshape(target.shape)
    return coarse


def jpeg_compression(images: Images, severity: int, streams: Streams) -> Images:
    """Encode as JPEG and decode again, as the library did with which the official file was made."""
    return jpeg_round_trip(images, JPEG_QUALITY[severity - 1])
