"""``spectrum``: the density of all eigenvalues of the Hessian."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from alignscape.settings import Only, at_least, between, setting
from reports.analyses.analysis import Found, Show, silent
from reports.analyses.curvature import CurvatureByGroup
from reports.analyses.groups import spectrum_rows
from reports.analyses.section import Drawing, Section
from reports.schema import Column, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pandas import DataFrame

    from landscape import SpectralDensity
    from reports.subjects import Subject


@dataclass(frozen=True, kw_only=True)
class Spectrum(CurvatureByGroup):
    """Spectral density of the Hessian by stochastic Lanczos quadrature (Ubaru, Chen and Saad 2017).

    >>> Spectrum(steps=30, probes=2).steps
    30
    """

    name: ClassVar[str] = "spectrum"
    version: ClassVar[int] = 4  # convolutions are multiplied by other kernels, which round differently
    summary: ClassVar[str] = "spectral density of the Hessian by stochastic Lanczos quadrature"
    tables: ClassVar[tuple[Table, ...]] = (
        Table(
            "spectrum",
            (
                Column("probe", "int", "random vector, from 0"),
                Column("node", "float", "Ritz value", "nats"),
                Column("weight", "float", "of the node; those of a probe sum to 1"),
                Column("n_parameters", "int", "size of the matrix"),
                Column("steps", "int", "products asked of each probe", optional=True),
            ),
        ),
        Table(
            "spectrum_groups",
            (
                Column("group", "text", "of parameters, or all that lies between groups", role="key"),
                Column("probe", "int", "random vector, from 0"),
                Column("node", "float", "Ritz value of the group's block", "nats"),
                Column("weight", "float", "of the node; those of a probe sum to 1"),
                Column("n_parameters", "int", "size of the block"),
                Column("steps", "int", "products asked of each probe", optional=True),
            ),
            optional=True,
        ),
    )
    section: ClassVar[Section] = Section(
        heading="Hessian spectrum",
        text="Density of all eigenvalues from stochastic Lanczos quadrature, on an axis that is logarithmic on both "
        "sides of zero. The table holds the raw nodes and weights.",
        drawings=(
            Drawing(
                title="Spectral density",
                caption="The bulk near zero are directions in which the loss hardly changes, the peaks on the right "
                "the few sharp ones.",
                remarks=(
                    (
                        "Red are directions in which the loss bends down.",
                        lambda table: "node" in table and bool((table["node"] < 0).any()),
                    ),
                ),
                panel_each=True,
                draw="reports.figures:spectrum",
                stem="spectrum",
            ),
        ),
    )

    steps: int | None = setting(
        None, "Hessian-vector products a probe", metavar="M", check=at_least(1), default_text="100"
    )
    probes: int | None = setting(None, "random directions", metavar="N", check=at_least(1), default_text="3")
    accuracy: float | None = setting(
        None,
        "choose steps and probes so that the Wasserstein-1 error is at most T times the range of the spectrum, with "
        "probability 0.95 (12/T steps)",
        metavar="T",
        check=between(0, 1, low_open=True, high_open=True),
        default_text="as --steps and --probes say",
        only=Only("--steps or --probes left out", lambda one: one.steps is None or one.probes is None),
    )

    def compute(self, subject: "Subject", show: Show = silent) -> Found:
        """Estimate the density of one network's Hessian."""
        from landscape import Blocks, SpectralDensity, slq_budget, slq_density

        operator = self.operator(subject)
        blocks = None if self.by is None else Blocks(operator, self.by)  # here: what matches nothing is told at once
        steps, probes = (100, 3) if self.accuracy is None else slq_budget(operator.dim, error=self.accuracy)
        density = slq_density(
            operator,
            steps=self.steps or steps,
            probes=self.probes or probes,
            seed=self.seed,
            progress=show(f"{subject.name}: spectrum", "product"),
        )
        tables, checks = {"spectrum": density.frame()}, [_summary(density)]
        if blocks is not None:
            told = show(f"{subject.name}: spectra by group", "group")
            budget = {"steps": self.steps or steps, "probes": self.probes or probes}
            rows = spectrum_rows(blocks, **budget, cross=self.cross, seed=self.seed, progress=told)
            tables["spectrum_groups"] = rows[["group", *tables["spectrum"].columns]]
            checks = [{"group": "all", **checks[0]}]
            checks += [{"group": group, **_summary(SpectralDensity.from_frame(own))} for group, own in _by_group(rows)]
        return Found(tables=tables, checks=checks)

    @property
    def asked_for(self) -> tuple[str, ...]:
        return ("spectrum_groups",) if self.by is not None else ()


def _by_group(rows: "DataFrame") -> "Iterator[tuple[str, DataFrame]]":
    yield from rows.groupby("group", sort=False)  # type: ignore[misc]  # pandas does not know that it is text


def _summary(density: "SpectralDensity") -> dict[str, Any]:
    """Return the range, and the share of eigenvalues that are clearly negative: below minus one width of the
    smoothing Gaussian, 1 % of the range."""
    below, zero = density.share_below(-density.width), density.mass_at_zero()
    return {
        "parameters": density.dim,
        "smallest": float(density.nodes.min()),
        "largest": float(density.nodes.max()),
        "width": density.width,
        "share < -width": below.value,
        "ci_low": below.ci_low,
        "ci_high": below.ci_high,
        "share = 0": zero.value,
        "at most": zero.ci_high,
        "n_hvp": density.n_products,
    }
