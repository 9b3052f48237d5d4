"""The symptoms of a masked gradient, one function each."""

import itertools
from dataclasses import dataclass, replace
from math import nan

import torch
from torch import Tensor
from torch.nn import functional as F

from robustness.approximations import Approximated
from robustness.attacks import fgsm
from robustness.case import MARGIN, Case, NoiseAttack
from robustness.inputs import evaluating
from robustness.intervals import wilson
from robustness.losses import cross_entropy, loss_named, saturating_cross_entropy
from robustness.norms import norm_named

ZERO_SHARE = 0.01
COSINE = 0.9
DIVISORS = (1, 10, 100, 1000)
SLACK = 0.05  # ten steps on one loss are meant to be quick: a stronger attack may find a little more
GAP = 0.03  # what the yardstick may find beyond the audited attack
SLOPES, SLOPE_IMAGES = 8, 50


@dataclass(frozen=True, kw_only=True)
class AuditLine:
    """One check of an audit.

    Attributes:
        check: its name.
        verdict: ``pass``, ``warn``, ``inconclusive`` (the images or eps do not tell) or ``skipped``.
        value: the number that was measured (NaN if skipped).
        threshold: the number that divides pass from warn.
        message: what was measured, or why nothing was.
        ci_low: lower end of the 95 % interval of ``value`` over images, where it is a gap in accuracy; else NaN.
        ci_high: upper end.
        means: what a failure of the check would mean.

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
    ci_low: float = nan
    ci_high: float = nan
    means: str = ""


MEANS = {
    "followed direction is the gradient": "the attack climbs something else than the loss; a search that follows the "
    "gradient will fool more",
    "gradients do not vanish": "the attack stands still at these images; try --bpda, --loss dlr or square",
    "answers do not change": "the network draws at random, and so do its gradients and its accuracy; without --eot the "
    "curve is not to be believed",
    "logits do not saturate": "rounding takes the gradient of large logits; climb --loss ce or dlr",
    "many steps beat one": "following the gradient leads away: it is masked, or the steps are too large or too small",
    "gradient beats black box": "a search without a gradient fools more: the gradient is masked or the attack weak",
    "own gradient beats transfer": "another network's gradient fools more than the network's own: it is masked",
    "attack beats noise": "the attack finds no more than chance does although there is more to find",
    "accuracy falls with eps": "the attack gets lost in larger balls; the gradient is masked, or the steps too large",
    "unbounded attack reaches chance": "the attack is stuck at images that anything would fool",
    "attack has converged": "a stronger attack fools more: the accuracy of the table is too high by at least this much",
    "loss does not matter": "the loss that is climbed hides what another shows",
    "precision does not matter": "rounding misleads the attack; use --loss ce or a smaller scale of the logits",
}


def _line(
    check: str,
    warn: bool,
    value: float,
    threshold: float,
    message: str,
    interval: tuple[float, float] = (nan, nan),
    verdict: str = "",
) -> AuditLine:
    return AuditLine(
        check=check,
        verdict=verdict or ("warn" if warn else "pass"),
        value=value,
        threshold=threshold,
        message=message,
        ci_low=interval[0],
        ci_high=interval[1],
        means=MEANS[check],
    )


def _skipped(check: str, reason: str) -> AuditLine:
    return AuditLine(check=check, verdict="skipped", value=nan, threshold=nan, message=reason, means=MEANS[check])


def _rival(
    check: str, case: Case, name: str, fooled: Tensor, margin: float = MARGIN, over: Tensor | None = None
) -> AuditLine:
    """Warn if another attack beats the audited one (or ``over``)."""
    known = case.fooled if over is None else over
    gain, interval = case.gain(fooled, known), case.points(fooled, known)
    message = (
        f"{name} leaves accuracy {case.share_right(fooled):.3f}, the audited attack {case.share_right(known):.3f}: "
        f"a gap of {100 * gain:.1f} points [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}], {100 * margin:g} allowed"
    )
    return _line(check, case.beats(fooled, known, margin), gain, margin, message, interval)


def direction(case: Case) -> AuditLine:
    """The direction that is followed should be the loss's gradient, up to its length, which no attack minds.

    The network's own is compared with finite differences in float64, another network's with the network's own.
    """
    check = "followed direction is the gradient"
    if not len(case.right_images[0]):
        return _skipped(check, "no image is right to begin with")
    if case.random:
        return _skipped(check, "the network draws at random: its loss has no slope to compare with")
    followed_by, own = case.gradient_model, case.model
    if isinstance(followed_by, Approximated):
        own = Approximated(case.model, eot=followed_by.eot, bpda=followed_by.bpda)
    if isinstance(followed_by, Approximated) and case.gradient == "true":
        return _skipped(check, "the backward pass is another one on purpose")
    if followed_by is None:
        value, flat = _slope_cosine(case)
        if flat > 0.5:
            message = (
                f"the network is flat around {100 * flat:.0f} % of the images (it rounds), yet its gradient is not 0: "
                "a substitute for one, as --bpda makes; whether it serves, the other checks tell"
            )
            return _line(check, False, value, COSINE, message, verdict="inconclusive")
        message = f"cosine of the gradient with the loss's slopes along random directions: {value:.3f} (1 if it is one)"
        return _line(check, value < COSINE, value, COSINE, message)
    followed = case.gradients(followed_by, cross_entropy)
    value = F.cosine_similarity(followed, case.gradients(own, cross_entropy)).mean().item()
    message = f"mean cosine of the {case.gradient} direction with the true gradient by the pixels: {value:.3f}"
    return _line(check, value < COSINE, value, COSINE, message)


def _slope_cosine(case: Case) -> tuple[float, float]:
    """Return the median over images of the cosine between what the gradient says of some random directions and what
    finite differences say of them, and the share of the images with a gradient where they say that nothing changes."""
    try:
        exact, step = case.exact, 1e-6
        exact.model(exact.images[:2])
    except (RuntimeError, TypeError):
        exact, step = case, 1e-3
    x, y = (part[:SLOPE_IMAGES] for part in exact.right_images)
    gradient = replace(exact, images=x, labels=y).gradients(exact.model, cross_entropy)
    generator = torch.Generator().manual_seed(case.seed)
    said, found = [], []
    with torch.no_grad(), evaluating(exact.model):
        for _ in range(SLOPES):
            move = torch.randint(0, 2, x.shape, generator=generator).to(x) * 2 - 1
            rise = cross_entropy(exact.model(x + step * move), y) - cross_entropy(exact.model(x - step * move), y)
            found.append(rise / (2 * step))
            said.append((gradient * move.flatten(1)).sum(1))
    cosine = F.cosine_similarity(torch.stack(said), torch.stack(found), dim=0)
    moving = gradient.norm(dim=1) > 0  # a zero gradient is another check's affair
    if not moving.any():
        return 1.0, 0.0
    return cosine[moving].median().item(), (torch.stack(found) == 0).all(0)[moving].double().mean().item()


def zero_gradients(case: Case) -> AuditLine:
    """Input gradients of the loss that is climbed which vanish: an attack that follows them stands still."""
    check = "gradients do not vanish"
    if not len(case.right_images[0]):
        return _skipped(check, "no image is right to begin with")
    climbed, usual = (
        (case.gradients(case.gradient_model or case.model, loss).abs().amax(1) == 0).double().mean().item()
        for loss in (loss_named(case.attack.loss), saturating_cross_entropy)
    )
    message = f"{100 * climbed:.1f} % of the input gradients of the loss that is climbed are exactly zero"
    if usual > climbed:
        message += f" ({100 * usual:.1f} % of those of the usual cross-entropy, by which other tools are deceived here)"
    return _line(check, climbed > ZERO_SHARE, climbed, ZERO_SHARE, message)


def randomness(case: Case) -> AuditLine:
    """The same images must get the same answers again, unless the attack averages over passes."""
    check = "answers do not change"
    answers = case.passes.argmax(2)
    value = (answers != answers[0]).any(0).double().mean().item()
    shares = " / ".join(f"{share:.3f}" for share in (answers == case.labels.to(answers)).double().mean(1).tolist())
    message = (
        f"three passes over the same images leave accuracy {shares}; the logits {'differ' if case.random else 'agree'}"
    )
    averaged = isinstance(case.gradient_model, Approximated) and case.gradient_model.eot > 1
    if case.random and averaged:
        message += "; the attack averages over passes (--eot)"
    return _line(check, case.random and not averaged, value, 0.0, message)


def logit_scale(case: Case) -> AuditLine:
    """Large logits saturate a softmax, and the gradient of a loss that has one; dividing them undoes it."""
    fooled = [case.fooled_by(case.attack, divisor=divisor) for divisor in DIVISORS]
    gains = [case.gain(other, fooled[0]) for other in fooled]
    shares = " / ".join(f"{case.share_right(other):.3f}" for other in fooled)
    message = (
        f"{case.attack.name} on the loss {case.attack.loss} leaves {shares} with the logits divided by "
        f"{' / '.join(map(str, DIVISORS))}"
    )
    warn = any(case.beats(other, fooled[0]) for other in fooled)
    return _line("logits do not saturate", warn, max(gains), MARGIN, message)


def one_step(case: Case) -> AuditLine:
    """One step must not beat many."""
    fooled = case.fooled_by(fgsm(loss=case.attack.loss, norm=case.norm))
    return _rival("many steps beat one", case, "FGSM", fooled, over=case.fooled_by(case.attack))


def black_box(case: Case) -> AuditLine:
    """An attack that sees only outputs must not beat one that sees the gradient."""
    check = "gradient beats black box"
    if not case.sees_black_box:
        return _skipped(check, "Square needs images (N, C, H, W)")
    return _rival(check, case, *case.blind)


def transfer(case: Case) -> AuditLine:
    """Another network's gradient must not beat the network's own."""
    check = "own gradient beats transfer"
    if case.gradient == "transfer":
        return _skipped(check, "the audited attack is a transfer itself")
    name, model = case.other
    return _rival(
        check, case, f"{case.attack.name} with the gradient of {name}", case.fooled_by(case.attack, follow=model)
    )


def random_noise(case: Case) -> AuditLine:
    """An attack must beat random noise of the same size, where there is anything to find within it."""
    noise = NoiseAttack(norm=case.norm)
    fooled = case.fooled_by(noise)
    message = (
        f"the worst of {noise.restarts} random corners leaves accuracy {case.share_right(fooled):.3f}, "
        f"the audited attack {case.share_right(case.fooled):.3f}"
    )
    gain, interval = case.gain(case.fooled, fooled), case.points(case.fooled, fooled)
    verdict = "pass"
    if not case.beats(case.fooled, fooled):
        best = case.stronger | case.blind[1] if case.sees_black_box else case.stronger
        verdict = "warn" if case.beats(best, fooled) else "inconclusive"
    if verdict == "inconclusive":
        message += "; no attack finds clearly more: eps is too small, or the images too few, to tell"
    return _line("attack beats noise", False, gain, MARGIN, message, interval, verdict)


def monotone(case: Case) -> AuditLine:
    """Accuracy at the last iterate must not rise with eps."""
    largest = norm_named(case.norm).largest_eps(case.images[0].numel())
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
    largest = norm_named(case.norm).largest_eps(case.images[0].numel())
    attack = replace(case.attack, name="bim", random_start=False, restarts=1, step_size=None)
    fooled = case.fooled_by(attack, eps=largest)
    chance = 1 / case.classes
    value = case.share_right(fooled)
    low, _ = wilson(int((~fooled).sum()), len(fooled))
    message = f"BIM without a bound on the perturbation leaves accuracy {value:.3f}; chance is {chance:.3f}"
    return _line("unbounded attack reaches chance", low > chance, value, chance, message)


def converged(case: Case) -> AuditLine:
    """A stronger attack along the same gradient must not find much more."""
    members = " and ".join(f"{one.name} ({one.steps} steps, starts: {one.restarts})" for one in case.yardstick.members)
    return _rival("attack has converged", case, f"together with {members} it", case.stronger, GAP)


def other_loss(case: Case) -> AuditLine:
    """Another loss must not find much more."""
    check = "loss does not matter"
    if case.classes < 3:
        return _skipped(check, "the dlr loss needs 3 classes")
    other = "ce" if case.attack.loss == "dlr" else "dlr"
    fooled = case.fooled_by(replace(case.attack, loss=other))
    return _rival(check, case, f"{case.attack.name} on the loss {other}", fooled, SLACK)


def precision(case: Case) -> AuditLine:
    """Float64 must not find much more."""
    check = "precision does not matter"
    try:
        fooled = case.exact.any_of([attack for attack in case.attacks if attack.needs_gradient] or [case.attack])
    except (RuntimeError, TypeError) as error:
        return _skipped(check, f"the network does not run in float64: {str(error).splitlines()[0]}")
    return _rival(check, case, "the same attack in float64", fooled, over=case.fooled)


CHECKS = (
    direction,
    zero_gradients,
    randomness,
    logit_scale,
    one_step,
    black_box,
    transfer,
    random_noise,
    monotone,
    unbounded,
    converged,
    other_loss,
    precision,
)
