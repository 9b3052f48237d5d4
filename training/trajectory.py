"""Weight snapshots on disk: one row a snapshot, memory-mapped, so that a long run costs disk and not memory.

``trajectory.npy`` is (T, P), each row the flat vector of the trainable parameters of the plain network in the order of
``named_parameters()``; ``trajectory.json`` holds ``steps`` (T) and ``parameters`` ([name, shape] in that order). The
disk cost is T x P x 4 bytes (float32) or 2 (float16): 7.3 MB a row for the paper's MLP in float32.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from training.files import atomic_path, write_json


def snapshot_steps(total_steps: int, every: int) -> list[int]:
    """Return the steps after which a row is written: 0 (the start), every ``every``-th, and the last."""
    return sorted({*range(0, total_steps + 1, every), total_steps})


class TrajectoryWriter:
    """Writes the rows of one run; rows may be written again after a resume, with the same bytes."""

    def __init__(self, folder: Path, model: nn.Module, steps: list[int], dtype: str) -> None:
        self.path = folder / "trajectory.npy"
        self.steps = steps
        self._row = {step: row for row, step in enumerate(steps)}
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._data = self._open(len(steps), sum(p.numel() for p in self._parameters.values()), np.dtype(dtype))
        write_json(
            folder / "trajectory.json",
            {"steps": steps, "parameters": [[name, list(p.shape)] for name, p in self._parameters.items()]},
        )

    def _open(self, rows: int, columns: int, dtype: np.dtype) -> np.memmap:
        if self.path.exists():  # a resumed run
            data = np.load(self.path, mmap_mode="r+")
            if data.shape == (rows, columns) and data.dtype == dtype:
                return data
        # Renamed into place once it has its full size: a reader never maps a file that is still growing.
        with atomic_path(self.path) as temporary:
            np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=(rows, columns)).flush()
        return np.load(self.path, mmap_mode="r+")

    def write(self, step: int) -> None:
        """Write the weights after ``step`` if that step has a row."""
        if (row := self._row.get(step)) is not None:
            flat = torch.cat([p.detach().reshape(-1) for p in self._parameters.values()])
            self._data[row] = flat.cpu().numpy()

    def flush(self) -> None:
        """Hand the rows to the disk; called before the resume point that relies on them is written."""
        self._data.flush()

    def truncate(self, last_step: int) -> None:
        """Keep the rows up to ``last_step``: a run that diverged has no others."""
        steps = [step for step in self.steps if step <= last_step]
        kept = np.array(self._data[: len(steps)])
        with atomic_path(self.path) as temporary, open(temporary, "wb") as handle:
            np.save(handle, kept)
        layout = [[name, list(p.shape)] for name, p in self._parameters.items()]
        write_json(self.path.with_suffix(".json"), {"steps": steps, "parameters": layout})
