"""The same numbers by PyHessian (extra ``peers``), to be printed beside ours."""

import copy
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from alignscape.errors import InputError

if TYPE_CHECKING:
    from landscape import HessianOperator
    from reports.subjects import Subject


def pyhessian_rows(
    subject: "Subject", operator: "HessianOperator", *, k: int, seed: int, loss_name: str | None = None
) -> pd.DataFrame:
    """Return PyHessian's trace and ``k`` eigenvalues of largest magnitude: quantity, index, value, n_hvp.

    It runs as its authors use it (tolerance 1e-3, at most 100 products an eigenvalue, 100 probes) on a copy of the
    network, on all parameters. Its stopping rules are its own: where it differs from the residuals and intervals
    beside it, they say by how much it can be trusted.

    Raises:
        InputError: PyHessian is not installed, or ``--params`` leaves parameters out, which it cannot do.
    """
    try:
        from pyhessian import hessian
    except ImportError as error:
        raise InputError("--check pyhessian needs PyHessian: pip install 'alignscape[peers]'") from error
    model = copy.deepcopy(subject.model)
    if operator.dim != sum(p.numel() for p in model.parameters() if p.requires_grad):
        raise InputError("PyHessian cannot restrict the Hessian: leave out --params or --check")
    loss, targets = subject.objective(loss_name)
    batches = list(zip(subject.inputs().split(2000), targets.split(2000), strict=True))
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using backward")  # its way of differentiating
        torch.manual_seed(seed)
        data = _CountedPasses(batches)
        peer = hessian(model, loss, dataloader=data, cuda=subject.device.type == "cuda")
        values = peer.eigenvalues(top_n=min(k, operator.dim))[0]
        products = data.passes
        samples = peer.trace()
    for parameter in model.parameters():
        parameter.grad = None  # its graphs hang on them in a cycle
    rows = [{"quantity": "trace", "index": 0, "value": math.fsum(samples) / len(samples), "n_hvp": len(samples)}]
    rows += [
        {"quantity": "eigenvalue", "index": index, "value": value, "n_hvp": products}
        for index, value in enumerate(values, start=1)
    ]
    return pd.DataFrame(rows)


class _CountedPasses:
    """The batches, counting the times that they are read: PyHessian reads them once a product."""

    def __init__(self, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
        self._batches = batches
        self.passes = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        return iter(self._batches)
