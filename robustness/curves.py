"""Accuracy against eps, for all eps at once.

A nested curve asks: is there, within eps, an image that fools? What fools within a small ball lies in every larger
one, so an image leaves the race once fooled, wrong ones never enter it, and the curve cannot rise. A raw curve asks
what most tools ask: is the last iterate at this eps misclassified? It is the accuracy of a plain loop over eps, may
rise, and when it does that is a symptom of a masked gradient.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

import pandas as pd
import torch
from torch import Tensor, nn

from alignscape.errors import InputError
from robustness.approximations import Approximated
from robustness.attacks import Attack, Batch, GradientAttack, Perturber, is_fooled
from robustness.inputs import check_batch_size, check_eps, check_images, check_logits, check_model, evaluating, seeded
from robustness.intervals import wilson
from robustness.norms import ROUNDING, Norm, norm_named

GRADIENTS = ("true", "feedback", "transfer", "none")
Progress = Callable[[int, int], None]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class AttackCurve:
    """The outcome of one attack at E radii on N images.

    Attributes:
        attack: its name.
        gradient: whose gradient was followed: ``true``, ``feedback``, ``transfer`` or ``none``.
        norm: that bounds the perturbation.
        loss: what was climbed.
        steps: gradient steps or queries; None where no one number says it.
        restarts: independent tries.
        step_sizes: of one step, in pixel units, length E; NaN where an attack has none.
        raw: whether ``fooled`` is about last iterates, each eps by itself.
        eps: radii in pixel units, rising, length E.
        fooled: bool on the CPU, shape (E, N).
        seconds: wall-clock time of each radius, length E; work that radii share is in the first.
        rejected: how many misclassified images were not counted because they left the ball or [0, 1].
        examples: for each image the one that fooled at the smallest eps, or the original, shape (N, ...) on the
            CPU; None unless they were asked for.

    Example:
        >>> import torch
        >>> from robustness import attack_curve, fgsm
        >>> model = torch.nn.Flatten()  # three pixels; the brightest is the class
        >>> images = torch.tensor([[0.6, 0.4, 0.0], [0.2, 0.8, 0.0]]).reshape(2, 1, 1, 3)
        >>> labels = torch.tensor([0, 1])
        >>> curve = attack_curve(model, images, labels, [0, 0.15, 0.35], fgsm())
        >>> curve.minimal_eps
        tensor([0.1500, 0.3500], dtype=torch.float64)
        >>> curve.frame()[["eps", "accuracy", "ci_low", "ci_high"]].round(2)
            eps  accuracy  ci_low  ci_high
        0  0.00       1.0    0.34     1.00
        1  0.15       0.5    0.09     0.91
        2  0.35       0.0    0.00     0.66
    """

    attack: str
    gradient: str
    norm: str
    loss: str
    steps: int | None
    restarts: int
    raw: bool
    eps: tuple[float, ...]
    fooled: Tensor
    seconds: tuple[float, ...]
    rejected: int = 0
    step_sizes: tuple[float, ...] = ()
    examples: Tensor | None = None

    @property
    def accuracy(self) -> Tensor:
        """Share of images not fooled at each eps, float64, shape (E,)."""
        return 1 - self.fooled.double().mean(1)

    @property
    def minimal_eps(self) -> Tensor:
        """Smallest of the radii at which each image is fooled (0: wrong as it is; inf: never), float64, (N,)."""
        radii = torch.tensor(self.eps, dtype=torch.float64)
        return torch.where(self.fooled, radii[:, None], torch.inf).amin(0)

    def frame(self) -> pd.DataFrame:
        """Return one row an eps, with the columns of ``attack.csv`` after ``checkpoint``."""
        n = self.fooled.shape[1]
        right = [n - int(count) for count in self.fooled.sum(1)]
        low, high = zip(*(wilson(count, n) for count in right), strict=True)
        return pd.DataFrame(
            {
                "attack": self.attack,
                "gradient": self.gradient,
                "eps": self.eps,
                "accuracy": [count / n for count in right],
                "ci_low": low,
                "ci_high": high,
                "n_samples": n,
                "steps": pd.array([self.steps] * len(self.eps), dtype="Int64"),
                "seconds": self.seconds,
                "norm": self.norm,
                "loss": self.loss,
                "restarts": self.restarts,
                "step_size": self.step_sizes or float("nan"),
                "curve": "raw" if self.raw else "nested",
                "rejected": self.rejected,
            }
        )


def attack_curve(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: Sequence[float],
    attack: Attack,
    *,
    gradient_model: nn.Module | None = None,
    gradient: str = "true",
    raw: bool = False,
    batch_size: int = 1000,
    seed: int = 0,
    keep_examples: bool = False,
    progress: Progress | None = None,
) -> AttackCurve:
    """Measure accuracy under ``attack`` at every radius of ``eps``.

    Whatever the attack returns is checked here once more before it counts: within eps, within [0, 1], and
    misclassified by a forward pass of its own.

    Args:
        model: logits (N, C) from pixels in [0, 1], on any device; decides what is fooled.
        images: pixels as floats in [0, 1], shape (N, ...), on any device.
        labels: int64, shape (N,).
        eps: radii in pixel units; they are sorted, repetitions dropped.
        attack: :func:`~robustness.attacks.fgsm`, :func:`~robustness.attacks.bim`,
            :func:`~robustness.attacks.pgd`, :class:`~robustness.square.SquareAttack`, ...
        gradient_model: its backward pass gives the direction (a feedback twin, a surrogate); ``model`` if None. An
            :class:`~robustness.approximations.Approximated` of the model counts as its true gradient.
        gradient: the label of that choice in tables: ``true``, ``feedback`` or ``transfer``; an attack that uses
            no gradient is always labelled ``none``.
        raw: last iterates, each eps by itself, instead of the nested curve.
        batch_size: images at once; it does not change which random start an image gets.
        seed: of every random choice.
        keep_examples: also return the fooling images.
        progress: called with (images done, images in all).

    Raises:
        InputError: pixels, labels, eps or batch size out of range, a model without gradients, an unknown gradient mode.

    Example:
        >>> import torch
        >>> from robustness import attack_curve, fgsm
        >>> model = torch.nn.Flatten()  # three pixels; the brightest is the class
        >>> images = torch.tensor([[0.6, 0.4, 0.0], [0.2, 0.8, 0.0]]).reshape(2, 1, 1, 3)
        >>> labels = torch.tensor([0, 1])
        >>> attack_curve(model, images, labels, [0, 0.15, 0.35], fgsm()).fooled
        tensor([[False, False],
                [ True, False],
                [ True,  True]])
    """
    norm = norm_named(attack.norm)
    radii = tuple(sorted(set(map(float, eps))))
    check_images(images, labels)
    check_eps(radii, norm, images[0].numel())
    label = gradient_label(attack, gradient, gradient_model)
    outcomes = in_batches(
        functools.partial(_race, attack=attack, radii=radii, raw=raw, keep_examples=keep_examples),
        model,
        images,
        labels,
        gradient_model=gradient_model,
        batch_size=batch_size,
        seed=seed,
        progress=progress,
    )
    return AttackCurve(
        attack=attack.name,
        gradient=label,
        norm=attack.norm,
        loss=attack.loss,
        steps=steps_an_image(attack, outcomes[0].classes),
        restarts=starts(attack),
        raw=raw,
        eps=radii,
        fooled=torch.cat([outcome.fooled for outcome in outcomes], dim=1),
        seconds=tuple(map(sum, zip(*(outcome.seconds for outcome in outcomes), strict=True))),
        rejected=sum(outcome.rejected for outcome in outcomes),
        examples=torch.cat([outcome.examples for outcome in outcomes]) if keep_examples else None,
        step_sizes=_step_sizes(attack, radii),
    )


def in_batches(
    work: Callable[[Batch], T],
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    gradient_model: nn.Module | None,
    batch_size: int,
    seed: int,
    progress: Progress | None,
) -> list[T]:
    """Return what ``work`` makes of the images, batch by batch, on the model's device, as the models predict and with
    the draws of ``seed``. The images have been checked (:func:`~robustness.inputs.check_images`).

    Raises:
        InputError: a batch size or a model that cannot be; what ``work`` raises.
    """
    check_batch_size(batch_size)
    check_model(model)
    device = next((p.device for p in model.parameters()), images.device)
    found = []
    with evaluating(model, gradient_model), seeded(seed, device):
        for first in range(0, len(images), batch_size):
            chunk = slice(first, first + batch_size)
            batch = Batch(
                model=model,
                gradient_model=gradient_model or model,
                images=images[chunk].detach().to(device),
                labels=labels[chunk].to(device),
                numbers=range(len(images))[chunk],
                seed=seed,
            )
            found.append(work(batch))
            if progress is not None:
                progress(min(first + batch_size, len(images)), len(images))
    return found


def steps_an_image(attack: Attack, classes: int) -> int | None:
    """Return the steps from one start, of all members of an ensemble, towards all targets; None if one is unknown."""
    if attack.members[0] is not attack:
        parts = [steps_an_image(member, classes) for member in attack.members]
        return None if None in parts else sum(filter(None, parts))
    return None if attack.steps is None else attack.steps * max(1, min(attack.targets, classes - 1))


def starts(attack: Attack) -> int:
    """Return the random starts of an attack, the most of a member."""
    return attack.restarts if attack.members[0] is attack else max(map(starts, attack.members))


def _step_sizes(attack: Attack, radii: Sequence[float]) -> tuple[float, ...]:
    if not isinstance(attack, GradientAttack):
        return ()
    return tuple(attack.steps_for(torch.tensor(radii, dtype=torch.float64)).tolist())


@dataclass(kw_only=True)
class _Outcome:
    """What a batch adds to a curve; the fields are those of :class:`AttackCurve`."""

    fooled: Tensor
    seconds: list[float]
    examples: Tensor
    stored: Tensor
    classes: int
    rejected: int = 0

    def keep(self, rows: Tensor, candidates: Tensor) -> None:
        """Store fooling images, unless a smaller eps (of a raw curve) has already given one."""
        rows, candidates = rows.cpu(), candidates.cpu()
        new = ~self.stored[rows]
        self.examples[rows[new]] = candidates[new]
        self.stored[rows] = True


def _race(batch: Batch, attack: Attack, radii: Sequence[float], *, raw: bool, keep_examples: bool) -> _Outcome:
    """Attack one batch at every radius, the smallest first."""
    started = perf_counter()
    with torch.no_grad():
        logits = batch.model(batch.images)
    check_logits(logits, batch.labels)
    wrong = is_fooled(logits, batch.labels)
    entrants = torch.arange(len(wrong), device=wrong.device) if raw else (~wrong).nonzero().squeeze(1)
    outcome = _Outcome(
        fooled=torch.zeros(len(radii), len(wrong), dtype=torch.bool),
        seconds=[],
        examples=batch.images.cpu().clone(),
        stored=wrong.cpu(),  # what is wrong as it is needs no example
        classes=logits.shape[1],
    )
    tries: list[Perturber] = []
    if len(entrants) and radii[-1] > 0:
        field = batch.take(entrants)
        tries = [attack.on(field, restart=r, stop_when_fooled=not raw) for r in range(attack.restarts)]
    ahead = len(tries) if raw else attack.members[0].restarts  # other members come afterwards
    alive = torch.ones_like(entrants, dtype=torch.bool)
    for row, eps in enumerate(radii):
        if raw:
            alive = ~wrong if eps == 0 else torch.ones_like(wrong)
        for perturber in tries[:ahead] if eps > 0 else ():
            chosen = alive.nonzero().squeeze(1)
            if not len(chosen):
                break
            candidates = perturber(eps, chosen)
            fools, strays = verify(field, chosen, candidates, eps, norm_named(attack.norm))
            outcome.rejected += strays
            alive[chosen[fools]] = False
            if keep_examples:
                outcome.keep(entrants[chosen[fools]], candidates[fools])
        outcome.fooled[row] = wrong.cpu() & (not raw)
        outcome.fooled[row, entrants.cpu()] |= ~alive.cpu()
        outcome.seconds.append(perf_counter() - started)
        started = perf_counter()
    if tries[ahead:]:
        _descend(field, entrants, tries[ahead:], radii, norm_named(attack.norm), outcome)
        outcome.seconds[0] += perf_counter() - started
    return outcome


def _descend(
    field: Batch, entrants: Tensor, tries: Sequence[Perturber], radii: Sequence[float], norm: Norm, outcome: _Outcome
) -> None:
    """Ask ``tries`` about each image at the largest eps that it withstands so far, as long as one of them fools it."""
    eps = torch.tensor(radii, dtype=field.images.dtype, device=entrants.device)
    least = int((eps <= 0).sum())  # nothing is to be found within 0
    # The row of the smallest eps at which each image is fooled, one beyond the last if at none.
    level = (~outcome.fooled[:, entrants.cpu()]).sum(0).to(entrants.device)
    asked = (level > least).nonzero().squeeze(1)
    while len(asked):
        before = level.clone()
        left = asked
        for perturber in tries:
            radius = eps[level[left] - 1]
            candidates = perturber(radius, left)
            fools, strays = verify(field, left, candidates, radius, norm)
            outcome.rejected += strays
            rows = left[fools]
            size = norm.size(candidates[fools] - field.images[rows])
            # What was found may fit into a ball that is smaller still.
            level[rows] = torch.minimum(torch.searchsorted(eps, size).clamp_min(least), level[rows] - 1)
            outcome.stored[entrants[rows].cpu()] = False
            outcome.keep(entrants[rows], candidates[fools])
            left = left[~fools]
            if not len(left):
                break
        asked = ((level < before) & (level > least)).nonzero().squeeze(1)
    outcome.fooled[:, entrants.cpu()] |= torch.arange(len(radii))[:, None] >= level.cpu()


@torch.no_grad()
def verify(field: Batch, chosen: Tensor, candidates: Tensor, eps: float | Tensor, norm: Norm) -> tuple[Tensor, int]:
    """Return which candidates really fool, bool, shape (len(chosen),), and how many only did so out of bounds."""
    perturbation = candidates - field.images[chosen]
    low, high = candidates.flatten(1).aminmax(dim=1)
    allowed = (norm.size(perturbation) <= eps * (1 + ROUNDING) + ROUNDING) & (low >= 0) & (high <= 1)
    wrong = is_fooled(field.model(candidates), field.labels[chosen])
    return wrong & allowed, int((wrong & ~allowed).sum())


def gradient_label(attack: Attack, gradient: str, gradient_model: nn.Module | None) -> str:
    """Return the label of an attack's gradient; a wrong one would be worse than none."""
    if gradient not in GRADIENTS:
        raise InputError(f"unknown gradient mode {gradient!r}; known: {', '.join(GRADIENTS)}")
    if not attack.needs_gradient:
        return "none"
    if gradient == "none":
        raise InputError(f"{attack.name} follows a gradient; with gradient none use the square attack")
    own = gradient_model is None or (gradient == "true" and isinstance(gradient_model, Approximated))
    if (gradient == "true") != own:
        needs = "takes no other model" if gradient == "true" else "needs the model whose gradient it follows"
        raise InputError(f"gradient {gradient} {needs}")
    return gradient


def worst_case(curves: Sequence[AttackCurve]) -> AttackCurve:
    """Return the curve of the worst attack for each image: fooled by any of them is fooled.

    Gradient-free attacks go with any gradient mode; ``steps`` is the largest and ``seconds`` the sum.

    Args:
        curves: at least one.

    Raises:
        ValueError: the curves are not of the same images, radii, norm, kind and gradient mode.

    Example:
        >>> import torch
        >>> from robustness import SquareAttack, attack_curve, fgsm, worst_case
        >>> model = torch.nn.Flatten()  # three pixels; the brightest is the class
        >>> images = torch.tensor([[0.6, 0.4, 0.0], [0.2, 0.8, 0.0]]).reshape(2, 1, 1, 3)
        >>> labels = torch.tensor([0, 1])
        >>> attacks = fgsm(), SquareAttack(queries=50)
        >>> worst = worst_case([attack_curve(model, images, labels, [0, 0.15], attack) for attack in attacks])
        >>> worst.attack, worst.loss, worst.accuracy.tolist()
        ('worst case', 'ce+margin', [1.0, 0.5])
    """
    first = curves[0]
    modes = sorted({curve.gradient for curve in curves} - {"none"}) or ["none"]
    same = all(
        (c.eps, c.norm, c.raw, c.fooled.shape) == (first.eps, first.norm, first.raw, first.fooled.shape) for c in curves
    )
    if not same or len(modes) > 1:
        raise ValueError("the worst case is over curves of the same images, eps, norm, kind and gradient mode")
    return AttackCurve(
        attack="worst case",
        gradient=modes[0],
        norm=first.norm,
        loss="+".join(sorted({curve.loss for curve in curves})),
        steps=max((curve.steps for curve in curves if curve.steps is not None), default=None),
        restarts=max(curve.restarts for curve in curves),
        raw=first.raw,
        eps=first.eps,
        fooled=torch.stack([curve.fooled for curve in curves]).any(0),
        seconds=tuple(map(sum, zip(*(curve.seconds for curve in curves), strict=True))),
        rejected=sum(curve.rejected for curve in curves),
    )
