"""Regenerates targets: finds what is missing, has it computed, draws what is not up to date.

Nothing heavy is imported before there is something to do: a call that finds everything made ends in a moment.
"""

import glob
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from alignscape.errors import DamagedError, InputError
from alignscape.files import damaged_files, describe_files, folder_held
from alignscape.recorded import write_record
from reports.paper.numbers import Numbers
from reports.paper.target import P, Sources, Target
from reports.replacing import recorded
from training.store.jobs import Job, TrainJob
from training.store.run_store import RunStore, read_json
from training.store.sweep import Failure

State = Literal["up to date", "to make", "impossible"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One target of a profile: what it needs, and whether its results are there."""

    target: Target[Any]
    profile: Numbers
    sources: Sources
    key: str
    state: State
    problem: str = ""  # why it is impossible
    left_out: str = ""  # why some of it is

    def jobs(self) -> Iterator[Job]:
        """Yield every job that it needs, also through others; some more than once."""
        for source in itertools.chain.from_iterable(self.sources.values()):
            yield from _with_needs(source.file.job)


def _with_needs(job: Job) -> Iterator[Job]:
    yield job
    for needed in job.needs:
        yield from _with_needs(needed)


def distinct_jobs(plans: Iterable[Plan], store: RunStore) -> dict[str, Job]:
    """Return every job of these targets by its key, in their order; none of a target that is impossible."""
    return {job.key(store): job for one in plans if one.state != "impossible" for job in one.jobs()}


def plan(targets: Sequence[Target[P]], profile: P, root: Path | None, store: RunStore, out: Path) -> list[Plan]:
    """Say for each target what it needs and whether it is up to date; nothing is computed."""
    plans = []
    for target in targets:
        sources, left_out = _without_missing_data(target, target.sources(profile, root), store)
        one = Plan(target=target, profile=profile, sources=sources, key="", state="impossible", left_out=left_out)
        try:
            key = target.key(profile, sources, store)
        except InputError as error:  # data that is not there
            problem = "; ".join(part for part in (str(error), target.needs) if part)
            plans.append(replace(one, problem=problem))
            continue
        state: State = "up to date" if is_fresh(out, target.name, key) else "to make"
        plans.append(replace(one, key=key, state=state))
    return plans


def _without_missing_data(target: Target[Any], sources: Sources, store: RunStore) -> tuple[Sources, str]:
    """Return the sources without the optional tables whose data cannot be read, and why they cannot."""
    kept, reasons = dict(sources), []
    for table in set(target.optional) & set(sources):
        try:
            for source in sources[table]:
                source.file.identity(store)
        except InputError as error:
            del kept[table]
            reasons.append(f"without its {table}: {error}")
    return kept, "; ".join(reasons)


def is_fresh(out: Path, name: str, key: str) -> bool:
    """Whether the results of the target are there, whole, and made from what ``key`` says."""
    record = read_json(out / f"{name}.json")
    files = record.get("files", {})
    described = all(isinstance(one, dict) for one in files.values())
    return record.get("key") == key and bool(files) and described and not damaged_files(out, files, hashed=True)


def check_replaceable(plans: Iterable[Plan], out: Path) -> None:
    """Check that no target in ``out`` is replaced by one of another profile, nor a file that is none.

    Raises:
        InputError: it would be.
    """
    for one in plans:
        name = one.target.name
        there = [path for end in (".csv", ".json", ".png", ".pdf") if (path := out / f"{name}{end}").exists()]
        if one.state != "to make" or not there:
            continue
        record = recorded(out / f"{name}.json")
        if record.get("target") != name or not isinstance(record.get("profile"), dict):
            reason = "it was not made by this command"
        elif changed := _differences(record["profile"], one.profile.to_dict()):
            reason = "; ".join(changed[:2])
        else:
            continue
        raise InputError(f"{there[0]} would be lost ({reason}): choose another --out, or replace it by --force")


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return in words each number of a profile that is another now."""
    names = dict.fromkeys(["name", *old, *new])
    return [f"{n} {old.get(n)}, not {new.get(n)}" for n in names if n in new and n in old and old[n] != new[n]]


@dataclass(frozen=True, kw_only=True)
class Made:
    """What became of one target."""

    name: str
    state: Literal["made", "up to date", "failed", "skipped"]
    reason: str = ""  # why it failed or was skipped, or what was left out
    damaged: bool = False  # it failed because a stored file is not what was written
    seconds: float = 0.0  # of computing that its jobs took, whenever that was; shared jobs count for each target


def draw(one: Plan, store: RunStore, out: Path, record: dict[str, Any]) -> Made:
    """Draw a target whose jobs are done and write its files; the record of the target comes last.

    ``record`` (JSON) goes into every sidecar.
    """
    from reports.style import save
    from reports.tables import write_table

    name, profile = one.target.name, one.profile
    results = one.target.results(profile, one.sources, store)
    about = {**record, "target": name, "key": one.key, "profile": profile.to_dict(), **_origins(one, store)}
    write_record(out / f"{name}.json", {**about, "key": ""})  # not up to date, but known as ours, if this is killed
    written: list[str] = []
    sidecars: dict[str, dict[str, Any]] = {}
    for result in results:
        stem = name + result.suffix
        runs = {} if result.summary is None else {f"{stem}-runs": result.table}
        for file, table in {stem: result.table if result.summary is None else result.summary, **runs}.items():
            sidecars[file] = {**about, "title": result.title, "caption": result.caption, "suffix": result.suffix}
            write_table(table, out / f"{file}.csv", sidecars[file])
            written += [f"{file}.csv", f"{file}.json"]
        if result.figure is not None:
            written += [path.name for path in save(result.figure, out / stem)]
    files = describe_files(out, [glob.escape(file) for file in written if file != f"{name}.json"])
    write_record(out / f"{name}.json", {**sidecars[name], "files": files})
    return Made(name=name, state="made", reason=one.left_out, seconds=about["seconds"])


def _origins(one: Plan, store: RunStore) -> dict[str, Any]:
    """Return the runs and analyses behind a target: their folders in the store and what they took."""
    runs, analyses, seconds = {}, {}, 0.0
    for job in distinct_jobs([one], store).values():
        if isinstance(job, TrainJob):
            folder = job.folder(store).path
            runs[folder.name] = job.label.removeprefix("run ")
            seconds += read_json(folder / "done.json").get("seconds", 0.0)
        elif (entry := job.entry(store)) is not None and entry.path.name not in analyses:
            analyses[entry.path.name] = job.label
            seconds += entry.meta().get("seconds", 0.0)
    return {"runs": runs, "analyses": analyses, "seconds": round(seconds, 1)}


def regenerate(
    plans: Sequence[Plan],
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
    failures: dict[str, Failure] = {}
    summary = "nothing to compute"
    if todo := [one for one in plans if one.state == "to make"]:
        from training.store.cluster import execute

        found = execute([job for one in todo for job in one.jobs()], store, progress=progress, **execution)
        failures = {failure.job.key(store): failure for failure in found.failed}
        summary = str(found)

    def made(one: Plan) -> Made:
        if one.state == "impossible":
            return Made(name=one.target.name, state="skipped", reason=one.problem)
        if one.state == "up to date" or is_fresh(out, one.target.name, one.key):  # by now, of another process
            return Made(name=one.target.name, state="up to date", reason=one.left_out)
        own = [failures[key] for key in distinct_jobs([one], store) if key in failures]
        reasons, damaged = list(dict.fromkeys(failure.reason for failure in own)), any(one.damaged for one in own)
        try:
            if not reasons:
                return draw(one, store, out, record)
        except InputError as error:
            reasons, damaged = [str(error)], isinstance(error, DamagedError)
        more = [f"and {len(reasons) - 2} more"] if len(reasons) > 2 else []
        reason = "; ".join(reasons[:2] + more)
        return Made(name=one.target.name, state="failed", reason=reason, damaged=damaged)

    with folder_held(out) if todo else nullcontext():
        return [made(one) for one in plans], summary


def count(jobs: Iterable[tuple[Job, bool]]) -> list[int]:
    """Return how many runs are needed, present and missing, then how many analyses; a job comes with whether the store
    has it."""
    found = Counter((isinstance(job, TrainJob), there) for job, there in jobs)
    pairs = [(found[kind, True], found[kind, False]) for kind in (True, False)]
    return [number for present, missing in pairs for number in (present + missing, present, missing)]
