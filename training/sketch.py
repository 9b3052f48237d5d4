"""A sketch of the weights after every step of a run, in memory that does not grow with the number of steps.

Frequent directions (Liberty 2013; Ghashami et al. 2016) keep, of the rows x_t = theta_t - theta_0 that pass by, a
matrix B of a few rows with ``0 <= X^T X - B^T B <= S I``, where S is the sum of what was shrunk: a certificate that is
counted as the run goes. With the exact sum of the rows and the last row, the scatter about the final weights, or
about the mean, follows by a correction of rank two (:mod:`landscape.sketch`).
"""

import math
from typing import Any

import torch
from torch import Tensor

from alignscape.sketch import Sketch
from training.precision import products

_COLUMNS = 2**17  # weights handled at a time


class FrequentDirections:
    """Takes rows (P,) and keeps at most 2 L of them, float32, on their device.

    A full buffer is shrunk to L rows: its singular values s_i become sqrt(s_i^2 - s_{L+1}^2), and those after the
    L-th vanish. So each shrinking takes at least (L + 1) s_{L+1}^2 of the squared Frobenius norm, which bounds their
    sum: S <= |X - X_k|_F^2 / (L + 1 - k) for every k <= L (X_k: the best approximation of rank k).
    """

    def __init__(self, rows: int, start: Tensor, *, most: int | None = None) -> None:
        """Make room for ``rows`` = L of weights like ``start`` (P,), and for no more than ``most`` rows that come."""
        self.rows = rows
        self.start = start.detach().clone()
        held = 2 * rows if most is None else min(2 * rows, most)
        self.buffer = torch.zeros(held, len(start), dtype=torch.float32, device=start.device)
        self.used = 0  # rows in the buffer; of these the first `kept` are what earlier ones were shrunk to
        self.kept = 0
        self.count = 0  # rows seen
        self.shrinkage = 0.0  # S
        self.square_sum = 0.0  # sum of |x_t|^2 over the rows that are no longer pending
        self.sum = torch.zeros(len(start), dtype=torch.float64, device=start.device)  # of the same rows

    def insert(self, weights: Tensor) -> None:
        """Add the row ``weights - start`` (P,)."""
        if self.used == len(self.buffer):
            self._shrink()
        torch.sub(weights, self.start, out=self.buffer[self.used])
        self.used += 1
        self.count += 1

    def _shrink(self) -> None:
        gram = self._absorb()
        if not math.isfinite(self.square_sum):  # the run has diverged and keeps no sketch: start over, to no end
            self.used = self.kept = 0
            return
        values, vectors = torch.linalg.eigh(gram)  # on the host: small, and the same bits wherever the run is
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
        cut = values[self.rows].item()
        scale = (1 - cut / values[: self.rows].clamp_min(torch.finfo(torch.float64).tiny)).clamp_min(0).sqrt()
        turn = (vectors[:, : self.rows] * scale).T.to(self.buffer)
        with products("fp32"):
            for block in self.buffer[: self.used].split(_COLUMNS, dim=1):
                block[: self.rows] = turn @ block
        self.shrinkage += cut
        self.used = self.kept = self.rows

    def _absorb(self) -> Tensor:
        """Count the pending rows in the sums, and return the Gram matrix of the buffer, float64, on the host."""
        held = self.buffer[: self.used]
        gram = torch.zeros(self.used, self.used, dtype=torch.float64, device=held.device)
        with products("fp32"):
            for block in held.split(_COLUMNS, dim=1):
                gram += block @ block.T
        gram = gram.cpu()
        self.square_sum += gram.diagonal()[self.kept :].sum().item()
        self.sum += held[self.kept :].sum(0)
        self.kept = self.used
        return gram

    def state(self) -> dict[str, Any]:
        """Return everything that moves; :meth:`restore` undoes it."""
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        # clone(): a view would drag the whole buffer into the file.
        return {**numbers, "buffer": self.buffer[: self.used].clone(), "sum": self.sum.clone(), "start": self.start}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to :meth:`state`."""
        for name in _NUMBERS:
            setattr(self, name, state[name])
        self.buffer[: self.used] = state["buffer"].to(self.buffer)
        self.sum.copy_(state["sum"])
        self.start.copy_(state["start"])

    def finish(self) -> Sketch:
        """Return the sketch of the rows so far. No shrinking is done for it: it may hold up to 2 L rows."""
        last = self.buffer[self.used - 1].clone()
        self._absorb()
        host = {name: getattr(self, name).cpu().numpy() for name in ("start", "sum")}
        return Sketch(
            rows=self.buffer[: self.used].cpu().numpy(),
            **host,
            last=last.cpu().numpy(),
            count=self.count,
            square_sum=self.square_sum,
            shrinkage=self.shrinkage,
        )


_NUMBERS = ("used", "kept", "count", "shrinkage", "square_sum")
