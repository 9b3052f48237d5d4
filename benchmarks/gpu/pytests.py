"""The tests marked ``cuda``, each result as it comes."""

import os
import re
from pathlib import Path

import pytest

from benchmarks.gpu.missing import imported_by, missing
from benchmarks.gpu.parts import Report, Setup
from benchmarks.gpu.running import ROOT

MARKED = re.compile(r"mark\.cuda|import DEVICES|import GPU")  # the last two are of tests/devices.py
WORKERS = 4  # most processes that share the device


class Outcomes:
    """A pytest plug-in that reports every test."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.ran = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.removeprefix("tests/")
        if report.when == "call" or report.failed:
            self.ran += not report.skipped
            passed = None if report.skipped else report.passed
            self.report.check(name, passed, "" if report.passed else f"in its {report.when}: see the log")
        elif report.skipped:
            self.report.check(name, None, report.longrepr[2] if isinstance(report.longrepr, tuple) else "")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.report.check(report.nodeid.removeprefix("tests/"), False, "it cannot be collected: see the log")


def files(folder: Path) -> list[Path]:
    """Return the files of ``folder`` with a test that is marked ``cuda``."""
    return [path for path in sorted(folder.glob("test_*.py")) if MARKED.search(path.read_text(encoding="utf-8"))]


def tests(setup: Setup, report: Report) -> None:
    """Run the marked tests of every file whose imports are here. Without CUDA they skip themselves, by name."""
    os.chdir(ROOT)
    chosen = []
    for path in files(ROOT / "tests"):
        own = {other.stem for other in path.parent.glob("*.py")}
        if lacking := missing(set(imported_by(path)) - own):
            report.check(path.name, None, f"{', '.join(lacking)} is not installed here")
        else:
            chosen.append(str(path.relative_to(ROOT)))
    workers = min(WORKERS, os.cpu_count() or 1)
    together = ["-n", str(workers)] if setup.device == "cuda" and not missing(["xdist"]) else []
    words = ["-m", "cuda", "-q", "-p", "no:cacheprovider", f"--basetemp={setup.folder}/tests", *together, *chosen]
    outcomes = Outcomes(report)
    status = pytest.main(words, plugins=[outcomes])
    if setup.device == "cuda" and chosen and not outcomes.ran:
        report.check("some test that is marked runs", False, "each skipped itself, though there is a GPU")
    report.line(f"{len(chosen)} files")
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise SystemExit(int(status))
