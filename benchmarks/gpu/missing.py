"""What this Python lacks: what needs it is skipped by name, and the one module that all our packages need is stood in
for. Import this before any of ours."""

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any


def missing(names: Iterable[str]) -> list[str]:
    """Return those of the modules ``names`` that cannot be found."""
    return [name for name in names if name not in sys.modules and importlib.util.find_spec(name) is None]


def imported_by(path: Path) -> list[str]:
    """Return the modules from elsewhere that a source file imports at its top."""
    found: list[str] = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.append(node.module)
    return sorted({name.partition(".")[0] for name in found} - set(sys.stdlib_module_names))


def attach_stub(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Do what ``lazy_loader.attach_stub`` does with our stubs, which say ``from .module import name, ...``."""
    places: dict[str, str] = {}
    for node in ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            places.update({alias.name: node.module or "" for alias in node.names})

    def load(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if not places[name]:
            return importlib.import_module(f"{package}.{name}")
        return getattr(importlib.import_module(f"{package}.{places[name]}"), name)

    return load, lambda: sorted(places), sorted(places)


if missing(["lazy_loader"]):
    stand_in = ModuleType("lazy_loader", "Stands in for lazy_loader, which is not installed here.")
    stand_in.attach_stub = attach_stub  # type: ignore[attr-defined]
    sys.modules["lazy_loader"] = stand_in
