"""Runs an analysis on networks: loads them, goes round those that diverged, and keeps what was found with its origin.

The command line, Python and ``analyze compare`` come through here.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignscape.errors import DivergedError, InputError
from alignscape.files import atomic_path, folder_held
from alignscape.settings import settings_json
from reports.analyses.analysis import Analysis, Found, Loads, Show, silent
from reports.analyses.section import Drawing
from reports.replacing import BY_ARGUMENT, BY_FLAG, check_replaceable, identity
from reports.subjects import Subject
from reports.tables import provenance, write_table
from training.run_folder import RUN_FILES, RunFolder
from training.store.inventory import names_of_runs
from training.store.run_store import in_use

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

Load = Callable[[Path, Path], Subject]  # (checkpoint, what was given) -> network with samples


class Subjects:
    """The networks of what was given, loaded as they are asked for; those that diverged are left out with a warning.

    Args:
        given: what the user gave, each with its checkpoints in order of training.
        load: loads one.
    """

    def __init__(self, given: Sequence[tuple[Path, Sequence[Path]]], load: Load) -> None:
        self.given = given
        self.load = load
        self.records: list[Subject] = []  # those that were loaded, for the sidecar

    def __len__(self) -> int:
        return sum(len(files) for _, files in self.given)

    def __iter__(self) -> Iterator[Subject]:
        for given, files in self.given:
            last: Subject | None = None
            lost = False
            for file in files:
                try:
                    last = self.load(file, given)
                except DivergedError as error:
                    if len(self) == 1:
                        raise DivergedError(f"{given}: {error}") from error
                    lost = True
                    continue
                self.records.append(last)
                yield last
            if lost:
                shown = "is left out" if last is None else f"is shown up to epoch {last.columns['epoch']}"
                warnings.warn(f"{given} {shown}: its training diverged", stacklevel=2)
        if not self.records:
            raise DivergedError(
                "every network given has diverged: their weights hold NaN or infinity (--checkpoint-every 1 keeps "
                "what came before)"
            )


@dataclass(frozen=True, repr=False)
class Result:
    """What an analysis found, and where it comes from.

    Attributes:
        analysis: with its settings.
        found: tables, checks, text.
        origin: what the sidecars say.

    Example:
        >>> import torch
        >>> from alignscape import load
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        >>> found = load({"net": net}, dataset="digits", device="cpu").spectrum(samples=50, steps=5, probes=2)
        >>> found.frame().groupby("probe")["weight"].sum().round(6).tolist()
        [1.0, 1.0]
    """

    analysis: Analysis
    found: Found
    origin: dict[str, Any]

    def frame(self, name: str | None = None) -> "DataFrame":
        """Return a table, the analysis' own unless another is named: one row per number, the network first.

        Raises:
            InputError: there is none of that name.
        """
        tables = self.found.tables
        if (name := name or self.analysis.tables[0].name) not in tables:
            raise InputError(f"{self.analysis.name} has no table {name!r} here; it has {', '.join(tables)}")
        return tables[name].copy()

    def plot(self, stem: str | None = None) -> "Figure":
        """Draw the analysis' figure, or the one whose file is called ``stem``, ready for a paper.

        Raises:
            InputError: there is nothing to draw.
        """
        drawings = {one.stem: one for one in self._drawings}
        if not drawings:
            raise InputError(f"{self.analysis.name} draws nothing; see frame()")
        if stem is not None and stem not in drawings:
            raise InputError(f"{self.analysis.name} has no figure {stem!r}; it has {', '.join(drawings)}")
        return self._figure(drawings[stem or next(iter(drawings))])

    @property
    def _drawings(self) -> list[Drawing]:
        """The figures of the tables that were found."""
        tables, main = self.found.tables, self.analysis.tables[0].name
        return [
            one
            for one in self.analysis.section.drawings
            if (name := one.of or main) in tables and one.applies(tables[name])
        ]

    def _figure(self, drawing: Drawing) -> "Figure":
        return drawing.figure(self.found.tables, self.analysis.tables[0].name)

    def save(self, folder: str | Path, *, force: bool = False, otherwise: str = BY_ARGUMENT) -> list[Path]:
        """Write tables with their sidecars, and figures as PDF and PNG; return the tables.

        The same analysis of the same networks, with the same settings and files, replaces what it wrote before.

        Args:
            folder: where to.
            force: replace other results of this analysis too.
            otherwise: what a message says may be done instead.

        Raises:
            InputError: other results would be lost, or a file of a run.
            OSError: the folder cannot be written to.
        """
        folder = Path(folder)
        check_not_the_runs(self.analysis, folder)
        with folder_held(folder):
            if not force:
                check_replaceable(self.analysis, folder, self.origin, otherwise=otherwise)
            return self._save(folder)

    def _save(self, folder: Path) -> list[Path]:
        from reports.style import save

        written = []
        for table in self.analysis.tables:
            if table.name in self.found.tables:
                written.append(folder / f"{table.name}.csv")
                write_table(self.found.tables[table.name], written[-1], self.origin, table)
        for name, write in self.found.files.items():
            with atomic_path(folder / name) as temporary:
                write(temporary)
        for drawing in self._drawings:
            save(self._figure(drawing), folder / drawing.stem)
        return written

    def __str__(self) -> str:
        names = self.origin.get("names", {})
        width = max(map(len, names), default=0)
        told = "".join(f"\n{path.ljust(width)}  {name}" for path, name in names.items())
        return self.analysis.text(self.found) + (f"\n{told}" if told else "")

    __repr__ = __str__  # tables of all numbers would fill the screen

    def _repr_html_(self) -> str:
        import html

        title = f"<b>{html.escape(self.analysis.section.heading)}</b>"
        frame = self.frame()
        table = f"<details><summary>{len(frame)} rows</summary>{frame.to_html(max_rows=20, index=False)}</details>"
        return f"{title}<pre>{html.escape(str(self))}</pre>{table}"


def check_not_the_runs(analysis: Analysis | type[Analysis], folder: Path) -> None:
    """Refuse a folder where results would replace what a run consists of (``trajectory.json``).

    Raises:
        InputError: they would.
    """
    if (folder / "config.json").is_file():
        names = [f"{table.name}{ending}" for table in analysis.tables for ending in (".json", ".csv")]
        if taken := [name for name in names if name in RUN_FILES]:
            raise InputError(f"{taken[0]} of the run in {folder} would be replaced: choose another --out")


def run_analysis(
    analysis: Analysis,
    given: Sequence[Path],
    loading: Loads,
    show: Show = silent,
    *,
    command: str | None = None,
    keeps: Path | None = None,
) -> Result:
    """Analyse what was given.

    Several checkpoints of one run (along its training) are loaded one after the other; single ones before the first is
    analysed, so that a name that is wrong is told at once.

    Args:
        analysis: with its settings.
        given: checkpoints, or names of networks in memory.
        loading: loads them.
        show: shows progress.
        command: what was called, where that is not the command line.
        keeps: a folder where the result will go, of which other results are not to be lost.

    Raises:
        InputError: a checkpoint that cannot be loaded or analysed; no network but diverged ones; results that would
            be lost.
    """
    if not given:
        raise InputError("no network is given")
    with in_use(given):
        return _run(analysis, given, loading, show, command, keeps)


def _run(
    analysis: Analysis, given: Sequence[Path], loading: Loads, show: Show, command: str | None, keeps: Path | None
) -> Result:
    if analysis.against_first and len(given) < 2:
        raise InputError(f"{analysis.name} needs at least two checkpoints; the first is the baseline")
    files = [(path, analysis.paths(path)) for path in given]
    known = identity(analysis, loading, [loading.digest(file) for _, own in files for file in own])
    if keeps is not None:
        check_replaceable(analysis, keeps, {"identity": known}, otherwise=BY_FLAG)
    names = names_in_stores(given)

    def load(path: Path, of: Path) -> Subject:
        subject = analysis.load(loading, path, of)
        return subject if of not in names else replace(subject, columns={**subject.columns, "run": names[of]})

    subjects = Subjects(files, load)
    one_each = all(len(own) == 1 for _, own in files)
    ready = list(subjects) if one_each else subjects
    if analysis.against_first:
        _check_baseline(analysis, given, subjects.records)
    found = analysis.compute_all(ready, show)
    for doubt in dict.fromkeys(one.doubt for one in subjects.records if one.doubt):
        warnings.warn(doubt, stacklevel=3)
    origin = origin_of(analysis, found, subjects.records, command=command)
    return Result(analysis, found, {**origin, "identity": known})


def names_in_stores(given: Sequence[Path]) -> dict[Path, str]:
    """Return a name for each of ``given`` that is of a run in a store, where folders are keys: what differs among them
    names them."""
    folders = {path: folder for path in given if (folder := _folder_in_store(path)) is not None}
    names = names_of_runs([RunFolder(folder) for folder in dict.fromkeys(folders.values())])
    return {path: names[folder] for path, folder in folders.items() if folder in names}


def _folder_in_store(path: Path) -> Path | None:
    """Return the folder of the run in a store that ``path`` is of, a checkpoint or the folder itself."""
    whole = path.absolute()
    places = (whole, *whole.parents[:2])  # RUN, RUN/ckpt.pt, RUN/checkpoints/epoch-0001.pt
    return next((place for place in places if (place.parent.parent / "store.json").is_file()), None)


def _check_baseline(analysis: Analysis, given: Sequence[Path], there: Sequence[Subject]) -> None:
    if there[0].name != str(given[0]):
        raise InputError(f"{given[0]} has diverged: give another network first, as the baseline")
    if len(there) < 2:
        raise InputError("every network but the baseline has diverged: there is nothing to compare")


def origin_of(
    analysis: Analysis, found: Found, subjects: Sequence[Subject], *, command: str | None = None
) -> dict[str, Any]:
    """Return what the sidecars say: command, versions, settings, digests, the names of runs that lie in a store, and
    the checks of the computation."""
    names = {subject.name: subject.columns["run"] for subject in subjects if "run" in subject.columns}
    return provenance(
        [*subjects, *found.sources],
        command=command,
        analysis={"name": analysis.name, "version": analysis.version},
        settings=settings_json(analysis),
        seed=analysis.seed,
        checks=[{name: _plain(value) for name, value in row.items()} for row in found.checks],
        **({"names": names} if names else {}),
        **found.record,
    )


def _plain(value: Any) -> Any:
    """Return a number of NumPy or torch as Python's, and None for one that JSON cannot say."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
