"""``sharpness``: how sharp a minimum is, by measures that a rescaling changes and by others that it leaves."""

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from alignscape.errors import InputError
from reports.analyses.analysis import Found, Loads, Show, silent
from reports.analyses.section import Drawing, Section
from reports.analyses.sharpness_settings import SharpnessSettings
from reports.schema import N_SAMPLES, Column, Table, interval

if TYPE_CHECKING:
    from pandas import DataFrame

    from reports.subjects import Subject


class NotReachedError(InputError):
    """No checkpoint of the run has a loss as low as was asked for."""


@dataclass(frozen=True, kw_only=True)
class Sharpness(SharpnessSettings):
    """Sharpness of a network by worst cases, curvature, and noise, with and without invariance to rescaling.

    >>> Sharpness(rho=(0.05,), at_loss=0.5).rise
    0.1
    """

    name: ClassVar[str] = "sharpness"
    version: ClassVar[int] = 2  # intervals of worst cases, and of few draws or probes, are others
    summary: ClassVar[str] = (
        "sharpness by measures that a rescaling of layers changes, and by measures that it does not"
    )
    parallel: ClassVar[bool] = False
    tables: ClassVar[tuple[Table, ...]] = (
        Table(
            "sharpness",
            (
                Column("measure", "text", "what is measured: see docs/sharpness.md", role="key"),
                Column("radius", "float", "rho, eps of the box, or rise of the loss", role="key"),
                Column("layer", "text", "of relative flatness; empty: the sum over layers", role="key"),
                Column("value", "float", "sharpness; of sigma, flatness", role="value"),
                *interval("the value over samples (and probes or draws)"),
                Column("per_loss", "float", "value over the mean loss, of measures that are linear in it"),
                Column("bound", "float", "of eigenvalue_min: no rescaling has less, if the matrix has no negative one"),
                N_SAMPLES,
                Column("seconds", "float", "of computing", "s", role="cost"),
            ),
        ),
    )
    section: ClassVar[Section] = Section(
        heading="Sharpness",
        text="Scaling a layer up and the next one down leaves the function of a ReLU network as it is, and changes "
        "trace, top eigenvalue, SAM's and Keskar's sharpness and sigma by any factor. What is said to be flatter "
        "should be so by the measures that this leaves as they are: ASAM, Fisher-Rao norm, relative flatness, sigma "
        "relative to the weights, and trace and top eigenvalue minimised over such rescalings.",
        drawings=(
            Drawing(
                title="Sharpness by every measure",
                caption="Relative to the first network; right is sharper (of sigma its inverse is shown). What is so "
                "in the left panel only is a matter of the layers' scale, not of flatness.",
                draw="reports.figures:sharpness",
                stem="sharpness",
            ),
        ),
    )

    def paths(self, given: Path) -> list[Path]:
        """Return ``given``.

        Raises:
            InputError: ``at_loss`` of something that is no run folder with checkpoints.
        """
        if self.at_loss is not None:
            kept_checkpoints(given)
        return [given]

    def load(self, loading: Loads, path: Path, given: Path) -> "Subject":
        """Return the network given, or that of its run which first has the loss asked for."""
        if self.at_loss is None:
            return super().load(loading, path, given)
        before, lowest, kept = None, float("inf"), kept_checkpoints(path)
        if len(kept) == 1:
            warnings.warn(f"{given} kept its final checkpoint only: train with --checkpoint-every 1", stacklevel=2)
        for file in kept:
            subject = super().load(loading, file, given)
            loss = mean_loss(subject, self.loss)
            lowest = min(lowest, loss)
            if loss <= self.at_loss:
                self._say(subject, before, loss, given)
                return dataclasses.replace(subject, name=str(given))
            before = subject.columns["epoch"]
        raise NotReachedError(
            f"no checkpoint that {given} kept has a loss of {self.at_loss:g} or less: the lowest is {lowest:.4g}; "
            "ask for more (--at-loss)"
        )

    def _say(self, subject: "Subject", before: int | None, loss: float, given: Path) -> None:
        """Say which epochs kept no checkpoint, where the loss may have been reached."""
        epoch = subject.columns["epoch"]
        if before is not None and epoch > before + 1:
            warnings.warn(
                f"{given} kept no checkpoint between epochs {before} and {epoch}: epoch {epoch}, of loss {loss:.4g}, "
                f"is taken as the first with {self.at_loss:g} or less (train with --checkpoint-every 1)",
                stacklevel=3,
            )

    def compute(self, subject: "Subject", show: Show = silent) -> Found:
        """Measure one network.

        Raises:
            InputError: the measures need something that the network is not.
        """
        from reports.analyses.sharpness_rows import Rows

        rows = Rows(self, subject, show, self.tables[0])
        frame = rows.frame()
        return Found(tables={"sharpness": frame}, checks=[{"note": note} for note in rows.notes])

    @classmethod
    def stored(
        cls, folder: Path, inputs: Mapping[str, Path], *, device: str, data_root: Path | None, **settings: Any
    ) -> None:
        """As any analysis; the table of a run that never has the loss asked for is empty, as that of one that
        diverged."""
        from reports.tables import write_csv

        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".* kept no checkpoint between epochs")  # so the profile wants it
                super().stored(folder, inputs, device=device, data_root=data_root, **settings)
        except NotReachedError:
            for name, frame in cls.empty().items():
                write_csv(frame.drop(columns=cls.tables[0].names("cost")), folder / f"{name}.csv")

    def text(self, found: Found) -> str:
        """Return the table without the layers, and what is to be said of rescalings."""
        from reports.tables import render

        frame = found.tables["sharpness"]
        shown = frame[frame["layer"] == ""].dropna(axis="columns", how="all")
        columns = ["checkpoint", *(n for n in self.tables[0].names() if n in shown and n not in ("layer", "n_samples"))]
        notes = [f"{row['checkpoint']}: {row['note']}" for row in found.checks]
        return "\n".join([render(shown[columns]), *notes])

    @classmethod
    def merits(cls, table: "DataFrame") -> "DataFrame | None":
        """Return the trace over rescalings, and ASAM's worst case at the smallest radius."""
        import pandas as pd

        columns = {}
        for title, measure in (("minimal trace", "trace_min"), ("ASAM, worst case", "asam_worst")):
            rows = table[table["measure"] == measure]
            columns[title] = rows[rows["radius"].isna() | (rows["radius"] == rows["radius"].min())]["value"]
        return pd.DataFrame({name: found.groupby(level=0, sort=False).first() for name, found in columns.items()})


def kept_checkpoints(given: Path) -> list[Path]:
    """Return the checkpoints that a run kept and its final one, in order of training; of a run its folder is given, or
    its ``ckpt.pt``.

    Raises:
        InputError: there are none.
    """
    folder = given if given.is_dir() else given.parent
    kept = sorted((folder / "checkpoints").glob("epoch-*.pt"))
    final = [folder / "ckpt.pt"] if (folder / "ckpt.pt").is_file() else []
    if not final or (given.is_file() and given != final[0]):
        raise InputError(f"{given} is no run folder: --at-loss chooses among the checkpoints of a run")
    return kept + final


def mean_loss(subject: "Subject", name: str | None = None) -> float:
    """Return the mean over the samples of the loss ``name``."""
    from landscape import LossAround

    loss, targets = subject.objective(name)
    around = LossAround(subject.model, loss, (subject.images, targets), transform=subject.normalise)
    return around.value(around.centre)
