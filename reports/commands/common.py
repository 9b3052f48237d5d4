"""Flags that several commands share. Nothing heavy is imported here, so that ``--help`` answers at once."""

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

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
