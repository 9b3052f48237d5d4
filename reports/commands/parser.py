"""The parser with every command.

argparse, because ``--help`` must answer at once, errors must be one line, and flags take lists (``--seeds 0 1 2``),
which click-based parsers do not.
"""

import argparse
import importlib
import warnings
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from typing import Any, NoReturn

from alignscape.errors import InputError
from alignscape.plugins import source
from reports.analyses import ANALYSES, find_analysis, installed_analyses
from reports.commands.analysis import AnalysisCommand

COMMANDS = ("demo", "train", *ANALYSES, "make-cifar10c", "figures", "report", "runs")

SHELLS = ("bash", "zsh", "tcsh")
OWN_FILES = ("compare",)  # analyses whose command does more


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"analyze: error: {message} (see {self.prog} --help)\n")


class _Version(argparse.Action):
    """Prints the version, which is looked up only then."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from alignscape.version import distribution_version

        print(f"alignscape {distribution_version()}")
        parser.exit()


class _Completion(argparse.Action):
    """Prints a completion script of every command."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, **more)

    def __call__(self, parser: argparse.ArgumentParser, _: object, shell: Any, *__: Any) -> None:
        try:
            import shtab
        except ImportError as error:
            raise InputError("completion needs the extra `completion`: pip install 'alignscape[completion]'") from error
        print(shtab.complete(build_parser(), shell=shell))
        parser.exit()


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """Add ``--verbose``, also to each action of a command that has such."""
    actions = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    for command in [inner for one in actions for inner in one.choices.values()] or [parser]:
        text = "say more: where an error arose, all warnings, versions, device and time (default: no)"
        where: Any = next((one for one in command._action_groups if one.title == "output"), command)
        where.add_argument("--verbose", action="store_true", default=False, help=text)


def build_parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """Return the parser with every command; nothing heavy is imported.

    Only the command ``chosen`` gets its flags, all if None: there are some three hundred. A package that adds an
    analysis is imported if that is the one.

    Raises:
        InputError: it cannot be.
    """
    parser = _Parser(
        prog="analyze",
        description="Loss landscapes and robustness of networks trained without weight transport.",
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    parser.add_argument(
        "--print-completion",
        action=_Completion,
        choices=SHELLS,
        help="print a script that completes commands and flags in this shell and exit; needs the extra `completion`",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    others = {name: f"an analysis from {source(entry)}" for name, entry in added_commands().items()}
    for name in (*COMMANDS, *others):
        known = command_named(name) if name in COMMANDS or name == chosen else None
        text = others[name] if known is None else known.HELP
        command = commands.add_parser(name, help=others.get(name, text), description=text)
        if known is not None and chosen in (None, name):
            try:
                known.add_arguments(command)
            except argparse.ArgumentError as error:
                raise InputError(f"{name} has a setting whose flag is taken: {error}") from error
            add_verbose(command)
            command.set_defaults(run=known.run)
    return parser


def added_commands() -> dict[str, EntryPoint]:
    """Return the analyses that installed packages add as commands; a command of ours stays ours, with a warning."""
    found = installed_analyses()
    for name in set(found) & set(COMMANDS):
        warnings.warn(f"{name} of {source(found.pop(name))} is no command: alignscape has one", stacklevel=2)
    return found


def command_named(name: str) -> Any:
    """Return what a command is: its ``HELP``, ``add_arguments`` and ``run``."""
    if name not in OWN_FILES and (name in ANALYSES or name not in COMMANDS):
        return AnalysisCommand(find_analysis(name))
    return importlib.import_module(f"reports.commands.{name.replace('-', '_')}")
