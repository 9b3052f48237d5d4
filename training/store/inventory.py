"""What a store holds: a row for each run, what hangs on it, what is damaged, and taking things away."""

import csv
import os
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from alignscape.errors import InputError
from alignscape.files import damaged_files
from training.config import TrainConfig
from training.names import run_names
from training.run_folder import RunFolder
from training.store.job_log import log_path
from training.store.run_store import FOLDER_DIGITS, Entry, RunStore, canonical_key, read_json, remove_folder, run_state

Item = RunFolder | Entry


@dataclass(frozen=True)
class Inventory:
    """The runs and analyses of a store at one moment, and which hang on which: by the digests of their files.

    Attributes:
        store: that was looked into.
        runs: that were begun.
        analyses: whose folder is there.

    Example:
        >>> import tempfile
        >>> from training import RunStore, TrainConfig, TrainJob, execute
        >>> from training.store import Inventory
        >>> job = TrainJob(config=TrainConfig(rule="fa", hidden=(16,), epochs=1, train_size=200))
        >>> with tempfile.TemporaryDirectory() as root:
        ...     _ = execute([job], RunStore(root))
        ...     found = Inventory.of(RunStore(root))
        ...     row = found.run_row(found.runs[0])
        ...     row["rule"], row["state"], found.problems(found.runs[0], hashed=True)
        ('fa', 'complete', [])
    """

    store: RunStore
    runs: tuple[RunFolder, ...]
    analyses: tuple[Entry, ...]

    @classmethod
    def of(cls, store: RunStore) -> "Inventory":
        """Look into ``store``.

        Raises:
            InputError: there is none.
        """
        if not store.exists:
            raise InputError(f"no run store at {store.root}: give --store DIR")
        return cls(store, tuple(store.runs()), tuple(store.analyses()))

    def find(self, prefix: str) -> Item:
        """Return the run or analysis whose key begins with ``prefix``.

        Raises:
            InputError: there is none, or there are several (listed).
        """
        matches = [item for item in self.items() if item.path.name.startswith(prefix[:FOLDER_DIGITS])]
        if not matches:
            raise InputError(f"no run or analysis in {self.store.root} has a key that begins with {prefix!r}")
        if len(matches) > 1:
            listed = ", ".join(item.path.name for item in matches[:6]) + (" ..." if len(matches) > 6 else "")
            raise InputError(f"{prefix!r} is the beginning of {len(matches)} keys: {listed}")
        return matches[0]

    def items(self) -> list[Item]:
        """Return runs and analyses."""
        return [*self.runs, *self.analyses]

    @cached_property
    def names(self) -> dict[Path, str]:
        """A name for each run whose config can be read: what differs among the runs of the store names them."""
        return names_of_runs(self.runs)

    @cached_property
    def digests(self) -> dict[Path, list[str]]:
        """The SHA-256 of each file of each complete run or analysis, by its folder."""
        return {item.path: _file_digests(item) for item in self.items()}

    @cached_property
    def readers(self) -> dict[str, list[Entry]]:
        """The analyses that read a file, by its SHA-256."""
        found: dict[str, list[Entry]] = defaultdict(list)
        for entry in self.analyses:
            for digest in set(entry.definition.get("inputs", {}).values()):
                found[digest].append(entry)
        return found

    def dependants(self, items: Iterable[Item]) -> list[Entry]:
        """Return the analyses that read a file of ``items``, or of such an analysis, in this order."""
        found: dict[Path, Entry] = {}
        waiting = deque(items)
        while waiting:
            for digest in self.digests[waiting.popleft().path]:
                for entry in self.readers.get(digest, []):
                    if entry.path not in found:
                        found[entry.path] = entry
                        waiting.append(entry)
        return list(found.values())

    def unused(self) -> list[Entry]:
        """Return the analyses of which an input is no more in the store, so that nothing can ask for them."""
        there = {digest for digests in self.digests.values() for digest in digests}
        there |= {read_json(path).get("digest", "") for path in (self.store.root / "data").glob("*.json")}
        return [e for e in self.analyses if e.definition and not there.issuperset(e.definition["inputs"].values())]

    def problems(self, item: Item, *, hashed: bool) -> list[str]:
        """Return a line for each thing that is wrong with a run or an analysis; an unfinished run has none."""
        if isinstance(item, RunFolder):
            return _run_problems(item, hashed)
        if not (meta := item.meta()):
            return ["meta.json is missing or damaged"]
        wrong_key = [] if canonical_key(item.definition) == item.key else ["meta.json does not fit its key"]
        return wrong_key + damaged_files(item.path, meta["files"], hashed=hashed)

    def is_held(self, item: Item) -> bool:
        """Whether a process is at work on it."""
        if not (self.store.root / "locks" / f"{item.path.name}.lock").exists():
            return False
        with self.store.locked(item.path.name, wait=False) as free:
            return not free

    def run_row(self, run: RunFolder) -> dict[str, Any]:
        """Return what a table says of a run; None where it is not known."""
        config, done = read_json(run.path / "config.json").get("config", {}), read_json(run.path / "done.json")
        state: str = run_state(run)
        if state == "in progress" and not self.is_held(run):
            state = "interrupted"
        last = last_metrics(run)
        return {
            "key": run.path.name,
            "run": self.names.get(run.path),
            **{name: config.get(name) for name in ("rule", "dataset")},
            "angle": config.get("angle") if config.get("rule") == "ifa" else None,
            "seed": config.get("seed"),
            "epochs": done.get("epoch", last.get("epoch")),
            "state": state,
            "accuracy": last.get("test_accuracy"),
            "bytes": folder_bytes(run.path),
            "age_seconds": round(time.time() - last_change(run.path)),
            "analyses": len(self.dependants([run])),
            "config": config,
        }

    @contextmanager
    def removing(self, items: Sequence[Item]) -> Iterator[None]:
        """Look whether ``items`` are free, and remove them at the end of the block, analyses before what they hang on.

        Each is held while it goes, one after the other: a process may open no more than some thousand files.

        Raises:
            InputError: another process trains, computes or reads one of them.
        """
        for item in items:
            with self._free(item):
                pass
        yield
        for item in sorted(items, key=lambda item: isinstance(item, RunFolder)):
            with self._free(item):
                remove_folder(item.path)
                log_path(self.store, item.path.name).unlink(missing_ok=True)

    @contextmanager
    def _free(self, item: Item) -> Iterator[None]:
        with self.store.locked(item.path.name, wait=False) as free:
            if not free:
                raise InputError(f"another process is at work on {item.path}: let it finish, or end it")
            yield


def names_of_runs(runs: Iterable[RunFolder]) -> dict[Path, str]:
    """Return a name for each run whose config can be read, by its folder: what differs among them names them."""
    paths = {run.path.name: run.path for run in runs}
    recorded = {key: read_json(path / "config.json").get("config", {}) for key, path in paths.items()}
    return {paths[key]: name for key, name in names_of_configs(recorded).items()}


def names_of_configs(recorded: Mapping[str, Any]) -> dict[str, str]:
    """Return a name for each run whose recorded config can be read, by key: what differs among them names them."""
    configs: dict[str, TrainConfig] = {}
    for key, config in recorded.items():
        with suppress(TypeError, AttributeError, InputError):  # damaged, or of a newer version
            if config:
                configs[key] = TrainConfig.from_dict(config)
    return dict(zip(configs, run_names(list(configs.values()), list(configs)), strict=True))


def _run_problems(run: RunFolder, hashed: bool) -> list[str]:
    if not run.is_done:
        return []
    done, recorded = read_json(run.path / "done.json"), read_json(run.path / "config.json")
    if not done.get("files"):
        return ["done.json is damaged"]
    problems = damaged_files(run.path, done["files"], hashed=hashed)
    try:
        config, digest = TrainConfig.from_dict(recorded["config"]), recorded["data"]["digest"]
        keys = [config.key(digest), config.key(digest, revised=False)]  # intact, though nothing will find it any more
    except (KeyError, TypeError, InputError):
        return [*problems, "config.json is damaged"]
    return (
        problems
        if any(key.startswith(run.path.name) for key in keys)
        else [*problems, "config.json does not fit its key"]
    )


def _file_digests(item: Item) -> list[str]:
    """Return the SHA-256 of each file of a complete run or analysis."""
    meta = read_json(item.path / "done.json") if isinstance(item, RunFolder) else item.meta()
    return [file["sha256"] for file in meta.get("files", {}).values()]


def last_metrics(run: RunFolder) -> dict[str, float]:
    """Return the last row of ``metrics.csv``; cells that are empty are left out, as are files that are damaged."""
    try:
        with open(run.path / "metrics.csv", encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle))
        return {name: float(cell) for name, cell in rows[-1].items() if cell} if rows else {}
    except (OSError, ValueError, csv.Error, TypeError):
        return {}


def folder_bytes(folder: Path) -> int:
    """Return the size of all files in ``folder``."""
    with os.scandir(folder) as found:
        return sum(
            folder_bytes(Path(one)) if one.is_dir(follow_symlinks=False) else one.stat(follow_symlinks=False).st_size
            for one in found
        )


def last_change(folder: Path) -> float:
    """Return when a file of ``folder`` was last written, in seconds of the epoch."""
    with os.scandir(folder) as found:
        return max((one.stat().st_mtime for one in found if one.is_file()), default=folder.stat().st_mtime)
