"""A stack killed with SIGKILL on the device and called again: every file as an undisturbed one leaves it, bit by bit.

The CPU's version of this, with more moments and stacks, is ``tests/torture/kills.py``, whose comparison this uses.
"""

import dataclasses
import multiprocessing
import time
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.gpu import missing  # noqa: F401  before anything of ours: this is imported by the killed ones too
from benchmarks.gpu.parts import Report, Setup
from tests.torture.kills import Moment, differences, kill_at

SEEDS = 4
FIELDS = {"hidden": (48,), "epochs": 6, "batch_size": 50, "train_size": 600, "checkpoint_every": 2}
SNAPSHOTS = {"snapshot_every": 10, "snapshot_sketch": 4}
PATIENCE = 120  # seconds for a training that takes one or two, the start of CUDA left out
MOMENTS = (
    Moment("as the first save is put in force", "*/resume.pt"),
    Moment("after half of the steps", share=0.5),
    Moment("as the first network is finished", "*/done.json"),
)


def resume(setup: Setup, report: Report) -> None:
    """Kill at each moment and compare. Networks with feedback that is fixed, and with one that learns."""
    context = multiprocessing.get_context("forkserver")  # children that have torch already, and no CUDA yet
    context.set_forkserver_preload(["benchmarks.gpu.resume", "training.loop", "training.data"])
    for rule in ("fa", "pfa"):
        whole = setup.folder / f"{rule} whole"
        seconds = complete(context, rule, whole, setup.device)
        for moment in MOMENTS:
            cut = setup.folder / f"{rule} {moment.name}"
            killed, after = kill(context, rule, cut, setup.device, moment, seconds)
            complete(context, rule, cut, setup.device)
            found = differences(cut, whole)
            name = f"kill -9 of a stack of {SEEDS} {rule}, {moment.name}"
            detail = "; ".join(found[:2]) if killed else "the training ended before the kill"
            report.check(name, not found if killed else None, detail)
            report.row(
                "resume", stack=f"{SEEDS} {rule}", killed=moment.name, after_s=round(after, 2), differ=len(found)
            )
    report.line("every file of the killed stacks compared with an undisturbed one's")


def trainee(rule: str, out: str, device: str, began: Any) -> None:
    """Train the stack in ``out``; ``began`` is set when the data is on the device."""
    import torch

    from training.config import TrainConfig
    from training.data import load_dataset
    from training.loop import train_many

    torch.set_num_threads(1)
    config = TrainConfig(rule=rule, expansion=2, **FIELDS, **SNAPSHOTS)  # type: ignore[arg-type]
    data = load_dataset("digits", train_size=config.train_size, device=device)
    jobs = [(dataclasses.replace(config, seed=seed), Path(out) / f"seed-{seed}") for seed in range(SEEDS)]
    began.set()
    with mock.patch("alignscape.version._git_commit", return_value=None):  # somebody may commit meanwhile
        train_many(jobs, data, stack=SEEDS)


def complete(context: Any, rule: str, out: Path, device: str) -> float:
    """Train to the end; return the seconds from when the data was on the device."""
    child, started = _begin(context, rule, out, device)
    child.join(PATIENCE)
    if child.exitcode != 0:
        child.kill()
        raise RuntimeError(f"the training in {out.name} ended with status {child.exitcode}")
    return time.monotonic() - started


def kill(context: Any, rule: str, out: Path, device: str, moment: Moment, seconds: float) -> tuple[bool, float]:
    """Begin to train and kill at ``moment`` of a training that takes ``seconds``; return whether it was still alive,
    and after how long."""
    child, started = _begin(context, rule, out, device)
    return kill_at(moment, child, started, out, seconds)


def _begin(context: Any, rule: str, out: Path, device: str) -> tuple[Any, float]:
    began = context.Event()
    child = context.Process(target=trainee, args=(rule, str(out), device, began))
    child.start()
    began.wait(PATIENCE)
    return child, time.monotonic()
