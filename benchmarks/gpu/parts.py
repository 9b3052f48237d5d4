"""What there is to do, in order of worth. Nothing heavy is imported here."""

import json
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO


@dataclass(frozen=True)
class Part:
    """A part of the command, done in a process of its own.

    Attributes:
        name: on the command line.
        title: what it does, in words.
        function: ``"module:name"`` in this package; called with a :class:`Setup` and a :class:`Report`.
        share: of the whole time, that it may take at most; what others leave does not raise it, but for the last part.
        decides: whether the command fails where it does; such parts are not timed and go side by side on a GPU.
        needs: modules without which it is skipped.
    """

    name: str
    title: str
    function: str
    share: float
    decides: bool = False
    needs: tuple[str, ...] = ()


PARTS = {
    part.name: part
    for part in (
        Part("tests", "the tests marked `cuda`", "pytests:tests", 0.3, True, ("pytest",)),
        Part("equality", "steps on the device are the steps of the CPU", "equality:equality", 0.3, True),
        Part("resume", "`kill -9` and resume, bit-identical", "resume:resume", 0.3, True),
        Part("training", "training against eager and compiled PyTorch and the floor", "speed:training", 0.3),
        Part("landscape", "`benchmarks.landscape` on the device", "speed:landscape", 0.1),
        Part("surface", "`benchmarks.surface` on the device", "speed:surfaces", 0.06),
        Part("robustness", "`benchmarks.robustness` on the device", "speed:robustness", 0.1),
        Part("smoke", "`analyze figures`, profile smoke, projected and made", "figures:smoke", 0.3),
        Part("paper", "`analyze figures --profile paper`: projected, and figures 1, 2, 4, 5, 7", "figures:paper", 1.0),
    )
}


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a part works with.

    Attributes:
        device: ``"cuda"``, or ``"cpu"`` for a rehearsal, which does the same with less.
        folder: for what it writes; removed after it.
        seconds: that it may take.
        data_root: folder with CIFAR-10; None: random bytes of its shape.
        so_far: file with what other parts have found, which need not exist.
        began: when, by ``time.monotonic()``.
    """

    device: str
    folder: Path
    seconds: float
    data_root: Path | None = None
    so_far: Path | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def small(self) -> bool:
        """Whether this is a rehearsal."""
        return self.device == "cpu"

    @property
    def left(self) -> float:
        """Seconds until the part is killed."""
        return self.seconds - (time.monotonic() - self.began)


class Report:
    """Where a part says what it finds, as it finds it: what is said stays, whatever becomes of the part.

    Each call appends one line of JSON to ``stream``.
    """

    def __init__(self, stream: TextIO, device: str) -> None:
        self.stream = stream
        self.device = device

    def _say(self, kind: str, content: dict[str, Any]) -> None:
        self.stream.write(json.dumps({"kind": kind, **content}) + "\n")
        self.stream.flush()

    def row(self, table: str, **columns: object) -> None:
        """Add a row to a table; equal tables have equal columns."""
        self._say("row", {"table": table, "columns": columns})

    def check(self, name: str, passed: bool | None, detail: str = "") -> None:
        """Say whether what is promised holds; None: it could not be tried, and ``detail`` says why."""
        outcome = "skipped" if passed is None else "passed" if passed else "failed"
        self._say("check", {"name": name, "outcome": outcome, "detail": detail})

    def target(self, name: str, *, target: float, measured: float, unit: str, most: bool) -> None:
        """Hold a measured number against a target: the ``most`` that is allowed, or the least."""
        met = measured <= target if most else measured >= target
        numbers = {"target": target, "measured": measured, "unit": unit, "most": most, "met": met}
        self._say("target", {"name": name, **numbers})

    def line(self, text: str) -> None:
        """Say in a line what the part came to so far; the last one counts."""
        self._say("line", {"text": text})

    def memory(self, what: str) -> None:
        """Add the peak memory since the last call: what tensors took of a GPU, and what the allocator held for them; of
        a rehearsal, the largest size of the process so far."""
        if self.device != "cuda":
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            self.row("memory", what=what, tensors_gb="", held_gb="", process_gb=round(peak / 1e9, 3))
            return
        import torch

        held = torch.cuda.max_memory_reserved() / 1e9
        tensors = torch.cuda.max_memory_allocated() / 1e9
        self.row("memory", what=what, tensors_gb=round(tensors, 3), held_gb=round(held, 3), process_gb="")
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
