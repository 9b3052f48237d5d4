"""Noise, blur, contrast and pixelation for images of about 8 x 8, with constants of our own.

CIFAR-10-C's constants do next to nothing to a digit of 8 x 8 pixels: a blur of half a pixel, noise far below its ink.
These are chosen so that severity 1 is seen and severity 5 can still be read.
"""

from robustness.corruptions.blur import gaussian_blur_images
from robustness.corruptions.digital import pixelate_images, scale_contrast
from robustness.corruptions.noise import add_gaussian_noise
from robustness.corruptions.pixels import Images, to_bytes
from robustness.corruptions.streams import Streams

NOISE_SIGMA = (0.1, 0.2, 0.3, 0.4, 0.5)
BLUR_SIGMA = (0.4, 0.6, 0.8, 1.0, 1.25)  # pixels
CONTRAST_FACTOR = (0.75, 0.5, 0.4, 0.3, 0.15)
PIXELATE_SCALE = (0.875, 0.75, 0.625, 0.5, 0.375)


def gaussian_noise(images: Images, severity: int, streams: Streams) -> Images:
    """Add normal noise."""
    return add_gaussian_noise(images, NOISE_SIGMA[severity - 1], streams)


def gaussian_blur(images: Images, severity: int, streams: Streams) -> Images:
    """Convolve with a normal density."""
    return to_bytes(gaussian_blur_images(images, BLUR_SIGMA[severity - 1]))


def contrast(images: Images, severity: int, streams: Streams) -> Images:
    """Pull every pixel towards its channel's mean over the image."""
    return scale_contrast(images, CONTRAST_FACTOR[severity - 1])


def pixelate(images: Images, severity: int, streams: Streams) -> Images:
    """Shrink by averaging boxes of pixels, then magnify the boxes again."""
    height, width = images.shape[1:3]
    scale = PIXELATE_SCALE[severity - 1]
    return pixelate_images(images, max(1, int(height * scale)), max(1, int(width * scale)))
