"""APGD: projected gradient that chooses its step size by itself (Croce & Hein 2020, algorithm 1).

An image keeps the point where its loss was highest. At checkpoints that lie ever closer together it is asked whether
the loss still rises; if not, the step is halved and the image goes back to that point.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from alignscape.errors import InputError
from robustness.attacks import Batch, Perturber, SingleAttack, is_fooled
from robustness.first_layer import AT_ONCE, FirstLayer, Whole, at_once, followed
from robustness.losses import loss_named, targeted_dlr, targeted_margin
from robustness.norms import Norm, norm_named, per_image, unit_noise

RHO = 0.75  # the share of steps that must raise the loss for the step size to stay
MOMENTUM = 0.75
AimedLoss = Callable[[Tensor, Tensor, Tensor], Tensor]  # of logits, labels and the classes aimed at
COMPACT = 0.1  # fooled images are carried along until they are this share: to move the others costs as much


@dataclass(frozen=True, kw_only=True)
class ApgdAttack(SingleAttack):
    """Parameters of one APGD; :func:`apgd` and :func:`apgd_targeted` fill them in.

    Attributes:
        name: what the tables call it.
        loss: a name in :data:`robustness.losses.LOSSES`, or ``dlr-targeted``.
        steps: gradient steps from each start, at least 1.
        restarts: random starts, of each target; an image counts as fooled when any of them fools.
        norm: ``linf`` or ``l2``.
        targets: how many classes a targeted attack aims at, the likeliest first; 0 of an untargeted one.
        needs_gradient: always.

    Raises:
        InputError: a value that makes no attack.

    Example:
        >>> from robustness import ApgdAttack
        >>> ApgdAttack(name="apgd-long", loss="dlr", steps=500, restarts=5).steps
        500
    """

    name: str
    loss: str
    steps: int = 100
    restarts: int = 1
    norm: str = "linf"
    targets: int = 0
    needs_gradient: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise InputError(f"{self.name} needs at least 1 step and 1 restart, got {self.steps}, {self.restarts}")
        if self.targets < 0 or (self.targets > 0) != (self.loss == "dlr-targeted"):
            raise InputError(f"{self.name} cannot aim the loss {self.loss} at {self.targets} classes")
        norm_named(self.norm)
        if not self.targets:
            loss_named(self.loss)

    def on(self, batch: Batch, *, restart: int, stop_when_fooled: bool) -> Perturber:
        norm = norm_named(self.norm)
        noise = unit_noise(norm, batch.images.shape[1:], batch.numbers, batch.seed, restart).to(batch.images)
        start = noise / per_image(norm.size(noise).clamp_min(1e-12), noise)  # on the sphere, as the authors' code does
        loss, aims = self._aims(batch)
        net = followed(batch)

        def climb(rows: Tensor, radius: Tensor) -> Tensor:
            """Return a point for each of a few images; the next targets are for those that are not yet fooled."""
            found = batch.images[rows]
            alive = torch.arange(len(rows), device=found.device)
            for group in aims.split(max(1, AT_ONCE // len(rows))):
                each = alive.repeat(len(group))
                at, target = rows[each], group[:, rows[alive]].flatten()
                ways = _Climb(batch.take(at), net, radius[each], start[at], norm, loss, target).run(self.steps)
                points, fooled = (way.unflatten(0, (len(group), len(alive))) for way in ways)
                first = fooled.int().argmax(0)  # of the targets, whose point fools
                found[alive] = points[first, torch.arange(len(alive), device=first.device)]
                alive = alive[~fooled.any(0)]
                if not len(alive):
                    break
            return found

        def perturber(eps: float | Tensor, chosen: Tensor) -> Tensor:
            radius = torch.as_tensor(eps, dtype=start.dtype, device=start.device).expand(len(chosen))
            parts = at_once(torch.arange(len(chosen), device=start.device))
            return torch.cat([batch.images[:0], *(climb(chosen[part], radius[part]) for part in parts)])

        return perturber

    def _aims(self, batch: Batch) -> tuple[AimedLoss, Tensor]:
        """Return the loss to climb, and the classes that it raises for each image one after the other, (T, N)."""
        with torch.no_grad():
            logits = batch.model(batch.images)
        classes = logits.shape[1]
        others = logits.scatter(1, batch.labels[:, None], -torch.inf).argsort(dim=1, descending=True).T
        if self.targets:
            return targeted_dlr if classes > 3 else targeted_margin, others[: min(self.targets, classes - 1)]
        # Two classes leave the ratio nothing to divide by; their difference of logits is the log-odds.
        untargeted = loss_named("ce" if self.loss == "dlr" and classes < 3 else self.loss)
        return lambda logits_NC, labels_N, _: untargeted(logits_NC, labels_N), others[:1]


def checkpoints(steps: int) -> list[int]:
    """Return the steps after which the step size is looked at (section 3 of the paper).

    >>> checkpoints(100)
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    before, share, found = 0.0, 0.22, []
    while share <= 1 + 1e-9:
        found.append(ceil(share * steps - 1e-9))
        before, share = share, share + max(share - before - 0.03, 0.06)
    return sorted(set(found))


class _Climb:
    """One start of APGD on a batch. Every tensor has a row for each image that is still carried along."""

    def __init__(
        self,
        batch: Batch,
        net: FirstLayer | Whole,
        radius: Tensor,
        start: Tensor,
        norm: Norm,
        loss: AimedLoss,
        target: Tensor,
    ) -> None:
        self.model, self.net, self.norm, self.loss = batch.model, net, norm, loss
        self.own = batch.gradient_model is batch.model
        self.images, self.labels, self.target, self.radius = batch.images, batch.labels, target, radius
        self.result = (batch.images + start * per_image(radius, start)).clamp_(0, 1)
        self.fooled = torch.zeros_like(radius, dtype=torch.bool)
        self.rows = torch.arange(len(radius), device=radius.device)
        self.current, self.previous = self.result, self.result
        self.step = 2 * radius
        self.rises = torch.zeros_like(self.labels)
        self.halved = torch.ones_like(self.fooled)  # so that the first checkpoint asks for rises only
        self.gradient, self.value = self._look()
        self.best, self.best_gradient = self.current.clone(), self.gradient.clone()
        self.best_value, self.checked_value = self.value.clone(), self.value.clone()

    def run(self, steps: int) -> tuple[Tensor, Tensor]:
        """Return a point for each image, one that fools where there was one, and whether there was, bool (N,)."""
        checked, last = set(checkpoints(steps)), 0
        for taken in range(1, steps + 1):
            self._drop_fooled()
            if not len(self.rows):
                break
            self._move(1.0 if taken == 1 else MOMENTUM)
            gradient, value = self._look(gradient=taken < steps)
            self._keep_best(gradient, value)
            if taken in checked:
                self._check(taken - last)
                last = taken
        lost = ~self.fooled[self.rows]
        self.result[self.rows[lost]] = self.best[lost]
        return self.result, self.fooled

    def _move(self, momentum: float) -> None:
        """Step along the gradient, then towards there and on as before; both times back into the ball and [0, 1]."""
        moved = self.norm.direction(self.gradient).mul_(per_image(self.step, self.images)).add_(self.current)
        moved = self._project(moved)
        rest = 1 - momentum
        if rest:
            moved.mul_(momentum).add_(self.current, alpha=2 * rest).sub_(self.previous, alpha=rest)
            moved = self._project(moved)
        self.previous, self.current = self.current, moved

    def _project(self, points: Tensor) -> Tensor:
        return self.norm.project(points.sub_(self.images), self.radius).add_(self.images).clamp_(0, 1)

    def _look(self, *, gradient: bool = True) -> tuple[Tensor, Tensor]:
        """Return the gradient of the loss and its value, (N,), where the images are, and note which of them fool."""

        def loss(logits: Tensor, labels: Tensor) -> Tensor:
            return self.loss(logits, labels, self.target)

        slope = self.current
        with torch.no_grad():
            passed = self.net.passed(self.current)
        if gradient:
            slope, logits = self.net.slope(passed, self.labels, loss)
        with torch.no_grad():
            logits = logits if gradient else self.net.logits(passed)
            decides = logits if self.own else self.model(self.current)
        new = is_fooled(decides, self.labels) & ~self.fooled[self.rows]
        self.result[self.rows[new]] = self.current[new]
        self.fooled[self.rows[new]] = True
        return slope, loss(logits, self.labels)

    def _keep_best(self, gradient: Tensor, value: Tensor) -> None:
        self.rises += value > self.value
        better = (value > self.best_value).nonzero().squeeze(1)
        self.best[better], self.best_gradient[better] = self.current[better], gradient[better]
        self.best_value[better] = value[better]
        self.gradient, self.value = gradient, value

    def _check(self, steps: int) -> None:
        """Halve the step and go back to the best point where the loss rises too seldom, or where it has found nothing
        higher with the step that it has (conditions 1 and 2 of the paper)."""
        stuck = ~self.halved & (self.best_value <= self.checked_value)
        halve = (self.rises < RHO * steps) | stuck
        self.step = torch.where(halve, self.step / 2, self.step)
        back = halve.nonzero().squeeze(1)
        self.current = self.current.index_copy(0, back, self.best[back])
        self.gradient = self.gradient.index_copy(0, back, self.best_gradient[back])
        self.value = torch.where(halve, self.best_value, self.value)
        self.halved, self.checked_value = halve, self.best_value.clone()
        self.rises.zero_()

    def _drop_fooled(self) -> None:
        """Carry only the others along, once enough are fooled."""
        alive = ~self.fooled[self.rows]
        if int((~alive).sum()) <= COMPACT * len(alive) and alive.any():
            return
        for name in (
            "images", "labels", "target", "radius", "rows", "current", "previous", "gradient", "value", "best",
            "best_gradient", "best_value", "checked_value", "step", "rises", "halved",
        ):  # fmt: skip
            setattr(self, name, getattr(self, name)[alive])


def apgd(*, loss: str = "ce", steps: int = 100, restarts: int = 1, norm: str = "linf") -> ApgdAttack:
    """Auto-PGD on the cross-entropy or the difference-of-logits ratio (Croce & Hein 2020, algorithm 1).

    Any point on the way that fools counts. With two classes the ratio is not defined; their difference of logits is
    climbed instead, which is the log-odds of ``ce``.

    Args:
        loss: ``ce`` (APGD-CE) or ``dlr`` (APGD-DLR); both as in :mod:`robustness.losses`.
        steps: gradient steps from each start.
        restarts: random starts.
        norm: ``linf`` or ``l2``.

    Raises:
        InputError: a value that makes no attack.

    Example:
        >>> import torch
        >>> from robustness import apgd, attack_curve
        >>> model = torch.nn.Flatten()  # three pixels; the brightest is the class
        >>> images = torch.tensor([[0.6, 0.4, 0.0], [0.2, 0.8, 0.0]]).reshape(2, 1, 1, 3)
        >>> labels = torch.tensor([0, 1])
        >>> attack_curve(model, images, labels, [0.09, 0.101, 0.301], apgd(loss="dlr")).accuracy
        tensor([1.0000, 0.5000, 0.0000], dtype=torch.float64)
    """
    return ApgdAttack(name=f"apgd-{loss}", loss=loss, steps=steps, restarts=restarts, norm=norm)


def apgd_targeted(*, targets: int = 9, steps: int = 100, restarts: int = 1, norm: str = "linf") -> ApgdAttack:
    """Auto-PGD aimed at one other class after the other, the likeliest first (Croce & Hein 2020, APGD-T).

    It climbs the targeted difference-of-logits ratio (eq. 7 there). That needs four classes; with fewer the difference
    itself is climbed.

    Args:
        targets: classes to aim at; all others where there are fewer.
        steps: gradient steps from each start.
        restarts: random starts.
        norm: ``linf`` or ``l2``.

    Raises:
        InputError: a value that makes no attack.

    Example:
        >>> import torch
        >>> from robustness import apgd_targeted, attack_curve
        >>> model = torch.nn.Flatten()  # four pixels; the brightest is the class
        >>> images = torch.tensor([[0.6, 0.4, 0.0, 0.1], [0.2, 0.8, 0.0, 0.1]]).reshape(2, 1, 2, 2)
        >>> labels = torch.tensor([0, 1])
        >>> attack_curve(model, images, labels, [0.09, 0.101, 0.301], apgd_targeted()).accuracy
        tensor([1.0000, 0.5000, 0.0000], dtype=torch.float64)
    """
    return ApgdAttack(name="apgd-t", loss="dlr-targeted", steps=steps, restarts=restarts, norm=norm, targets=targets)
