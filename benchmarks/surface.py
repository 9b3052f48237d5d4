"""Loss surfaces against parameter swapping, the way of other tools: same network, samples, grid and process.

    python -m benchmarks.surface                                # 3072-512-512-10, 2,000 samples, 21 x 21 points
    python -m benchmarks.surface --device cuda                  # many points at once
    python -m benchmarks.surface --model torchvision:resnet18   # a network with little work in its first layer

Both sides evaluate all samples in float32 without gradients. Swapping computes theta + a v1 + b v2 as one flat vector,
lets the parameters be views of it and evaluates all samples in one batch (or --batch-size). Our time includes finding
the affine layers and the check of the centre: second differences and the Hessian in the plane.
"""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

# Python puts this file's folder first, where a benchmark's name hides the package that it measures: move it to the end.
sys.path.sort(key=lambda entry: Path(entry).resolve() == Path(__file__).resolve().parent)

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from landscape.plane import PlaneLoss
from landscape.surfaces import surface
from training.models import import_model

TARGET = 5.0

Batch = tuple[Tensor, Tensor]


def swapped(model: nn.Module, batch: Batch, directions: Tensor, axis: Tensor, batch_size: int) -> Tensor:
    """Return the surface (A, A) by writing the weights of every grid point into the model."""
    loss = nn.CrossEntropyLoss()
    parameters = list(model.parameters())
    origin = parameters_to_vector(parameters).detach().clone()
    found = torch.empty(len(axis), len(axis), device=origin.device)
    batches = list(zip(batch[0].split(batch_size), batch[1].split(batch_size), strict=True))
    with torch.no_grad():
        for i, alpha in enumerate(axis.tolist()):
            row = torch.add(origin, directions[0], alpha=alpha)
            for j, beta in enumerate(axis.tolist()):
                vector_to_parameters(torch.add(row, directions[1], alpha=beta), parameters)
                found[i, j] = sum(loss(model(x), y) * len(y) for x, y in batches) / len(batch[1])
        vector_to_parameters(origin, parameters)
    return found


def compare(
    model: nn.Module, batch: Batch, *, points: int = 21, repeats: int = 3, batch_size: int | None = None
) -> tuple[float, float, float]:
    """Return our seconds, those of swapping (the best of ``repeats``, alternating) and the largest relative
    difference of the two surfaces."""
    size = sum(p.numel() for p in model.parameters())
    device = batch[0].device
    directions = torch.randn(2, size, generator=torch.Generator().manual_seed(0)).to(device)
    directions /= directions.norm(dim=1, keepdim=True)
    axis = torch.linspace(-1, 1, points)
    whole = len(batch[1])
    ours = theirs = math.inf
    difference = 0.0
    for _ in range(repeats):
        seconds, reference = timed(lambda: swapped(model, batch, directions, axis, batch_size or whole), device)
        theirs = min(theirs, seconds)
        seconds, found = timed(
            lambda: surface(model, nn.CrossEntropyLoss(), batch, directions, alphas=axis, batch_size=batch_size).loss,
            device,
        )
        ours = min(ours, seconds)
        difference = max(difference, float(((found - reference.cpu()) / found).abs().max()))
    return ours, theirs, difference


def timed(work: Callable[[], Tensor], device: torch.device) -> tuple[float, Tensor]:
    """Return the time of one call, the device's queue included, and what it returns."""
    begun = perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return perf_counter() - begun, result


def make_model(reference: str, device: str) -> nn.Module:
    """Return the network in eval mode, untrained: the work does not depend on the weights."""
    torch.manual_seed(0)
    if reference != "mlp":
        return import_model(reference).to(device).eval()
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3072, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    ).to(device)


def main() -> None:
    """Print the times, their ratio and how far the two surfaces differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="(default: cpu)")
    parser.add_argument("--model", default="mlp", metavar="REF", help="mlp or package.module:factory (default: mlp)")
    parser.add_argument("--samples", type=int, default=2000, metavar="N", help="images of 3 x 32 x 32 (default: 2000)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="samples at a time (default: all; ours chooses)")
    parser.add_argument("--points", type=int, default=21, metavar="N", help="grid points an axis (default: 21)")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="best of so many runs (default: 3)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="CPU threads (default: 2)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = make_model(args.model, args.device)
    generator = torch.Generator().manual_seed(1)
    batch = (
        torch.randn(args.samples, 3, 32, 32, generator=generator).to(args.device),
        torch.randint(0, 10, (args.samples,), generator=generator).to(args.device),
    )
    plane = PlaneLoss(model, nn.CrossEntropyLoss(), batch, torch.eye(2, sum(p.numel() for p in model.parameters())))
    affine = sum(p.numel() for layer in plane.network.affine_layers for p in layer.parameters())
    where = torch.cuda.get_device_name() if args.device == "cuda" else f"{args.threads} CPU threads"
    print(f"{args.points} x {args.points} points, {args.samples} samples, {args.model}, float32, {where}")
    print(f"parameters in affine layers: {affine / sum(p.numel() for p in model.parameters()):.0%}")
    ours, theirs, difference = compare(
        model, batch, points=args.points, repeats=args.repeats, batch_size=args.batch_size
    )
    verdict = f"target {TARGET:g}: {'met' if theirs >= TARGET * ours else 'MISSED'}" if args.model == "mlp" else ""
    print(f"swapping {theirs:.3f} s, ours {ours:.3f} s, ratio {theirs / ours:.2f}  {verdict}")
    print(f"largest relative difference of the two surfaces: {difference:.1e}")


if __name__ == "__main__":
    main()
