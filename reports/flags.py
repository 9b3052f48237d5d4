"""Flags from settings: each setting of a class is a flag and a key of a TOML file, and what was given makes an object.

Nothing heavy is imported here, so that ``--help`` answers at once.
"""

import argparse
import json
import textwrap
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignscape.errors import InputError, shown_path
from alignscape.settings import Setting, as_json, settings_of
from reports.products import NOTHING, Idle, checked, has_none, idle_declared, is_sweep, place, reason_declared

LONGEST_FILE = 10**6  # bytes of a config file: a device would have no end


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
        text = explained(one, details, every=sweeps_every(cls)).replace("%", "%%")
        headings[heading].add_argument(*one.flags, dest=one.name, default=argparse.SUPPRESS, help=text, **_options(one))
    return {title: one for title, one in headings.items() if title not in others}


def givable(cls: type) -> dict[str, Setting]:
    """Return the settings of ``cls`` that a command line and a file may give, by name."""
    return {name: one for name, one in settings_of(cls).items() if one.flags}


def sweeps_every(cls: type) -> bool:
    """Whether every setting of ``cls`` can be swept, which then goes without saying."""
    return bool(getattr(cls, "SWEPT", False))


def explained(one: Setting, details: Mapping[str, str] = NOTHING, *, every: bool = False) -> str:
    """Return the help of a setting, when it has an effect, whether it can be swept, its default, and its details; with
    ``every`` all can be, and only of what is a list it is said how."""
    only = f"; with {one.only.words} only" if one.only is not None else ""
    swept = "; one run each" if one.swept and not every else ""
    swept = "; a list for each time that it is given, one run each" if every and one.several else swept
    more = f". {details[one.name]}" if one.name in details else ""
    return f"{one.help}{only}{swept} (default: {default_text(one)}){more}"


def _options(one: Setting) -> dict[str, Any]:
    """Return what argparse is to know of a setting beside its names and its help."""
    if one.kind is bool:
        return {"action": Switch, "nargs": "*", "choices": YES_NO} if one.swept else {"action": "store_true"}
    options: dict[str, Any] = {"nargs": "*" if one.empty else "+"} if one.several or one.swept else {}
    if one.swept:  # given again, it is a sweep: that the last one won would be a surprise
        options["action"] = "append" if one.several else "extend"
    if one.choices:
        shown = {"metavar": one.metavar} if one.metavar else {}
        return {**options, "choices": one.choices, **shown}
    return {**options, "type": _reader(one), "metavar": _metavar(one)}


YES_NO = ("yes", "no")


class Switch(argparse.Action):
    """A switch that can be swept: alone it is yes; ``no yes`` is a run without it and one with it."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        before = getattr(namespace, self.dest, [])
        setattr(namespace, self.dest, [*before, *([word == "yes" for word in values] or [True])])


def _reader(one: Setting) -> Callable[[str], Any]:
    """Return what reads a value from text: that of the setting, but for the word that says that there is none."""
    reads: Callable[[str], Any] = one.parse or one.kind
    if not has_none(one):
        return reads

    def read(text: str) -> Any:
        return None if text == "none" else reads(text)

    read.__name__ = reads.__name__  # which argparse puts into its messages
    return read


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
    return {name: _flat(value) if one.swept and not one.several else value for name, (one, value) in found.items()}


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
    for name in idle_declared(made, values):
        raise InputError(f"{place(cls, name, places)} {reason_declared(name, [made])}")
    return made


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
    if not one.swept:
        value = _parsed(one, value)
        if problem := one.problem(one.typed(value)):
            raise InputError(problem)
        return value
    found: list[Any] = []
    for part in value if is_sweep(one, value) else [value]:
        read = _parsed(one, part)
        found += read if read is not part and isinstance(read, list) else [read]  # "0..9" is several
    return checked(one, found)


def _parsed(one: Setting, value: Any) -> Any:
    if one.parse is None or not isinstance(value, str) or (has_none(one) and value == "none"):
        return value
    try:
        return one.parse(value)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise InputError(f"{one.name} is {value!r}: {error}") from error


def toml_text(
    cls: type,
    made: Sequence[Any],
    *,
    without: Iterable[str],
    details: Mapping[str, str] = NOTHING,
    idle: Idle = idle_declared,
) -> str:
    """Return TOML of which :func:`read_toml` and :func:`reports.products.product_of` make the objects ``made`` again,
    with an explanation of each setting. Those in ``without`` have no effect, and stand there as comments, as does what
    is None."""
    every = sweeps_every(cls)
    lines = [*textwrap.wrap(introduction(every), 110, initial_indent="# ", subsequent_indent="# "), ""]
    heading = ""
    for one in givable(cls).values():
        if one.group not in ("", heading):
            heading = one.group
            lines += [f"# ---- {heading} ----", ""]
        text = explained(one, details, every=every)
        lines += textwrap.wrap(text, 110, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
        values = _values(one, made, idle)
        value = values if len(values) > 1 else values[0]
        off = "# " if value is None or one.name in without else ""
        lines += [f"{off}{one.name} = {_metavar(one) if value is None else _toml(value)}", ""]
    return "\n".join(lines)


def _values(one: Setting, made: Sequence[Any], idle: Idle) -> list[Any]:
    """Return the values of a setting in those objects in which it has an effect: in others it is at its default, and
    will be again."""
    values = list(dict.fromkeys(getattr(holder, one.name) for holder in made))
    if len(values) == 1:
        return values
    effective = [holder for holder in made if one.name not in idle(holder, [one.name])]
    return list(dict.fromkeys(getattr(holder, one.name) for holder in effective)) or values


def introduction(every: bool) -> str:
    """Return what stands at the top of a config file, of settings of which ``every`` one can be swept."""
    swept = "Where it says one run each, a list of values is a sweep."
    if every:
        swept = (
            "A list of values is a sweep, with a run of each combination; of a setting that is itself a list, such as "
            'hidden, a list of lists. "none" stands for no value.'
        )
    return (
        "Settings under the names that they have here, for --config. A line that is commented out is not set, or has "
        f"no effect beside the others. {swept} Flags win over this file."
    )


def _toml(value: Any) -> str:
    """Return a number, a text, a boolean or a list of them: what TOML writes as JSON does, but for one character."""
    values = [as_json("none" if one is None else one) for one in value] if isinstance(value, list) else as_json(value)
    return json.dumps(values, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")
