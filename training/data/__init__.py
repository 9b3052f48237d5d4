"""Data sets: ``samples``, the ``sources`` that ours are read from, and users' ``own``: a function of theirs
(``given``), ``arrays`` or ``folders`` of pictures."""

from training.data.samples import Dataset, Normalise, Split, hold_out, normaliser
from training.data.sources import SOURCES, SPLITS, DataSource, described, load_dataset, load_split, source

__all__ = [
    "SOURCES",
    "SPLITS",
    "DataSource",
    "Dataset",
    "Normalise",
    "Split",
    "described",
    "hold_out",
    "load_dataset",
    "load_split",
    "normaliser",
    "source",
]
