"""``analyze train --store``: runs under their keys, trained here or by Ray."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignscape.errors import InputError
from reports.commands.train_flags import sink_choices
from reports.trainer import root_for

if TYPE_CHECKING:
    from training.config import TrainConfig
    from training.run_folder import RunFolder
    from training.store.sweep import Summary

MOST_FAILURES = 20  # that are named one by one


def refuse_idle_ray_flags(args: argparse.Namespace) -> None:
    """Refuse the flags of ``--executor ray`` beside another executor.

    Raises:
        InputError: one of them was given.
    """
    for flag, value in (("--ray-address", args.ray_address), ("--workers", args.workers)):
        if args.executor != "ray" and value is not None:
            raise InputError(f"{flag} has an effect with --executor ray only: leave it out")


def train_in_store(
    args: argparse.Namespace, configs: "Sequence[TrainConfig]", root: Path | None
) -> "tuple[list[RunFolder], Summary]":
    """Train what the store ``args.store`` does not have; return the runs that are there in the end, in order.

    Raises:
        InputError: the data set cannot be read; Ray is missing, or not where it was said to be; memory is.
    """
    from alignscape.device import resolve_device
    from reports.progress import SweepDisplay, TrainingDisplay
    from training.data import load_dataset
    from training.memory import require_room_for_each
    from training.names import run_names
    from training.sinks import Sinks
    from training.store.cluster import execute
    from training.store.jobs import TrainJob
    from training.store.run_store import RunStore

    if args.download:
        for dataset in dict.fromkeys(config.dataset for config in configs):
            load_dataset(dataset, root_for(dataset, root), download=True)
    serial = args.executor == "serial"
    if serial:  # the workers of others may have more memory, or less
        require_room_for_each(configs, resolve_device(args.device))
    store = RunStore(args.store)
    root = None if root is None else Path(os.path.realpath(root))
    jobs = [TrainJob(config=config, data_root=root_for(config.dataset, root)) for config in configs]
    runs = [job.folder(store) for job in jobs]  # fails at once where the data cannot be read
    names = dict(zip((run.path.name for run in runs), run_names(configs), strict=True))
    choices = sink_choices(args, names)
    sinks = Sinks(choices)  # says at once what is missing
    where = {name: getattr(args, name) for name in ("executor", "ray_address", "workers", "device", "stack")}
    watch = None if args.quiet or serial else SweepDisplay()
    show = None if args.quiet or not serial else TrainingDisplay(names)
    summary = execute(jobs, store, watch=watch, training_progress=show, sinks=choices, **where)
    done = [run for run in runs if run.is_done]
    for run in done:  # those that were there before have their metrics taken now
        sinks.finish(run)
    return done, summary


def show_failures(summary: "Summary", store: Path) -> None:
    """Say on stderr which jobs failed, each with its reason and the file of its log."""
    for failure in summary.failed[:MOST_FAILURES]:
        print(f"{failure.name or failure.job.label}: {failure.reason}", file=sys.stderr)
        if failure.log is not None:
            print(f"  log: {failure.log}", file=sys.stderr)
    if (more := len(summary.failed) - MOST_FAILURES) > 0:
        print(f"and {more} more failed; their logs are in {store / 'logs'}", file=sys.stderr)
