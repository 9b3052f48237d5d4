"""FGSM, BIM and PGD: one loop whose hooks are the start, the step and the projection of a norm ball.

Pixels are floats in [0, 1]; a model that wants normalised inputs normalises inside. Two models take part: the one
that decides whether an image fools (always the plain network), and the one whose backward pass gives the
direction (the same, unless a feedback path or a surrogate is followed on purpose).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from alignscape.errors import InputError
from robustness.losses import AttackLoss, loss_named
from robustness.norms import norm_named, per_image, unit_noise

Perturber = Callable[[float | Tensor, Tensor], Tensor]  # of eps, one for all or one an image, and the images' rows


def one_eps_at_a_time(perturb: Callable[[float, Tensor], Tensor]) -> Perturber:
    """Return a perturber that takes an eps of each image's own, of one that takes one for all."""

    def perturber(eps: float | Tensor, chosen: Tensor) -> Tensor:
        if not isinstance(eps, Tensor):
            return perturb(eps, chosen)
        parts = [(eps == value).nonzero().squeeze(1) for value in eps.unique()]
        found = torch.cat([perturb(float(eps[rows[0]]), chosen[rows]) for rows in parts])
        return found[torch.cat(parts).argsort()]

    return perturber


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images under attack, the network to fool, and the network whose gradient is followed.

    Attributes:
        model: logits (N, C) from pixels in [0, 1]; decides whether an image is fooled.
        gradient_model: gives the direction; the same object as ``model`` for the true gradient.
        images: pixels, shape (N, ...).
        labels: the right answers, int64, shape (N,).
        numbers: of the images in their data set, length N; with ``seed`` they fix each image's random start.
        seed: of every random choice.

    Example:
        >>> import torch
        >>> from robustness import Batch
        >>> model, images, labels = torch.nn.Flatten(), torch.zeros(3, 1, 1, 2), torch.tensor([0, 0, 1])
        >>> batch = Batch(model=model, gradient_model=model, images=images, labels=labels, numbers=range(3))
        >>> batch.take(torch.tensor([0, 2])).numbers
        [0, 2]
    """

    model: nn.Module
    gradient_model: nn.Module
    images: Tensor
    labels: Tensor
    numbers: Sequence[int]
    seed: int = 0

    def take(self, rows: Tensor) -> "Batch":
        """Return the batch of these rows only; each keeps its number."""
        numbers = [self.numbers[row] for row in rows.tolist()]
        return replace(self, images=self.images[rows], labels=self.labels[rows], numbers=numbers)


@runtime_checkable
class Attack(Protocol):
    """What a curve needs to know of an attack: any object that has these.

    Attributes:
        name: what the tables call it.
        norm: ``linf`` or ``l2``.
        loss: what it climbs, for the tables.
        steps: gradient steps or queries from one start, towards one target; None where no one number says it.
        restarts: how often :meth:`on` is asked for another try at what is not fooled.
        needs_gradient: whether it follows one.
        targets: classes that it aims at one after the other, at most as many as are wrong; 0 of one that does not aim.
        members: the attacks that it is made of, in the order of their restarts; itself alone of a
            :class:`SingleAttack`. The first goes through all eps of a nested curve, the others are asked afterwards.

    Example:
        >>> import torch
        >>> from robustness import SingleAttack, attack_curve
        >>> class Darken(SingleAttack):
        ...     name, norm, loss, steps, restarts, needs_gradient = "darken", "linf", "none", 1, 1, False
        ...     def on(self, batch, *, restart, stop_when_fooled):
        ...         return lambda eps, chosen: (batch.images[chosen] - eps).clamp(0, 1)
        >>> threshold = torch.nn.Linear(1, 2).requires_grad_(False)
        >>> _ = threshold.weight.copy_(torch.tensor([[1.0], [-1.0]])), threshold.bias.copy_(torch.tensor([-0.5, 0.5]))
        >>> curve = attack_curve(threshold, torch.tensor([[0.6], [0.9]]), torch.tensor([0, 0]), [0.2, 0.5], Darken())
        >>> curve.accuracy
        tensor([0.5000, 0.0000], dtype=torch.float64)
    """

    @property
    def name(self) -> str: ...
    @property
    def norm(self) -> str: ...
    @property
    def loss(self) -> str: ...
    @property
    def steps(self) -> int | None: ...
    @property
    def restarts(self) -> int: ...
    @property
    def needs_gradient(self) -> bool: ...
    @property
    def targets(self) -> int: ...
    @property
    def members(self) -> "Sequence[Attack]": ...

    def on(self, batch: Batch, *, restart: int, stop_when_fooled: bool) -> Perturber:
        """Do the work that all eps share; return ``f(eps, chosen)``, the perturbed ``batch.images[chosen]``.

        ``eps`` is one number for all, or for the later members of an :class:`~robustness.Ensemble` and for
        :func:`~robustness.minimal_radii` one an image, shape (len(chosen),).
        """


class SingleAttack:
    """What an attack inherits that is not made of others, and aims at no class unless it says so.

    Example:
        >>> from robustness import Attack, SingleAttack
        >>> class Darken(SingleAttack):
        ...     name, norm, loss, steps, restarts, needs_gradient = "darken", "linf", "none", 1, 1, False
        ...     def on(self, batch, *, restart, stop_when_fooled):
        ...         return lambda eps, chosen: (batch.images[chosen] - eps).clamp(0, 1)
        >>> attack = Darken()
        >>> isinstance(attack, Attack), attack.targets, attack.members == (attack,)
        (True, 0, True)
    """

    targets: int = 0

    @property
    def members(self) -> tuple[Self, ...]:
        """The attack itself."""
        return (self,)


@dataclass(frozen=True, kw_only=True)
class GradientAttack(SingleAttack):
    """Parameters of one gradient attack; :func:`fgsm`, :func:`bim` and :func:`pgd` fill them in.

    Attributes:
        name: what the tables call it.
        steps: gradient steps, at least 1.
        relative_step: step size as a multiple of eps; in force when ``step_size`` is None.
        step_size: step size in pixel units, the same at every eps (torchattacks' ``alpha``).
        random_start: start at a random point of the ball rather than at the image.
        restarts: independent random starts; an image counts as fooled when any of them fools.
        norm: ``linf`` or ``l2``.
        loss: a name in :data:`robustness.losses.LOSSES`.
        needs_gradient: always.

    Raises:
        InputError: a value that makes no attack.

    Example:
        >>> from robustness import GradientAttack
        >>> long = GradientAttack(name="pgd-40", steps=40, step_size=0.01, random_start=True, restarts=5)
        >>> long.steps * long.step_size  # how far it can go, in pixel units
        0.4
    """

    name: str
    steps: int = 1
    relative_step: float = 1.0
    step_size: float | None = None
    random_start: bool = False
    restarts: int = 1
    norm: str = "linf"
    loss: str = "ce"
    needs_gradient: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"{self.name} needs at least 1 step, got {self.steps}")
        if self.restarts < 1:
            raise InputError(f"{self.name} needs at least 1 restart, got {self.restarts}")
        if self.restarts > 1 and not self.random_start:
            raise InputError(f"{self.name} has no random start: {self.restarts} restarts would all be the same")
        if self.step_size is not None and not self.step_size > 0:
            raise InputError(f"the step size of {self.name} must be positive, got {self.step_size:g}")
        norm_named(self.norm)
        loss_named(self.loss)

    def steps_for(self, eps_N: Tensor) -> Tensor:
        """Return each image's step size in pixel units, shape (N,)."""
        return eps_N * self.relative_step if self.step_size is None else torch.full_like(eps_N, self.step_size)

    def on(self, batch: Batch, *, restart: int, stop_when_fooled: bool) -> Perturber:
        if self.steps == 1 and not self.random_start:
            return self._one_step(batch)
        start: Tensor | None = None
        if self.random_start:
            noise = unit_noise(norm_named(self.norm), batch.images.shape[1:], batch.numbers, batch.seed, restart)
            start = noise.to(batch.images)
        separate = None if batch.gradient_model is batch.model else batch.gradient_model

        def perturber(eps: float | Tensor, chosen: Tensor) -> Tensor:
            return perturb(
                batch.model,
                batch.images[chosen],
                batch.labels[chosen],
                eps,
                self,
                start=None if start is None else start[chosen],
                gradient_model=separate,
                stop_when_fooled=stop_when_fooled,
            )

        return perturber

    def _one_step(self, batch: Batch) -> Perturber:
        """From the image itself one step needs one gradient for all eps."""
        loss, norm = loss_named(self.loss), norm_named(self.norm)
        gradient, _ = input_gradient(batch.gradient_model, batch.images, batch.labels, loss)
        direction = norm.direction(gradient)

        def perturber(eps: float | Tensor, chosen: Tensor) -> Tensor:
            eps_N = torch.as_tensor(eps).to(batch.images).expand(len(chosen))
            return one_step(batch.images[chosen], direction[chosen], eps_N, self)

        return perturber


def fgsm(*, loss: str = "ce", norm: str = "linf") -> GradientAttack:
    """One step of eps along the sign of the gradient (Goodfellow, Shlens & Szegedy 2015).

    Args:
        loss: what to climb: ``ce``, ``dlr`` or ``ce-saturating`` (see :mod:`robustness.losses`).
        norm: ``linf`` or ``l2``.

    Raises:
        InputError: unknown loss or norm.

    Example:
        >>> import torch
        >>> from robustness import attack_curve, fgsm
        >>> model = torch.nn.Flatten()  # three pixels; the brightest is the class
        >>> images = torch.tensor([[0.6, 0.4, 0.0], [0.2, 0.8, 0.0]]).reshape(2, 1, 1, 3)
        >>> labels = torch.tensor([0, 1])
        >>> attack_curve(model, images, labels, [0, 0.15, 0.35], fgsm()).accuracy
        tensor([1.0000, 0.5000, 0.0000], dtype=torch.float64)
    """
    return GradientAttack(name="fgsm", loss=loss, norm=norm)


def bim(*, steps: int = 10, step_size: float | None = None, loss: str = "ce", norm: str = "linf") -> GradientAttack:
    """Iterated FGSM from the image itself (Kurakin, Goodfellow & Bengio 2017); steps of eps / ``steps``.

    Args:
        steps: gradient steps.
        step_size: in pixel units, the same at every eps; None for eps / ``steps``.
        loss: as for :func:`fgsm`.
        norm: ``linf`` or ``l2``.

    Raises:
        InputError: a value that makes no attack.

    Example:
        >>> import torch
        >>> from robustness import attack_curve, bim
        >>> model = torch.nn.Flatten()  # three pixels; the brightest is the class
        >>> images = torch.tensor([[0.6, 0.4, 0.0], [0.2, 0.8, 0.0]]).reshape(2, 1, 1, 3)
        >>> labels = torch.tensor([0, 1])
        >>> curve = attack_curve(model, images, labels, [0.15, 0.35], bim(steps=5), keep_examples=True)
        >>> curve.examples[0].flatten()  # four of the steps of 0.03 were enough
        tensor([0.4800, 0.5200, 0.1200])
    """
    return GradientAttack(
        name="bim", steps=steps, relative_step=1 / max(steps, 1), step_size=step_size, loss=loss, norm=norm
    )


def pgd(
    *,
    steps: int = 10,
    step_size: float | None = None,
    restarts: int = 1,
    loss: str = "ce",
    norm: str = "linf",
) -> GradientAttack:
    """Projected gradient from a random start (Madry et al. 2018); steps of 2.5 eps / ``steps``.

    Args:
        steps: gradient steps.
        step_size: in pixel units, the same at every eps; None for 2.5 eps / ``steps``.
        restarts: independent random starts; an image counts as fooled when any of them fools.
        loss: as for :func:`fgsm`.
        norm: ``linf`` or ``l2``.

    Raises:
        InputError: a value that makes no attack.

    Example:
        >>> import torch
        >>> from robustness import attack_curve, pgd
        >>> model = torch.nn.Flatten()  # three pixels; the brightest is the class
        >>> images = torch.tensor([[0.6, 0.4, 0.0], [0.2, 0.8, 0.0]]).reshape(2, 1, 1, 3)
        >>> labels = torch.tensor([0, 1])
        >>> attack_curve(model, images, labels, [0.09, 0.15, 0.29], pgd(restarts=2)).accuracy
        tensor([1.0000, 0.5000, 0.5000], dtype=torch.float64)
    """
    return GradientAttack(
        name="pgd",
        steps=steps,
        relative_step=2.5 / max(steps, 1),
        step_size=step_size,
        random_start=True,
        restarts=restarts,
        loss=loss,
        norm=norm,
    )


def is_fooled(logits_NC: Tensor, labels_N: Tensor) -> Tensor:
    """Return whether the prediction differs from the label, bool, shape (N,)."""
    return logits_NC.argmax(1) != labels_N


def input_gradient(
    model: Callable[[Tensor], Tensor], images: Tensor, labels_N: Tensor, loss: AttackLoss
) -> tuple[Tensor, Tensor]:
    """Return the gradient of each image's own loss at its pixels, shape (N, ...), and the logits, (N, C).

    Parameters are left without a gradient.

    Raises:
        InputError: the outputs do not depend on the pixels in a way that autograd can follow.
    """
    with torch.enable_grad():
        leaf = images.detach().requires_grad_()
        logits = model(leaf)
        gradient: Tensor | None = None
        if logits.requires_grad:
            (gradient,) = torch.autograd.grad(loss(logits, labels_N).sum(), leaf, allow_unused=True)
    if gradient is None:
        raise InputError(
            "the model has no gradient to its input (something in it detaches, rounds or runs without autograd); "
            "use the square attack, which needs none"
        )
    return gradient, logits.detach()


def one_step(images: Tensor, direction: Tensor, eps_N: Tensor, attack: GradientAttack) -> Tensor:
    """Return ``images`` moved one step along ``direction``, within each image's ball and [0, 1]."""
    moved = direction * per_image(attack.steps_for(eps_N), images)
    return (images + norm_named(attack.norm).project(moved, eps_N)).clamp(0, 1)


def perturb(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: Tensor | float,
    attack: GradientAttack,
    *,
    start: Tensor | None = None,
    gradient_model: nn.Module | None = None,
    stop_when_fooled: bool = False,
) -> Tensor:
    """Run one attack from one start on a batch and return the perturbed images, shape (N, ...).

    Every image stays within ``eps`` of the original in the attack's norm, and in [0, 1]. The caller holds the
    models in evaluation mode (:func:`robustness.inputs.evaluating`) and has checked the inputs.

    Args:
        model: logits (N, C) from pixels in [0, 1]; decides whether an image is fooled.
        images: pixels, shape (N, ...).
        labels: the right answers, shape (N,).
        eps: radius in pixel units, one for all or one an image, shape (N,).
        attack: what to do.
        start: points of the unit ball, shape (N, ...), scaled by eps to start from; the image itself if None.
        gradient_model: its backward pass gives the direction; ``model`` if None.
        stop_when_fooled: leave an image at the first iterate that fools ``model`` (the start counts); otherwise
            every image goes through all steps and its last iterate is returned.

    Raises:
        InputError: the model has no gradient to its input.

    Example:
        >>> import torch
        >>> from robustness import bim, perturb
        >>> model = torch.nn.Flatten()  # three pixels; the brightest is the class
        >>> images = torch.tensor([[0.6, 0.4, 0.0], [0.2, 0.8, 0.0]]).reshape(2, 1, 1, 3)
        >>> labels = torch.tensor([0, 1])
        >>> moved = perturb(model, images, labels, 0.15, bim())
        >>> model(moved).argmax(1), (moved - images).abs().max()
        (tensor([1, 1]), tensor(0.1500))
    """
    norm, loss = norm_named(attack.norm), loss_named(attack.loss)
    radius = torch.as_tensor(eps, dtype=images.dtype, device=images.device).expand(len(images))
    current = images if start is None else (images + start * per_image(radius, images)).clamp(0, 1)
    result = current.clone()
    active = torch.arange(len(images), device=images.device)
    x, y = images, labels
    for _ in range(attack.steps):
        gradient, logits = input_gradient(gradient_model or model, current, y, loss)
        if stop_when_fooled:
            if gradient_model is not None:
                with torch.no_grad():
                    logits = model(current)
            right = ~is_fooled(logits, y)
            if not right.all():
                result[active] = current
                active, x, y, radius = active[right], x[right], y[right], radius[right]
                current, gradient = current[right], gradient[right]
                if not len(active):
                    return result
        # In place: on a CPU the passes over the pixels cost a quarter of a step of a small network.
        moved = norm.direction(gradient).mul_(per_image(attack.steps_for(radius), x)).add_(current)
        current = norm.project(moved.sub_(x), radius).add_(x).clamp_(0, 1)
    result[active] = current
    return result
