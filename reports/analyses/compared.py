"""Differences between networks: image by image against a baseline, and rule by rule over seeds."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from alignscape.errors import InputError
from alignscape.settings import settings_of
from reports.analyses.analysis import Show
from reports.analyses.attack import Attack
from reports.schema import Table
from reports.subjects import Subject
from reports.tables import read_table
from robustness.attacks import fgsm
from robustness.comparison import holm, mcnemar, rank_sum
from robustness.curves import attack_curve
from training.checkpoint import load_checkpoint
from training.config import TrainConfig
from training.run_folder import RunFolder

Outcomes = dict[str, np.ndarray]


def outcomes(attack: Attack | None, subject: Subject, show: Show) -> Outcomes:
    """Return which images the network gets right, bool (N,): as they are, and under each attack at each eps."""
    clean = attack_curve(subject.pixel_model(), subject.pixels(), subject.labels, [0.0], fgsm())
    found = {"accuracy": ~clean.fooled[0].numpy()}
    for curve, _ in attack.curves(subject, attack.made(), None, show) if attack is not None else ():
        for eps, fooled in zip(curve.eps, curve.fooled, strict=True):
            if eps > 0:
                found[f"accuracy under {curve.attack}, eps {eps:g}"] = ~fooled.numpy()
    return found


def check_same_images(subjects: Sequence[Subject]) -> None:
    """Check that a comparison image by image is one.

    Raises:
        InputError: two checkpoints have the same name or are the same, or other images or labels than the first.
    """
    first = subjects[0]
    if len({subject.name for subject in subjects}) < len(subjects):
        raise InputError("a checkpoint is given twice; comparing it with itself shows nothing")
    seen: dict[tuple[str, int], str] = {}
    for subject in subjects:
        if subject.checkpoint is None:
            continue
        state = _run_of(subject.checkpoint.config), subject.checkpoint.epoch
        if (other := seen.setdefault(state, subject.name)) != subject.name:
            raise InputError(
                f"{other} and {subject.name} are one run at one epoch, given twice; comparing it with itself shows "
                "nothing"
            )
    for subject in subjects[1:]:
        if not (torch.equal(subject.images, first.images) and torch.equal(subject.labels, first.labels)):
            raise InputError(f"{subject.name} has other images than {first.name}; compare networks of one data set")


def seeds(subjects: Sequence[Subject]) -> set[str]:
    """Return the names of the networks that count as a seed of their rule: of each run the latest epoch given, since
    two epochs of one run are no two draws of chance. Whatever is left out, or mixed, is said in a warning."""
    latest: dict[str, Subject] = {}
    for subject in subjects:
        if subject.checkpoint is None:
            continue
        run = _run_of(subject.checkpoint.config)
        if run not in latest or latest[run].columns["epoch"] < subject.columns["epoch"]:
            latest[run] = subject
    kept = {subject.name for subject in latest.values()}
    left = [s.name for s in subjects if s.checkpoint is not None and s.name not in kept]
    if left:
        warnings.warn(f"{', '.join(left)}: earlier epochs of runs given, no seeds of their own", stacklevel=2)
    epochs: dict[int, list[str]] = {}
    for subject in latest.values():
        epochs.setdefault(subject.columns["epoch"], []).append(subject.name)
    if len(epochs) > 1:
        shown = "; ".join(f"epoch {epoch}: {', '.join(names[:4])}" for epoch, names in sorted(epochs.items()))
        warnings.warn(f"networks of different epochs are compared ({shown})", stacklevel=2)
    return kept


def _run_of(config: TrainConfig) -> str:
    """Return what tells a run from others: its settings, but how long it went on and what it kept of it."""
    own = {name: getattr(config, name) for name, one in settings_of(TrainConfig).items() if one.group != "output"}
    return repr({name: value for name, value in own.items() if name != "epochs"})


def paired_rows(results: Mapping[str, Outcomes], baseline: str, seed: int) -> list[dict[str, Any]]:
    """Return McNemar's test of every other network against ``baseline``, for each outcome."""
    rows = []
    for name, other in results.items():
        for quantity, right in other.items() if name != baseline else ():
            reference = results[baseline][quantity]
            test = mcnemar(right, reference, seed=seed)
            found = {**asdict(test), "n_first": test.n, "n_second": test.n}
            rows.append(_row(quantity, "mcnemar", name, baseline, right.mean(), reference.mean(), **found))
    return rows


def _row(
    quantity: object, test: str, first: object, second: object, value_first: float, value_second: float, **found: Any
) -> dict[str, Any]:
    """Return a row of the comparison; ``found`` is what the test found, or the difference alone."""
    values = {"value_first": float(value_first), "value_second": float(value_second)}
    return {"quantity": quantity, "test": test, "first": first, "second": second, **values, **found}


def group_label(columns: Mapping[str, Any]) -> str | None:
    """Return e.g. ``ifa 45`` for a run of ours, None for a foreign network: seeds of one label are a group."""
    rule, angle = columns.get("rule"), columns.get("angle")
    if not isinstance(rule, str):
        return None
    return f"{rule} {angle:g}" if isinstance(angle, int | float) and math.isfinite(angle) else rule


def seed_rows(values: pd.DataFrame, baseline: str | None) -> list[dict[str, Any]]:
    """Return the rank-sum test of every other group against the group ``baseline``, for each quantity.

    Args:
        values: columns ``group, quantity, value``, one row a run; groups with a single run are left out, since one
            number has no spread.
        baseline: label of a group.
    """
    rows = []
    for quantity, part in values[np.isfinite(values.value)].groupby("quantity", sort=False):
        groups = {label: group.value.to_numpy() for label, group in part.groupby("group", sort=False) if len(group) > 1}
        reference = groups.pop(baseline, None)
        for label, group in groups.items() if reference is not None else ():
            medians = np.median(group), np.median(reference)
            rows.append(_row(quantity, "rank-sum", label, baseline, *medians, **asdict(rank_sum(group, reference))))
    return rows


def read_values(paths: Sequence[Path], subjects: Sequence[Subject], known: Mapping[str, Table]) -> pd.DataFrame:
    """Return ``checkpoint, group, quantity, value`` from tables that other commands wrote, for these networks.

    A network's rows are found under any name it has: see :func:`names_of`. What the rows differ in beside their keys
    (the norm or the steps of an attack, say) becomes part of the quantity, so that no two threat models are one.

    Args:
        known: tables by name; they say which columns name a quantity and which hold its number.

    Raises:
        InputError: no such file, not one of our tables with numbers, no row of these checkpoints, or two numbers for
            one quantity of one of them.
    """
    tables = [_read_rows(path, subjects, known) for path in paths]
    columns = ["checkpoint", "group", "quantity", "value"]
    if not tables:
        return pd.DataFrame(columns=columns)
    values = pd.concat(tables, ignore_index=True)
    for _, part in values.groupby("quantity", sort=False):
        stem = part.stem.iloc[0]
        for name in known[stem].names("setting") if stem in known else ():
            shown = [key_text(name, value) for value in part[name]] if name in part else []
            if len(set(shown)) > 1:
                values.loc[part.index, "quantity"] += [f" {text}" if text else "" for text in shown]
    values = values[columns].drop_duplicates()
    if (twice := values[values.duplicated(["checkpoint", "quantity"])]).size:
        row = twice.iloc[0]
        raise InputError(f"the tables have two numbers of {row.quantity} for {row.checkpoint}: give one of them")
    return values


def _read_rows(path: Path, subjects: Sequence[Subject], known: Mapping[str, Table]) -> pd.DataFrame:
    """Return the rows of one table for these networks: ``checkpoint, group, quantity, value, stem``, its settings."""
    frame = read_table(path, known.get(path.stem), needed=())
    declared = [known[path.stem]] if path.stem in known else list(known.values())
    value = next((name for table in declared for name in table.names("value") if name in frame), None)
    if value is None or "checkpoint" not in frame:
        raise InputError(f"{path} has no column checkpoint, or none that holds the number of a row")
    keys = list(dict.fromkeys(name for table in declared for name in table.names("key") if name in frame))
    there = set(frame.checkpoint)
    held_as = {s.name: next((name for name in names_of(s) if name in there), s.name) for s in subjects}
    chosen = _last_epochs(frame[frame.checkpoint.isin(held_as.values())])
    if chosen.empty:
        held = ", ".join(map(str, frame.checkpoint.unique()[:4]))
        raise InputError(f"{path} has no row of the checkpoints given; it has {held}")
    settings = [name for name in declared[0].names("setting") if name in frame] if len(declared) == 1 else []
    records: list[dict[str, Any]] = [{str(k): v for k, v in row.items()} for row in chosen.to_dict("records")]
    found = pd.DataFrame(
        {
            "checkpoint": chosen.checkpoint.map({held: name for name, held in held_as.items()}).to_list(),
            "group": [group_label(record) for record in records],
            "quantity": [" ".join([path.stem, *(key_text(key, record[key]) for key in keys)]) for record in records],
            "value": pd.to_numeric(chosen[value], errors="coerce").to_list(),
            "stem": path.stem,
        }
    )
    return found.assign(**{name: chosen[name].to_list() for name in settings})


def _last_epochs(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each network's last epoch, of a table that follows training."""
    if "epoch" not in frame or frame.epoch.isna().any():
        return frame
    return frame[frame.epoch == frame.groupby("checkpoint").epoch.transform("max")]


def names_of(subject: Subject) -> list[str]:
    """Return the names under which a table may hold a network, the one it was given by first.

    A run folder is its ``ckpt.pt``, and that is the checkpoint kept of its last epoch: the last of the rows that
    ``hessian RUN --every-epoch`` writes.
    """
    if subject.checkpoint is None:
        return [subject.name]
    path, epoch = Path(subject.name), subject.checkpoint.epoch
    run = RunFolder(path if path.is_dir() else path.parent.parent if path.parent.name == "checkpoints" else path.parent)
    last = path in (run.path, run.checkpoint)
    if path == run.epoch_checkpoint(epoch) and run.checkpoint.is_file():
        last = load_checkpoint(run.checkpoint).epoch == epoch
    others = (run.path, run.checkpoint, run.epoch_checkpoint(epoch)) if last else ()
    return [subject.name, *map(str, others)]


def key_text(key: str, value: Any) -> str:
    """Return a key's part of a quantity's name: text speaks for itself, a number needs its name, and what a table does
    not say has none."""
    if isinstance(value, str | bool) or value is None:
        return (value or "") if not isinstance(value, bool) else key if value else ""
    return f"{key} {value:g}" if math.isfinite(value) else ""


def value_rows(values: pd.DataFrame, baseline: str) -> list[dict[str, Any]]:
    """Return the plain differences from ``baseline`` of quantities that one network has one number of."""
    wide = values.pivot_table(index="quantity", columns="checkpoint", values="value", sort=False)
    if baseline not in wide:
        return []
    return [
        _row(quantity, "none", name, baseline, row[name], row[baseline], difference=row[name] - row[baseline],
             n_first=1, n_second=1)
        for quantity, row in wide.iterrows()
        for name in wide.columns.drop(baseline)
    ]  # fmt: skip


def comparison_frame(rows: Sequence[Mapping[str, Any]], table: Table) -> pd.DataFrame:
    """Return the rows as a ``table``; ``p_holm`` adjusts the p-values of one quantity and one kind of test for being
    several: as many as there are networks, or rules, that are set against the first."""
    frame = pd.DataFrame(rows).reindex(columns=table.usual)
    for _, part in frame[frame.p_value.notna()].groupby(["test", "quantity"]):
        frame.loc[part.index, "p_holm"] = holm(part.p_value.tolist())
    return frame


def with_run_names(frame: pd.DataFrame, subjects: Sequence[Subject]) -> pd.DataFrame:
    """Return the comparisons with ``run_first`` and ``run_second`` where a network is a run in a store, whose path is a
    key."""
    runs = {subject.name: subject.columns["run"] for subject in subjects if "run" in subject.columns}
    if not runs:
        return frame
    return frame.assign(run_first=frame["first"].map(runs), run_second=frame["second"].map(runs))


def called(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the comparisons for a reader: runs in a store by their names in place of their paths."""
    if "run_first" not in frame:
        return frame
    named = {place: frame[f"run_{place}"].fillna(frame[place]) for place in ("first", "second")}
    return frame.assign(**named).drop(columns=["run_first", "run_second"])
