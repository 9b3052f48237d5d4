"""Sweeps: one object for each combination of the values of settings that are given several times.

Where a setting has no effect beside the others of a combination, it is at its default there, and combinations that come
to the same are one. Nothing heavy is imported here.
"""

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignscape.errors import InputError
from alignscape.settings import Setting, idle_settings, settings_of

NOTHING: Mapping[str, str] = {}
MOST_OBJECTS = 100_000  # of a sweep

# Those of some settings that have no effect in an object; and why a setting has none in any of several.
Idle = Callable[[Any, Collection[str]], Collection[str]]
Reason = Callable[[str, Sequence[Any]], str]


@dataclass(frozen=True)
class Product:
    """What a sweep came to.

    Attributes:
        made: the objects, each once, in order; the last setting varies first.
        combinations: of the values that were given.
        partly_idle: settings of several values that have an effect in some of them only.
    """

    made: list[Any]
    combinations: int
    partly_idle: tuple[str, ...] = ()


def idle_declared(holder: Any, names: Collection[str]) -> list[str]:
    """Return those of the settings ``names`` that have no effect beside the others of ``holder``."""
    return [one.name for one, _ in idle_settings(holder, names)]


def reason_declared(name: str, holders: Sequence[Any]) -> str:
    """Return with what the setting ``name`` would have an effect, which it has in none of ``holders``."""
    found = (only for holder in holders for _, only in idle_settings(holder, [name]))
    only = next(found, None)
    return "" if only is None else f"has an effect with {only.words} only: leave it out"


def product_of(
    cls: type,
    values: Mapping[str, Any],
    *,
    places: Mapping[str, str] = NOTHING,
    idle: Idle = idle_declared,
    reason: Reason = reason_declared,
) -> Product:
    """Return the object for each combination of ``values``, of which lists are sweeps (of a setting that is itself a
    list, lists of lists). Messages call a setting by its flag, or by its words in ``places``.

    Raises:
        InputError: a value out of its range; a setting that has no effect in any of the objects; more of them than
            anyone means.
    """
    described = settings_of(cls)
    lists = {name: distinct_values(one, values[name]) for name, one in described.items() if name in values}
    many = [name for name, found in lists.items() if len(found) > 1]
    if (count := math.prod(map(len, lists.values()))) > MOST_OBJECTS:
        raise InputError(f"{' x '.join(many)} make {count:,} combinations; at most {MOST_OBJECTS:,} go together")
    others = {name: value for name, value in values.items() if name not in described}
    defaults = {name: one.default for name, one in described.items()}
    drafts: list[Any] = []
    made: dict[Any, None] = {}
    effective: set[str] = set()
    for combination in itertools.product(*lists.values()):
        chosen = dict(zip(lists, combination, strict=True))
        drafts.append(_draft(cls, defaults, chosen) if many else cls(**others, **chosen))
        without = set(idle(drafts[-1], chosen))
        effective |= chosen.keys() - without
        if many:
            chosen = _settled(cls, defaults, chosen, many, idle) if without else chosen
            made[cls(**others, **chosen)] = None
        else:  # nothing is left out of one object: what has no effect there is refused
            made[drafts[-1]] = None
    for name in lists:
        if name not in effective:
            raise InputError(f"{place(cls, name, places)} {reason(name, drafts)}")
    partly = tuple(name for name in many if any(name in idle(draft, [name]) for draft in drafts))
    return Product(list(made), count, partly)


def each_of(cls: type, values: Mapping[str, Any], *, places: Mapping[str, str] = NOTHING) -> list[Any]:
    """Return the objects of :func:`product_of`."""
    return product_of(cls, values, places=places).made


def _draft(cls: type, defaults: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """Return an object to ask what has an effect, of values that may not go together: one of them may be idle."""
    draft: Any = object.__new__(cls)
    draft.__dict__.update(defaults, **values)
    return draft


def _settled(
    cls: type, defaults: Mapping[str, Any], chosen: Mapping[str, Any], many: Collection[str], idle: Idle
) -> dict[str, Any]:
    """Return the values of one combination without those that have no effect in it, which are so at their default.

    Without a setting another may have none, so it is asked until nothing changes.
    """
    settled = dict(chosen)
    while True:
        draft = _draft(cls, defaults, settled)
        declared = {one.name: only for one, only in idle_settings(draft, settled)}
        kept = {name for name, only in declared.items() if only.kept and name not in many}
        dropped = set(idle(draft, settled)) - kept
        if not dropped:
            break
        settled = {name: value for name, value in settled.items() if name not in dropped}
    return settled


def distinct_values(one: Setting, given: Any) -> list[Any]:
    """Return the values of a setting that ``given`` means, each once: several of one that is swept, else one.

    Raises:
        InputError: there is none, or one of them is out of its range.
    """
    return checked(one, given if is_sweep(one, given) else [given])


def is_sweep(one: Setting, given: Any) -> bool:
    """Whether ``given`` is a list of values rather than one: of a setting that is itself a list, a list of lists."""
    if not one.swept or not isinstance(given, list | tuple | range):
        return False
    return not one.several or any(isinstance(part, list | tuple | range) for part in given)


def checked(one: Setting, given: Iterable[Any]) -> list[Any]:
    """Return values of a setting, each once; the word ``none`` stands for None, which files cannot say otherwise.

    Raises:
        InputError: there is none, or one of them is out of its range.
    """
    found = [one.typed(None if has_none(one) and value == "none" else value) for value in given]
    if not found:
        raise InputError(f"{one.name} is empty; it needs at least one value")
    if problem := next(filter(None, map(one.problem, found)), ""):
        raise InputError(problem)
    return list(dict.fromkeys(found))


def has_none(one: Setting) -> bool:
    """Whether the word ``none`` means that a setting has no value, rather than a value."""
    return one.swept and one.optional and not one.several and one.kind is not str and "none" not in one.choices


def idle(cls: type, made: Sequence[Any], names: Iterable[str] | None = None) -> dict[str, str]:
    """Return those of the settings ``names`` (None: of all) that have no effect in any of the objects ``made``, and
    with what they would have one."""
    names = set(settings_of(cls) if names is None else names)
    found = [{one.name: only.words for one, only in idle_settings(holder, names)} for holder in made]
    return {name: words for name, words in found[0].items() if all(name in others for others in found)}


def place(cls: type, name: str, places: Mapping[str, str] = NOTHING) -> str:
    """Return what a message calls a setting that was given: its flag, or its words in ``places``."""
    return places.get(name) or settings_of(cls)[name].flags[0]
