"""The case that an audit examines: a network, images, and the attacks of a table with the gradient that they follow.

All attacks of a case are on the same images, so two are compared image by image: one *beats* the other if it leaves
an accuracy lower by more than a margin and by more than chance (one-sided exact McNemar test at :data:`LEVEL`).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from robustness.approximations import Approximated
from robustness.attacks import Attack, Batch, GradientAttack, Perturber, SingleAttack, input_gradient, pgd
from robustness.comparison import binomial_tail
from robustness.curves import attack_curve
from robustness.ensembles import Ensemble
from robustness.inputs import evaluating, seeded
from robustness.intervals import paired_bootstrap
from robustness.losses import AttackLoss
from robustness.norms import norm_named, unit_noise
from robustness.square import SquareAttack
from robustness.substitute import agreement, substitute
from robustness.yardstick import yardstick

MARGIN = 0.01
LEVEL = 0.01


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is audited: a network, the images, and the attacks with the gradient that they follow.

    The attributes are the arguments of :func:`robustness.masking.audit`.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    eps: float
    attacks: tuple[Attack, ...]
    radii: tuple[float, ...]
    raw: bool
    gradient_model: nn.Module | None
    gradient: str
    surrogate: nn.Module | None
    surrogate_name: str
    queries: int
    batch_size: int
    seed: int
    varied: GradientAttack | None = None

    @property
    def norm(self) -> str:
        """The norm of the ball."""
        return self.attacks[0].norm

    @cached_property
    def attack(self) -> GradientAttack:
        """The attack of many steps that the checks vary: the last audited one, else ``varied``, else PGD."""
        kinds = (a for a in reversed(self.attacks) if isinstance(a, GradientAttack) and a.steps > 1)
        return max(kinds, key=lambda attack: attack.random_start, default=self.varied or pgd(norm=self.norm))

    @cached_property
    def fooled(self) -> Tensor:
        """Which images the audited attacks that follow a gradient fool, as the table counts them, bool, shape (N,)."""
        following = [attack for attack in self.attacks if attack.needs_gradient] or [self.attack]
        return self.any_of(following, table=True)

    @cached_property
    def stronger(self) -> Tensor:
        """Which images the audited attacks or the yardstick fool, bool, shape (N,)."""
        found = self.fooled.clone()
        left = (~found).nonzero().squeeze(1)
        if len(left):
            rest = replace(self, images=self.images[left], labels=self.labels[left])
            found[left] = rest.fooled_by(self.yardstick)
        return found

    @cached_property
    def yardstick(self) -> Ensemble:
        """What the audited attacks are held against."""
        return yardstick(self.attacks, norm=self.norm, classes=self.classes)

    @cached_property
    def blind(self) -> tuple[str, Tensor]:
        """The name of the audited attacks without a gradient, or Square, and which images they fool.

        Raises:
            InputError: Square does not take these images.
        """
        blind = [attack for attack in self.attacks if not attack.needs_gradient]
        if blind:
            return " or ".join(attack.name for attack in blind), self.any_of(blind, table=True)
        return f"Square ({self.queries} queries)", self.fooled_by(SquareAttack(queries=self.queries, norm=self.norm))

    @property
    def sees_black_box(self) -> bool:
        """Whether there is an attack without a gradient to compare with."""
        return not all(a.needs_gradient for a in self.attacks) or self.images.ndim == 4

    @cached_property
    def other(self) -> tuple[str, nn.Module]:
        """Another network whose gradient can be tried, and what it is."""
        if self.surrogate is not None:
            return self.surrogate_name or "the surrogate", self.surrogate
        found = substitute(self.model, self.images, reach=2 * self.eps, seed=self.seed)
        share = agreement(self.model, found, self.images)
        return f"a substitute trained on the network's answers (it agrees on {100 * share:.0f} % of the images)", found

    @cached_property
    def passes(self) -> Tensor:
        """The logits of all images in three passes, float, shape (3, N, C)."""
        with torch.no_grad(), evaluating(self.model), seeded(self.seed, self.images.device):
            parts = [[self.model(x) for x in self.images.split(self.batch_size)] for _ in range(3)]
        return torch.stack([torch.cat(part) for part in parts])

    @cached_property
    def random(self) -> bool:
        """Whether the network answers differently from pass to pass, beyond rounding."""
        first = self.passes[0]
        return bool((self.passes - first).abs().max() > 1e-4 * first.abs().max())

    @cached_property
    def wrong(self) -> Tensor:
        """Which images are misclassified as they are, bool, shape (N,)."""
        return self.curve(self.attack, [0.0])[0]

    def any_of(self, attacks: Sequence[Attack], *, table: bool = False) -> Tensor:
        """Return which images one of ``attacks`` fools within eps, bool, shape (N,); for the ``table`` as its curve
        counts them, in which what fools within less counts too."""
        radii = (*self.radii, self.eps) if table and not self.raw else (self.eps,)
        found = [self.curve(attack, radii, raw=table and self.raw)[-1] for attack in attacks]
        return torch.stack(found).any(0)

    @cached_property
    def right_images(self) -> tuple[Tensor, Tensor]:
        """The images and labels that the network gets right."""
        right = ~self.wrong.to(self.images.device)
        return self.images[right], self.labels[right.to(self.labels.device)]

    @property
    def classes(self) -> int:
        """The number of outputs."""
        return self.passes.shape[2]

    @cached_property
    def exact(self) -> "Case":
        """The same case in float64.

        Raises:
            RuntimeError: the networks insist on another precision.
        """
        # Copied together: a backward pass around the network itself must stay around it.
        model, follow = copy.deepcopy((self.model, self.gradient_model))
        return replace(
            self,
            model=model.double(),
            gradient_model=None if follow is None else follow.double(),
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
        if isinstance(gradient_model, Approximated) and divisor != 1:
            gradient_model = Approximated(
                _Divided(gradient_model.inner, divisor), eot=gradient_model.eot, bpda=gradient_model.bpda
            )
        elif gradient_model is not None and divisor != 1:
            gradient_model = _Divided(gradient_model, divisor)
        return attack_curve(
            model,
            self.images,
            self.labels,
            eps,
            attack,
            gradient_model=gradient_model,
            gradient=self.gradient if follow is None else "transfer",
            raw=raw,
            batch_size=self.batch_size,
            seed=self.seed,
        ).fooled

    def gradients(self, model: nn.Module, loss: AttackLoss) -> Tensor:
        """Return the gradients by the pixels of the images that the network gets right, shape (n, pixels)."""
        with evaluating(model), seeded(self.seed, self.images.device):
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

    def points(self, fooled: Tensor, over: Tensor) -> tuple[float, float]:
        """Return the 95 % interval of :meth:`gain`, over images."""
        return paired_bootstrap(fooled.double().numpy(), over.double().numpy(), seed=self.seed, resamples=2000)

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
class NoiseAttack(SingleAttack):
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
