"""The log of each job: ``logs/KEY.txt`` in the store, one line for whatever became of it, with the time."""

import contextlib
import os
import socket
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from training.store.run_store import FOLDER_DIGITS, RunStore

if TYPE_CHECKING:
    from training.loop import Standing

LINE_SECONDS = 10.0  # between two lines of a training, the last of which is always there


def log_path(store: RunStore, key: str) -> Path:
    """Return the log of the job with ``key``."""
    return store.root / "logs" / f"{key[:FOLDER_DIGITS]}.txt"


class JobLog:
    """What jobs that a worker carries out together have to say; a log that cannot be written stops nobody."""

    def __init__(self, store: RunStore, labels: Iterable[tuple[str, str]]) -> None:
        self.labels = {log_path(store, key): label for key, label in labels}
        self._last = 0.0

    def begin(self) -> None:
        """Say who has the jobs in hand."""
        count = len(self.labels)
        others = f", with {count - 1} more in one task" if count > 1 else ""
        for path, label in self.labels.items():
            self._append([path], f"{label}: begun by process {os.getpid()} on {socket.gethostname()}{others}")

    def note(self, text: str) -> None:
        """Add lines to the log of each job."""
        self._append(self.labels, text)

    def epoch(self, standing: "Standing") -> None:
        """Add where training stands to the log of the first job, from time to time."""
        ends = standing.ends_epoch and standing.step >= standing.total_steps
        if not ends and time.monotonic() - self._last < LINE_SECONDS:
            return
        self._last = time.monotonic()
        metrics = "  ".join(f"{name} {value:.6g}" for name, value in standing.metrics.items() if name != "epoch")
        mean = f", means of {standing.networks} networks" if standing.networks > 1 else ""
        place = f"epoch {standing.epoch}/{standing.epochs}, step {standing.step}/{standing.total_steps}"
        self._append(list(self.labels)[:1], f"{place}{mean}: {metrics}")

    @contextlib.contextmanager
    def output(self) -> Iterator[None]:
        """Have what the jobs print meanwhile in the log of the first of them."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                handle: TextIO = stack.enter_context(open(next(iter(self.labels)), "a", encoding="utf-8", buffering=1))
                stack.enter_context(contextlib.redirect_stdout(handle))
                stack.enter_context(contextlib.redirect_stderr(handle))
            yield

    def _append(self, paths: Iterable[Path], text: str) -> None:
        moment = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        for path in paths:
            with contextlib.suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "a", encoding="utf-8") as handle:
                    handle.write(f"{moment} {text.rstrip()}\n")
