"""``analyze train``: one run, or one for each combination of seeds, angles, learning rates and the like."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignscape.errors import InputError
from alignscape.files import write_text
from alignscape.recorded import read_record
from reports.commands.sweeps import refuse_idle_ray_flags, show_failures, train_in_store
from reports.commands.train_flags import add_arguments, config_text, make_sweep, sink_choices
from reports.trainer import told, train_configs

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from training.config import TrainConfig
    from training.run_folder import RunFolder
    from training.store.sweep import Summary

__all__ = ["HELP", "add_arguments", "run"]

MOST_ROWS = 20  # of the table of a sweep in a store

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
    sweep = make_sweep(args)
    configs: list[TrainConfig] = sweep.made
    if args.force and args.dump_config is None:
        raise InputError("--force has an effect with --dump-config only: a run is never replaced; choose another --out")
    if (words := told(sweep)) and not args.quiet:
        print(words, file=sys.stderr, flush=True)
    if args.dump_config is not None:
        dump_config(configs, args.dump_config, force=args.force)
        return
    from reports.progress import TrainingDisplay
    from reports.subjects import find_data_root
    from training.names import run_names
    from training.sinks import Sinks

    root = find_data_root(args.data_root, Path())
    if args.store is not None:
        runs, counts = train_in_store(args, configs, root)
        show_sweep(runs, counts, args.store)
        return
    show = None if args.quiet else TrainingDisplay()
    names = {args.out.name: run_names(configs)[0]} if args.out is not None and len(configs) == 1 else {}
    sinks = Sinks(sink_choices(args, names))  # other folders have the names of their runs
    finished = train_configs(
        configs,
        args.out,
        data_root=root,
        download=args.download,
        device=args.device,
        stack=args.stack,
        progress=show,
        report_plan=None if args.quiet else lambda line: print(line, file=sys.stderr, flush=True),
        on_epoch=sinks if sinks.sinks else None,
    )
    for done in finished:
        sinks.finish(done)
    print(summary(finished))
    if not args.quiet:
        report_monitors(finished)


def dump_config(configs: "list[TrainConfig]", path: Path, *, force: bool = False) -> None:
    """Write the config file that asks for ``configs`` to ``path``, or to standard output if that is ``-``.

    Raises:
        InputError: there is another file at ``path``, and not ``force``.
    """
    text = config_text(configs)
    if path == Path("-"):
        print(text, end="")
        return
    if not force and path.is_file() and path.read_text(encoding="utf-8", errors="replace") != text:
        raise InputError(f"{path} is there already, with other settings: choose another, or replace it by --force")
    write_text(path, text)


def show_sweep(runs: "list[RunFolder]", counts: "Summary", store: Path) -> None:
    """Print the table of a sweep's runs; what failed and the counts go to stderr.

    Raises:
        SystemExit: status 1 when a run failed.
    """
    if runs:
        print(summary(runs, store))
        report_monitors(runs)
    show_failures(counts, store)
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


def summary(runs: "list[RunFolder]", store: Path | None = None) -> str:
    """Return a text table with one line a run; of more than :data:`MOST_ROWS` in a store one over their seeds. What all
    runs share, and the seconds, are left out where the lines would be too long."""
    import pandas as pd

    from reports.subjects import run_columns
    from reports.tables import line_width, render
    from training.config import TrainConfig
    from training.names import run_names

    rows = []
    configs = [TrainConfig.from_dict(run_folder.read_config()["config"]) for run_folder in runs]
    keys = [run_folder.path.name for run_folder in runs]
    names = {"train_loss": "loss", "train_accuracy": "acc", "test_loss": "test loss", "test_accuracy": "test acc"}
    for run_folder, config, name in zip(runs, configs, run_names(configs, keys), strict=True):
        last = run_folder.read_metrics()[-1]  # from their tables: a thousand checkpoints would take seconds
        record = read_record(run_folder.path / "done.json")
        diverged = {"diverged": "yes"} if record["diverged"] else {}
        if best := record.get("best"):
            diverged |= {"best epoch": best["epoch"], "best test acc": best["test_accuracy"]}
        called = {"run": str(run_folder.path)} if store is None else {"run": name, "folder": str(run_folder.path)}
        columns = run_columns(config, int(last["epoch"]))
        measured = {short: last[name] for name, short in {**names, "seconds": "s"}.items()}
        rows.append({**called, **columns, **measured, **diverged})
    table = pd.DataFrame(rows)
    if store is not None and len(runs) > MOST_ROWS:
        return over_seeds(table, configs, store)
    table = table.dropna(axis="columns", how="all")  # no angle where no rule has one
    text = render(table, digits=4, stacked=False)
    if max(map(len, text.splitlines())) <= line_width():
        return text
    same = [name for name in ("rule", "angle", "seed", "epoch") if name in table and _is_constant(table[name])]
    return render(table.drop(columns=[*same, "s"]), digits=4, stacked=False)


def _is_constant(cells: "Series[Any]") -> bool:
    return len(cells) > 1 and len(cells.drop_duplicates()) == 1


def over_seeds(table: "DataFrame", configs: "list[TrainConfig]", store: Path) -> str:
    """Return a text table of many runs with one line for those that differ in their seeds only, the best first: mean
    and standard deviation of the accuracies of those that did not diverge."""
    import dataclasses

    import pandas as pd

    from reports.tables import render
    from training.names import run_names, without_seed

    alike = [dataclasses.replace(config, seed=0) for config in configs]
    called = [without_seed(one, name) for one, name in zip(alike, run_names(alike), strict=True)]
    rows = []
    for name_of_all, members in table.assign(run=called).groupby("run", sort=False):
        well = members[members["diverged"] != "yes"] if "diverged" in members else members
        found: dict[str, Any] = {"runs": name_of_all, "n": len(well)}
        for name in ("acc", "test acc"):
            found |= {name: well[name].mean(), f"{name} sd": well[name].std()}
        rows.append({**found, "s": members["s"].mean(), "diverged": len(members) - len(well) or None})
    order = pd.DataFrame(rows).sort_values("test acc", ascending=False, kind="stable")
    shown = order.head(MOST_ROWS).dropna(axis="columns", how="all")
    left = len(order) - len(shown)
    more = f"the best {len(shown)} of {len(order)}; " if left else ""
    return f"{render(shown, digits=4, stacked=False)}\n{more}each run: analyze runs ls --store {store}"
