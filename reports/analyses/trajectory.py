"""``trajectory``: the path of training in its principal plane, over the loss there."""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from alignscape.errors import InputError
from alignscape.settings import POSITIVE, at_least, setting
from reports.analyses.analysis import Analysis, Found, Show, samples_setting, silent
from reports.analyses.section import Drawing, Section
from reports.analyses.surface import PLANE, require_grid
from reports.schema import LOSS, Column, Table, columns

if TYPE_CHECKING:
    from pandas import DataFrame

    from alignscape.sketch import Sketch
    from landscape import Snapshots, Surface, TrajectoryPCA
    from reports.subjects import Subject

_DISTANCE = "weight-space distance"


@dataclass(frozen=True, kw_only=True)
class Trajectory(Analysis):
    """PCA of the weight trajectory of one run, or of several in one plane.

    >>> Trajectory(points=31, origin="mean").margin
    0.25
    """

    name: ClassVar[str] = "trajectory"
    version: ClassVar[int] = 2  # settings at their default are no part of the key any more
    summary: ClassVar[str] = (
        "PCA of the weight trajectory of one run, or of several in one plane, over the loss surface"
    )
    of_runs: ClassVar[bool] = True
    tables: ClassVar[tuple[Table, ...]] = (
        Table(
            "trajectory",
            (
                Column("step", "int", "optimiser step of the snapshot"),
                *columns("float", "alpha beta", "coordinate in the plane", unit=_DISTANCE),
                *columns("float", "distance off_plane", "from the origin, and from the plane", unit=_DISTANCE),
                LOSS,
                Column("plane_loss", "float", "of the projection onto the plane", "nats"),
                *(
                    Column(f"{name}_{k}", "float", f"share of variance {meaning}")
                    for k in (1, 2)
                    for name, meaning in (
                        ("explained", "along the axis"),
                        ("random_walk", "that a random walk of as many steps has there"),
                    )
                ),
            ),
        ),
        Table("trajectory_plane", PLANE),
    )
    section: ClassVar[Section] = Section(
        heading="Training trajectory",
        text="The path of the weights in the plane of its first two principal components, with the loss in that plane.",
        drawings=(
            Drawing(
                title="Path of training",
                caption="Explained variance counts only beyond what a random walk of as many steps explains (in "
                "brackets). Where the distance from the plane is large, the contours are not the loss "
                "that training saw.",
                draw="reports.figures:trajectory",
                stem="trajectory",
                beside=("trajectory_plane",),
            ),
        ),
    )

    samples: int | None = samples_setting(10_000)
    origin: Literal["final", "mean"] = setting(
        "final",
        "final: the plane that fits the path best among those through the final weights (of the first run); mean: "
        "ordinary PCA about the mean of all snapshots",
    )
    every: int = setting(1, "use every K-th snapshot, counted from the last", metavar="K", check=at_least(1))
    points: int = setting(21, "grid points along each axis", metavar="N", check=at_least(1))
    margin: float = setting(
        0.25,
        "how far the grid reaches beyond the path, relative to its extent",
        metavar="M",
        check=POSITIVE,
    )
    memory: float = setting(
        0.25,
        "memory for the block of weights in work, in 1e9 bytes; less is slower, never different",
        metavar="GB",
        check=POSITIVE,
        in_key=False,
    )
    directions: Literal["auto", "sketch", "snapshots"] = setting(
        "auto",
        "sketch: of the weights after every step (train with --snapshot-sketch); snapshots: of those kept; auto: the "
        "sketch where every run has one",
    )
    gif: bool = setting(False, "also write trajectory.gif, which replays training", in_key=False)

    def paths(self, given: Path) -> list[Path]:
        """Return ``given``.

        Raises:
            InputError: it is a file, or a run that kept no snapshots.
        """
        from landscape import Snapshots
        from training.store.run_store import read_json

        if given.is_file():
            raise InputError(f"{given} is a file: a trajectory belongs to a run, give its folder")
        if read_json(given / "trajectory.json").get("steps") == []:
            raise InputError(f"the run {given} diverged on noise, before its first snapshot: it has no trajectory")
        Snapshots.of_run(given, every=self.every)
        return [given]

    def compute(self, subject: "Subject", show: Show = silent) -> Found:
        """Return the path of one run in its own plane, and the loss there."""
        path, plane, pca = self._measure([subject], show)
        tables = {"trajectory": path.drop(columns="run"), "trajectory_plane": plane.frame()}
        return Found(tables=tables, record=_shares(pca))

    def compute_all(self, subjects: "Iterable[Subject]", show: Show = silent) -> Found:
        """Return the paths of several runs in their common plane, and the loss there by the first one's samples."""
        import pandas as pd

        from reports.tables import render, with_subject

        subjects = list(subjects)
        path, plane, pca = self._measure(subjects, show)
        parts = [
            with_subject(path[path["run"] == index].drop(columns="run"), of_run)
            for index, of_run in enumerate(subjects)
        ]
        labelled = pd.concat(parts, ignore_index=True).drop(columns="epoch", errors="ignore")
        ground = plane.frame()
        ground.insert(0, "checkpoint", subjects[0].name if len(subjects) == 1 else "common plane")
        files = {"surface.npz": functools.partial(_write_arrays, plane)}
        if self.gif:
            files["trajectory.gif"] = functools.partial(_write_gif, labelled, ground, show)
        return Found(
            tables={"trajectory": labelled, "trajectory_plane": ground},
            record={"snapshots": len(labelled), **_shares(pca)},
            files=files,
            text=render(pca.variance_frame().head(5)),
        )

    def text(self, found: Found) -> str:
        """Return what the components explain."""
        return found.text

    def _measure(self, subjects: "Sequence[Subject]", show: Show) -> "tuple[DataFrame, Surface, TrajectoryPCA]":
        """Return a row per snapshot, the loss on a grid that covers them, and their components."""
        from landscape import Snapshots, trajectory_pca

        require_grid((self.points, self.points))
        runs = [Snapshots.of_run(subject.path.parent, every=self.every) for subject in subjects]
        pca = trajectory_pca(
            runs,
            origin=self.origin,
            sketches=self._sketches(subjects),
            memory=int(self.memory * 1e9),
            progress=show("principal components", "weight"),
        )
        return self._path(subjects[0], runs, pca, show), self._plane(subjects[0], pca, show), pca

    def _sketches(self, subjects: "Sequence[Subject]") -> "list[Sketch] | None":
        """Return the sketch of each run, or None where the directions are the snapshots'."""
        from alignscape.sketch import load_sketch

        folders = [subject.path.parent for subject in subjects]
        some_without = any(not (folder / "sketch.npz").is_file() for folder in folders)
        if self.directions == "snapshots" or (self.directions == "auto" and some_without):
            return None
        return [load_sketch(folder) for folder in folders]

    def _path(self, subject: "Subject", runs: "Sequence[Snapshots]", pca: "TrajectoryPCA", show: Show) -> "DataFrame":
        """Return one row per snapshot: the columns of ``trajectory.csv``, and the number of its ``run``."""
        from landscape import path_losses

        loss, targets = subject.objective()
        losses = path_losses(
            subject.model,
            loss,
            (subject.images, targets),
            runs,
            pca,
            batch_size=self.batch_size,
            transform=subject.normalise,
            progress=show("loss along the path", "snapshot"),
        )
        frame = pca.frame().assign(loss=losses.loss.numpy(), plane_loss=losses.plane_loss.numpy())
        for k in range(2):
            for name, shares in (("explained", pca.explained_variance_ratio), ("random_walk", pca.baseline)):
                frame[f"{name}_{k + 1}"] = float(shares[k]) if k < len(shares) else float("nan")
        return frame

    def _plane(self, subject: "Subject", pca: "TrajectoryPCA", show: Show) -> "Surface":
        """Return the loss on a grid that covers the path."""
        from landscape import surface

        loss, targets = subject.objective()
        alphas, betas = (self._axis(pca, component) for component in (0, 1))
        return surface(
            subject.model,
            loss,
            (subject.images, targets),
            pca.directions[:2],
            alphas=alphas,
            betas=betas,
            origin=pca.origin,
            batch_size=self.batch_size,
            transform=subject.normalise,
            progress=show("surface", "point"),
        )

    def _axis(self, pca: "TrajectoryPCA", component: int) -> list[float]:
        """Return coordinates along one axis: the path with a margin on both sides; the middle if there is one only."""
        import numpy as np

        lows, highs = pca.coordinates[:, :2].amin(0).tolist(), pca.coordinates[:, :2].amax(0).tolist()
        extents = [high - low for low, high in zip(lows, highs, strict=True)]
        room = self.margin * (extents[component] or max(extents) or 1.0)
        low, high = lows[component] - room, highs[component] + room
        return [(low + high) / 2] if self.points == 1 else np.linspace(low, high, self.points).tolist()


def _shares(pca: "TrajectoryPCA") -> dict[str, object]:
    """Return what the sidecar says of the components."""
    variance = pca.variance_frame()
    shares = {name: variance[name].tolist() for name in ("explained_variance_ratio", "baseline")}
    return {**shares, "explained_variance_error": pca.explained_variance_error}


def _write_arrays(plane: "Surface", path: Path) -> None:
    """Write ``alpha (A,), beta (B,), loss (A, B)``."""
    import numpy as np

    np.savez_compressed(path, alpha=plane.alphas.numpy(), beta=plane.betas.numpy(), loss=plane.loss.numpy())


def _write_gif(path: "DataFrame", ground: "DataFrame", show: Show, file: Path) -> None:
    from reports.figures.animation import trajectory_gif

    trajectory_gif(path, ground, file, progress=show("animation", "picture"))
