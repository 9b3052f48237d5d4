"""The case that an audit examines: a network, images, and the PGD attack with the gradient that it follows.

All attacks of a case are on the same images, so two are compared image by image: one *beats* the other if it leaves
an accuracy lower by more than a margin and by more than chance (one-sided exact McNemar test at :data:`LEVEL`).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from robustness.attacks import Attack, Batch, GradientAttack, Perturber, input_gradient
from robustness.comparison import binomial_tail
from robustness.curves import attack_curve
from robustness.inputs import evaluating
from robustness.losses import AttackLoss
from robustness.norms import norm_named, unit_noise

MARGIN = 0.01
LEVEL = 0.01


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is audited: a network, the images, and the PGD attack with the gradient that it follows.

    The attributes are the arguments of :func:`robustness.masking.audit`.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    eps: float
    attack: GradientAttack
    gradient_model: nn.Module | None
    gradient: str
    surrogate: nn.Module | None
    queries: int
    batch_size: int
    seed: int

    @cached_property
    def fooled(self) -> Tensor:
        """Which images the audited attack fools, bool, shape (N,)."""
        return self.fooled_by(self.attack)

    @cached_property
    def wrong(self) -> Tensor:
        """Which images are misclassified as they are, bool, shape (N,)."""
        return self.curve(self.attack, [0.0])[0]

    @cached_property
    def right_images(self) -> tuple[Tensor, Tensor]:
        """The images and labels that the network gets right."""
        right = ~self.wrong.to(self.images.device)
        return self.images[right], self.labels[right.to(self.labels.device)]

    @cached_property
    def classes(self) -> int:
        """The number of outputs."""
        with torch.no_grad(), evaluating(self.model):
            return self.model(self.images[:1]).shape[1]

    @cached_property
    def exact(self) -> "Case":
        """The same case in float64.

        Raises:
            RuntimeError: the networks insist on another precision.
        """
        follow = self.gradient_model
        return replace(
            self,
            model=copy.deepcopy(self.model).double(),
            gradient_model=None if follow is None else copy.deepcopy(follow).double(),
            images=self.images.double(),
        )

    def fooled_by(
        self, attack: Attack, *, eps: float | None = None, follow: nn.Module | None = None, divisor: float = 1
    ) -> Tensor:
        """Return which images ``attack`` fools within ``eps``, bool, shape (N,)."""
        return self.curve(attack, [self.eps if eps is None else eps], follow=follow, divisor=divisor)[-1]

    def curve(
        self,
        attack: Attack,
        eps: Sequence[float],
        *,
        follow: nn.Module | None = None,
        divisor: float = 1,
        raw: bool = False,
    ) -> Tensor:
        """Return which images ``attack`` fools at each eps, bool, shape (E, N).

        ``follow`` replaces the network whose gradient is followed; ``divisor`` divides the logits of all.
        """
        gradient_model = self.gradient_model if follow is None else follow
        model = self.model if divisor == 1 else _Divided(self.model, divisor)
        if gradient_model is not None and divisor != 1:
            gradient_model = _Divided(gradient_model, divisor)
        return attack_curve(
            model,
            self.images,
            self.labels,
            eps,
            attack,
            gradient_model=gradient_model,
            gradient="true" if gradient_model is None else "feedback" if follow is None else "transfer",
            raw=raw,
            batch_size=self.batch_size,
            seed=self.seed,
        ).fooled

    def gradients(self, model: nn.Module, loss: AttackLoss) -> Tensor:
        """Return the gradients by the pixels of the images that the network gets right, shape (n, pixels)."""
        with evaluating(model):
            parts = [
                input_gradient(model, x, y, loss)[0].flatten(1)
                for x, y in zip(*(part.split(self.batch_size) for part in self.right_images), strict=True)
            ]
        return torch.cat(parts)

    @staticmethod
    def share_right(fooled: Tensor) -> float:
        """Return the accuracy that ``fooled`` leaves."""
        return 1 - fooled.double().mean().item()

    def gain(self, fooled: Tensor, over: Tensor) -> float:
        """Return how much lower the accuracy is that ``fooled`` leaves than the one that ``over`` leaves."""
        return (fooled.double().mean() - over.double().mean()).item()

    def beats(self, fooled: Tensor, over: Tensor, margin: float = MARGIN) -> bool:
        """Return whether ``fooled`` leaves a lower accuracy than ``over`` does, by more than margin and chance."""
        more, fewer = int((fooled & ~over).sum()), int((over & ~fooled).sum())
        return self.gain(fooled, over) > margin and binomial_tail(more, more + fewer) < LEVEL


class _Divided(nn.Module):
    """A network with its logits divided."""

    def __init__(self, inner: nn.Module, divisor: float) -> None:
        super().__init__()
        self.inner, self.divisor = inner, divisor

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) / self.divisor


@dataclass(frozen=True, kw_only=True)
class NoiseAttack:
    """Random corners of the ball (for L2, random points of its surface): what an attack has to beat."""

    restarts: int = 10
    norm: str = "linf"
    name: str = "noise"
    loss: str = "none"
    steps: int = 1
    needs_gradient: bool = False

    def on(self, batch: Batch, *, restart: int, stop_when_fooled: bool) -> Perturber:
        norm = norm_named(self.norm)
        noise = unit_noise(norm, batch.images.shape[1:], batch.numbers, batch.seed, restart).to(batch.images)
        corners = norm.direction(noise)
        return lambda eps, chosen: (batch.images[chosen] + eps * corners[chosen]).clamp(0, 1)
