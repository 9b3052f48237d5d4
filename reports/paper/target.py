"""What a target is: the tables it is drawn from, each put together from files of jobs, and what draws it."""

import io
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from alignscape.recorded import read_recorded
from alignscape.settings import as_json
from reports.paper.numbers import Numbers
from training.store.jobs import JobFile, TrainJob
from training.store.run_store import RunStore, canonical_key

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True)
class Source:
    """One file of a job, and the columns that say what it is of."""

    file: JobFile
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def network(self) -> str:
        """A name of the network, e.g. ``ifa45-seed0``."""
        of = self.columns
        angle = "" if of.get("angle") is None else f"{of['angle']:g}"
        return f"{of['rule']}{angle}-seed{of['seed']}" if "rule" in of else self.file.job.label


Sources = Mapping[str, Sequence[Source]]
Tables = Mapping[str, "DataFrame"]
P = TypeVar("P", bound=Numbers)  # the profile of a paper
Declare = Callable[[P, Path | None], Sources]  # of a profile and the folder of the data
Options = Callable[[P], dict[str, Any]]


class Trained(NamedTuple):
    """A training and the columns that say in a table which one it is."""

    train: TrainJob
    columns: dict[str, Any]


Networks = Callable[[P, Path | None], list[Trained]]


def metrics_of(**networks: Networks[P]) -> Declare[P]:
    """Return tables of the metrics of these networks, by name."""

    def table(trained: Sequence[Trained]) -> list[Source]:
        return [Source(one.train.file("metrics.csv"), one.columns) for one in trained]

    return lambda profile, root: {name: table(made(profile, root)) for name, made in networks.items()}


def numbers_of(**names: str) -> Options[Any]:
    """Return options that are numbers of the profile, under the names that these have there."""
    return lambda profile: {option: as_json(getattr(profile, name)) for option, name in names.items()}


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One result of a target: a figure with the numbers in it, or a table."""

    suffix: str = ""  # after the target's name: "" or "-feedback"
    title: str
    caption: str
    table: "DataFrame"  # everything that was drawn, tidy
    figure: "Figure | None" = None
    summary: "DataFrame | None" = None  # the table that a paper would print, if ``table`` is not it


@dataclass(frozen=True)
class Target(Generic[P]):
    """A figure or table of a paper, declared.

    ``sources(profile, root)`` names the files it is drawn from. ``draw`` is ``"package.module:function"`` (imported
    when there is something to draw) and is called with the tables and with ``options(profile)``: it depends on nothing
    else. A change of what it draws wants a new ``version``.
    """

    name: str
    version: int
    sources: Declare[P]
    draw: str
    options: Options[P] = lambda profile: {}
    optional: tuple[str, ...] = ()  # tables that it does without where their data are not there
    needs: str = ""  # what to do where its data are not there, in words

    def key(self, profile: P, sources: Sources, store: RunStore) -> str:
        """Return what the results depend on, known before a job of them is done.

        Raises:
            InputError: a data set cannot be read.
        """
        files = {
            table: [[*one.file.identity(store), dict(one.columns)] for one in parts] for table, parts in sources.items()
        }
        return canonical_key([self.name, self.version, files, self.options(profile)])

    def results(self, profile: P, sources: Sources, store: RunStore) -> list[Drawn]:
        """Draw; every job must be done."""
        tables = {table: read(parts, store) for table, parts in sources.items()}
        return pkgutil.resolve_name(self.draw)(tables, **self.options(profile))


def read(sources: Sequence[Source], store: RunStore) -> "DataFrame":
    """Return the files as one table with the sources' columns, and ``checkpoint``, a name of the network, first.

    Of an ``.npz`` file each array becomes a row ``name, array``.
    """
    import numpy as np
    import pandas as pd

    from reports.analyses import known_tables
    from reports.tables import read_table

    frames, known = [], known_tables()
    for source in sources:
        path = source.file.path(store)
        if path.suffix == ".npz":
            with np.load(io.BytesIO(read_recorded(path)[0]), allow_pickle=False) as arrays:
                frame = pd.DataFrame({"name": list(arrays), "array": [arrays[name] for name in arrays]})
        else:
            frame = read_table(path, known.get(path.stem), needed=())
        frames.append(frame.assign(**{"checkpoint": source.network, **source.columns}))
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    if not filled:
        return pd.DataFrame(columns=["checkpoint"])
    table = pd.concat(filled, ignore_index=True)
    return table[["checkpoint", *table.columns.drop("checkpoint")]]
