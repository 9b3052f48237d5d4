"""Data sets: ``samples`` on a device, and the ``sources`` that they are read from."""

from training.data.samples import Dataset, Normalise, Split, hold_out
from training.data.sources import SOURCES, SPLITS, DataSource, load_dataset, load_split, source

__all__ = [
    "SOURCES",
    "SPLITS",
    "DataSource",
    "Dataset",
    "Normalise",
    "Split",
    "hold_out",
    "load_dataset",
    "load_split",
    "source",
]
