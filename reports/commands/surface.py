"""``analyze surface``: the loss over a plane through the weights."""

import argparse
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
    from torch import Tensor

    from landscape.surfaces import Surface
    from reports.subjects import Subject

HELP = "loss over the plane of the top two Hessian eigenvectors, or a random one"
EXTENT = {"eigenvectors": 0.5, "random": 1.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    group = parser.add_argument_group("plane and grid")
    group.add_argument(
        "--plane",
        choices=tuple(EXTENT),
        default="eigenvectors",
        help="eigenvectors: of the two largest Hessian eigenvalues; random: two filter-normalised directions drawn by "
        "--seed (default: eigenvectors)",
    )
    group.add_argument(
        "--extent",
        nargs="+",
        type=positive_float,
        metavar="E",
        help="the grid reaches from -E to E along both axes, or one E for each: weight-space distance for eigenvectors "
        "(default: 0.5), multiples of the filters' norms for random directions (default: 1)",
    )
    group.add_argument(
        "--points",
        nargs="+",
        type=positive_int,
        default=[21],
        metavar="N",
        help="grid points along each axis, or one N for each (default: 21)",
    )
    group.add_argument(
        "--params",
        nargs="+",
        metavar="GLOB",
        help="parameters that move, by name, such as 'layers.2.*' (default: all)",
    )
    group.add_argument(
        "--tol",
        type=positive_float,
        default=1e-4,
        metavar="R",
        help="eigenvectors: residual |Hv - lambda v| to reach, relative to the largest |lambda| (default: 1e-4)",
    )
    add_subject_arguments(parser, split="train", samples=10_000, batch_size=None)


def run(args: argparse.Namespace) -> None:
    """Evaluate every checkpoint's surface, write ``surface.csv`` and the figures, and print the check of the centre."""
    import pandas as pd

    from reports.commands.curvature import peak_memory
    from reports.figures import surface as draw
    from reports.figures import surface_3d as draw_3d
    from reports.style import save
    from reports.tables import provenance, render, with_subject, write_table

    axes = grid(args)
    subjects = load_subjects(args)
    folder = output_folder(args, subjects)
    frames, checks = [], []
    for subject in subjects:
        result, check = evaluate(args, subject, *axes)
        frames.append(with_subject(result.frame(), subject))
        checks.append({"checkpoint": subject.name, **check})
    frame = pd.concat(frames, ignore_index=True)
    settings = {"plane": args.plane, "params": args.params, "checks": checks}
    write_table(frame, folder / "surface.csv", provenance(subjects, seed=args.seed, **settings))
    save(draw(frame), folder / "surface")
    save(draw_3d(frame), folder / "surface-3d")
    print(render(pd.DataFrame(checks)))
    print(f"wrote {folder / 'surface.csv'}; {peak_memory(subjects[0])}")


def grid(args: argparse.Namespace) -> "tuple[Tensor, Tensor]":
    """Return the coordinates of both axes.

    Raises:
        InputError: more than two extents or numbers of points.
    """
    import torch

    extents = args.extent or [EXTENT[args.plane]]
    for flag, values in (("--extent", extents), ("--points", args.points)):
        if len(values) > 2:
            raise InputError(f"{flag} takes one value or one for each of the two axes, not {len(values)}")
    pairs = zip((extents * 2)[:2], (args.points * 2)[:2], strict=True)
    alpha, beta = (
        torch.zeros(1, dtype=torch.float64) if n == 1 else torch.linspace(-extent, extent, n, dtype=torch.float64)
        for extent, n in pairs
    )
    return alpha, beta


def evaluate(
    args: argparse.Namespace, subject: "Subject", alphas: "Tensor", betas: "Tensor"
) -> "tuple[Surface, dict[str, Any]]":
    """Return the surface of one checkpoint, and the numbers that check its centre."""
    import torch

    from landscape.directions import filter_normalised_directions
    from landscape.lanczos import top_eigenpairs
    from landscape.surfaces import surface

    loss, data = torch.nn.CrossEntropyLoss(), (subject.images, subject.labels)
    eigenvalues = residuals = None
    if args.plane == "eigenvectors":
        pairs = top_eigenpairs(
            subject.model,
            loss,
            data,
            k=2,
            tol=args.tol,
            seed=args.seed,
            params=args.params,
            batch_size=args.batch_size,
            transform=subject.normalise,
            progress=progress_bar(args, f"{subject.name}: eigenvectors", "pair"),
        )
        directions, eigenvalues, residuals = pairs.vectors, pairs.values, pairs.residuals  # noqa: PD011
    else:
        directions = filter_normalised_directions(subject.model, seed=args.seed, params=args.params)
    result = surface(
        subject.model,
        loss,
        data,
        directions,
        alphas=alphas,
        betas=betas,
        eigenvalues=eigenvalues,
        params=args.params,
        batch_size=args.batch_size,
        transform=subject.normalise,  # batch by batch: the samples stay bytes
        progress=progress_bar(args, f"{subject.name}: surface", "point"),
    )
    check: dict[str, Any] = {"loss": result.centre_loss}
    for k in range(2):
        if eigenvalues is not None and residuals is not None:
            check[f"eigenvalue_{k + 1}"] = float(eigenvalues[k])
            check[f"residual_{k + 1}"] = float(residuals[k])
        check[f"hessian_{k + 1}"] = float(result.hessian[k, k])
        check[f"curvature_{k + 1}"] = float(result.curvature[k])
        check[f"error_{k + 1}"] = float(result.curvature_error[k])
    return result, {name: value if value == value else None for name, value in check.items()}
