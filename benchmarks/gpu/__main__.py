"""`make gpu`: everything that this project promises on a GPU, tried and timed, within so many minutes.

    python -m benchmarks.gpu --out DIR [--minutes 8] [--data-root DIR] [PART ...]
    python -m benchmarks.gpu --device cpu --out DIR     # a rehearsal: the same code with less, where no GPU is

Parts go in order of worth, each in a process of its own that is killed when its time is over; what it has found by then
stays. DIR gets gpu.json and gpu.md after every part, and gpu.log. Nothing is downloaded: images are random bytes unless
--data-root has CIFAR-10. Without a module that a part needs, that part is skipped by name.

The exit status is 1 if tests, equality or resume failed, broke or ran out of time, 2 if nothing could be tried.
"""

import argparse
import itertools
import os
import platform
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.gpu.missing import missing
from benchmarks.gpu.parts import PARTS, Part
from benchmarks.gpu.running import Outcome, end_all, run_part

WORK = (sys.executable, "-m", "benchmarks.gpu.work")


def hardware(device: str) -> tuple[str, str | None]:
    """Return what the parts will run on, and why they cannot, if they cannot."""
    if missing(["torch"]):
        return "", "torch is not installed here"
    import torch

    if device == "cpu":
        return f"{platform.machine()} CPU, {os.cpu_count()} cores", None
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        return "", f"torch {torch.__version__}, {built}, sees no GPU; --device cpu rehearses the command without one"
    return f"{torch.cuda.get_device_name()}, {torch.cuda.get_device_properties(0).total_memory / 1e9:.0f} GB", None


def versions() -> dict[str, str]:
    """Return the versions of what counts."""
    import torch

    cuda = {"CUDA": torch.version.cuda} if torch.version.cuda else {}
    return {"Python": platform.python_version(), "torch": torch.__version__, **cuda}


class Record:
    """What is found so far, written after every part."""

    def __init__(self, out: Path, about: dict[str, Any], table: Path | None, order: Sequence[Part]) -> None:
        self.out, self.about, self.table = out, about, table
        self.order = [part.name for part in order]
        self.outcomes: dict[str, Outcome] = {}
        self.began = time.monotonic()
        self.lock = threading.Lock()

    def add(self, outcome: Outcome) -> None:
        """Add what became of a part, and print its line."""
        from alignscape.files import write_json, write_text
        from benchmarks.gpu.tables import lines, write_between

        with self.lock:
            self.outcomes[outcome.part.name] = outcome
            print(f"{outcome.part.name:11}{outcome.state:10}{outcome.seconds:6.0f} s  {outcome.line}", flush=True)
            parts = [self.outcomes[name].to_dict() for name in self.order if name in self.outcomes]
            found = {**self.about, "seconds": round(time.monotonic() - self.began, 1), "parts": parts}
            write_json(self.out / "gpu.json", found)
            write_text(self.out / "gpu.md", "\n".join(lines(found)))
            if self.table is not None:
                write_between(self.table, found)

    @property
    def failed(self) -> bool:
        """Whether the command fails."""
        return any(outcome.fails for outcome in self.outcomes.values())


def together(parts: Sequence[Part], device: str) -> Iterator[list[Part]]:
    """Yield parts that go side by side: what is not timed, where there are cores and memory for it."""
    for untimed, group in itertools.groupby(parts, key=lambda part: part.decides and device == "cuda"):
        members = list(group)
        yield from [members] if untimed else [[part] for part in members]


def run(parts: Sequence[Part], args: argparse.Namespace, record: Record) -> None:
    """Run the parts, each within its share of what is left of the time."""
    total = 60 * args.minutes
    few = max(1.0, 1 / sum(part.share for part in parts))  # those that are wanted share the time of those that are not
    given = {"device": args.device, "data-root": args.data_root, "so-far": args.out / "gpu.json"}
    log = args.out / "gpu.log"
    for group in together(parts, args.device):
        left = total - (time.monotonic() - record.began)
        with ThreadPoolExecutor(len(group)) as pool:
            jobs = []
            for part in group:
                seconds = min(left, total * part.share * few)
                command = [*WORK, part.name]
                jobs.append(pool.submit(run_part, part, command, seconds=seconds, log=log, **given))
            for job in as_completed(jobs):
                record.add(job.result())


def arguments() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"all, or some of: {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder of the results (default: gpu)")
    parser.add_argument("--minutes", type=float, default=8, help="for all of it (default: 8)")
    parser.add_argument("--data-root", type=Path, help="folder with CIFAR-10 (default: random bytes)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu rehearses (default: cuda)")
    parser.add_argument("--table", type=Path, metavar="FILE", help="also write the tables between this page's markers")
    return parser


def main() -> int:
    parser = arguments()
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if args.table is not None:
        from benchmarks.gpu.tables import has_markers

        if not has_markers(args.table):
            parser.error(f"--table {args.table}: it has no markers for the tables")
    where, reason = hardware(args.device)
    if reason is not None:
        print(f"benchmarks.gpu: {reason}", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "gpu.log").write_text("")
    parts = [part for name, part in PARTS.items() if name in (args.parts or PARTS)]
    command = shlex.join(["python", "-m", "benchmarks.gpu", *sys.argv[1:]])
    about = {"created": time.strftime("%Y-%m-%d %H:%M", time.gmtime()), "command": command, "device": args.device}
    about |= {"hardware": where, "versions": versions(), "minutes": args.minutes}
    record = Record(args.out, about, args.table, parts)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end_all)
    run(parts, args, record)
    return int(record.failed)


if __name__ == "__main__":
    sys.exit(main())
