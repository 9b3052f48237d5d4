"""Curvature against PyHessian: products, eigenvalues, trace, surface, memory.

    python -m benchmarks.landscape                                      # random images
    python -m benchmarks.landscape --data-root DIR                      # CIFAR-10
    python -m benchmarks.landscape --data-root DIR --checkpoint RUN     # a trained network of your own

Network 3072-512-512-10 (P = 1.84 M), 2,000 training samples, trained for an epoch. Both sides run in one process on
the same samples and network, in float32, and alternate where they are timed. PyHessian gets its fastest use: the
samples as ready tensors in one batch, no loader. Where it must stop by itself it is stopped by an oracle, at the first
product whose residual is good enough: its own test (two equal values) would stop it sooner or later than that.
"""

import argparse
import math
import multiprocessing
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time

# Python puts this file's folder first, where a benchmark's name hides the package that it measures: move it to the end.
sys.path.sort(key=lambda entry: Path(entry).resolve() == Path(__file__).resolve().parent)

try:
    import pyhessian
except ImportError:  # then only what needs no peer can be called
    pyhessian = None
import torch
from torch import Tensor, nn

from landscape import (
    Eigenpairs,
    HessianOperator,
    extreme_eigenpairs,
    hutchinson_trace,
    krylov_subspace,
    slq_density,
    top_eigenpairs,
)
from training.data import SOURCES, Normalise, load_split

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    work: str
    ours: str
    theirs: str
    ratio: float
    target: str
    met: bool

    def __str__(self) -> str:
        verdict = "met" if self.met else "MISSED"
        return f"{self.work:34} {self.ours:>24} {self.theirs:>26} {self.ratio:>7.2f}   {self.target:12} {verdict}"


class CountedPyHessian(pyhessian.hessian if pyhessian else object):  # type: ignore[misc]
    """PyHessian over one batch as its data set, counting products and stopped by an oracle."""

    def __init__(self, model: nn.Module, batch: Batch, *, residual: float = 0.0) -> None:
        super().__init__(model, nn.CrossEntropyLoss(), dataloader=[batch], cuda=batch[0].is_cuda)
        self.products = 0
        self.residual = residual
        self.largest = 0.0
        self._last = float("nan")
        self._stopped = False

    def dataloader_hv_product(self, v: list[Tensor]) -> tuple[float, list[Tensor]]:
        """Multiply; once the residual of ``v`` is good, repeat the value before, which ends PyHessian's loop."""
        value, image = super().dataloader_hv_product(v)
        self.products += 1
        if self._stopped:
            self._stopped, self._last = False, float("nan")
        if self.residual:
            rest = math.sqrt(sum(float(((h - value * x) ** 2).sum()) for h, x in zip(image, v, strict=True)))
            self.largest = max(self.largest, abs(value))
            if rest <= self.residual * self.largest and not math.isnan(self._last):
                self._stopped = True
                return self._last, image
            self._last = value
        return value, image


def make_problem(args: argparse.Namespace) -> tuple[nn.Module, Batch]:
    """Return a network trained for an epoch, with the samples to analyse it on."""
    if args.checkpoint is not None:
        from reports.subjects import load_subject

        subject = load_subject(
            args.checkpoint,
            data_root=args.data_root,
            split="train",
            samples=args.samples,
            device=args.device,
        )
        return subject.model, (subject.inputs(), subject.labels)
    torch.manual_seed(0)
    if args.data_root is not None:
        train = load_split("cifar10", "train", args.data_root).subset(max(20_000, args.samples), 0)
        images, labels = Normalise(SOURCES["cifar10"].mean, SOURCES["cifar10"].std)(train.images), train.labels
    else:
        labels = torch.randint(0, 10, (max(20_000, args.samples),))
        images = torch.randn(10, 3, 32, 32)[labels] * 0.3 + torch.randn(len(labels), 3, 32, 32)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(3072, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    ).to(args.device)
    images, labels = images.to(args.device), labels.to(args.device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    for index in torch.randperm(20_000).split(128):
        loss = nn.functional.cross_entropy(model(images[index]), labels[index])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for parameter in model.parameters():
        parameter.grad = None
    return model.eval(), (images[: args.samples], labels[: args.samples])


def seconds(work: Callable[[], object], args: argparse.Namespace) -> float:
    """Return the time of one call, the device's queue included."""
    clock = process_time if args.clock == "cpu" else perf_counter
    begun = clock()
    work()
    if args.device == "cuda":
        torch.cuda.synchronize()
    return clock() - begun


def product_row(model: nn.Module, batch: Batch, args: argparse.Namespace) -> Row:
    """Time one product over the data, graphs kept on our side as they are in every analysis."""
    operator = HessianOperator(model, nn.CrossEntropyLoss(), batch)
    peer = CountedPyHessian(model, batch)
    vector = torch.randn(operator.dim, device=args.device)
    parts = [
        part.view_as(p) for part, p in zip(vector.split([p.numel() for p in peer.params]), peer.params, strict=True)
    ]
    mine, theirs = math.inf, math.inf
    ours_value, their_value = operator.product(vector), peer.dataloader_hv_product(parts)[1]
    error = (ours_value - torch.cat([part.flatten() for part in their_value])).norm() / ours_value.norm()
    assert error < 1e-3, f"the two products differ by {error:.1e}"
    for _ in range(args.repeats):
        theirs = min(theirs, seconds(lambda: peer.dataloader_hv_product(parts), args))
        mine = min(mine, seconds(lambda: operator.product(vector), args))
    return Row(
        "one product", f"{1e3 * mine:.1f} ms", f"{1e3 * theirs:.1f} ms", theirs / mine, ">= 1.8", theirs >= 1.8 * mine
    )


def eigenvalue_row(model: nn.Module, batch: Batch, args: argparse.Namespace) -> Row:
    """Time the top 5 eigenpairs to a relative residual of 1e-4, building the operator included."""
    found: list[Eigenpairs] = []
    mine = seconds(lambda: found.append(top_eigenpairs(model, nn.CrossEntropyLoss(), batch, k=5, tol=1e-4)), args)
    peer = CountedPyHessian(model, batch, residual=1e-4)
    torch.manual_seed(0)
    values: list[float] = []
    theirs = seconds(lambda: values.extend(peer.eigenvalues(maxIter=1000, tol=1e-30, top_n=5)[0]), args)
    pairs = found[0]
    print("  our eigenvalues      ", "  ".join(f"{float(v):.5g}" for v in pairs.values))
    print("  PyHessian's          ", "  ".join(f"{v:.5g}" for v in values))
    return Row(
        "top 5, relative residual 1e-4",
        f"{pairs.n_products} products {mine:.1f} s",
        f"{peer.products} products {theirs:.1f} s",
        theirs / mine,
        ">= 8",
        theirs >= 8 * mine,
    )


def trace_row(model: nn.Module, batch: Batch, args: argparse.Namespace) -> Row:
    """Compare the products that a trace with 2 % root-mean-square error takes, those for deflation included.

    The error of n probes is the standard deviation of one over sqrt(n); it is measured from ``--probes`` of each.
    """
    operator = HessianOperator(model, nn.CrossEntropyLoss(), batch)
    space = krylov_subspace(operator, 25)
    ours = hutchinson_trace(operator, deflate=space, tol=1e-9, max_probes=args.probes, seed=1)
    peer = CountedPyHessian(model, batch)
    torch.manual_seed(0)
    theirs = torch.tensor(peer.trace(maxIter=args.probes, tol=-1.0))
    need_ours = math.ceil(float(ours.samples.std() / (0.02 * ours.value)) ** 2)
    need_theirs = math.ceil(float(theirs.std() / (0.02 * theirs.mean())) ** 2)
    print(f"  our trace {ours.value:.5g} [{ours.ci_low:.5g}, {ours.ci_high:.5g}], PyHessian's {theirs.mean():.5g}")
    total = need_ours + len(space.rows)
    return Row(
        "trace to 2 % rms, products",
        f"{need_ours} + {len(space.rows)} for deflation",
        f"{need_theirs}",
        need_theirs / total,
        ">= 2",
        need_theirs >= 2 * total,
    )


def surface_row(model: nn.Module, batch: Batch, args: argparse.Namespace) -> Row:
    """Time a 21 x 21 surface against swapping the parameters of every point in (``benchmarks/surface.py``)."""
    from benchmarks.surface import compare

    mine, theirs, difference = compare(model, batch, repeats=2)
    print(f"  largest relative difference of the two surfaces {difference:.1e}")
    ratio = theirs / mine
    return Row("21 x 21 surface, against swapping", f"{mine:.1f} s", f"{theirs:.1f} s", ratio, ">= 5", ratio >= 5)


def memory_row(model: nn.Module, batch: Batch, args: argparse.Namespace) -> Row:
    """Measure the peak memory of a process of its own that finds the top 5 and a 100-step spectral density."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_memory_work, args=(model.cpu(), tuple(part.cpu() for part in batch), args.device))
    process.start()
    process.join()
    assert process.exitcode == 0, "the process that measures memory failed"
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    work = f"top 5 + SLQ, {len(batch[0]):,} samples"
    return Row(work, f"{peak:.2f} GB", "(no peer)", peak, "<= 2.5 GB", peak <= 2.5)


def _memory_work(model: nn.Module, batch: Batch, device: str) -> None:
    operator = HessianOperator(model.to(device), nn.CrossEntropyLoss(), (batch[0].to(device), batch[1].to(device)))
    extreme_eigenpairs(operator, 5)
    slq_density(operator, steps=100, probes=1)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data-root", type=Path, help="folder of CIFAR-10 in torchvision's layout (default: random images)"
    )
    parser.add_argument("--checkpoint", type=Path, help="a run folder or checkpoint (default: train one for an epoch)")
    parser.add_argument("--samples", type=int, default=2000, help="samples of the train split (default: 2000)")
    parser.add_argument("--probes", type=int, default=60, help="probes to measure the trace's spread (default: 60)")
    parser.add_argument("--repeats", type=int, default=5, help="timed products, the best counts (default: 5)")
    parser.add_argument(
        "--clock",
        default="wall",
        choices=("wall", "cpu"),
        help="time that passes, or processor time of all threads, for a machine that others use too (default: wall)",
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="(default: cpu)")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS), help="rows (default: all)")
    args = parser.parse_args()
    if pyhessian is None:
        parser.error("pyhessian is not installed: pip install 'alignscape[peers]'")
    model, batch = make_problem(args)
    print(f"torch {torch.__version__}, {args.device}, {torch.get_num_threads()} threads, {len(batch[0])} samples")
    rows = []
    for name in args.only:
        rows.append(ROWS[name](model, batch, args))
        print(rows[-1], flush=True)
    print(f"\n{'work':34} {'alignscape':>24} {'PyHessian':>26} {'ratio':>7}   target")
    print(*rows, sep="\n")


ROWS = {
    "product": product_row,
    "eigenvalues": eigenvalue_row,
    "trace": trace_row,
    "surface": surface_row,
    "memory": memory_row,
}

if __name__ == "__main__":
    main()
