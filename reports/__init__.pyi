from .analyses import (
    Alignment,
    Analysis,
    Attack,
    Compare,
    Corruptions,
    Found,
    Hessian,
    Sharpness,
    Spectrum,
    Surface,
    Trajectory,
)
from .analyses.section import Drawing, Section
from .page.html import write_page
from .page.metric_table import MetricTable, metric_table
from .python import Networks, Runs, load, train
from .runner import Result
from .schema import Column, Table
from .subjects import Subject
from .tables import read_table

__all__ = [
    "Alignment",
    "Analysis",
    "Attack",
    "Column",
    "Compare",
    "Corruptions",
    "Drawing",
    "Found",
    "Hessian",
    "MetricTable",
    "Networks",
    "Result",
    "Runs",
    "Section",
    "Sharpness",
    "Spectrum",
    "Subject",
    "Surface",
    "Table",
    "Trajectory",
    "load",
    "metric_table",
    "read_table",
    "train",
    "write_page",
]
