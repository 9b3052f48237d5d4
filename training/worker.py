"""What carries out a job and commits its result to the store, in this process or in an actor on another machine."""

import importlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.data_digests import data_options, forget_digests
from training.errors import InputError
from training.files import write_text
from training.jobs import Analysis, Job, Train
from training.store import RunStore, remove_folder, run_state

if TYPE_CHECKING:
    from training.data import Dataset

# "computed", "reused" (it was there), "busy" (another process has it), or "failed: " and the reason.
Result = str

Task = tuple[tuple[str, Job], ...]  # keys and jobs: one analysis, or trainings that go as a stack

CACHED_DATA_SETS = 3


@dataclass
class Worker:
    """Carries out jobs, one call after another; data sets stay loaded between calls."""

    store: RunStore
    device: str = "auto"
    _data: "dict[Any, tuple[Dataset, str]]" = field(default_factory=dict)

    def identity(self) -> str | None:
        """Return which store can be seen from here."""
        return self.store.identity

    def perform(self, task: Task) -> list[Result]:
        """Carry out one analysis, or a stack of trainings on one data set; return a result for each job.

        An error of a job is its result; being killed is not.
        """
        return [self._guarded(key, job) for key, job in task]

    def _guarded(self, key: str, job: Job) -> Result:
        report = self.store.root / "failed" / f"{key[:16]}.txt"
        try:
            result = self._train(key, job) if isinstance(job, Train) else self._analyse(job)
        except InputError as error:
            return f"failed: {error}"
        except Exception as error:
            write_text(report, f"{job}\n\n{traceback.format_exc()}")
            reason = (str(error).splitlines() or [""])[0]
            return f"failed: {type(error).__name__}: {reason} (traceback in {report})"
        report.unlink(missing_ok=True)
        return result

    def _train(self, key: str, job: Train) -> Result:
        from training.loop import train

        with self.store.locked(key, wait=False) as held:
            if not held:
                return "busy"
            run = self.store.run(key)
            if (state := run_state(run)) in ("complete", "diverged"):
                return "reused"
            if state == "damaged":
                remove_folder(run.path)
            train(job.config, self._dataset(job, key), run.path, data_root=job.data_root)
            return "computed"

    def _analyse(self, job: Analysis) -> Result:
        entry = job.entry(self.store)
        if entry is None:
            raise InputError(f"{job.label}: an input went missing from {self.store.root}")
        inputs = {name: source.path(self.store) for name, source in job.inputs.items()}
        function = import_function(job.function)

        def write(folder: Path) -> None:
            function(folder, inputs, device=self.device, data_root=job.data_root, **job.parameters)

        sources = {name: source.label for name, source in job.inputs.items()}
        return entry.compute(write, wait=False, sources=sources)

    def _dataset(self, job: Train, key: str) -> "Dataset":
        """Return the data of a run on the device, loaded once.

        Raises:
            InputError: it is not what the key was made from.
        """
        from training.data import load_dataset
        from training.device import resolve_device

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
    """Return the function called ``package.module:name``.

    Raises:
        InputError: there is none.
    """
    module, _, name = reference.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"no function {reference!r}: {error}") from error
