"""Noise: gaussian, shot, impulse (constants of CIFAR-10-C, Hendrycks & Dietterich 2019)."""

import numpy as np

from robustness.corruptions.pixels import Images, to_bytes, unit
from robustness.corruptions.streams import Streams

GAUSSIAN_SIGMA = (0.04, 0.06, 0.08, 0.09, 0.10)
SHOT_RATE = (500, 250, 100, 75, 50)
IMPULSE_AMOUNT = (0.01, 0.02, 0.03, 0.05, 0.07)


def gaussian_noise(images: Images, severity: int, streams: Streams) -> Images:
    """Add independent normal noise of standard deviation sigma ([0, 1] pixels)."""
    return add_gaussian_noise(images, GAUSSIAN_SIGMA[severity - 1], streams)


def add_gaussian_noise(images: Images, sigma: float, streams: Streams) -> Images:
    """Add N(0, sigma^2) to every channel of every pixel; ``sigma`` in [0, 1] pixel units."""
    noise = np.stack([stream.standard_normal(images.shape[1:]) for stream in streams])
    noise *= sigma
    noise += unit(images)
    return to_bytes(noise)


def shot_noise(images: Images, severity: int, streams: Streams) -> Images:
    """Replace x by Poisson(x rate) / rate: the counting noise of light at ``rate`` photons for full white."""
    rate = SHOT_RATE[severity - 1]
    counts = np.stack([stream.poisson(mean) for stream, mean in zip(streams, unit(images) * rate, strict=True)])
    return to_bytes(counts / rate)


def impulse_noise(images: Images, severity: int, streams: Streams) -> Images:
    """Set a share ``amount`` of all values to white or black, with equal chance (salt and pepper)."""
    amount = IMPULSE_AMOUNT[severity - 1]
    draw = np.stack([stream.random(images.shape[1:]) for stream in streams])
    # One uniform draw decides both: below amount/2 is salt, from there to amount pepper.
    noisy = np.where(draw < amount / 2, np.uint8(255), images)
    return np.where((draw >= amount / 2) & (draw < amount), np.uint8(0), noisy)
