"""Figures as the page shows them: drawn from a batch of tables, with what they show in words and the files of them."""

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from matplotlib.figure import Figure
from pandas import DataFrame

from alignscape.errors import InputError
from reports.analyses.section import Drawing, Section
from reports.figures.series import series_of
from reports.page.collect import Batch, Table
from reports.page.svg import size_of, svg_of
from reports.page.variants import Variants
from reports.raster import SHOWN_DPI
from reports.style import save

MOST_SERIES = 40  # of a figure on the page
MOST_PANELS = 24  # of a figure with a panel for each network


class Pictures:
    """The figures of one page, numbered.

    Args:
        folder: of the page.
        variants: settings of its runs, by which series are told apart.
    """

    def __init__(self, folder: Path, variants: Variants) -> None:
        self.folder = folder
        self.variants = variants
        self.count = 0

    def of_section(
        self, kind: str, section: Section, found: Sequence[Batch], beside: Sequence[Table]
    ) -> list[dict[str, Any]]:
        """Return the figures of a section: each drawing of each batch that has what it shows."""
        return [
            self._of_batch(drawing, kind, batch, beside, several=len(found) > 1, first=batch is found[0])
            for batch in found
            for drawing in section.drawings
            if _applies(drawing, batch, beside)
        ]

    def _of_batch(
        self, drawing: Drawing, kind: str, batch: Batch, beside: Sequence[Table], *, several: bool, first: bool
    ) -> dict[str, Any]:
        main, left_out = self._limited(drawing, batch.frame)
        title = drawing.title + (f" ({_named(batch.tables)})" if several else "")
        shown = _shown_table(drawing, batch, beside)
        caption = " ".join(filter(None, (drawing.caption_of(main if shown is None else shown), left_out)))
        draw = functools.partial(_draw, drawing, kind, main, batch, beside)
        if drawing.derived:
            return self.picture(title, caption, draw, self.folder / drawing.stem if first else None)
        return self.picture(title, caption, draw, saved=_saved(drawing, batch.tables))

    def _limited(self, drawing: Drawing, frame: DataFrame) -> tuple[DataFrame, str]:
        """Return the rows of as many networks as a figure can show, and what is said of the others."""
        labelled = self.variants.labelled(frame)
        if "checkpoint" not in labelled:
            return labelled, ""
        parts = [one.frame for one in series_of(labelled, along="epoch")]
        most, what = MOST_SERIES, "series"
        if drawing.panel_each:
            names = list(dict.fromkeys(labelled["checkpoint"]))
            most, what = MOST_PANELS, "networks"
            parts = [labelled[labelled["checkpoint"] == name] for name in names] if len(names) > most else []
        if len(parts) <= most:
            return labelled, ""
        kept = pd.concat(parts[:most])[list(labelled)]
        return kept, f"The first {most} of {len(parts)} {what}; the tables have all."

    def picture(
        self,
        title: str,
        caption: str,
        draw: Callable[[], Figure],
        stem: Path | None = None,
        saved: Sequence[Path] = (),
    ) -> dict[str, Any]:
        """Return a figure as it is put on the page, or why there is none.

        Args:
            stem: where to save it, if nowhere else.
            saved: files of it that are there.
        """
        try:
            figure = draw()
        except InputError as error:
            return {"title": title, "caption": "", "files": (), "problem": str(error)}
        self.count += 1
        if stem is not None:
            saved = save(figure, stem)
        width, height = size_of(figure, SHOWN_DPI)
        alt = f"{title}: {_legend_names(figure)}. {caption}"
        links = [{"name": path.name, "link": quote(path.relative_to(self.folder).as_posix())} for path in saved]
        return {
            "id": f"figure-{self.count}",
            "title": title,
            "caption": caption,
            "svg": svg_of(figure, f"f{self.count}", alt),
            "width": width,
            "height": height,
            "files": links,
            "problem": "",
        }


def _named(tables: Sequence[Table]) -> str:
    names = [table.name for table in tables]
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} and {len(names) - 1} more tables"


def _saved(drawing: Drawing, tables: Sequence[Table]) -> list[Path]:
    """Return the files of a figure that its analysis saved, if it drew the same table."""
    if len(tables) > 1:
        return []
    paths = [tables[0].path.with_name(f"{drawing.stem}{suffix}") for suffix in (".pdf", ".png")]
    return [path for path in paths if path.is_file()]


def _applies(drawing: Drawing, batch: Batch, beside: Sequence[Table]) -> bool:
    """Say whether the table that a drawing shows is there and has what it shows."""
    if not drawing.of:
        return drawing.applies(batch.frame)
    shown = _shown_table(drawing, batch, beside)
    return shown is not None and drawing.applies(shown)


def _shown_table(drawing: Drawing, batch: Batch, beside: Sequence[Table]) -> DataFrame | None:
    """Return the table beside the main one that a drawing shows; None if it shows the main one, or there is none."""
    shown = _near(batch, beside).get(drawing.of, [])
    return pd.concat([table.frame for table in shown], ignore_index=True) if shown else None


def _draw(drawing: Drawing, kind: str, main: DataFrame, batch: Batch, beside: Sequence[Table]) -> Figure:
    """Draw a batch of tables, with the tables beside them that the drawing shows."""
    near = _near(batch, beside)
    others = {name: pd.concat([table.frame for table in own], ignore_index=True) for name, own in near.items()}
    return drawing.figure({kind: main, **others}, kind)


def _near(batch: Batch, beside: Sequence[Table]) -> dict[str, list[Table]]:
    """Return the companions that lie in the folders of a batch, by their kind."""
    folders = {table.path.parent for table in batch.tables}
    near: dict[str, list[Table]] = {}
    for table in beside:
        if table.path.parent in folders:
            near.setdefault(table.kind, []).append(table)
    return near


def _legend_names(figure: Figure) -> str:
    """Name what is drawn, for readers who do not see it."""
    names = [str(text.get_text()) for legend in figure.legends for text in legend.get_texts()]
    if not names:
        names = [re.sub(r"\$.*?\$\s*", "", axes.get_title(loc="left")) for axes in figure.axes]
    return ", ".join(dict.fromkeys(name.replace("\n", ", ").replace("\\$", "$") for name in names if name))
