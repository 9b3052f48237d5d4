"""Make a corrupted test set on disk: in parallel over processes, restartable, every file whole or absent."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignscape.errors import InputError
from alignscape.files import atomic_path, remove_stale_temporaries, write_json
from robustness.checksums import OFFICIAL, official_set
from robustness.cifar10c import PROVENANCE_FILE, md5_file
from robustness.corruptions import SEVERITIES, Corruption, Definition
from robustness.corruptions.pixels import Images
from robustness.set_writer import set_writer

LIBRARIES = ("numpy", "scipy", "scikit-image", "opencv-python-headless", "Pillow")


def make_corrupted_set(
    images: Images,
    labels: NDArray[np.integer[Any]],
    out: str | Path,
    *,
    definition: Definition,
    corruptions: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    workers: int | None = None,
    source: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, str]:
    """Write ``NAME.npy`` for each corruption, ``labels.npy`` and ``provenance.json`` into ``out``.

    Called again after an interruption it makes only what is missing. The result depends on the arguments and the
    libraries' versions, not on ``workers``.

    Args:
        images: (N, H, W, C) uint8, the clean set.
        labels: (N,) integers.
        out: folder of the set.
        definition: what the corruptions are, such as :func:`robustness.corruptions.cifar_c`.
        corruptions: names (all of the definition if None).
        severities: any of 1 ... 5, stacked in this order in each file.
        seed: of the random draws, which belong to (seed, corruption, severity, image).
        workers: processes; None for one a core, 1 for none beside this one.
        source: where the images come from, for the record.
        progress: called with (images written, images), counting those that an earlier call wrote.

    Returns:
        The provenance of every corruption of the set.

    Raises:
        InputError: bad images, labels or names, or ``out`` holds something else.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from pathlib import Path
        >>> from robustness import make_corrupted_set, small_images
        >>> images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
        >>> labels = np.arange(20) % 2
        >>> with tempfile.TemporaryDirectory() as out:
        ...     made = make_corrupted_set(images, labels, out, definition=small_images(), corruptions=["pixelate"])
        ...     files = sorted(path.name for path in Path(out).iterdir())
        ...     shape = np.load(Path(out) / "pixelate.npy").shape  # five severities of 20 images
        >>> made, files, shape
        ({'pixelate': 'own definition'}, ['labels.npy', 'pixelate.npy', 'provenance.json'], (100, 8, 8, 1))
    """
    chosen = [definition.corruption(name) for name in dict.fromkeys(corruptions or definition.corruptions)]
    _check(images, labels, severities)
    definition.corrupt(images[:1], chosen[0].name, severities[0], seed=seed)  # the wrong shape is found before work
    record = _Record.start(Path(out), _header(images, labels, definition, severities, seed, source))
    official = OFFICIAL.get(official_set(record.keep_labels(labels, len(severities))) or "", {})
    todo = [corruption for corruption in chosen if not record.holds(corruption.name)]
    per_file = len(severities) * len(images)
    done, total = (len(chosen) - len(todo)) * per_file, len(chosen) * per_file

    def advance(written: int) -> None:
        nonlocal done
        done += written
        if progress is not None:
            progress(done, total)

    advance(0)
    with set_writer(images, definition, seed=seed, workers=workers, files=len(todo) * len(severities)) as write:
        for corruption in todo:
            with atomic_path(record.folder / f"{corruption.name}.npy") as path:
                write(path, corruption.name, severities, advance)
                md5 = md5_file(path)
            record.add(corruption, md5, _provenance(corruption, md5, official))
    return record.provenance()


def _check(images: Images, labels: NDArray[np.integer[Any]], severities: Sequence[int]) -> None:
    if not len(images) or len(images) != len(labels) or labels.ndim != 1:
        raise InputError(f"images {images.shape} and labels {labels.shape} do not belong together")
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"labels are {labels.dtype}; they must be integers")
    if not severities or not set(severities) <= set(SEVERITIES) or len(set(severities)) != len(severities):
        raise InputError(f"severities {list(severities)} must be different ones of {list(SEVERITIES)}")


def _provenance(corruption: Corruption, md5: str, official: Mapping[str, str]) -> str:
    """Return ``exact`` for the official bytes, else what the corruption says of itself.

    A deterministic corruption of the official images that misses the official bytes can only be a library that
    computes otherwise: ``approximate``.
    """
    if official.get(corruption.name) == md5:
        return "exact"
    if corruption.label == "regenerated" and not corruption.random and corruption.name in official:
        return "approximate"
    return corruption.label


def _header(
    images: Images,
    labels: NDArray[np.integer[Any]],
    definition: Definition,
    severities: Sequence[int],
    seed: int,
    source: str,
) -> dict[str, Any]:
    """Return what must be the same for two calls to work on one set."""
    digest = hashlib.sha256(repr(images.shape).encode())
    digest.update(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels, dtype=np.int64).data)
    return {
        "definition": definition.title,
        "details": dict(definition.details),
        "images": list(images.shape),
        "images_sha256": digest.hexdigest(),
        "severities": list(severities),
        "seed": seed,
        "source": source,
    }


@dataclass(frozen=True, kw_only=True)
class _Record:
    """``provenance.json`` of a set in the making, written anew after every file."""

    folder: Path
    content: dict[str, Any]

    @classmethod
    def start(cls, folder: Path, header: dict[str, Any]) -> "_Record":
        """Go on with the set in ``folder`` if it is the one that ``header`` describes, or begin it."""
        remove_stale_temporaries(folder)
        path = folder / PROVENANCE_FILE
        if path.exists():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
                other = [key for key, value in header.items() if found[key] != value]
                found["files"].keys()
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(f"{path} is damaged: remove {folder} or give another --out") from error
            if other:
                raise InputError(
                    f"{folder} holds another set ({', '.join(other)} differ): remove it or give another --out"
                )
            return cls(folder=folder, content=found)
        if foreign := sorted(file.name for file in folder.glob("*.npy")):
            raise InputError(
                f"{folder} holds {foreign[0]} without {PROVENANCE_FILE}, not made here: give another --out"
            )
        versions = {library: _version(library) for library in LIBRARIES}
        record = cls(folder=folder, content={"format": 1, **header, "versions": versions, "files": {}})
        record._write()
        return record

    def holds(self, name: str) -> bool:
        """Return whether the file of ``name`` is there, undamaged."""
        entry = self.content["files"].get(name)
        path = self.folder / f"{name}.npy"
        return entry is not None and path.is_file() and md5_file(path) == entry["md5"]

    def keep_labels(self, labels: NDArray[np.integer[Any]], copies: int) -> str:
        """Write ``labels.npy`` unless it is there; return its MD5."""
        path = self.folder / "labels.npy"
        if not self.holds("labels"):
            small = labels.min() >= 0 and labels.max() <= 255  # uint8 as in the official file where it fits
            with atomic_path(path) as temporary:
                np.save(temporary, np.tile(labels, copies).astype(np.uint8 if small else np.int64))
            md5 = md5_file(path)
            self._enter("labels", md5=md5, provenance="exact" if official_set(md5) else "given", category="labels")
        return str(self.content["files"]["labels"]["md5"])

    def add(self, corruption: Corruption, md5: str, provenance: str) -> None:
        """Enter a finished file."""
        self._enter(corruption.name, md5=md5, provenance=provenance, category=corruption.category)

    def provenance(self) -> dict[str, str]:
        """Return the provenance of every corruption."""
        return {name: entry["provenance"] for name, entry in self.content["files"].items() if name != "labels"}

    def _enter(self, name: str, **entry: str) -> None:
        self.content["files"][name] = entry
        self._write()

    def _write(self) -> None:
        write_json(self.folder / PROVENANCE_FILE, self.content)


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
