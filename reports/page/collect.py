"""What a folder of results holds: every table with its provenance, and the curves of every run."""

import glob
import json
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame

from alignscape.errors import DamagedError, InputError
from alignscape.recorded import SEAL, read_record, read_recorded
from reports.analyses import known_tables
from reports.schema import Table as Schema
from reports.tables import parse_table
from training.run_folder import RunFolder
from training.store.inventory import names_of_runs

OF_RUNS = ("metrics.csv", "curvature.csv")  # what a run writes


@dataclass(frozen=True, kw_only=True)
class Table:
    """One CSV file and where its numbers come from."""

    kind: str  # the file's name without .csv: hessian, attack, ...
    path: Path
    name: str  # the path relative to the folder of the page, with forward slashes
    frame: DataFrame
    provenance: dict[str, Any]  # the sidecar, or the run's config.json; empty where there is none
    digest: str = ""  # SHA-256 of the file

    @property
    def companions(self) -> list[Path]:
        """The sidecar and figures that were written with the table: of its name, or with something after it."""
        stem = self.path.stem
        sidecar = self.path.with_suffix(".json")
        drawn = [
            path
            for path in sorted(self.path.parent.glob(f"{glob.escape(stem)}*"))
            if path.suffix in (".pdf", ".png", ".gif") and re.fullmatch(r"([-_.].*)?", path.stem.removeprefix(stem))
        ]
        return [sidecar, *drawn] if sidecar.is_file() else drawn


def find_tables(folder: Path) -> list[Table]:
    """Return every table under ``folder``, in the order of their paths.

    ``metrics.csv`` and ``curvature.csv`` of a run get their ``checkpoint, rule, angle, seed`` from the ``config.json``
    beside them. A file that cannot be read is left out with a warning.

    Raises:
        DamagedError: a table or its sidecar is not what was written.
        InputError: the folder does not exist, or holds no table.
    """
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}")
    tables = list(_read_all(folder))
    if not tables:
        raise InputError(f"{folder} holds no table (*.csv): run an analysis with --out {folder} first")
    return tables


def _read_all(folder: Path) -> Iterator[Table]:
    known = known_tables()
    names = _names_in_stores(folder)
    files = list(_contents(folder))
    frames = _parsed(files, known)
    for one in files:
        try:
            frame = frames.get(one.path)
            frame = parse_table(one.content, one.path, known.get(one.path.stem)) if frame is None else frame
            provenance = _read_json(one.path.parent / "config.json" if one.of_run else one.path.with_suffix(".json"))
            if one.of_run:
                frame = _with_run(frame, one.path.relative_to(folder).parent.as_posix(), provenance, one.path.parent)
                if one.path.parent in names:
                    frame["run"] = names[one.path.parent]
        except DamagedError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            _left_out(one.path, error)
            continue
        name = one.path.relative_to(folder).as_posix()
        yield Table(kind=one.path.stem, path=one.path, name=name, frame=frame, provenance=provenance, digest=one.digest)


@dataclass(frozen=True, kw_only=True)
class _File:
    """A CSV file."""

    path: Path
    content: bytes
    digest: str

    @property
    def of_run(self) -> bool:
        return self.path.name in OF_RUNS

    @property
    def is_plain(self) -> bool:
        """Whether each of its lines is a row."""
        return b'"' not in self.content and b"\r" not in self.content and self.content.endswith(b"\n")


def _contents(folder: Path) -> Iterator[_File]:
    for path in sorted(folder.rglob("*.csv")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue  # a file that is being written
        try:
            content, digest = read_recorded(path)
        except DamagedError:
            raise
        except OSError as error:
            _left_out(path, error)
            continue
        yield _File(path=path, content=content, digest=digest)


def _left_out(path: Path, error: Exception) -> None:
    warnings.warn(f"{path} is left out of the page: {error}", UserWarning, stacklevel=2)


def _parsed(files: Sequence[_File], known: Mapping[str, Schema]) -> dict[Path, DataFrame]:
    """Return the tables of files of one kind and one head, which are read as one: a small table takes as long as a
    large one. What cannot be read so is missing."""
    alike: dict[tuple[str, bytes], list[_File]] = defaultdict(list)
    for one in files:
        alike[one.path.stem, one.content.partition(b"\n")[0]].append(one)
    found: dict[Path, DataFrame] = {}
    for (kind, head), group in alike.items():
        plain = [one for one in group if one.is_plain]
        bodies = [one.content[len(head) + 1 :] for one in plain]
        try:
            frame = parse_table(head + b"\n" + b"".join(bodies), plain[0].path, known.get(kind)) if plain else None
        except InputError:
            continue  # one of them is at fault, and is told by its name
        ends = np.cumsum([body.count(b"\n") for body in bodies])
        if frame is None or len(frame) != ends[-1]:
            continue
        for one, start, end in zip(plain, [0, *ends[:-1]], ends, strict=True):
            found[one.path] = frame.iloc[start:end].reset_index(drop=True)
    return found


def _names_in_stores(folder: Path) -> dict[Path, str]:
    """Return a name for each run under ``folder`` that lies in a store, where its folder is a key."""
    found = sorted(path.parent for path in folder.rglob("config.json"))
    return names_of_runs([RunFolder(run) for run in found if (run.parent.parent / "store.json").is_file()])


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(read_recorded(path)[0])
    except DamagedError:
        raise
    except ValueError as error:
        warnings.warn(f"{path} is no JSON ({error}): its table is shown without it", UserWarning, stacklevel=2)
        return {}
    if not isinstance(value, dict):
        return {}
    return read_record(path) if SEAL in value else value


def _with_run(frame: DataFrame, run: str, recorded: dict[str, Any], folder: Path) -> DataFrame:
    """Return the metrics of a run with the columns that say which run it is; a lost loss marks ``diverged``."""
    config = recorded.get("config", {})
    rule = config.get("rule")
    more: dict[str, Any] = {}
    if rule is not None:
        angle = config.get("angle", np.nan) if rule == "ifa" else np.nan
        more = {"rule": rule, "angle": angle, "seed": config.get("seed", np.nan)}
    if _read_json(folder / "done.json").get("diverged"):
        more["diverged"] = np.arange(len(frame)) == len(frame) - 1
    first = DataFrame({"checkpoint": folder.name if run == "." else run}, index=frame.index)
    return pd.concat([first, frame, DataFrame(more, index=frame.index)], axis=1)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Tables of one kind that can be drawn together: no network is in two of them."""

    tables: list[Table]
    frame: DataFrame


def batches(tables: list[Table], kind: str) -> list[Batch]:
    """Group the tables of one kind for drawing.

    A network that is in two tables was analysed twice, with other parameters: these tables belong into different
    figures. So does a trajectory of several runs, whose coordinates are those of its own plane. A table that is a
    copy of another is left out.
    """
    groups: list[_Group] = []
    for table in _without_copies([one for one in tables if one.kind == kind and not one.frame.empty]):
        names = set(table.frame.get("checkpoint", pd.Series([table.name])).astype(str).unique())
        common_plane = kind == "trajectory" and len(names) > 1
        place = next(
            (group for group in groups if not (common_plane or group.common_plane or names & group.names)), None
        )
        if place is None:
            groups.append(place := _Group(common_plane=common_plane))
        place.tables.append(table)
        place.names |= names
    return [Batch(tables=g.tables, frame=pd.concat([t.frame for t in g.tables], ignore_index=True)) for g in groups]


@dataclass(kw_only=True)
class _Group:
    """Tables that go together, and the networks in them."""

    common_plane: bool  # a trajectory of several runs, which stays alone
    tables: list[Table] = field(default_factory=list)
    names: set[str] = field(default_factory=set)


def _without_copies(tables: list[Table]) -> Iterator[Table]:
    """Yield each table of whose bytes, and run if it is of one, no earlier one is."""
    seen: set[tuple[str, str]] = set()
    for table in tables:
        mark = table.digest, str(table.path.parent) if table.path.name in OF_RUNS else ""
        if mark not in seen:
            seen.add(mark)
            yield table
