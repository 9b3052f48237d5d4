"""``alignment``: how feedback, and the updates that it gives, agree with backpropagation's, over training."""

import dataclasses
import math
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from alignscape.errors import InputError
from alignscape.settings import at_least, setting
from reports.analyses.analysis import Analysis, Found, Loads, Show, samples_setting, silent, together
from reports.analyses.section import Drawing, Section, has
from reports.schema import N_SAMPLES, Column, Table, columns, interval

if TYPE_CHECKING:
    from pandas import DataFrame

    from reports.subjects import Subject

SHOWN = ("checkpoint", "epoch", "layer", "row_angle", "norm_ratio", "gradient_cosine", "gradient_cosine_low",
         "gradient_cosine_high")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Alignment(Analysis):
    """Angles between forward and feedback weights, norm ratios and gradient alignment, over training.

    >>> Alignment(samples=640).samples
    640
    """

    name: ClassVar[str] = "alignment"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = (
        "angles between forward and feedback weights, norm ratios and gradient alignment, over training"
    )
    of_runs: ClassVar[bool] = True
    tables: ClassVar[tuple[Table, ...]] = (
        Table(
            "alignment",
            (
                Column("layer", "text", "weight layer; all: all parameters", role="key"),
                Column("row_angle", "float", "W to B, mean over the units", "degrees", "value"),
                Column("flat_angle", "float", "W to B as vectors", "degrees"),
                Column("norm_ratio", "float", "|B| / |W|"),
                Column("gradient_cosine", "float", "of the rule's update and the gradient, mean over mini-batches"),
                *interval("gradient_cosine", "gradient_cosine"),
                Column("gradient_angle", "float", "the same as an angle", "degrees"),
                *interval("gradient_angle", "gradient_angle"),
                Column("sample_cosine", "float", "of the sums over all samples"),
                N_SAMPLES,
                *columns("int", "n_batches batch_size", "mini-batches, and samples of each"),
                Column("step", "int", "optimiser steps so far"),
            ),
        ),
    )
    section: ClassVar[Section] = Section(
        heading="Alignment",
        text="Agreement of the forward weights with the matrices that carry the error down, and of the rule's updates "
        "with the true gradient, over training.",
        drawings=(
            Drawing(
                title="Alignment over training",
                caption="At 90° forward and feedback weights are independent; at 0° feedback is backpropagation's.",
                remarks=(
                    (
                        "An update at less than 90° to the gradient lowers the loss; the last layer's always follows "
                        "it, because the error is exact there.",
                        lambda table: has("gradient_angle")(table) or has("gradient_cosine")(table),
                    ),
                ),
                draw="reports.figures:alignment",
                stem="alignment",
            ),
        ),
    )

    samples: int | None = samples_setting(
        2000, "number of samples that gradients are taken on, drawn by the seed; at most what the split has"
    )
    batch_size: int | None = setting(
        None,
        "samples of one update; cosines depend on it, because small batches have noisier gradients",
        metavar="N",
        check=at_least(1),
        default_text="as in training",
        group="samples",
    )

    def paths(self, given: Path) -> list[Path]:
        """Return the kept checkpoints of a run and its final one, in order of training, or the file itself.

        Raises:
            InputError: there is none.
        """
        if given.is_file():
            return [given]
        kept = sorted((given / "checkpoints").glob("epoch-*.pt"))
        final = [given / "ckpt.pt"] if (given / "ckpt.pt").is_file() else []
        if not kept and not final:
            raise InputError(f"{given} has no checkpoint: give a run folder or a checkpoint of ours")
        if not kept:
            warnings.warn(f"{given} kept its final checkpoint only: train with --checkpoint-every 1", stacklevel=2)
        return kept + final

    def load(self, loading: Loads, path: Path, given: Path) -> "Subject":
        """Return a checkpoint of a run under the name of the run."""
        from training.checkpoint import is_checkpoint

        if path.is_file() and not is_checkpoint(path):
            raise InputError(f"{path} is no checkpoint of ours: only those hold feedback weights")
        subject = super().load(loading, path, given)
        return dataclasses.replace(subject, name=os.fspath(given))

    def compute(self, subject: "Subject", show: Show = silent) -> Found:
        """Measure one checkpoint."""
        return Found(tables={"alignment": self._rows(subject)})

    def compute_all(self, subjects: "Iterable[Subject]", show: Show = silent) -> Found:
        """Measure the checkpoints of several runs, of two of one epoch the first; the run comes first in each row."""
        parts: dict[tuple[str, int], Found] = {}
        files: dict[str, dict[str, str]] = {}
        for subject in subjects:
            epoch = subject.columns["epoch"]
            if (subject.name, epoch) not in parts:
                frame = self._rows(subject)
                for name, value in reversed([("checkpoint", subject.name), *subject.columns.items()]):
                    frame.insert(0, name, value)
                parts[subject.name, epoch] = Found(tables={"alignment": frame})
                files.setdefault(subject.name, {})[subject.path.name] = subject.digest
        return dataclasses.replace(together(list(parts.values())), record={"checkpoint_files": files})

    def _rows(self, subject: "Subject") -> "DataFrame":
        """Return one row for each layer of one checkpoint, and one for all parameters."""
        import pandas as pd

        from training.angles import alignment
        from training.gradient_angles import gradient_alignment

        checkpoint = subject.checkpoint
        assert checkpoint is not None
        rule, twin = checkpoint.rule(), checkpoint.training_twin().to(subject.device)
        weights = {layer: alignment(*pair) for layer, pair in rule.backward_weights(twin).items()}
        size = self.batch_size or checkpoint.config.batch_size
        data = subject.inputs(), subject.labels
        found = gradient_alignment(subject.model, twin, rule, data, batch_size=size, seed=self.seed)
        none = dict.fromkeys(("row_angle", "flat_angle", "norm_ratio"), math.nan)
        rows = [
            {"layer": layer, **(weights[layer]._asdict() if layer in weights else none), **vars(update)}
            for layer, update in found.items()
        ]
        ends = ("", "_low", "_high")
        names = {f"{name}{end}": f"gradient_{name}{end}" for name in ("cosine", "angle") for end in ends}
        return pd.DataFrame(rows).rename(columns=names).assign(step=checkpoint.step)[self.tables[0].names()]

    def text(self, found: Found) -> str:
        """Return the last epochs."""
        from reports.tables import render

        frame = found.tables["alignment"]
        last = frame[frame["epoch"] == frame.groupby("checkpoint")["epoch"].transform("max")]
        return render(last[list(SHOWN)])
