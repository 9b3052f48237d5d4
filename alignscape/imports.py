"""What a user names as ``package.module:attribute``: a network, a rule, an analysis of theirs.

Modules in the current folder come first, as for a script that lies there. The trap is a name that two want: a user's
``training.py`` and our package ``training``. There is one ``sys.modules`` for a process, so both cannot have the name
in it; and whoever imports late (inside a function, in a ``forward``) must still get the right one. So:

- A module of theirs keeps its name if nobody else has it. One whose name is taken (by ours, by an installed package)
  is ``yours.NAME`` in ``sys.modules``: ``yours`` is a package whose ``__path__`` is the user's folder, so that Python's
  own machinery does the rest (locks, circular and relative imports, one module object however often it is named).
- Their modules, and no others, are run with builtins of their own, whose ``__import__`` knows which of the two names to
  use. Python takes the builtins of a function from the module that defines it, so this holds whenever the function
  runs, in any thread, and nothing is ever swapped in ``sys.modules``.
- ``training.rules`` is ours if their ``training`` has no such part: with a ``training.py`` of theirs they can still
  import our rules. A folder that holds no Python (``reports/`` full of reports) is no package of theirs.
- Our packages are found where this file lies, before any search path: a late ``import landscape`` of ours is ours.

Not covered: ``importlib.import_module("training")`` in their code is ours, since it does not say who asks.
"""

import builtins
import contextlib
import importlib
import importlib.util
import operator
import os
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from alignscape.errors import InputError

OURS = ("alignscape", "training", "landscape", "robustness", "reports")
HOME = Path(__file__).resolve().parent.parent  # where they lie


def import_reference(reference: str, *, flag: str, ours_first: bool = False) -> Any:
    """Return the object that ``reference`` names: ``package.module:attribute``, of which either side may have dots.

    Args:
        flag: what messages call the reference, e.g. ``--model``.
        ours_first: what our packages have of that name goes before the user's; for references that our own code makes.

    Raises:
        InputError: another form; the module cannot be imported, or has no such attribute.
    """
    module, _, attribute = reference.partition(":")
    if not all(part.isidentifier() for side in (module, attribute) for part in side.split(".")):
        raise InputError(f"{flag} {reference!r} must be package.module:attribute")
    try:
        importlib.invalidate_caches()  # the file may have been written a moment ago
        protect()
        if ours_first and module.partition(".")[0] in OURS:
            with contextlib.suppress(ImportError, AttributeError):
                return _attribute(module, attribute)
        return _attribute(Folder.at(Path.cwd()).name_of(module), attribute)
    except (Exception, SystemExit) as error:  # whatever the user's own code raises becomes one line that names it
        raise InputError(f"{flag} {reference}: {reason(error)}") from error


def _attribute(module: str, name: str) -> Any:
    return operator.attrgetter(name)(importlib.import_module(module))


def reason(error: BaseException) -> str:
    """Return the kind of an error and the first line of what it says."""
    text = (str(error).splitlines() or [""])[0]
    for package in FINDER.packages:  # users know their modules by their own names
        text = text.replace(f"'{package}.", "'")
    if isinstance(error, SystemExit):
        text = f"it ends the process ({text or 'without a reason'}) when it is imported or called"
    return f"{type(error).__name__}: {text}"


def protect() -> None:
    """Have our packages found where they are, and modules of users' folders run as they should be."""
    if FINDER not in sys.meta_path:
        sys.meta_path.insert(0, FINDER)


def refuse_others() -> None:
    """Say so if code that was imported before us has loaded modules of its own under the names of our packages.

    Raises:
        ImportError: it has.
    """
    for name in OURS:
        loaded, own = sys.modules.get(name), PathFinder.find_spec(name, [str(HOME)])
        if loaded is not None and own is not None and not _same_place(getattr(loaded, "__spec__", None), own):
            raise ImportError(
                f"alignscape needs its own package {name}, and {getattr(loaded, '__file__', 'another')} is loaded "
                "under that name: rename it, or leave it to alignscape to import what needs it, by a reference such as "
                "model='mynet:make'"
            )


def locate(module: str) -> Path | None:
    """Return the source file of ``module`` as a user in the current folder names it, without running any of it; None
    if there is none to be found."""
    places: Sequence[str] | None = None
    spec: ModuleSpec | None = None
    for name in module.split("."):
        if places is None:
            spec = Folder.at(Path.cwd()).find(name) or PathFinder.find_spec(name)
        else:
            spec = PathFinder.find_spec(name, places)
        if spec is None:
            return None
        places = spec.submodule_search_locations or ()
    return None if spec is None or spec.origin is None or not os.path.isfile(spec.origin) else Path(spec.origin)


class Folder:
    """A user's folder as a place that modules come from."""

    _known: dict[Path, "Folder"] = {}  # noqa: RUF012 (a registry)
    _lock = threading.Lock()

    @classmethod
    def at(cls, path: Path) -> "Folder":
        """Return the one folder at ``path``."""
        with cls._lock:
            if path not in cls._known:
                cls._known[path] = cls(path, "yours" if not cls._known else f"yours{len(cls._known) + 1}")
            return cls._known[path]

    def __init__(self, path: Path, package: str) -> None:
        self.path = path
        self.package = package
        self.builtins = {**vars(builtins), "__import__": self.import_}
        parent = ModuleType(package, f"Modules of {path} whose names are taken.")
        parent.__path__ = [str(path)]
        parent.__spec__ = ModuleSpec(package, None, is_package=True)
        sys.modules[package] = parent
        FINDER.packages[package] = self

    def import_(
        self,
        name: str,
        globals: Any = None,
        locals: Any = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        """The ``__import__`` of the modules of this folder."""
        full = name if level else self.name_of(name)
        if full == name:
            return builtins.__import__(name, globals, locals, fromlist, level)
        found = builtins.__import__(full, globals, locals, fromlist, 0)
        return found if fromlist else sys.modules[f"{self.package}.{name.partition('.')[0]}"]

    def name_of(self, name: str) -> str:
        """Return the name in ``sys.modules`` of what code in this folder calls ``name``."""
        top = name.partition(".")[0]
        own = self.find(top)
        if own is None or self._keeps_name(top, own):
            return name
        full = f"{self.package}.{name}"
        return name if top in OURS and top != name and not can_find(full) else full

    def find(self, top: str) -> ModuleSpec | None:
        """Return where this folder has a module or package ``top``, None if it has none."""
        spec = None if self.path == HOME else PathFinder.find_spec(top, [str(self.path)])
        if spec is None or spec.origin is not None:
            return spec
        if top in OURS:  # a folder without __init__.py is a package too, if there is Python in it
            return spec if any((self.path / top).glob("*.py")) else None
        return None if _is_elsewhere(top, spec) else spec  # any other package goes before it

    def _keeps_name(self, top: str, own: ModuleSpec) -> bool:
        if top in OURS:
            return False
        if top not in FINDER.owners and not _is_elsewhere(top, own):
            FINDER.owners.setdefault(top, self)
        return FINDER.owners.get(top) is self

    def spec(self, name: str, path: Sequence[str]) -> ModuleSpec | None:
        """Return how to load ``name``, which lies on ``path``, with the builtins of this folder."""
        spec = PathFinder.find_spec(name, path)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path, self)
        return spec


class _Loader(SourceFileLoader):
    def __init__(self, fullname: str, path: str, folder: Folder) -> None:
        super().__init__(fullname, path)
        self.folder = folder

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = self.folder.builtins
        super().exec_module(module)


class _Finder:
    """Goes before Python's own finders: it finds our packages, and what belongs to users' folders."""

    def __init__(self) -> None:
        self.packages: dict[str, Folder] = {}  # "yours" and the like
        self.owners: dict[str, Folder] = {}  # names that the modules of folders keep

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See :class:`importlib.abc.MetaPathFinder`."""
        top = name.partition(".")[0]
        folder = self.packages.get(top) or self.owners.get(top)
        if path is not None:
            return None if folder is None else folder.spec(name, path)
        if name in OURS:
            return PathFinder.find_spec(name, [str(HOME)])
        # Whoever else asks for a name that nobody has but a folder in use (a pickle of theirs, say) gets its module.
        for candidate in () if folder else tuple(Folder._known.values()):
            if candidate.find(name) is not None and candidate.name_of(name) == name:
                folder = candidate
                break
        return None if folder is None else folder.spec(name, [str(folder.path)])


FINDER = _Finder()


def can_find(name: str) -> bool:
    """Whether there is a module of that full name; the packages it lies in are imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):  # ValueError: a module without a spec
        return False


def _is_elsewhere(top: str, own: ModuleSpec) -> bool:
    """Whether ``top`` is loaded from, or would be found by others at, another place than ``own``."""
    if (loaded := sys.modules.get(top)) is not None:
        return not _same_place(getattr(loaded, "__spec__", None), own)
    specs = (finder.find_spec(top, None) for finder in sys.meta_path if finder is not FINDER)
    found = next((spec for spec in specs if spec is not None), None)
    return found is not None and found.origin is not None and not _same_place(found, own)


def _same_place(spec: ModuleSpec | None, own: ModuleSpec) -> bool:
    if spec is None:
        return False
    if spec.origin is None or own.origin is None:
        theirs, ours = (set(map(os.path.realpath, s.submodule_search_locations or ())) for s in (spec, own))
        return spec.origin == own.origin and ours <= theirs
    return os.path.realpath(spec.origin) == os.path.realpath(own.origin)
