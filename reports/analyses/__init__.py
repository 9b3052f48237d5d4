"""The analyses, each declared once in a file of its own; nothing heavy is imported here."""

from reports.analyses.alignment import Alignment
from reports.analyses.analysis import Analysis, Found
from reports.analyses.attack import Attack
from reports.analyses.compare import Compare
from reports.analyses.corruptions import Corruptions
from reports.analyses.hessian import Hessian
from reports.analyses.spectrum import Spectrum
from reports.analyses.surface import Surface
from reports.analyses.trajectory import Trajectory
from reports.schema import METRICS, Table

ANALYSES: dict[str, type[Analysis]] = {
    one.name: one for one in (Alignment, Hessian, Spectrum, Trajectory, Surface, Attack, Corruptions, Compare)
}  # in the order of the page


def known_tables() -> dict[str, Table]:
    """Return every kind of table that a run or an analysis writes, by name."""
    every = [METRICS, *(table for analysis in ANALYSES.values() for table in analysis.tables)]
    return {table.name: table for table in every}


__all__ = [
    "ANALYSES",
    "Alignment",
    "Analysis",
    "Attack",
    "Compare",
    "Corruptions",
    "Found",
    "Hessian",
    "Spectrum",
    "Surface",
    "Trajectory",
    "known_tables",
]
