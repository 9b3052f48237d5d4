"""Jobs for the tests of sweeps, which workers import by name, and a driver to kill: ``python sweep_jobs.py STORE LOG``.

Each analysis leaves a line in a log when it begins and one when it ends.
"""

import os
import sys
import time
from pathlib import Path

SECONDS = 4.0  # that an analysis takes: Ray needs one or two to notice a death, more on a machine with other work


def measure(folder: Path, inputs: dict[str, Path], *, device: str, data_root: Path | None, log: str, seconds: float):
    """Write the test accuracy of each input checkpoint, slowly."""
    from training.checkpoint import load_checkpoint

    what = "+".join(path.parent.name for path in inputs.values())
    note(log, f"begin {what} {os.getpid()}")
    time.sleep(seconds)
    rows = [f"{name},{load_checkpoint(path).metrics['test_accuracy']}" for name, path in inputs.items()]
    (folder / "result.csv").write_text("name,accuracy\n" + "\n".join(rows) + "\n")
    note(log, f"end {what} {os.getpid()}")


def refuse(folder: Path, inputs: dict[str, Path], *, device: str, data_root: Path | None):
    """Fail."""
    raise ArithmeticError("no luck\nand more of it")


def die(folder: Path, inputs: dict[str, Path], *, device: str, data_root: Path | None):
    """Take the process down, as the kernel does when memory runs out."""
    os.kill(os.getpid(), 9)


def note(log: str, line: str) -> None:
    """Append a line; one write, so that processes do not mix theirs."""
    with open(log, "a") as handle:
        handle.write(line + "\n")


def sweep(log: str, seconds: float) -> list:
    """Return six runs on the digits, an analysis of each, and one of all."""
    from training.config import TrainConfig
    from training.store.jobs import AnalysisJob, TrainJob

    runs = [
        TrainJob(config=TrainConfig(rule=rule, hidden=(8,), epochs=2, seed=seed))
        for rule in ("bp", "fa", "dfa")
        for seed in (0, 1)
    ]

    def analysis(*jobs: TrainJob) -> AnalysisJob:
        return AnalysisJob(
            name="measure",
            version=1,
            function="sweep_jobs:measure",
            inputs={str(i): job.file() for i, job in enumerate(jobs)},
            parameters={"log": log, "seconds": seconds},
        )

    return [*map(analysis, runs), analysis(*runs)]


def run_here(root: str, log: str, seconds: float = 0.02) -> None:
    """Carry out the sweep in this process, on one thread."""
    import torch

    from training.store.cluster import execute
    from training.store.run_store import RunStore

    torch.set_num_threads(1)
    summary = execute(sweep(log, seconds), RunStore(Path(root)))
    assert not summary.failed, summary.failed


if __name__ == "__main__":
    from training.store.cluster import execute
    from training.store.run_store import RunStore

    summary = execute(sweep(sys.argv[2], SECONDS), RunStore(Path(sys.argv[1])), executor="ray", workers=2)
    sys.stdout.write(f"{summary}\n")
