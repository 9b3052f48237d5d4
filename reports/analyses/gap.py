"""How the numbers of networks go with their generalisation gaps: the rows of ``compare --gap``."""

import itertools
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from alignscape.errors import InputError
from alignscape.settings import settings_of
from reports.analyses import ranks
from reports.analyses.compared import group_label
from reports.schema import Table
from reports.subjects import Subject, load_subject
from training.config import TrainConfig
from training.data import Split
from training.evaluation import evaluate

GAPS = ("loss", "accuracy")
ALL, PSI = "all", "psi"
_FEWEST = 3  # runs: the ranks of two say nothing


def gaps_of(subjects: Sequence[Subject]) -> pd.DataFrame:
    """Return ``checkpoint, group, seed, loss, accuracy`` of each run: test minus training loss, and training minus test
    accuracy; both measured, over the samples at hand and as many settings say of the training set.

    Raises:
        InputError: fewer than three runs of ours.
    """
    rows = []
    for subject in subjects:
        if subject.checkpoint is None or subject.load is None:
            warnings.warn(f"{subject.name} is no run of ours: it has no training set, so no gap", stacklevel=2)
            continue
        loss, accuracy = _measured(subject)
        train_loss, train_accuracy = _measured(_on_training_set(subject))
        rows.append(
            {
                "checkpoint": subject.name,
                "group": group_label(subject.columns),
                "seed": subject.columns["seed"],
                "loss": loss - train_loss,
                "accuracy": train_accuracy - accuracy,
            }
        )
    if len(rows) < _FEWEST:
        raise InputError(f"--gap correlates ranks over runs of ours: give three or more, not {len(rows)}")
    return pd.DataFrame(rows)


def _on_training_set(subject: Subject) -> Subject:
    """Return the same network with samples that it was trained on, at most as many as it has to be tested on times
    five."""
    assert subject.load is not None
    options: dict[str, Any] = dict(getattr(subject.load, "keywords", {}))
    return load_subject(subject.path, **{**options, "split": "train", "samples": 5 * len(subject.labels)})


def _measured(subject: Subject) -> tuple[float, float]:
    split = Split(images=subject.images, labels=subject.labels)
    normalise: Any = subject.normalise
    model: nn.Module = subject.model
    return evaluate(model, normalise, split, loss=subject.training_loss)


def gap_table(values: pd.DataFrame, gaps: pd.DataFrame, subjects: Sequence[Subject], table: Table) -> pd.DataFrame:
    """Return the rank correlation of each quantity with each gap: over all runs, over those of each rule, and Psi, over
    runs that differ in one setting alone.

    Args:
        values: ``checkpoint, quantity, value``.
        gaps: of :func:`gaps_of`.
        subjects: the networks, for their settings.
        table: what is returned.

    Raises:
        InputError: no quantity of three runs or more.
    """
    settings = settings_that_differ(subjects)
    rows = []
    for quantity, own in values.groupby("quantity", sort=False):
        both = gaps.merge(own[["checkpoint", "value"]], on="checkpoint")
        both = both[np.isfinite(both["value"])].reset_index(drop=True)
        if len(both) < _FEWEST:
            continue
        for gap in GAPS:
            for over, found, part in _correlations(both, gap, settings):
                counts = {"n_runs": len(part), "n_seeds": part["seed"].nunique()}
                rows.append({"quantity": quantity, "gap": gap, "over": over, "tau": found.value, "ci_low": found.ci_low,
                             "ci_high": found.ci_high, **counts})  # fmt: skip
    if not rows:
        raise InputError("--gap has nothing to correlate: give the tables that measured these runs (--tables)")
    return pd.DataFrame(rows).reindex(columns=table.names())


def _correlations(
    both: pd.DataFrame, gap: str, settings: Mapping[str, Mapping[str, Hashable]]
) -> Iterator[tuple[str, ranks.Correlation, pd.DataFrame]]:
    parts = [(ALL, both), *((str(label), rows) for label, rows in both.groupby("group", sort=False))]
    for over, part in parts:
        if over == ALL or (len(part) >= _FEWEST and len(parts) > 2):
            x, y = (part[name].to_numpy(float) for name in ("value", gap))
            yield over, ranks.tau(x, y, part["seed"].tolist()), part
    x, y = (both[name].to_numpy(float) for name in ("value", gap))
    groups = {
        axis: made for axis in _axes(settings) if (made := groups_along(axis, both["checkpoint"].tolist(), settings))
    }
    for axis, made in groups.items():
        yield f"{PSI}, {axis}", ranks.granulated(x, y, [made], both["seed"].tolist()), both
    if len(groups) > 1:
        yield PSI, ranks.granulated(x, y, list(groups.values()), both["seed"].tolist()), both


def settings_that_differ(subjects: Sequence[Subject]) -> dict[str, dict[str, Hashable]]:
    """Return, of each run by name, the settings in which runs differ; the seed is one of them, what was kept is not."""
    configs = {subject.name: subject.checkpoint.config for subject in subjects if subject.checkpoint is not None}
    known = [name for name, one in settings_of(TrainConfig).items() if one.group != "output"]
    differ = [name for name in known if len({repr(getattr(config, name)) for config in configs.values()}) > 1]
    return {run: {name: repr(getattr(config, name)) for name in {*differ, "seed"}} for run, config in configs.items()}


def _axes(settings: Mapping[str, Mapping[str, Hashable]]) -> list[str]:
    """Return the settings to go along: those that differ, without the seed."""
    return sorted({name for own in settings.values() for name in own} - {"seed"})


def groups_along(axis: str, runs: Sequence[str], settings: Mapping[str, Mapping[str, Hashable]]) -> list[list[int]]:
    """Return the groups of two runs or more (their places) that differ in ``axis`` alone."""

    def others(place: int) -> list[str]:
        return [str(settings[runs[place]][name]) for name in sorted(settings[runs[place]]) if name != axis]

    places = sorted(range(len(runs)), key=others)
    groups = [list(group) for _, group in itertools.groupby(places, others)]
    return [group for group in groups if len({settings[runs[place]][axis] for place in group}) > 1]
