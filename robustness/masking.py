"""The audit: is the gradient that an attack followed worth following?

A masked gradient makes a weak network look robust (Athalye, Carlini & Wagner 2018; Carlini et al. 2019). Each check
looks for one symptom of it and tells the number that it measured; none of them proves robustness.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import pandas as pd
from torch import Tensor, nn

from alignscape.errors import InputError
from robustness.attacks import Attack, GradientAttack, pgd
from robustness.case import Case
from robustness.inputs import check_batch_size, check_eps, check_images, check_model
from robustness.norms import norm_named
from robustness.symptoms import CHECKS, AuditLine


@dataclass(frozen=True, kw_only=True)
class Audit:
    """All checks of one network under one gradient mode at one eps; made by :func:`audit`.

    Attributes:
        gradient: whose gradient was followed: ``true``, ``feedback`` or ``transfer``.
        eps: radius in pixel units.
        n_samples: images.
        accuracy: on the images as they are, 0 to 1.
        robust_accuracy: that the audited attack leaves.
        lines: one a check.

    Example:
        >>> from robustness import Audit, AuditLine
        >>> line = AuditLine(check="attack beats noise", verdict="warn", value=0.0, threshold=0.01, message="...")
        >>> found = Audit(gradient="true", eps=0.1, n_samples=50, accuracy=0.9, robust_accuracy=0.9, lines=(line,))
        >>> found.passed
        False
        >>> found.summary
        'do not trust this curve: 1 of 1 checks warn (attack beats noise; gradient true, eps 0.1, 50 images)'
    """

    gradient: str
    eps: float
    n_samples: int
    accuracy: float
    robust_accuracy: float
    lines: tuple[AuditLine, ...]

    @property
    def passed(self) -> bool:
        """Whether no check warns."""
        return all(line.verdict != "warn" for line in self.lines)

    @property
    def summary(self) -> str:
        """One line: the verdict, and the checks that warn."""
        warned = [line.check for line in self.lines if line.verdict == "warn"]
        tried = sum(line.verdict != "skipped" for line in self.lines)
        where = f"gradient {self.gradient}, eps {self.eps:g}, {self.n_samples} images"
        if not warned:
            found = f"no sign of a masked gradient in {tried} checks ({where})"
        else:
            found = f"do not trust this curve: {len(warned)} of {tried} checks warn ({', '.join(warned)}; {where})"
        return "; ".join([found, *self._more()])

    def _more(self) -> list[str]:
        """What else a verdict says: how many checks do not tell, and how much more a stronger attack takes."""
        unsure = sum(line.verdict == "inconclusive" for line in self.lines)
        gaps = [line for line in self.lines if line.check == "attack has converged" and line.verdict != "skipped"]
        return [f"{unsure} inconclusive"] * (unsure > 0) + [
            f"a stronger attack takes {100 * gap.value:.1f} points more "
            f"[{100 * gap.ci_low:.1f}, {100 * gap.ci_high:.1f}]"
            for gap in gaps
        ]

    def frame(self) -> pd.DataFrame:
        """Return one row a check: ``gradient, eps, check, verdict, value, ci_low, ci_high, threshold, message, means,
        n_samples``."""
        columns = ["check", "verdict", "value", "ci_low", "ci_high", "threshold", "message", "means"]
        frame = pd.DataFrame([asdict(line) for line in self.lines])[columns]
        frame.insert(0, "gradient", self.gradient)
        frame.insert(1, "eps", self.eps)
        return frame.assign(n_samples=self.n_samples)


def audit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    attacks: Sequence[Attack] = (),
    radii: Sequence[float] = (),
    raw: bool = False,
    gradient_model: nn.Module | None = None,
    gradient: str = "true",
    surrogate: nn.Module | None = None,
    surrogate_name: str = "",
    queries: int = 1000,
    batch_size: int = 1000,
    seed: int = 0,
    varied: GradientAttack | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Look for masked gradients in attacks on ``model``.

    The audited accuracy is the one that those of ``attacks`` that follow a gradient leave together; those that follow
    none are what they must beat. The yardstick is :func:`robustness.yardstick.yardstick`.

    Args:
        model: logits (N, C) from pixels in [0, 1]; decides what is fooled.
        images: pixels, shape (N, ...).
        labels: int64, shape (N,).
        eps: radius in pixel units, more than 0.
        attacks: under audit, of one norm; PGD if there are none.
        radii: of the nested curve that is audited: what fools within less than eps counts at eps.
        raw: audit last iterates at eps alone.
        gradient_model: its backward pass gives the direction; ``model`` if None. An :class:`Approximated` of the model
            counts as its true gradient.
        gradient: the label of that choice: ``true``, ``feedback`` or ``transfer``.
        surrogate: another network of the same task, for the transfer check; if None, a substitute is trained on the
            answers of ``model``.
        surrogate_name: what messages call it.
        queries: of Square, where no attack without a gradient is given; only of images.
        batch_size: images at once.
        seed: of every random choice.
        varied: what the checks vary where none of ``attacks`` takes many plain steps; PGD if None.
        progress: called with (checks done, checks in all).

    Raises:
        InputError: as :func:`robustness.attack_curve`; an eps of 0; attacks of several norms.

    References: Athalye, Carlini & Wagner 2018, section 4; Carlini et al., "On evaluating adversarial robustness", 2019.

    Example:
        >>> import torch
        >>> from robustness import audit
        >>> class Rounded(torch.nn.Module):
        ...     def forward(self, x):  # the brightest of three pixels, whose gradient is zero
        ...         return (x * 20).round().flatten(1)
        >>> images = torch.rand(60, 1, 1, 3, generator=torch.Generator().manual_seed(0))
        >>> found = audit(Rounded(), images, images.flatten(1).argmax(1), eps=0.1)
        >>> found.passed
        False
        >>> [line.check for line in found.lines if line.verdict == "warn"][:3]
        ['gradients do not vanish', 'gradient beats black box', 'own gradient beats transfer']
    """
    attacks = tuple(attacks) or (pgd(),)
    check_images(images, labels)
    check_batch_size(batch_size)
    check_model(model)
    if len({attack.norm for attack in attacks}) > 1:
        raise InputError("an audit is of attacks of one norm")
    check_eps([eps], norm_named(attacks[0].norm), images[0].numel())
    if eps == 0:
        raise InputError("an audit needs an eps above 0")
    case = Case(
        model=model,
        images=images,
        labels=labels,
        eps=eps,
        attacks=attacks,
        radii=tuple(radius for radius in radii if radius < eps),
        raw=raw,
        gradient_model=gradient_model,
        gradient=gradient,
        surrogate=surrogate,
        surrogate_name=surrogate_name,
        queries=queries,
        batch_size=batch_size,
        seed=seed,
        varied=varied,
    )
    lines = []
    for done, check in enumerate(CHECKS, start=1):
        lines.append(check(case))
        if progress is not None:
            progress(done, len(CHECKS))
    return Audit(
        gradient=gradient,
        eps=eps,
        n_samples=len(labels),
        accuracy=case.share_right(case.wrong),
        robust_accuracy=case.share_right(case.fooled),
        lines=tuple(lines),
    )
