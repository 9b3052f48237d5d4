"""What every paper's profile is: numbers under names, with defaults, that ``--set NAME=VALUE`` changes.

Nothing heavy is imported here: a call that finds everything done should take a moment.
"""

from argparse import ArgumentTypeError
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from alignscape.errors import InputError
from alignscape.settings import Setting, setting, settings_json, settings_of
from training.data_names import located


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """The numbers of a paper's targets, each a setting; those of one paper are a subclass.

    The profile's name is for people only: two profiles with the same numbers share every run.
    """

    name: str = "smoke"

    dataset: str = setting("digits", "data set")

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON types."""
        return {"name": self.name, **settings_json(self)}

    def changed(self, settings: Sequence[str]) -> Self:
        """Return the profile with ``NAME=VALUE`` settings applied; lists are separated by commas.

        Raises:
            InputError: an unknown name, or a value of another kind than the one it replaces.
        """
        changes, known = {}, settings_of(type(self))
        for words in settings:
            name, equals, text = words.partition("=")
            if not equals or name not in known:
                raise InputError(f"--set {words}: it must be NAME=VALUE with NAME one of {', '.join(known)}")
            try:
                changes[name] = _parsed(known[name], text)
                if "dataset" in name and known[name].kind is str:
                    changes[name] = _placed(changes[name])
            except ArgumentTypeError as error:
                raise InputError(f"--set {words}: {error}") from error
            except ValueError as error:
                kind = known[name].kind.__name__ + (", or all" if known[name].optional else "")
                raise InputError(f"--set {words}: the value must be {kind}") from error
        return replace(self, **changes)


def _placed(names: Any) -> Any:
    """Return names of data sets, a path in them from the root of the file system."""
    return located(names) if isinstance(names, str) else tuple(map(located, names))


def require(condition: bool, message: str) -> None:
    """Refuse numbers that do not go together.

    Raises:
        InputError: the condition does not hold.
    """
    if not condition:
        raise InputError(message)


def _parsed(one: Setting, text: str) -> Any:
    if one.optional and text in ("all", "none"):
        return None
    parse = one.parse or one.kind
    if not one.several:
        return parse(text)
    parsed = [parse(part) for part in text.split(",") if part]
    return [value for values in parsed for value in (values if isinstance(values, list) else [values])]
