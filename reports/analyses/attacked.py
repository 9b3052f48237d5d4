"""Attacks on a subject: which network's gradient each mode follows, and what is kept of it."""

import functools
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from alignscape.errors import InputError
from reports.analyses.analysis import Show
from reports.analyses.attack import Attack
from reports.subjects import Subject
from robustness.attacks import Attack as AnyAttack
from robustness.curves import AttackCurve, attack_curve, worst_case
from robustness.masking import Audit, audit


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


def attack_subject(
    settings: Attack, attacks: Sequence[AnyAttack], subject: Subject, surrogate: Subject | None, show: Show
) -> list[AttackCurve]:
    """Return a curve for each attack and gradient mode, then each mode's worst case where it has several.

    An attack without a gradient runs once; it joins the worst case of the true gradient, which is what is called
    robustness, and not that of a mode that may be misled.
    """
    blind = [("none", attack) for attack in attacks if not attack.needs_gradient]
    guided = [(mode, attack) for mode in settings.modes for attack in attacks if attack.needs_gradient]
    curves = [
        attack_curve(
            subject.pixel_model(),
            subject.pixels(),
            subject.labels,
            settings.eps,
            attack,
            gradient_model=gradient_model(subject, mode, surrogate),
            gradient=mode,
            raw=settings.raw,
            batch_size=settings.batch_size or len(subject.labels),
            seed=settings.seed,
            keep_examples=settings.save_examples,
            progress=show(f"{subject.name}: {attack.name}, gradient {mode}", "image"),
        )
        for mode, attack in blind + guided
    ]
    worst = []
    for mode in dict.fromkeys(mode for mode, _ in guided) or ["none"]:
        counted = {mode, "none"} if mode == "true" else {mode}
        group = [curve for curve in curves if curve.gradient in counted]
        if len(group) > 1:
            worst.append(worst_case(group))
    return curves + worst


def audit_subject(settings: Attack, subject: Subject, surrogate: Subject | None, show: Show) -> list[Audit]:
    """Return the audit of PGD at ``audit_eps`` (the median of ``eps`` if None) in each gradient mode.

    Raises:
        InputError: no eps above 0.
    """
    eps = settings.audit_eps
    if eps is None:
        if not (positive := [value for value in settings.eps if value > 0]):
            raise InputError("--audit needs an eps above 0: give one with --eps or --audit-eps")
        eps = statistics.median_low(positive)
    return [
        audit(
            subject.pixel_model(),
            subject.pixels(),
            subject.labels,
            eps=eps,
            steps=settings.steps or 10,
            norm=settings.norm,
            loss=settings.loss,
            gradient_model=gradient_model(subject, mode, surrogate),
            gradient=mode,
            surrogate=None if surrogate is None else surrogate.pixel_model(),
            batch_size=settings.batch_size or len(subject.labels),
            seed=settings.seed,
            progress=show(f"{subject.name}: audit, gradient {mode}", "check"),
        )
        for mode in settings.modes or ["true"]
    ]


def example_files(subject: Subject, curves: Sequence[AttackCurve]) -> dict[str, Callable[[Path], Any]]:
    """Return what writes ``examples/NN-ATTACK-GRADIENT.npz`` for each curve (NN: the number of the network): what
    fooled at the smallest eps (else the original image), ``minimal_eps`` (inf: never fooled, 0: wrong as it is) and
    ``labels``."""
    labels = subject.labels.cpu().numpy()
    names = [f"{curve.attack}-{curve.gradient}".replace(" ", "-").replace(":", "-") for curve in curves]
    return {
        f"examples/{{index:02d}}-{name}.npz": functools.partial(_write_examples, curve, labels)
        for name, curve in zip(names, curves, strict=True)
    }


def _write_examples(curve: AttackCurve, labels: np.ndarray, path: Path) -> None:
    arrays: dict[str, Any] = {"minimal_eps": curve.minimal_eps.numpy(), "labels": labels}
    if curve.examples is not None:
        arrays["images"] = curve.examples.numpy()
    np.savez_compressed(path, **arrays)
