"""``analyze hessian``: trace and extreme eigenvalues of the Hessian, with error bars."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from alignscape.errors import InputError
from reports.commands.common import (
    add_subject_arguments,
    load_or_skip,
    output_folder,
    positive_float,
    positive_int,
    progress_bar,
    require_some,
)
from reports.commands.curvature import add_curvature_arguments, make_operator, peak_memory, writes_results

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from landscape import Eigenpairs, HessianOperator, Trace
    from reports.subjects import Subject

T = TypeVar("T")

HELP = "trace and top eigenvalues of the Hessian, with residuals and intervals"
EXTRA = ["data_ci_low", "data_ci_high", "value_pyhessian", "n_hvp_pyhessian"]
GROUPS = 50
COLUMNS = ["quantity", "index", "value", "ci_low", "ci_high", "residual", "n_samples", "n_hvp", "seconds"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    group = parser.add_argument_group("eigenvalues and trace")
    group.add_argument("--k", type=positive_int, default=5, metavar="K", help="how many eigenvalues (default: 5)")
    group.add_argument(
        "--ends",
        choices=("largest", "smallest", "magnitude"),
        default="largest",
        help="which end of the spectrum: algebraically largest, smallest, or largest in magnitude (default: largest)",
    )
    group.add_argument(
        "--tol",
        type=positive_float,
        default=1e-4,
        metavar="R",
        help="residual |Hv - lambda v| of each eigenvalue to reach, relative to the largest |lambda| (default: 1e-4)",
    )
    group.add_argument(
        "--trace-tol",
        type=positive_float,
        default=0.02,
        metavar="R",
        help="half-width of the trace's 95 %% interval to reach, relative to the trace (default: 0.02)",
    )
    group.add_argument(
        "--probes",
        type=positive_int,
        default=200,
        metavar="N",
        help="random vectors for the trace at most, where --trace-tol is not reached before (default: 200)",
    )
    group.add_argument(
        "--layers",
        action="store_true",
        help="also the trace of the diagonal block of each layer's weights and of its biases (default: no)",
    )
    group.add_argument(
        "--every-epoch",
        action="store_true",
        help="CKPT are run folders: analyse every checkpoint they kept (train with --checkpoint-every), each starting "
        "from the eigenvectors of the one before (default: no)",
    )
    group.add_argument(
        "--bootstrap",
        type=positive_int,
        metavar="B",
        help="also 95 %% intervals of what other samples would have given, from B >= 10 resamples of 50 groups of "
        "these (default: none)",
    )
    group.add_argument(
        "--check",
        choices=("pyhessian",),
        help="also compute by this peer library, for comparison; needs the extra `peers` (default: none)",
    )
    add_curvature_arguments(parser)
    add_subject_arguments(parser, split="train", batch_size=None)


def run(args: argparse.Namespace) -> None:
    """Analyse every checkpoint, write ``hessian.csv`` and the figure, and print a table."""
    import pandas as pd

    from landscape.distributed import join, leave
    from reports.figures import hessian as draw
    from reports.style import save
    from reports.tables import provenance, render, with_subject, write_table

    if args.probes < 2:
        raise InputError("--probes must be at least 2: one probe has no interval")
    if args.bootstrap is not None and args.bootstrap < 10:
        raise InputError("--bootstrap must be at least 10: fewer resamples show no spread")
    writes = writes_results(args)
    if args.bootstrap is not None and join() is not None:
        raise InputError("--bootstrap needs all samples in one process: leave out torchrun or --bootstrap")
    subjects: list[Subject] = []
    frames = []
    start: Tensor | None = None
    runs = checkpoints_of(args)
    for files in runs:
        start = None
        for file in files:
            subject = load_or_skip(args, file, several=len(runs) * len(files) > 1)
            if subject is None:
                continue
            frame, start = analyse(args, subject, start=start)
            frames.append(with_subject(frame, subject))
            subjects.append(subject)
    leave()
    require_some(frames)
    frame = pd.concat(frames, ignore_index=True)
    if not writes:
        return
    folder = args.out or (args.checkpoints[0] if args.every_epoch else output_folder(args, subjects))
    settings = {"params": args.params, "hessian": args.hessian, "ends": args.ends, "tol": args.tol}
    write_table(frame, folder / "hessian.csv", provenance(subjects, seed=args.seed, **settings))
    save(draw(frame), folder / "hessian")
    print(render(frame[["checkpoint", *(name for name in frame if name in COLUMNS or name in EXTRA)]]))
    print(f"wrote {folder / 'hessian.csv'}; {peak_memory(subjects[0])}")


def checkpoints_of(args: argparse.Namespace) -> list[list[Path]]:
    """Return, for each CKPT, the checkpoints to analyse one after the other.

    Raises:
        InputError: ``--every-epoch`` of something that is no run folder with checkpoints.
    """
    runs = []
    for path in args.checkpoints:
        files = [path]
        if args.every_epoch:
            files = sorted((path / "checkpoints").glob("epoch-*.pt"))
            if not files:
                raise InputError(f"{path} has no checkpoints/epoch-*.pt: train with --checkpoint-every 1")
        runs.append(files)
    return runs


def analyse(
    args: argparse.Namespace, subject: "Subject", *, start: "Tensor | None" = None
) -> "tuple[pd.DataFrame, Tensor]":
    """Return the rows of one checkpoint, and its eigenvectors for the next one to start from."""
    import pandas as pd

    operator = make_operator(args, subject, groups=GROUPS if args.bootstrap else None)
    pairs, seconds_pairs = timed(lambda: eigenpairs(args, subject, operator, start))
    trace, seconds_trace = timed(lambda: find_trace(args, subject, operator, pairs))
    rows = [
        pairs.frame().assign(n_hvp=pairs.n_products, seconds=seconds_pairs),
        trace.frame().assign(n_hvp=trace.n_products, seconds=seconds_trace),
    ]
    if args.layers:
        rows.append(trace.layer_frame().assign(n_hvp=trace.n_products, seconds=seconds_trace))
    frame = pd.concat([rows[1], rows[0], *rows[2:]], ignore_index=True).assign(n_samples=operator.n_samples)
    frame = frame[COLUMNS]
    if args.bootstrap:
        frame = frame.merge(data_intervals(args, subject, operator, pairs, trace), how="left", on=["quantity", "index"])
    if args.check:
        from reports.pyhessian_check import pyhessian_rows

        peer = pyhessian_rows(subject, operator, k=args.k, seed=args.seed)
        frame = frame.merge(peer, how="left", on=["quantity", "index"], suffixes=("", "_pyhessian"))
    return frame, pairs.vectors


def eigenpairs(
    args: argparse.Namespace, subject: "Subject", operator: "HessianOperator", start: "Tensor | None"
) -> "Eigenpairs":
    """Return the wanted eigenpairs."""
    from landscape import extreme_eigenpairs

    return extreme_eigenpairs(
        operator,
        args.k,
        ends=args.ends,
        tol=args.tol,
        start=start,
        keep_basis=True,
        seed=args.seed,
        progress=progress_bar(args, f"{subject.name}: eigenvalues", "pair"),
    )


def find_trace(
    args: argparse.Namespace, subject: "Subject", operator: "HessianOperator", pairs: "Eigenpairs"
) -> "Trace":
    """Return the trace, with the Krylov space that the eigenvectors came from taken out of its noise."""
    from landscape import hutchinson_trace

    return hutchinson_trace(
        operator,
        deflate=pairs.basis if pairs.basis is not None else pairs.vectors,
        tol=args.trace_tol,
        max_probes=args.probes,
        layout=operator.parameters if args.layers else None,
        seed=args.seed + 1,  # the eigenvectors come from --seed; probes must be independent of them
        progress=progress_bar(args, f"{subject.name}: trace", "probe"),
    )


def data_intervals(
    args: argparse.Namespace, subject: "Subject", operator: "HessianOperator", pairs: "Eigenpairs", trace: "Trace"
) -> "pd.DataFrame":
    """Return quantity, index, data_ci_low, data_ci_high: what other samples of data would have given."""
    import pandas as pd

    from landscape import data_error

    show = progress_bar(args, f"{subject.name}: bootstrap", "vector")
    found = data_error(operator, pairs, trace, resamples=args.bootstrap, seed=args.seed + 2, progress=show)
    keys = [("trace", 0), *(("eigenvalue", i + 1) for i in range(len(pairs.values)))]
    intervals = [(e.ci_low, e.ci_high) for e in (found.trace, *found.eigenvalues)]
    rows = [(*key, *interval) for key, interval in zip(keys, intervals, strict=True)]
    return pd.DataFrame(rows, columns=["quantity", "index", "data_ci_low", "data_ci_high"])


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what ``work`` returns and the seconds that it took."""
    begun = time.perf_counter()
    result = work()
    return result, time.perf_counter() - begun
