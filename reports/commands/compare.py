"""``analyze compare``: networks against the first, or, with ``--table``, the one table of rules and metrics."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignscape.errors import InputError
from reports.analyses import Compare
from reports.commands.analysis import AnalysisCommand
from reports.flags import given, place
from reports.loading import Loading

if TYPE_CHECKING:
    from reports.page.metric_table import MetricTable

_AS_ANALYSIS = AnalysisCommand(Compare)
HELP = _AS_ANALYSIS.HELP
STEM = "metric_table"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    _AS_ANALYSIS.add_arguments(parser)
    group = parser.add_argument_group("the table of a paper")
    text = "instead, of numbers that are there already, one table of rules and metrics: mean and standard deviation "
    text += "over seeds, the best in bold where Welch's t-test with Holm's correction tells it from another. CKPT then "
    text += "are run folders, folders of results, run stores or CSV tables, --tables more of these. Writes "
    text += f"{STEM}.csv, .tex and .html (default: no)"
    group.add_argument("--table", action="store_true", help=text)
    text = "with --table only: the metrics, by their names or words in them, such as 'test accuracy' trace 'eps 0.03'; "
    text += "a name that nothing has lists them all (default: train loss, test accuracy, and the figures of merit of "
    text += "each analysis)"
    group.add_argument("--metrics", nargs="+", metavar="NAME", help=text)


def run(args: argparse.Namespace) -> None:
    """Compare, or make the table.

    Raises:
        InputError: as the analysis, or as :func:`reports.metric_table`; flags that have no effect.
    """
    if args.table:
        make_table(args)
        return
    if args.metrics is not None:
        raise InputError("--metrics has an effect with --table only: leave it out")
    _AS_ANALYSIS.run(args)


def make_table(args: argparse.Namespace) -> None:
    """Write the table and print it."""
    from reports.page.metric_table import metric_table
    from reports.page.metric_text import text
    from training.store.run_store import in_use

    settings = given(args, Compare)
    sources = [*args.checkpoints, *settings.pop("with_tables", ())]
    for cls, values in ((Compare, settings), (Loading, given(args, Loading))):
        if values:
            raise InputError(f"{place(cls, next(iter(values)))} has no effect with --table, which computes nothing")
    with in_use(sources):
        table = metric_table(sources, args.metrics)
    written = write(table, table_folder(args), sources, args.metrics, force=args.force)
    print(text(table))
    print(f"wrote {', '.join(map(str, written))}")


def table_folder(args: argparse.Namespace) -> Path:
    """Return ``--out``, or the first folder that was given; of a table the one that it is in, of a run the one above
    it, of a store the current one."""
    first: Path = args.checkpoints[0]
    if args.out is not None:
        out: Path = args.out
        return out
    if (first / "store.json").is_file():
        return Path()
    return first if first.is_dir() and not (first / "config.json").is_file() else first.parent


def write(
    table: "MetricTable", folder: Path, sources: Sequence[Path], metrics: Sequence[str] | None, *, force: bool
) -> list[Path]:
    """Write a table as CSV, LaTeX and HTML; return the paths.

    Raises:
        InputError: there is one of other sources or metrics, and not ``force``.
    """
    from alignscape.files import folder_held, write_text
    from reports.page.latex import write_kept
    from reports.page.metric_text import fragment, latex
    from reports.replacing import BY_FLAG, recorded
    from reports.tables import provenance, write_table

    made_of = {"sources": [str(path) for path in sources], "metrics": None if metrics is None else list(metrics)}
    paths = [folder / f"{STEM}{ending}" for ending in (".csv", ".tex", ".html")]
    with folder_held(folder):
        there = [path for path in (*paths, paths[0].with_suffix(".json")) if path.exists()]
        if there and not force and recorded(paths[0].with_suffix(".json")).get(STEM) != made_of:
            raise InputError(f"{there[0]} holds another table: {BY_FLAG}")
        write_table(table.rows, paths[0], {**provenance([]), STEM: made_of, "notes": list(table.notes)})
        write_kept(paths[1], latex(table), force=force)
        write_text(paths[2], fragment(table))
    return paths
