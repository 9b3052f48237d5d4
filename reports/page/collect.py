"""What a folder of results holds: every table with its provenance, and the curves of every run."""

import glob
import json
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame

from alignscape.errors import DamagedError, InputError
from alignscape.recorded import read_record, read_recorded
from reports.analyses import known_tables
from reports.tables import read_table
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
    for path in sorted(folder.rglob("*.csv")):
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts):
            continue  # a file that is being written
        try:
            frame = read_table(path, known.get(path.stem), needed=())
            provenance = _read_json(path.with_suffix(".json"))
            if path.name in OF_RUNS:
                provenance = _read_json(path.parent / "config.json")
                frame = _with_run(frame, name.parent.as_posix(), provenance, path.parent)
                if path.parent in names:
                    frame["run"] = names[path.parent]
        except DamagedError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.warn(f"{path} is left out of the page: {error}", UserWarning, stacklevel=2)
            continue
        yield Table(kind=path.stem, path=path, name=name.as_posix(), frame=frame, provenance=provenance)


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
    return read_record(path) if isinstance(value, dict) else {}


def _with_run(frame: DataFrame, run: str, recorded: dict[str, Any], folder: Path) -> DataFrame:
    """Return the metrics of a run with the columns that say which run it is; a lost loss marks ``diverged``."""
    config = recorded.get("config", {})
    rule = config.get("rule")
    labelled = frame.copy()
    labelled.insert(0, "checkpoint", folder.name if run == "." else run)
    if rule is not None:
        labelled["rule"] = rule
        labelled["angle"] = config.get("angle", np.nan) if rule == "ifa" else np.nan
        labelled["seed"] = config.get("seed", np.nan)
    if _read_json(folder / "done.json").get("diverged"):
        labelled["diverged"] = np.arange(len(labelled)) == len(labelled) - 1
    return labelled


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
    """Yield each table whose numbers no earlier one has; only those of one hash are compared."""
    seen: dict[tuple[Any, ...], list[DataFrame]] = defaultdict(list)
    for table in tables:
        rows = pd.util.hash_pandas_object(table.frame, index=False)
        alike = seen[*table.frame.columns, rows.to_numpy().tobytes()]
        if not any(table.frame.equals(other) for other in alike):
            alike.append(table.frame)
            yield table
