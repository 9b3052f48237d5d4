"""Tables for LaTeX: as wide as a page, escaped, and compiled with the packages ``booktabs`` and ``longtable`` alone."""

import hashlib
import math
import numbers
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignscape.files import write_text
from reports.page.latex_width import SIZES, TEXT_WIDTH, width

if TYPE_CHECKING:
    from pandas import DataFrame, Series

LONG_ROWS = 40  # printed lines from which a table breaks over pages
SENTENCE = 40  # characters of a cell from which it breaks into lines, each about as long
MOST_ROWS = 400  # of a table that anybody would print
PRINTED = ("metric_table",)  # which come with LaTeX of their own
NEEDS = "% needs \\usepackage{booktabs,longtable}"
_END = "% sha256 of what stands above, which analyze wrote: "
_SYMBOLS = {"↑": r"\uparrow", "↓": r"\downarrow", "†": r"\dagger", "≥": r"\ge",
            "±": r"\pm", "°": r"^{\circ}", "ε": r"\varepsilon", "λ": r"\lambda", "√": r"\surd",
            "×": r"\times", "²": "^{2}"}  # fmt: skip  # noqa: RUF001
_NAMES = {"\\": "backslash", "~": "asciitilde", "^": "asciicircum", "<": "less", ">": "greater", "|": "bar"}
ESCAPES = {
    **{character: rf"\text{name}{{}}" for character, name in _NAMES.items()},
    **{character: "\\" + character for character in "&%$#_{}"},
    **{character: f"${symbol}$" for character, symbol in _SYMBOLS.items()},
    **{"–": "--", "…": r"\ldots{}", "\n": " "},  # noqa: RUF001
}


class Latex(str):
    """A cell that is LaTeX already; a column of such is right-aligned."""


def escape(text: str) -> str:
    """Return ``text`` as LaTeX that prints it; characters that plain LaTeX lacks become a question mark."""
    return "".join(ESCAPES.get(c, c if c.isascii() else "?") for c in text)


def write_all(folder: Path, *, force: bool = False) -> list[Path]:
    """Write ``NAME.tex`` beside every table under ``folder`` that is not too long to print; return the paths. A file
    that was edited since is left as it is, with a warning, unless ``force``."""
    return _write(folder, None, force)


def write_stale(folder: Path, *, force: bool = False) -> list[Path]:
    """Write ``NAME.tex`` beside the tables in ``folder`` whose own is missing or older; return the paths.

    Where there is none, nothing heavy is imported.
    """
    stale = [path for path in sorted(folder.glob("*.csv")) if _is_stale(path) and _lines(path) <= MOST_ROWS + 1]
    return _write(folder, stale, force) if stale else []


def _is_stale(table: Path) -> bool:
    text = table.with_suffix(".tex")
    return not text.is_file() or text.stat().st_mtime_ns < table.stat().st_mtime_ns


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def _write(folder: Path, chosen: Collection[Path] | None, force: bool) -> list[Path]:
    from reports.page.collect import find_tables

    written, kinds = list[Path](), Counter[str]()
    for table in find_tables(folder):
        kinds[table.kind] += 1
        if len(table.frame) > MOST_ROWS or table.kind in PRINTED or (chosen is not None and table.path not in chosen):
            continue
        about = table.provenance
        caption = ". ".join(str(about[name]) for name in ("title", "caption") if about.get(name))
        label = f"tab:{table.kind}" + (f"-{kinds[table.kind]}" if kinds[table.kind] > 1 else "")
        text = latex_table(table.frame, caption=caption or _heading(table.kind), label=label)
        if write_kept(table.path.with_suffix(".tex"), text, force=force):
            written.append(table.path.with_suffix(".tex"))
    return written


def _heading(kind: str) -> str:
    """Return what a table of an analysis is called where nothing else is said."""
    from reports.analyses import all_analyses

    owner = next((one for one in all_analyses().values() if kind in [table.name for table in one.tables]), None)
    if owner is None:
        return kind.replace("_", " ")
    return owner.section.heading + ("" if kind == owner.name else f": {kind.replace('_', ' ')}")


def write_kept(path: Path, text: str, *, force: bool = False) -> bool:
    """Write LaTeX with its digest in its last line; return whether it was. What somebody has edited, or somebody else
    has written, is left as it is, with a warning."""
    if path.is_file() and not force and not _is_ours(path.read_text(encoding="utf-8", errors="replace")):
        warnings.warn(f"{path} was edited, or is not ours: it is left as it is (--force replaces it)", stacklevel=2)
        return False
    write_text(path, f"{text}{_END}{hashlib.sha256(text.encode()).hexdigest()}\n")
    return True


def _is_ours(text: str) -> bool:
    body, end, digest = text.rpartition(_END)
    if not end:  # of before there were digests
        return text.startswith(NEEDS.partition("{")[0])
    return hashlib.sha256(body.encode()).hexdigest() == digest.strip()


def latex_table(frame: "DataFrame", *, caption: str, label: str, text_width: float = TEXT_WIDTH) -> str:
    """Return ``frame`` as a table that fits ``text_width`` (pt): numbers to four digits and right-aligned, blanks where
    there is none; no paths, and nothing of what the computation cost.

    Where it is too wide, columns that say the same in every row go into the caption, headings break, the font becomes
    smaller, and at last the table comes in parts, below each other.
    """
    shown = _printable(frame.reset_index(drop=True))
    for fit in FITS:
        if fit.hoist:
            shown, caption = _hoisted(shown, caption)
        if _width(shown, fit) <= text_width:
            return _set([shown], fit, caption, label)
    return _set(_parts(shown, IN_PARTS, text_width), IN_PARTS, caption, label)


def _printable(frame: "DataFrame") -> "DataFrame":
    """Return the columns that a reader wants, networks by short names, or by rule and seed where these tell them."""
    from reports.analyses import known_tables

    costs = {name for table in known_tables().values() for name in table.names("cost")} | {"seconds"}
    shown = frame.drop(columns=[name for name in frame if name in costs or str(name).startswith("n_hvp")])
    if "checkpoint" in shown and "rule" in shown and len(shown.columns) > 1:
        identity = [name for name in ("rule", "angle", "seed", "epoch") if name in shown]
        networks = shown[["checkpoint", *identity]].drop_duplicates()
        if shown["rule"].notna().all() and not networks.duplicated(identity).any():
            others = [name for name in shown if name not in ("checkpoint", *identity)]
            shown = shown[[*identity, *others]]
    if not len(shown):
        return shown
    given = set(frame["checkpoint"].astype(str)) if "checkpoint" in frame else set[str]()
    return shown.apply(_without_paths).map(partial(_said_shortly, given))


def _said_shortly(networks: Collection[str], cell: Any) -> Any:
    """Return a sentence in which paths, those of ``networks`` and others, are their last names."""
    from reports.figures.series import short_names

    if not isinstance(cell, str) or isinstance(cell, Latex) or "/" not in cell or " " not in cell:
        return cell
    words = [
        short_names([word])[word] if (word.startswith("/") and len(word) > 1) or word in networks else word
        for word in cell.split(" ")
    ]
    return " ".join(words)


def _without_paths(cells: "Series[Any]") -> "Series[Any]":
    """Return a column in which paths have become short names."""
    from reports.figures.series import short_names

    paths = list(dict.fromkeys(cell for cell in cells if isinstance(cell, str) and "/" in cell and " " not in cell))
    names = short_names(paths)
    plain = {path: name.partition(" (")[0] for path, name in names.items()}
    alike = len(set(plain.values())) < len(plain)
    chosen = {path: f"network {place}" for place, path in enumerate(paths, 1)} if alike else plain
    return cells.map(lambda cell: chosen.get(cell, cell) if isinstance(cell, str) else cell) if paths else cells


def _hoisted(frame: "DataFrame", caption: str) -> "tuple[DataFrame, str]":
    """Return the table without the columns that are the same in each of several rows, and the caption that says so."""
    same = [name for name in frame if len(frame[name].drop_duplicates()) == 1]
    if len(frame) < 2 or not same or len(same) == len(frame.columns):
        return frame, caption
    told = [(str(name).replace("_", " "), cell_text(frame[name].iloc[0], short_number)) for name in same]
    text = ", ".join(f"{name} {value}" for name, value in told if value)
    joined = caption.rstrip(".") + ". " if caption else ""
    return frame.drop(columns=same), f"{joined}In all rows: {text}." if text else caption


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A way to set a table: the size of its font, the room between columns (pt), broken headings."""

    size: str
    room: float
    wrapped: bool
    hoist: bool

    @property
    def points(self) -> int:
        return SIZES[self.size]


FITS = (
    Fit(size="small", room=6, wrapped=False, hoist=False),
    Fit(size="small", room=4, wrapped=True, hoist=True),
    Fit(size="footnotesize", room=3, wrapped=True, hoist=True),
    Fit(size="scriptsize", room=3, wrapped=True, hoist=True),
)

IN_PARTS = FITS[2]


def _width(frame: "DataFrame", fit: Fit) -> float:
    """Return the estimated width of a table in pt."""
    return sum(_column_width(frame[name], fit) + 2 * fit.room for name in frame) - 2 * fit.room


def _column_width(cells: "Series[Any]", fit: Fit) -> float:
    head = max(width(line, fit.points, bold=True) for line in _head_lines(cells, fit))
    if (share := _share(cells)) is not None:
        return max(head, share * TEXT_WIDTH)
    return max([head, *(width(text, fit.points) for text in dict.fromkeys(map(_cell, cells)))])


def _head_lines(cells: "Series[Any]", fit: Fit) -> list[str]:
    """Return a heading in lines, none of which needs to be wider than the cells, if it may break."""
    words = str(cells.name).replace("_", " ").split(" ")
    if not fit.wrapped:
        return [" ".join(words)]
    widest = max(
        [*(width(_cell(cell), fit.points) for cell in cells), *(width(word, fit.points, bold=True) for word in words)]
    )
    lines: list[str] = []
    for word in words:
        if lines and width(f"{lines[-1]} {word}", fit.points, bold=True) <= widest:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _parts(frame: "DataFrame", fit: Fit, text_width: float) -> "list[DataFrame]":
    """Return the columns in as few tables as fit, each with the leading columns of text, or the rows' numbers where
    these take up too much."""
    from pandas import Series
    from pandas.api.types import is_numeric_dtype

    kinds = [is_numeric_dtype(frame[name]) for name in frame]
    lead = list(frame.columns[: max(1, kinds.index(True) if True in kinds else 1)])
    rest = [name for name in frame if name not in lead]
    if _width(frame[lead], fit) > 0.6 * text_width:
        numbered = frame.assign(row=Series(range(1, len(frame) + 1), index=frame.index))
        return [numbered[names] for names in _runs(numbered, ["row"], list(frame.columns), fit, text_width)]
    return [frame[names] for names in _runs(frame, lead, rest, fit, text_width)]


def _runs(frame: "DataFrame", lead: list[Any], rest: list[Any], fit: Fit, text_width: float) -> list[list[Any]]:
    runs = [list(lead)]
    for name in rest:
        if len(runs[-1]) > len(lead) and _width(frame[[*runs[-1], name]], fit) > text_width:
            runs.append(list(lead))
        runs[-1].append(name)
    return runs


def _set(parts: "Sequence[DataFrame]", fit: Fit, caption: str, label: str) -> str:
    """Return tables below each other under one caption, in a font; they break over pages where they are long."""
    breaks = sum(map(_printed_lines, parts)) > LONG_ROWS
    if breaks:
        told = [caption] + [f"{caption} (continued)"] * (len(parts) - 1)
        tables = [_tabular(part, fit, caption=words, label=label if not place else "") for place, (part, words) in
                  enumerate(zip(parts, told, strict=True))]  # fmt: skip
        text = "\n".join(tables)
        return f"{NEEDS}\n\\begingroup\\{fit.size}{_room(fit)}\n{text}\\endgroup\n"
    inside = "\n\\medskip\n\n".join(_tabular(part, fit) for part in parts)
    head = f"\\begin{{table}}[htbp]\n\\centering\\{fit.size}{_room(fit)}\n"
    return f"{NEEDS}\n{head}\\caption{{{escape(caption)}}}\n\\label{{{label}}}\n{inside}\\end{{table}}\n"


def _room(fit: Fit) -> str:
    return "" if fit.room == FITS[0].room else f"\\setlength{{\\tabcolsep}}{{{fit.room:g}pt}}"


def _tabular(frame: "DataFrame", fit: Fit, *, caption: str | None = None, label: str = "") -> str:
    """Return one table; one with a caption breaks over pages."""
    from pandas.api.types import is_numeric_dtype

    columns = {name: "r" if is_numeric_dtype(frame[name]) else _text_column(frame[name]) for name in frame}
    heads = {name: _head(_head_lines(frame[name], fit), right=columns[name] == "r") for name in frame}
    style = frame.style.hide(axis="index").format(_cell).format_index(heads.__getitem__, axis="columns")
    text: str = style.to_latex(
        column_format="@{}" + "".join(columns.values()) + "@{}" if fit.wrapped else "".join(columns.values()),
        environment=None if caption is None else "longtable",
        caption=None if caption is None else escape(caption),
        label=label or None,
        hrules=True,
    )
    return text


def _printed_lines(frame: "DataFrame") -> int:
    """Return how many lines the rows take up on the page, with sentences broken."""
    lengths = frame.map(lambda cell: len(str(cell))).where(frame.notna(), 0).max(axis=1)
    return sum(max(1, math.ceil(length / SENTENCE)) for length in lengths)


def _share(cells: "Series[Any]") -> float | None:
    """Return the share of the line that a column of sentences gets, which break; None for other columns."""
    longest = max(
        (len(cell) for cell in cells.dropna() if isinstance(cell, str) and not isinstance(cell, Latex)), default=0
    )
    return None if longest <= SENTENCE else 0.36 if longest <= 2 * SENTENCE else 0.42


def _text_column(cells: "Series[Any]") -> str:
    """Return how a column of text is set: sentences break into lines, so that the table fits a page."""
    if len(cells) and all(isinstance(cell, Latex) for cell in cells):
        return "r"
    share = _share(cells)
    return "l" if share is None else rf"p{{{share:g}\linewidth}}"


def _cell(value: Any) -> str:
    return value if isinstance(value, Latex) else cell_text(value, number=_number, text=escape)


def _head(lines: list[str], *, right: bool) -> str:
    bold = [rf"\textbf{{{escape(line)}}}" for line in lines]
    if len(bold) == 1:
        return bold[0]
    return rf"\begin{{tabular}}[b]{{@{{}}{'r' if right else 'l'}@{{}}}}" + " \\\\ ".join(bold) + r"\end{tabular}"


def cell_text(value: Any, number: Callable[[float], str], text: Callable[[str], str] = str) -> str:
    """Return what a cell says: a number by ``number``, the rest by ``text``, nothing where there is nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return number(float(value)) if is_number else text(str(value))


def short_number(value: float) -> str:
    """Return whole numbers below a million in full, others to four digits."""
    return f"{int(value)}" if value.is_integer() and abs(value) < 1e6 else f"{value:.4g}"


def _number(value: float) -> str:
    if not math.isfinite(value):
        return r"$\infty$" if value > 0 else r"$-\infty$"
    text = short_number(value)
    mantissa, exponent, power = text.partition("e")
    if exponent:
        return rf"${mantissa} \times 10^{{{int(power)}}}$"
    return f"${text}$" if text.startswith("-") else text
