"""Digests of data sets, remembered by the size and time of their files: keys are wanted long before the data are."""

import os
import re
from pathlib import Path
from typing import Any

from training.config import TrainConfig
from training.data_names import is_own, short_name
from training.store.run_store import UNWRITTEN, RunStore, canonical_key, read_json


def data_digest(store: RunStore, name: str, root: Path | None = None, **options: Any) -> str:
    """Return the digest of ``load_dataset(name, root, **options)``, remembered if its files are as they were.

    Whoever trains compares it with the data at hand, so that a file changed behind its time stamp is noticed.

    Raises:
        InputError: as ``load_dataset``.
    """
    if is_own(name) and not name.startswith("npz:"):  # what a function reads, nobody knows
        from training.data.own import own_digest

        return own_digest(name, **options)
    place = None if root is None or is_own(name) or name in ("digits", "digits32") else os.path.realpath(root)
    asked = {"name": name, "root": place, **options}
    path = store.root / "data" / f"{_stem(name)}-{canonical_key(asked)[:16]}.json"
    known = read_json(path) or UNWRITTEN.get(Path(os.path.realpath(path)), {})
    if known.get("asked") == asked and all(_stamp(file) == [size, time] for file, size, time in known["files"]):
        return known["digest"]
    from training.data import load_dataset, source
    from training.data.own import files_of

    digest = load_dataset(name, root, **options).digest()
    files = [str(Path(place) / file) for split in source(name).files.values() for file in split] if place else []
    files += files_of(name) if is_own(name) else []
    store.note(path, {"asked": asked, "digest": digest, "files": [[file, *_stamp(file)] for file in files]})
    return digest


def forget_digests(store: RunStore, name: str) -> None:
    """Forget what was remembered of the data set ``name``."""
    for path in (store.root / "data").glob(f"{_stem(name)}-*.json"):
        path.unlink(missing_ok=True)
    for path in [one for one in UNWRITTEN if one.name.startswith(f"{_stem(name)}-")]:
        del UNWRITTEN[path]


def data_options(config: TrainConfig) -> dict[str, Any]:
    """Return the arguments of ``load_dataset`` that a config decides, beside the name."""
    size = {} if config.image_size is None else {"image_size": config.image_size}
    return {"train_size": config.train_size, "subset_seed": config.subset_seed, **size}


def _stem(name: str) -> str:
    return re.sub(r"[^\w.]+", "-", short_name(name)) if is_own(name) else name


def _stamp(file: str) -> list[int]:
    try:
        stat = Path(file).stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]
