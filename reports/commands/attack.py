"""``analyze attack``: accuracy against the size of an adversarial perturbation."""

import argparse
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignscape.errors import InputError
from reports.commands.common import (
    add_subject_arguments,
    load_subjects,
    output_folder,
    parse_epsilons,
    positive_int,
    progress_bar,
)

if TYPE_CHECKING:
    import pandas as pd

    from reports.attacked import AttackPlan
    from reports.subjects import Subject
    from robustness.attacks import Attack
    from robustness.masking import Audit

HELP = "accuracy against epsilon under adversarial attacks, and whether to believe it"
PAPER_EPS = [round(0.005 * k, 3) for k in range(11)]
GRADIENT_HELP = (
    "whose gradient the attack follows: true, the network's own (the only one that measures robustness); feedback, "
    "what the learning rule's backward path sends to the pixels; transfer, that of --surrogate; none, only attacks "
    "that use no gradient (square). Several give one curve each (default: true)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    group = parser.add_argument_group("attack")
    group.add_argument(
        "--attack",
        dest="attacks",
        nargs="+",
        default=["fgsm", "pgd"],
        metavar="NAME",
        help="fgsm, bim, pgd, square (gradient-free), or torchattacks:NAME for any attack of that package "
        "(default: fgsm pgd)",
    )
    group.add_argument(
        "--eps",
        nargs="+",
        type=pixels,
        default=PAPER_EPS,
        metavar="E",
        help="radii in pixel units of [0, 1] images; fractions such as 8/255 are read (default: 0 .005 ... .05)",
    )
    group.add_argument("--norm", choices=("linf", "l2"), default="linf", help="norm of the ball (default: linf)")
    group.add_argument(
        "--gradient",
        dest="gradients",
        nargs="+",
        choices=("true", "feedback", "transfer", "none"),
        default=["true"],
        help=GRADIENT_HELP,
    )
    group.add_argument(
        "--surrogate",
        type=Path,
        metavar="CKPT",
        help="for --gradient transfer and --audit: the network whose gradient is tried on the others (default: none)",
    )
    add_attack_parameters(group)
    _add_results(parser)
    add_subject_arguments(parser, split="test", samples=1000)


def add_attack_parameters(group: argparse._ArgumentGroup) -> None:
    """Add the parameters of the attacks: ``--steps --step-size --restarts --queries --loss``."""
    group.add_argument(
        "--steps", type=positive_int, metavar="N", help="steps of bim, pgd and torchattacks' (default: 10; theirs)"
    )
    group.add_argument(
        "--step-size",
        type=pixels,
        metavar="A",
        help="bim, pgd: step in pixel units at every eps (default: eps / steps for bim, 2.5 eps / steps for pgd)",
    )
    group.add_argument(
        "--restarts", type=positive_int, default=1, metavar="N", help="pgd, square: random starts (default: 1)"
    )
    group.add_argument(
        "--queries",
        type=positive_int,
        default=1000,
        metavar="N",
        help="square: forward passes an image (default: 1000)",
    )
    group.add_argument(
        "--loss",
        choices=("ce", "dlr", "ce-saturating"),
        default="ce",
        help="what fgsm, bim and pgd climb: ce, the cross-entropy as log-odds, which do not saturate; dlr, the scale-"
        "free margin of AutoAttack; ce-saturating, the cross-entropy as other tools compute it (default: ce)",
    )


def _add_results(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("results")
    group.add_argument(
        "--raw",
        action="store_true",
        help="curves of last iterates, each eps by itself, which may rise, as other tools draw them (default: nested "
        "curves: is there a fooling image within eps?)",
    )
    group.add_argument(
        "--audit",
        action="store_true",
        help="also look for masked gradients, in a dozen checks of PGD with each gradient that is asked for; writes "
        "audit.csv (default: no)",
    )
    group.add_argument(
        "--audit-eps",
        type=pixels,
        metavar="E",
        help="eps of the audit, pixel units (default: the median of --eps above 0)",
    )
    group.add_argument(
        "--save-examples",
        action="store_true",
        help="also store the fooling images and each image's smallest fooling eps, in examples/*.npz (default: no)",
    )


def run(args: argparse.Namespace) -> None:
    """Attack every checkpoint, write ``attack.csv`` and the figure, and print a table."""
    import pandas as pd

    from reports.attacked import attack_subject, audit_subject, save_examples
    from reports.figures import attack as draw
    from reports.style import save
    from reports.tables import provenance, with_subject, write_table

    plan, subjects = make_plan(args)
    folder = output_folder(args, subjects)
    show = functools.partial(progress_bar, args)
    settings = {"norm": args.norm, "loss": args.loss, "steps": args.steps or 10}
    audits = [
        (subject, audit_subject(plan, subject, eps=args.audit_eps, show=show, **settings))
        for subject in subjects
        if args.audit
    ]
    frames = []
    for index, subject in enumerate(subjects):
        curves = attack_subject(plan, subject, show)
        frames += [with_subject(curve.frame(), subject) for curve in curves]
        if args.save_examples:
            save_examples(folder / "examples", index, subject, curves)
    frame = pd.concat(frames, ignore_index=True)
    sources = subjects if plan.surrogate is None else [*subjects, plan.surrogate]
    attacks = [describe(attack) for attack in plan.attacks]
    write_table(frame, folder / "attack.csv", provenance(sources, seed=args.seed, norm=args.norm, attacks=attacks))
    save(draw(frame), folder / "attack")
    print(summary(frame))
    if args.audit:
        checks = pd.concat([with_subject(result.frame(), s) for s, results in audits for result in results])
        write_table(checks, folder / "audit.csv", provenance(sources, seed=args.seed, **settings))
        print(f"\n{audit_summary(audits)}\n\nwrote {folder / 'audit.csv'}")
    print(f"wrote {folder / 'attack.csv'}")


def make_plan(args: argparse.Namespace) -> "tuple[AttackPlan, list[Subject]]":
    """Return what the flags ask for, and the networks to do it to.

    Raises:
        InputError: whatever is wrong with the flags, the cheap checks first.
    """
    from reports.attacked import AttackPlan

    attacks = make_attacks(args)
    eps = parse_epsilons(args.eps) if args.norm == "linf" else sorted(set(args.eps))
    if args.audit_eps is not None and args.norm == "linf":
        parse_epsilons([args.audit_eps])
    subjects = load_subjects(args)
    surrogate = None
    if args.surrogate is not None:
        surrogate = load_subjects(argparse.Namespace(**{**vars(args), "checkpoints": [args.surrogate]}))[0]
    plan = AttackPlan(
        attacks=attacks,
        eps=eps,
        modes=[mode for mode in dict.fromkeys(args.gradients) if mode != "none"],
        surrogate=surrogate,
        raw=args.raw,
        batch_size=args.batch_size,
        seed=args.seed,
        keep_examples=args.save_examples,
    )
    return plan, subjects


def make_attacks(args: argparse.Namespace) -> "list[Attack]":
    """Return the attacks that the flags describe.

    Raises:
        InputError: an unknown attack, or parameters that it cannot have.
    """
    from robustness.attacks import bim, fgsm, pgd
    from robustness.external import TorchattacksAttack
    from robustness.square import SquareAttack

    common = {"loss": args.loss, "norm": args.norm}
    iterated = {"steps": args.steps or 10, "step_size": args.step_size, **common}
    makers: dict[str, Callable[[], Attack]] = {
        "fgsm": lambda: fgsm(**common),
        "bim": lambda: bim(**iterated),
        "pgd": lambda: pgd(restarts=args.restarts, **iterated),
        "square": lambda: SquareAttack(queries=args.queries, restarts=args.restarts),
    }
    attacks: list[Attack] = []
    for name in dict.fromkeys(args.attacks):
        if name.startswith("torchattacks:"):
            theirs = name.removeprefix("torchattacks:")
            attacks.append(TorchattacksAttack(attack=theirs, norm=args.norm, iterations=args.steps))
        elif name not in makers:
            raise InputError(f"unknown attack {name!r}; known: {', '.join(makers)}, torchattacks:NAME")
        elif name == "square" and args.norm != "linf":
            raise InputError("square searches the linf ball only; leave it out or use --norm linf")
        else:
            attacks.append(makers[name]())
    return attacks


def audit_summary(audits: "Sequence[tuple[Subject, list[Audit]]]") -> str:
    """Return each audit as one line a check, its number, and a line that sums up."""
    blocks = []
    for subject, results in audits:
        for result in results:
            rows = [f"  {line.verdict:8s} {line.check}: {line.message}" for line in result.lines]
            blocks.append(
                "\n".join([f"{subject.name}: audit of the gradient {result.gradient}", *rows, result.summary])
            )
    return "\n\n".join(blocks)


def describe(attack: "Attack") -> dict[str, Any]:
    """Return an attack's parameters as JSON."""
    import dataclasses

    fields: dict[str, Any] = dataclasses.asdict(attack)  # type: ignore[call-overload]
    return {"name": attack.name, **fields}


def summary(frame: "pd.DataFrame") -> str:
    """Return one line a curve, one column an eps, accuracies in percent."""
    from reports.tables import render

    percent = frame.assign(accuracy=(100 * frame.accuracy).round(1), eps=frame.eps.map("eps {:g}".format))
    keys = ["checkpoint", "attack", "gradient"]
    wide = percent.pivot_table(index=keys, columns="eps", values="accuracy", sort=False)
    return render(wide.reset_index())


def pixels(text: str) -> float:
    """Parse a number of pixel units, or a fraction such as ``8/255``."""
    top, slash, bottom = text.partition("/")
    value = float(top) / (float(bottom) or math.nan) if slash else float(top)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value
