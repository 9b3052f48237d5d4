"""A part in a process of its own: its time limit holds even where it hangs, and what it has said by then is kept."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.gpu.missing import missing
from benchmarks.gpu.parts import Part

State = Literal["passed", "failed", "done", "cut short", "broke", "skipped"]
ROOT = Path(__file__).resolve().parent.parent.parent

_living: set[int] = set()  # leaders of the process groups of the parts that run
_log_lock = threading.Lock()


@dataclass
class Outcome:
    """What became of a part.

    Attributes:
        part: which.
        state: ``passed``, ``failed``: what it checked held, or did not; ``done``: it measured what it had to;
            ``cut short``: its time was over; ``broke``: it ended with an error; ``skipped``: it could not be tried.
        line: the result in words.
        seconds: that it took.
        limit: seconds that it had.
        said: what it said (:class:`benchmarks.gpu.parts.Report`), in order.
    """

    part: Part
    state: State
    line: str
    seconds: float = 0.0
    limit: float = 0.0
    said: list[dict[str, Any]] = field(default_factory=list)

    @property
    def fails(self) -> bool:
        """Whether the command fails with it."""
        return self.part.decides and self.state not in ("passed", "done", "skipped")

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        about = {"name": self.part.name, "title": self.part.title, "decides": self.part.decides}
        numbers = {"seconds": round(self.seconds, 1), "limit": round(self.limit, 1)}
        return {**about, "state": self.state, "line": self.line, **numbers, "said": self.said}


def run_part(part: Part, command: Sequence[str], *, seconds: float, log: Path, **given: object) -> Outcome:
    """Run ``command``, which does the work of ``part``, for at most ``seconds``.

    Args:
        part: what is run.
        command: it is given ``--rows FILE --folder DIR --seconds S`` and the words below.
        seconds: after them it is killed, with every process that it has started.
        log: its output is added to this file.
        given: other words of the command, by name; None is left out.
    """
    if lacking := missing(part.needs):
        return Outcome(part, "skipped", f"{', '.join(lacking)} is not installed here")
    if seconds < 1:
        return Outcome(part, "skipped", "no time was left")
    words = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
    # A process that a kill has not ended yet may still write there.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        rows, printed = Path(folder) / "rows.jsonl", Path(folder) / "log"
        rows.touch()
        own = ["--rows", str(rows), "--folder", folder, "--seconds", f"{seconds:.1f}"]
        began = time.monotonic()
        with printed.open("w", encoding="utf-8") as output:
            status = _wait([*command, *own, *words], seconds, output)
        took = time.monotonic() - began
        with _log_lock, log.open("a", encoding="utf-8") as whole:  # in one piece, whatever runs beside it
            whole.write(f"\n== {part.name}\n{printed.read_text(encoding='utf-8', errors='replace')}")
        return judged(part, status, read_rows(rows), took, seconds)


def _wait(command: Sequence[str], seconds: float, output: Any) -> int | None:
    """Return the exit status, None if the command was killed because its time was over."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    # A session of its own, so that whatever it starts can be killed with it.
    process = subprocess.Popen(
        command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=variables, start_new_session=True
    )
    _living.add(process.pid)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _kill(process.pid)
        process.wait()
        _living.discard(process.pid)


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def end_all(number: int, frame: object) -> None:
    """Kill every part that runs, and end: what to do on a signal to end."""
    for group in list(_living):
        _kill(group)
    raise SystemExit(128 + number)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return what was said, without a last line of which only a part was written."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def judged(part: Part, status: int | None, said: list[dict[str, Any]], took: float, limit: float) -> Outcome:
    """Say what became of a part that ended with ``status`` (None: it was killed at its limit)."""
    counts = Counter(one["outcome"] for one in said if one["kind"] == "check")
    lines = [one["text"] for one in said if one["kind"] == "line"]
    tally = ", ".join(f"{counts[name]} {name}" for name in ("passed", "failed", "skipped") if counts[name])
    state: State
    if status is None:
        state, how = "cut short", f"after {limit:.0f} s"
    elif status:
        state, how = "broke", f"ended with status {status}: see the log"
    elif counts["failed"]:
        state, how = "failed", ""
    elif part.decides:
        state, how = ("passed" if counts["passed"] else "skipped"), ""
    else:
        state, how = "done", ""
    failed = [one["name"] for one in said if one["kind"] == "check" and one["outcome"] == "failed"]
    names = "failed: " + ", ".join(failed[:3]) + (" and more" if len(failed) > 3 else "") if failed else ""
    words = [how, tally, names, *lines[-1:]]
    return Outcome(part, state, "; ".join(filter(None, words)), took, limit, said)
