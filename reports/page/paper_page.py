"""What ``analyze figures`` made, on the page: each target with its figure as it was saved, its table, its files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pandas import DataFrame
from PIL import Image

from reports.page.collect import Table
from reports.paper.papers import all_targets
from reports.raster import PAGE_DPI, SHOWN_DPI, png_uri

SAVED_DPI = 300  # of the PNG files
DATA_ROWS = 30  # of the numbers behind a figure that are shown
_COUNTED = ("runs", "analyses", "files", "profile")


def by_target(tables: Sequence[Table]) -> list[tuple[str, list[Table]]]:
    """Return the tables of each target, the targets in the order of the papers, each one's own table first."""
    order = {name: place for place, name in enumerate(all_targets())}
    names = {str(table.provenance["target"]) for table in tables}
    ordered = sorted(names, key=lambda name: (order.get(name, len(order)), name))
    first = sorted(tables, key=lambda table: (table.kind != table.provenance["target"], table.kind))
    return [(name, [table for table in first if table.provenance["target"] == name]) for name in ordered]


def saved_picture(table: Table, folder: Path) -> dict[str, Any] | None:
    """Return the figure beside a table as the template's ``figure_of`` takes it; None for a table without one."""
    path = table.path.with_suffix(".png")
    if not path.is_file():
        return None
    with Image.open(path) as saved:
        width, height = saved.size
        size = (round(width * PAGE_DPI / SAVED_DPI), round(height * PAGE_DPI / SAVED_DPI))
        image = saved.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    title, caption = table.provenance.get("title", table.kind), table.provenance.get("caption", "")
    shown = {
        "title": title,
        "caption": caption,
        "alt": f"{title}. {caption}",
        "svg": "",
        "uri": png_uri(image),
        "problem": "",
    }
    width, height = (round(pixels / SAVED_DPI * SHOWN_DPI) for pixels in (width, height))
    saved_as = [one for one in (path.with_suffix(".pdf"), path) if one.is_file()]
    files = [{"name": one.name, "link": quote(one.relative_to(folder).as_posix())} for one in saved_as]
    return {**shown, "svg": "", "problem": "", "width": width, "height": height, "files": files}


def planes_of(table: Table) -> DataFrame | None:
    """Return the loss surfaces among the numbers behind a figure, if it is of surfaces and no paths."""
    columns = {"checkpoint", "alpha", "beta", "loss"}
    if not columns <= set(table.frame.columns) or "step" in table.frame.columns:
        return None
    rows = table.frame[table.frame[["alpha", "beta", "loss"]].notna().all(axis=1)]
    return rows.drop(columns="panel", errors="ignore") if len(rows) else None


def short_provenance(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sidecar of a target with its long lists (the sidecar itself has them) as numbers."""
    if "target" not in record:
        return dict(record)
    profile = record.get("profile", {})
    short = {name: len(value) if name in _COUNTED else value for name, value in record.items()}
    return {**short, "profile": profile.get("name", "") if isinstance(profile, dict) else profile}
