"""Curvature against PyHessian and others: products, eigenvalues, trace, surface, memory, convolutions by layer.

    python -m benchmarks.landscape                                      # random images
    python -m benchmarks.landscape --data-root DIR                      # CIFAR-10
    python -m benchmarks.landscape --data-root DIR --checkpoint RUN     # a trained network of your own

Network 3072-512-512-10 (P = 1.84 M), 2,000 training samples, trained for an epoch. Both sides run in one process on
the same samples and network, in float32, and alternate where they are timed. PyHessian gets its fastest use: the
samples as ready tensors in one batch, no loader. Where it must stop by itself it is stopped by an oracle, at the first
product whose residual is good enough: its own test (two equal values) would stop it sooner or later than that.

``--only peers`` sets products, top eigenvalues and trace against every peer that is installed, on the MLP, on ResNet-20
and on a small vision transformer (``--models``). ``--only layers`` times a product of ResNet-20 against what it cannot
do without: of each convolution two forward, two to the inputs and two to the weights, each timed bare (the first layer
has one forward and one to the weights). ``--only samples`` takes 50,000 samples of the MLP.
"""

import argparse
import importlib.util
import math
import multiprocessing
import resource
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

# Python puts this file's folder first, where a benchmark's name hides the package that it measures: move it to the end.
sys.path.sort(key=lambda entry: Path(entry).resolve() == Path(__file__).resolve().parent)

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.landscape_peers import CountedPyHessian, Peer, peers
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
        return f"{self.work:44} {self.ours:>24} {self.theirs:>26} {self.ratio:>7.2f}   {self.target:12} {verdict}"


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
    need_ours = math.ceil(2 * float(ours.samples.std() / (0.02 * ours.value)) ** 2)  # a sample takes two products
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


def make_network(name: str, args: argparse.Namespace) -> tuple[nn.Module, Batch]:
    """Return a network of the head to head, with 128 samples that it was trained on for a moment, or the MLP with its
    own."""
    if name == "mlp":
        return make_problem(args)
    torch.manual_seed(0)
    if name == "resnet20":
        from training import TrainConfig
        from training.models import MODELS

        model = MODELS["resnet20"](TrainConfig(), (3, 32, 32), 10)
    else:
        from torchvision.models.vision_transformer import VisionTransformer

        model = VisionTransformer(32, 4, 4, 4, 64, 128, num_classes=10)
    model.to(args.device)
    labels = torch.randint(0, 10, (128,), device=args.device)
    images = torch.randn(10, 3, 32, 32, device=args.device)[labels] + torch.randn(128, 3, 32, 32, device=args.device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(3):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
    model.zero_grad(set_to_none=True)
    return model.eval(), (images, labels)


def peer_rows(args: argparse.Namespace) -> list[Row]:
    """Set products, the top 5 and the products that a trace to 2 % takes against every peer on every network."""
    rows = []
    for name in args.models:
        model, batch = make_network(name, args)
        with sdpa_kernel(SDPBackend.MATH):
            for peer in peers(model, batch):
                for work in args.work:
                    found = PEER_WORK[work](name, model, batch, peer, args)
                    print(*found, sep="\n", flush=True)
                    rows += found
    return rows


def _peer_product(name: str, model: nn.Module, batch: Batch, peer: Peer, args: argparse.Namespace) -> list[Row]:
    operator = HessianOperator(model, nn.CrossEntropyLoss(), batch)
    vector = torch.randn(operator.dim, device=args.device)
    wanted, found = operator.product(vector), peer.product(vector)
    error = (wanted - found).norm() / wanted.norm()
    assert error < 1e-3, f"the two products differ by {error:.1e}"
    mine, theirs = math.inf, math.inf
    for _ in range(args.repeats):
        theirs = min(theirs, seconds(lambda: peer.product(vector), args))
        mine = min(mine, seconds(lambda: operator.product(vector), args))
    ratio, title = theirs / mine, f"{name}: product, {peer.name}"
    return [Row(title, f"{1e3 * mine:.1f} ms", f"{1e3 * theirs:.1f} ms", ratio, ">= 1", ratio >= 1)]


def _peer_top(name: str, model: nn.Module, batch: Batch, peer: Peer, args: argparse.Namespace) -> list[Row]:
    """Time the top 5, ours as it is by default (a search for missed copies, and a product of each vector found for its
    residual: no peer does either) and without the former."""
    peer.products = 0
    values: list[float] = []
    theirs = seconds(lambda: values.extend(peer.top(5, 1e-4)), args)
    others, rows = f"{peer.products} products {theirs:.1f} s", []
    for words, confirm in (("top 5", True), ("top 5, not confirmed", False)):
        found: list[Eigenpairs] = []

        def ours(found: list[Eigenpairs] = found, confirm: bool = confirm) -> None:
            operator = HessianOperator(model, nn.CrossEntropyLoss(), batch)
            found.append(extreme_eigenpairs(operator, 5, tol=1e-4, confirm=confirm))

        mine = seconds(ours, args)
        off = max(abs(a / b - 1) for a, b in zip(values, found[0].values.tolist(), strict=True))
        print(f"  the values of {peer.name} differ by at most {100 * off:.2g} %")
        own = f"{found[0].n_products} products {mine:.1f} s"
        rows.append(Row(f"{name}: {words}, {peer.name}", own, others, theirs / mine, ">= 1", theirs >= mine))
    return rows


def _peer_trace(name: str, model: nn.Module, batch: Batch, peer: Peer, args: argparse.Namespace) -> list[Row]:
    operator = HessianOperator(model, nn.CrossEntropyLoss(), batch)
    space = krylov_subspace(operator, 25)
    ours = hutchinson_trace(operator, deflate=space, tol=1e-9, max_probes=args.probes, seed=1)
    theirs = peer.trace_samples(args.probes)
    need = math.ceil(2 * float(ours.samples.std() / (0.02 * ours.value)) ** 2) + len(space.rows)
    need_theirs = math.ceil(float(theirs.std() / (0.02 * theirs.mean())) ** 2)
    title = f"{name}: products for a trace to 2 %, {peer.name}"
    return [Row(title, str(need), str(need_theirs), need_theirs / need, ">= 1", need_theirs >= need)]


PEER_WORK = {"product": _peer_product, "top": _peer_top, "trace": _peer_trace}


def layers_row(args: argparse.Namespace) -> list[Row]:
    """Time a product of ResNet-20 against its convolutions alone, by layer."""
    model, batch = make_network("resnet20", args)
    inputs: dict[str, tuple[nn.Conv2d, Tensor, Tensor]] = {}

    def note(layer: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda module, given, images: inputs.__setitem__(layer, (module, given[0], images))  # type: ignore[arg-type]

    hooks = [m.register_forward_hook(note(n)) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        model(batch[0])
    for hook in hooks:
        hook.remove()
    operator = HessianOperator(model, nn.CrossEntropyLoss(), batch, memory_budget=4e9)
    vector = torch.randn(operator.dim, device=args.device)
    best: dict[tuple[str, str], float] = defaultdict(lambda: math.inf)
    for _ in range(args.repeats):
        with torch.no_grad():
            best["", "pass"] = min(best["", "pass"], seconds(lambda: model(batch[0]), args))
            for layer, (conv, x, images) in inputs.items():
                for kind, work in _bare(conv, x, images).items():
                    best[layer, kind] = min(best[layer, kind], seconds(work, args))
        best["", "product"] = min(best["", "product"], seconds(lambda: operator.product(vector), args))
    floor = 0.0
    for number, layer in enumerate(inputs):
        forward, to_inputs, to_weights = (1e3 * best[layer, kind] for kind in ("forward", "to inputs", "to weights"))
        own = forward + to_weights if number == 0 else 2 * (forward + to_inputs + to_weights)
        print(f"  {layer:20} forward {forward:6.2f}  to inputs {to_inputs:6.2f}  to weights {to_weights:6.2f} ms")
        floor += own / 1e3
    product, ratio = best["", "product"], best["", "product"] / floor
    print(f"  a product takes {product / best['', 'pass']:.2f} forward passes, its convolutions alone {floor:.3f} s")
    return [Row("ResNet-20: product over floor", f"{product:.3f} s", f"{floor:.3f} s", ratio, "<= 1.3", ratio <= 1.3)]


def _bare(conv: nn.Conv2d, x: Tensor, images: Tensor) -> dict[str, Callable[[], object]]:
    """Return the three convolutions that there are fast kernels for."""
    geometry = conv.stride, conv.padding, conv.dilation, False, [0, 0], conv.groups
    backward = torch.ops.aten.convolution_backward
    return {
        "forward": lambda: torch.convolution(x, conv.weight, None, *geometry),  # type: ignore[arg-type]
        "to inputs": lambda: backward(images, x, conv.weight, None, *geometry, [True, False, False]),
        "to weights": lambda: backward(images, x, conv.weight, None, *geometry, [False, True, False]),
    }


def samples_row(args: argparse.Namespace) -> list[Row]:
    """Find the top 5 of 50,000 samples in a process of its own; against its products at the speed of few samples."""
    context = multiprocessing.get_context("spawn")
    parent, child = context.Pipe()
    process = context.Process(target=_samples_work, args=(args, child))
    process.start()
    products, spent, needed = parent.recv()
    process.join()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    ratio = spent / needed
    print(f"  {products} products, peak memory {peak:.2f} GB (the budget for kept graphs is 1.07 GB)")
    title = f"top 5 of {args.many:,} samples"
    return [Row(title, f"{spent:.1f} s", f"products {needed:.1f} s", ratio, "<= 1.3", ratio <= 1.3)]


def _samples_work(args: argparse.Namespace, pipe: Any) -> None:
    torch.manual_seed(0)
    if args.threads:
        torch.set_num_threads(args.threads)
    layers = nn.Linear(3072, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    model = nn.Sequential(nn.Flatten(), *layers).to(args.device)
    images = torch.randint(0, 256, (args.many, 3, 32, 32), dtype=torch.uint8, device=args.device)
    labels = images[:, :, 0, 0].sum(dim=1) % 10
    normalise = Normalise(SOURCES["cifar10"].mean, SOURCES["cifar10"].std)

    def seconds_of_few() -> float:
        few = HessianOperator(model, nn.CrossEntropyLoss(), (images[:2000], labels[:2000]), transform=normalise)
        vector = torch.randn(few.dim, device=args.device)
        return min(seconds(lambda: few.product(vector), args) for _ in range(args.repeats))

    one = seconds_of_few()
    found: list[Eigenpairs] = []

    def work() -> None:
        data = images, labels
        found.append(top_eigenpairs(model, nn.CrossEntropyLoss(), data, k=5, tol=1e-2, transform=normalise))

    spent = seconds(work, args)
    pipe.send((found[0].n_products, spent, found[0].n_products * one * args.many / 2000))


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
    parser.add_argument(
        "--only", nargs="+", choices=[*ROWS, *TABLES], default=list(ROWS), help="rows (default: those of PyHessian)"
    )
    parser.add_argument("--models", nargs="+", choices=NETWORKS, default=NETWORKS, help="of peers (default: all)")
    parser.add_argument(
        "--work", nargs="+", choices=list(PEER_WORK), default=list(PEER_WORK), help="against peers (default: all)"
    )
    parser.add_argument("--many", type=int, default=50_000, help="samples of the row `samples` (default: 50,000)")
    parser.add_argument("--threads", type=int, help="threads (default: torch's)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if set(args.only) & set(ROWS) and importlib.util.find_spec("pyhessian") is None:
        parser.error("pyhessian is not installed: pip install 'alignscape[peers]'")
    model, batch = make_problem(args) if set(args.only) & set(ROWS) else (nn.Identity(), (torch.zeros(0),) * 2)
    print(f"torch {torch.__version__}, {args.device}, {torch.get_num_threads()} threads")
    rows = []
    for name in args.only:
        if name in TABLES:
            rows += TABLES[name](args)
            continue
        rows.append(ROWS[name](model, batch, args))
        print(rows[-1], flush=True)
    print(f"\n{'work':44} {'alignscape':>24} {'the other':>26} {'ratio':>7}   target")
    print(*rows, sep="\n")


ROWS = {
    "product": product_row,
    "eigenvalues": eigenvalue_row,
    "trace": trace_row,
    "surface": surface_row,
    "memory": memory_row,
}
TABLES = {"peers": peer_rows, "layers": layers_row, "samples": samples_row}
NETWORKS = ["mlp", "resnet20", "vit"]

if __name__ == "__main__":
    main()
