"""Flags from settings: each setting of a class is a flag and a key of a TOML file, and what was given makes an object.

Nothing heavy is imported here, so that ``--help`` answers at once.
"""

import argparse
import itertools
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from alignscape.errors import InputError
from alignscape.settings import Setting, idle_settings, settings_of


def add_flags(
    parser: argparse.ArgumentParser, cls: type, *, group: str, last: str = "", names: Collection[str] | None = None
) -> None:
    """Add a flag for each setting of ``cls`` (or those called ``names``), under the headings that the settings name,
    else under ``group``, which comes first; the heading ``last`` comes last.

    A flag that is not given leaves nothing in the namespace, so that :func:`given` knows.
    """
    headings = {str(one.title): one for one in parser._action_groups}
    chosen = [one for name, one in settings_of(cls).items() if names is None or name in names]
    for one in sorted(chosen, key=lambda one: (bool(one.group), one.group == last)):
        heading = one.group or group
        if heading not in headings:
            headings[heading] = parser.add_argument_group(heading)
        headings[heading].add_argument(*one.flags, dest=one.name, default=argparse.SUPPRESS, **_options(one))


def _options(one: Setting) -> dict[str, Any]:
    """Return what argparse is to know of a setting beside its names."""
    options: dict[str, Any] = {"help": f"{one.help} (default: {default_text(one)})".replace("%", "%%")}
    if one.kind is bool:
        return {**options, "action": "store_true"}
    if one.several or one.swept:
        options["nargs"] = "*" if one.empty else "+"
    if one.choices:
        return {**options, "choices": one.choices}
    return {**options, "type": one.parse or one.kind, "metavar": one.metavar or one.name.upper()}


def default_text(one: Setting) -> str:
    """Return the default as a person reads it."""
    if one.default_text:
        return one.default_text
    if one.kind is bool:
        return "yes" if one.default else "no"
    if one.default is None:
        return "none"
    values = one.default if one.several else (one.default,)
    return " ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values) or "none"


def given(args: argparse.Namespace, cls: type) -> dict[str, Any]:
    """Return what was given of the settings of ``cls``: a value, of those that are swept a list of them."""
    found = {name: getattr(args, name) for name in settings_of(cls) if hasattr(args, name)}
    described = settings_of(cls)
    return {name: _flat(value) if described[name].swept else value for name, value in found.items()}


def _flat(values: list[Any]) -> list[Any]:
    """Return a list in which what was parsed to a list of its own, as ``0..9`` is, is spread."""
    return [one for value in values for one in (value if isinstance(value, list) else [value])]


def one_of(cls: type, values: Mapping[str, Any]) -> Any:
    """Return the object that ``values`` describe; what they leave out has its default.

    Raises:
        InputError: a value out of its range, or of a setting that has no effect beside the others.
    """
    made = cls(**values)
    for one, only in idle_settings(made, values):
        raise InputError(f"{one.flags[0]} has an effect with {only.words} only: leave it out")
    return made


def each_of(cls: type, values: Mapping[str, Any]) -> Iterator[Any]:
    """Yield an object for each combination of the values of swept settings, each value once.

    Raises:
        InputError: as :func:`one_of`.
    """
    described = settings_of(cls)
    swept = {name: list(dict.fromkeys(value)) for name, value in values.items() if described[name].swept}
    fixed = {name: value for name, value in values.items() if name not in swept}
    for combination in itertools.product(*swept.values()):
        yield one_of(cls, {**fixed, **dict(zip(swept, combination, strict=True))})


def read_toml(path: Path, cls: type) -> dict[str, Any]:
    """Return the settings of ``cls`` that a TOML file gives, by the names of the fields, as :func:`given` does.

    Raises:
        InputError: no such file, no TOML, or a key that is no setting.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"no config file {path}: {error.strerror}") from error
    except ValueError as error:  # of the encoding, or of TOML
        raise InputError(f"{path} is not TOML: {error}") from error
    described = settings_of(cls)
    if unknown := [name for name in found if name not in described]:
        raise InputError(f"{path} has the unknown setting {unknown[0]!r}; known: {', '.join(described)}")
    return {
        name: value if isinstance(value, list) or not described[name].swept else [value]
        for name, value in found.items()
    }
