"""Attacks on a subject: which network's gradient each mode follows, and what is kept of it."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from alignscape.errors import InputError
from alignscape.files import atomic_path
from reports.subjects import Subject
from robustness.attacks import Attack
from robustness.curves import AttackCurve, Progress, attack_curve, worst_case
from robustness.masking import Audit, audit

Show = Callable[[str, str], Progress | None]  # (what, unit) -> progress(done, total)


@dataclass(frozen=True, kw_only=True)
class AttackPlan:
    """What is done to every subject.

    Attributes:
        attacks: the attacks, each with its parameters.
        eps: radii in pixel units.
        modes: gradient modes that attacks with a gradient follow: ``true``, ``feedback``, ``transfer``.
        surrogate: the network of the mode ``transfer``, also tried by an audit; None without.
        raw: last-iterate curves instead of nested ones.
        batch_size, seed: of all.
        keep_examples: whether curves hold their fooling images.

    Raises:
        InputError: nothing is left to do, or ``transfer`` has no surrogate.
    """

    attacks: Sequence[Attack]
    eps: Sequence[float]
    modes: Sequence[str]
    surrogate: Subject | None = None
    raw: bool = False
    batch_size: int = 1000
    seed: int = 0
    keep_examples: bool = False

    def __post_init__(self) -> None:
        if not self.modes and all(attack.needs_gradient for attack in self.attacks):
            raise InputError("--gradient none leaves no attack: add --attack square")
        if "transfer" in self.modes and self.surrogate is None:
            raise InputError("--gradient transfer needs --surrogate CKPT: the network whose gradient is followed")


def gradient_model(subject: Subject, mode: str, surrogate: Subject | None) -> nn.Module | None:
    """Return the network from pixels in [0, 1] whose gradient ``mode`` follows; None for the subject's own.

    Raises:
        InputError: ``feedback`` of a network that is no checkpoint of ours and so has none.
    """
    if mode == "feedback":
        if subject.checkpoint is None:
            raise InputError(f"{subject.name} is a plain state dict: it has no feedback path; use --gradient true")
        path = subject.checkpoint.feedback_path().to(subject.device).eval()
        return nn.Sequential(subject.normalise, path)
    return surrogate.pixel_model() if mode == "transfer" and surrogate is not None else None


def attack_subject(plan: AttackPlan, subject: Subject, show: Show) -> list[AttackCurve]:
    """Return a curve for each attack and gradient mode, then each mode's worst case where it has several.

    An attack without a gradient runs once; it joins the worst case of the true gradient, which is what is called
    robustness, and not that of a mode that may be misled.
    """
    blind = [("none", attack) for attack in plan.attacks if not attack.needs_gradient]
    guided = [(mode, attack) for mode in plan.modes for attack in plan.attacks if attack.needs_gradient]
    curves = [_curve(plan, subject, mode, attack, show) for mode, attack in blind + guided]
    worst = []
    for mode in dict.fromkeys(mode for mode, _ in guided) or ["none"]:
        counted = {mode, "none"} if mode == "true" else {mode}
        group = [curve for curve in curves if curve.gradient in counted]
        if len(group) > 1:
            worst.append(worst_case(group))
    return curves + worst


def _curve(plan: AttackPlan, subject: Subject, mode: str, attack: Attack, show: Show) -> AttackCurve:
    return attack_curve(
        subject.pixel_model(),
        subject.images.float() / 255,
        subject.labels,
        plan.eps,
        attack,
        gradient_model=gradient_model(subject, mode, plan.surrogate),
        gradient=mode,
        raw=plan.raw,
        batch_size=plan.batch_size,
        seed=plan.seed,
        keep_examples=plan.keep_examples,
        progress=show(f"{subject.name}: {attack.name}, gradient {mode}", "image"),
    )


def audit_subject(
    plan: AttackPlan, subject: Subject, *, eps: float | None, steps: int, norm: str, loss: str, show: Show
) -> list[Audit]:
    """Return the audit of PGD at ``eps`` (the median of the plan's if None) in each gradient mode of the plan.

    Raises:
        InputError: no eps above 0.
    """
    positive = [value for value in plan.eps if value > 0]
    if eps is None:
        if not positive:
            raise InputError("--audit needs an eps above 0: give one with --eps or --audit-eps")
        eps = statistics.median_low(positive)
    return [
        audit(
            subject.pixel_model(),
            subject.images.float() / 255,
            subject.labels,
            eps=eps,
            steps=steps,
            norm=norm,
            loss=loss,
            gradient_model=gradient_model(subject, mode, plan.surrogate),
            gradient=mode,
            surrogate=None if plan.surrogate is None else plan.surrogate.pixel_model(),
            batch_size=plan.batch_size,
            seed=plan.seed,
            progress=show(f"{subject.name}: audit, gradient {mode}", "check"),
        )
        for mode in plan.modes or ["true"]
    ]


def save_examples(folder: Path, index: int, subject: Subject, curves: Sequence[AttackCurve]) -> None:
    """Write ``NN-ATTACK-GRADIENT.npz`` for each curve: what fooled at the smallest eps (else the original image),
    ``minimal_eps`` (inf: never fooled, 0: wrong as it is) and ``labels``."""
    for curve in curves:
        arrays: dict[str, Any] = {"minimal_eps": curve.minimal_eps.numpy(), "labels": subject.labels.cpu().numpy()}
        if curve.examples is not None:
            arrays["images"] = curve.examples.numpy()
        name = f"{index:02d}-{curve.attack}-{curve.gradient}".replace(" ", "-").replace(":", "-")
        with atomic_path(folder / f"{name}.npz") as temporary:
            np.savez_compressed(temporary, **arrays)
