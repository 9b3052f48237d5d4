"""Which corruptions there are: CIFAR-10-C's fifteen, and a small set of our own for images of about 8 x 8."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import numpy as np

from alignscape.errors import InputError
from robustness.corruptions import blur, digital, noise, small, weather
from robustness.corruptions.frost import FrostTextures
from robustness.corruptions.pixels import Images
from robustness.corruptions.streams import Streams, image_streams

SEVERITIES = (1, 2, 3, 4, 5)


class Distortion(Protocol):
    """Distort images (N, H, W, C) uint8 at a severity of 1 ... 5, with one random stream per image."""

    def __call__(self, images: Images, severity: int, streams: Streams) -> Images: ...


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """A named distortion.

    Attributes:
        name: what files and tables call it.
        category: ``noise``, ``blur``, ``weather``, ``digital``, or another.
        distort: ``distort(images, severity, streams)``: images (N, H, W, C) uint8, severity 1 ... 5, one random stream
            an image; returns images of the same shape.
        random: whether it draws.
        label: provenance of a file made with it whose bytes are not known to be the official ones: ``regenerated``
            (the same definition), ``approximate`` or ``own definition``.

    Example:
        >>> import numpy as np
        >>> from robustness import Corruption, Definition
        >>> def darken(images, severity, streams):
        ...     return images // (severity + 1)
        >>> dark = Corruption(name="dark", category="mine", distort=darken, random=False, label="own definition")
        >>> mine = Definition(title="mine", corruptions={"dark": dark})
        >>> mine.corrupt(np.full((1, 2, 2, 1), 120, dtype=np.uint8), "dark", 2, seed=0).ravel()
        array([40, 40, 40, 40], dtype=uint8)
    """

    name: str
    category: str
    distort: Distortion
    random: bool
    label: str = "regenerated"


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A set of corruptions.

    Attributes:
        title: what the record of a set calls it.
        corruptions: by name.
        image_shape: (H, W, C) that its constants are meant for; None for any.
        details: what else its output depends on, for the record.

    Example:
        >>> import numpy as np
        >>> from robustness import small_images
        >>> images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), dtype=np.uint8)
        >>> noisy = small_images().corrupt(images, "gaussian_noise", 3, seed=0)
        >>> alone = small_images().corrupt(images[1:], "gaussian_noise", 3, seed=0, first=1)
        >>> bool((noisy[1:] == alone).all())  # an image's draws are its own
        True
    """

    title: str
    corruptions: Mapping[str, Corruption]
    image_shape: tuple[int, int, int] | None = None
    details: Mapping[str, str] = field(default_factory=dict)

    def corruption(self, name: str) -> Corruption:
        """Return the corruption called ``name``.

        Raises:
            InputError: there is none; the message lists those there are.
        """
        if name not in self.corruptions:
            raise InputError(f"unknown corruption {name!r}; {self.title} has: {', '.join(self.corruptions)}")
        return self.corruptions[name]

    def corrupt(self, images: Images, name: str, severity: int, *, seed: int, first: int = 0) -> Images:
        """Return corrupted copies of ``images`` (N, H, W, C) uint8.

        Args:
            name: of the corruption.
            severity: 1 (mild) ... 5.
            seed: of the random draws, which belong to (seed, name, severity, image number).
            first: number of the first image in the set that ``images`` is a part of.

        Raises:
            InputError: unknown corruption, severity out of range, or images that the definition is not for.
        """
        corruption = self.corruption(name)
        if severity not in SEVERITIES:
            raise InputError(f"severity {severity} is not one of 1 ... {SEVERITIES[-1]}")
        if images.dtype != "uint8" or images.ndim != 4:
            raise InputError(f"images are {images.dtype} {images.shape}; corruptions need uint8 (N, H, W, C)")
        if self.image_shape is not None and images.shape[1:] != self.image_shape:
            raise InputError(f"{self.title} is defined for {self.image_shape} images, these are {images.shape[1:]}")
        streams = image_streams(seed, name, severity, first, len(images))
        # Contiguous: NumPy sums in memory order, and a mean may differ in its last bit between layouts.
        return corruption.distort(np.ascontiguousarray(images), severity, streams)


def cifar_c(textures: FrostTextures) -> Definition:
    """Return the fifteen corruptions of CIFAR-10-C and CIFAR-100-C (Hendrycks & Dietterich 2019), for 32 x 32 RGB.

    Args:
        textures: what frost cuts its crystals from (see :func:`robustness.load_frost_textures`).

    Example:
        >>> import warnings
        >>> from robustness import cifar_c, load_frost_textures
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")  # says that frost uses a stand-in, where it does
        ...     definition = cifar_c(load_frost_textures())
        >>> len(definition.corruptions), definition.image_shape, definition.corruption("fog").category
        (15, (32, 32, 3), 'weather')
    """
    frost = partial(weather.frost, textures=textures.images)
    listed = _listed(
        ("gaussian_noise", "noise", noise.gaussian_noise, True),
        ("shot_noise", "noise", noise.shot_noise, True),
        ("impulse_noise", "noise", noise.impulse_noise, True),
        ("defocus_blur", "blur", blur.defocus_blur, False),
        ("glass_blur", "blur", blur.glass_blur, True),
        ("motion_blur", "blur", blur.motion_blur, True),
        ("zoom_blur", "blur", blur.zoom_blur, False),
        ("snow", "weather", weather.snow, True),
        ("frost", "weather", frost, True),
        ("fog", "weather", weather.fog, True),
        ("brightness", "weather", weather.brightness, False),
        ("contrast", "digital", digital.contrast, False),
        ("elastic_transform", "digital", digital.elastic_transform, True),
        ("pixelate", "digital", digital.pixelate, False),
        ("jpeg_compression", "digital", digital.jpeg_compression, False),
        label="regenerated",
    )
    if not textures.official:
        listed["frost"] = replace(listed["frost"], label="approximate")
    return Definition(
        title="CIFAR-C",
        corruptions=listed,
        image_shape=(32, 32, 3),
        details={"frost_textures": textures.source, "frost_textures_sha256": textures.digest()},
    )


def small_images() -> Definition:
    """Return four corruptions whose constants are our own, for images of about 8 x 8. This is *not* CIFAR-10-C.

    Example:
        >>> from robustness import small_images
        >>> list(small_images().corruptions)
        ['gaussian_noise', 'gaussian_blur', 'contrast', 'pixelate']
    """
    listed = _listed(
        ("gaussian_noise", "noise", small.gaussian_noise, True),
        ("gaussian_blur", "blur", small.gaussian_blur, False),
        ("contrast", "digital", small.contrast, False),
        ("pixelate", "digital", small.pixelate, False),
        label="own definition",
    )
    return Definition(title="small-image corruptions (own definition)", corruptions=listed)


def _listed(*rows: tuple[str, str, Distortion, bool], label: str) -> dict[str, Corruption]:
    """Return the corruptions of (name, category, what distorts, whether it draws), by name."""
    return {
        name: Corruption(name=name, category=category, distort=distort, random=random, label=label)
        for name, category, distort, random in rows
    }
