"""The public names of the packages, and what their docstrings hold: what the tests of the public interface share."""

import dataclasses
import importlib
import importlib.util
import inspect
import re
from types import ModuleType

PACKAGES = ("alignscape", "landscape", "robustness", "training", "training.store", "reports", "reports.figures")


def public(package: str) -> dict[str, object]:
    """Return what ``package`` exports, by name."""
    module = importlib.import_module(package)
    return {name: getattr(module, name) for name in module.__all__}


def documented(package: str) -> dict[str, object]:
    """Return the functions and classes that ``package`` exports: what can have a docstring of its own."""
    return {n: o for n, o in public(package).items() if inspect.isclass(o) or inspect.isfunction(o)}


def is_submodule(package: ModuleType, name: str) -> bool:
    """Whether the package has a module called ``name``."""
    return importlib.util.find_spec(f"{package.__name__}.{name}") is not None


def fields(cls: type) -> list[str]:
    """Return the names of what a user reads of a dataclass or a named tuple; empty for other classes."""
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls) if not field.name.startswith("_")]
    return list(getattr(cls, "_fields", ()))


def section(docstring: str, title: str) -> str:
    """Return the text of a Google-style section of ``docstring``, dedented; empty if there is none."""
    found = re.search(rf"^{title}:\n((?:    .*\n?|\n)+)", inspect.cleandoc(docstring), re.MULTILINE)
    return inspect.cleandoc("\n" + found[1]) if found else ""
