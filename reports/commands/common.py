"""Flags that several commands share. Nothing heavy is imported here, so that ``--help`` answers at once."""

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alignscape.device import DEVICES, device_name

MOST_WORKERS = 10_000
Progress = Callable[[int, int], None]


def add_run_arguments(parser: argparse._ActionsContainer, *, out_help: str) -> None:
    """Add ``--out --device --quiet``, which every command has."""
    parser.add_argument("--out", type=Path, metavar="DIR", help=out_help)
    add_device_argument(parser)
    add_quiet_argument(parser)


def add_device_argument(parser: argparse._ActionsContainer) -> None:
    """Add ``--device``."""
    text = f"where to compute: {DEVICES}; auto takes CUDA where there is one (default: auto)"
    parser.add_argument("--device", default="auto", type=device_name, metavar="DEVICE", help=text)


def add_quiet_argument(parser: argparse._ActionsContainer) -> None:
    """Add ``--quiet``."""
    parser.add_argument("--quiet", action="store_true", help="print results and errors only, no progress")


def add_seed_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--seed`` for the random choices of an analysis."""
    text = "seed of every random choice (default: 0)"
    parser.add_argument("--seed", type=non_negative_int, default=0, metavar="S", help=text)


def add_data_root_argument(parser: argparse._ActionsContainer) -> None:
    """Add ``--data-root``."""
    text = "folder that holds the data sets in torchvision's layout; digits need none "
    text += "(default: $ALIGNSCAPE_DATA, else ./data)"
    parser.add_argument("--data-root", type=Path, metavar="DIR", help=text)


def add_data_arguments(parser: argparse._ActionsContainer) -> None:
    """Add ``--data-root --download``."""
    add_data_root_argument(parser)
    parser.add_argument("--download", action="store_true", help="fetch a missing data set into --data-root first")


def add_store_argument(parser: argparse._ActionsContainer) -> None:
    """Add ``--store``."""
    default, text = Path(os.environ.get("ALIGNSCAPE_STORE", "store")), "the run store (default: $ALIGNSCAPE_STORE, "
    parser.add_argument("--store", type=Path, default=default, metavar="DIR", help=f"{text}else ./store)")


def add_executor_arguments(parser: argparse._ActionsContainer) -> None:
    """Add ``--executor --ray-address --workers``."""
    text = "serial: in this process; ray: in one process per GPU, or per CPU core where there is no GPU; needs the "
    text += "extra `ray` (default: serial)"
    parser.add_argument("--executor", choices=("serial", "ray"), default="serial", help=text)
    text = "ray: the running cluster to use, e.g. auto or HOST:6379 (default: one is started on this machine)"
    parser.add_argument("--ray-address", metavar="ADDRESS", help=text)
    text = "ray: number of processes; more than there are GPUs share them (default: one per GPU, else per CPU core)"
    parser.add_argument("--workers", type=worker_count, metavar="N", help=text)


def progress_bar(args: argparse.Namespace, description: str, unit: str = "step") -> Progress | None:
    """Return a ``progress(done, total)``: a bar on a terminal, a line every tenth in a log; None if ``--quiet``."""
    if args.quiet:
        return None
    from reports.progress import ProgressDisplay

    return ProgressDisplay(description, unit)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread for a while: products of 64 x 64 gain nothing from a second one, and on a machine with
    other work they wait for it."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def positive_int(text: str) -> int:
    """Parse an integer of at least 1."""
    if (value := whole_number(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return value


def worker_count(text: str) -> int:
    """Parse a number of processes: more than no machine has would be a slip of the keyboard."""
    if (value := positive_int(text)) > MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"{text} must be at most {MOST_WORKERS}")
    return value


def non_negative_int(text: str) -> int:
    """Parse an integer of at least 0."""
    if (value := whole_number(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} must not be negative")
    return value


def whole_number(text: str) -> int:
    """Parse an integer of 64 bits."""
    if not -(2**63) <= (value := int(text)) < 2**63:
        raise argparse.ArgumentTypeError(f"{text} must fit into 64 bits")
    return value
