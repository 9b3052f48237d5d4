"""Where a sweep stands: what is done, what is at work, and what workers say of it while they train.

A worker leaves a note in the store, ``running/KEY.json``, of the networks that it trains; whoever drives the sweep
reads it. Notes are small, replaced every few seconds, and gone when the work is done. Nothing waits for them.
"""

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from alignscape.files import write_json
from training.store.run_store import FOLDER_DIGITS, RunStore, read_json

if TYPE_CHECKING:
    from training.loop import Standing

NOTE_SECONDS = 5.0  # between two notes of a worker


@dataclass(frozen=True, kw_only=True)
class Running:
    """A task that is at work.

    Attributes:
        name: of its first run or analysis.
        networks: that train together; 1 for an analysis.
        seconds: since it was given to a worker.
        epoch: finished epochs; None as long as nothing is known, and of an analysis.
        epochs: of the run.
        share: of the task that is done.
        metrics: means over its networks, of the last finished epoch.
    """

    name: str
    networks: int = 1
    seconds: float = 0.0
    epoch: int | None = None
    epochs: int | None = None
    share: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SweepStanding:
    """Where a sweep stands.

    Attributes:
        done: jobs that were missing and are finished or failed.
        total: jobs that were missing.
        failed: jobs that failed.
        running: tasks at work, those that began first before others.
        seconds: since the sweep began.
        seconds_left: at the pace so far; None where nothing is done yet.
    """

    done: int
    total: int
    failed: int
    running: Sequence[Running]
    seconds: float

    @property
    def seconds_left(self) -> float | None:
        share = (self.done + sum(one.share * one.networks for one in self.running)) / max(self.total, 1)
        return self.seconds * (1 - share) / share if share > 0 else None


def note_path(store: RunStore, key: str) -> Path:
    """Return where the worker that has ``key`` in hand leaves its notes."""
    return store.root / "running" / f"{key[:FOLDER_DIGITS]}.json"


def read_note(store: RunStore, key: str, name: str, networks: int, seconds: float) -> Running:
    """Return what is known of the task whose first job has ``key``."""
    note = read_json(note_path(store, key))
    with suppress(KeyError, TypeError, ValueError):
        if time.time() - note["time"] <= seconds + NOTE_SECONDS:  # else it is of a worker that died before
            metrics = {str(k): float(v) for k, v in note["metrics"].items() if v is not None}
            place = {"epoch": int(note["epoch"]), "epochs": int(note["epochs"]), "share": float(note["share"])}
            return Running(name=name, networks=int(note["networks"]), seconds=seconds, metrics=metrics, **place)  # type: ignore[arg-type]
    return Running(name=name, networks=networks, seconds=seconds)


class Notes:
    """Leaves notes of one task: a ``progress`` for :func:`training.train_many`."""

    def __init__(self, store: RunStore, key: str) -> None:
        self.path = note_path(store, key)
        self._last = -math.inf

    def __call__(self, standing: "Standing") -> None:
        if time.monotonic() - self._last < NOTE_SECONDS:
            return
        self._last = time.monotonic()
        metrics = {k: v if math.isfinite(v) else None for k, v in standing.metrics.items()}
        note = {name: getattr(standing, name) for name in ("networks", "epoch", "epochs")}
        share = standing.step / max(standing.total_steps, 1)
        with suppress(OSError):  # nobody's work depends on it
            write_json(self.path, {**note, "share": share, "metrics": metrics, "time": time.time()})

    def close(self) -> None:
        """Take the note away."""
        self.path.unlink(missing_ok=True)
