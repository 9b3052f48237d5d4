"""``analyze compare``: several networks in one table, with differences and tests."""

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING

from alignscape.errors import InputError
from reports.commands.attack import add_attack_parameters, make_attacks, pixels
from reports.commands.common import (
    add_subject_arguments,
    load_subjects,
    output_folder,
    parse_epsilons,
    progress_bar,
)

if TYPE_CHECKING:
    from reports.attacked import AttackPlan

HELP = "several networks against the first: differences with paired tests, and rules with rank-sum tests over seeds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    group = parser.add_argument_group("what is compared (accuracy always is)")
    group.add_argument(
        "--attack",
        dest="attacks",
        nargs="+",
        default=[],
        metavar="NAME",
        help="also accuracy under these attacks with the true gradient: fgsm, bim, pgd, square, torchattacks:NAME "
        "(default: none)",
    )
    group.add_argument(
        "--eps", nargs="+", type=pixels, default=[0.03], metavar="E", help="their radii, pixel units (default: 0.03)"
    )
    group.add_argument("--norm", choices=("linf", "l2"), default="linf", help="norm of the ball (default: linf)")
    add_attack_parameters(group)
    group.add_argument(
        "--tables",
        nargs="+",
        type=Path,
        default=[],
        metavar="CSV",
        help="also the numbers in these tables of other commands, for the same checkpoints: hessian.csv, attack.csv, "
        "corruptions.csv; of a table by epochs a run's last (default: none)",
    )
    add_subject_arguments(parser, split="test")


def run(args: argparse.Namespace) -> None:
    """Compare every checkpoint with the first and every rule with the first's rule; write ``compare.csv``."""
    import pandas as pd

    from alignscape.files import sha256_file
    from reports import compared
    from reports.tables import provenance, render, write_table

    if len(args.checkpoints) < 2:
        raise InputError("compare needs at least two checkpoints; the first is the baseline")
    plan = make_plan(args)
    subjects = load_subjects(args)
    if subjects[0].name != str(args.checkpoints[0]):
        raise InputError(f"{args.checkpoints[0]} has diverged: give another network first, as the baseline")
    if len(subjects) < 2:
        raise InputError("every network but the baseline has diverged: there is nothing to compare")
    compared.check_same_images(subjects)
    names = [subject.name for subject in subjects]
    tables = [compared.read_values(path, subjects) for path in args.tables]
    results = {s.name: compared.outcomes(plan, s, functools.partial(progress_bar, args)) for s in subjects}
    measured = pd.DataFrame(
        [
            {
                "checkpoint": s.name,
                "group": compared.group_label(s.columns),
                "quantity": quantity,
                "value": right.mean(),
            }
            for s in subjects
            for quantity, right in results[s.name].items()
        ]
    )
    values = pd.concat([measured, *tables], ignore_index=True)
    rows = [
        *compared.paired_rows(results, names[0], args.seed),
        *[row for table in tables for row in compared.value_rows(table, names[0])],
        *compared.seed_rows(values, compared.group_label(subjects[0].columns)),
    ]
    frame = compared.comparison_frame(rows)
    path = output_folder(args, subjects) / "compare.csv"
    digests = {str(table): sha256_file(table) for table in args.tables}
    write_table(frame, path, provenance(subjects, seed=args.seed, tables=digests))
    print(render(frame.drop(columns=["n_first", "n_second"]), digits=3))
    print(f"wrote {path}")


def make_plan(args: argparse.Namespace) -> "AttackPlan | None":
    """Return the attacks that the flags describe, None if there are none."""
    from reports.attacked import AttackPlan

    if not args.attacks:
        return None
    return AttackPlan(
        attacks=make_attacks(args),
        eps=parse_epsilons(args.eps) if args.norm == "linf" else sorted(set(args.eps)),
        modes=["true"],
        batch_size=args.batch_size,
        seed=args.seed,
    )
