"""Flags from settings: each setting of a class is a flag and a key of a TOML file, and what was given makes an object.

Nothing heavy is imported here, so that ``--help`` answers at once.
"""

import argparse
import itertools
import json
import math
import textwrap
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignscape.errors import InputError, shown_path
from alignscape.settings import Setting, as_json, idle_settings, settings_of

NOTHING: Mapping[str, str] = {}
LONGEST_FILE = 10**6  # bytes of a config file: a device would have no end
MOST_OBJECTS = 100_000  # of a sweep


def add_flags(
    parser: argparse.ArgumentParser,
    cls: type,
    *,
    group: str,
    last: str = "",
    names: Collection[str] | None = None,
    details: Mapping[str, str] = NOTHING,
) -> dict[str, "argparse._ArgumentGroup"]:
    """Add a flag for each setting of ``cls`` (or those called ``names``), under the headings that the settings name,
    else under ``group``, which comes first; the heading ``last`` comes last. Return the headings, where flags that are
    no settings may follow.

    A flag that is not given leaves nothing in the namespace, so that :func:`given` knows. ``details`` are more words
    on settings by name.
    """
    headings = {str(one.title): one for one in parser._action_groups}
    others = set(headings)
    chosen = [one for name, one in givable(cls).items() if names is None or name in names]
    for one in sorted(chosen, key=lambda one: (bool(one.group), one.group == last)):
        heading = one.group or group
        if heading not in headings:
            headings[heading] = parser.add_argument_group(heading)
        text = explained(one, details).replace("%", "%%")
        headings[heading].add_argument(*one.flags, dest=one.name, default=argparse.SUPPRESS, help=text, **_options(one))
    return {title: one for title, one in headings.items() if title not in others}


def givable(cls: type) -> dict[str, Setting]:
    """Return the settings of ``cls`` that a command line and a file may give, by name."""
    return {name: one for name, one in settings_of(cls).items() if one.flags}


def explained(one: Setting, details: Mapping[str, str] = NOTHING) -> str:
    """Return the help of a setting, when it has an effect, whether it can be swept, its default, and its details."""
    only = f"; with {one.only.words} only" if one.only is not None else ""
    swept = "; one run each" if one.swept else ""
    more = f". {details[one.name]}" if one.name in details else ""
    return f"{one.help}{only}{swept} (default: {default_text(one)}){more}"


def _options(one: Setting) -> dict[str, Any]:
    """Return what argparse is to know of a setting beside its names and its help."""
    if one.kind is bool:
        return {"action": "store_true"}
    options: dict[str, Any] = {"nargs": "*" if one.empty else "+"} if one.several or one.swept else {}
    if one.choices:
        shown = {"metavar": one.metavar} if one.metavar else {}
        return {**options, "choices": one.choices, **shown}
    return {**options, "type": one.parse or one.kind, "metavar": _metavar(one)}


def _metavar(one: Setting) -> str:
    return one.metavar or one.name.upper()


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
    found = {name: (one, getattr(args, name)) for name, one in givable(cls).items() if hasattr(args, name)}
    return {name: _flat(value) if one.swept else value for name, (one, value) in found.items()}


def _flat(values: list[Any]) -> list[Any]:
    """Return a list in which what was parsed to a list of its own, as ``0..9`` is, is spread."""
    return [one for value in values for one in (value if isinstance(value, list) else [value])]


def one_of(cls: type, values: Mapping[str, Any], *, places: Mapping[str, str] = NOTHING) -> Any:
    """Return the object that ``values`` describe; what they leave out has its default.

    Messages call a setting by its flag, or by its words in ``places``, where it was given elsewhere.

    Raises:
        InputError: a value out of its range, or of a setting that has no effect beside the others.
    """
    made = cls(**values)
    _refuse_idle(cls, [made], values, places)
    return made


def each_of(cls: type, values: Mapping[str, Any], *, places: Mapping[str, str] = NOTHING) -> list[Any]:
    """Return an object for each combination of the values of swept settings, each value once; the last
    setting varies first.

    Raises:
        InputError: as :func:`one_of`; of a sweep, a setting that has no effect in any of the objects, or more of
            them than anyone means.
    """
    described = settings_of(cls)
    swept = {name: _once(one, values[name]) for name, one in described.items() if one.swept and name in values}
    if (count := math.prod(map(len, swept.values()))) > MOST_OBJECTS:
        raise InputError(f"{' x '.join(swept)} make {count:,} combinations; at most {MOST_OBJECTS:,} go together")
    fixed = {name: value for name, value in values.items() if name not in swept}
    made = [
        cls(**fixed, **dict(zip(swept, combination, strict=True))) for combination in itertools.product(*swept.values())
    ]
    _refuse_idle(cls, made, values, places)
    return made


def _once(one: Setting, values: Any) -> list[Any]:
    """Return the values of a swept setting, each once.

    Raises:
        InputError: there is none, or one of them is out of its range.
    """
    found = [one.typed(value) for value in (values if isinstance(values, list) else [values])]
    if not found:
        raise InputError(f"{one.name} is empty; it needs at least one value")
    if problem := next(filter(None, map(one.problem, found)), ""):
        raise InputError(problem)
    return list(dict.fromkeys(found))


def idle(cls: type, made: Sequence[Any], names: Iterable[str] | None = None) -> dict[str, str]:
    """Return those of the settings ``names`` (None: of all) that have no effect in any of the objects ``made``, and
    with what they would have one."""
    names = set(settings_of(cls) if names is None else names)
    found = [{one.name: only.words for one, only in idle_settings(holder, names)} for holder in made]
    return {name: words for name, words in found[0].items() if all(name in others for others in found)}


def _refuse_idle(cls: type, made: Sequence[Any], names: Iterable[str], places: Mapping[str, str]) -> None:
    for name, words in idle(cls, made, names).items():
        raise InputError(f"{place(cls, name, places)} has an effect with {words} only: leave it out")


def place(cls: type, name: str, places: Mapping[str, str] = NOTHING) -> str:
    """Return what a message calls a setting that was given: its flag, or its words in ``places``."""
    return places.get(name) or settings_of(cls)[name].flags[0]


def read_toml(path: Path, cls: type) -> dict[str, Any]:
    """Return the settings of ``cls`` that a TOML file gives, by the names of the fields, as :func:`given` does.

    Raises:
        InputError: no such file, no TOML, a key that is no setting, or a value that is none of the setting's.
    """
    try:
        with open(path, "rb") as handle:
            text = handle.read(LONGEST_FILE + 1)
        if len(text) > LONGEST_FILE:
            raise InputError(f"{path} is no config file: it is longer than {LONGEST_FILE:,} bytes")
        found = tomllib.loads(text.decode())
    except OSError as error:
        raise InputError(f"cannot read the config file {shown_path(path)}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # of the encoding, or of TOML
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not TOML: {error}") from error
    described = givable(cls)
    if unknown := [name for name in found if name not in described]:
        raise InputError(f"{path} has the unknown setting {unknown[0]!r}; known: {', '.join(described)}")
    try:
        return {name: _read(described[name], value) for name, value in found.items()}
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _read(one: Setting, value: Any) -> Any:
    if one.parse is not None and isinstance(value, str):
        try:
            value = one.parse(value)
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise InputError(f"{one.name} is {value!r}: {error}") from error
    if one.swept:
        return _once(one, value)
    if problem := one.problem(one.typed(value)):
        raise InputError(problem)
    return value


def toml_text(cls: type, made: Sequence[Any], *, without: Iterable[str], details: Mapping[str, str] = NOTHING) -> str:
    """Return TOML of which :func:`read_toml` and :func:`each_of` make the objects ``made`` again, with an explanation
    of each setting. Those in ``without`` have no effect, and stand there as comments, as does what is None."""
    lines = [*textwrap.wrap(INTRODUCTION, 110, initial_indent="# ", subsequent_indent="# "), ""]
    heading = ""
    for one in givable(cls).values():
        if one.group not in ("", heading):
            heading = one.group
            lines += [f"# ---- {heading} ----", ""]
        lines += textwrap.wrap(
            explained(one, details), 110, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
        )
        values = list(dict.fromkeys(getattr(holder, one.name) for holder in made))
        value = values if len(values) > 1 else values[0]
        off = "# " if value is None or one.name in without else ""
        lines += [f"{off}{one.name} = {_metavar(one) if value is None else _toml(value)}", ""]
    return "\n".join(lines)


INTRODUCTION = (
    "Settings under the names that they have here, for --config. A line that is commented out is not set, or has no "
    "effect beside the others. Where it says one run each, a list of values is a sweep. Flags win over this file."
)


def _toml(value: Any) -> str:
    """Return a number, a text, a boolean or a list of them: what TOML writes as JSON does, but for one character."""
    values = [as_json(one) for one in value] if isinstance(value, list) else as_json(value)
    return json.dumps(values, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")
