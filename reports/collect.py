"""What a folder of results holds: every table with its provenance, and the curves of every run."""

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame

from training.errors import InputError

# Columns of text, whatever their values look like: pandas would read the gradient mode "true" as a truth value.
_TEXT = dict.fromkeys(("checkpoint", "rule", "attack", "gradient", "corruption", "category", "quantity"), "object")
_MISSING = ["", "nan", "NaN"]


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
        """The figures and arrays of the same name beside the table."""
        suffixes = (".pdf", ".png", ".gif", ".npz", ".json")
        return [path for path in map(self.path.with_suffix, suffixes) if path.is_file()]


def find_tables(folder: Path) -> list[Table]:
    """Return every table under ``folder``, in the order of their paths.

    ``metrics.csv`` of a run gets its ``checkpoint, rule, angle, seed`` from the ``config.json`` beside it. A file that
    cannot be read is left out with a warning.

    Raises:
        InputError: the folder does not exist, or holds no table.
    """
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}")
    tables = list(_read_all(folder))
    if not tables:
        raise InputError(f"{folder} holds no table (*.csv): run an analysis with --out {folder} first")
    return tables


def _read_all(folder: Path) -> Iterator[Table]:
    for path in sorted(folder.rglob("*.csv")):
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts):
            continue  # a file that is being written
        try:
            frame = pd.read_csv(path, dtype=_TEXT, keep_default_na=False, na_values=_MISSING)
            provenance = _read_json(path.with_suffix(".json"))
            if path.name == "metrics.csv":
                provenance = _read_json(path.parent / "config.json")
                frame = _with_run(frame, name.parent.as_posix(), provenance, path.parent)
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.warn(f"{path} is left out of the page: {error}", UserWarning, stacklevel=2)
            continue
        yield Table(kind=path.stem, path=path, name=name.as_posix(), frame=frame, provenance=provenance)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = json.loads(path.read_text(encoding="utf-8"))
    return value if isinstance(value, dict) else {}


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


def gather(tables: list[Table], kind: str) -> DataFrame | None:
    """Return the rows of all tables of one kind, without those that appear twice; None if there is no such table."""
    frames = [table.frame for table in tables if table.kind == kind and not table.frame.empty]
    return pd.concat(frames, ignore_index=True).drop_duplicates(ignore_index=True) if frames else None
