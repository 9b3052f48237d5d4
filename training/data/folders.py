"""``--dataset imagefolder:DIR``: pictures in folders, ``train/CLASS/*`` and ``val/CLASS/*`` (or ``test``), as ImageNet
and Imagenette are laid out and torchvision's ``ImageFolder`` reads them.

Each picture is brought to a square as networks are evaluated on ImageNet: the shorter side resized to 256/224 of it
(bilinear, antialiased), the centre cropped. That is done once: the pixels lie in a file beside the folders that is
mapped into memory. Where the disk does not hold them, pictures are made when they are asked for, by several threads.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from alignscape.errors import InputError
from alignscape.files import atomic_path, write_json
from training.data.checks import checked
from training.data.samples import Dataset, Lazy, Split

if TYPE_CHECKING:
    from PIL.Image import Image

SIZE = 224
RESIZED = 256 / 224  # of the crop: the side that is resized to
SPLITS = {"train": ("train",), "test": ("val", "test", "validation")}
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
CACHE_VARIABLE = "ALIGNSCAPE_CACHE"
_VERSION = 1  # of what is made of a picture
_LEFT_FREE = 10**9  # bytes of the disk
_MANY = 20_000  # pictures whose reading is told of
_AT_ONCE = 512
_THREADS = min(os.cpu_count() or 1, 16)
MARK = 32  # bytes of a digest

# ImageNet's, which pictures are normalised by wherever nobody says otherwise
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def read_folder(root: Path, name: str, size: int | None = None) -> Dataset:
    """Return the data set under ``root`` as squares of ``size`` pixels a side (224 if None).

    Raises:
        InputError: no such folder, split or class; a picture that cannot be read (named).
    """
    size = size or SIZE
    if not root.is_dir():
        raise InputError(f"{name}: no such folder: {root}")
    folders = {split: _folder_of(root, split, name) for split in SPLITS}
    classes = _classes(folders["train"], name)
    splits = {split: _split(root, folder, classes, size, name) for split, folder in folders.items()}
    return checked(name, **splits, mean=MEAN, std=STD, classes=len(classes))


def square(picture: "Image", size: int) -> Tensor:
    """Return the centre of a picture (3, size, size) uint8, in the standard of evaluation."""
    from torchvision.transforms import functional

    resized = functional.resize(picture.convert("RGB"), [round(size * RESIZED)])
    return functional.pil_to_tensor(functional.center_crop(resized, [size]))


def _folder_of(root: Path, split: str, name: str) -> Path:
    for called in SPLITS[split]:
        if (root / called).is_dir():
            return root / called
    raise InputError(f"{name}: {root} has no folder {' or '.join(f'{one}/' for one in SPLITS[split])}")


def _classes(folder: Path, name: str) -> list[str]:
    found = sorted(one.name for one in os.scandir(folder) if one.is_dir())
    if not found:
        raise InputError(f"{name}: {folder} has no folders, one for each class")
    return found


def _split(root: Path, folder: Path, classes: Sequence[str], size: int, name: str) -> Split:
    own = _classes(folder, name)
    if unknown := sorted(set(own) - set(classes)):
        raise InputError(f"{name}: {folder} has the class {unknown[0]}, which the train split has not")
    files, labels = [], []
    for called in own:
        there = _pictures(folder / called)
        if not there:
            raise InputError(f"{name}: {folder / called} holds no picture ({' '.join(ENDINGS)})")
        files += there
        labels += [classes.index(called)] * len(there)
    images, marks = _images(root, folder, files, size, name)
    return Split(images=images, labels=torch.tensor(labels), mapped=isinstance(images, Tensor), marks=marks)


def _pictures(folder: Path) -> list[Path]:
    """Return the pictures under ``folder`` in torchvision's order."""
    walked = sorted(os.walk(folder, followlinks=True))
    found = [Path(where) / file for where, _, files in walked for file in sorted(files)]
    return [file for file in found if file.name.lower().endswith(ENDINGS)]


def _images(root: Path, folder: Path, files: list[Path], size: int, name: str) -> tuple[Tensor | Lazy, Tensor]:
    """Return the pixels of ``files``, from the file that keeps them if it is of these, and the digest of each."""
    stamps = [[os.fspath(file.relative_to(root)), (s := file.stat()).st_size, s.st_mtime_ns] for file in files]
    about = {"version": _VERSION, "size": size, "files": hashlib.sha256(json.dumps(stamps).encode()).hexdigest()}
    pixels = Pictures(files, size, name)
    cache = _cache(root)
    with _alone(cache):
        stem = cache / f"{folder.name}-{size}"
        record, kept, marks = (stem.with_suffix(ending) for ending in (".json", ".npy", ".marks.npy"))
        same = _read_record(record) == about
        if not (same and marks.is_file()):
            for old in (record, kept, marks):
                old.unlink(missing_ok=True)
            _make(pixels, kept if _fits(cache, pixels.nbytes) else None, marks)
            write_json(record, about)
        digests = torch.from_numpy(np.load(marks))
        if kept.is_file():
            return torch.from_numpy(np.load(kept, mmap_mode="c")), digests
        return pixels, digests


def _read_record(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _cache(root: Path) -> Path:
    """Return the folder that keeps what was made of ``root``: in $ALIGNSCAPE_CACHE, else beside the pictures, else
    (where nothing can be written there) among the user's caches.

    Raises:
        InputError: none of them can be written to.
    """
    told = os.environ.get(CACHE_VARIABLE, "")
    own = f"imagefolder-{hashlib.sha256(os.path.realpath(root).encode()).hexdigest()[:16]}"
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alignscape"
    places = [Path(told) / own] if told else [root / ".alignscape", users / own]
    for place in places:
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                return place
        except OSError:
            continue
    raise InputError(f"{root}: what is made of its pictures can be kept in none of {', '.join(map(str, places))}")


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Keep other processes from making the same meanwhile."""
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fits(cache: Path, needed: int) -> bool:
    return needed + _LEFT_FREE <= shutil.disk_usage(cache).free


def _make(pixels: "Pictures", kept: Path | None, marks: Path) -> None:
    """Write the pixels to ``kept``, if that is wanted, and the digest of each picture to ``marks``."""
    if len(pixels) > _MANY:
        what = "read once, to know them again; there is no room to keep them" if kept is None else f"kept in {kept}"
        warnings.warn(f"{len(pixels):,} pictures are {what}", stacklevel=2)
    digests = np.empty((len(pixels), MARK), np.uint8)
    with ExitStack() as stack:
        file = None
        if kept is not None:
            written = stack.enter_context(atomic_path(kept))
            file = np.lib.format.open_memmap(written, mode="w+", dtype=np.uint8, shape=tuple(pixels.shape))
        for first in range(0, len(pixels), _AT_ONCE):
            part = pixels[first : first + _AT_ONCE].numpy()
            digests[first : first + len(part)] = [
                np.frombuffer(hashlib.sha256(one.data).digest(), np.uint8) for one in part
            ]
            if file is not None:
                file[first : first + len(part)] = part
        if file is not None:
            file.flush()
    with atomic_path(marks) as written, open(written, "wb") as handle:
        np.save(handle, digests)


class Pictures(Lazy):
    """The pixels of picture files, made by several threads when they are asked for."""

    def __init__(self, files: Sequence[Path], size: int, name: str) -> None:
        self.files, self.size, self.name = list(files), size, name
        self.shape, self.dtype = torch.Size([len(files), 3, size, size]), torch.uint8

    def __getitem__(self, index: Any) -> Tensor:
        places = torch.arange(len(self.files))[index]
        wanted = places.flatten().tolist()
        found = torch.empty(len(wanted), *self.shape[1:], dtype=torch.uint8)

        def make(place: int) -> None:
            found[place] = self._read(self.files[wanted[place]])

        # Pillow lets go of Python's lock while it decodes and resizes.
        with ThreadPoolExecutor(min(_THREADS, max(len(wanted), 1))) as pool:
            for _ in pool.map(make, range(len(wanted))):
                pass
        return found.reshape(*places.shape, *self.shape[1:])

    def at(self, index: Tensor) -> "Pictures":
        return Pictures([self.files[i] for i in index.tolist()], self.size, self.name)

    def _read(self, file: Path) -> Tensor:
        from PIL import Image

        try:
            with Image.open(file) as picture:
                return square(picture, self.size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"{self.name}: {file} cannot be read as a picture: {first}") from error
