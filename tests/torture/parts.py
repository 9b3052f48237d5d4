"""What there is to try, in the order in which it is: what is short comes first and leaves its time to the rest."""

import functools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from .inputs import KINDS, attempts, given
from .kills import kills
from .limits import limits
from .properties import properties
from .store import at_once, damage
from .trial import Part, Trial


def _in_a_folder(trials: Callable[[Path], Iterable[Trial]]) -> Callable[[], Iterator[Trial]]:
    """Return ``trials`` with a folder of their own, which is removed after them."""

    def made() -> Iterator[Trial]:
        with tempfile.TemporaryDirectory() as folder:
            yield from trials(Path(folder))

    return made


def _calls(kind: str) -> Callable[[], Iterator[Trial]]:
    return _in_a_folder(lambda folder: attempts(folder, Path(_given().name), KINDS[kind]()))


@functools.cache
def _given() -> "tempfile.TemporaryDirectory[str]":
    """Make what the calls read, once for all of them."""
    folder = tempfile.TemporaryDirectory()
    given(Path(folder.name))
    return folder


REFUSED = "one line, status 2, nothing is left"
PARTS = {
    part.name: part
    for part in (
        Part("sizes", f"what no machine holds, a cluster that is not there: {REFUSED}", _calls("sizes")),
        Part("profiles", f"numbers of `figures --set`: {REFUSED}", _calls("profiles")),
        Part("limits", "too little address space: one line, status 2; what there is, is whole", _in_a_folder(limits)),
        Part("at-once", "processes that want the same wait, or refuse in one line", _in_a_folder(at_once)),
        Part("damage", "a damaged file is told when it is read, with what to do", _in_a_folder(damage)),
        Part("properties", "the same bytes; no growth over a long life; the wheel is whole", properties),
        Part("kills", "`kill -9` of a stack: the same command ends with the same bits", kills),
        Part("disks", "a full disk, too large a file: one line, status 2, no part of a file", _calls("disks")),
        Part("data", f"files, folders and functions that hold no data: {REFUSED}", _calls("data")),
        Part("paths", f"paths too long, in a circle, of the wrong kind, forbidden: {REFUSED}", _calls("paths")),
        Part("configs", f"every setting of a config file: {REFUSED}", _calls("configs")),
        Part("values", f"every argument of every command: {REFUSED}", _calls("values")),
    )
}
