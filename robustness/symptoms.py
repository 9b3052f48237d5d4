"""The symptoms of a masked gradient, one function each."""

import itertools
from dataclasses import dataclass, replace
from math import nan

import torch
from torch import Tensor
from torch.nn import functional as F

from robustness.attacks import fgsm
from robustness.case import MARGIN, Case, NoiseAttack
from robustness.inputs import evaluating
from robustness.intervals import wilson
from robustness.losses import cross_entropy, saturating_cross_entropy
from robustness.norms import norm_named
from robustness.square import SquareAttack

ZERO_SHARE = 0.01
COSINE = 0.9
DIVISORS = (1, 10, 100, 1000)
EFFORT = 5
SLACK = 0.05  # ten steps on one loss are meant to be quick: a stronger attack may find a little more


@dataclass(frozen=True, kw_only=True)
class AuditLine:
    """One check of an audit.

    Attributes:
        check: its name.
        verdict: ``pass``, ``warn`` or ``skipped``.
        value: the number that was measured (NaN if skipped).
        threshold: the number that divides pass from warn.
        message: what was measured, or why nothing was.

    Example:
        >>> from robustness import AuditLine
        >>> line = AuditLine(check="many steps beat one", verdict="pass", value=-0.2, threshold=0.01, message="...")
        >>> line.value < line.threshold
        True
    """

    check: str
    verdict: str
    value: float
    threshold: float
    message: str


def _line(check: str, warn: bool, value: float, threshold: float, message: str) -> AuditLine:
    return AuditLine(check=check, verdict="warn" if warn else "pass", value=value, threshold=threshold, message=message)


def _skipped(check: str, reason: str) -> AuditLine:
    return AuditLine(check=check, verdict="skipped", value=nan, threshold=nan, message=reason)


def _rival(check: str, case: Case, name: str, fooled: Tensor, margin: float = MARGIN) -> AuditLine:
    """Warn if another attack beats the audited one."""
    message = (
        f"{name} leaves accuracy {case.share_right(fooled):.3f}, the audited attack {case.share_right(case.fooled):.3f}"
    )
    return _line(check, case.beats(fooled, case.fooled, margin), case.gain(fooled, case.fooled), margin, message)


def direction(case: Case) -> AuditLine:
    """The direction that is followed should be the loss's gradient.

    The network's own is compared with finite differences in float64, another network's with the network's own.
    """
    check = "followed direction is the gradient"
    if not len(case.right_images[0]):
        return _skipped(check, "no image is right to begin with")
    if case.gradient_model is None:
        value = _slope_ratio(case)
        message = f"slope of the loss along the gradient, over the gradient's length: {value:.3f} (1 if it is one)"
        return _line(check, abs(value - 1) > 1 - COSINE, value, COSINE, message)
    followed = case.gradients(case.gradient_model, cross_entropy)
    value = F.cosine_similarity(followed, case.gradients(case.model, cross_entropy)).mean().item()
    message = f"mean cosine of the {case.gradient} direction with the true gradient by the pixels: {value:.3f}"
    return _line(check, value < COSINE, value, COSINE, message)


def _slope_ratio(case: Case) -> float:
    """Return the median over images of (finite-difference slope along the gradient) / (length of the gradient)."""
    try:
        exact, step = case.exact, 1e-6
        exact.model(exact.images[:1])
    except (RuntimeError, TypeError):
        exact, step = case, 1e-3
    gradient = exact.gradients(exact.model, cross_entropy)
    x, y = exact.right_images
    length = gradient.norm(dim=1)
    move = (gradient / length.clamp_min(1e-300)[:, None]).view_as(x) * step
    with torch.no_grad(), evaluating(exact.model):
        rise = cross_entropy(exact.model(x + move), y) - cross_entropy(exact.model(x - move), y)
    ratio = (rise / (2 * step) / length)[length > 0]
    return ratio.median().item() if len(ratio) else 1.0  # a zero gradient is another check's affair


def zero_gradients(case: Case) -> AuditLine:
    """Input gradients that vanish: an attack that follows them stands still."""
    check = "gradients do not vanish"
    if not len(case.right_images[0]):
        return _skipped(check, "no image is right to begin with")
    gradients = case.gradients(case.gradient_model or case.model, saturating_cross_entropy)
    value = (gradients.abs().amax(1) == 0).double().mean().item()
    message = f"{100 * value:.1f} % of the input gradients of the cross-entropy are exactly zero"
    return _line(check, value > ZERO_SHARE, value, ZERO_SHARE, message)


def logit_scale(case: Case) -> AuditLine:
    """Large logits saturate the softmax, and the usual cross-entropy's gradient with it; dividing them undoes it."""
    attack = replace(case.attack, loss="ce-saturating")
    fooled = [case.fooled_by(attack, divisor=divisor) for divisor in DIVISORS]
    gains = [case.gain(other, fooled[0]) for other in fooled]
    shares = " / ".join(f"{case.share_right(other):.3f}" for other in fooled)
    message = f"PGD on the usual cross-entropy leaves {shares} with the logits divided by 1 / 10 / 100 / 1000"
    warn = any(case.beats(other, fooled[0]) for other in fooled)
    return _line("logits do not saturate", warn, max(gains), MARGIN, message)


def one_step(case: Case) -> AuditLine:
    """One step must not beat many."""
    fooled = case.fooled_by(fgsm(loss=case.attack.loss, norm=case.attack.norm))
    return _rival("many steps beat one", case, "FGSM", fooled)


def black_box(case: Case) -> AuditLine:
    """An attack that sees only outputs must not beat one that sees the gradient."""
    check = "gradient beats black box"
    if case.attack.norm != "linf" or case.images.ndim != 4:
        return _skipped(check, "Square needs images (N, C, H, W) and the linf norm")
    return _rival(check, case, f"Square ({case.queries} queries)", case.fooled_by(SquareAttack(queries=case.queries)))


def transfer(case: Case) -> AuditLine:
    """Another network's gradient must not beat the network's own."""
    check = "own gradient beats transfer"
    if case.surrogate is None or case.gradient == "transfer":
        reason = "no surrogate was given" if case.surrogate is None else "the audited attack is a transfer itself"
        return _skipped(check, reason)
    fooled = case.fooled_by(case.attack, follow=case.surrogate)
    return _rival(check, case, "PGD with the surrogate's gradient", fooled)


def random_noise(case: Case) -> AuditLine:
    """An attack must beat random noise of the same size."""
    noise = NoiseAttack(norm=case.attack.norm)
    fooled = case.fooled_by(noise)
    message = (
        f"the worst of {noise.restarts} random corners leaves accuracy {case.share_right(fooled):.3f}, "
        f"the audited attack {case.share_right(case.fooled):.3f}"
    )
    gain = case.gain(case.fooled, fooled)
    return _line("attack beats noise", not case.beats(case.fooled, fooled), gain, MARGIN, message)


def monotone(case: Case) -> AuditLine:
    """Accuracy at the last iterate must not rise with eps."""
    largest = norm_named(case.attack.norm).largest_eps(case.images[0].numel())
    radii = sorted({min(factor * case.eps, largest) for factor in (0.5, 1, 2, 4)})
    fooled = case.curve(case.attack, radii, raw=True)
    pairs = list(itertools.pairwise(fooled))
    shares = " / ".join(f"{case.share_right(row):.3f}" for row in fooled)
    message = f"last iterates leave {shares} at eps {' / '.join(f'{r:g}' for r in radii)}"
    rise = max(case.gain(smaller, larger) for smaller, larger in pairs)
    warn = any(case.beats(smaller, larger) for smaller, larger in pairs)
    return _line("accuracy falls with eps", warn, rise, MARGIN, message)


def unbounded(case: Case) -> AuditLine:
    """With any image allowed an attack that starts at the image must reach chance, or it is stuck there."""
    largest = norm_named(case.attack.norm).largest_eps(case.images[0].numel())
    fooled = case.fooled_by(replace(case.attack, name="bim", random_start=False), eps=largest)
    chance = 1 / case.classes
    value = case.share_right(fooled)
    low, _ = wilson(int((~fooled).sum()), len(fooled))
    message = f"BIM without a bound on the perturbation leaves accuracy {value:.3f}; chance is {chance:.3f}"
    return _line("unbounded attack reaches chance", low > chance, value, chance, message)


def effort(case: Case) -> AuditLine:
    """More steps and restarts must not help any more."""
    more = replace(case.attack, steps=EFFORT * case.attack.steps, restarts=EFFORT)
    name = f"PGD with {EFFORT}x steps and restarts"
    return _rival("attack has converged", case, name, case.fooled_by(more), SLACK)


def other_loss(case: Case) -> AuditLine:
    """Another loss must not find much more."""
    check = "loss does not matter"
    if case.classes < 3:
        return _skipped(check, "the dlr loss needs 3 classes")
    other = "ce" if case.attack.loss == "dlr" else "dlr"
    return _rival(check, case, f"PGD on the loss {other}", case.fooled_by(replace(case.attack, loss=other)), SLACK)


def precision(case: Case) -> AuditLine:
    """Float64 must not find much more."""
    check = "precision does not matter"
    try:
        fooled = case.exact.fooled_by(case.attack)
    except (RuntimeError, TypeError) as error:
        return _skipped(check, f"the network does not run in float64: {str(error).splitlines()[0]}")
    return _rival(check, case, "the same attack in float64", fooled)


CHECKS = (
    direction,
    zero_gradients,
    logit_scale,
    one_step,
    black_box,
    transfer,
    random_noise,
    monotone,
    unbounded,
    effort,
    other_loss,
    precision,
)
