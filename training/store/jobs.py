"""What a sweep consists of: trainings, and analyses of what was trained, described without having either.

    run = TrainJob(config=TrainConfig(dataset="cifar10"), data_root=root)
    hessian = AnalysisJob(name="hessian", version=1, function="reports.analyses:hessian",
                       inputs={"checkpoint": run.file("ckpt.pt")}, parameters={"k": 10})
    execute([hessian], store)                      # trains the run first, if it is not in the store
    hessian.entry(store).read_table()              # None instead of an entry: an input is not there yet

A job is named by what it depends on, so that equal jobs are one. Nothing here imports torch: what is there already is
found in a moment.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignscape.errors import InputError
from training.config import TrainConfig
from training.data_names import short_name
from training.rule_list import rule_summaries
from training.run_folder import RunFolder
from training.store.digests import data_digest, data_options
from training.store.run_store import Entry, RunStore, canonical_key, read_json, run_state


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """One run.

    Attributes:
        config: what defines it.
        data_root: folder with the data set's files; no part of the key.

    Example:
        >>> import tempfile
        >>> from training import RunStore, TrainConfig, TrainJob
        >>> job = TrainJob(config=TrainConfig(rule="fa", seed=3))
        >>> with tempfile.TemporaryDirectory() as root:
        ...     job.label, job.is_done(RunStore(root)), len(job.key(RunStore(root)))
        ('run digits-fa-seed3', False, 64)
    """

    config: TrainConfig
    data_root: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "data_root", absolute(self.data_root))
        if self.config.rule not in rule_summaries():  # one that is not ours: its source is part of the key
            from training.rules import pinned

            with contextlib.suppress(InputError):  # it fails when its turn comes, and no other job with it
                object.__setattr__(self, "config", pinned(self.config))

    def file(self, name: str = "ckpt.pt") -> "JobFile":
        """Return a file of the run as an input of an analysis, e.g. ``checkpoints/epoch-0003.pt``."""
        return JobFile(self, name)

    def key(self, store: RunStore) -> str:
        """Return the run's key.

        Raises:
            InputError: the data set cannot be read.
        """
        config = self.config
        return config.key(data_digest(store, config.dataset, self.data_root, **data_options(config)))

    def folder(self, store: RunStore) -> RunFolder:
        """Return the run's folder, which may not exist yet."""
        return store.run(self.key(store))

    def is_done(self, store: RunStore) -> bool:
        """Whether the run is in the store, diverged or not."""
        return run_state(self.folder(store)) in ("complete", "diverged")

    @property
    def needs(self) -> "list[Job]":
        """The jobs that must be done before."""
        return []

    @property
    def label(self) -> str:
        """What a person calls it."""
        config = self.config
        angle = f"{config.angle:g}" if config.rule == "ifa" else ""
        return f"run {short_name(config.dataset)}-{config.rule}{angle}-seed{config.seed}"


@dataclass(frozen=True, kw_only=True)
class AnalysisJob:
    """A function that reads files and writes files.

    The function is imported where the work is done and called as
    ``function(folder, inputs, device=..., data_root=..., **parameters)``: it writes ``result.csv`` or several files
    into the empty ``folder``; ``inputs`` gives the path of each input; ``device`` is ``"auto"``, ``"cpu"`` or
    ``"cuda"``; ``data_root`` is that of the runs it reads.

    Attributes:
        name: of the analysis.
        version: of the function: a change of its results wants a new one.
        function: ``"package.module:name"``.
        inputs: what it reads, by name.
        parameters: its other arguments, JSON; part of the key.

    Example:
        >>> import tempfile
        >>> from training import AnalysisJob, RunStore, TrainConfig, TrainJob
        >>> run = TrainJob(config=TrainConfig(rule="fa"))
        >>> checkpoint = {"checkpoint": run.file("ckpt.pt")}
        >>> job = AnalysisJob(name="norms", version=1, function="mine:norms", inputs=checkpoint, parameters={"p": 2})
        >>> with tempfile.TemporaryDirectory() as root:
        ...     job.label, job.needs == [run], job.is_done(RunStore(root))
        ('norms of digits-fa-seed0', True, False)
    """

    name: str
    version: int
    function: str
    inputs: Mapping[str, "JobFile | DataFiles"]
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def file(self, name: str = "result.csv") -> "JobFile":
        """Return a file it writes as an input of another analysis."""
        return JobFile(self, name)

    def key(self, store: RunStore) -> str:
        """Return a name for the job that is known before its inputs exist; not the key of its entry."""
        inputs = {name: source.identity(store) for name, source in self.inputs.items()}
        return canonical_key([self.name, self.version, inputs, dict(self.parameters)])

    def entry(self, store: RunStore) -> Entry | None:
        """Return its place in the store, or None as long as one of its inputs is missing.

        Raises:
            InputError: an input is complete, but has no such file (the files it has are named).
        """
        digests = {}
        for name, source in self.inputs.items():
            if (digest := source.digest(store)) is None:
                return None
            digests[name] = digest
        return store.analysis(self.name, version=self.version, inputs=digests, parameters=self.parameters)

    def is_done(self, store: RunStore) -> bool:
        """Whether its result is in the store."""
        return (entry := self.entry(store)) is not None and entry.is_done

    @property
    def needs(self) -> "list[Job]":
        """The jobs that must be done before."""
        return [source.job for source in self.inputs.values() if isinstance(source, JobFile)]

    @property
    def data_root(self) -> Path | None:
        """The data root of the first input that has one."""
        roots = (s.job.data_root if isinstance(s, JobFile) else s.root for s in self.inputs.values())
        return next((root for root in roots if root is not None), None)

    @property
    def label(self) -> str:
        """What a person calls it."""
        of = dict.fromkeys(source.label for source in self.inputs.values())
        return f"{self.name} of {', '.join(list(of)[:2])}{' ...' if len(of) > 2 else ''}"


Job = TrainJob | AnalysisJob


@dataclass(frozen=True)
class JobFile:
    """A file that a job leaves.

    Attributes:
        job: that leaves it.
        name: of the file, in the job's folder.

    Example:
        >>> from training.store import TrainJob
        >>> from training import TrainConfig
        >>> file = TrainJob(config=TrainConfig()).file("checkpoints/epoch-0003.pt")
        >>> file.label
        'digits-bp-seed0 epoch-0003'
    """

    job: Job
    name: str

    def path(self, store: RunStore) -> Path:
        """Return where it is; its job must be done."""
        if isinstance(self.job, TrainJob):
            return self.job.folder(store).path / self.name
        entry = self.job.entry(store)
        assert entry is not None
        return entry.file(self.name)

    def place(self, store: RunStore) -> str:
        """Return the name of the folder it is in, or will be; empty as long as an input of its job is missing."""
        if isinstance(self.job, TrainJob):
            return self.job.folder(store).path.name
        return "" if (entry := self.job.entry(store)) is None else entry.path.name

    def identity(self, store: RunStore) -> list[str]:
        """Return what it is, as JSON, known before it exists."""
        return [self.job.key(store), self.name]

    def digest(self, store: RunStore) -> str | None:
        """Return its SHA-256 as recorded when it was written; None as long as its job is not done.

        Raises:
            InputError: the job is done and left no such file.
        """
        if not self.job.is_done(store):
            return None
        if isinstance(self.job, TrainJob):
            files = read_json(self.job.folder(store).path / "done.json")["files"]
        else:
            entry = self.job.entry(store)
            assert entry is not None
            files = entry.meta()["files"]
        if self.name not in files:
            raise InputError(f"{self.job.label} left no {self.name}; it has {', '.join(list(files)[:6])}")
        return files[self.name]["sha256"]

    @property
    def label(self) -> str:
        """What a person calls it."""
        return self.job.label.removeprefix("run ") + ("" if self.name == "ckpt.pt" else f" {Path(self.name).stem}")


@dataclass(frozen=True)
class DataFiles:
    """A data set as an input; its path is the root.

    Attributes:
        name: of the data set.
        root: folder with its files; None for one that needs none.

    Example:
        >>> import tempfile
        >>> from training import RunStore, load_dataset
        >>> from training.store import DataFiles
        >>> with tempfile.TemporaryDirectory() as root:
        ...     DataFiles("digits").digest(RunStore(root)) == load_dataset("digits").digest()
        True
    """

    name: str
    root: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", absolute(self.root))

    def path(self, store: RunStore) -> Path:
        """Return the data root."""
        return self.root or Path()

    def identity(self, store: RunStore) -> str:
        """Return what it is."""
        return self.digest(store)

    def digest(self, store: RunStore) -> str:
        """Return the digest of both splits.

        Raises:
            InputError: the data set cannot be read.
        """
        return data_digest(store, self.name, self.root)

    @property
    def label(self) -> str:
        """What a person calls it."""
        return self.name


def absolute(path: Path | None) -> Path | None:
    """Return ``path`` from the root of the file system: workers may stand in another folder."""
    return None if path is None else Path(path).absolute()
