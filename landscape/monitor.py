"""Curvature while a network trains, beside any loop: at a stated share of the time, warm-started, on the same samples.

    monitor = Monitor(loss, (inputs, labels), optimiser=optimiser)
    for batch in loader:
        ...
        optimiser.step()
        monitor.step(model)

The loss and the samples stay the same, so that what changes along the curve is the network. Nothing of the training is
touched: no ``.grad``, mode, buffer or global random stream.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Unpack

import pandas as pd
import torch
from torch import Tensor, nn

from alignscape.device import synchronise
from alignscape.errors import DivergedError, InputError
from alignscape.pace import Pace
from alignscape.seeding import derive_seed, generator
from alignscape.trees import map_tensors
from landscape.data import Data, Loss
from landscape.lanczos import Eigenpairs, extreme_eigenpairs
from landscape.operator import HessianOperator, OperatorOptions
from landscape.stability import Preconditioned, Stability, edge_of_stability
from landscape.symmetric import SymmetricOperator
from landscape.traces import Estimate, hutchinson_trace

# Of the random vector that joins the eigenvectors of the measurement before, which have length 1: without it a search
# that starts from exact eigenvectors never leaves their span.
_FRESH = 0.1
_MOST_PRODUCTS = 200  # of one search; a row says how far it came
_NOWHERE = Estimate(value=math.nan, ci_low=math.nan, ci_high=math.nan)

Update = Callable[[], Tensor]


@dataclass(frozen=True, kw_only=True)
class Curvature:
    """What :meth:`Monitor.step` measured of the mean loss over the monitor's samples. Numbers are NaN where the
    weights or the loss are not finite.

    Attributes:
        step: of training.
        loss: the mean loss.
        gradient_norm: of its gradient g.
        eigenvalues: (k,), the largest of the Hessian H, largest first.
        residuals: (k,), ``|H v - value v|``: an eigenvalue lies that close to the value.
        trace: of H, with its 95 % interval over probes.
        alignment: ``|P_k g|^2 / |g|^2``, the share of the gradient in the space of the top k eigenvectors, 0 to 1; a
            random direction has k / P.
        lr: the learning rate; NaN where nothing is known of the optimiser, and so the next three.
        threshold: the edge of stability, see :class:`Stability`.
        preconditioned_eigenvalue: the largest of ``D^-1/2 H D^-1/2``, which has that threshold with Adam.
        preconditioned_residual: its residual.
        update_cosine: between the update given and g; NaN if none was.
        update_alignment: the share of the update in the top space.
        n_samples: samples.
        n_products: Hessian-vector products it took.

    Example:
        >>> import torch
        >>> from landscape import Monitor
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> inputs = torch.diag(torch.tensor([1.0, 2.0]))
        >>> record = Monitor(torch.nn.MSELoss(), (inputs, torch.zeros(2, 1)), k=1).step(model)
        >>> round(record.eigenvalues[0], 4), round(record.trace.value, 4)
        (4.0, 5.0)
    """

    step: int
    loss: float = math.nan
    gradient_norm: float = math.nan
    eigenvalues: tuple[float, ...]
    residuals: tuple[float, ...]
    trace: Estimate = _NOWHERE
    alignment: float = math.nan
    lr: float = math.nan
    threshold: float = math.nan
    preconditioned_eigenvalue: float = math.nan
    preconditioned_residual: float = math.nan
    update_cosine: float = math.nan
    update_alignment: float = math.nan
    n_samples: int = 0
    n_products: int = 0

    def row(self) -> dict[str, float]:
        """Return it as a row of ``curvature.csv``: columns ``eigenvalue``, ``eigenvalue_2`` and so on."""
        return {
            "step": self.step,
            "loss": self.loss,
            "gradient_norm": self.gradient_norm,
            "eigenvalue": self.eigenvalues[0],
            "residual": self.residuals[0],
            "trace": self.trace.value,
            "ci_low": self.trace.ci_low,
            "ci_high": self.trace.ci_high,
            "alignment": self.alignment,
            "lr": self.lr,
            "threshold": self.threshold,
            "preconditioned_eigenvalue": self.preconditioned_eigenvalue,
            "preconditioned_residual": self.preconditioned_residual,
            "update_cosine": self.update_cosine,
            "update_alignment": self.update_alignment,
            "k": len(self.eigenvalues),
            "n_samples": self.n_samples,
            "n_products": self.n_products,
            **{f"eigenvalue_{i}": value for i, value in enumerate(self.eigenvalues[1:], start=2)},
        }


@dataclass(kw_only=True)
class _Warm:
    """The vectors that the next searches start from."""

    top: Tensor | None = None  # (k, P)
    preconditioned: Tensor | None = None  # (1, P)


@dataclass(kw_only=True)
class _Searches:
    """How to search."""

    k: int
    tol: float
    probes: int
    seed: int
    warm: _Warm = field(default_factory=_Warm)

    def top(self, operator: SymmetricOperator, k: int, start: Tensor | None, step: int, *, keep: bool) -> Eigenpairs:
        """Return the top ``k`` pairs, from the vectors of the measurement before and a little of a random one."""
        if start is not None:
            stream = generator(self.seed, "curvature", step, device=operator.device)
            fresh = torch.randn(1, operator.dim, generator=stream, dtype=operator.dtype, device=operator.device)
            start = torch.cat([start.to(fresh), _FRESH * fresh / fresh.norm()])
        with warnings.catch_warnings():  # the row has the residual
            warnings.filterwarnings("ignore", message="the eigenvalues reached a relative residual")
            return extreme_eigenpairs(
                operator,
                min(k, operator.dim),
                tol=self.tol,
                max_products=_MOST_PRODUCTS,
                start=start,
                confirm=start is None,
                keep_basis=keep,
                seed=derive_seed(self.seed, "first search"),
            )


class Monitor:
    """Measures the curvature of a network's loss beside its training: leading eigenvalues, trace, gradient, and the
    share of the gradient in the top space, with the edge of stability of the optimiser.

    All is of the true loss with its true gradient, in evaluation mode, on samples that stay the same. Each search
    starts from the eigenvectors found before; the probes of the trace are the same each time, so that differences
    between rows are of the network. ``records`` holds what was measured.

    Args:
        loss: ``loss(outputs, targets)`` -> scalar, as for :class:`HessianOperator`.
        data: the samples, as for :class:`HessianOperator`; None keeps the first batch that :meth:`step` is given.
        optimiser: of ``torch.optim``; gives learning rate and edge (:func:`edge_of_stability`).
        every: measure at every so many steps; 0 measures as often as ``share`` allows, and at the first step.
        share: of the time since the first step that measuring may take, by its own clock; the first measurement is
            made whatever it takes.
        k: eigenvectors that span the top space.
        tol: bound on each residual, relative to the largest eigenvalue. The eigenvalue's error is smaller, about the
            square of it for one that stands apart. At .01 searches took a sixth less and now and then missed the
            last of five.
        probes: of the trace, 6 at least.
        seed: of searches and probes.
        operator: ``params, hessian, reduction, denominator, batch_size, memory_budget, transform`` of
            :class:`HessianOperator`.

    Raises:
        InputError: a setting out of its range.

    Example:
        >>> import torch
        >>> from landscape import Monitor
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> data = torch.diag(torch.tensor([1.0, 2.0])), torch.ones(2, 1)
        >>> optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> monitor = Monitor(torch.nn.MSELoss(), data, optimiser=optimiser, every=2, k=1)
        >>> for _ in range(4):
        ...     torch.nn.functional.mse_loss(model(data[0]), data[1]).backward()
        ...     optimiser.step()
        ...     _ = monitor.step(model)
        >>> monitor.frame()[["step", "eigenvalue", "threshold"]].round(4)
           step  eigenvalue  threshold
        0     2         4.0       20.0
        1     4         4.0       20.0
    """

    def __init__(
        self,
        loss: Loss,
        data: Data | None = None,
        *,
        optimiser: torch.optim.Optimizer | None = None,
        every: int = 0,
        share: float = 0.05,
        k: int = 5,
        tol: float = 1e-3,
        probes: int = 12,
        seed: int = 0,
        **operator: Unpack[OperatorOptions],
    ) -> None:
        if every < 0 or not 0 < share <= 1 or k < 1 or not tol > 0 or probes < 6:
            raise InputError("every must be 0 or more, share in (0, 1], k at least 1, tol positive, probes at least 6")
        if operator.get("params") is not None:
            raise InputError("the monitor is of all parameters: the optimiser's edge is")
        self.loss, self.data, self.optimiser = loss, data, optimiser
        self.pace = Pace(every, share)
        self.records: list[Curvature] = []
        self._operator = operator
        self._searches = _Searches(k=k, tol=tol, probes=probes, seed=seed)
        self._calls = 0

    def step(
        self,
        model: nn.Module,
        batch: Any = None,
        *,
        step: int | None = None,
        update: Update | None = None,
    ) -> Curvature | None:
        """Measure if it is time; call it after every step of the optimiser.

        Args:
            model: the network as it is now.
            batch: the mini-batch of this step: the first one is kept where the monitor has no ``data``.
            step: its number; None counts the calls from 1.
            update: called for the direction (P,) that the training takes on the monitor's samples, where that is not
                the gradient.

        Raises:
            InputError: no data and no batch, and as :class:`HessianOperator`.
        """
        self._calls += 1
        number = self._calls if step is None else step
        if self.data is None:
            if batch is None:
                raise InputError("the monitor has no samples: give it data, or step(model, batch)")
            self.data = _kept(batch)
        if not self.pace.due(number):
            return None
        synchronise(next(model.parameters()).device)
        with self.pace.measuring():
            stability = None if self.optimiser is None else edge_of_stability(self.optimiser, model)
            record = self.measure(model, step=number, stability=stability, update=update)
        self.records.append(record)
        return record

    def measure(
        self, model: nn.Module, *, step: int, stability: Stability | None = None, update: Update | None = None
    ) -> Curvature:
        """Measure now, whatever the time; :attr:`records` is left as it is.

        Args:
            model: the network.
            step: for the record.
            stability: of its optimiser.
            update: as for :meth:`step`.
        """
        if self.data is None:
            raise InputError("the monitor has no samples: give it data, or step(model, batch)")
        edge: dict[str, Any] = {} if stability is None else {"lr": stability.lr, "threshold": stability.threshold}
        try:
            hessian = HessianOperator(model, self.loss, self.data, **self._operator)
        except DivergedError:
            lost = (math.nan,) * self._searches.k
            return Curvature(step=step, eigenvalues=lost, residuals=lost, **edge)
        searches, warm = self._searches, self._searches.warm
        pairs = searches.top(hessian, searches.k, warm.top, step, keep=True)
        warm.top = pairs.vectors.clone()
        trace = hutchinson_trace(
            hessian,
            deflate=pairs.basis,
            tol=1e-9,  # all probes, whatever the first of them say
            max_probes=searches.probes,
            seed=derive_seed(searches.seed, "probes"),
        )
        found: dict[str, Any] = {**edge, **self._preconditioned(hessian, stability, step)}
        if update is not None:
            found |= _compared(update(), hessian.gradient, pairs.vectors)
        return Curvature(
            step=step,
            loss=hessian.loss,
            gradient_norm=float(torch.linalg.vector_norm(hessian.gradient, dtype=torch.float64)),
            eigenvalues=tuple(pairs.values.tolist()),  # noqa: PD011
            residuals=tuple(pairs.residuals.tolist()),
            trace=Estimate(value=trace.value, ci_low=trace.ci_low, ci_high=trace.ci_high),
            alignment=share_in(hessian.gradient, pairs.vectors),
            n_samples=hessian.n_samples,
            n_products=hessian.n_products,
            **found,
        )

    def _preconditioned(self, hessian: HessianOperator, stability: Stability | None, step: int) -> dict[str, float]:
        if stability is None or stability.preconditioner is None:
            return {}
        matrix, warm = Preconditioned(hessian, stability.preconditioner), self._searches.warm
        pairs = self._searches.top(matrix, 1, warm.preconditioned, step, keep=False)
        warm.preconditioned = pairs.vectors.clone()
        return {
            "preconditioned_eigenvalue": float(pairs.values[0]),  # noqa: PD011
            "preconditioned_residual": float(pairs.residuals[0]),
        }

    @property
    def share_taken(self) -> float:
        """The share of the time since the first step that measuring has taken."""
        return self.pace.taken

    def frame(self) -> pd.DataFrame:
        """Return one row a measurement; the columns are those of ``curvature.csv``."""
        return pd.DataFrame([record.row() for record in self.records])

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold for the measurements to go on as if nothing had happened, but for the
        records: tensors and numbers. A batch that was kept as samples is no part of it: give ``data`` to a monitor
        that is to go on."""
        warm = self._searches.warm
        return {
            "pace": self.pace.state(),
            "calls": self._calls,
            "top": warm.top,
            "preconditioned": warm.preconditioned,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.pace.restore(state["pace"])
        self._calls = state["calls"]
        self._searches.warm = _Warm(top=state["top"], preconditioned=state["preconditioned"])


def share_in(vector: Tensor, rows: Tensor) -> float:
    """Return ``|P v|^2 / |v|^2`` for the projector P on the orthonormal ``rows`` (K, P); NaN for v = 0."""
    whole = float(torch.linalg.vector_norm(vector, dtype=torch.float64)) ** 2
    part = float(torch.linalg.vector_norm(rows @ vector, dtype=torch.float64)) ** 2
    return min(part / whole, 1.0) if whole > 0 else math.nan


def _compared(update: Tensor, gradient: Tensor, rows: Tensor) -> dict[str, float]:
    lengths = [float(torch.linalg.vector_norm(v, dtype=torch.float64)) for v in (update, gradient)]
    product = float((update.double() * gradient.double()).sum())
    cosine = product / math.prod(lengths) if all(lengths) else math.nan
    return {"update_cosine": cosine, "update_alignment": share_in(update.to(rows), rows)}


def _kept(batch: Any) -> Any:
    """Return a copy of a mini-batch: loaders may write the next one into the same memory."""
    return map_tensors(lambda part: part.detach().clone(), tuple(batch) if isinstance(batch, list) else batch)
