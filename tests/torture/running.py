"""Runs a part: here, or in a process of its own."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

from .parts import PARTS
from .trial import Part, Tally


def run(part: Part, seconds: float) -> Tally:
    """Try ``part`` until it is through or its time is; print what breaks as it breaks."""
    began = time.monotonic()
    counts = {"survived": 0, "broke": 0, "skipped": 0}
    for trial in part.trials():
        counts[trial.outcome] += 1
        if trial.outcome != "survived":
            print(f"  {trial.outcome}: {trial.name}: {trial.detail}", flush=True)
        if time.monotonic() - began > seconds:
            print(f"  {part.name}: stopped after {seconds:.0f} s; --minutes gives it more", flush=True)
            break
    tally = Tally(part, **counts, seconds=time.monotonic() - began)
    print(f"{part.name}: {tally.tried} tried, {tally.survived} survived, {tally.skipped} skipped", flush=True)
    return tally


def run_apart(name: str, seconds: float) -> Tally:
    """:func:`run` in a process of its own: what a part leaves open (fonts, threads) is none of the next one's."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        counts = process.submit(_run_named, name, seconds).result()
    return Tally(PARTS[name], *counts)


def _run_named(name: str, seconds: float) -> tuple[int, int, int, float]:
    tally = run(PARTS[name], seconds)
    return tally.survived, tally.broke, tally.skipped, tally.seconds
