"""Tables as the page shows them: a card for each, those of single runs grouped by rule with their seeds inside."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from pandas import DataFrame

from reports.page.collect import OF_RUNS, Table
from reports.page.latex import cell_text, short_number
from reports.page.paper_page import short_provenance
from reports.page.variants import Variants

MOST_ROWS = 200  # of a table that are shown on the page; the CSV file has all
OPEN_ROWS = 40  # a section's only table is unfolded if it has no more rows
MOST_CELLS = 40_000  # of the tables of single runs in a section; if there are more, the page has links to them only
GROUPED = 4  # tables of single runs from which they are grouped

Pairs = list[tuple[str, str]]


class Cards:
    """What the cards of one page share.

    Args:
        folder: of the page.
        variants: settings of its runs.
        tables: all of them; what every run says of its origin is said once.
    """

    def __init__(self, folder: Path, variants: Variants, tables: Sequence[Table]) -> None:
        self.folder = folder
        self.variants = variants
        self._origins: dict[Path, Pairs] = {
            table.path: flat(short_provenance(table.provenance)) for table in tables if table.path.name in OF_RUNS
        }
        counted = Counter(pair for own in self._origins.values() for pair in own)
        self.shared = [pair for pair, count in counted.items() if count == len(self._origins)]
        self._known = set(self.shared)

    def card(self, table: Table, *, unfolded: bool = False, rows: int = MOST_ROWS, title: str = "") -> dict[str, Any]:
        """Return a table with its files and its origin; ``title``: what it is called in place of its file."""
        files = [table.path, *table.companions]
        origin = self._origins.get(table.path)
        pairs = flat(short_provenance(table.provenance)) if origin is None else origin
        return {
            "name": table.name,
            "title": title,
            "link": quote(table.name),
            "rows_in_all": len(table.frame),
            "unfolded": unfolded,
            "files": [{"name": p.name, "link": quote(p.relative_to(self.folder).as_posix())} for p in files],
            "provenance": pairs if origin is None else [pair for pair in pairs if pair not in self._known],
            **rendered(table.frame.head(rows)),
        }

    def groups(self, tables: Sequence[Table]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the groups of the tables of one kind, and the cards of those that are in none.

        A group is of runs that differ in their seed only: its name, its runs' last rows, and a card for each.
        """
        alone = [table for table in tables if len(_names(table)) == 1]
        if len(alone) < GROUPED:
            return [], [
                self.card(table, unfolded=len(tables) == 1 and len(table.frame) <= OPEN_ROWS) for table in tables
            ]
        cells = sum(table.frame.size for table in alone)
        rows = MOST_ROWS if cells <= MOST_CELLS else 0
        found: dict[tuple[tuple[Any, ...], str], list[Table]] = {}
        for table in alone:
            found.setdefault(self._label(table), []).append(table)
        groups = [self._group(name, found[order, name], rows) for order, name in sorted(found)]
        return groups, [self.card(table) for table in tables if len(_names(table)) != 1]

    def _label(self, table: Table) -> tuple[tuple[Any, ...], str]:
        first: Mapping[str, Any] = {str(k): v for k, v in table.frame.iloc[0].to_dict().items()}
        return self.variants.label(str(first["checkpoint"]), first)

    def _group(self, name: str, tables: Sequence[Table], rows: int) -> dict[str, Any]:
        ordered = sorted(tables, key=_seed)
        ends = None
        if ordered[0].path.name in OF_RUNS:
            last = pd.concat([table.frame.iloc[-1:] for table in ordered], ignore_index=True)
            identity = [column for column in ("seed", "checkpoint") if column in last]
            ends = rendered(last[identity + [c for c in last if c not in (*identity, "rule", "angle")]])
        cards = [self.card(table, rows=rows, title=_seed_text(table)) for table in ordered]
        return {"name": name, "count": len(ordered), "ends": ends, "cards": cards}


def _names(table: Table) -> set[str]:
    return set(table.frame["checkpoint"].astype(str)) if "checkpoint" in table.frame else set()


def _seed(table: Table) -> tuple[float, str]:
    seed = table.frame["seed"].iloc[0] if "seed" in table.frame else float("inf")
    return (float(seed) if seed == seed else float("inf")), table.name


def _seed_text(table: Table) -> str:
    seed = _seed(table)[0]
    return f"Seed {seed:.0f}" if seed != float("inf") else ""


def rendered(frame: DataFrame) -> dict[str, Any]:
    """Return columns and cells as the template needs them: text to read and value to sort by."""
    columns = [{"name": str(name), "numeric": pd.api.types.is_numeric_dtype(frame[name])} for name in frame.columns]
    rows = [
        [
            {"text": cell_text(value, short_number), "value": cell_text(value, repr), "note": "", "best": False}
            for value in row
        ]
        for row in frame.itertuples(index=False, name=None)
    ]
    return {"columns": columns, "rows": rows}


def flat(value: Any, name: str = "") -> Pairs:
    """Return nested JSON as (names from outside in, text) pairs."""
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in flat(inner, f"{name}: {key}" if name else str(key))]
    if isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        return [pair for place, inner in enumerate(value, 1) for pair in flat(inner, f"{name}: {place}")]
    text = ", ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)
    return [(name, text)]
