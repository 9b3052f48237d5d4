"""The console command ``analyze``.

argparse, because ``--help`` must answer at once, errors must be one line, and flags take lists (``--seeds 0 1 2``),
which click-based parsers do not.
"""

import argparse
import errno
import importlib
import os
import sys
import warnings
from typing import Any, NoReturn

from alignscape.errors import InputError
from reports.analyses import ANALYSES
from reports.commands.analysis import AnalysisCommand

COMMANDS = (
    "demo",
    "train",
    "hessian",
    "spectrum",
    "trajectory",
    "surface",
    "alignment",
    "attack",
    "corruptions",
    "make-cifar10c",
    "compare",
    "figures",
    "report",
    "runs",
)


# What the user's disk or folders refuse; any other OSError is our mistake and keeps its traceback.
ENVIRONMENT = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
}


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"analyze: error: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every command; nothing heavy is imported."""
    parser = _Parser(
        prog="analyze",
        description="Loss landscapes and robustness of networks trained without weight transport.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = command_named(name)
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def command_named(name: str) -> Any:
    """Return what a command is: its ``HELP``, ``add_arguments`` and ``run``."""
    if name in ANALYSES:
        return AnalysisCommand(ANALYSES[name])
    return importlib.import_module(f"reports.commands.{name.replace('-', '_')}")


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit status (2 for bad input, after one line on stderr)."""
    args = build_parser().parse_args(argv)
    warnings.showwarning = _show_warning
    try:
        args.run(args)
    except InputError as error:
        print(f"analyze: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `analyze ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in ENVIRONMENT or (error.filename is None and error.errno != errno.ENOSPC):
            raise
        where = "" if error.filename is None else f": {os.fsdecode(error.filename)}"
        print(f"analyze: error: {error.strerror}{where}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("analyze: interrupted; the same command goes on where it can", file=sys.stderr)
        return 130
    return 0


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Show our own warnings as one line; hide the libraries' talk among themselves."""
    if issubclass(category, UserWarning):
        print(f"analyze: warning: {' '.join(str(message).split())}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
