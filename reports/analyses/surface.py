"""``surface``: the loss over a plane through the weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from alignscape.errors import InputError
from alignscape.memory import require_memory
from alignscape.settings import POSITIVE, Only, at_least, setting
from reports.analyses.analysis import Analysis, Found, Show, samples_setting, silent
from reports.analyses.objective import objective_setting
from reports.analyses.section import Drawing, Section
from reports.schema import LOSS, Table, columns

if TYPE_CHECKING:
    from torch import Tensor

    from landscape import Eigenpairs
    from reports.subjects import Subject

EXTENT = {"eigenvectors": 0.5, "random": 1.0}
PLANE = (*columns("float", "alpha beta", "coordinate in the plane", unit="weight-space distance"), LOSS)


def require_grid(points: Sequence[int]) -> None:
    """Refuse a grid that no memory holds.

    Raises:
        InputError: it has so many points.
    """
    numbers = sum(points) + 3 * math.prod(points)  # the axes; two coordinates and a loss
    words = " x ".join(f"{n:,}" for n in points)
    require_memory({"grid": 8 * numbers}, f"a grid of {words} points", "ask for fewer (--points)")


@dataclass(frozen=True, kw_only=True)
class Surface(Analysis):
    """Loss over the plane of the top two Hessian eigenvectors, or of two random directions (Li et al. 2018).

    >>> Surface(points=(31,), extent=(0.5, 1)).extent
    (0.5, 1.0)
    """

    name: ClassVar[str] = "surface"
    version: ClassVar[int] = 3  # eigenvectors of convolutions come from other kernels, which round differently
    summary: ClassVar[str] = "loss over the plane of the top two Hessian eigenvectors, or a random one"
    tables: ClassVar[tuple[Table, ...]] = (Table("surface", PLANE),)
    section: ClassVar[Section] = Section(
        heading="Loss surface",
        text="Loss over the plane through the weights that two directions span (the top two Hessian eigenvectors "
        "unless the command below says otherwise).",
        drawings=(
            Drawing(
                title="Contours",
                caption="The cross is the trained network. Contours that lie close together are steep; all panels "
                "share one colour scale.",
                draw="reports.figures:surface",
                stem="surface",
            ),
            Drawing(
                title="The same in three dimensions",
                caption="Height and colour are the loss, on one scale for all panels.",
                draw="reports.figures:surface_3d",
                stem="surface-3d",
            ),
        ),
    )

    samples: int | None = samples_setting(10_000)
    plane: Literal["eigenvectors", "random"] = setting(
        "eigenvectors",
        "eigenvectors: of the two largest Hessian eigenvalues; random: two filter-normalised directions, drawn by the "
        "seed",
    )
    extent: tuple[float, ...] | None = setting(
        None,
        "the grid reaches from -E to E along both axes, or one E for each: weight-space distance for eigenvectors, "
        "multiples of the filters' norms for random directions",
        metavar="E",
        check=POSITIVE,
        default_text="0.5 for eigenvectors, 1 for random directions",
    )
    points: tuple[int, ...] = setting(
        (21,), "grid points along each axis, or one N for each", metavar="N", check=at_least(1)
    )
    loss: str | None = objective_setting()
    params: tuple[str, ...] | None = setting(
        None, "parameters that move, by name, such as 'layers.2.*'", metavar="GLOB", default_text="all"
    )
    tol: float = setting(
        1e-4,
        "residual |Hv - lambda v| to reach, relative to the largest |lambda|",
        metavar="R",
        check=POSITIVE,
        only=Only("--plane eigenvectors", lambda one: one.plane == "eigenvectors"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for flag, values in (("--extent", self.extent or ()), ("--points", self.points)):
            if len(values) > 2:
                raise InputError(f"{flag} takes one value or one for each of the two axes, not {len(values)}")

    def compute(self, subject: "Subject", show: Show = silent) -> Found:
        """Evaluate the surface of one network; ``checks`` hold its curvatures at the centre against the eigenvalues."""
        from landscape import filter_normalised_directions, surface

        loss, targets = subject.objective(self.loss)
        require_grid((self.points * 2)[:2])
        pairs = self._eigenpairs(subject, show) if self.plane == "eigenvectors" else None
        directions = (
            filter_normalised_directions(subject.model, seed=self.seed, params=self.params)
            if pairs is None
            else pairs.vectors
        )
        alphas, betas = self._axes()
        found = surface(
            subject.model,
            loss,
            (subject.images, targets),
            directions,
            alphas=alphas,
            betas=betas,
            eigenvalues=None if pairs is None else pairs.values,
            params=self.params,
            batch_size=self.batch_size,
            transform=subject.normalise,  # batch by batch: the samples stay bytes
            progress=show(f"{subject.name}: surface", "point"),
        )
        check: dict[str, Any] = {"loss": found.centre_loss}
        for k in range(2):
            if pairs is not None:
                check |= {f"eigenvalue_{k + 1}": float(pairs.values[k]), f"residual_{k + 1}": float(pairs.residuals[k])}
            check |= {
                f"hessian_{k + 1}": float(found.hessian[k, k]),
                f"curvature_{k + 1}": float(found.curvature[k]),
                f"error_{k + 1}": float(found.curvature_error[k]),
            }
        checks = {name: None if math.isnan(value) else value for name, value in check.items()}
        return Found(tables={"surface": found.frame()}, checks=[checks])

    def _axes(self) -> "tuple[Tensor, Tensor]":
        """Return the coordinates of both axes."""
        import torch

        extents = self.extent or (EXTENT[self.plane],)
        alpha, beta = (
            torch.zeros(1, dtype=torch.float64) if n == 1 else torch.linspace(-extent, extent, n, dtype=torch.float64)
            for extent, n in zip((extents * 2)[:2], (self.points * 2)[:2], strict=True)
        )
        return alpha, beta

    def _eigenpairs(self, subject: "Subject", show: Show) -> "Eigenpairs":
        from landscape import top_eigenpairs

        loss, targets = subject.objective(self.loss)
        return top_eigenpairs(
            subject.model,
            loss,
            (subject.images, targets),
            k=2,
            tol=self.tol,
            seed=self.seed,
            params=self.params,
            batch_size=self.batch_size,
            transform=subject.normalise,
            progress=show(f"{subject.name}: eigenvectors", "pair"),
        )
