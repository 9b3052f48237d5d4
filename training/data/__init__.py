"""Data sets: ``samples`` on a device, and the ``sources`` that they are read from."""

from training.data.samples import Dataset, Normalise, Split
from training.data.sources import SOURCES, SPLITS, DataSource, load_dataset, load_split, source

__all__ = ["SOURCES", "SPLITS", "DataSource", "Dataset", "Normalise", "Split", "load_dataset", "load_split", "source"]
