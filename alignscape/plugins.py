"""What installed packages add: learning rules, attacks, analyses. A package declares them in its ``pyproject.toml``:

    [project.entry-points."alignscape.rules"]
    hebb = "my_package.rules:Hebb"

Only the names are read here; a package is imported when what it adds is used, so that one that is broken stands in
nobody's way, and ``--help`` stays quick.
"""

import warnings
from collections.abc import Collection
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from alignscape.errors import InputError
from alignscape.imports import reason

GROUPS = ("alignscape.rules", "alignscape.attacks", "alignscape.analyses")


def installed(group: str, builtin: Collection[str] = ()) -> dict[str, EntryPoint]:
    """Return what installed packages add to ``group``, by name.

    A name of our own (``builtin``) stays ours, and of two packages' equal names the first one counts, by the names of
    the packages; a warning says so, once.
    """
    assert group in GROUPS, group
    found: dict[str, EntryPoint] = {}
    for entry in sorted(_entries(group), key=lambda entry: (entry.name, source(entry), entry.value)):
        if entry.name in builtin:
            warn_once(f"{entry.name} of {source(entry)} is not used: alignscape has a {entry.name} of its own")
        elif entry.name in found and found[entry.name].value != entry.value:
            warn_once(f"{entry.name} of {source(entry)} is not used: {source(found[entry.name])} has one too")
        else:
            found.setdefault(entry.name, entry)
    return found


def load(entry: EntryPoint, *, flag: str) -> Any:
    """Import what an entry point stands for.

    Raises:
        InputError: it cannot be imported; the message names the package.
    """
    try:
        return entry.load()
    except (Exception, SystemExit) as error:  # whatever another package raises becomes one line that names it
        raise InputError(f"{flag} {entry.name} ({entry.value} of {source(entry)}): {reason(error)}") from error


def source(entry: EntryPoint) -> str:
    """Return the package and version that an entry point is from, e.g. ``my-package 0.1``."""
    return "an unknown package" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def _entries(group: str) -> Collection[EntryPoint]:
    return tuple(entry_points(group=group))


@cache
def warn_once(message: str) -> None:
    """Warn of a package, however often it is come across."""
    warnings.warn(message, stacklevel=3)
