"""The analyses, each declared once in a file of its own; nothing heavy is imported here."""

from collections.abc import Iterable
from importlib.metadata import EntryPoint

from alignscape import plugins
from alignscape.errors import InputError
from reports.analyses.alignment import Alignment
from reports.analyses.analysis import Analysis, Found
from reports.analyses.attack import Attack
from reports.analyses.compare import Compare
from reports.analyses.corruptions import Corruptions
from reports.analyses.hessian import Hessian
from reports.analyses.sharpness import Sharpness
from reports.analyses.spectrum import Spectrum
from reports.analyses.surface import Surface
from reports.analyses.trajectory import Trajectory
from reports.schema import CURVATURE, METRICS, Table

ANALYSES: dict[str, type[Analysis]] = {
    one.name: one
    for one in (Alignment, Hessian, Spectrum, Sharpness, Trajectory, Surface, Attack, Corruptions, Compare)
}  # in the order of the page
DECLARED = ("name", "version", "summary", "tables", "section")


def installed_analyses() -> dict[str, EntryPoint]:
    """Return the analyses that installed packages add under ``alignscape.analyses``, by name; none is imported."""
    return plugins.installed("alignscape.analyses", ANALYSES)


def find_analysis(name: str) -> type[Analysis]:
    """Return the analysis called ``name``: one of ours, or one that an installed package adds.

    Raises:
        InputError: there is none, or what there is is no analysis.
    """
    if name in ANALYSES:
        return ANALYSES[name]
    added = installed_analyses()
    if name not in added:
        raise InputError(f"unknown analysis {name!r}; known: {', '.join((*ANALYSES, *added))}")
    found = plugins.load(added[name], flag="analysis")
    what = f"{added[name].value} of {plugins.source(added[name])}"
    if not (isinstance(found, type) and issubclass(found, Analysis)) or getattr(found, "name", name) != name:
        raise InputError(f"{what} is no analysis called {name}")
    if missing := [part for part in DECLARED if not hasattr(found, part)]:
        raise InputError(f"{what} declares no {', '.join(missing)}, as an analysis must")
    if "__dataclass_fields__" not in vars(found):
        raise InputError(f"{what} must be a @dataclass(frozen=True, kw_only=True): its settings are the fields")
    tables = [table.name for table in found.tables]
    if tables[:1] != [name]:
        raise InputError(f"{what} must call its first table {name}, as the page does; it has {', '.join(tables)}")
    if taken := {table.name for table in _tables(ANALYSES.values())}.intersection(tables):
        raise InputError(f"{what} has the table {min(taken)}, which is one of alignscape's")
    return found


def all_analyses() -> dict[str, type[Analysis]]:
    """Return every analysis by name, ours first; one that cannot be loaded is left out with a warning."""
    found = dict(ANALYSES)
    for name in installed_analyses():
        try:
            found[name] = find_analysis(name)
        except InputError as error:
            plugins.warn_once(str(error))
    return found


def known_tables() -> dict[str, Table]:
    """Return every kind of table that a run or an analysis writes, by name."""
    return {table.name: table for table in _tables(all_analyses().values())}


def _tables(analyses: Iterable[type[Analysis]]) -> list[Table]:
    return [METRICS, CURVATURE, *(table for analysis in analyses for table in analysis.tables)]


__all__ = [
    "ANALYSES",
    "Alignment",
    "Analysis",
    "Attack",
    "Compare",
    "Corruptions",
    "Found",
    "Hessian",
    "Sharpness",
    "Spectrum",
    "Surface",
    "Trajectory",
    "all_analyses",
    "find_analysis",
    "installed_analyses",
    "known_tables",
]
