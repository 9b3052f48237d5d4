"""The metrics of runs as TensorBoard event files: ``RUN/tensorboard/``, one scalar a metric and epoch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignscape.errors import InputError
from training.run_folder import RunFolder
from training.sinks import Rows, SinkChoice


class EventFiles(Rows[Any]):
    """Writes event files. Those of an earlier process are replaced, so that no epoch is in them twice, whenever that
    was killed.

    Raises:
        InputError: the package ``tensorboard`` is missing.
    """

    def __init__(self, choice: SinkChoice) -> None:
        super().__init__(choice)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                "event files need the package tensorboard: pip install 'alignscape[tensorboard]'"
            ) from error
        self._open = SummaryWriter

    def open(self, run: RunFolder) -> tuple[Any, int]:
        """Return a writer of new event files, with no row written."""
        folder = run.path / "tensorboard"
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        return _told(folder, lambda: self._open(str(folder))), 0

    def write(self, handle: Any, index: int, epoch: int, values: Mapping[str, float]) -> None:
        """Write a scalar each."""
        for tag, value in values.items():
            _told(Path(handle.log_dir), lambda tag=tag, value=value: handle.add_scalar(tag, value, global_step=epoch))

    def flush(self, handle: Any) -> None:
        """Have the writer's thread write."""
        _told(Path(handle.log_dir), handle.flush)

    def close(self, handle: Any) -> None:
        """Close the files."""
        handle.close()

    def has(self, run: RunFolder) -> bool:
        """Whether there are event files."""
        return any((run.path / "tensorboard").glob("events.out.tfevents.*"))


def _told(folder: Path, do: Any) -> Any:
    """Return what ``do`` does; an error of the writer's thread does not know the path, and is told it.

    Raises:
        OSError: the disk is full, say.
    """
    try:
        return do()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
