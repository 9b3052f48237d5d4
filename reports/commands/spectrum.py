"""``analyze spectrum``: the density of all eigenvalues of the Hessian."""

import argparse
from typing import TYPE_CHECKING

from reports.commands.common import (
    add_subject_arguments,
    load_subjects,
    output_folder,
    positive_float,
    positive_int,
    progress_bar,
)
from reports.commands.curvature import add_curvature_arguments, make_operator, peak_memory, writes_results

if TYPE_CHECKING:
    import pandas as pd

    from landscape import SpectralDensity
    from reports.subjects import Subject

HELP = "spectral density of the Hessian by stochastic Lanczos quadrature"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    group = parser.add_argument_group("quadrature")
    group.add_argument("--steps", type=positive_int, metavar="M", help="Hessian-vector products a probe (default: 100)")
    group.add_argument("--probes", type=positive_int, metavar="N", help="random directions (default: 3)")
    group.add_argument(
        "--accuracy",
        type=positive_float,
        metavar="T",
        help="choose steps and probes so that the Wasserstein-1 error is at most T times the range of the spectrum, "
        "with probability 0.95 (12/T steps; default: as --steps and --probes say)",
    )
    add_curvature_arguments(parser)
    add_subject_arguments(parser, split="train", batch_size=None)


def run(args: argparse.Namespace) -> None:
    """Estimate the density of every checkpoint, write ``spectrum.csv`` and the figure, and print a table."""
    import pandas as pd

    from landscape.distributed import leave
    from reports.figures import spectrum as draw
    from reports.style import save
    from reports.tables import provenance, render, with_subject, write_table

    writes = writes_results(args)
    subjects = load_subjects(args)
    folder = output_folder(args, subjects)
    found = [estimate(args, subject) for subject in subjects]
    leave()
    if not writes:
        return
    frame = pd.concat(
        [with_subject(density.frame(), subject) for density, subject in zip(found, subjects, strict=True)],
        ignore_index=True,
    )
    settings = {"params": args.params, "hessian": args.hessian, "products": [d.n_products for d in found]}
    write_table(frame, folder / "spectrum.csv", provenance(subjects, seed=args.seed, **settings))
    save(draw(frame), folder / "spectrum")
    print(render(summary(found, subjects)))
    print(f"wrote {folder / 'spectrum.csv'}; {peak_memory(subjects[0])}")


def estimate(args: argparse.Namespace, subject: "Subject") -> "SpectralDensity":
    """Return the density of one checkpoint's Hessian."""
    from landscape import slq_budget, slq_density

    operator = make_operator(args, subject)
    steps, probes = (100, 3) if args.accuracy is None else slq_budget(operator.dim, error=args.accuracy)
    return slq_density(
        operator,
        steps=args.steps or steps,
        probes=args.probes or probes,
        seed=args.seed,
        progress=progress_bar(args, f"{subject.name}: spectrum", "product"),
    )


def summary(found: "list[SpectralDensity]", subjects: "list[Subject]") -> "pd.DataFrame":
    """Return one row a checkpoint: the range, and the share of eigenvalues that are clearly negative.

    Clearly: below minus one width of the smoothing Gaussian, 1 % of the range.
    """
    import pandas as pd

    rows = []
    for density, subject in zip(found, subjects, strict=True):
        below, zero = density.share_below(-density.width), density.mass_at_zero()
        rows.append(
            {
                "checkpoint": subject.name,
                "parameters": density.dim,
                "smallest": float(density.nodes.min()),
                "largest": float(density.nodes.max()),
                "width": density.width,
                "share < -width": below.value,
                "ci_low": below.ci_low,
                "ci_high": below.ci_high,
                "share = 0": zero.value,
                "at most": zero.ci_high,
                "n_hvp": density.n_products,
            }
        )
    return pd.DataFrame(rows)
