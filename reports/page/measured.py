"""The numbers of networks, collected from any tables of ours: of run folders, of analyses, of a run store.

Whatever a table calls a network, its sidecar has the digest of the checkpoint, and a run that of each of its files: by
these the rows of one network come together.
"""

import json
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import pandas as pd
from pandas import DataFrame

from alignscape.errors import InputError
from alignscape.recorded import read_record
from reports.analyses import all_analyses, known_tables
from reports.analyses.compared import key_text
from reports.page.collect import OF_RUNS, Table, find_tables
from reports.tables import read_table

if TYPE_CHECKING:
    from training.store.run_store import Entry

CURVES = {
    "test accuracy (%)": ("test_accuracy", 100.0),
    "train accuracy (%)": ("train_accuracy", 100.0),
    "train loss": ("train_loss", 1.0),
    "test loss": ("test_loss", 1.0),
}
USUAL_CURVES = ("test accuracy (%)", "train loss")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Networks and their numbers.

    Attributes:
        networks: indexed by name: ``rule, angle, seed``; rule is empty for a network that is no run of ours.
        configs: settings of the runs whose folder is known, by name.
        numbers: one row a network and a column a metric, the figures of merit of each analysis first.
        merits: the columns that are figures of merit.
        usual: those of them that a table has without being asked.
    """

    networks: DataFrame
    configs: Mapping[str, Mapping[str, Any]]
    numbers: DataFrame
    merits: tuple[str, ...]
    usual: tuple[str, ...]

    def chosen(self, patterns: Sequence[str]) -> list[str]:
        """Return the metrics that are called so, or have these words in their names; ``*`` stands for anything.

        Raises:
            InputError: a pattern that no metric has; the message lists them.
        """
        names, found = [str(name) for name in self.numbers], dict[str, None]()
        for pattern in patterns:
            if not (alike := next(filter(None, (_called(names, pattern, words) for words in (True, False))), [])):
                raise InputError(f"no metric is called {pattern!r}; there are: {', '.join(names)}")
            exact = [name for name in alike if name.casefold() == pattern.casefold()]
            found.update(dict.fromkeys(exact or [name for name in alike if name in self.merits] or alike))
        return list(found)


def _called(names: Sequence[str], pattern: str, words: bool) -> list[str]:
    """Return the names that have ``pattern`` in them, as whole ``words`` or as it is."""
    text = re.escape(pattern.casefold().strip()).replace(r"\*", ".*")
    wanted = re.compile(rf"(?<![\w.]){text}(?![\w.])" if words else text)
    return [name for name in names if wanted.search(name.casefold())]


@dataclass(kw_only=True)
class _Names:
    """Which network a row is of."""

    runs: dict[str, str] = field(default_factory=dict)  # digest of a file of a run: the run
    others: dict[str, str] = field(default_factory=dict)  # digest of another checkpoint: the first name it had

    def of(self, name: str, digest: str | None) -> str:
        plain = _without_checkpoint(name)
        return plain if digest is None else self.runs.get(digest) or self.others.setdefault(digest, plain)


def _without_checkpoint(name: str) -> str:
    """Return ``runs/fa`` for its ``ckpt.pt`` and for a checkpoint of an epoch."""
    path = PurePath(name)
    if path.parent.name == "checkpoints" and len(path.parts) > 2:
        return str(path.parent.parent)
    return str(path.parent) if path.name == "ckpt.pt" and len(path.parts) > 1 else str(path)


def measured(tables: Sequence[Table]) -> Measured:
    """Return the numbers in these tables; of a run that was analysed along its training, the last epoch's.

    Raises:
        InputError: none has numbers of networks, or two have different ones for the same.
    """
    names = _Names(runs=_files_of_runs(tables))
    parts: dict[str, list[tuple[Table, DataFrame]]] = {}
    configs: dict[str, Mapping[str, Any]] = {}
    for table in tables:
        if table.frame.empty or "checkpoint" not in table.frame:
            continue
        own = _labelled(table, names)
        parts.setdefault(table.kind, []).append((table, own))
        if table.kind == "metrics":
            configs[str(own["network"].iloc[0])] = table.provenance.get("config", {})
    frames = {kind: _once(kind, own) for kind, own in parts.items() if kind in known_tables()}
    merits, usual, others = _merits(frames), list[str](), _quantities(frames)
    for kind, found in merits.items():
        usual += [str(name) for name in found if kind != "metrics" or name in USUAL_CURVES]
    every = tuple(str(name) for frame in merits.values() for name in frame)
    columns = [*merits.values(), *others]
    if not columns:
        raise InputError("no table here has numbers of networks: give run folders, or folders of results")
    values = pd.concat(columns, axis=1)
    identity = pd.concat([frame.reindex(columns=["rule", "angle", "seed"]) for frame in frames.values()])
    networks = identity.groupby(level=0, sort=False).first().reindex(values.index)
    networks["rule"] = networks["rule"].astype(object).where(networks["rule"].notna(), "")
    networks["angle"] = pd.to_numeric(networks["angle"]).where(networks["rule"] == "ifa")
    return Measured(networks=networks, configs=configs, numbers=values, merits=every, usual=tuple(usual))


def _files_of_runs(tables: Sequence[Table], *, only: str = "") -> dict[str, str]:
    """Return the run of each file that a complete run recorded, or of its file ``only``, by digest."""
    found = {}
    for table in tables:
        done = table.path.parent / "done.json"
        if table.kind == "metrics" and done.is_file():
            files = read_record(done).get("files", {})
            digests = [one["sha256"] for name, one in files.items() if only in ("", name)]
            found.update(dict.fromkeys(digests, str(table.path.parent)))
    return found


def _labelled(table: Table, names: _Names) -> DataFrame:
    """Return the rows of a table, indexed and labelled by network."""
    frame = table.frame
    if table.path.name in OF_RUNS:
        network = pd.Series(str(table.path.parent), index=frame.index)
    else:
        digests = table.provenance.get("checkpoints", {})
        known = {name: names.of(name, digests.get(name)) for name in frame["checkpoint"].astype(str).unique()}
        network = frame["checkpoint"].astype(str).map(known)
    return frame.assign(network=network).set_index("network", drop=False).rename_axis(None)


def _once(kind: str, parts: Sequence[tuple[Table, DataFrame]]) -> DataFrame:
    """Return the rows of one kind of table, of each network the last epoch's, from one table each.

    Raises:
        InputError: two tables have different rows of one network.
    """
    chosen: dict[str, tuple[Table, DataFrame]] = {}
    for table, frame in parts:
        for network, rows in frame.groupby(level=0, sort=False):
            last, (other, before) = _last_epoch(rows), chosen.get(str(network), (table, None))
            if before is None or _epoch(last) > _epoch(before):
                chosen[str(network)] = table, last
            elif _epoch(last) == _epoch(before) and not _same(last, before):
                raise InputError(
                    f"{other.path} and {table.path} both have {kind} numbers of {network}: give the tables that are "
                    "meant in place of their folder"
                )
    return pd.concat([rows for _, rows in chosen.values()])


def _last_epoch(rows: DataFrame) -> DataFrame:
    if "epoch" not in rows or rows["epoch"].isna().any():
        return rows
    return rows[rows["epoch"] == rows["epoch"].max()]


def _epoch(rows: DataFrame) -> float:
    found = rows["epoch"].max() if "epoch" in rows else float("nan")
    return -1.0 if pd.isna(found) else float(found)


def _same(one: DataFrame, two: DataFrame) -> bool:
    shared = [name for name in one if name in two and name not in ("checkpoint", "seconds")]
    return one[shared].reset_index(drop=True).equals(two[shared].reset_index(drop=True))


def _merits(frames: Mapping[str, DataFrame]) -> dict[str, DataFrame]:
    """Return the figures of merit of each kind of table, a column each, indexed by network."""
    found = {}
    analyses, known = all_analyses(), known_tables()
    if "metrics" in frames:
        found["metrics"] = _curves(frames["metrics"])
    for kind, analysis in analyses.items():
        if kind in frames and {*known[kind].names("key"), *known[kind].names("value")} <= set(frames[kind]):
            own = analysis.merits(frames[kind].rename_axis("network").drop(columns="network"))
            if own is not None:
                found[kind] = own.rename_axis(None)
    return found


def _curves(frame: DataFrame) -> DataFrame:
    """Return what a run ended with; nothing of one that diverged."""
    last = frame.groupby(level=0, sort=False).tail(1)
    columns = {name: scale * last[column] for name, (column, scale) in CURVES.items() if column in last}
    values = DataFrame(columns)
    if "diverged" in last:
        values = values.where(last["diverged"].ne(True), float("nan"), axis=0)
    return values


def _quantities(frames: Mapping[str, DataFrame]) -> list[DataFrame]:
    """Return every number by what its table calls it, such as ``attack pgd true eps 0.03``; accuracies in percent."""
    known, found = known_tables(), []
    for kind, frame in frames.items():
        keys, value = known[kind].names("key"), next(iter(known[kind].names("value")), None)
        if kind in ("metrics", "curvature") or value is None or not {value, *keys} <= set(frame):
            continue
        records = frame[keys].to_dict("records")
        share = value == "accuracy"
        text = [_named(kind, value if share else "", one) for one in records]
        long = DataFrame(
            {
                "network": frame["network"].to_list(),
                "metric": [f"{name} (%)" for name in text] if share else text,
                "value": pd.to_numeric(frame[value], errors="coerce").to_numpy() * (100.0 if share else 1.0),
            }
        )
        long = long[~long.duplicated(["network", "metric"], keep=False)]  # what its keys do not tell has no name
        if len(long):
            wide = long.pivot_table(index="network", columns="metric", values="value", sort=False, dropna=False)
            found.append(wide[list(dict.fromkeys(long["metric"]))].rename_axis(None).rename_axis(None, axis=1))
    return found


def _named(kind: str, what: str, keys: Mapping[Any, Any]) -> str:
    return " ".join(part for part in (kind, what, *(key_text(str(key), cell) for key, cell in keys.items())) if part)


def gathered(sources: Iterable[Path]) -> list[Table]:
    """Return the tables of what was given: run folders, folders of results at any depth, run stores, or CSV files.

    Raises:
        InputError: one of them is not there, or holds no table.
    """
    found: dict[Path, Table] = {}
    for path in sources:
        for table in _tables_of(path):
            found.setdefault(table.path.resolve(), table)
    return list(found.values())


def _tables_of(path: Path) -> list[Table]:
    if path.name in OF_RUNS and path.is_file():
        return find_tables(path.parent)
    if path.is_file() and path.suffix == ".csv":
        frame = read_table(path, known_tables().get(path.stem), needed=("checkpoint",))
        sidecar = path.with_suffix(".json")
        record = read_record(sidecar) if sidecar.is_file() else {}
        return [Table(kind=path.stem, path=path, name=path.name, frame=frame, provenance=record)]
    if path.is_file():
        raise InputError(f"{path} is no table (*.csv), nor a folder of tables")
    if (path / "store.json").is_file():
        return _tables_of_store(path)
    return find_tables(path)


def _tables_of_store(root: Path) -> list[Table]:
    """Return the tables of a store's runs, and those of its analyses of what the runs ended with."""
    runs = find_tables(root / "runs") if (root / "runs").is_dir() else []
    first = {str(table.path.parent): table.frame.iloc[0] for table in runs if table.kind == "metrics"}
    ends = {digest: run for digest, run in _files_of_runs(runs, only="ckpt.pt").items() if run in first}
    tables = list(runs)
    for entry in _of_one_kind(root, ends):
        digest = entry.definition["inputs"]["checkpoint"]
        run = ends[digest]
        identity = {name: first[run].get(name) for name in ("rule", "angle", "seed")}
        for path in sorted(entry.path.glob("*.csv")):
            frame = read_table(path, known_tables().get(path.stem), needed=()).assign(**identity)
            frame.insert(0, "checkpoint", run)
            name = path.relative_to(root).as_posix()
            record = {"checkpoints": {run: digest}}
            tables.append(Table(kind=path.stem, path=path, name=name, frame=frame, provenance=record))
    if not tables:
        raise InputError(f"the store {root} holds no table yet")
    return tables


def _of_one_kind(root: Path, ends: Collection[str]) -> "Iterator[Entry]":
    """Yield the analyses of checkpoints ``ends``; where one was made with several settings, those of most networks."""
    from training.store.run_store import RunStore

    found: dict[str, dict[str, list[Entry]]] = {}
    for entry in RunStore(root).analyses():
        definition = entry.definition
        if definition.get("inputs", {}).get("checkpoint") in ends:
            how = json.dumps([definition.get("version"), definition.get("parameters")], sort_keys=True)
            found.setdefault(str(definition.get("analysis")), {}).setdefault(how, []).append(entry)
    for name, ways in found.items():
        chosen = max(ways.values(), key=len)
        if len(ways) > 1:
            settings = chosen[0].definition.get("parameters")
            warnings.warn(f"{root} has {name} with {len(ways)} sets of settings; taken: {settings}", stacklevel=2)
        yield from chosen
