"""Stacks killed with SIGKILL at random moments, at the start, inside the first save and at the finish: the same command
ends with every file as an undisturbed one leaves it, bit by bit, the seconds aside."""

import csv
import json
import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .trial import Trial

KEPT = "--dataset digits --train-size 600 --hidden 48 --epochs 6 --batch-size 50 --checkpoint-every 2"
SNAPSHOTS = "--snapshot-every 10 --snapshot-sketch 4"
STACKS = {
    "a stack of four": f"--rule fa {KEPT} {SNAPSHOTS} --seeds 0..3 --stack 4",
    "a stack in which networks diverge": f"--rule fa {KEPT} {SNAPSHOTS} --seeds 0 1 --lrs .001 1e9 --stack 4",
    "a stack with plastic feedback": f"--rule pfa --expansion 2 {KEPT} {SNAPSHOTS} --seeds 0..2 --stack 3",
}
PATIENCE = 300  # seconds for a command that takes one or two: others may use the cores


class Moment(NamedTuple):
    """When to kill: as soon as a file is there that matches ``pattern``, or a share of the whole time has passed."""

    name: str
    pattern: str | None = None
    share: float = 0.0


MOMENTS = (
    Moment("as the first folder is made", "*/config.json"),
    Moment("in the first save", "*/resume-next.pt"),
    Moment("as the first save is put in force", "*/resume.pt"),
    Moment("as the first network is finished", "*/done.json"),
)


def kills(count: int = 40, seed: int = 0) -> Iterator[Trial]:
    """Try ``count`` kills, spread over :data:`STACKS`; yield what came of each."""
    context = multiprocessing.get_context("forkserver")  # children that have torch already, and no threads
    context.set_forkserver_preload(["reports.cli", "reports.trainer", "training.loop", "training.tensorboard"])
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as root:
        wholes: dict[str, tuple[Path, float]] = {}
        for i in range(count):
            name = list(STACKS)[i % len(STACKS)]
            flags = STACKS[name].split()
            if name not in wholes:
                folder = Path(root) / f"whole-{len(wholes)}"
                wholes[name] = folder, _complete(context, flags, folder)
            folder, seconds = wholes[name]
            round_ = i // len(STACKS)
            moment = MOMENTS[round_] if round_ < len(MOMENTS) else Moment("at random", share=draw.uniform(0, 1))
            cut = Path(root) / "cut"
            killed, after = _kill(context, flags, cut, moment, seconds)
            while not killed and moment.pattern is None:  # the machine has less to do than when it was timed
                shutil.rmtree(cut)
                wholes[name] = folder, 0.8 * wholes[name][1]
                killed, after = _kill(context, flags, cut, moment, wholes[name][1])
            _complete(context, flags, cut)
            found = differences(cut, folder)
            shutil.rmtree(cut)
            what = f"kill -9 of {name}, {moment.name} ({after:.2f} s)"
            if not killed:
                yield Trial(what, "skipped", "the command ended before the kill")
            else:
                yield Trial(what, "broke" if found else "survived", "; ".join(found[:4]))


def _train(flags: list[str], out: str) -> None:
    import torch

    from reports.cli import main

    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    raise SystemExit(main(["train", *flags, "--out", out, "--quiet", "--device", "cpu"]))


def _complete(context: Any, flags: list[str], out: Path) -> float:
    """Run the command to its end; return its seconds."""
    began = time.monotonic()
    child = context.Process(target=_train, args=(flags, str(out)))
    child.start()
    child.join(PATIENCE)
    if child.exitcode != 0:
        child.kill()
        raise RuntimeError(f"train {' '.join(flags)} ended with status {child.exitcode}")
    return time.monotonic() - began


def _kill(context: Any, flags: list[str], out: Path, moment: Moment, seconds: float) -> tuple[bool, float]:
    """Start the command and kill it at ``moment``; see :func:`kill_at`."""
    began = time.monotonic()
    child = context.Process(target=_train, args=(flags, str(out)))
    child.start()
    return kill_at(moment, child, began, out, seconds)


def kill_at(moment: Moment, child: Any, began: float, out: Path, seconds: float) -> tuple[bool, float]:
    """Kill a process, which writes below ``out`` since ``began`` and takes ``seconds``, at ``moment``; return whether
    it was still alive, and after how long."""
    is_time: Callable[[], bool]
    if moment.pattern is None:
        is_time = lambda: time.monotonic() - began > moment.share * seconds  # noqa: E731
    else:
        is_time = lambda: any(out.glob(moment.pattern))  # noqa: E731
    while child.is_alive() and not is_time():
        time.sleep(0.0005)
    child.kill()
    child.join()
    return child.exitcode != 0, time.monotonic() - began


def differences(ours: Path, theirs: Path) -> list[str]:
    """Return a line for each file below two folders that is not in both, or differs in more than its seconds."""
    names = [{path.relative_to(root) for path in root.rglob("*") if path.is_file()} for root in (ours, theirs)]
    lines = [f"{name} is in one of them only" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        a, b = contents(ours / name), contents(theirs / name)
        if changed := [key for key in a | b if a.get(key) != b.get(key)]:
            lines.append(f"{name} differs in {len(changed)} places, {changed[0]} first")
    return lines


def contents(path: Path) -> dict[str, Any]:
    """Return what a file holds by name, tensors as bytes, without the seconds that the training took."""
    if path.suffix == ".pt":
        import torch

        found = dict(_leaves(torch.load(path, weights_only=True)))
        return {k: v.numpy().tobytes() if isinstance(v, torch.Tensor) else repr(v) for k, v in found.items() if _is(k)}
    if path.name == "metrics.csv":
        with path.open(newline="") as handle:
            return {f"{i}.{k}": v for i, row in enumerate(csv.DictReader(handle)) for k, v in row.items() if _is(k)}
    if path.name == "done.json":  # with digests of files that hold seconds, sealed
        return {k: repr(v) for k, v in json.loads(path.read_text()).items() if k not in ("seconds", "files", "seal")}
    return {"bytes": path.read_bytes()}


def _is(name: str) -> bool:
    return name.rsplit(".", 1)[-1] != "seconds"


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}")
    else:
        yield name, value
