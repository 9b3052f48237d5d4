"""Textures for frost: the official five from a folder or an installed package, or a stand-in made on the spot."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
from scipy import ndimage

from alignscape.errors import InputError
from robustness.corruptions.pixels import Images

# make_cifar_c.py lists a sixth file and never draws it: its index is randint(5).
TEXTURE_MD5 = {
    "frost1.png": "6ead634ace1f366d77e87078b465863c",
    "frost2.png": "98f0d2b1d74a048d3bc9c7ecfd886939",
    "frost3.png": "b3ed8eb147824261888e730f916c0d8b",
    "frost4.jpg": "d70b9d6aa0b1fe7bd8133b113787e078",
    "frost5.jpg": "50984ae2c871b7df2c28f1d71ca460a0",
}
SCALE = 0.2  # from the size on disk to what 32 x 32 cuts are taken from


@dataclass(frozen=True, kw_only=True)
class FrostTextures:
    """Five scaled textures, and whether they are the official ones; made by :func:`load_frost_textures`.

    Attributes:
        images: each (h, w, 3) RGB, uint8.
        official: whether their MD5 are those of the official files.
        source: ``folder``, ``imagecorruptions`` or ``stand-in``.

    Example:
        >>> import numpy as np
        >>> from robustness import FrostTextures
        >>> mine = FrostTextures(images=(np.zeros((70, 110, 3), dtype=np.uint8),) * 5, official=False, source="mine")
        >>> len(mine.digest())
        64
    """

    images: tuple[Images, ...]
    official: bool
    source: str

    def digest(self) -> str:
        """Return the SHA-256 of shapes and pixels."""
        state = hashlib.sha256()
        for image in self.images:
            state.update(repr(image.shape).encode() + image.tobytes())
        return state.hexdigest()


def load_frost_textures(folder: str | Path | None = None) -> FrostTextures:
    """Return the textures in ``folder``; without one, those of an installed ``imagecorruptions``, else a stand-in.

    What is made with the stand-in, or with other pictures of these names, is labelled ``approximate``; a warning says
    so.

    Args:
        folder: that holds ``frost1.png`` ... ``frost5.jpg`` of the authors' code.

    Raises:
        InputError: the folder lacks one of the five files (named), or one is no picture or too small.

    Example:
        >>> import warnings
        >>> from robustness import load_frost_textures
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")  # says that frost uses a stand-in, where it does
        ...     textures = load_frost_textures()
        >>> len(textures.images), textures.images[0].shape[2]
        (5, 3)
    """
    if folder is not None:
        return _read([Path(folder) / name for name in TEXTURE_MD5], source="folder")
    if (installed := _installed_files()) is not None:
        return _read(installed, source="imagecorruptions")
    warnings.warn(
        "no frost textures: frost uses a stand-in and is labelled approximate; "
        "give their folder (--frost-dir) or install imagecorruptions for the official ones",
        stacklevel=2,
    )
    return FrostTextures(images=tuple(_stand_in(number) for number in range(5)), official=False, source="stand-in")


def _read(paths: Sequence[Path], source: str) -> FrostTextures:
    if missing := [path.name for path in paths if not path.is_file()]:
        raise InputError(f"frost textures are missing in {paths[0].parent}: {', '.join(missing)}")
    foreign = [path.name for path in paths if _md5(path) != TEXTURE_MD5[path.name]]
    if foreign:
        warnings.warn(
            f"{', '.join(foreign)} in {paths[0].parent} are not the official frost textures: "
            "frost is labelled approximate",
            stacklevel=3,
        )
    images = []
    for path in paths:
        picture = cv2.imread(str(path))
        if picture is None:
            raise InputError(f"{path} cannot be read as a picture")
        scaled = np.asarray(cv2.resize(picture, (0, 0), fx=SCALE, fy=SCALE), dtype=np.uint8)
        images.append(np.ascontiguousarray(scaled[..., ::-1]))  # BGR to RGB
    return FrostTextures(images=tuple(images), official=not foreign, source=source)


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _installed_files() -> list[Path] | None:
    """Return the files inside an installed ``imagecorruptions``, without importing it (that needs pkg_resources)."""
    try:
        files = metadata.files("imagecorruptions") or []
    except metadata.PackageNotFoundError:
        return None
    found = {Path(str(file)).name: Path(str(file.locate())) for file in files}
    return [found[name] for name in TEXTURE_MD5] if all(name in found for name in TEXTURE_MD5) else None


def _stand_in(number: int, height: int = 70, width: int = 110) -> Images:
    """Return a texture of ice-blue ridges whose mean and spread are near those of official texture ``number``."""
    mean, deviation = ((131, 20), (207, 22), (207, 22), (152, 29), (123, 43))[number]
    noise = np.random.default_rng(number)
    ridges = np.zeros((height, width))
    for octave in range(4):
        smooth = ndimage.gaussian_filter(noise.standard_normal((height, width)), 8 / 2**octave, mode="wrap")
        ridges -= np.abs(smooth / smooth.std()) / 2**octave  # an absolute value is ridged where the noise crosses zero
    level = mean + deviation * (ridges - ridges.mean()) / ridges.std()
    tint = np.array([-12.0, 2.0, 10.0])
    return np.clip(level[..., None] + tint, 0, 255).astype(np.uint8)
