"""The JPEG round trip of IJG libjpeg 9, bit for bit, for images whose sides are multiples of 16.

The official CIFAR-10-C was made with a Pillow on IJG libjpeg 9. Today's Pillow wheels carry libjpeg-turbo, which
halves and doubles the colour channels otherwise: pixels differ by one level on average and by up to 80. Entropy
coding loses nothing, so what a round trip does to pixels is colour conversion, cosine transform, division by the
quantisation table, and all of it back. In libjpeg 9 the halving of the colour channels is part of the transform:
16 samples become 8 frequencies, and those become 16 samples again.

The arithmetic is fixed point, with 13 bits for transforms and 16 for colours. Within a pass everything before the
rounding shift is linear, so a pass is a product with an integer matrix; it is taken in float64, which is fast and,
for integers below 2^53, exact.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from robustness.corruptions.pixels import Images

Whole = NDArray[np.float64]
"""Integers, held as float64."""

LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Quantisation of luma at quality 50 (ITU-T T.81, table K.1); rows are vertical frequencies."""
CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *4 * ((99,) * 8,),
)
"""The same for the colour differences (table K.2)."""

# The library's factors are sums of rounded constants, so that some are a unit off the rounded cosine. By (frequency,
# sample); the second half of the samples mirrors the first.
_UNITS_8 = {(1, 2): 1, (3, 1): 1, (3, 2): 1, (5, 0): 1, (5, 1): 1, (5, 2): 1, (6, 1): -1, (6, 2): 1}
_UNITS_16 = {(1, 7): -1, (5, 2): 1, (6, 3): -1, (6, 4): 1, (7, 3): 1, (7, 4): 1}
_UNITS_16_BACK = {
    (2, 2): 1, (2, 5): -1, (3, 6): 1, (5, 2): 1, (5, 5): -1, (6, 0): -1, (6, 7): 1, (7, 3): 1,
}  # fmt: skip


def jpeg_round_trip(images: Images, quality: int) -> Images:
    """Return what images (N, H, W, 3) are after encoding at ``quality`` (1 ... 100) with 4:2:0 colour and decoding.

    Raises:
        ValueError: not RGB, or a side is no multiple of 16.
    """
    if images.shape[3] != 3 or images.shape[1] % 16 or images.shape[2] % 16:
        raise ValueError(f"images are {images.shape[1:]}; the round trip is for RGB with sides of multiples of 16")
    luma, blue, red = _to_luma_and_differences(images)
    luma = _transform_round_trip(luma, 8, quantisation(LUMA, quality))
    table = quantisation(CHROMA, quality)
    return _to_rgb(luma, _transform_round_trip(blue, 16, table), _transform_round_trip(red, 16, table))


def quantisation(table: tuple[tuple[int, ...], ...], quality: int) -> Whole:
    """Return the 8 x 8 divisors at ``quality``, from those at 50."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((np.array(table) * percent + 50) // 100, 1, 255).astype(np.float64)


def _to_luma_and_differences(images: Images) -> tuple[Whole, Whole, Whole]:
    """Return luma, blue difference and red difference (ITU-R BT.601), each (N, H, W), 0 ... 255."""
    red, green, blue = np.moveaxis(images.astype(np.float64), -1, 0)
    half, centre = 2**15, 128 * 2**16 + 2**15 - 1  # the differences round a hair lower
    luma = _fixed(0.299) * red + _fixed(0.587) * green + _fixed(0.114) * blue + half
    to_blue = _fixed(0.5) * blue - _fixed(0.168735892) * red - _fixed(0.331264108) * green + centre
    to_red = _fixed(0.5) * red - _fixed(0.418687589) * green - _fixed(0.081312411) * blue + centre
    return np.floor(luma / 2**16), np.floor(to_blue / 2**16), np.floor(to_red / 2**16)


def _to_rgb(luma: Whole, to_blue: Whole, to_red: Whole) -> Images:
    to_blue, to_red = to_blue - 128, to_red - 128
    red = luma + _round_shift(_fixed(1.402) * to_red, 16)
    green = luma + _round_shift(-_fixed(0.344136286) * to_blue - _fixed(0.714136286) * to_red, 16)
    blue = luma + _round_shift(_fixed(1.772) * to_blue, 16)
    return np.clip(np.stack([red, green, blue], axis=-1), 0, 255).astype(np.uint8)


def _fixed(factor: float) -> int:
    """Return ``factor`` times 2^16, rounded."""
    return int(factor * 2**16 + 0.5)


def _transform_round_trip(plane: Whole, size: int, divisors: Whole) -> Whole:
    """Transform blocks of ``size`` x ``size`` (8 or 16) to 8 x 8 frequencies, quantise, and go back; (N, H, W)."""
    count, height, width = plane.shape
    forward = _factors(size, back=False)
    back = _factors(size, back=True).T
    blocks = plane.reshape(count, height // size, size, width // size, size).swapaxes(2, 3) - 128
    rows = _round_shift(blocks @ forward.T, 11)  # 13 bits of the factors, less 2 kept until the second pass
    frequencies = _round_shift(forward @ rows, 15 if size == 8 else 17)  # 16 points sum up to four times as much
    steps = 8 * divisors  # frequencies are 8 times those of the standard
    levels = np.sign(frequencies) * np.floor((np.abs(frequencies) + np.floor(steps / 2)) / steps)
    columns = _round_shift(back @ (levels * divisors), 11)
    samples = np.clip(_round_shift(columns @ back.T, 18) + 128, 0, 255)
    return samples.swapaxes(2, 3).reshape(plane.shape)


@lru_cache(maxsize=4)
def _factors(size: int, *, back: bool) -> Whole:
    """Return the cosine transform (8 frequencies, ``size`` samples) times 2^13 as the library has it."""
    frequency, sample = np.arange(8)[:, None], np.arange(size)
    cosine = np.sqrt(2) * np.cos((2 * sample + 1) * frequency * np.pi / (2 * size))
    cosine[0] = 1
    factors = np.rint(2**13 * cosine)
    units: Mapping[tuple[int, int], int] = _UNITS_8 if size == 8 else (_UNITS_16_BACK if back else _UNITS_16)
    for (k, n), unit in units.items():
        factors[k, n] += unit
        factors[k, size - 1 - n] += unit if k % 2 == 0 else -unit
    return factors


def _round_shift(values: Whole, bits: int) -> Whole:
    """Return ``values`` / 2^bits, rounded to the nearest integer and halves up."""
    return np.floor((values + 2.0 ** (bits - 1)) / 2.0**bits)
