"""Weight snapshots on disk: one row a snapshot, memory-mapped, so that a long run costs disk and not memory.

``trajectory.npy`` is (T, P), each row the flat vector of the trainable parameters of the plain network in the order of
``named_parameters()``; ``trajectory.json`` holds ``steps`` (T) and ``parameters`` ([name, shape] in that order). The
disk cost is T x P x 4 bytes (float32) or 2 (float16): 7.3 MB a row for the paper's MLP in float32. Beside the rows, a
sketch may take in the weights after *every* step (``training/sketch.py``).
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alignscape.files import atomic_path, write_json
from training.sketch import FrequentDirections


def snapshot_steps(total_steps: int, every: int) -> list[int]:
    """Return the steps after which a row is written: 0 (the start), every ``every``-th, and the last."""
    return sorted({*range(0, total_steps + 1, every), total_steps})


class TrajectoryWriter:
    """Writes the rows of one run; rows may be written again after a resume, with the same bytes.

    With ``sketch`` > 0 every call of :meth:`write` also goes into a sketch of so many rows, which is part of the
    resume point, and ``sketch.npz`` at the end.
    """

    def __init__(self, folder: Path, model: nn.Module, steps: list[int], dtype: str, *, sketch: int = 0) -> None:
        self.path = folder / "trajectory.npy"
        self.steps = steps
        self._row = {step: row for row, step in enumerate(steps)}
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._sketch = FrequentDirections(sketch, self._flat(), most=steps[-1] + 1) if sketch else None
        self._data = self._open(len(steps), sum(p.numel() for p in self._parameters.values()), np.dtype(dtype))
        write_json(
            folder / "trajectory.json",
            {"steps": steps, "parameters": [[name, list(p.shape)] for name, p in self._parameters.items()]},
        )

    def _open(self, rows: int, columns: int, dtype: np.dtype) -> np.memmap:
        kept = np.empty((0, columns), dtype)
        if self.path.exists():  # a resumed run
            data = np.load(self.path, mmap_mode="r+")
            if data.shape == (rows, columns) and data.dtype == dtype:
                return data
            if data.shape[1:] == (columns,) and data.dtype == dtype:
                kept = data[:rows]  # a run that diverged was killed between its last truncation and its end
        # Renamed into place once it has its full size: a reader never maps a file that is still growing.
        with atomic_path(self.path) as temporary:
            whole = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=(rows, columns))
            _allocate(Path(temporary))
            whole[: len(kept)] = kept
            whole.flush()
        return np.load(self.path, mmap_mode="r+")

    def keeps(self, step: int) -> bool:
        """Whether anything is kept of ``step``."""
        return self._sketch is not None or step in self._row

    def write(self, step: int, weights: Tensor | None = None) -> None:
        """Write the weights after ``step`` if that step has a row; ``weights`` (P,) are they, if they are at hand."""
        if not self.keeps(step):
            return
        row = self._row.get(step)
        flat = self._flat() if weights is None else weights
        if self._sketch is not None:
            self._sketch.insert(flat)
        if row is not None:
            self._data[row] = flat.cpu().numpy()

    def _flat(self) -> Tensor:
        return torch.cat([p.detach().reshape(-1) for p in self._parameters.values()])

    def flush(self) -> None:
        """Hand the rows to the disk; called before the resume point that relies on them is written."""
        self._data.flush()

    def state(self) -> dict[str, Any] | None:
        """Return what a resume point must hold beside the rows on disk: the sketch, if there is one."""
        return None if self._sketch is None else self._sketch.state()

    def restore(self, state: dict[str, Any] | None) -> None:
        """Go back to a resume point."""
        if self._sketch is not None and state is not None:
            self._sketch.restore(state)

    def finish(self, *, diverged_at: int | None = None, stopped_at: int | None = None) -> None:
        """Complete the files. A run that diverged keeps the rows up to that step, and no sketch; one that was stopped
        before its end those before that step, and its weights now as the last."""
        if diverged_at is None and self._sketch is not None:
            self._sketch.finish().save(self.path.with_name("sketch.npz"))
        if diverged_at is not None:
            steps = [step for step in self.steps if step <= diverged_at]
            self._replace(steps, np.array(self._data[: len(steps)]))
        elif stopped_at is not None:
            steps = [step for step in self.steps if step < stopped_at]
            last = self._flat().cpu().numpy().astype(self._data.dtype)
            self._replace([*steps, stopped_at], np.concatenate([self._data[: len(steps)], last[None]]))
        self.flush()

    def _replace(self, steps: list[int], kept: np.ndarray) -> None:
        """Have the rows ``kept`` of ``steps``, and no others."""
        with atomic_path(self.path) as temporary, open(temporary, "wb") as handle:
            np.save(handle, kept)
        layout = [[name, list(p.shape)] for name, p in self._parameters.items()]
        write_json(self.path.with_suffix(".json"), {"steps": steps, "parameters": layout})


def _allocate(path: Path) -> None:
    """Take the disk space of a sparse file now: a memory map that finds none later kills the process.

    Raises:
        OSError: the disk is full.
    """
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as handle:
            try:
                os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)
            except OSError as error:
                raise OSError(error.errno, error.strerror, os.fspath(path)) from error
