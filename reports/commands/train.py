"""``analyze train``: one run, or one for each combination of seeds, angles, learning rates and the like."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from alignscape.errors import InputError
from alignscape.files import write_text
from alignscape.recorded import read_record
from reports.commands.sweeps import refuse_idle_ray_flags, train_in_store
from reports.commands.train_flags import add_arguments, config_text, make_configs
from reports.trainer import train_configs

if TYPE_CHECKING:
    from training.config import TrainConfig
    from training.run_folder import RunFolder
    from training.store.sweep import Summary

__all__ = ["HELP", "add_arguments", "run"]

HELP = "train networks with a learning rule; write checkpoints, metrics and weight trajectories"


def run(args: argparse.Namespace) -> None:
    """Train what is asked for, in stacks where that is faster, and print a table of the results.

    Raises:
        InputError: flags that exclude each other or have no effect, and as ``train_many``.
        SystemExit: status 1 when a run of a sweep failed.
    """
    refuse_idle_ray_flags(args)
    if args.store is not None and args.out is not None:
        raise InputError("--store and --out exclude each other: the store names its folders itself")
    if args.store is None and args.executor != "serial":
        raise InputError(f"--executor {args.executor} needs --store DIR, where its processes leave the runs")
    if args.tensorboard and args.store is not None:
        raise InputError("--tensorboard and --store exclude each other: a store keeps what a run's key covers")
    configs = make_configs(args)
    if args.dump_config is not None:
        dump_config(configs, args.dump_config)
        return
    from reports.progress import TrainingDisplay
    from reports.subjects import find_data_root
    from training.tensorboard import EventFiles

    first = configs[0]  # what they share is not swept
    root = None if first.dataset == "digits" else find_data_root(args.data_root, Path())
    show = None if args.quiet else TrainingDisplay(first.epochs)
    if args.store is not None:
        runs, counts = train_in_store(args, configs, root, show)
        show_sweep(runs, counts)
        return
    events = EventFiles() if args.tensorboard else None
    finished = train_configs(
        configs,
        args.out,
        data_root=root,
        download=args.download,
        device=args.device,
        stack=args.stack,
        progress=show,
        report_plan=None if args.quiet else lambda line: print(line, file=sys.stderr, flush=True),
        on_epoch=events,
    )
    if events is not None:
        for done in finished:
            events.finish(done)
    print(summary(finished))
    if not args.quiet:
        report_monitors(finished)


def dump_config(configs: "list[TrainConfig]", path: Path) -> None:
    """Write the config file that asks for ``configs`` to ``path``, or to standard output if that is ``-``."""
    text = config_text(configs)
    if path == Path("-"):
        print(text, end="")
    else:
        write_text(path, text)


def show_sweep(runs: "list[RunFolder]", counts: "Summary") -> None:
    """Print the table of a sweep's runs; what failed and the counts go to stderr.

    Raises:
        SystemExit: status 1 when a run failed.
    """
    if runs:
        print(summary(runs))
        report_monitors(runs)
    for failure in counts.failed:
        print(f"{failure.job.label}: {failure.reason}", file=sys.stderr)
    print(f"{counts.computed['runs']} trained, {counts.reused['runs']} there already", file=sys.stderr)
    if counts.failed:
        raise SystemExit(2 if any(failure.damaged for failure in counts.failed) else 1)


def report_monitors(runs: "list[RunFolder]") -> None:
    """Say on stderr how often curvature was measured, and what share of the time that took."""
    records = [read_record(run_folder.path / "done.json") for run_folder in runs]
    measured = [record["monitor"] for record in records if "monitor" in record]
    if measured:
        shares = sorted({f"{100 * one['share']:.1f}" for one in measured}, key=float)
        counts = sorted({one["measurements"] for one in measured})
        share, count = (" to ".join(dict.fromkeys(map(str, (ends[0], ends[-1])))) for ends in (shares, counts))
        more = "; --monitor-every or a larger --monitor-share give more" if counts[0] == 1 else ""
        plural = "" if counts[-1] == 1 else "s"
        print(f"curvature: {count} measurement{plural} a run, {share} % of the time{more}", file=sys.stderr)


def summary(runs: "list[RunFolder]") -> str:
    """Return a text table with one line a run."""
    import pandas as pd

    from reports.subjects import run_columns
    from reports.tables import render
    from training.config import TrainConfig

    rows = []
    for run_folder in runs:  # from their tables: a thousand checkpoints would take seconds
        last = run_folder.read_metrics()[-1]
        names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds")
        record = read_record(run_folder.path / "done.json")
        diverged = {"diverged": "yes"} if record["diverged"] else {}
        if best := record.get("best"):
            diverged |= {"best_epoch": best["epoch"], "best_test_acc": best["test_accuracy"]}
        columns = run_columns(TrainConfig.from_dict(run_folder.read_config()["config"]), int(last["epoch"]))
        measured = {name.replace("accuracy", "acc"): last[name] for name in names}
        rows.append({"run": str(run_folder.path), **columns, **measured, **diverged})
    return render(pd.DataFrame(rows).dropna(axis="columns", how="all"), stacked=False)  # no angle where no rule has one
