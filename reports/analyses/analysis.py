"""What an analysis is: its settings, its tables, its figures and how it computes, declared once.

The command's flags, the store's key, the targets of the paper, the sidecar, the section of the page, the empty table of
a network that diverged, what ``compare`` compares and the call from Python are all made from the declaration. An
analysis is a frozen dataclass in a file of its own, of which nothing heavy is imported before it computes.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from alignscape.errors import DivergedError
from alignscape.settings import NON_NEGATIVE, at_least, changed_settings, check_settings, setting
from reports.analyses.section import Section
from reports.schema import Table

if TYPE_CHECKING:
    from pandas import DataFrame

    from reports.subjects import Subject
    from training.store.jobs import AnalysisJob, JobFile

Progress = Callable[[int, int], None]  # (done, total)
Show = Callable[[str, str], Progress | None]  # (what is done, its unit) -> where its progress goes
SAMPLES = "samples"


class Loads(Protocol):
    """What gives networks with their samples: a :class:`reports.loading.Loading`, or networks in memory."""

    def subject(self, path: Path, *, split: str = ..., samples: int | None = ..., seed: int = ...) -> "Subject":
        """Return the network at ``path``."""


def silent(what: str, unit: str) -> None:
    """Show no progress."""


def split_setting(default: str) -> Any:
    """Return the setting ``split``."""
    return setting(default, "which samples to analyse", group=SAMPLES)


def samples_setting(default: int | None = None, help: str = "number of samples, drawn by the seed") -> Any:
    """Return the setting ``samples``; None is all there are."""
    return setting(default, help, metavar="N", check=at_least(1), default_text="" if default else "all", group=SAMPLES)


def batch_setting(default: int | None = None) -> Any:
    """Return the setting ``batch_size``; None leaves it to the analysis, which knows what a sample costs it."""
    return setting(
        default,
        "samples per pass; results do not depend on it",
        metavar="N",
        check=at_least(1),
        default_text="" if default else "what fits in memory",
        group=SAMPLES,
        in_key=False,
    )


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was found of one network, or of several.

    Attributes:
        tables: by name; those of one network without the columns that say which it is.
        checks: numbers on the computation itself, a row a network: for the terminal and the sidecar.
        record: what else the sidecar says, as JSON.
        sources: networks that were used beside those analysed.
        files: further files to write, by name.
        text: what else the terminal shows.

    Example:
        >>> from pandas import DataFrame
        >>> from reports import Found
        >>> Found(tables={"mine": DataFrame({"value": [1.0]})}).tables["mine"]["value"].tolist()
        [1.0]
    """

    tables: "Mapping[str, DataFrame]"
    checks: Sequence[Mapping[str, Any]] = ()
    record: Mapping[str, Any] = field(default_factory=dict)
    sources: "Sequence[Subject]" = ()
    files: Mapping[str, Callable[[Path], Any]] = field(default_factory=dict)
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """An analysis with its settings, and the base of all.

    Attributes:
        split: which samples to analyse, ``train`` or ``test``.
        samples: how many, drawn by the seed; None is all.
        batch_size: samples per pass; None is what fits in memory.
        seed: of every random choice.

    Raises:
        InputError: a setting is out of its range.

    Example:
        >>> from reports import Analysis, Spectrum
        >>> isinstance(Spectrum(steps=20), Analysis), Spectrum.tables[0].names()
        (True, ['probe', 'node', 'weight', 'n_parameters', 'steps'])
    """

    name: ClassVar[str]
    version: ClassVar[int]  # a change of its results wants a new one: stored results go by it
    summary: ClassVar[str]  # one line
    tables: ClassVar[tuple[Table, ...]]  # the first is what it is about
    section: ClassVar[Section]
    of_runs: ClassVar[bool] = False  # analyses runs of ours only
    against_first: ClassVar[bool] = False  # sets the other networks against the first, which so has to be sound
    parallel: ClassVar[bool] = False  # shares the work with the other processes of torchrun

    split: Literal["train", "test"] = split_setting("train")
    samples: int | None = samples_setting()
    batch_size: int | None = batch_setting()
    seed: int = setting(
        0, "seed of every random choice", metavar="S", check=NON_NEGATIVE, flags=("--seed",), group=SAMPLES
    )

    def __post_init__(self) -> None:
        check_settings(self)

    @classmethod
    def details(cls) -> Mapping[str, str]:
        """Return what ``--help`` is to say besides of settings, by name."""
        return {}

    def compute(self, subject: "Subject", show: Show = silent) -> Found:
        """Analyse one network.

        Raises:
            InputError: the network or its samples are not such that this can be done.
        """
        raise NotImplementedError

    def compute_all(self, subjects: "Iterable[Subject]", show: Show = silent) -> Found:
        """Analyse several networks; every table says in its rows which they are of."""
        return labelled([(subject, self.compute(subject, show)) for subject in subjects])

    def paths(self, given: Path) -> list[Path]:
        """Return the checkpoints to analyse of what was given, in order of training.

        Raises:
            InputError: there are none.
        """
        return [given]

    def load(self, loading: Loads, path: Path, given: Path) -> "Subject":
        """Return the checkpoint ``path`` of what was ``given`` with the samples that the settings describe."""
        return loading.subject(path, split=self.split, samples=self.samples, seed=self.seed)

    def text(self, found: Found) -> str:
        """Return what a terminal shows."""
        import pandas as pd

        from reports.tables import render

        return render(pd.DataFrame(list(found.checks)) if found.checks else found.tables[self.tables[0].name])

    @classmethod
    def merits(cls, table: "DataFrame") -> "DataFrame | None":
        """Return the figures of merit of each network for the overview of the page, a column each.

        Args:
            table: the main table, indexed by ``network``, of each network's last epoch.
        """
        return None

    @property
    def asked_for(self) -> tuple[str, ...]:
        """The optional tables that the settings ask for and a store keeps."""
        return ()

    @classmethod
    def empty(cls, *asked_for: str) -> "dict[str, DataFrame]":
        """Return the tables of a network that diverged: it has no landscape and fools nobody."""
        import pandas as pd

        kept = (table for table in cls.tables if not table.optional or table.name in asked_for)
        return {table.name: pd.DataFrame(columns=table.usual) for table in kept}

    def job(self, **inputs: "JobFile") -> "AnalysisJob":
        """Return the analysis as a job for a store; ``inputs`` has the ``checkpoint`` and what else it reads."""
        from training.store.jobs import AnalysisJob

        cls = type(self)
        return AnalysisJob(
            name=self.name,
            version=self.version,
            function=f"{cls.__module__}:{cls.__qualname__}.stored",
            inputs=inputs,
            parameters=changed_settings(self),
        )

    @classmethod
    def stored(
        cls, folder: Path, inputs: Mapping[str, Path], *, device: str, data_root: Path | None, **settings: Any
    ) -> None:
        """Analyse the network ``inputs["checkpoint"]`` and write its tables into ``folder``: what a worker of a sweep
        calls. What it took is left out, so that what is stored is a function of its key."""
        from reports.loading import Loading
        from reports.tables import check_columns, write_csv

        analysis = cls(**settings, **cls.settings_of_inputs(inputs))
        path = inputs["checkpoint"]
        try:
            subject = analysis.load(Loading(device=device, data_root=data_root), path, path)
            tables: Mapping[str, DataFrame] = analysis.compute(subject).tables
        except DivergedError:
            tables = cls.empty(*analysis.asked_for)
        for table in cls.tables:
            if table.name in tables:
                check_columns(tables[table.name], table)
                kept = tables[table.name].drop(columns=table.names("cost"), errors="ignore")
                write_csv(kept, folder / f"{table.name}.csv")

    @classmethod
    def settings_of_inputs(cls, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Return the settings that are files, of which a store knows the bytes."""
        return {}


def labelled(found: "Sequence[tuple[Subject, Found]]") -> Found:
    """Return what was found of several networks as one; every row says which it is of."""
    from reports.tables import with_subject

    return together(
        [
            dataclasses.replace(
                one,
                tables={name: with_subject(frame, subject) for name, frame in one.tables.items()},
                checks=[{"checkpoint": subject.name, **row} for row in one.checks],
                files={name.format(index=index): write for name, write in one.files.items()},
            )
            for index, (subject, one) in enumerate(found)
        ]
    )


def together(parts: Sequence[Found]) -> Found:
    """Return what was found of each as one, each source once."""
    import pandas as pd

    names = dict.fromkeys(name for part in parts for name in part.tables)
    frames = {name: [part.tables[name] for part in parts if name in part.tables] for name in names}
    return Found(
        tables={name: pd.concat(own, ignore_index=True) for name, own in frames.items()},
        checks=[row for part in parts for row in part.checks],
        record={name: value for part in parts for name, value in part.record.items()},
        sources=list({source.name: source for part in parts for source in part.sources}.values()),
        files={name: write for part in parts for name, write in part.files.items()},
        text="\n\n".join(part.text for part in parts if part.text),
    )
