"""The paper's figures on the device: the smoke profile projected and then made; the paper's projected, and made as far
as the minutes go."""

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

from benchmarks.gpu.missing import missing
from benchmarks.gpu.parts import Report, Setup
from benchmarks.gpu.projection import (
    Kind,
    clock,
    filled,
    images_ratio,
    kinds,
    project_analyses,
    project_trainings,
    random_data,
    sample_of,
)
from reports.paper import PROFILES, TARGETS, Profile, Target
from reports.paper.reproduction import plan, regenerate
from training.data import Dataset
from training.store import RunStore, execute

FIRST = ("fig1", "fig2", "fig4", "fig5", "fig7")
PAGE = ("jinja2", "plotly")
# A rehearsal's profile: a part of smoke, in seconds.
REHEARSED = ("seeds=0,1", "epochs=3", "curvature_samples=50", "attack_samples=30", "plane_points=5", "surface_points=5",
             "spectrum_steps=10", "trace_probes=5")  # fmt: skip
REHEARSED_FIGURES = ("fig1", "fig2", "fig7")


@dataclass(frozen=True, kw_only=True)
class Projection:
    """What computing will take.

    Attributes:
        seconds: all of it, but for what is unknown.
        measured: of the kinds that were measured themselves; the rest is taken from others that are alike.
        unknown: kinds of which nothing is known.
    """

    seconds: float
    measured: float
    unknown: list[str]


def smoke(setup: Setup, report: Report) -> None:
    """Project the smoke profile, compute it, hold the one against the other, and draw it."""
    profile, targets = PROFILES["smoke"](), list(TARGETS.values())
    if setup.small:
        profile, targets = profile.changed(REHEARSED), [TARGETS[name] for name in REHEARSED_FIGURES]
    projected = project(profile, targets, None, setup, report, lambda: setup.left - 0.6 * setup.seconds).seconds
    store, out = RunStore(setup.folder / "store"), setup.folder / "figures"
    wanted = [job for one in plan(targets, profile, None, store, out) for job in one.jobs()]

    tenths: set[int] = set()

    def progress(done: int, total: int) -> None:
        if (tenth := 10 * done // total) not in tenths:
            tenths.add(tenth)
            report.line(f"projected {projected:.0f} s of computing; {done} of {total} jobs computed")

    began = clock(setup.device)
    summary = execute(wanted, store, device=setup.device, progress=progress)
    computed = clock(setup.device) - began
    for failure in summary.failed:
        report.row("failures", job=failure.job.label, reason=failure.reason)
    off = f"{100 * (projected / computed - 1):+.0f} %"
    report.row("smoke", what="computing", seconds=round(computed, 1), projected=round(projected, 1), off=off)
    report.line(f"computed in {computed:.0f} s, projected {projected:.0f} s ({off}); {summary}")
    report.memory("smoke profile")
    drawn = [made(target, profile, None, store, out, setup, report) for target in targets]
    report.row("smoke", what=f"drawing {len(drawn)} targets", seconds=round(sum(drawn), 1), projected="", off="")
    report.line(f"computed in {computed:.0f} s, projected {projected:.0f} s ({off}); drawn in {sum(drawn):.0f} s")
    if lacking := missing(PAGE):
        report.row("failures", job="the page", reason=f"skipped: {', '.join(lacking)} is not installed here")
    else:
        from reports.page.html import write_page

        write_page(out)


def made(
    target: Target[Profile],
    profile: Profile,
    root: Path | None,
    store: RunStore,
    out: Path,
    setup: Setup,
    report: Report,
) -> float:
    """Make a target, computing what it lacks; return the seconds, and report it."""
    began = clock(setup.device)
    plans = plan([target], profile, root, store, out)
    results, summary = regenerate(plans, store, out, record={"command": "benchmarks.gpu"}, device=setup.device)
    seconds = clock(setup.device) - began
    row = {"profile": profile.name, "target": target.name, "state": results[0].state, "seconds": round(seconds, 1)}
    report.row("targets", **row, computed=summary, reason=results[0].reason)
    return seconds


def project(
    profile: Profile,
    targets: Sequence[Target[Profile]],
    root: Path | None,
    setup: Setup,
    report: Report,
    left: Callable[[], float],
) -> Projection:
    """Return what the targets will take, by measuring as long as ``left`` allows.

    Half of that time is for trainings, the rest for analyses; each kind becomes a row.
    """
    found, sample = kinds(profile, targets, root), sample_of(profile)
    sampled = kinds(sample, targets, root)

    def say(kind: Kind) -> None:
        seconds = "" if kind.seconds is None else round(kind.seconds, 1)
        report.row(f"projection of {profile.name}", kind=kind.label, jobs=len(kind.jobs), seconds=seconds, how=kind.how)

    def note(kind: Kind) -> None:
        say(kind)
        now = summed(found)
        report.line(f"projected {now.seconds / 60:.1f} minutes of computing so far, {len(now.unknown)} kinds unknown")

    half = left() / 2
    project_trainings(found, root, setup.device, lambda: left() - half, note)
    store = RunStore(setup.folder / "sample")
    project_analyses(found, sampled, images_ratio(profile, sample), store, setup.device, left, note)
    for kind in filled(found):
        if kind.how.startswith(("as ", "not ")):
            say(kind)
    report.memory(f"projection of {profile.name}")
    return summed(found)


def summed(found: Mapping[str, Kind]) -> Projection:
    """Return what the kinds come to, those that were not measured as what is most alike."""
    every = filled(found)
    return Projection(
        seconds=sum(kind.seconds or 0.0 for kind in every),
        measured=sum(kind.seconds or 0.0 for kind in found.values()),
        unknown=[kind.label for kind in every if kind.seconds is None],
    )


def paper(setup: Setup, report: Report) -> None:
    """Project the whole profile, and make the figures of :data:`FIRST` as far as the time goes."""
    names = [*FIRST, *(name for name in TARGETS if name not in FIRST)]
    profile = PROFILES["paper"]()
    if setup.small:
        profile, names = profile_of_rehearsal(), list(REHEARSED_FIGURES)
    targets = [TARGETS[name] for name in names]
    root = setup.data_root
    with mock.patch("torchvision.datasets.cifar.check_integrity", return_value=True):
        if root is None and profile.dataset == "cifar10":
            root = random_cifar10(setup.folder / "data", random_data("cifar10", (3, 32, 32), 50_000, 10_000))
        projected = project(profile, targets, root, setup, report, lambda: setup.left - 0.35 * setup.seconds)
        drawing = drawing_seconds(setup.so_far) * len(targets)
        whole = projected.seconds + drawing
        report.row("paper", what="computing, of kinds that were measured", minutes=round(projected.measured / 60, 2))
        report.row("paper", what="computing, all kinds", minutes=round(projected.seconds / 60, 2))
        report.row("paper", what=f"drawing {len(targets)} targets, as long as smoke's", minutes=round(drawing / 60, 2))
        report.row("paper", what="projected for all of it", minutes=round(whole / 60, 2))
        text = f"projected {whole / 60:.1f} minutes for all of it"
        if projected.unknown:
            text += f" but {len(projected.unknown)} kinds: {', '.join(projected.unknown[:3])}"
        elif not setup.small:
            name = "`--profile paper`, projected"
            report.target(name, target=30, measured=whole / 60, unit="minutes", most=True)
        report.line(text)
        store, out, done = RunStore(setup.folder / "store"), setup.folder / "figures", []
        for name in FIRST:
            if name in names:
                made(TARGETS[name], profile, root, store, out, setup, report)
                done.append(name)
                report.line(f"{text}; {', '.join(done)} made")


def profile_of_rehearsal() -> Profile:
    """Return what stands for the paper's profile in a rehearsal."""
    return replace(PROFILES["smoke"]().changed([*REHEARSED, "epochs=4"]), name="rehearsal")


def drawing_seconds(so_far: Path | None) -> float:
    """Return the mean seconds of drawing a target that the smoke part has found, 0 if it has found none."""
    if so_far is None or not so_far.is_file():
        return 0.0
    said = [one for part in json.loads(so_far.read_text())["parts"] if part["name"] == "smoke" for one in part["said"]]
    rows = [one["columns"] for one in said if one["kind"] == "row" and one["table"] == "targets"]
    return sum(row["seconds"] for row in rows) / len(rows) if rows else 0.0


def random_cifar10(root: Path, data: Dataset) -> Path:
    """Write ``data`` as CIFAR-10's files, whose checksums the reader must not look at; return ``root``."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    parts = zip(data.train.images.chunk(5), data.train.labels.chunk(5), strict=True)
    files = {f"data_batch_{i}": part for i, part in enumerate(parts, 1)}
    for name, (images, labels) in {**files, "test_batch": (data.test.images, data.test.labels)}.items():
        content = {"data": images.flatten(1).contiguous().numpy(), "labels": labels.tolist()}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(i) for i in range(10)]}))
    return root
