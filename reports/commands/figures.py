"""``analyze figures``: every figure and table of a paper, training and analysing what is missing."""

import argparse
import os
import pkgutil
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from reports.commands.common import (
    add_data_root_argument,
    add_executor_arguments,
    add_run_arguments,
    add_store_argument,
    one_thread,
    progress_bar,
)

if TYPE_CHECKING:
    from reports.paper.numbers import Numbers
    from reports.paper.reproduction import Made, Plan
    from training.store.run_store import RunStore

HELP = "regenerate the papers' figures and tables, computing what is missing"
PAPER_NAMES = ("ifa", "pfa")
PROFILE_NAMES = ("smoke", "small", "paper")
LISTED = 30  # missing jobs that a dry run names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    text = "make these only, such as fig5 figS10 tableS1 claims pfa-mnist, of any paper; --dry-run lists the names "
    text += "(default: all of --paper)"
    parser.add_argument("--only", nargs="+", metavar="NAME", help=text)
    text = "ifa: soft alignment, arXiv 2505.20892; pfa: product feedback alignment, arXiv 2405.20594 (default: ifa, or "
    text += "whichever has the names of --only)"
    parser.add_argument("--paper", choices=PAPER_NAMES, help=text)
    text = "how much to compute. smoke: digits, minutes on a CPU; small: MNIST and CIFAR-10, few seeds and epochs; "
    text += "paper: as published, meant for a GPU (default: smoke)"
    parser.add_argument("--profile", choices=PROFILE_NAMES, default="smoke", help=text)
    text = "change numbers of the profile, such as epochs=5 angles=0,30,60, in each paper asked for that has them; "
    text += "--dry-run lists them all (default: none)"
    parser.add_argument("--set", dest="settings", nargs="+", default=[], metavar="NAME=VALUE", help=text)
    text = "only say what would be trained and analysed, and what is there already (default: no)"
    parser.add_argument("--dry-run", action="store_true", help=text)
    text = "also write each table of up to 400 rows as NAME.tex, as wide as a page (default: no)"
    parser.add_argument("--latex", action="store_true", help=text)
    text = "replace figures and tables of another profile or other numbers, and LaTeX that was edited (default: no)"
    parser.add_argument("--force", action="store_true", help=text)
    add_store_argument(parser)
    add_data_root_argument(parser)
    add_executor_arguments(parser.add_argument_group("where to compute"))
    add_run_arguments(parser, out_help="folder of the figures and tables (default: figures/PROFILE)")


def run(args: argparse.Namespace) -> None:
    """Make the targets.

    Raises:
        SystemExit: status 1 when one of them could not be made, 2 when a damaged file in the store is why.
    """
    from reports.commands.report import check_page
    from reports.commands.sweeps import refuse_idle_ray_flags
    from reports.paper.papers import chosen, profiles_of
    from reports.paper.reproduction import check_replaceable, plan, regenerate
    from training.store.run_store import RunStore

    refuse_idle_ray_flags(args)
    started = time.monotonic()
    targets = chosen(args.only, args.paper)
    profiles = profiles_of(list(targets), args.profile, args.settings)
    store = RunStore(args.store)
    out: Path = args.out or Path("figures") / args.profile
    root = args.data_root or Path(os.environ.get("ALIGNSCAPE_DATA", "data"))
    plans = [one for paper, of in targets.items() for one in plan(of, profiles[paper], root, store, out)]
    if args.dry_run:
        show_plan(plans, profiles, store)
        return
    if not args.force:
        check_replaceable(plans, out)
        if any(one.state == "to make" for one in plans):
            check_page(out)
    progress, record = progress_bar(args, "figures", "job"), {"command": shlex.join(["analyze", *sys.argv[1:]])}
    where = {name: getattr(args, name) for name in ("executor", "ray_address", "workers", "device")}
    small = args.executor == "serial" and any(one.state == "to make" for one in plans)
    small = small and all(profile.dataset == "digits" for profile in profiles.values())
    with one_thread() if small else nullcontext():
        made, summary = regenerate(plans, store, out, record=record, progress=progress, **where)
    if any(one.state == "made" for one in made):
        from reports.page.html import write_page

        write_page(out)
    if args.latex and out.is_dir():
        from reports.page.latex import write_stale

        write_stale(out, force=args.force)
    show_made(made, args.quiet)
    print(f"{summary}; {time.monotonic() - started:.1f} s; {out}")
    if any(one.state in ("failed", "skipped") for one in made):
        raise SystemExit(2 if any(one.damaged for one in made) else 1)


def show_plan(plans: "Sequence[Plan]", profiles: "Mapping[str, Numbers]", store: "RunStore") -> None:
    """Print what each target needs and what of it is there, and the numbers of the profiles."""
    from reports.paper.papers import PAPERS
    from reports.paper.reproduction import count, distinct_jobs
    from reports.tables import wrapped
    from training.store.jobs import names_of

    every = {key: (job, job.is_done(store)) for key, job in distinct_jobs(plans, store).items()}
    for profile in profiles.values():
        numbers = " ".join(f"{k}={_setting(v)}" for k, v in profile.to_dict().items())
        print(wrapped(f"profile {profile.name}: {numbers}", "  "))
    print(f"\n{'':13}{'runs':>24}{'analyses':>24}\n{'target':13}" + f"{'needed':>8}{'present':>8}{'missing':>8}" * 2)
    for one in plans:
        cells = "".join(f"{number:8d}" for number in count(every[key] for key in distinct_jobs([one], store)))
        state = ": ".join(part for part in (one.state, one.problem or one.left_out) if part)
        print(f"{one.target.name:13}{cells}  {state}")
    print(f"{'together':13}" + "".join(f"{number:8d}" for number in count(every.values())))
    shown = {one.target.name for one in plans}
    for name, profile in profiles.items():
        if PAPERS[name].claims in shown:
            print(f"\n{wrapped(_decidable(name, profile), '  ')}")
    for name, paper in PAPERS.items():
        if name not in profiles:
            print("\n" + wrapped(f"of another paper (--paper {name}): {', '.join(paper.targets)}", "  "))
    names = names_of(job for job, _ in every.values())
    if missing := [f"  {job.called(names)}" for job, there in every.values() if not there]:
        more = [f"  and {len(missing) - LISTED} more"] if len(missing) > LISTED else []
        print("\nmissing:", *missing[:LISTED], *more, sep="\n")


def _decidable(paper: str, profile: "Numbers") -> str:
    """Say which claims of a paper the seeds can decide."""
    from reports.paper.papers import PAPERS
    from reports.paper.verdicts import seeds_needed

    told = pkgutil.resolve_name(PAPERS[paper].beforehand)(profile.to_dict())
    count, left = int(told["can_be_decided"].sum()), told.loc[~told["can_be_decided"], "claim"].tolist()
    text = f"{PAPERS[paper].claims}: these seeds can decide {count} of {len(told)}; to decide all of them takes "
    text += f"{seeds_needed(len(told))} seeds of every network"
    return text + "".join(f"\n  cannot be decided: {words}" for words in left[:LISTED] if count)


def _setting(value: object) -> str:
    if value is None:
        return "all"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def show_made(made: "Sequence[Made]", quiet: bool) -> None:
    """Print a line for each target: what became of it, and the computing behind it."""
    for one in made:
        if one.state in ("failed", "skipped"):
            print(f"{one.name:13}{one.state}: {one.reason}", file=sys.stderr)
        elif not quiet:
            took = f"  ({one.seconds:.0f} s of computing behind it)" if one.state == "made" else ""
            print(f"{one.name:13}{one.state}{took}{'; ' if one.reason else ''}{one.reason}")
