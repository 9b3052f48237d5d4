"""Settings: fields of a frozen dataclass that say of themselves all that a flag, a message or a page says of them.

    @dataclass(frozen=True, kw_only=True)
    class Spectrum:
        steps: int = setting(100, "Hessian-vector products a probe", metavar="M", check=at_least(1))

        def __post_init__(self) -> None:
            check_settings(self)

The annotation gives the type: ``int``, ``float``, ``str``, ``bool``, ``Path``, ``Literal[...]`` (the choices), any of
them ``| None``, or a tuple ``tuple[T, ...]``. Nothing heavy is imported here: a command line is made of it.
"""

import dataclasses
import math
import numbers
import types
import typing
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alignscape.errors import InputError

_KEY = "setting"
_WORD = 2**63  # whole numbers from -2^63 on are below it in tables, tensors and seeds
_LARGEST = 3.4028234663852886e38  # of float32, in which networks compute: beyond, a number is infinite to them


@dataclass(frozen=True)
class Bounds:
    """An interval of numbers; ``words`` is what a message says after "it must"."""

    low: float
    high: float
    words: str
    low_open: bool = False
    high_open: bool = False

    def holds(self, value: float) -> bool:
        """Whether ``value`` lies inside."""
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below


POSITIVE = Bounds(0, math.inf, "be positive", low_open=True)
NON_NEGATIVE = Bounds(0, math.inf, "not be negative")


def at_least(low: int, unit: str = "", *, most: int | None = None) -> Bounds:
    """Return the numbers from ``low``, of ``unit``, to ``most``: more would be a slip of the keyboard."""
    words = f"be at least {low} {unit}".rstrip()
    return Bounds(low, math.inf, words) if most is None else Bounds(low, most, f"{words}, and at most {most}")


def between(low: float, high: float, unit: str = "", *, low_open: bool = False, high_open: bool = False) -> Bounds:
    """Return the numbers from ``low`` to ``high``, of ``unit``, without an end that is open."""
    words = f"lie in {'(' if low_open else '['}{low:g}, {high:g}{')' if high_open else ']'} {unit}"
    return Bounds(low, high, words.rstrip(), low_open, high_open)


@dataclass(frozen=True)
class Only:
    """When a setting has an effect: ``words``, such as ``--optimiser sgd``, and the test of all settings."""

    words: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is said of one field.

    Attributes:
        name: of the field.
        help: one line, without the default.
        kind: the type of the value, or of each of several.
        several: the value is a tuple.
        empty: it may have no elements.
        optional: the value may be None.
        choices: what the value can be, if that is a list.
        default: of the field.
        default_text: the default in words, where the value does not speak for itself.
        metavar: what stands for the value in ``--help``.
        check: bounds of the number, or of each.
        flags: names on the command line, of which the first is the one that messages use; none if it cannot be given.
        group: heading in ``--help``.
        swept: a command line takes several values and makes a run of each.
        only: when it has an effect; None is always.
        in_key: results depend on it, so that it is part of their key.
        parse: reads a value from text, where ``kind`` does not.
        sparse: files hold it only where it is not at its default, and so are those of before there was such a setting.
    """

    name: str
    help: str
    kind: Any
    several: bool
    empty: bool
    optional: bool
    choices: tuple[Any, ...]
    default: Any
    default_text: str
    metavar: str
    check: Bounds | None
    flags: tuple[str, ...]
    group: str
    swept: bool
    only: Only | None
    in_key: bool
    parse: Callable[[str], Any] | None
    sparse: bool

    def typed(self, value: Any) -> Any:
        """Return ``value`` as the type that is wanted where another means the same: a list, a range or an array as a
        tuple, a whole number as a float (30 and 30.0 are one angle, and must have one key), a number of NumPy as
        Python's, text as a path."""
        values = value.tolist() if self.several and hasattr(value, "tolist") else value
        if self.several and isinstance(values, (list, tuple, range)):
            return tuple(_typed(self.kind, part) for part in values)
        return _typed(self.kind, value)

    def problem(self, value: Any) -> str:
        """Return what is wrong with ``value``, empty if nothing is."""
        if value is None:
            return "" if self.optional else f"{self.name} is missing"
        if self.several and not isinstance(value, tuple):
            return f"{self.name} is {value!r}; it must be a sequence"
        if self.several and not value and not self.empty:
            return f"{self.name} is empty; it needs at least one value"
        problems = (self._problem(one) for one in (value if self.several else (value,)))
        return next((f"{self.name} is {problem}" for problem in problems if problem), "")

    def _problem(self, one: Any) -> str:
        fits = isinstance(one, self.kind) and (self.kind is bool or not isinstance(one, bool))
        if self.choices:
            return "" if fits and one in self.choices else f"{one!r}; known: {', '.join(map(str, self.choices))}"
        if not fits:
            return f"{one!r}; it must be {_KINDS[self.kind]}"
        if self.kind is str and not _is_text(one):
            return f"{one!r}; it must be text"
        if self.kind is float and not abs(one) <= _LARGEST:  # not >, which NaN is not either
            return f"{one:g}; it must be finite{' in float32' if math.isfinite(one) else ''}"
        if self.check is not None and not self.check.holds(one):
            return f"{f'{one:g}' if self.kind is float else _shown(one)}; it must {self.check.words}"
        if self.kind is int and not -_WORD <= one < _WORD:
            return f"{_shown(one)}; it must fit into 64 bits"
        return ""


_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Path: "a path"}


def _typed(kind: Any, value: Any) -> Any:
    if kind is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
        number: Any = value
        try:
            return float(number)
        except OverflowError:
            return math.inf if number > 0 else -math.inf
    if kind is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    return Path(value) if kind is Path and isinstance(value, str) else value


def _shown(number: int) -> str:
    """Return a whole number of any size: beyond some thousand digits Python refuses to write it."""
    return str(number) if number.bit_length() < 10_000 else f"{'-' if number < 0 else ''}2^{number.bit_length() - 1}"


def _is_text(value: str) -> bool:
    """Whether a file can hold it: bytes of a command line that are no UTF-8 arrive as characters that none can."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def setting(
    default: Any,
    help: str,
    *,
    metavar: str = "",
    check: Bounds | None = None,
    empty: bool = False,
    flags: tuple[str, ...] = (),
    flag: bool = True,
    group: str = "",
    default_text: str = "",
    swept: bool = False,
    only: Only | None = None,
    in_key: bool = True,
    parse: Callable[[str], Any] | None = None,
    sparse: bool = False,
) -> Any:
    """Return a dataclass field with this default that is a setting; the arguments are those of :class:`Setting`. It has
    the ``flags`` given, else one that is called as the field is; without ``flag`` none, nor a key in a file."""
    about = {
        **{"help": help, "metavar": metavar, "check": check, "empty": empty, "group": group},
        **{"flags": flags if flag else None},
        **{"default_text": default_text, "swept": swept, "only": only, "in_key": in_key, "parse": parse},
        "sparse": sparse,
    }
    return dataclasses.field(default=default, metadata={_KEY: about})


_KNOWN: dict[type, dict[str, Setting]] = {}


def settings_of(cls: type) -> dict[str, Setting]:
    """Return the settings of a dataclass by name, in the order of its fields."""
    if cls not in _KNOWN:
        fields = [field for field in dataclasses.fields(cls) if _KEY in field.metadata]
        hints = typing.get_type_hints(cls) if fields else {}
        _KNOWN[cls] = {field.name: _described(field, hints[field.name]) for field in fields}
    return _KNOWN[cls]


def _described(field: "dataclasses.Field[Any]", hint: Any) -> Setting:
    about: dict[str, Any] = dict(field.metadata[_KEY])
    kind, optional, several = hint, False, False
    choices: tuple[Any, ...] = ()
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        (kind,) = (one for one in typing.get_args(kind) if one is not types.NoneType)
        optional = True
    if typing.get_origin(kind) is tuple:
        kind, several = typing.get_args(kind)[0], True
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        kind = type(choices[0])
    own = () if about["flags"] is None else ("--" + field.name.replace("_", "-"),)
    about["flags"] = about["flags"] or own
    return Setting(
        name=field.name, kind=kind, several=several, optional=optional, choices=choices, default=field.default, **about
    )


def check_settings(holder: Any) -> None:
    """Bring the settings of a frozen dataclass to their types (:meth:`Setting.typed`) and check each; for
    ``__post_init__``.

    Raises:
        InputError: a value is out of its range; the message names the setting and the range.
    """
    for name, one in settings_of(type(holder)).items():
        value = one.typed(getattr(holder, name))
        object.__setattr__(holder, name, value)
        if problem := one.problem(value):
            raise InputError(problem)


def idle_settings(holder: Any, names: Collection[str]) -> Iterator[tuple[Setting, Only]]:
    """Yield those of the settings ``names`` that have no effect beside the others, and when they would have one."""
    for name, one in settings_of(type(holder)).items():
        if name in names and one.only is not None and not one.only.holds(holder):
            yield one, one.only


def changed_settings(holder: Any) -> dict[str, Any]:
    """Return the settings that results depend on and that are not at their default, as JSON types."""
    described = settings_of(type(holder)).items()
    return {
        name: as_json(value)
        for name, one in described
        if one.in_key and (value := getattr(holder, name)) != one.default
    }


def as_json(value: Any) -> Any:
    """Return a value of a setting as JSON has it: tuples become lists, paths text."""
    if isinstance(value, tuple):
        return [as_json(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def settings_json(holder: Any) -> dict[str, Any]:
    """Return all settings as JSON types."""
    return {name: as_json(getattr(holder, name)) for name in settings_of(type(holder))}


def recorded_settings(holder: Any) -> dict[str, Any]:
    """Return the settings as a file holds them, as JSON types: those that are ``sparse`` only where they are not at
    their default."""
    described = settings_of(type(holder))
    held = {name for name, one in described.items() if not one.sparse or getattr(holder, name) != one.default}
    return {name: value for name, value in settings_json(holder).items() if name in held}
