"""The run store: what was computed, under a key of everything it depends on.

    ROOT/runs/KEY        a run folder; the key is the config's and the data's (``TrainConfig.key``)
    ROOT/analyses/KEY    the files of one analysis and ``meta.json``; the key is that of the analysis' name and version,
                         the digests of its input files and its parameters
    ROOT/data, locks, failed    digests of data sets, one lock a key, tracebacks of jobs that failed

Folders go by the first 16 digits of the key. A run is complete when its ``done.json`` is there; the folder of an
analysis appears by one rename, so that it is complete or absent. A lock is the kernel's (``flock``) and ends with its
process, however that dies: nothing needs mending after ``kill -9``. The store may lie on a network file system that
has working locks (NFS 4, Lustre with ``-o flock``).

    store = RunStore("store")
    entry = store.analysis("hessian", version=1, inputs={"checkpoint": digest}, parameters={"k": 10})
    entry.compute(lambda folder: frame.to_csv(folder / "result.csv", index=False))  # unless it is there already
    entry.read_table()
"""

import fcntl
import hashlib
import io
import json
import os
import resource
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alignscape.errors import DamagedError, InputError
from alignscape.files import damaged_files, describe_files, write_json
from alignscape.recorded import read_record, read_recorded, write_record
from training.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
FOLDER_DIGITS = 16

Outcome = Literal["computed", "reused", "busy"]
RunState = Literal["absent", "in progress", "complete", "diverged", "damaged"]


UNWRITTEN: dict[Path, dict[str, Any]] = {}  # notes for stores that are not there yet, by path without links


@dataclass(frozen=True)
class RunStore:
    """The store under ``root``; folders are made when something is written.

    Attributes:
        root: of the store, which may not exist yet.

    Raises:
        InputError: ``root`` is a file, or a store of another format.
        OSError: nothing can ever be at ``root``: a part of it is a file, or a link to itself.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from training import RunStore, TrainConfig, load_dataset
        >>> with tempfile.TemporaryDirectory() as root:
        ...     store = RunStore(Path(root) / "store")
        ...     run = store.run(TrainConfig().key(load_dataset("digits").digest()))
        ...     store.exists, len(store.runs()), len(run.path.name), run.is_done
        (False, 0, 16, False)
    """

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))
        with suppress(FileNotFoundError):
            if not stat.S_ISDIR(os.stat(self.root).st_mode):
                raise InputError(f"{self.root} is a file: choose another --store")
        if (found := read_json(self.root / "store.json").get("format", FORMAT)) != FORMAT:
            raise InputError(f"{self.root} is a store of format {found}; this alignscape reads format {FORMAT}")

    @property
    def exists(self) -> bool:
        """Whether anything was ever stored here."""
        return (self.root / "store.json").is_file()

    def run(self, key: str) -> RunFolder:
        """Return the folder of the run with ``key`` (``TrainConfig.key``), which may not exist yet."""
        return RunFolder(self.root / "runs" / key[:FOLDER_DIGITS])

    def analysis(self, name: str, *, version: int, inputs: Mapping[str, str], parameters: Mapping[str, Any]) -> "Entry":
        """Return the place of one analysis; ``inputs`` are SHA-256 digests of what it reads, ``parameters`` JSON."""
        definition = {"analysis": name, "version": version, "inputs": dict(inputs), "parameters": dict(parameters)}
        key = canonical_key(definition)
        return Entry(self, self.root / "analyses" / key[:FOLDER_DIGITS], key, json.loads(json.dumps(definition)))

    def runs(self) -> list[RunFolder]:
        """Return every run that was begun."""
        return [RunFolder(path.parent) for path in sorted((self.root / "runs").glob("*/config.json"))]

    def analyses(self) -> list["Entry"]:
        """Return every analysis whose folder is there and can be read, damaged or not."""
        entries = []
        for path in sorted((self.root / "analyses").glob("[0-9a-f]*")):
            meta = read_json(path / "meta.json")
            entries.append(Entry(self, path, meta.get("key", path.name), meta.get("definition", {})))
        return entries

    @contextmanager
    def locked(self, key: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold ``key`` for this process; yields False at once if another one has it and ``wait`` is false."""
        self.create()
        path = self.root / "locks" / f"{key[:FOLDER_DIGITS]}.lock"
        path.parent.mkdir(exist_ok=True)
        # The file stays: removing it would let a third process lock a file that a second one still waits for.
        with open(path, "w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True

    @contextmanager
    def read(self, key: str) -> Iterator[None]:
        """Keep ``key`` from being removed while this process reads it; others may read it too.

        Waits for nobody: where the lock is not to be had, it is read without. Whoever trains or computes it removes
        nothing, and in a store that cannot be written to nothing is removed.
        """
        path = self.root / "locks" / f"{key[:FOLDER_DIGITS]}.lock"
        with ExitStack() as stack:
            with suppress(OSError):  # read-only, without locks, or in the hands of one that trains
                path.parent.mkdir(exist_ok=True)
                fcntl.flock(stack.enter_context(open(path, "a+")), fcntl.LOCK_SH | fcntl.LOCK_NB)
            yield

    @property
    def identity(self) -> str | None:
        """What tells this store from another one at the same path of another machine; None if there is none."""
        return read_json(self.root / "store.json").get("identity")

    def create(self) -> None:
        """Make ``root`` a store if it is none yet."""
        if not self.exists:
            write_json(self.root / "store.json", {"format": FORMAT, "identity": uuid.uuid4().hex})
        root = os.path.realpath(self.root)  # workers have it so, and may work in another folder
        for path in [one for one in UNWRITTEN if one.is_relative_to(root)]:
            write_json(path, UNWRITTEN.pop(path))

    def note(self, path: Path, value: dict[str, Any]) -> None:
        """Write ``value`` to ``path`` in the store, as soon as there is one: looking for something makes none."""
        if self.exists:
            write_json(path, value)
        else:
            UNWRITTEN[Path(os.path.realpath(path))] = value


@dataclass(frozen=True)
class Entry:
    """One analysis in the store, done or to be done; made by :meth:`RunStore.analysis`.

    Attributes:
        store: that it is in.
        path: of its folder.
        key: SHA-256 (64 hex digits) of the definition.
        definition: what the result depends on: analysis, version, inputs, parameters.

    Example:
        >>> import tempfile
        >>> from training.store import RunStore
        >>> def write(folder):
        ...     _ = (folder / "result.csv").write_text("value\\n3\\n")
        >>> with tempfile.TemporaryDirectory() as root:
        ...     entry = RunStore(root).analysis("mine", version=1, inputs={"checkpoint": "7b39"}, parameters={"k": 3})
        ...     entry.compute(write), entry.compute(write), entry.read_table()["value"].tolist()
        ('computed', 'reused', [3])
    """

    store: RunStore
    path: Path
    key: str
    definition: dict[str, Any]

    @property
    def is_done(self) -> bool:
        """Whether it is complete, and its files have the sizes they were written with."""
        meta = self.meta()
        return meta.get("key") == self.key and not damaged_files(self.path, meta["files"], hashed=False)

    def meta(self) -> dict[str, Any]:
        """Return ``meta.json``: definition, files with their digests, time and cost; empty if there is none."""
        return read_json(self.path / "meta.json")

    def compute(self, write: Callable[[Path], None], *, wait: bool = True, **record: Any) -> Outcome:
        """Call ``write(folder)`` on an empty folder and commit what it leaves there, unless the analysis is done.

        ``record`` (JSON) goes into ``meta.json``. An exception of ``write`` passes through and leaves nothing.
        """
        with self.store.locked(self.key, wait=wait) as held:
            if not held:
                return "busy"
            if self.is_done:
                return "reused"
            self.path.parent.mkdir(exist_ok=True)
            self._remove_leftovers()
            temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
            temporary.mkdir()
            try:
                started = time.monotonic()
                write(temporary)
                self._commit(temporary, {**record, "seconds": round(time.monotonic() - started, 3)})
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            return "computed"

    def _commit(self, temporary: Path, record: dict[str, Any]) -> None:
        if not (files := describe_files(temporary, ["**/*"])):
            raise RuntimeError(f"the analysis {self.definition['analysis']} wrote nothing")
        for name in files:
            with open(temporary / name, "rb") as handle:
                os.fsync(handle.fileno())
        created = datetime.now(UTC).isoformat(timespec="seconds")
        meta = {"key": self.key, "definition": self.definition, "files": files, "created": created, **record}
        write_record(temporary / "meta.json", meta)
        os.rename(temporary, self.path)

    def _remove_leftovers(self) -> None:
        """Remove what a killed writer or damage left; the lock is held, so nobody is at work on it."""
        remove_folder(self.path)
        for leftover in self.path.parent.glob(f".{self.path.name}.*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)

    def file(self, name: str) -> Path:
        """Return the path of one of its files."""
        return self.path / name

    def read_table(self, name: str = "result.csv") -> "pd.DataFrame":
        """Return one of its CSV files.

        Raises:
            DamagedError: it is not what was written.
        """
        import pandas as pd

        return pd.read_csv(io.BytesIO(read_recorded(self.file(name))[0]), float_precision="round_trip")


@contextmanager
def in_use(paths: Iterable[Path]) -> Iterator[None]:
    """Keep the runs and analyses of stores among ``paths`` (their folders, or files in them) from being removed."""
    held: set[tuple[Path, str]] = set()  # one open file each, however many checkpoints of a run there are
    for path in paths:
        folders = (path.absolute(), *path.absolute().parents[:2])  # ROOT/runs/KEY/checkpoints/epoch-0001.pt
        folder = next((one for one in folders if (one.parent.parent / "store.json").is_file()), None)
        if folder is not None:
            held.add((folder.parent.parent, folder.name))
    with ExitStack() as stack, _files_allowed(len(held)):
        for root, name in held:
            stack.enter_context(RunStore(root).read(name))
        yield


@contextmanager
def _files_allowed(more: int) -> Iterator[None]:
    """Let this process hold ``more`` open files than ``ulimit -n`` says, as far as it may raise that by itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    bounds = [limit for limit in (soft + more, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft if soft == resource.RLIM_INFINITY else min(bounds), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def run_state(run: RunFolder) -> RunState:
    """Return where a run stands, from its ``done.json`` and the sizes of its files."""
    if not (run.path / "config.json").is_file():
        return "absent"
    if not run.is_done:
        return "in progress"
    done = read_json(run.path / "done.json")
    of_another = not done.get("key", run.path.name).startswith(run.path.name)
    if not done or of_another or damaged_files(run.path, done.get("files", {}), hashed=False):
        return "damaged"
    return "diverged" if done["diverged"] else "complete"


def remove_folder(path: Path) -> None:
    """Remove a folder, by one rename for whoever looks at its name; no error if there is none."""
    grave = path.with_name(f".{path.name}.removed")
    shutil.rmtree(grave, ignore_errors=True)
    if path.exists():
        path.rename(grave)
        shutil.rmtree(grave)


def canonical_key(value: Any) -> str:
    """Return the SHA-256 (64 hex digits) of ``value`` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in ``path``; empty if the file is missing or damaged."""
    try:
        return read_record(path)
    except (OSError, DamagedError):
        return {}
