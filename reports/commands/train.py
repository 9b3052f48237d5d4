"""``analyze train``: one run, or one for each combination of seeds, angles, learning rates and the like."""

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from alignscape.errors import InputError
from alignscape.files import write_text
from reports.commands.train_flags import add_arguments, config_text, make_configs
from reports.sweeps import refuse_idle_ray_flags, train_in_store

if TYPE_CHECKING:
    from collections.abc import Collection

    from tqdm import tqdm

    from training.config import TrainConfig
    from training.loop import Standing
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
    from alignscape.device import resolve_device
    from reports.subjects import find_data_root
    from training.data import load_dataset
    from training.loop import train_many
    from training.tensorboard import EventFiles

    events = EventFiles() if args.tensorboard else None
    device = resolve_device(args.device)
    first = configs[0]  # what they share is not swept
    root = None if first.dataset == "digits" else find_data_root(args.data_root, Path())
    show = None if args.quiet else TrainingDisplay(first.epochs)
    if args.store is not None:
        runs, counts = train_in_store(args, configs, root, show)
        show_sweep(runs, counts)
        return
    folders = run_folders(configs, args.out)
    data = load_dataset(
        first.dataset,
        root,
        download=args.download,
        train_size=first.train_size,
        subset_seed=first.subset_seed,
        device=device,
    )
    finished = train_many(
        list(zip(configs, folders, strict=True)),
        data,
        stack=args.stack,
        data_root=root,
        progress=show,
        report_plan=None if args.quiet else lambda line: print(line, file=sys.stderr, flush=True),
        on_epoch=events,
    )
    if events is not None:
        for done in finished:
            events.finish(done)
    print(summary(finished))


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
    for failure in counts.failed:
        print(f"{failure.job.label}: {failure.reason}", file=sys.stderr)
    print(f"{counts.computed['runs']} trained, {counts.reused['runs']} there already", file=sys.stderr)
    if counts.failed:
        raise SystemExit(1)


def run_folders(configs: "list[TrainConfig]", out: Path | None) -> list[Path]:
    """Return the folder of each run: ``out`` itself for one run, ``out/NAME`` for several."""
    if len(configs) == 1 and out is not None:
        return [out]
    varied = [name for name, _ in NAMED if len({getattr(config, name) for config in configs}) > 1]
    return [(out or Path("runs")) / run_name(config, varied) for config in configs]


# Fields that a run's name tells where the runs of one command differ in them; ifa's angle and the seed it tells always.
NAMED = (
    ("angle", "angle"),
    ("forward_scale", "forward"),
    ("backward_scale", "backward"),
    ("lr", "lr"),
    ("weight_decay", "wd"),
)


def run_name(config: "TrainConfig", varied: "Collection[str]" = ()) -> str:
    """Return e.g. ``cifar10-ifa45-seed0``, ``cifar10-lenet-ifa45-seed0`` for another network than the MLP, or
    ``cifar10-ifa45-lr0.001-seed0`` if ``lr`` is ``varied``."""
    network = "" if config.model == "mlp" else "-" + re.sub(r"[^\w.]+", "-", config.model)
    angle = f"{config.angle:g}" if config.rule == "ifa" else ""
    varied = [name for name in varied if not (name == "angle" and angle)]
    values = "".join(f"-{short}{getattr(config, name):g}" for name, short in NAMED if name in varied)
    rule = re.sub(r"[^\w.]+", "-", config.rule)  # package.module:Class
    return f"{config.dataset}{network}-{rule}{angle}{values}-seed{config.seed}"


def summary(runs: "list[RunFolder]") -> str:
    """Return a text table with one line a run."""
    import pandas as pd

    from reports.subjects import run_columns
    from reports.tables import render
    from training.checkpoint import load_checkpoint

    rows = []
    for run_folder in runs:
        checkpoint = load_checkpoint(run_folder.checkpoint)
        names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds")
        metrics = {name: checkpoint.metrics[name] for name in names}
        diverged = {"diverged": "yes"} if checkpoint.metrics["diverged"] else {}
        columns = run_columns(checkpoint.config, checkpoint.epoch)
        rows.append({"run": str(run_folder.path), **columns, **metrics, **diverged})
    return render(pd.DataFrame(rows))


class TrainingDisplay:
    """Shows on stderr where training stands: a bar on a terminal, a line an epoch in a log."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self._bar: tqdm | None = None

    def __call__(self, report: "Standing") -> None:
        if sys.stderr.isatty():
            self._draw(report)
        elif report.ends_epoch:
            print(
                f"{self._place(report)}  {self._metrics(report)}  {report.seconds_left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def _place(self, report: "Standing") -> str:
        others = f" and {report.networks - 1} more" if report.networks > 1 else ""
        place = f"[{report.finished + report.networks}/{report.jobs}] " if report.jobs > report.networks else ""
        return f"{place}{report.name}{others}: epoch {report.epoch}/{self.epochs}"

    def _metrics(self, report: "Standing") -> str:
        row = report.metrics
        return f"loss {row['train_loss']:.4f}  train {row['train_accuracy']:.4f}  test {row['test_accuracy']:.4f}"

    def _draw(self, report: "Standing") -> None:
        from tqdm import tqdm

        if self._bar is None:
            form = "{desc} {bar} {percentage:3.0f} %{postfix}"
            self._bar = tqdm(total=report.total_steps, leave=False, bar_format=form, dynamic_ncols=True)
        self._bar.n = report.step
        self._bar.set_description_str(self._place(report), refresh=False)
        self._bar.set_postfix_str(
            f"{tqdm.format_interval(report.seconds_left)} left  {self._metrics(report)}", refresh=True
        )
        if report.step >= report.total_steps:
            self._bar.close()
            self._bar = None
