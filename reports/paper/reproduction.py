"""Regenerates targets: finds what is missing, has it computed, draws what is not up to date.

Nothing heavy is imported before there is something to do: a call that finds everything made ends in a moment.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alignscape.errors import InputError
from reports.paper import Profile, Target
from reports.paper.target import Sources
from training.store.jobs import Job, TrainJob
from training.store.run_store import RunStore, read_json

State = Literal["up to date", "to make", "impossible"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One target: what it needs, and whether its results are there."""

    target: Target
    sources: Sources
    key: str
    state: State
    problem: str = ""  # why it is impossible
    left_out: str = ""  # why some of it is

    def jobs(self) -> Iterator[Job]:
        """Yield every job that it needs, also through others; some more than once."""
        for parts in self.sources.values():
            for source in parts:
                yield from _with_needs(source.job)


def _with_needs(job: Job) -> Iterator[Job]:
    yield job
    for needed in job.needs:
        yield from _with_needs(needed)


def plan(targets: Sequence[Target], profile: Profile, root: Path | None, store: RunStore, out: Path) -> list[Plan]:
    """Say for each target what it needs and whether it is up to date; nothing is computed."""
    plans = []
    for target in targets:
        sources, left_out = _without_missing_data(target, target.sources(profile, root), store)
        try:
            key = target.key(profile, sources, store)
        except InputError as error:  # data that is not there
            plans.append(Plan(target=target, sources=sources, key="", state="impossible", problem=str(error)))
            continue
        state: State = "up to date" if is_fresh(out, target.name, key) else "to make"
        plans.append(Plan(target=target, sources=sources, key=key, state=state, left_out=left_out))
    return plans


def _without_missing_data(target: Target, sources: Sources, store: RunStore) -> tuple[Sources, str]:
    """Return the sources without the optional tables whose data cannot be read, and why they cannot."""
    kept, reasons = dict(sources), []
    for table in set(target.optional) & set(sources):
        try:
            for source in sources[table]:
                source.job.key(store)
        except InputError as error:
            del kept[table]
            reasons.append(f"without its {table}: {error}")
    return kept, "; ".join(reasons)


def is_fresh(out: Path, name: str, key: str) -> bool:
    """Whether the results of the target are there, whole, and made from what ``key`` says."""
    record = read_json(out / f"{name}.json")
    files = record.get("files", {})
    sizes = {file: _size(out / file) for file in files}
    return record.get("key") == key and bool(files) and sizes == files


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


@dataclass(kw_only=True)
class Needs:
    """How many runs and analyses a target needs, and how many of them the store has."""

    runs: int = 0
    runs_there: int = 0
    analyses: int = 0
    analyses_there: int = 0

    def row(self) -> dict[str, int]:
        """Return the numbers as columns of the dry run's table."""
        return {
            "runs": self.runs,
            "present": self.runs_there,
            "missing": self.runs - self.runs_there,
            "analyses": self.analyses,
            "present ": self.analyses_there,
            "missing ": self.analyses - self.analyses_there,
        }


@dataclass
class Census:
    """Which jobs the store has; each is looked at once."""

    store: RunStore
    _done: dict[str, bool] = field(default_factory=dict)

    def of(self, plans: Sequence[Plan]) -> Needs:
        """Count the jobs of these targets, each once."""
        needs, seen = Needs(), set()
        for job in (job for one in plans if one.state != "impossible" for job in one.jobs()):
            key = job.key(self.store)
            if key in seen:
                continue
            seen.add(key)
            if key not in self._done:
                self._done[key] = job.is_done(self.store)
            if isinstance(job, TrainJob):
                needs.runs, needs.runs_there = needs.runs + 1, needs.runs_there + self._done[key]
            else:
                needs.analyses, needs.analyses_there = needs.analyses + 1, needs.analyses_there + self._done[key]
        return needs


@dataclass(frozen=True, kw_only=True)
class Made:
    """What became of one target."""

    name: str
    state: Literal["made", "up to date", "failed", "skipped"]
    reason: str = ""  # why it failed or was skipped, or what was left out
    files: tuple[str, ...] = ()
    seconds: float = 0.0  # of computing that its jobs took, whenever that was; shared jobs count for each target


def draw(one: Plan, profile: Profile, store: RunStore, out: Path, record: dict[str, Any]) -> Made:
    """Draw a target whose jobs are done and write its files; the record of the target comes last.

    ``record`` (JSON) goes into every sidecar.
    """
    from alignscape.files import write_json
    from reports.style import save
    from reports.tables import write_table

    name = one.target.name
    results = one.target.results(profile, one.sources, store)
    about = {**record, "target": name, "key": one.key, "profile": profile.to_dict(), **_origins(one, store)}
    (out / f"{name}.json").unlink(missing_ok=True)
    written: list[str] = []
    sidecars: dict[str, dict[str, Any]] = {}
    for result in results:
        stem = name + result.suffix
        own = {**about, "title": result.title, "caption": result.caption, "suffix": result.suffix}
        main = result.table if result.summary is None else result.summary
        for stem_of, table in ((stem, main), (f"{stem}-runs", None if result.summary is None else result.table)):
            if table is None:
                continue
            write_table(table, out / f"{stem_of}.csv", own)
            written += [f"{stem_of}.csv", f"{stem_of}.json"]
            sidecars[f"{stem_of}.json"] = own
        if result.figure is not None:
            written += [path.name for path in save(result.figure, out / stem)]
    files = {file: _size(out / file) for file in written if file != f"{name}.json"}
    write_json(out / f"{name}.json", {**sidecars[f"{name}.json"], "files": files})
    return Made(name=name, state="made", reason=one.left_out, files=tuple(written), seconds=about["seconds"])


def _origins(one: Plan, store: RunStore) -> dict[str, Any]:
    """Return the runs and analyses behind a target: their folders in the store and what they took."""
    runs, analyses, seconds = {}, {}, 0.0
    for job in one.jobs():
        if isinstance(job, TrainJob):
            folder = job.folder(store)
            if folder.path.name not in runs:
                runs[folder.path.name] = job.label.removeprefix("run ")
                seconds += read_json(folder.path / "done.json").get("seconds", 0.0)
        elif (entry := job.entry(store)) is not None and entry.path.name not in analyses:
            analyses[entry.path.name] = job.label
            seconds += entry.meta().get("seconds", 0.0)
    return {"runs": runs, "analyses": analyses, "seconds": round(seconds, 1)}


def regenerate(
    plans: Sequence[Plan],
    profile: Profile,
    store: RunStore,
    out: Path,
    *,
    record: dict[str, Any],
    progress: Progress | None = None,
    **execution: Any,
) -> tuple[list[Made], str]:
    """Have everything computed that is missing and draw what is not up to date.

    A target whose data or jobs fail is reported; the others are made.

    Args:
        execution: ``executor, ray_address, workers, device`` of :func:`training.store.cluster.execute`.

    Returns:
        What became of each target, and what was computed, in words.
    """
    todo = [one for one in plans if one.state == "to make"]
    failures: dict[str, str] = {}
    summary = "nothing to compute"
    if todo:
        from training.store.cluster import execute

        found = execute([job for one in todo for job in one.jobs()], store, progress=progress, **execution)
        failures = {failure.job.key(store): failure.reason for failure in found.failed}
        summary = str(found)
    made = []
    for one in plans:
        if one.state == "impossible":
            made.append(Made(name=one.target.name, state="skipped", reason=one.problem))
        elif one.state == "up to date":
            made.append(Made(name=one.target.name, state="up to date", reason=one.left_out))
        else:
            made.append(_drawn_or_failed(one, profile, store, out, record, failures))
    return made, summary


def _drawn_or_failed(
    one: Plan, profile: Profile, store: RunStore, out: Path, record: dict[str, Any], failures: dict[str, str]
) -> Made:  # fmt: skip
    reasons = dict.fromkeys(failures[key] for job in one.jobs() if (key := job.key(store)) in failures)
    if reasons:
        text = "; ".join(list(reasons)[:2]) + (f"; and {len(reasons) - 2} more" if len(reasons) > 2 else "")
        return Made(name=one.target.name, state="failed", reason=text)
    try:
        return draw(one, profile, store, out, record)
    except InputError as error:
        return Made(name=one.target.name, state="failed", reason=str(error))


def missing_jobs(plans: Sequence[Plan], store: RunStore) -> list[str]:
    """Return the label of every job that the store lacks, in the order of the targets."""
    seen: dict[str, str] = {}
    for job in (job for one in plans if one.state != "impossible" for job in one.jobs()):
        key = job.key(store)
        if key not in seen:
            seen[key] = "" if job.is_done(store) else job.label
    return [label for label in seen.values() if label]
