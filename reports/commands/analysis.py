"""The command of an analysis, made from its declaration."""

import argparse
from pathlib import Path
from typing import Any

from alignscape.errors import InputError
from reports.analyses import Analysis
from reports.analyses.analysis import SAMPLES, Show, silent
from reports.flags import add_flags, given, one_of
from reports.loading import OF_RUNS, Loading

RUNS_HELP = "a run folder that `analyze train` wrote, or one checkpoint of it"
CHECKPOINTS_HELP = (
    "a checkpoint that `analyze train` wrote, a run folder (its ckpt.pt is taken), or a state dict of any network "
    "(.pt, .safetensors)"
)


class AnalysisCommand:
    """``HELP``, ``add_arguments(parser)`` and ``run(args)``, as the modules of the other commands have them."""

    def __init__(self, analysis: type[Analysis]) -> None:
        self.analysis = analysis
        self.HELP = analysis.summary

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flags: what is analysed, the settings of the analysis, how it is loaded, where results go."""
        add_networks(parser, of_runs=self.analysis.of_runs)
        add_flags(parser, self.analysis, group=self.analysis.name, last=SAMPLES, details=self.analysis.details())
        add_flags(parser, Loading, group="data", names=OF_RUNS if self.analysis.of_runs else None)
        add_output(parser, "folder for tables and figures (default: next to the first checkpoint)")

    def run(self, args: argparse.Namespace) -> None:
        """Analyse, write tables and figures, and print what was found.

        Raises:
            InputError: bad settings, networks or data.
        """
        from reports.progress import show_progress
        from training.store.run_store import in_use

        analysis: Analysis = one_of(self.analysis, given(args, self.analysis))
        loading: Loading = one_of(Loading, given(args, Loading))
        if not args.checkpoints:
            if not (loading.pretrained and loading.model):
                raise InputError("CKPT is missing: give a checkpoint, or --model torchvision:NAME --pretrained")
            args.checkpoints = [Path(loading.model)]
        show = silent if args.quiet else show_progress
        run = compute_apart if analysis.parallel else compute
        with in_use([output_folder(args, analysis)]):  # which may be a run's; what is read, run_analysis holds
            run(analysis, loading, args, show)


def add_networks(parser: argparse.ArgumentParser, *, of_runs: bool = False) -> None:
    """Add the networks that are analysed."""
    name, text = ("RUN", RUNS_HELP) if of_runs else ("CKPT", CHECKPOINTS_HELP)
    number = "+" if of_runs else "*"  # none with --pretrained
    parser.add_argument("checkpoints", nargs=number, type=Path, metavar=name, help=text)


def add_output(parser: argparse.ArgumentParser, out_help: str) -> None:
    """Add ``--out --quiet``."""
    group = next((one for one in parser._action_groups if one.title == "output"), None)
    where: Any = group or parser.add_argument_group("output")
    where.add_argument("--out", type=Path, metavar="DIR", help=out_help)
    where.add_argument("--quiet", action="store_true", help="print results and errors only, no progress")


def output_folder(args: argparse.Namespace, analysis: Analysis) -> Path:
    """Return ``--out``, or the folder of the first checkpoint; one of the analysis' name below it where a file of the
    run would be replaced.

    Raises:
        InputError: it would be, in ``--out``.
    """
    from reports.runner import check_not_the_runs

    first: Path = args.checkpoints[0]
    folder: Path = args.out if args.out is not None else first if first.is_dir() else first.parent
    try:
        check_not_the_runs(analysis, folder)
    except InputError:
        if args.out is not None:
            raise
        return folder / analysis.name
    return folder


def compute(analysis: Analysis, loading: Loading, args: argparse.Namespace, show: Show) -> None:
    """Analyse in this process."""
    from reports.runner import run_analysis

    folder = output_folder(args, analysis)
    result = run_analysis(analysis, args.checkpoints, loading, show)
    written = result.save(folder)
    print(result)
    print(f"wrote {', '.join(map(str, written))}; {peak_memory(result.origin['device'])}")


def compute_apart(analysis: Analysis, loading: Loading, args: argparse.Namespace, show: Show) -> None:
    """Analyse with the other processes of ``torchrun``, if there are any; the first writes and prints."""
    from torch import distributed as dist

    from landscape.distributed import join, leave
    from reports.runner import run_analysis

    if join() is None:
        return compute(analysis, loading, args, show)
    first, folder = dist.get_rank() == 0, output_folder(args, analysis)
    result = run_analysis(analysis, args.checkpoints, loading, show if first else silent)
    leave()
    if first:
        written = result.save(folder)
        print(f"{result}\nwrote {', '.join(map(str, written))}; {peak_memory(result.origin['device'])}")


def peak_memory(device: str) -> str:
    """Return the largest memory that this process has held, and on the GPU where it used one."""
    import resource

    import torch

    text = f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB"  # Linux counts in kilobytes
    if not device.startswith(("cpu", "mps")):
        text += f", {torch.cuda.max_memory_allocated() / 1e9:.2f} GB on the GPU"
    return text
