"""CIFAR-10-C's corruptions once more: one image at a time, in plain loops, straight from the published definition.

Each takes an image (H, W, 3) uint8, the severity and the image's random stream, and draws in the order in which the
package draws. Nothing is shared with the package, constants included.
"""

import math
from io import BytesIO

import cv2
import numpy as np
from PIL import Image
from scipy.fft import dctn, idctn
from scipy.ndimage import map_coordinates, zoom
from skimage.color import hsv2rgb, rgb2hsv
from skimage.filters import gaussian

FROST: list[np.ndarray] = []  # textures, set by the tests


def truncated(values):
    return np.uint8(np.clip(values, 0, 1) * 255)


def gaussian_noise(image, severity, stream):
    sigma = [0.04, 0.06, 0.08, 0.09, 0.10][severity - 1]
    return truncated(image / 255 + sigma * stream.standard_normal(image.shape))


def shot_noise(image, severity, stream):
    rate = [500, 250, 100, 75, 50][severity - 1]
    return truncated(stream.poisson(image / 255 * rate) / rate)


def impulse_noise(image, severity, stream):
    amount = [0.01, 0.02, 0.03, 0.05, 0.07][severity - 1]
    noisy = image.copy()
    for place, u in np.ndenumerate(stream.random(image.shape)):
        if u < amount:
            noisy[place] = 255 if u < amount / 2 else 0
    return noisy


def defocus_blur(image, severity, stream):
    radius, alias = [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)][severity - 1]
    x, y = np.meshgrid(np.arange(-8, 9), np.arange(-8, 9))
    disk = np.array(x**2 + y**2 <= radius**2, dtype=np.float32)
    kernel = cv2.GaussianBlur(disk / disk.sum(), ksize=(3, 3), sigmaX=alias)
    return truncated(np.dstack([cv2.filter2D(image[..., c] / 255.0, -1, kernel) for c in range(3)]))


def glass_blur(image, severity, stream):
    """With the original's swap: of views, so that it copies."""
    sigma, rounds = [(0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2)][severity - 1]
    height, width, _ = image.shape
    x = np.uint8(gaussian(image / 255.0, sigma=sigma, channel_axis=-1) * 255)
    draws = stream.integers(-1, 1, (rounds, height - 2, width - 2, 2), dtype=np.int8)
    for r in range(rounds):
        for h in range(height - 1, 1, -1):
            for w in range(width - 1, 1, -1):
                dy, dx = draws[r, h - 2, w - 2]
                x[h, w], x[h + dy, w + dx] = x[h + dy, w + dx], x[h, w]
    return truncated(gaussian(x / 255.0, sigma=sigma, channel_axis=-1))


def imagemagick_motion_blur(image, radius, sigma, angle):
    """One-sided normal weights along a ray of whole pixels; pixels outside are those of the edge."""
    height, width, _ = image.shape
    taps = 2 * math.ceil(radius) + 1
    weights = [math.exp(-i * i / (2 * sigma * sigma)) for i in range(taps)]
    blurred = np.zeros(image.shape)
    for y in range(height):
        for x in range(width):
            for i, weight in enumerate(weights):
                dx = math.ceil(i * math.cos(math.radians(angle)) - 0.5)
                dy = math.ceil(i * math.sin(math.radians(angle)) - 0.5)
                source = image[min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)]
                blurred[y, x] += weight / sum(weights) * source
    return np.uint8(np.floor(blurred + 0.5))


def motion_blur(image, severity, stream):
    radius, sigma = [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)][severity - 1]
    return imagemagick_motion_blur(image, radius, sigma, stream.uniform(-45, 45))


def clipped_zoom(image, factor):
    size = image.shape[0]
    crop = math.ceil(size / factor)
    top = (size - crop) // 2
    large = zoom(image[top : top + crop, top : top + crop], (factor, factor, 1), order=1)
    trim = (large.shape[0] - size) // 2
    return large[trim : trim + size, trim : trim + size]


def zoom_blur(image, severity, stream):
    factors = np.arange(1, [1.06, 1.11, 1.16, 1.21, 1.26][severity - 1], 0.01)
    x = (image / 255.0).astype(np.float32)
    total = np.zeros_like(x)
    for factor in factors:
        total += clipped_zoom(x, factor)
    return truncated((x + total) / (len(factors) + 1))


def snow(image, severity, stream):
    mean, deviation, factor, threshold, radius, sigma, weight = [
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ][severity - 1]
    layer = clipped_zoom(stream.normal(mean, deviation, image.shape[:2])[..., None], factor)
    layer[layer < threshold] = 0
    layer = imagemagick_motion_blur(truncated(layer), radius, sigma, stream.uniform(-135, -45)) / 255.0
    x = image.astype(np.float32) / 255
    grey = cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)
    x = weight * x + (1 - weight) * np.maximum(x, grey[..., None] * 1.5 + 0.5)
    return truncated(x + layer + np.rot90(layer, k=2))


def frost(image, severity, stream):
    of_image, of_frost = [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)][severity - 1]
    texture = FROST[stream.integers(5)]
    y = stream.integers(0, texture.shape[0] - 32)
    x = stream.integers(0, texture.shape[1] - 32)
    return np.uint8(np.clip(of_image * image + of_frost * texture[y : y + 32, x : x + 32], 0, 255))


def diamond_square(draws, size, decay):
    """The midpoint of every square, then of every diamond's sides, displaced; the map is a torus."""
    heights, draws = np.zeros((size, size)), iter(draws)
    step, wobble = size, 100.0
    while step >= 2:
        half = step // 2
        grid = [(y, x) for y in range(0, size, step) for x in range(0, size, step)]

        def displace(y, x, neighbours, wobble=wobble):
            mean = sum(heights[a % size, b % size] for a, b in neighbours) / 4
            heights[y, x] = mean + wobble**2 * next(draws)

        for y, x in grid:
            displace(y + half, x + half, [(y, x), (y + step, x), (y, x + step), (y + step, x + step)])
        for y, x in grid:  # midpoints of horizontal sides
            displace(y, x + half, [(y + half, x + half), (y - half, x + half), (y, x), (y, x + step)])
        for y, x in grid:  # midpoints of vertical sides
            displace(y + half, x, [(y + half, x + half), (y + half, x - half), (y, x), (y + step, x)])
        step, wobble = half, wobble / decay
    return (heights - heights.min()) / (heights.max() - heights.min())


def fog(image, severity, stream):
    scale, decay = [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)][severity - 1]
    x = image / 255.0
    foggy = x + scale * diamond_square(stream.uniform(-1, 1, 32 * 32 - 1), 32, decay)[..., None]
    return truncated(foggy * x.max() / (x.max() + scale))


def brightness(image, severity, stream):
    x = rgb2hsv(image / 255.0)
    x[..., 2] = np.clip(x[..., 2] + [0.05, 0.1, 0.15, 0.2, 0.3][severity - 1], 0, 1)
    return truncated(hsv2rgb(x))


def contrast(image, severity, stream):
    x = image / 255.0
    mean = np.mean(x, axis=(0, 1), keepdims=True)
    return truncated((x - mean) * [0.75, 0.5, 0.4, 0.3, 0.15][severity - 1] + mean)


def elastic_transform(image, severity, stream):
    alpha, sigma, affine = [
        (0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03),
    ][severity - 1]  # fmt: skip
    x = image.astype(np.float32) / 255
    corners = np.float32([[26, 26], [26, 6], [6, 6]])
    shift = stream.uniform(-affine * 32, affine * 32, (3, 2)).astype(np.float32)
    matrix = cv2.getAffineTransform(corners, corners + shift)
    x = cv2.warpAffine(x, matrix, (32, 32), borderMode=cv2.BORDER_REFLECT_101)
    fields = stream.uniform(-1, 1, (2, 32, 32))
    dx, dy = (
        (gaussian(field, sigma * 32, mode="reflect", truncate=3) * alpha * 32).astype(np.float32) for field in fields
    )
    rows, columns = np.meshgrid(np.arange(32), np.arange(32), indexing="ij")
    where = [rows + dy, columns + dx]
    moved = np.dstack([map_coordinates(x[..., c], where, order=1, mode="reflect") for c in range(3)])
    return truncated(moved)


def pixelate(image, severity, stream):
    small = int(32 * [0.95, 0.9, 0.85, 0.75, 0.65][severity - 1])
    picture = Image.fromarray(image).resize((small, small), Image.Resampling.BOX)
    return np.asarray(picture.resize((32, 32), Image.Resampling.BOX))


def jpeg_compression(image, severity, stream):
    """Of whatever library Pillow was built on: the official one only for grey pictures or IJG libjpeg 9."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=[80, 65, 58, 50, 40][severity - 1])
    return np.asarray(Image.open(buffer))


def jpeg_in_floats(image, quality_50_tables, percent):
    """The standard's round trip without fixed point; colour halved and doubled by keeping 8 of 16 frequencies."""
    luma_table, chroma_table = (
        np.clip(np.floor((np.array(t) * percent + 50) / 100), 1, 255) for t in quality_50_tables
    )
    matrix = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    planes = np.round(image @ matrix.T + [0, 128, 128]) - 128
    for plane, size, table in ((0, 8, luma_table), (1, 16, chroma_table), (2, 16, chroma_table)):
        for y in range(0, 32, size):
            for x in range(0, 32, size):
                block = planes[y : y + size, x : x + size, plane]
                kept = dctn(block, norm="ortho")[:8, :8] * 8 / size
                padded = np.zeros((size, size))
                padded[:8, :8] = np.round(kept / table) * table * size / 8
                planes[y : y + size, x : x + size, plane] = np.round(idctn(padded, norm="ortho"))
    planes = np.clip(planes, -128, 127)
    planes[..., 0] += 128
    return np.clip(np.round(planes @ np.linalg.inv(matrix).T), 0, 255)
