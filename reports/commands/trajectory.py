"""``analyze trajectory``: the path of training in its principal plane, over the loss there."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignscape.errors import InputError
from reports.commands.common import (
    add_subject_arguments,
    load_subjects,
    output_folder,
    positive_float,
    positive_int,
    progress_bar,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from torch import Tensor

    from alignscape.sketch import Sketch
    from landscape.snapshots import Snapshots
    from landscape.surfaces import Surface
    from landscape.trajectory import TrajectoryPCA
    from reports.subjects import Subject

HELP = "PCA of the weight trajectory of one run, or of several in one plane, over the loss surface"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    group = parser.add_argument_group("plane and grid")
    group.add_argument(
        "--origin",
        choices=("final", "mean"),
        default="final",
        help="final: the plane that fits the path best among those through the final weights (of the first run); mean: "
        "ordinary PCA about the mean of all snapshots (default: final)",
    )
    group.add_argument(
        "--every",
        type=positive_int,
        default=1,
        metavar="K",
        help="use every K-th snapshot, counted from the last (default: 1)",
    )
    group.add_argument(
        "--points", type=positive_int, default=21, metavar="N", help="grid points along each axis (default: 21)"
    )
    group.add_argument(
        "--margin",
        type=positive_float,
        default=0.25,
        metavar="M",
        help="how far the grid reaches beyond the path, relative to its extent (default: 0.25)",
    )
    group.add_argument(
        "--memory",
        type=positive_float,
        default=0.25,
        metavar="GB",
        help="memory for the block of weights in work; less is slower, never different (default: 0.25)",
    )
    group.add_argument(
        "--directions",
        choices=("auto", "sketch", "snapshots"),
        default="auto",
        help="sketch: of the weights after every step (train with --snapshot-sketch); snapshots: of those kept; auto: "
        "the sketch where every run has one (default: auto)",
    )
    group.add_argument("--gif", action="store_true", help="also write trajectory.gif, which replays training")
    add_subject_arguments(parser, split="train", samples=10_000, batch_size=None)


def run(args: argparse.Namespace) -> None:
    """Write ``trajectory.csv``, ``surface.npz``, figure and animation; print what the plane explains."""
    from landscape.snapshots import Snapshots
    from landscape.trajectory import trajectory_pca
    from reports.commands.curvature import peak_memory
    from reports.figures import trajectory as draw
    from reports.figures.animation import trajectory_gif
    from reports.style import save
    from reports.tables import provenance, render, write_table

    for path in args.checkpoints:
        if path.is_file():
            raise InputError(f"{path} is a file: a trajectory belongs to a run, give its folder")
    kept = {os.fspath(path): Snapshots.of_run(path, every=args.every) for path in args.checkpoints}
    subjects = load_subjects(args)
    args.checkpoints = [Path(subject.name) for subject in subjects]  # without those that have diverged
    runs = [kept[subject.name] for subject in subjects]
    folder = output_folder(args, subjects)
    pca = trajectory_pca(
        runs,
        origin=args.origin,
        sketches=read_sketches(args),
        memory=int(args.memory * 1e9),
        progress=progress_bar(args, "principal components", "weight"),
    )
    frame = path_frame(args, subjects, runs, pca)
    plane = plane_surface(args, subjects[0], pca)
    variance = pca.variance_frame()
    shares = {name: variance[name].tolist() for name in ("explained_variance_ratio", "baseline")}
    settings = {"origin": args.origin, "every": args.every, "snapshots": len(frame), **shares}
    settings["explained_variance_error"] = pca.explained_variance_error
    write_table(frame, folder / "trajectory.csv", provenance(subjects, seed=args.seed, **settings))
    write_surface(folder / "surface.npz", plane)
    name = subjects[0].name if len(subjects) == 1 else "common plane"
    ground = plane.frame().assign(checkpoint=name)
    save(draw(frame, ground), folder / "trajectory")
    if args.gif:
        trajectory_gif(frame, ground, folder / "trajectory.gif", progress=progress_bar(args, "animation", "picture"))
    print(render(variance.head(5)))
    print(f"wrote {folder / 'trajectory.csv'}; {peak_memory(subjects[0])}")


def read_sketches(args: argparse.Namespace) -> "list[Sketch] | None":
    """Return the sketch of each run, or None where the directions are the snapshots'."""
    from alignscape.sketch import load_sketch

    some_without = any(not (path / "sketch.npz").is_file() for path in args.checkpoints)
    if args.directions == "snapshots" or (args.directions == "auto" and some_without):
        return None
    return [load_sketch(path) for path in args.checkpoints]


def path_frame(
    args: argparse.Namespace, subjects: "Sequence[Subject]", runs: "Sequence[Snapshots]", pca: "TrajectoryPCA"
) -> "pd.DataFrame":
    """Return one row per snapshot: ``checkpoint, step, alpha, beta, distance, off_plane, loss, plane_loss``, the
    variance that the axes explain and what a random walk would, and the columns that identify a run."""
    import pandas as pd
    import torch

    from landscape.path import path_losses
    from reports.tables import with_subject

    subject = subjects[0]
    losses = path_losses(
        subject.model,
        torch.nn.CrossEntropyLoss(),
        (subject.images, subject.labels),
        runs,
        pca,
        batch_size=args.batch_size,
        transform=subject.normalise,
        progress=progress_bar(args, "loss along the path", "snapshot"),
    )
    frame = pca.frame().assign(loss=losses.loss.numpy(), plane_loss=losses.plane_loss.numpy())
    for k in range(2):
        shares = [
            share[k] if k < len(share) else float("nan") for share in (pca.explained_variance_ratio, pca.baseline)
        ]
        frame[f"explained_{k + 1}"], frame[f"random_walk_{k + 1}"] = map(float, shares)
    parts = [
        with_subject(frame[frame["run"] == index].drop(columns="run"), of_run) for index, of_run in enumerate(subjects)
    ]
    return pd.concat(parts, ignore_index=True).drop(columns="epoch", errors="ignore")


def plane_surface(args: argparse.Namespace, subject: "Subject", pca: "TrajectoryPCA") -> "Surface":
    """Return the loss on a grid that covers the path."""
    import torch

    from landscape.surfaces import surface

    low, high = pca.coordinates[:, :2].amin(0), pca.coordinates[:, :2].amax(0)
    room = args.margin * (high - low)
    room = torch.where(room > 0, room, args.margin * (high - low).max())
    axes = [axis(float(a), float(b), args.points) for a, b in zip(low - room, high + room, strict=True)]
    return surface(
        subject.model,
        torch.nn.CrossEntropyLoss(),
        (subject.images, subject.labels),
        pca.directions[:2],
        alphas=axes[0],
        betas=axes[1],
        origin=pca.origin,
        batch_size=args.batch_size,
        transform=subject.normalise,
        progress=progress_bar(args, "surface", "point"),
    )


def axis(low: float, high: float, points: int) -> "Tensor":
    """Return ``points`` coordinates from ``low`` to ``high``; the middle if there is one only."""
    import torch

    if points == 1:
        return torch.tensor([(low + high) / 2], dtype=torch.float64)
    return torch.linspace(low, high, points, dtype=torch.float64)


def write_surface(path: Any, plane: "Surface") -> None:
    """Write ``alpha (A,), beta (B,), loss (A, B)``."""
    import numpy as np

    from alignscape.files import atomic_path

    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, alpha=plane.alphas.numpy(), beta=plane.betas.numpy(), loss=plane.loss.numpy())
