"""The table of rules and metrics as text for a terminal, as LaTeX and as a fragment of a page."""

import html
import math
from collections.abc import Callable, Sequence

from pandas import DataFrame

from reports.page.collect import Table
from reports.page.latex import Latex, latex_table
from reports.page.metric_table import MetricTable, metric_table_of

ARROWS = {"higher": "↑", "lower": "↓", "": ""}
LARGEST, SMALLEST = 1e5, 1e-3  # beyond, a mean is written with a power of ten


def number(mean: float, sd: float, *, power: str = "e{}", plus: str = " ± ") -> str:
    """Return a mean with its spread, both to the spread's first digit, or second where the first is 1; a mean alone to
    four digits."""
    if not math.isfinite(mean):
        return ""
    exponent = math.floor(math.log10(abs(mean))) if mean else 0
    scaled = not SMALLEST <= abs(mean) < LARGEST and mean != 0
    unit = 10.0**exponent if scaled else 1.0
    mean, sd = mean / unit, sd / unit
    after = power.format(exponent) if scaled else ""
    if not math.isfinite(sd):
        return f"{mean:.4g}{after}"
    if sd == 0:
        return f"{mean:.4g}{plus}0{after}"
    first = math.floor(math.log10(sd))
    digits = min(max(0, -first + (sd < 2 * 10.0**first)), 6)
    text = f"{mean:.{digits}f}{plus}{sd:.{digits}f}"
    return f"({text}){after}" if scaled else text


def _cells(table: MetricTable, write: Callable[[float, float], str], bold: str) -> tuple[list[str], list[list[str]]]:
    """Return the heads of the metrics and for each row of the table its label, cells and n; ``{}`` in ``bold`` is what
    becomes bold."""
    rows = table.rows
    heads = []
    for metric in table.metrics:
        better = str(rows.loc[rows["metric"] == metric, "better"].iloc[0])
        heads.append(f"{metric} {ARROWS[better]}".strip())
    lines = []
    for label in table.labels:
        own = rows[rows["label"] == label]
        most = int(own["n"].max())
        cells = []
        for mean, sd, n, strong in zip(own["mean"], own["sd"], own["n"], own["bold"], strict=True):
            text = write(mean, sd)
            cells.append((bold.format(text) if strong else text) + (f" ({n})" if text and n != most else ""))
        lines.append([f"{label} †" if label in table.apart else label, *cells, str(most)])
    return heads, lines


def text(table: MetricTable) -> str:
    """Return the table for a terminal; stars stand for bold."""
    from reports.tables import render, wrapped

    heads, lines = _cells(table, number, "*{}*")
    frame = DataFrame(lines, columns=["", *heads, "n"])
    notes = wrapped(" ".join(table.notes).replace("Bold:", "Stars:"))
    return f"{render(frame)}\n\n{notes}"


def latex(table: MetricTable, *, caption: str = "", label: str = "tab:metrics") -> str:
    """Return the table as LaTeX that fits the width of a text, with its notes in the caption."""
    heads, lines = _cells(
        table, lambda mean, sd: number(mean, sd, power=r" \times 10^{{{}}}", plus=r" \pm "), r"\mathbf{{{}}}"
    )
    body = [[row[0], *map(_maths, row[1:-1]), Latex(row[-1])] for row in lines]
    frame = DataFrame(body, columns=["rule", *heads, "n"], dtype=object)
    words = " ".join(part for part in (caption, *table.notes) if part)
    return latex_table(frame, caption=words, label=label)


def _maths(cell: str) -> Latex:
    return Latex(f"${cell}$" if cell else "")


def fragment(table: MetricTable) -> str:
    """Return the table as HTML without a page around it: ``<table class="metrics">`` with its notes below.

    Numbers carry what they sort by in ``data-value``; the best are ``<strong>``.
    """
    heads, lines = _cells(table, number, "<strong>{}</strong>")
    means = [table.rows.loc[table.rows["label"] == label, "mean"] for label in table.labels]
    first = "".join(f'<th scope="col">{html.escape(head)}</th>' for head in ["rule", *heads, "n"])
    rows = []
    for (label, *cells, n), own in zip(lines, means, strict=True):
        shown = "".join(
            f'<td data-value="{"" if math.isnan(mean) else mean!r}">{cell}</td>'
            for cell, mean in zip(cells, own, strict=True)
        )
        rows.append(f'<tr><th scope="row">{html.escape(label)}</th>{shown}<td data-value="{n}">{n}</td></tr>')
    notes = html.escape(" ".join(table.notes))
    body = "\n".join(rows)
    return (
        f'<table class="metrics">\n<thead><tr>{first}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n'
        f'<p class="notes">{notes}</p>\n'
    )


def overview_fragment(tables: Sequence[Table]) -> str:
    """Return the same of tables that were read already, which is what the page shows first; empty if there are none."""
    return fragment(metric_table_of(tables))
