"""``analyze demo``: the whole chain on the bundled digits, by the very commands a user would type."""

import argparse
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reports.commands.common import add_device_argument, non_negative_int, one_thread
from reports.commands.make_cifar10c import read_test_set
from reports.commands.report import check_page

HELP = "train six networks on the bundled digits, run every analysis on them and write one page (offline)"

EPOCHS = 30
TRAINING = "--dataset digits --hidden 64 64 --batch-size 64 --checkpoint-every 10 --snapshot-every 10"
RUNS = {
    "bp": "--rule bp --lr 1e-3",
    "ifa0": "--rule ifa --angle 0 --lr 1e-3",
    "ifa45": "--rule ifa --angle 45 --lr 1e-3",
    "fa": "--rule fa --lr 1e-3",
    "dfa": "--rule dfa --lr 1e-3",
    # PFA's path aligns under SGD, once a strong decay has made W and R forget where they started. Adam scales the two
    # by different second moments, so R does not follow B^T W and the path stays 60 to 75 degrees off.
    "pfa": "--rule pfa --optimiser sgd --lr 0.05 --first-epoch-weight-decay 0.1 --weight-decay 1e-4",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    text = "folder of everything it makes (default: demo)"
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help=text)
    text = f"passes over the 1,437 training digits (default: {EPOCHS})"
    parser.add_argument("--epochs", type=non_negative_int, default=EPOCHS, help=text)
    add_device_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Run every command of the chain in turn, showing each, and print the path of the page."""
    start = time.monotonic()
    with one_thread():
        page = make(args)
    print(f"\nAll of it took {time.monotonic() - start:.0f} s. Open this page in a browser:\n{page.resolve()}")


def make(args: argparse.Namespace) -> Path:
    """Train, analyse and report; return the page."""
    out: Path = args.out
    runs = {name: out / "runs" / name for name in RUNS}
    for name, flags in RUNS.items():
        _analyze("train", *flags.split(), *TRAINING.split(), f"--epochs={args.epochs}", out=runs[name], args=args)
    _make_digits_c(out / "digits-C")
    for command in analyses(list(runs.values()), out):
        _analyze(*command, out=out, args=args)
    _show("report", str(out))
    from reports.page.html import write_page

    check_page(out)
    return write_page(out)


def analyses(runs: list[Path], out: Path) -> list[list[str]]:
    """Return the analysis commands of the demo, without ``--out``."""
    networks = [str(run) for run in runs]
    return [
        ["hessian", *networks, "--k", "5"],
        ["spectrum", *networks],
        # One plane for the three that start from the same weights; the others' starts would span the plane instead.
        ["trajectory", *(str(run) for run in runs if run.name in ("bp", "fa", "dfa"))],
        ["surface", *networks],
        ["alignment", *networks, "--samples", "640"],  # ten mini-batches
        ["attack", *networks, "--attack", "fgsm", "bim", "pgd", "--eps", *(f"{k / 50:g}" for k in range(11))],
        ["corruptions", *networks, "--cifar10c", str(out / "digits-C")],
    ]


def _analyze(command: str, *flags: str, out: Path, args: argparse.Namespace) -> None:
    from reports.commands.parser import build_parser

    words = [command, *flags, "--out", str(out)]
    _show(*words)
    words += ["--device", args.device, "--quiet"]
    with _as_command_line(words):  # the sidecars record the command of each step
        parsed = build_parser().parse_args(words)
        parsed.run(parsed)


def _show(*words: str) -> None:
    print(f"\n$ analyze {shlex.join(words)}", flush=True)


@contextmanager
def _as_command_line(words: list[str]) -> Iterator[None]:
    before = sys.argv
    sys.argv = ["analyze", *words]
    try:
        yield
    finally:
        sys.argv = before


def _make_digits_c(folder: Path) -> None:
    """Corrupt the test digits: noise, blur, contrast and pixelation at 5 severities, in CIFAR-10-C's layout."""
    from robustness.corruptions import small_images
    from robustness.generate import make_corrupted_set

    print(f"\n# corrupting the test digits into {folder}", flush=True)
    images, labels = read_test_set("digits", None, download=False)
    make_corrupted_set(images, labels, folder, definition=small_images(), workers=1, source="digits test")
