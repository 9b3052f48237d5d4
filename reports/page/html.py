"""One page for a folder of results: every figure and table in a single HTML file that opens without a network."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
from pandas import DataFrame

from alignscape.files import write_text
from reports.analyses.section import Section
from reports.figures import against_angle
from reports.page.cards import MOST_ROWS, OPEN_ROWS, Cards, rendered
from reports.page.cite import bibtex, references_of
from reports.page.collect import Batch, Table, batches, find_tables
from reports.page.latex import escape
from reports.page.overview import by_rule, overview, quantities, told_apart
from reports.page.paper_page import DATA_ROWS, by_target, planes_of, saved_picture
from reports.page.pictures import MOST_PANELS, Pictures
from reports.page.sections import companions, sections
from reports.page.surface3d import plotly_source, surface_payload
from reports.page.svg import palette
from reports.page.variants import Variants, one_name_each
from reports.raster import data_uri

Progress = Callable[[int, int], None]

CURVE_ANGLES = 3  # angles from which quantities are drawn against the angle
MOST_FILMS = 12  # of a section that are inside the page; to the others there are links
SPECIAL = "\\~^<>|&%$#_{}±°ελ√×²–…↑↓†≥"  # noqa: RUF001  characters that LaTeX writes otherwise
SCRIPTS = ("tables.js", "contents.js", "folds.js", "search.js", "copy.js", "zoom.js", "surface.js")


def write_page(folder: str | Path, *, progress: Progress | None = None) -> Path:
    """Write ``index.html`` into ``folder``: figures, sortable tables and provenance of every table under it, runs
    grouped by rule with their seeds inside.

    The file holds everything it shows and loads nothing; only the links to the CSV files need the folder around it.
    Figures that belong to no analysis (learning curves, alignment, quantities against the angle) are also written as
    PDF and PNG.

    Args:
        folder: results of analyses, run folders, or a folder of these, any depth.
        progress: called with (sections done, sections in all).

    Returns:
        The path of the page.

    Example:
        >>> import tempfile
        >>> from alignscape import train
        >>> from reports import write_page
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = train(folder, hidden=(8,), epochs=1)
        ...     write_page(folder).name
        'index.html'

    Raises:
        InputError: the folder does not exist or holds no table.
    """
    folder = Path(folder)
    tables = find_tables(folder)
    paper = [table for table in tables if "target" in table.provenance]
    tables = [table for table in tables if "target" not in table.provenance]
    variants = Variants({_run_name(table): table.provenance["config"] for table in tables if _is_run(table)})
    cards, pictures = Cards(folder, variants, tables), Pictures(folder, variants)
    analyses = {kind: batches(tables, kind) for kind in dict.fromkeys(table.kind for table in tables)}
    present = {kind: section for kind, section in sections().items() if analyses.get(kind)}
    report = progress or (lambda done, total: None)
    written = []
    for done, (kind, section) in enumerate(present.items()):
        report(done, len(present))
        found = _without_drawn(analyses[kind], analyses) if kind == "metrics" else analyses[kind]
        written.append(_section(kind, section, tables, found, cards, pictures))
    shown = {name for kind in present for name in (kind, *companions(kind))}
    first = {kind: found[0].frame for kind, found in analyses.items() if found}
    surfaces = [one for batch in analyses.get("surface", []) for one in surface_payload(_first_networks(batch.frame))]
    turned = next((table for table in reversed(paper) if not surfaces and planes_of(table) is not None), None)
    surfaces = surfaces if turned is None else surface_payload(planes_of(turned))
    by_angle = _by_angle(quantities(first), pictures)
    figures = [one for one in [by_angle, *(p for one in written for p in one["pictures"])] if one is not None]
    page = _environment().get_template("page.html.j2").render(
        title=f"Analysis of {folder.resolve().name}",
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version("alignscape"),
        **_summary(first, variants, cards, tables),
        by_angle=by_angle,
        paper=[_target(name, own, cards, turned) for name, own in by_target(paper)],
        sections=written,
        others=[cards.card(table) for table in tables if table.kind not in shown],
        surfaces=surfaces,
        plotly=plotly_source() if surfaces else None,
        palette=palette(one["svg"] for one in figures if not one["problem"]),
        bibtex=bibtex(references_of(present)),
        escapes={character: escape(character) for character in SPECIAL},
        scripts=SCRIPTS,
    )  # fmt: skip
    write_text(folder / "index.html", page)
    report(len(present), len(present))
    return folder / "index.html"


def _environment() -> jinja2.Environment:
    loader = jinja2.PackageLoader("reports.page", "templates")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True)  # fmt: skip


def _is_run(table: Table) -> bool:
    return table.path.name == "metrics.csv" and "rule" in table.provenance.get("config", {})


def _run_name(table: Table) -> str:
    return str(table.frame["checkpoint"].iloc[0]) if len(table.frame) else table.name


def _summary(first: dict[str, DataFrame], variants: Variants, cards: Cards, tables: Sequence[Table]) -> dict[str, Any]:
    """Return the tables at the top: rules and metrics, every network, and the settings of the runs."""
    networks, differing, shared = overview(first, variants), variants.table(), variants.shared()
    best, notes = told_apart(tables) if networks is not None else (set(), [])
    return {
        "rules": by_rule(first, variants, best),
        "notes": " ".join(notes),
        "overview": None if networks is None else rendered(networks),
        "settings": None if differing is None else rendered(differing),
        "shared_settings": None if shared is None else rendered(shared),
        "shared_origin": [pair for pair in cards.shared if not pair[0].startswith("config: ")],
    }


def _without_drawn(found: list[Batch], analyses: dict[str, list[Batch]]) -> list[Batch]:
    """Return the learning curves without the angles of runs whose alignment is in a section of its own."""
    other = {str(name) for batch in analyses.get("alignment", []) for name in batch.frame["checkpoint"].unique()}
    if not other:
        return found
    names = one_name_each([*other, *(str(name) for batch in found for name in batch.frame["checkpoint"].unique())])
    drawn = {names[name] for name in other}
    result = []
    for batch in found:
        frame = batch.frame.copy()
        angles = [name for name in frame if str(name).startswith("angle_")]
        frame.loc[frame["checkpoint"].astype(str).map(names).isin(drawn), angles] = float("nan")
        result.append(Batch(tables=batch.tables, frame=frame))
    return result


def _section(
    kind: str, section: Section, tables: Sequence[Table], found: Sequence[Batch], cards: Cards, pictures: Pictures
) -> dict[str, Any]:
    own = [table for table in tables if table.kind == kind]
    beside = companions(kind)
    more = [table for table in tables if table.kind in beside]
    groups, alone = cards.groups(own)
    films = [path for table in own for path in table.companions if path.suffix == ".gif"]
    return {
        "kind": kind,
        "heading": section.heading,
        "text": section.text,
        "pictures": pictures.of_section(kind, section, found, more),
        "films": [_film(path) for path in films[:MOST_FILMS]],
        "groups": groups,
        "grids": [cards.card(table) for table in more] + alone,
    }


def _first_networks(frame: DataFrame) -> DataFrame:
    """Return the rows of as many networks as there are panels on the page."""
    names = list(frame["checkpoint"].drop_duplicates())[:MOST_PANELS] if "checkpoint" in frame else []
    return frame[frame["checkpoint"].isin(names)] if names else frame


def _target(name: str, tables: list[Table], cards: Cards, turned: Table | None) -> dict[str, Any]:
    """Return a figure or table of the paper: heading, figures, the table itself or the numbers behind the figure."""
    pictures = [picture for table in tables if (picture := saved_picture(table, cards.folder)) is not None]
    drawn = {table.name for table in tables if table.path.with_suffix(".png").is_file()}
    about, main = tables[0].provenance, None if pictures else tables[0]
    grids = [cards.card(table, unfolded=table is main and len(table.frame) <= OPEN_ROWS,
                        rows=MOST_ROWS if table is main else DATA_ROWS) for table in tables]  # fmt: skip
    return {
        "id": f"target-{name}",
        "name": name,
        "heading": about.get("title", name),
        "text": "" if drawn else about.get("caption", ""),
        "profile": about.get("profile", {}),
        "pictures": pictures,
        "grids": grids,
        "surfaces": turned in tables,
    }


def _by_angle(table: DataFrame | None, pictures: Pictures) -> dict[str, Any] | None:
    """Return the figure of all quantities against the angle, if there are enough angles to see a curve."""
    if table is None or len(table.loc[table["rule"] == "ifa", "angle"].unique()) < CURVE_ANGLES:
        return None
    caption = "From feedback identical to the forward weights (0°) to independent of them (90°, as in FA)."
    stem = pictures.folder / "angle"
    return pictures.picture("Against the initial angle", caption, lambda: against_angle(table), stem)


def _film(path: Path) -> dict[str, str]:
    """Return an animation beside a table; a reader opens it, since not everyone likes things that move."""
    return {"name": path.name, "uri": data_uri("gif", path.read_bytes())}
