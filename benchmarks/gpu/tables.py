"""What the command found, as tables in Markdown."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alignscape.files import write_text

BEGIN, END = "<!-- benchmarks/gpu -->", "<!-- end of benchmarks/gpu -->"
NOT_YET = "No GPU has run the command yet."
LISTED = 40  # rows of a table; all of them are in gpu.json


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of every table of a ``gpu.json``."""
    rehearsal = "**A rehearsal on a CPU: it shows that the command works, and nothing about a GPU.** "
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    yield f"{rehearsal if found['device'] == 'cpu' else ''}{found['hardware']}; {versions}; {found['created']};"
    yield f"`{found['command']}`, {found['seconds']:.0f} s."
    yield ""
    parts = found["parts"]
    cells = [[f"`{one['name']}`", one["title"], f"**{one['state']}**: {one['line']}", one["seconds"]] for one in parts]
    yield from _table(["part", "what", "result", "seconds"], cells)
    targets = [one for part in parts for one in part["said"] if one["kind"] == "target"]
    if targets:
        yield from _table(["target", "wanted", "measured", "met"], [_target(one) for one in targets])
    for name, rows in tables(parts).items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        yield f"### {name[0].upper()}{name[1:]}"
        yield from _table(columns, [[row.get(column, "") for column in columns] for row in rows[:LISTED]])
        if len(rows) > LISTED:
            yield from (f"and {len(rows) - LISTED} more", "")


def tables(parts: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of every table by its name, in the order in which they were said."""
    found: dict[str, list[dict[str, Any]]] = {}
    for part in parts:
        for one in part["said"]:
            if one["kind"] == "row":
                found.setdefault(one["table"], []).append(one["columns"])
    return found


def _target(one: dict[str, Any]) -> list[object]:
    wanted = f"{'at most' if one['most'] else 'at least'} {one['target']:g} {one['unit']}".rstrip()
    return [one["name"], wanted, f"{one['measured']:.3g}", "yes" if one["met"] else "**no**"]


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(column.replace('_', ' ') for column in columns)} |"
    yield "|---" * len(columns) + "|"
    for row in rows:
        yield "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
    yield ""


def has_markers(path: Path) -> bool:
    """Whether a page has a place for the tables."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return BEGIN in text and END in text.partition(BEGIN)[2]


def write_between(path: Path, found: dict[str, Any]) -> None:
    """Put the tables between the markers of a page, which has them."""
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    write_text(path, "\n".join([before + BEGIN, "", *lines(found), END + after]))
