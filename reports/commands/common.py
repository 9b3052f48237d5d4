"""Flags that several commands share. Nothing heavy is imported here, so that ``--help`` answers at once."""

import argparse
import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from alignscape.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reports.subjects import Subject

Progress = Callable[[int, int], None]


def add_run_arguments(parser: argparse._ActionsContainer, *, out_help: str) -> None:
    """Add ``--out --device --seed --quiet``, which every command has."""
    parser.add_argument("--out", type=Path, metavar="DIR", help=out_help)
    parser.add_argument(
        "--device",
        default="auto",
        choices=("auto", "cpu", "cuda"),
        help="where to compute; auto takes CUDA where there is one (default: auto)",
    )
    parser.add_argument("--quiet", action="store_true", help="print results and errors only, no progress")


def add_seed_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--seed`` for the random choices of an analysis."""
    parser.add_argument(
        "--seed", type=non_negative_int, default=0, metavar="S", help="seed of every random choice (default: 0)"
    )


def add_data_root_argument(parser: argparse._ActionsContainer, *, of_run: bool = False) -> None:
    """Add ``--data-root``; a command on a run (``of_run``) looks also where the run was trained from."""
    recorded = "else where the run was trained from, " if of_run else ""
    parser.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help="folder that holds the data sets in torchvision's layout; digits need none "
        f"(default: $ALIGNSCAPE_DATA, {recorded}else ./data)",
    )


def add_data_arguments(parser: argparse._ActionsContainer, *, of_run: bool) -> None:
    """Add ``--data-root --download``."""
    add_data_root_argument(parser, of_run=of_run)
    parser.add_argument("--download", action="store_true", help="fetch a missing data set into --data-root first")


def add_store_argument(parser: argparse._ActionsContainer) -> None:
    """Add ``--store``."""
    parser.add_argument(
        "--store",
        type=Path,
        default=Path(os.environ.get("ALIGNSCAPE_STORE", "store")),
        metavar="DIR",
        help="the run store (default: $ALIGNSCAPE_STORE, else ./store)",
    )


def add_executor_arguments(parser: argparse._ActionsContainer) -> None:
    """Add ``--executor --ray-address --workers``."""
    parser.add_argument(
        "--executor",
        choices=("serial", "ray"),
        default="serial",
        help="serial: in this process; ray: in one process per GPU, or per CPU core where there is no GPU; needs the "
        "extra `ray` (default: serial)",
    )
    parser.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="ray: the running cluster to use, e.g. auto or HOST:6379 (default: one is started on this machine)",
    )
    parser.add_argument(
        "--workers",
        type=positive_int,
        metavar="N",
        help="ray: number of processes; more than there are GPUs share them (default: one per GPU, else per CPU core)",
    )


def add_subject_arguments(
    parser: argparse.ArgumentParser, *, split: str, samples: int | None = None, batch_size: int | None = 2500
) -> None:
    """Add the flags that say what is analysed: checkpoints, a foreign model, data, number of samples.

    A ``batch_size`` of None leaves the choice to the analysis, which knows what a sample costs it.
    """
    parser.add_argument(
        "checkpoints",
        nargs="+",
        type=Path,
        metavar="CKPT",
        help="a checkpoint that `analyze train` wrote, a run folder (its ckpt.pt is taken), or a state dict of any "
        "network (.pt, .safetensors)",
    )
    parser.add_argument(
        "--model",
        metavar="REF",
        help="for a state dict: the network it belongs to: package.module:factory (called without arguments), "
        "torchvision:NAME or timm:NAME",
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="for a state dict: data set to analyse it on: digits, mnist, cifar10, cifar100, svhn or stl10",
    )
    parser.add_argument(
        "--mean",
        nargs="+",
        type=float,
        metavar="M",
        help="for a state dict: mean of each channel that it was trained with, of pixels in [0, 1] (default: the data "
        "set's)",
    )
    parser.add_argument(
        "--std",
        nargs="+",
        type=float,
        metavar="S",
        help="for a state dict: standard deviation of each channel, likewise (default: the data set's)",
    )
    add_data_arguments(parser, of_run=True)
    parser.add_argument(
        "--split", choices=("train", "test"), default=split, help=f"which samples to analyse (default: {split})"
    )
    parser.add_argument(
        "--samples",
        type=positive_int,
        default=samples,
        metavar="N",
        help=f"number of samples, drawn by --seed (default: {samples or 'all'})",
    )
    parser.add_argument(
        "--batch-size",
        type=positive_int,
        default=batch_size,
        metavar="N",
        help=f"samples per pass; results do not depend on it (default: {batch_size or 'what fits in memory'})",
    )
    add_run_arguments(parser, out_help="folder for tables and figures (default: next to the first checkpoint)")
    add_seed_argument(parser)


def load_subjects(args: argparse.Namespace) -> "list[Subject]":
    """Load what ``add_subject_arguments`` asked for: one Subject a checkpoint. Of several, those that have diverged
    are left out with a warning.

    Raises:
        InputError: a checkpoint that cannot be loaded; no network but diverged ones.
    """
    several = len(args.checkpoints) > 1
    found = [load_or_skip(args, path, several=several) for path in args.checkpoints]
    subjects = [subject for subject in found if subject is not None]
    require_some(subjects)
    return subjects


def require_some(networks: "Sequence[object]") -> None:
    """Check that :func:`load_or_skip` has left any of the networks given.

    Raises:
        InputError: it has not.
    """
    if not networks:
        raise InputError("every network given has diverged: their weights hold NaN or infinity")


def load_or_skip(args: argparse.Namespace, path: Path, *, several: bool) -> "Subject | None":
    """Load a checkpoint; None, after a warning, for one of ``several`` that has diverged."""
    from alignscape.errors import DivergedError
    from reports.subjects import load_subject

    try:
        return load_subject(
            path,
            model=args.model,
            dataset=args.dataset,
            mean=args.mean,
            std=args.std,
            data_root=args.data_root,
            download=args.download,
            split=args.split,
            samples=args.samples,
            seed=args.seed,
            device=args.device,
        )
    except DivergedError as error:
        if not several:
            raise DivergedError(f"{path}: {error}") from error
        warnings.warn(f"{path} is left out: its training diverged", stacklevel=2)
        return None


def output_folder(args: argparse.Namespace, subjects: "Sequence[Subject]") -> Path:
    """Return ``--out``, or the folder of the first checkpoint."""
    return args.out if args.out is not None else subjects[0].path.parent


def progress_bar(args: argparse.Namespace, description: str, unit: str = "step") -> Progress | None:
    """Return a ``progress(done, total)``: a bar on a terminal, a line every tenth in a log; None if ``--quiet``."""
    if args.quiet:
        return None
    from reports.progress import ProgressDisplay

    return ProgressDisplay(description, unit)


def positive_int(text: str) -> int:
    """Parse an integer of at least 1."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return value


def non_negative_int(text: str) -> int:
    """Parse an integer of at least 0."""
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} must not be negative")
    return value


def positive_float(text: str) -> float:
    """Parse a positive, finite number."""
    if not (value := float(text)) > 0 or math.isinf(value):
        raise argparse.ArgumentTypeError(f"{text} must be positive")
    return value


def parse_epsilons(values: "Sequence[float]") -> list[float]:
    """Check attack radii in pixel units and sort them.

    Raises:
        InputError: one lies outside [0, 1].
    """
    for value in values:
        if not 0 <= value <= 1:
            raise InputError(f"eps {value:g} is outside [0, 1]: it is in units of pixels in [0, 1] (8/255 = 0.0314)")
    return sorted(set(values))
