"""The parser with every command.

argparse, because ``--help`` must answer at once, errors must be one line, and flags take lists (``--seeds 0 1 2``),
which click-based parsers do not.
"""

import argparse
import importlib
import warnings
from typing import Any, NoReturn

from alignscape.errors import InputError
from alignscape.plugins import source
from reports.analyses import ANALYSES, Analysis, find_analysis, installed_analyses
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


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"analyze: error: {message} (see {self.prog} --help)\n")


def build_parser(chosen: str = "") -> argparse.ArgumentParser:
    """Return the parser with every command; nothing heavy is imported.

    A package that adds an analysis is imported if that is the command ``chosen``.

    Raises:
        InputError: it cannot be.
    """
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
    for name, entry in installed_analyses().items():
        if name in COMMANDS:
            warnings.warn(f"{name} of {source(entry)} is no command: alignscape has a {name} of its own", stacklevel=2)
            continue
        command = commands.add_parser(name, help=f"an analysis from {source(entry)}")
        if name == chosen:
            _add_analysis(command, find_analysis(name), source(entry))
    return parser


def _add_analysis(command: argparse.ArgumentParser, analysis: type[Analysis], package: str) -> None:
    added = AnalysisCommand(analysis)
    command.description = added.HELP
    try:
        added.add_arguments(command)
    except argparse.ArgumentError as error:
        raise InputError(f"{analysis.name} of {package} has a setting whose flag is taken: {error}") from error
    command.set_defaults(run=added.run)


def command_named(name: str) -> Any:
    """Return what a command is: its ``HELP``, ``add_arguments`` and ``run``."""
    if name in ANALYSES:
        return AnalysisCommand(ANALYSES[name])
    return importlib.import_module(f"reports.commands.{name.replace('-', '_')}")
