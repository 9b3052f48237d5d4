"""What carries out a job and commits its result to the store, in this process or in an actor on another machine."""

import os
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alignscape.errors import DamagedError, InputError, ends_all_work
from alignscape.files import write_text
from alignscape.imports import import_reference, reason
from training.sinks import SinkChoice, Sinks
from training.store.digests import data_options, forget_digests
from training.store.job_log import JobLog
from training.store.jobs import AnalysisJob, Job, JobFile, Names, TrainJob
from training.store.run_store import FOLDER_DIGITS, RunStore, remove_folder, run_state
from training.store.standing import Notes

if TYPE_CHECKING:
    from training.data import Dataset
    from training.loop import Progress, Standing

# "computed", "reused" (it was there), "busy" (another process has it), "deferred" (the stack has its size without it),
# or FAILED, or DAMAGED where a stored file is not what was written, and the reason.
Result = str
FAILED = "failed: "
DAMAGED = "damaged: "
FINISHED = ("complete", "diverged")

Task = tuple[tuple[str, Job], ...]  # keys and jobs: one analysis, or trainings that go as a stack

CACHED_DATA_SETS = 3


@dataclass
class Worker:
    """Carries out jobs, one call after another; data sets stay loaded between calls."""

    store: RunStore
    device: str = "auto"
    stack: "int | Literal['auto']" = "auto"  # networks that train together
    progress: "Progress | None" = None  # while networks train
    folder: Path | None = None  # to work in: where modules of the user's are found; None is wherever this process is
    sinks: tuple[SinkChoice, ...] = ()  # that take the metrics of runs as they come
    names: Names = field(default_factory=dict)  # of the runs of the sweep, for their logs
    notes: bool = False  # leave notes of where training stands, and keep what jobs print: nobody is looking
    _data: "dict[Any, tuple[Dataset, str]]" = field(default_factory=dict)
    _log: JobLog | None = None  # of the task in hand
    _sinks: Sinks | None = None

    def __post_init__(self) -> None:
        if (
            self.folder is not None and self.folder.is_dir()
        ):  # else a user's module is not found, and no other is missed
            os.chdir(self.folder)

    def identity(self) -> str | None:
        """Return which store can be seen from here."""
        return self.store.identity

    def perform(self, task: Task) -> list[Result]:
        """Carry out one analysis, or trainings that may go as a stack; return a result for each job.

        An error of a job is its result; being killed is not.
        """
        self._log = self._log_of(task)
        with self._log.output() if self.notes else nullcontext():
            if isinstance(task[0][1], TrainJob):
                return self._train([(key, job) for key, job in task if isinstance(job, TrainJob)])
            analyses = [(key, job) for key, job in task if isinstance(job, AnalysisJob)]
            return [self._logged([(key, job)], partial(self._analyse, job)) for key, job in analyses]

    def _log_of(self, jobs: Sequence[tuple[str, Job]]) -> JobLog:
        return JobLog(self.store, [(key, job.called(self.names)) for key, job in jobs])

    def _logged(self, jobs: Sequence[tuple[str, Job]], carry_out: Callable[[], Any]) -> Any:
        """Return :meth:`_guarded`, and say in the log of each job what becomes of it."""
        self._log = self._log_of(jobs)
        self._log.begin()
        result = self._guarded([key for key, _ in jobs], carry_out)
        self._log.note(result if isinstance(result, str) else "done")
        return result

    def _guarded(self, keys: Sequence[str], carry_out: Callable[[], Any]) -> Any:
        """Return what ``carry_out`` returns, or for an error its reason, of which the traceback is kept by keys.

        Raises:
            OSError: what would fail for any other job too: the disk is full, say.
        """
        reports = [self.store.root / "failed" / f"{key[:FOLDER_DIGITS]}.txt" for key in keys]
        try:
            result = carry_out()
        except DamagedError as error:
            return f"{DAMAGED}{error}"
        except InputError as error:
            return f"{FAILED}{error}"
        except Exception as error:
            if isinstance(error, OSError) and ends_all_work(error):
                raise
            for report in reports:
                write_text(report, traceback.format_exc())
            if self._log is not None:
                self._log.note(traceback.format_exc())
            reason = (str(error).splitlines() or [""])[0]
            return f"{FAILED}{type(error).__name__}: {reason} (traceback in {reports[0]})"
        for report in reports:
            report.unlink(missing_ok=True)
        return result

    def _train(self, task: list[tuple[str, TrainJob]]) -> list[Result]:
        """Train as many of ``task`` as should go together, and leave the rest for later."""
        size = self._guarded([task[0][0]], partial(self._stack_size, task))
        if isinstance(size, str):  # it failed, and the next may not
            self._log_of(task[:1]).note(size)
            return [size] + ["deferred"] * (len(task) - 1)
        results: dict[str, Result] = {key: "deferred" for key, _ in task}
        with ExitStack() as locks:
            mine = []
            for key, job in task[:size]:
                with ExitStack() as lock:  # let go of at once where there is nothing to train
                    if not lock.enter_context(self.store.locked(key, wait=False)):
                        results[key] = "busy"
                    elif (state := run_state(self.store.run(key))) in FINISHED:
                        results[key] = "reused"
                    else:
                        if state == "damaged":
                            remove_folder(self.store.run(key).path)
                        mine.append((key, job))
                        locks.enter_context(lock.pop_all())
            if mine:
                reason = self._logged(mine, partial(self._train_together, mine))
                for key, _ in mine:
                    results[key] = "computed" if run_state(self.store.run(key)) in FINISHED else reason
        return [results[key] for key, _ in task]

    def _stack_size(self, task: list[tuple[str, TrainJob]]) -> int:
        from training.checkpoint import DataInfo
        from training.network import Network
        from training.shared_rule import differing
        from training.stack_size import choose_size

        key, job = task[0]
        data = self._dataset(job, key)
        if len(task) == 1:
            return 1
        network = Network(job.config, data, DataInfo.of(data), self.store.run(key))
        differences = differing([job.config for _, job in task])
        return choose_size(network, data, len(task), self.stack, differences).size

    def _train_together(self, task: list[tuple[str, TrainJob]]) -> None:
        from training.loop import train_many

        jobs = [(job.config, self.store.run(key).path) for key, job in task]
        key, job = task[0]
        data = self._dataset(job, key)
        notes = Notes(self.store, key) if self.notes else None
        if self.sinks and self._sinks is None:
            self._sinks = Sinks(self.sinks)
        report = partial(self._report, notes)
        how = {"stack": len(jobs), "data_root": job.data_root, "progress": report, "on_epoch": self._sinks}
        try:
            runs = train_many(jobs, data, **how)  # type: ignore[arg-type]
        finally:
            if notes is not None:
                notes.close()
        if self._sinks is not None:
            for run in runs:
                self._sinks.finish(run)

    def _report(self, notes: Notes | None, standing: "Standing") -> None:
        """Tell where training stands: the log, who drives the sweep, and who looks on."""
        if self._log is not None:
            self._log.epoch(standing)
        for listener in (notes, self.progress):
            if listener is not None:
                listener(standing)

    def _analyse(self, job: AnalysisJob) -> Result:
        with ExitStack() as held:
            for source in job.inputs.values():
                if isinstance(source, JobFile):
                    held.enter_context(self.store.read(source.place(self.store)))
            return self._analyse_held(job)

    def _analyse_held(self, job: AnalysisJob) -> Result:
        entry = job.entry(self.store)
        if entry is None:
            raise InputError(f"{job.label}: an input went missing from {self.store.root}")
        inputs = {name: source.path(self.store) for name, source in job.inputs.items()}
        function = import_function(job.function)

        def write(folder: Path) -> None:
            function(folder, inputs, device=self.device, data_root=job.data_root, **job.parameters)

        sources = {name: source.label for name, source in job.inputs.items()}
        return entry.compute(write, wait=False, sources=sources)

    def _dataset(self, job: TrainJob, key: str) -> "Dataset":
        """Return the data of a run on the device, loaded once.

        Raises:
            InputError: it is not what the key was made from.
        """
        from alignscape.device import resolve_device
        from training.data import load_dataset

        config, options = job.config, data_options(job.config)
        wanted = (config.dataset, job.data_root, *options.items())
        if wanted not in self._data:
            data = load_dataset(config.dataset, job.data_root, **options, device=resolve_device(self.device))
            while len(self._data) >= CACHED_DATA_SETS:
                self._data.pop(next(iter(self._data)))
            self._data[wanted] = data, data.digest()
        data, digest = self._data[wanted]
        if config.key(digest) != key:
            forget_digests(self.store, config.dataset)
            raise InputError(
                f"the files of {config.dataset} changed under their old time stamps: give the command again"
            )
        return data


def import_function(reference: str) -> Callable[..., None]:
    """Return the function called ``package.module:name`` (or ``Class.name``), one of ours before one of the user's.

    Raises:
        InputError: there is none.
    """
    try:
        return import_reference(reference, flag="function", ours_first=True)
    except InputError as error:
        raise InputError(f"no function {reference!r}: {reason(error.__cause__ or error)}") from error
