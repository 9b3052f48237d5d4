"""Whether the results in a folder may be replaced: only by those of the same analysis, settings and inputs.

A table's sidecar says what it was made of. The same call again replaces its own results, which are equal up to
rounding; whatever else lies there is kept unless the user says ``--force``.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignscape.errors import InputError
from alignscape.files import sha256_file
from alignscape.settings import as_json, changed_settings, settings_json, settings_of

if TYPE_CHECKING:
    from reports.analyses.analysis import Analysis

BY_FLAG = "choose another --out, or replace it by --force"
BY_ARGUMENT = "choose another folder, or replace it by force=True"
READ_WHOLE = 2**20  # bytes of a file in a folder up to which its contents count, beside its name and its length
_WHERE = ("data_root", "download", "device")  # where things are, not what they are


def identity(analysis: "Analysis", loading: Any, networks: Sequence[str]) -> dict[str, Any]:
    """Return what a sidecar holds so that :func:`check_replaceable` knows the same call again.

    Args:
        analysis: with its settings.
        loading: how the networks were loaded.
        networks: SHA-256 digests of the networks given, in their order.
    """
    channels = {name: as_json(getattr(loading, name, None)) for name in ("mean", "std")}
    how = {**{name: value for name, value in channels.items() if value is not None}, **changed_settings(loading)}
    return {
        "networks": list(networks),
        "inputs": {name: _digest(value) for name, value in _paths(analysis).items()},
        "loading": {name: value for name, value in how.items() if name not in _WHERE},
    }


def _paths(analysis: "Analysis") -> dict[str, Any]:
    """Return the settings that are files or folders, and given."""
    named = {name: getattr(analysis, name) for name, one in settings_of(type(analysis)).items() if one.kind is Path}
    return {name: value for name, value in named.items() if value}


def _digest(given: Any) -> Any:
    """Return the SHA-256 of a file; of a run its checkpoint's; of a folder that of its names, lengths and small
    files; of several a list."""
    if isinstance(given, tuple):
        return [_digest(one) for one in given]
    path: Path = given
    if (path / "ckpt.pt").is_file():
        path = path / "ckpt.pt"
    if path.is_file():
        return sha256_file(path)
    files = sorted(one for one in path.rglob("*") if one.is_file())
    lengths = {one.relative_to(path).as_posix(): one.stat().st_size for one in files}
    lines = [f"{name} {size} {sha256_file(path / name) if size < READ_WHOLE else ''}" for name, size in lengths.items()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check_replaceable(analysis: "Analysis", folder: Path, origin: Mapping[str, Any], *, otherwise: str) -> None:
    """Check that no table of the analysis in ``folder`` is lost if it is written anew.

    Args:
        analysis: with its settings.
        folder: where its tables go.
        origin: what the new sidecars say, of which ``identity`` has to be known; ``data`` once they are.
        otherwise: what a user may do instead.

    Raises:
        InputError: there is one of other networks, settings or inputs, or of which nothing says what it is of.
    """
    for table in analysis.tables:
        path = folder / f"{table.name}.csv"
        found = [one for one in (path, path.with_suffix(".json")) if one.exists()]
        if found and (reason := _difference(analysis, recorded(path.with_suffix(".json")), origin)):
            raise InputError(f"{found[0]} holds another result ({reason}): {otherwise}")


def recorded(path: Path) -> dict[str, Any]:
    """Return what a sidecar says; nothing where there is none, or where it says nothing."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _difference(analysis: "Analysis", found: Mapping[str, Any], origin: Mapping[str, Any]) -> str:
    """Return in what the result that ``found`` describes differs from that of ``origin``; empty if in nothing."""
    about = found.get("analysis")
    if not isinstance(about, dict) or not isinstance(found.get("settings"), dict):
        return "its sidecar does not say which"
    if about != (now := {"name": analysis.name, "version": analysis.version}):
        return f"of {about.get('name')}, version {about.get('version')}, not {now['name']}, version {now['version']}"
    if changed := _changed_settings(analysis, found["settings"]):
        return "; ".join(changed[:2])
    new, old = origin["identity"], found.get("identity")
    if not isinstance(old, dict):
        return _difference_from_old(analysis, found, new)
    for part, words in (
        ("networks", "of other networks"),
        ("inputs", "of other files"),
        ("loading", "loaded otherwise"),
    ):
        if old.get(part) != new[part]:
            return words
    return "of other samples" if "data" in origin and _samples(found) != _samples(origin) else ""


def _difference_from_old(analysis: "Analysis", found: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Compare with a sidecar from before there were identities, which does not say what came first."""
    known = found.get("checkpoints")
    same = isinstance(known, dict) and set(known.values()) == set(new["networks"])
    return "" if same and not (analysis.against_first or new["inputs"]) else "of other networks or files"


def _samples(record: Mapping[str, Any]) -> set[str]:
    data = record.get("data")
    return {str(one.get("digest")) for one in data.values()} if isinstance(data, dict) else set()


def _changed_settings(analysis: "Analysis", found: Mapping[str, Any]) -> list[str]:
    """Return in words each setting that results depend on and that has another value now."""
    wanted = settings_json(analysis)
    described = [one for one in settings_of(type(analysis)).values() if one.in_key and one.kind is not Path]
    pairs = [(one, found.get(one.name, as_json(one.default)), wanted[one.name]) for one in described]
    return [
        f"{one.flags[0] if one.flags else one.name} {_shown(old)}, not {_shown(new)}"
        for one, old, new in pairs
        if old != new
    ]


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)
