"""The folder of one run: who it belongs to, where it stands, when it is complete."""

import csv
import dataclasses
import fcntl
import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignscape.errors import DamagedError, InputError
from alignscape.files import (
    atomic_path,
    describe_files,
    make_folder,
    remove_empty,
    remove_stale_temporaries,
    write_json,
    write_text,
)
from alignscape.recorded import read_recorded, write_record
from training.config import TrainConfig
from training.data_names import form_of, is_own

# What a complete run consists of. Analyses may write their tables beside these, and may write them again.
RUN_FILES = (
    *("config.json", "metrics.csv", "curvature.csv", "ckpt.pt", "best.pt", "checkpoints/epoch-*.pt"),
    *("trajectory.npy", "trajectory.json", "sketch.npz"),
)

RESUME, NEXT_RESUME = "resume.pt", "resume-next.pt"


@dataclass(frozen=True)
class RunFolder:
    """``config.json``, ``ckpt.pt``, ``checkpoints/``, ``metrics.csv``, ``resume.pt``, ``done.json`` under ``path``.

    Attributes:
        path: of the folder, which may not exist yet.

    Example:
        >>> from pathlib import Path
        >>> from training import RunFolder
        >>> run = RunFolder(Path("runs/bp"))
        >>> run.is_done, run.checkpoint.name, run.epoch_checkpoint(3).name
        (False, 'ckpt.pt', 'epoch-0003.pt')
    """

    path: Path

    @property
    def checkpoint(self) -> Path:
        """The final checkpoint."""
        return self.path / "ckpt.pt"

    @property
    def best_checkpoint(self) -> Path:
        """The checkpoint of the epoch that was best on what the run held out."""
        return self.path / "best.pt"

    @property
    def is_done(self) -> bool:
        """Whether the run is complete: ``done.json`` is written last."""
        return (self.path / "done.json").is_file()

    def epoch_checkpoint(self, epoch: int) -> Path:
        """The checkpoint after ``epoch`` epochs; 0 is the initialisation."""
        return self.path / "checkpoints" / f"epoch-{epoch:04d}.pt"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; the kernel lets go of it when the process dies, however it dies. A folder
        that did not become a run's in the meantime is left as it was found, or not at all.

        Raises:
            InputError: another process is training in it; it holds files that are not a run's.
        """
        if self.path.exists() and not (self.path / "config.json").is_file():
            if not self.path.is_dir():
                raise InputError(f"{self.path} is a file: choose another --out")
            if foreign := [p.name for p in sorted(self.path.iterdir()) if not p.name.startswith(".")]:
                names = ", ".join(foreign[:3])
                raise InputError(f"{self.path} is not empty and not a run ({names}): choose another --out")
        made, lock = make_folder(self.path), self.path / ".lock"
        gave_up = f"another process was about to train in {self.path}: try again"
        try:
            opened = open(lock, "w")  # noqa: SIM115
        except FileNotFoundError as error:
            raise InputError(gave_up) from error
        # A run's lock file stays: removing it would let a third process lock a file that a second one still waits for.
        with opened as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise InputError(f"another process is training in {self.path}") from error
            if not os.fstat(handle.fileno()).st_nlink:  # removed by a process that gave up, as below
                raise InputError(gave_up)
            try:
                yield
            except BaseException:
                if made and not (self.path / "config.json").exists():
                    lock.unlink(missing_ok=True)
                    remove_empty(made)
                raise

    def claim(self, config: TrainConfig, description: dict[str, Any]) -> None:
        """Make the folder this run's, or check that it is.

        Raises:
            InputError: the folder belongs to another config (differences named), to other data or to an earlier
                version that made something else of the same config.
        """
        if (self.path / "config.json").is_file():
            self._check_owner(config, description)
        else:
            write_json(self.path / "config.json", {"config": config.recorded(), **description})
        remove_stale_temporaries(self.path)
        if self.is_done:  # killed after it was declared complete
            self._drop_resume_points()
        if (self.path / "checkpoints").is_dir():
            remove_stale_temporaries(self.path / "checkpoints")

    def _check_owner(self, config: TrainConfig, description: dict[str, Any]) -> None:
        recorded = self.read_config()
        if changes := config.differences(_at_place_of(config, TrainConfig.from_dict(recorded["config"]))):
            raise InputError(f"{self.path} holds another run ({'; '.join(changes[:4])}): choose another --out")
        if recorded["data"]["digest"] != description["data"]["digest"]:
            raise InputError(f"{self.path} was trained on other bytes of {config.dataset}: choose another --out")
        if recorded.get("key", description["key"]) != description["key"]:
            raise InputError(
                f"{self.path} holds a run of an earlier version, which trained it otherwise "
                "(CHANGELOG.md): choose another --out"
            )

    def read_config(self) -> dict[str, Any]:
        """Return what ``config.json`` holds.

        Raises:
            InputError: the file is missing or damaged.
        """
        try:
            recorded = json.loads(read_recorded(self.path / "config.json")[0])
        except DamagedError:
            raise
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path} is not a run folder: config.json is missing or damaged") from error
        if not isinstance(recorded, dict) or not {"config", "data"} <= recorded.keys():
            raise InputError(f"{self.path} is not a run folder: config.json is not a run's")
        return recorded

    def stage_resume(self, state: dict[str, Any]) -> None:
        """Write a resume point beside the one in force."""
        import torch  # here, because a list of runs has no use for it, and it takes seconds

        with atomic_path(self.path / NEXT_RESUME) as temporary:
            torch.save(state, temporary)

    def commit_resume(self) -> None:
        """Put the staged resume point in force. Networks that train together stage theirs before the first of them
        commits, so that however the process dies, they have one step in common to go on from."""
        (self.path / NEXT_RESUME).rename(self.path / RESUME)

    @property
    def has_resume_point(self) -> bool:
        """Whether a resume point was ever put in force."""
        return (self.path / RESUME).is_file()

    def resume_points(self) -> list[dict[str, Any]]:
        """Return the resume points there are: the one in force, and one that was staged when the process died."""
        from training.checkpoint import read_torch_file

        paths = [self.path / name for name in (RESUME, NEXT_RESUME)]
        return [read_torch_file(path) for path in paths if path.is_file()]

    def write_metrics(self, rows: Sequence[dict[str, float]]) -> None:
        """Replace ``metrics.csv`` (one row an epoch); NaN is an empty cell."""
        self._write_rows("metrics.csv", rows)

    def write_curvature(self, rows: Sequence[dict[str, float]]) -> None:
        """Replace ``curvature.csv`` (one row a measurement); NaN is an empty cell."""
        self._write_rows("curvature.csv", rows)

    def _write_rows(self, name: str, rows: Sequence[dict[str, float]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: "" if v != v else v for k, v in row.items()} for row in rows)
        write_text(self.path / name, text.getvalue())

    def read_metrics(self) -> list[dict[str, float]]:
        """Return the rows of ``metrics.csv``; an empty cell is NaN.

        Raises:
            DamagedError: it is not what was written.
        """
        text = read_recorded(self.path / "metrics.csv")[0].decode()
        return [{k: float(cell or "nan") for k, cell in row.items()} for row in csv.DictReader(io.StringIO(text))]

    def finish(self, summary: dict[str, Any]) -> None:
        """Declare the run complete, with the digest of each of its files, and drop its resume point."""
        write_record(self.path / "done.json", {**summary, "files": describe_files(self.path, RUN_FILES)})
        self._drop_resume_points()

    def _drop_resume_points(self) -> None:
        for name in (RESUME, NEXT_RESUME):
            (self.path / name).unlink(missing_ok=True)


def _at_place_of(config: TrainConfig, recorded: TrainConfig) -> TrainConfig:
    """Return ``recorded`` with its data where ``config`` has them, if both are files of one form: a key goes by their
    bytes, which are compared apart, and not by their place."""
    if not is_own(config.dataset) or form_of(config.dataset) != form_of(recorded.dataset):
        return recorded
    return dataclasses.replace(recorded, dataset=config.dataset, image_size=config.image_size)
