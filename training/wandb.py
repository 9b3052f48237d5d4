"""The metrics of runs at Weights & Biases: one run there for each of ours, its config and name with it.

Where they go is that package's own affair: ``wandb login``, or ``WANDB_MODE=offline``, which keeps them in
``RUN/wandb/`` for a later ``wandb sync``.
"""

import shutil
from collections.abc import Mapping
from typing import Any

from alignscape.errors import InputError
from training.run_folder import RunFolder
from training.sinks import Rows, SinkChoice, needs


class WandbRuns(Rows[Any]):
    """Logs rows to runs of Weights & Biases, each under an id made of the run's key: one that goes on after a kill goes
    on there too.

    Raises:
        InputError: the package ``wandb`` is missing.
    """

    def __init__(self, choice: SinkChoice) -> None:
        super().__init__(choice)
        self._wandb = needs("wandb", _package)

    def open(self, run: RunFolder) -> tuple[Any, int]:
        """Begin a run there, or go on with it; in a process without a network the copies of an earlier one go.

        Raises:
            InputError: it cannot be begun: nobody is logged in, say.
        """
        recorded = run.read_config()
        for old in (run.path / "wandb").glob("offline-run-*"):
            shutil.rmtree(old)
        try:
            handle = self._wandb.init(
                project=self.choice.project or "alignscape",
                id=recorded["key"][:16],
                name=self.name(run),
                config=recorded["config"],
                dir=str(run.path),
                resume="allow",
                reinit="create_new",  # networks of a stack are several runs at once
            )
        except Exception as error:  # of a package that has many of its own
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"--wandb: {reason} (wandb login, or WANDB_MODE=offline)") from error
        handle.define_metric("*", step_metric="epoch")
        return handle, int(handle.step)

    def write(self, handle: Any, index: int, epoch: int, values: Mapping[str, float]) -> None:
        """Log a row: by its number, as their steps do not go below 0, and epochs on noise do."""
        handle.log({"epoch": epoch, **values}, step=index)

    def close(self, handle: Any) -> None:
        """End the run there."""
        handle.finish()

    def has(self, run: RunFolder) -> bool:
        """Whether a process has logged it from here."""
        return any((run.path / "wandb").glob("*run-*"))


def _package() -> Any:
    import wandb

    return wandb
