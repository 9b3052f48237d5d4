"""The rows of ``sharpness``: every measure of one network."""

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd
import torch

from alignscape.errors import InputError
from landscape import (
    Ball,
    Estimate,
    HessianOperator,
    LossAround,
    Rescalings,
    extreme_eigenpairs,
    first_order_rise,
    fisher_rao,
    keskar_sharpness,
    minimal_eigenvalue,
    minimal_trace,
    pac_bayes_sigma,
    relative_flatness,
    rescalings,
    worst_case_rise,
)
from landscape.sharpness.congruent import Congruent, along, traced
from landscape.sharpness.losses import interval
from landscape.sharpness.minimal import scale_of
from landscape.sharpness.rescaling import function_change
from reports.analyses.analysis import Show
from reports.analyses.sharpness_settings import SharpnessSettings
from reports.schema import Table
from reports.subjects import Subject

NAN = Estimate(value=math.nan, ci_low=math.nan, ci_high=math.nan)
LINEAR = ("trace", "trace_min", "eigenvalue", "eigenvalue_min", "sam", "sam_worst", "asam", "asam_worst",
          "fisher_rao", "relative_flatness")  # fmt: skip
_COARSE = 0.5  # half-width of a block's trace, relative to it, from which it is measured by itself
_SAME = 1e-6  # relative change of the outputs that counts as none

Row = tuple[str, float, str, Estimate, float]  # measure, radius, layer, value, bound


class Rows:
    """Every measure of one network, in the order of the table.

    Attributes:
        notes: what is to be said of its rescalings.
    """

    def __init__(self, settings: SharpnessSettings, subject: Subject, show: Show, table: Table) -> None:
        self.settings, self.subject, self.show, self.table = settings, subject, show, table
        self.notes: list[str] = []
        order = torch.randperm(len(subject.labels), generator=torch.Generator().manual_seed(settings.seed))
        order = order.to(subject.device)
        self.loss, targets = subject.objective(settings.loss)
        self.data = subject.in_order(order), targets[order]
        self.around = LossAround(
            subject.model,
            self.loss,
            self.data,
            params=settings.params,
            groups=settings.groups or 1,
            batch_size=settings.batch_size,
            transform=subject.normalise,
        )

    def frame(self) -> pd.DataFrame:
        """Return the table."""
        self.progress = self.show(f"{self.subject.name}: sharpness", "measure")
        wanted = self._wanted()
        rows: list[dict[str, Any]] = []
        for done, work in enumerate(wanted):
            begun = time.perf_counter()
            found = list(work())
            seconds = (time.perf_counter() - begun) / max(len(found), 1)
            rows += [self._row(*one, seconds) for one in found]
            if self.progress is not None:
                self.progress(done + 1, len(wanted))
        table = pd.DataFrame(rows).assign(n_samples=self.around.n_samples)
        loss = float(table.loc[table["measure"] == "loss", "value"].iloc[0])
        linear = table["measure"].isin(LINEAR)
        table["per_loss"] = (table["value"] / loss).where(linear) if loss > 0 else math.nan
        return table[self.table.names()]

    def _row(
        self, measure: str, radius: float, layer: str, found: Estimate, bound: float, seconds: float
    ) -> dict[str, Any]:
        ends = {"value": found.value, "ci_low": found.ci_low, "ci_high": found.ci_high}
        return {"measure": measure, "radius": radius, "layer": layer, **ends, "bound": bound, "seconds": seconds}

    def _wanted(self) -> list[Callable[[], Iterator[Row]]]:
        """Return what is to be measured, in the order of the table."""
        named: dict[str, Callable[[], Iterator[Row]]] = {
            "trace": self._curvature, "sam": self._sam, "asam": self._asam, "keskar": self._keskar,
            "fisher-rao": self._fisher_rao, "relative-flatness": self._relative_flatness, "sigma": self._sigma,
        }  # fmt: skip
        chosen = set(self.settings.measures)
        chosen |= {"trace"} if chosen & {"eigenvalue", "rescaled"} else set()
        return [self._mean_loss, *(work for name, work in named.items() if name in chosen)]

    def _mean_loss(self) -> Iterator[Row]:
        losses = self.around.by_group(self.around.centre)
        yield "loss", math.nan, "", interval(float(self.around.shares @ losses), losses, self.around.shares), math.nan

    # Curvature

    @functools.cached_property
    def _operators(self) -> tuple[HessianOperator, HessianOperator | None]:
        """Return the Hessian of all samples, and with a batch for each group."""

        def made(batch_size: int | None) -> HessianOperator:
            return HessianOperator(
                self.subject.model,
                self.loss,
                self.data,
                params=self.settings.params,
                hessian=self.settings.hessian,
                batch_size=batch_size,
                memory_budget=None if self.settings.memory is None else self.settings.memory * 1e9,
                transform=self.subject.normalise,
            )

        groups = min(self.settings.groups, self.around.n_samples)
        return made(self.settings.batch_size), made(self.around.n_samples // groups) if groups else None

    def _traced(self, matrix: Any, cut: Any, *, offset: int, **options: Any) -> dict[str, Estimate]:
        """Return the trace of a matrix (and of its blocks), with seeds of its own."""
        settings = self.settings
        seed = settings.seed + offset
        return traced(matrix, cut, tol=settings.trace_tol, max_probes=settings.probes, seed=seed, **options)

    def _curvature(self) -> Iterator[Row]:
        chosen = set(self.settings.measures)
        operator, cut = self._operators
        layout = operator.parameters if "rescaled" in chosen else {}
        blocks = self._traced(operator, cut, offset=10, layout=layout) if chosen & {"trace", "rescaled"} else {}
        if "trace" in chosen:
            yield "trace", math.nan, "", blocks[""], math.nan
        if "eigenvalue" in chosen:
            pairs = extreme_eigenpairs(operator, 1, tol=self.settings.tol, seed=self.settings.seed)
            value = float(pairs.values[0])  # noqa: PD011 -- no table
            yield "eigenvalue", math.nan, "", along(value, pairs.vectors[0], cut), math.nan
        if "rescaled" in chosen:
            yield from self._rescaled(operator, cut, blocks)

    def _rescaled(
        self, operator: HessianOperator, cut: HessianOperator | None, blocks: Mapping[str, Estimate]
    ) -> Iterator[Row]:
        found = rescalings(self.subject.model, self.data, transform=self.subject.normalise)
        try:
            least = minimal_trace(self._block_traces(operator, found, blocks), found)
            self._check_function(found, least.s)
        except InputError as error:
            self.notes.append(f"trace and eigenvalue are not minimised over rescalings: {error}")
            yield "trace_min", math.nan, "", NAN, math.nan
            yield "eigenvalue_min", math.nan, "", NAN, math.nan
            return
        self.notes += [f"not rescaled: {one}" for one in found.refused]

        def scaled(s: torch.Tensor) -> list[Congruent | None]:
            scale = scale_of(operator, found, s)
            return [None if one is None else Congruent.scaled(one, scale) for one in (operator, cut)]

        whole, parts = scaled(least.s)  # whose trace is taken by new probes: those that chose it would flatter it
        yield "trace_min", math.nan, "", self._traced(whole, parts, offset=20)[""], math.nan
        tol = self.settings.tol
        top = minimal_eigenvalue(
            operator, found, start=least.s, gap=max(0.01, 2 * tol), tol=tol, seed=self.settings.seed
        )
        self._check_function(found, top.s)
        _, parts = scaled(top.s)
        yield "eigenvalue_min", math.nan, "", along(top.value, top.pairs.vectors[0], parts), top.bound

    def _block_traces(
        self, operator: HessianOperator, found: Rescalings, blocks: Mapping[str, Estimate]
    ) -> dict[str, float]:
        """Return the trace of the block of each parameter; of those that the whole's probes leave uncertain by probes
        of their own."""
        traces, first = {}, 0
        for place, (name, p) in enumerate(operator.parameters.items()):
            one = blocks[name]
            if name in found.exponents and one.ci_high - one.value > _COARSE * abs(one.value):
                inside = torch.zeros(operator.dim, dtype=operator.dtype, device=operator.device)
                inside[first : first + p.numel()] = 1
                one = self._traced(Congruent.scaled(operator, inside), None, offset=40 + place)[""]
            traces[name] = one.value
            first += p.numel()
        return traces

    def _check_function(self, found: Rescalings, s: torch.Tensor) -> None:
        """Check that the rescaled network computes the same function.

        Raises:
            InputError: it does not.
        """
        change = function_change(self.subject.model, self.data, found, s, self.subject.normalise)
        if not change < _SAME:
            raise InputError(f"the rescaled network is another function: its outputs differ by {100 * change:.2g} %")

    def _relative_flatness(self) -> Iterator[Row]:
        operator, cut = self._operators
        settings = self.settings
        try:
            found = relative_flatness(
                operator, cut, tol=settings.trace_tol, max_probes=settings.probes, seed=settings.seed + 60
            )
        except InputError as error:
            self.notes.append(str(error))
            found = {"": NAN}
        for layer, one in found.items():
            yield "relative_flatness", math.nan, layer, one, math.nan

    # Worst cases and noise

    def _sam(self) -> Iterator[Row]:
        yield from self._balls("sam", self.settings.rho, "one")

    def _asam(self) -> Iterator[Row]:
        yield from self._balls("asam", self.settings.adaptive_rho, "magnitude")

    def _balls(self, name: str, radii: tuple[float, ...], scale: Any) -> Iterator[Row]:
        for radius in radii:
            ball = Ball.around(self.around.centre, radius, scale)
            yield name, radius, "", first_order_rise(self.around, ball), math.nan
            worst = worst_case_rise(self.around, ball, steps=self.settings.steps)
            yield f"{name}_worst", radius, "", worst, math.nan

    def _keskar(self) -> Iterator[Row]:
        radius = self.settings.box
        yield "keskar", radius, "", keskar_sharpness(self.around, radius=radius, steps=self.settings.steps), math.nan

    def _fisher_rao(self) -> Iterator[Row]:
        yield "fisher_rao", math.nan, "", fisher_rao(self.around), math.nan

    def _sigma(self) -> Iterator[Row]:
        settings = self.settings
        for name, magnitude in (("sigma", False), ("sigma_magnitude", True)):
            found = pac_bayes_sigma(
                self.around, rise=settings.rise, magnitude=magnitude, draws=settings.draws, seed=settings.seed
            )
            yield name, settings.rise, "", found, math.nan
