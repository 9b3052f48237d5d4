"""``analyze make-cifar10c``: the corrupted test sets, in the official file layout."""

import argparse
from pathlib import Path

from reports.commands.common import add_seed_argument, positive_int, progress_bar
from training.errors import InputError

HELP = "make CIFAR-10-C (15 corruptions at 5 severities) from the clean test set, in the official file layout"
FOLDERS = {"cifar10": "CIFAR-10-C", "cifar100": "CIFAR-100-C"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help="folder that holds the clean data set in torchvision's layout (default: $ALIGNSCAPE_DATA, else ./data)",
    )
    parser.add_argument("--download", action="store_true", help="fetch a missing data set into --data-root first")
    parser.add_argument(
        "--dataset",
        default="cifar10",
        metavar="NAME",
        help="data set of 32 x 32 RGB images to corrupt: cifar10, cifar100, svhn (default: cifar10)",
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="FILE.npy",
        help="corrupt these images instead: uint8 (N, 32, 32, 3), with --labels",
    )
    parser.add_argument("--labels", type=Path, metavar="FILE.npy", help="integer labels (N,) of --images")
    parser.add_argument(
        "--frost-dir",
        type=Path,
        metavar="DIR",
        help="folder with frost1.png frost2.png frost3.png frost4.jpg frost5.jpg (default: those of an installed "
        "imagecorruptions, else a stand-in that is labelled approximate)",
    )
    parser.add_argument(
        "--corruptions", nargs="+", metavar="NAME", help="make only these corruptions (default: all 15)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where to make the folder CIFAR-10-C (2.3 GB; default: the current folder)",
    )
    parser.add_argument(
        "--workers", type=positive_int, metavar="N", help="processes; the result does not depend on it (default: cores)"
    )
    parser.add_argument("--no-figure", action="store_true", help="do not draw the contact sheet")
    parser.add_argument("--quiet", action="store_true", help="print results and errors only, no progress")
    add_seed_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Make the set, or what is missing of it."""
    raise InputError("make-cifar10c is not there yet")
