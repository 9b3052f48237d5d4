"""``analyze attack``: accuracy against the size of an adversarial perturbation."""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.commands.common import (
    add_subject_arguments,
    load_subjects,
    output_folder,
    parse_epsilons,
    positive_int,
    progress_bar,
)
from training.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from reports.subjects import Subject
    from robustness.attacks import Attack
    from robustness.curves import AttackCurve

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
        help="for --gradient transfer and --audit: the network whose gradient is tried on the others",
    )
    _add_parameters(group)
    _add_results(parser)
    add_subject_arguments(parser, split="test", samples=1000)


def _add_parameters(group: argparse._ArgumentGroup) -> None:
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
        help="also look for masked gradients at the middle eps; writes audit.csv (default: no)",
    )
    group.add_argument(
        "--save-examples",
        action="store_true",
        help="also store the fooling images and each image's smallest fooling eps, in examples/*.npz (default: no)",
    )


def run(args: argparse.Namespace) -> None:
    """Attack every checkpoint, write ``attack.csv`` and the figure, and print a table."""
    import pandas as pd

    from reports.figures import attack as draw
    from reports.style import save
    from reports.tables import provenance, with_subject, write_table

    attacks = make_attacks(args)
    eps = parse_epsilons(args.eps) if args.norm == "linf" else sorted(set(args.eps))
    subjects = load_subjects(args)
    surrogate = load_surrogate(args)
    folder = output_folder(args, subjects)
    frames = []
    for index, subject in enumerate(subjects):
        curves = attack_subject(args, subject, attacks, eps, surrogate)
        frames += [with_subject(curve.frame(), subject) for curve in curves]
        if args.save_examples:
            save_examples(folder / "examples", index, subject, curves)
    frame = pd.concat(frames, ignore_index=True)
    sources = subjects if surrogate is None else [*subjects, surrogate]
    settings = {"norm": args.norm, "attacks": [describe(a) for a in attacks]}
    write_table(frame, folder / "attack.csv", provenance(sources, seed=args.seed, **settings))
    save(draw(frame), folder / "attack")
    print(summary(frame))
    print(f"wrote {folder / 'attack.csv'}")


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


def load_surrogate(args: argparse.Namespace) -> "Subject | None":
    """Return the network that ``--surrogate`` names.

    Raises:
        InputError: ``--gradient transfer`` without it, or the file cannot be used.
    """
    if args.surrogate is None:
        if "transfer" in args.gradients:
            raise InputError("--gradient transfer needs --surrogate CKPT: the network whose gradient is followed")
        return None
    only = argparse.Namespace(**{**vars(args), "checkpoints": [args.surrogate]})
    return load_subjects(only)[0]


def gradient_model(subject: "Subject", mode: str, surrogate: "Subject | None") -> "nn.Module | None":
    """Return the network from pixels in [0, 1] whose gradient ``mode`` follows; None for the subject's own.

    Raises:
        InputError: ``feedback`` of a network that is no checkpoint of ours and so has none.
    """
    from torch import nn

    if mode == "feedback":
        if subject.checkpoint is None:
            raise InputError(f"{subject.name} is a plain state dict: it has no feedback path; use --gradient true")
        path = subject.checkpoint.feedback_path().to(subject.device).eval()
        return nn.Sequential(subject.normalise, path)
    return surrogate.pixel_model() if mode == "transfer" and surrogate is not None else None


def attack_subject(
    args: argparse.Namespace,
    subject: "Subject",
    attacks: "Sequence[Attack]",
    eps: Sequence[float],
    surrogate: "Subject | None",
) -> "list[AttackCurve]":
    """Return one curve for each attack and gradient mode, then each mode's worst case where it has several."""
    from robustness.curves import attack_curve, worst_case

    model, pixels_01 = subject.pixel_model(), subject.images.float() / 255
    blind = [attack for attack in attacks if not attack.needs_gradient]
    guided = [attack for attack in attacks if attack.needs_gradient]
    modes = [mode for mode in dict.fromkeys(args.gradients) if mode != "none"]
    if not (blind or (guided and modes)):
        raise InputError("--gradient none leaves no attack: add --attack square")
    curves: dict[str, list[AttackCurve]] = {}
    for mode, attack in [("none", a) for a in blind] + [(m, a) for m in modes for a in guided]:
        curve = attack_curve(
            model,
            pixels_01,
            subject.labels,
            eps,
            attack,
            gradient_model=gradient_model(subject, mode, surrogate),
            gradient=mode,
            raw=args.raw,
            batch_size=args.batch_size,
            seed=args.seed,
            keep_examples=args.save_examples,
            progress=progress_bar(args, f"{subject.name}: {attack.name}, gradient {mode}", "image"),
        )
        curves.setdefault(mode, []).append(curve)
    # What needs no gradient belongs to the worst case that is called robustness, not to a misled mode's.
    blindly = curves.pop("none", [])
    groups = [[*group, *(blindly if mode == "true" else [])] for mode, group in curves.items()] or [blindly]
    worst = [worst_case(group) for group in groups if len(group) > 1]
    return [curve for group in (blindly, *curves.values()) for curve in group] + worst


def save_examples(folder: Path, index: int, subject: "Subject", curves: "Sequence[AttackCurve]") -> None:
    """Write ``NN-ATTACK-GRADIENT.npz`` for each curve: what fooled at the smallest eps (else the original image),
    ``minimal_eps`` (inf: never fooled, 0: wrong as it is) and ``labels``."""
    import numpy as np

    from training.files import atomic_path

    for curve in curves:
        arrays: dict[str, Any] = {"minimal_eps": curve.minimal_eps.numpy(), "labels": subject.labels.cpu().numpy()}
        if curve.examples is not None:
            arrays["images"] = curve.examples.numpy()
        name = f"{index:02d}-{curve.attack}-{curve.gradient}".replace(" ", "-").replace(":", "-")
        with atomic_path(folder / f"{name}.npz") as temporary:
            np.savez_compressed(temporary, **arrays)


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
