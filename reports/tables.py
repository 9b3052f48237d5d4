"""Tables on disk (CSV with a JSON sidecar that says where the numbers come from) and on the terminal."""

import io
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from alignscape.errors import InputError
from alignscape.files import atomic_path, sha256_file
from alignscape.recorded import read_recorded, write_record
from alignscape.version import versions
from reports.schema import CHECKPOINT, RUN, Column, Table

if TYPE_CHECKING:
    from reports.subjects import Subject

_MISSING = ["", "nan", "NaN"]
_IDENTITY = {column.name: column for column in (CHECKPOINT, *RUN)}


def with_subject(frame: pd.DataFrame, subject: "Subject") -> pd.DataFrame:
    """Return ``frame`` with ``checkpoint`` as its first column and, for a run of ours, ``rule, angle, seed, epoch``
    as its last ones."""
    labelled = frame.copy()
    labelled.insert(0, "checkpoint", subject.name)
    return labelled.assign(**subject.columns)


def write_table(frame: pd.DataFrame, path: Path, provenance: Mapping[str, Any], table: Table | None = None) -> None:
    """Write ``frame`` as CSV (floats at full precision) and ``provenance`` as JSON beside it, both atomically; the
    sidecar, which has the table's digest, first, so that no table is without one.

    Raises:
        ValueError: the columns are not those of ``table``: whoever made the frame is wrong.
    """
    if table is not None:
        check_columns(frame, table)
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False)
        described = {"sha256": sha256_file(temporary), "bytes": temporary.stat().st_size}
        write_record(path.with_suffix(".json"), {**provenance, "files": {path.name: described}})


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write ``frame`` as CSV, atomically and without a sidecar."""
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False)


def check_columns(frame: pd.DataFrame, table: Table) -> None:
    """Check that a frame has the columns of ``table`` in order, beside those that identify a network.

    Raises:
        ValueError: it has not.
    """
    own = [name for name in frame.columns if name not in _IDENTITY or name in table.names()]
    declared = [column.name for column in table.columns if column.name in own or not column.optional]
    if own != declared and not (table.open and set(declared) <= set(own)):
        raise ValueError(f"{table.name}.csv has the columns {own}, declared are {declared}")


def read_table(path: Path, table: Table | None = None, *, needed: Collection[str] | None = None) -> pd.DataFrame:
    """Return the CSV table at ``path`` with every number as it was written and every text as text (the gradient mode
    ``true`` is no truth value). Without a ``table`` to say so, a column is of numbers where all its cells are.

    Args:
        path: the file.
        table: what is known of its columns.
        needed: columns that must be there; all that ``table`` requires if None.

    Raises:
        DamagedError: the table is not the one that was recorded when it was written.
        InputError: no such file, no CSV table, a column is missing, or a cell is no number.

    Example:
        >>> import tempfile, pathlib
        >>> from reports import read_table
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "attack.csv"
        ...     _ = path.write_text("gradient,eps,steps\\ntrue,0.1,10\\n")
        ...     read_table(path).to_dict("records")
        [{'gradient': 'true', 'eps': 0.1, 'steps': 10}]
    """
    if not path.is_file():
        raise InputError(f"no such table: {path}")
    try:
        frame = pd.read_csv(io.BytesIO(read_recorded(path)[0]), dtype=object, keep_default_na=False, na_values=_MISSING)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a CSV table") from error
    needed = (() if table is None else table.required) if needed is None else needed
    if missing := [name for name in needed if name not in frame]:
        raise InputError(f"{path} has no column {', '.join(missing)}")
    known = _IDENTITY | ({} if table is None else {column.name: column for column in table.columns})
    for name in frame:
        try:
            frame[name] = _typed(frame[name], known.get(str(name)))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}, column {name}: {error}") from error
    return frame


def _typed(cells: "pd.Series[Any]", column: Column | None) -> "pd.Series[Any]":
    """Return cells of text as what they stand for."""
    if column is not None and column.kind in ("text", "bool"):
        return cells if column.kind == "text" else cells.map({"True": True, "False": False})
    try:
        found = cells.astype(float)  # by Python's own float: the very number that was written
    except ValueError:
        if column is None:
            return cells
        raise
    digits = cells.astype(str).str.fullmatch(r"-?\d+").all()
    whole = digits if column is None else column.kind == "int"
    if column is not None and whole and (found % 1).any():
        raise ValueError(f"{found[found % 1 != 0].iloc[0]:g} is no whole number")
    if not (whole and len(found) and found.notna().all()):
        return found
    try:
        return (cells.map(int) if digits else found).astype("int64")  # a seed may have more digits than a float holds
    except OverflowError:
        return found


def provenance(
    subjects: "Sequence[Subject]", *, seed: int | None = None, command: str | None = None, **more: Any
) -> dict[str, Any]:
    """Return what a sidecar holds: command line, versions, time, seed, digests of checkpoints and data; and
    ``more``, which must be JSON. ``command`` is what was called, where that is not the command line."""
    from alignscape.device import describe_device  # imports torch, which a list of runs goes without

    return {
        "command": command or shlex.join(["analyze", *sys.argv[1:]]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "seed": seed,
        "device": describe_device(subjects[0].device) if subjects else None,
        "checkpoints": {s.name: s.digest for s in subjects},
        **({"losses": losses} if (losses := {s.name: w for s in subjects if (w := s.training_loss.words())}) else {}),
        "data": {
            s.name: {"dataset": s.dataset, "split": s.split, "samples": len(s.labels), "digest": s.data_digest}
            for s in subjects
        },
        **more,
    }


WIDEST, STACKED = 100, 80  # characters of a line: a table that is wider is stacked, in parts of at most so many
_LONG = 20  # characters of a name: what a path has more makes no table wide


def render(frame: pd.DataFrame, *, digits: int = 5, stacked: bool = True) -> str:
    """Return ``frame`` as an aligned text table for a terminal; missing values are blank.

    A table that is wider than :data:`WIDEST` becomes several below each other, each with the leading columns of text;
    where those are wide themselves they come first, and a row is known by its number. Not if ``stacked`` is false:
    lists are searched by line.
    """

    def cell(value: Any) -> str:
        if value is None or (isinstance(value, float) and value != value):
            return ""
        return f"{value:.{digits}g}" if isinstance(value, float) else str(value)

    columns = [[str(name), *(cell(v) for v in frame[name].tolist())] for name in frame.columns]
    numeric = [pd.api.types.is_numeric_dtype(frame[name]) for name in frame.columns]
    widths = [max(map(len, column)) for column in columns]
    if not stacked or sum(widths) - max(0, widths[0] - _LONG) + 2 * (len(widths) - 1) <= WIDEST:
        return _aligned(columns, numeric)
    heads = max(1, numeric.index(True) if True in numeric else 1)
    repeated, right, parts = columns[:heads], numeric[:heads], list[str]()
    if sum(widths[:heads]) + 2 * heads > STACKED * 2 // 3:
        repeated, right = [["", *map(str, range(1, len(frame) + 1))]], [True]
        parts.append(_aligned([*repeated, *columns[:heads]], [*right, *numeric[:heads]]))
    room = STACKED - sum(max(map(len, column)) + 2 for column in repeated)
    for places in _fitting(widths[heads:], room):
        chosen = [heads + i for i in places]
        parts.append(_aligned([*repeated, *(columns[i] for i in chosen)], [*right, *(numeric[i] for i in chosen)]))
    return "\n\n".join(parts)


def _fitting(widths: Sequence[int], room: int) -> list[list[int]]:
    """Return the places of columns of these widths in as few runs as fit into ``room``, each at least one column."""
    runs: list[list[int]] = []
    left = -1
    for place, width in enumerate(widths):
        if width > left:
            runs.append([])
            left = room
        runs[-1].append(place)
        left -= width + 2
    return runs


def _aligned(columns: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """Return columns of text side by side, each with its name first."""
    widths = [max(map(len, column)) for column in columns]
    return "\n".join(
        "  ".join(t.rjust(w) if r else t.ljust(w) for t, w, r in zip(row, widths, right, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    )
