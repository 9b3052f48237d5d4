"""Attacks one after the other, the cheap ones first: what one has fooled, the next need not try."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from alignscape.errors import InputError
from robustness.approximations import Approximated
from robustness.attacks import Attack, Batch, Perturber
from robustness.auto_pgd import apgd, apgd_targeted
from robustness.fast_boundary import fab
from robustness.norms import norm_named
from robustness.square import SquareAttack

STRONG_STEPS = 20  # on a CIFAR-10 and an MNIST network 100 steps found no more: docs/robustness.md


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Several attacks as one: an image counts as fooled when any of them fools it.

    On a nested curve the first goes through all eps; the others are asked about each image at the largest eps that it
    still withstands, and about a smaller one only if they fool it there. So an image costs them one failure, however
    many eps there are.

    Attributes:
        name: what the tables call it.
        members: the attacks, in the order in which they are tried; at least one.
        norm: of all members.
        loss: of each, for the tables.
        steps: the sum of theirs, for the tables; None where one has none.
        restarts: all starts of all members, each of which is a turn of its own.
        needs_gradient: whether any member follows one.
        targets: 0; its members may aim.

    Raises:
        InputError: no members, or members of different norms.

    Example:
        >>> from robustness import Ensemble, apgd, pgd
        >>> both = Ensemble(name="both", members=(pgd(restarts=5), apgd(loss="dlr")))
        >>> both.loss, both.steps, both.restarts
        ('ce+dlr', 110, 6)
    """

    name: str
    members: Sequence[Attack]
    targets: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if not self.members:
            raise InputError(f"{self.name} has no attacks")
        if len({member.norm for member in self.members}) > 1:
            raise InputError(f"the attacks of {self.name} have different norms")
        norm_named(self.norm)

    @property
    def norm(self) -> str:
        return self.members[0].norm

    @property
    def loss(self) -> str:
        return "+".join(dict.fromkeys(member.loss for member in self.members))

    @property
    def steps(self) -> int | None:
        steps = [member.steps for member in self.members]
        return None if None in steps else sum(filter(None, steps))

    @property
    def restarts(self) -> int:
        return len(self._turns)

    @property
    def needs_gradient(self) -> bool:
        return any(member.needs_gradient for member in self.members)

    @property
    def _turns(self) -> list[tuple[Attack, int]]:
        return [(member, restart) for member in self.members for restart in range(member.restarts)]

    def on(self, batch: Batch, *, restart: int, stop_when_fooled: bool) -> Perturber:
        """Return the perturber of one start of one member.

        Raises:
            InputError: another model's gradient is to be followed, which not every member does.
        """
        blind = [member.name for member in self.members if not member.needs_gradient]
        followed = batch.gradient_model
        inner = followed.inner if isinstance(followed, Approximated) else followed
        if blind and inner is not batch.model:
            raise InputError(f"{self.name} has {blind[0]}, which follows no gradient: use strong with another's")
        member, own = self._turns[restart]
        return member.on(batch, restart=own, stop_when_fooled=stop_when_fooled)


def strong(*, steps: int = STRONG_STEPS, restarts: int = 1, norm: str = "linf") -> Ensemble:
    """APGD-CE, then APGD-DLR on what is left: nearly as strong as :func:`auto_attack` and far cheaper.

    Args:
        steps: gradient steps of each.
        restarts: random starts of each.
        norm: ``linf`` or ``l2``.

    Raises:
        InputError: a value that makes no attack.

    Example:
        >>> import torch
        >>> from robustness import attack_curve, strong
        >>> model = torch.nn.Flatten()  # three pixels; the brightest is the class
        >>> images = torch.tensor([[0.6, 0.4, 0.0], [0.2, 0.8, 0.0]]).reshape(2, 1, 1, 3)
        >>> labels = torch.tensor([0, 1])
        >>> curve = attack_curve(model, images, labels, [0.09, 0.101, 0.301], strong())
        >>> curve.attack, curve.accuracy.tolist()
        ('strong', [1.0, 0.5, 0.0])
    """
    members = [apgd(loss=loss, steps=steps, restarts=restarts, norm=norm) for loss in ("ce", "dlr")]
    return Ensemble(name="strong", members=tuple(members))


def auto_attack(
    *,
    steps: int = 100,
    targets: int = 9,
    queries: int = 5000,
    restarts: int = 1,
    norm: str = "linf",
) -> Ensemble:
    """AutoAttack's standard ensemble: APGD-CE, APGD-T, FAB-T and Square, each on what is left (Croce & Hein 2020).

    FAB finds distances, so that it runs once for all eps.

    Args:
        steps: gradient steps from each start, towards each target.
        targets: classes that APGD-T and FAB-T aim at, the likeliest first; all others where there are fewer.
        queries: of Square.
        restarts: starts of each attack.
        norm: ``linf`` or ``l2``.

    Raises:
        InputError: a value that makes no attack.

    Example:
        >>> from robustness import auto_attack
        >>> [member.name for member in auto_attack().members]
        ['apgd-ce', 'apgd-t', 'fab', 'square']
    """
    members = (
        apgd(steps=steps, restarts=restarts, norm=norm),
        apgd_targeted(targets=targets, steps=steps, restarts=restarts, norm=norm),
        fab(targets=targets, steps=steps, restarts=restarts, norm=norm),
        SquareAttack(queries=queries, restarts=restarts, norm=norm),
    )
    return Ensemble(name="auto", members=members)
