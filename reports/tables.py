"""Tables on disk (CSV with a JSON sidecar that says where the numbers come from) and on the terminal."""

import io
import shlex
import shutil
import sys
import textwrap
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
    frame = parse_table(read_recorded(path)[0], path, table)
    needed = (() if table is None else table.required) if needed is None else needed
    if missing := [name for name in needed if name not in frame]:
        raise InputError(f"{path} has no column {', '.join(missing)}")
    return frame


def parse_table(content: bytes, path: Path, table: Table | None = None) -> pd.DataFrame:
    """Return the table that a CSV file's bytes are, with numbers and texts as :func:`read_table` does.

    Args:
        content: of the file.
        path: of the file, for messages.
        table: what is known of its columns.

    Raises:
        InputError: no CSV table, or a cell is no number.
    """
    try:
        frame = pd.read_csv(io.BytesIO(content), dtype=object, keep_default_na=False, na_values=_MISSING)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a CSV table") from error
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


NARROWEST, USUAL = 60, 80  # characters of a line


def line_width() -> int:
    """Return how many characters a line of the terminal has (or ``$COLUMNS``); 80 where there is none."""
    return max(NARROWEST, shutil.get_terminal_size((USUAL, 24)).columns)


def wrapped(text: str, indent: str = "") -> str:
    """Return text in lines that fit the terminal, the second and later ones after ``indent``."""
    options: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False, "subsequent_indent": indent}
    return "\n".join(textwrap.fill(line, line_width(), **options) for line in text.splitlines())


def without_shared_folder(paths: Sequence[str]) -> list[str]:
    """Return paths without the folders that all of them share, and a single one without its folders; other text, and
    paths of which two would be alike, as they are."""
    if not paths or not all("/" in path for path in paths):
        return list(paths)
    distinct = list(dict.fromkeys(paths))
    parts = [path.split("/") for path in distinct]
    shared = next((i for i, column in enumerate(zip(*parts, strict=False)) if len(set(column)) > 1), len(parts[0]) - 1)
    short = {path: "/".join(own[min(shared, len(own) - 1) :]) for path, own in zip(distinct, parts, strict=True)}
    return [short[path] for path in paths] if len(set(short.values())) == len(short) else list(paths)


def render(frame: pd.DataFrame, *, digits: int = 5, stacked: bool = True) -> str:
    """Return ``frame`` as an aligned text table for a terminal; missing values are blank.

    Of a table that is wider than the terminal paths lose the folders that they share. If it is still too wide it
    becomes several below each other, each with the leading columns of text; where those are wide themselves they come
    first, and a row is known by its number. Not if ``stacked`` is false: lists are searched by line.
    """

    def cell(value: Any) -> str:
        if value is None or (isinstance(value, float) and value != value):
            return ""
        return f"{value:.{digits}g}" if isinstance(value, float) else str(value)

    columns = [[str(name), *(cell(v) for v in frame[name].tolist())] for name in frame.columns]
    numeric = [pd.api.types.is_numeric_dtype(frame[name]) for name in frame.columns]
    room = line_width()
    if not stacked or _needed(columns) <= room:
        return _aligned(columns, numeric)
    short = [[name, *without_shared_folder(cells)] for name, *cells in columns]
    if _needed(short) <= room:
        return _aligned(short, numeric)
    widths = [max(map(len, column)) for column in columns]
    heads = max(1, numeric.index(True) if True in numeric else 1)
    repeated, right, parts = columns[:heads], numeric[:heads], list[str]()
    if _needed(short[:heads]) + 2 <= room // 2:
        repeated = short[:heads]
    else:
        repeated, right = [["", *map(str, range(1, len(frame) + 1))]], [True]
        lead = columns[:heads] if _needed([*repeated, *columns[:heads]]) <= room or heads == 1 else short[:heads]
        parts.append(_aligned([*repeated, *lead], [*right, *numeric[:heads]]))
    room -= sum(max(map(len, column)) + 2 for column in repeated)
    for places in _fitting(widths[heads:], room):
        chosen = [heads + i for i in places]
        parts.append(_aligned([*repeated, *(columns[i] for i in chosen)], [*right, *(numeric[i] for i in chosen)]))
    return "\n\n".join(parts)


def _needed(columns: Sequence[Sequence[str]]) -> int:
    """Return how wide a line of columns is."""
    return sum(max(map(len, column)) + 2 for column in columns) - 2


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
