"""The audit: is the gradient that an attack followed worth following?

A masked gradient makes a weak network look robust (Athalye, Carlini & Wagner 2018; Carlini et al. 2019). Each check
looks for one symptom of it and tells the number that it measured; none of them proves robustness.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import pandas as pd
from torch import Tensor, nn

from alignscape.errors import InputError
from robustness.attacks import pgd
from robustness.case import Case
from robustness.inputs import check_eps, check_images
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
            return f"no sign of a masked gradient in {tried} checks ({where})"
        return f"do not trust this curve: {len(warned)} of {tried} checks warn ({', '.join(warned)}; {where})"

    def frame(self) -> pd.DataFrame:
        """Return one row a check: ``gradient, eps, check, verdict, value, threshold, message, n_samples``."""
        frame = pd.DataFrame([asdict(line) for line in self.lines])
        frame.insert(0, "gradient", self.gradient)
        frame.insert(1, "eps", self.eps)
        return frame.assign(n_samples=self.n_samples)


def audit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int = 10,
    norm: str = "linf",
    loss: str = "ce",
    gradient_model: nn.Module | None = None,
    gradient: str = "true",
    surrogate: nn.Module | None = None,
    queries: int = 300,
    batch_size: int = 1000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Look for masked gradients in PGD on ``model``.

    Args:
        model: logits (N, C) from pixels in [0, 1]; decides what is fooled.
        images: pixels, shape (N, ...).
        labels: int64, shape (N,).
        eps: radius in pixel units, more than 0.
        steps: of the PGD under audit.
        norm: ``linf`` or ``l2``; without L-infinity there is no Square to compare with.
        loss: what that PGD climbs.
        gradient_model: its backward pass gives the direction; ``model`` if None.
        gradient: the label of that choice: ``true``, ``feedback`` or ``transfer``.
        surrogate: another network of the same task, for the transfer check; skipped if None.
        queries: of Square.
        batch_size: images at once.
        seed: of every random choice.
        progress: called with (checks done, checks in all).

    Raises:
        InputError: as :func:`robustness.attack_curve`; an eps of 0.

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
        ['gradients do not vanish', 'gradient beats black box', 'attack beats noise']
    """
    check_images(images, labels)
    check_eps([eps], norm_named(norm), images[0].numel())
    if eps == 0:
        raise InputError("an audit needs an eps above 0")
    case = Case(
        model=model,
        images=images,
        labels=labels,
        eps=eps,
        attack=pgd(steps=steps, norm=norm, loss=loss),
        gradient_model=gradient_model,
        gradient=gradient,
        surrogate=surrogate,
        queries=queries,
        batch_size=batch_size,
        seed=seed,
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
