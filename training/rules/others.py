"""Rules that are not ours: a class of a module of the user's, or of an installed package.

They are known again by where they came from and by the digest of their source: a run's key has it, so that an edited
rule is another run, and a checkpoint names it, so that the plain network needs no rule and the twin asks for this one.
"""

import dataclasses
import hashlib
import inspect
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import torch

from alignscape.errors import InputError
from alignscape.files import sha256_file
from alignscape.imports import HOME, OURS, import_reference, reason
from alignscape.plugins import load
from alignscape.settings import changed_settings
from training.config import TrainConfig
from training.rule_list import installed_rules
from training.rules.base import Rule


def find(name: str, known: dict[str, type[Rule]]) -> type[Rule]:
    """Return the rule called ``name``: of ``known``, ``package.module:Class``, or one that an installed package adds.

    Raises:
        InputError: there is none (the message lists those there are), or what there is is no rule.
    """
    if name in known:
        return known[name]
    if ":" in name:
        return _checked(import_reference(name, flag="--rule"), name)
    added = installed_rules()
    if name not in added:
        names = ", ".join((*known, *added, "package.module:Class"))
        raise InputError(f"unknown rule {name!r}; known: {names}")
    return _checked(load(added[name], flag="--rule"), name)


def _checked(found: Any, name: str) -> type[Rule]:
    if not (isinstance(found, type) and issubclass(found, Rule)):
        what = f"class {found.__name__}" if isinstance(found, type) else type(found).__name__
        raise InputError(f"--rule {name} is a {what}, not a subclass of training.rules.Rule")
    if inspect.isabstract(found):
        raise InputError(
            f"--rule {name} does not define {', '.join(sorted(getattr(found, '__abstractmethods__', ())))}"
        )
    for of, names in (("options", found.options), ("initial_options", found.initial_options)):
        if isinstance(names, str) or (unknown := [str(n) for n in names if n not in _setting_names()]):
            wrong = repr(names) if isinstance(names, str) else ", ".join(unknown)
            raise InputError(f"--rule {name}: its {of} must be a tuple of settings of a run, and {wrong} is none")
    source_digest(found)  # now, since what is in memory is what is there now
    return found


def _setting_names() -> set[str]:
    return {field.name for field in dataclasses.fields(TrainConfig)}


def is_ours(rule: type[Rule]) -> bool:
    """Whether ``rule`` is part of this package."""
    return rule.__module__.split(".")[0] in OURS


def source_files(rule: type[Rule]) -> tuple[Path, ...]:
    """Return the files of the class and of its bases that are not ours, in order of inheritance."""
    files = [getattr(sys.modules.get(base.__module__), "__file__", None) for base in rule.__mro__ if base is not object]
    ours = [HOME / name for name in OURS]
    paths = dict.fromkeys(Path(file) for file in files if file is not None)
    return tuple(path for path in paths if not any(path.is_relative_to(folder) for folder in ours))


_digests: dict[type, str] = {}  # as the sources were when the rules were first asked for


def source_digest(rule: type[Rule]) -> str:
    """Return the SHA-256 of the rule's source file; of several, that of their digests in order; "" for a rule of ours,
    or one that has no file. What it imports besides is not covered."""
    if rule not in _digests:
        files = [sha256_file(path) for path in source_files(rule) if path.is_file()]
        _digests[rule] = hashlib.sha256("".join(files).encode()).hexdigest() if len(files) > 1 else "".join(files)
    return _digests[rule]


def origin(name: str, rule: type[Rule]) -> dict[str, str]:
    """Return where a rule that is not ours came from: ``reference``, ``file``, ``sha256`` and, if it is installed,
    ``distribution``; empty for one of ours."""
    if is_ours(rule):
        return {}
    entry = None if ":" in name else installed_rules().get(name)
    package = rule.__module__.partition(".")[0]
    dist = entry.dist if entry is not None else None
    distribution = f"{dist.name} {dist.version}" if dist is not None else _distribution(package)
    file = str(next(iter(source_files(rule)), ""))
    if not distribution and file and Path(file).is_relative_to(Path.cwd()):
        file = os.path.relpath(file)
    found = {"reference": name if entry is None else entry.value, "file": file, "sha256": source_digest(rule)}
    return {**found, **({"distribution": distribution} if distribution else {})}


@cache
def _distribution(package: str) -> str:
    names = packages_distributions().get(package, [])
    return f"{names[0]} {version(names[0])}" if names else ""


def origin_text(origin: dict[str, str]) -> str:
    """Return e.g. ``mynet:Hebb (mynet.py, SHA-256 0123456789ab)``."""
    where = origin.get("distribution") or origin["file"] or "no file"
    return f"{origin['reference']} ({where}, SHA-256 {origin['sha256'][:12] or 'unknown'})"


def pinned(config: TrainConfig, rule: type[Rule]) -> TrainConfig:
    """Return ``config`` with the digest of its rule's source.

    Raises:
        InputError: it has another one already.
    """
    digest = source_digest(rule)
    if config.rule_source and config.rule_source != digest:
        raise InputError(
            f"the source of --rule {config.rule} has changed: SHA-256 {digest[:12]}, not {config.rule_source[:12]} as "
            "this run was described with"
        )
    return dataclasses.replace(config, rule_source=digest)


def warn_of_change(config: TrainConfig, rule: type[Rule]) -> None:
    """Warn if the source of ``rule`` is not that of the run's."""
    if config.rule_source and config.rule_source != (digest := source_digest(rule)):
        warnings.warn(
            f"the source of rule {config.rule} has changed since the run (SHA-256 {digest[:12] or 'unknown'}, then "
            f"{config.rule_source[:12]}): its backward pass may not be the one that trained the network",
            stacklevel=3,
        )


def refuse_own_loss(rule: Rule) -> None:
    """Refuse a loss that a rule which is not ours would not minimise, though all else took it for the run's.

    Raises:
        InputError: it has an ``objective`` of its own, and does not name the setting among its options.
    """
    own = "objective" in _own_names(type(rule))
    for name in ("loss", "label_smoothing") if own else ():
        if name in changed_settings(rule.config) and name not in rule.options:
            raise InputError(
                f"rule {rule.config.rule} has an objective of its own, of another loss for all that is known than --"
                f"{name.replace('_', '-')} says: take self.mean_loss there, and name {name} in its options"
            )


def _own_names(rule: type[Rule]) -> set[str]:
    """Return what the class and its bases that are not ours define."""
    return {name for base in rule.__mro__ if base is not object and not is_ours(base) for name in vars(base)}


@contextmanager
def explained(rule: Rule, what: str) -> Iterator[None]:
    """Turn what the code of a rule that is not ours raises in ``what`` into one line; a bug of ours keeps its
    traceback, and so does memory that runs out.

    Raises:
        InputError: it raised something.
    """
    try:
        yield
    except (InputError, torch.OutOfMemoryError, OSError):
        raise
    except Exception as error:
        if is_ours(type(rule)):
            raise
        raise InputError(
            f"rule {rule.config.rule} fails in {what}{_place(error, type(rule))}: {reason(error)}"
        ) from error


def _place(error: Exception, rule: type[Rule]) -> str:
    files = {os.fspath(path) for path in source_files(rule)}
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    return f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
