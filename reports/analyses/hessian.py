"""``hessian``: trace and extreme eigenvalues of the Hessian, with error bars."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

from alignscape.errors import InputError
from alignscape.settings import POSITIVE, at_least, setting
from reports.analyses.analysis import Found, Show, silent, together
from reports.analyses.curvature import MATRIX, CurvatureByGroup
from reports.analyses.groups import hessian_rows
from reports.analyses.section import Drawing, Section, has, several_networks
from reports.schema import N_SAMPLES, Column, Table, columns, interval

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import Tensor

    from landscape import Eigenpairs, HessianOperator, Trace
    from reports.subjects import Subject

T = TypeVar("T")
GROUPS = 50  # of samples that a bootstrap draws from


def _has_groups(frame: "DataFrame") -> bool:
    """Return whether there are groups, and something whole that they are shares of."""
    if not {"quantity", "value"} <= set(frame):
        return False  # somebody else's table of that name
    whole = frame.loc[frame["quantity"].isin(["trace", "eigenvalue"]), "value"]
    return bool(frame["quantity"].str.startswith("trace:").any() and (whole.abs() > 0).any())


@dataclass(frozen=True, kw_only=True)
class Hessian(CurvatureByGroup):
    """Hessian trace and extreme eigenvalues of a network.

    >>> Hessian(k=2, trace_tol=0.1).k
    2
    """

    name: ClassVar[str] = "hessian"
    version: ClassVar[int] = 4  # convolutions are multiplied by other kernels, which round differently
    summary: ClassVar[str] = "trace and top eigenvalues of the Hessian, with residuals and intervals"
    tables: ClassVar[tuple[Table, ...]] = (
        Table(
            "hessian",
            (
                Column(
                    "quantity",
                    "text",
                    "trace, eigenvalue, trace:LAYER; by groups trace:GROUP, eigenvalue:GROUP, norm:GROUP and "
                    "norm:GROUP|GROUP; behind 'ggn' or 'difference' where it is of that matrix",
                    role="key",
                ),
                Column("index", "int", "of the eigenvalue, from 1", role="key"),
                Column("value", "float", "of the Hessian of the mean loss of the run", "nats", "value"),
                *interval("the trace, bounds of the eigenvalue"),
                Column(
                    "residual",
                    "float",
                    "|Hv - lambda v|: an eigenvalue is that near, which certifies no count",
                    "nats",
                ),
                N_SAMPLES,
                Column("n_hvp", "int", "Hessian-vector products it took"),
                Column("seconds", "float", "it took", "s", role="cost"),
                *columns("float", "data_ci_low data_ci_high", "95 % interval over samples of data", optional=True),
                Column(
                    "share",
                    "float",
                    "of a group: of the groups' traces, of the largest eigenvalue, of the squares of all entries",
                    optional=True,
                ),
                *columns("float", "value_pyhessian n_hvp_pyhessian", "by the peer library", optional=True),
            ),
        ),
    )
    section: ClassVar[Section] = Section(
        heading="Curvature",
        text="Trace and top eigenvalues of the true Hessian of the loss (of the plain network, not through feedback "
        "weights), each with its interval.",
        drawings=(
            Drawing(
                title="Hessian trace and top eigenvalues",
                caption="Large values are sharp directions of the loss; a flat minimum has a small trace and a small "
                "top eigenvalue.",
                remarks=(
                    (
                        "Where bars do not overlap, networks differ by more than the estimates' error.",
                        lambda table: several_networks(table) and has("ci_low", "ci_high")(table),
                    ),
                ),
                draw="reports.figures:hessian",
                stem="hessian",
            ),
            Drawing(
                title="Curvature by group of parameters",
                caption="Left, each group's share of the trace. Right, the top eigenvalue of the group's own block, "
                "relative to that of the whole: near 1, the sharpest direction of the network lies in that group.",
                draw="reports.figures:hessian_groups",
                stem="hessian_groups",
                applies=_has_groups,
            ),
        ),
    )

    hessian: Literal["full", "ggn", "difference", "all"] = setting(  # type: ignore[assignment]
        "full",
        "full: second derivatives of the mean loss of the run; ggn: its Gauss-Newton part, of cross-entropy the Fisher "
        "information; "
        "difference: the first less the second; all: the three beside each other",
        group=MATRIX,
    )
    k: int = setting(5, "how many eigenvalues", metavar="K", check=at_least(1))
    ends: Literal["largest", "smallest", "magnitude"] = setting(
        "largest", "which end of the spectrum: algebraically largest, smallest, or largest in magnitude"
    )
    tol: float = setting(
        1e-4,
        "residual |Hv - lambda v| of each eigenvalue to reach, relative to the largest |lambda|",
        metavar="R",
        check=POSITIVE,
    )
    trace_tol: float = setting(
        0.02,
        "half-width of the trace's 95 % interval to reach, relative to the trace",
        metavar="R",
        check=POSITIVE,
    )
    probes: int = setting(
        200,
        "random vectors for the trace at most (in pairs, six at least), where --trace-tol is not reached before",
        metavar="N",
        check=at_least(2),  # one probe has no interval
    )
    layers: bool = setting(False, "also the trace of the diagonal block of each layer's weights and of its biases")
    every_epoch: bool = setting(
        False,
        "CKPT are run folders: analyse every checkpoint they kept (train with --checkpoint-every), each starting from "
        "the eigenvectors of the one before",
    )
    bootstrap: int | None = setting(
        None,
        "also 95 % intervals over the choice of samples, from B >= 10 bootstrap resamples of 50 groups of them",
        metavar="B",
        check=at_least(10),  # fewer resamples show no spread
    )
    check: Literal["pyhessian"] | None = setting(
        None, "also compute by this peer library, for comparison; needs the extra `peers`", in_key=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers and self.by is not None:
            raise InputError("--layers are traces of single tensors, --by is of groups: give one of them")

    def paths(self, given: Path) -> list[Path]:
        """Return ``given``, or the checkpoints that the run kept.

        Raises:
            InputError: ``every_epoch`` of something that is no run folder with checkpoints.
        """
        if not self.every_epoch:
            return [given]
        if not (files := sorted((given / "checkpoints").glob("epoch-*.pt"))):
            raise InputError(f"{given} has no checkpoints/epoch-*.pt: train with --checkpoint-every 1")
        return files

    def compute_all(self, subjects: "Iterable[Subject]", show: Show = silent) -> Found:
        """Analyse several networks, each checkpoint of a run from the eigenvectors of the one before."""
        from landscape.distributed import join
        from reports.tables import with_subject

        if self.bootstrap is not None and join() is not None:
            raise InputError("--bootstrap needs all samples in one process: leave out torchrun or --bootstrap")
        parts, start, run = [], None, None
        for subject in subjects:
            if not self.every_epoch or subject.path.parent != run:
                start, run = None, subject.path.parent
            frame, start = self._analyse(subject, show, start)
            parts.append(Found(tables={"hessian": with_subject(frame, subject)}))
        return together(parts)

    def compute(self, subject: "Subject", show: Show = silent) -> Found:
        """Return trace and eigenvalues of one network."""
        return Found(tables={"hessian": self._analyse(subject, show, None)[0]})

    def _analyse(self, subject: "Subject", show: Show, start: "Tensor | None") -> "tuple[DataFrame, Tensor]":
        """Return the rows of one checkpoint, and its eigenvectors for the next one to start from."""
        import pandas as pd

        if self.hessian != "all":
            return self._of_matrix(subject, self.hessian, show, start)
        parts, vectors = [], None
        for matrix in ("full", "ggn", "difference"):
            frame, found = self._of_matrix(subject, matrix, show, start if matrix == "full" else None)
            prefix = "" if matrix == "full" else f"{matrix} "
            parts.append(frame.assign(quantity=prefix + frame["quantity"]))
            vectors = found if vectors is None else vectors
        assert vectors is not None
        return pd.concat(parts, ignore_index=True), vectors

    def _of_matrix(
        self, subject: "Subject", matrix: str, show: Show, start: "Tensor | None"
    ) -> "tuple[DataFrame, Tensor]":
        """Return the rows of one matrix of a checkpoint, and its eigenvectors."""
        import pandas as pd

        from landscape import Blocks

        operator = self.operator(subject, groups=GROUPS if self.bootstrap else None, hessian=matrix)
        blocks = None if self.by is None else Blocks(operator, self.by)  # here: what matches nothing is told at once
        pairs, seconds_pairs = timed(lambda: self._eigenpairs(subject, operator, show, start))
        trace, seconds_trace = timed(lambda: self._trace(subject, operator, pairs, show))
        rows = [
            trace.frame().assign(n_hvp=trace.n_products, seconds=seconds_trace),
            pairs.frame().assign(n_hvp=pairs.n_products, seconds=seconds_pairs),
        ]
        if self.layers:
            rows.append(trace.layer_frame().assign(n_hvp=trace.n_products, seconds=seconds_trace))
        if blocks is not None:
            settings = ("k", "ends", "tol", "trace_tol", "probes", "cross", "seed")
            about = {"largest": float(pairs.frame()["value"].iloc[0]), "show": show, "name": subject.name}
            about |= {name: getattr(self, name) for name in settings}
            rows.append(hessian_rows(blocks, **about))  # type: ignore[arg-type]
        frame = pd.concat(rows, ignore_index=True).assign(n_samples=operator.n_samples)
        frame = frame[[*self.tables[0].usual, *(["share"] if self.by is not None else [])]]
        if self.bootstrap:
            intervals = self._data_intervals(subject, operator, pairs, trace, show)
            frame = frame.merge(intervals, how="left", on=["quantity", "index"])
        if self.check and matrix in ("full", self.hessian):
            from reports.pyhessian_check import pyhessian_rows

            peer = pyhessian_rows(subject, operator, k=self.k, seed=self.seed, loss_name=self.loss)
            frame = frame.merge(peer, how="left", on=["quantity", "index"], suffixes=("", "_pyhessian"))
        return frame[[name for name in self.tables[0].names() if name in frame]], pairs.vectors

    def _eigenpairs(
        self, subject: "Subject", operator: "HessianOperator", show: Show, start: "Tensor | None"
    ) -> "Eigenpairs":
        from landscape import extreme_eigenpairs

        return extreme_eigenpairs(
            operator,
            self.k,
            ends=self.ends,
            tol=self.tol,
            start=start,
            keep_basis=True,
            seed=self.seed,
            progress=show(f"{subject.name}: eigenvalues", "pair"),
        )

    def _trace(self, subject: "Subject", operator: "HessianOperator", pairs: "Eigenpairs", show: Show) -> "Trace":
        """Return the trace, with the Krylov space that the eigenvectors came from taken out of its noise."""
        from landscape import hutchinson_trace

        return hutchinson_trace(
            operator,
            deflate=pairs.basis if pairs.basis is not None else pairs.vectors,
            tol=self.trace_tol,
            max_probes=self.probes,
            layout=operator.parameters if self.layers else None,
            seed=self.seed + 1,  # the eigenvectors come from the seed; probes must be independent of them
            progress=show(f"{subject.name}: trace", "probe"),
        )

    def _data_intervals(
        self, subject: "Subject", operator: "HessianOperator", pairs: "Eigenpairs", trace: "Trace", show: Show
    ) -> "DataFrame":
        """Return quantity, index, data_ci_low, data_ci_high: what other samples of data would have given."""
        import pandas as pd

        from landscape import data_error

        assert self.bootstrap is not None
        progress = show(f"{subject.name}: bootstrap", "vector")
        found = data_error(operator, pairs, trace, resamples=self.bootstrap, seed=self.seed + 2, progress=progress)
        keys = [("trace", 0), *(("eigenvalue", i + 1) for i in range(len(pairs.values)))]
        intervals = [(e.ci_low, e.ci_high) for e in (found.trace, *found.eigenvalues)]
        rows = [(*key, *interval) for key, interval in zip(keys, intervals, strict=True)]
        return pd.DataFrame(rows, columns=["quantity", "index", "data_ci_low", "data_ci_high"])

    def text(self, found: Found) -> str:
        """Return the table without the columns that identify a run."""
        from reports.tables import render

        frame = found.tables["hessian"]
        return render(frame[["checkpoint", *(name for name in self.tables[0].names() if name in frame)]])

    @classmethod
    def merits(cls, table: "DataFrame") -> "DataFrame | None":
        """Return trace and top eigenvalue."""
        import pandas as pd

        wanted = {"Hessian trace": "trace", "top eigenvalue": "eigenvalue"}
        values = {name: table.loc[table["quantity"] == quantity, "value"] for name, quantity in wanted.items()}
        return pd.DataFrame({name: found.groupby(level=0, sort=False).max() for name, found in values.items()})


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what ``work`` returns and the seconds that it took."""
    begun = time.perf_counter()
    result = work()
    return result, time.perf_counter() - begun
