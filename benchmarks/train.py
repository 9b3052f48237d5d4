"""How fast the trainer is: ours, a loop written by hand, and the usual PyTorch loop, side by side in one run.

    python benchmarks/train.py [--data-root DIR] [--samples 12800] [--rounds 5] [--device cpu]

Every contender trains the paper's MLP (3072-512-512-10, batch 128, Adam) by backpropagation on the same samples
(CIFAR-10 if ``--data-root`` is given, random bytes otherwise: the work is the same) for one pass a round; rounds
alternate between the contenders, and the median counts.

* ``products + Adam``: the floor: the eight matrix products of a step on fixed inputs and ``Adam(fused=True)`` only.
* ``hand-written``: forward and backward as explicit products, ``Adam(fused=True)``, data in memory as floats.
* ``alignscape``: what ``analyze train`` runs: uint8 data, normalisation, metrics, resumable.
* ``usual loop``: ``DataLoader`` over a ``TensorDataset`` of floats, autograd, ``Adam`` with its defaults.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from training.checkpoint import DataInfo
from training.config import TrainConfig
from training.data import Dataset, Normalise, Split, load_dataset
from training.loop import Trainer
from training.models import MLP

BATCH = 128
CONFIG = TrainConfig(dataset="cifar10", batch_size=BATCH, epochs=1000)


def make_data(root: Path | None, samples: int, device: str) -> Dataset:
    """Real CIFAR-10, or random bytes of its shape."""
    if root is not None:
        return load_dataset("cifar10", root, train_size=samples, device=device)
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (samples, 3, 32, 32), dtype=torch.uint8, generator=random)
    split = Split(images=images, labels=torch.randint(10, (samples,), generator=random)).to(device)
    return Dataset(name="cifar10", train=split, test=split, mean=(0.5,) * 3, std=(0.25,) * 3, classes=10)


def backward_by_hand(model: MLP, x0: Tensor, labels: Tensor) -> None:
    """The eight products of a step of a three-layer MLP, and the gradients where Adam looks for them."""
    l0, l1, l2 = model.layers
    x1 = torch.addmm(l0.bias, x0, l0.weight.T).relu_()
    x2 = torch.addmm(l1.bias, x1, l1.weight.T).relu_()
    delta2 = torch.addmm(l2.bias, x2, l2.weight.T).softmax(1)
    delta2[torch.arange(len(labels), device=labels.device), labels] -= 1
    delta2 /= len(labels)
    delta1 = (delta2 @ l2.weight).mul_(x2 > 0)
    delta0 = (delta1 @ l1.weight).mul_(x1 > 0)
    for layer, delta, x in ((l0, delta0, x0), (l1, delta1, x1), (l2, delta2, x2)):
        layer.weight.grad, layer.bias.grad = delta.T @ x, delta.sum(0)


def floor_contender(data: Dataset) -> Callable[[], None]:
    model = MLP(3072, (512, 512), 10).to(data.train.labels.device)
    adam = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    inputs = Normalise(data.mean, data.std).to(data.train.labels.device)(data.train.images[:BATCH]).flatten(1)
    labels = data.train.labels[:BATCH]

    @torch.no_grad()
    def epoch() -> None:
        for _ in range(len(data.train) // BATCH):
            backward_by_hand(model, inputs, labels)
            adam.step()

    return epoch


def hand_written_contender(data: Dataset) -> Callable[[], None]:
    device = data.train.labels.device
    model = MLP(3072, (512, 512), 10).to(device)
    adam = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    inputs = Normalise(data.mean, data.std).to(device)(data.train.images).flatten(1)

    @torch.no_grad()
    def epoch() -> None:
        for batch in torch.randperm(len(inputs), device=device).split(BATCH):
            backward_by_hand(model, inputs[batch], data.train.labels[batch])
            adam.step()

    return epoch


def alignscape_contender(data: Dataset) -> Callable[[], None]:
    trainer = Trainer(CONFIG, data, DataInfo.of(data))
    return lambda: trainer._train_until_pause(None, pause_at=float("inf"))


def usual_contender(data: Dataset) -> Callable[[], None]:
    device = data.train.labels.device
    model: nn.Module = MLP(3072, (512, 512), 10).to(device)
    adam = torch.optim.Adam(model.parameters(), lr=1e-4)
    inputs = Normalise(data.mean, data.std).to(device)(data.train.images).cpu()
    loader = DataLoader(TensorDataset(inputs, data.train.labels.cpu()), batch_size=BATCH, shuffle=True)

    def epoch() -> None:
        for x, labels in loader:
            adam.zero_grad()
            F.cross_entropy(model(x.to(device)), labels.to(device)).backward()
            adam.step()

    return epoch


def measure(contenders: dict[str, Callable[[], None]], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each contender over alternating rounds, after a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for round_number in range(rounds + 1):
        for name, epoch in contenders.items():
            start = time.perf_counter()
            epoch()
            if device == "cuda":
                torch.cuda.synchronize()
            if round_number:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, help="folder with CIFAR-10 (default: random bytes)")
    parser.add_argument("--samples", type=int, default=12_800, help="samples a round (default: 12800)")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (default: 5)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    args = parser.parse_args()
    data = make_data(args.data_root, args.samples, args.device)
    contenders = {
        "products + Adam": floor_contender(data),
        "hand-written": hand_written_contender(data),
        "alignscape": alignscape_contender(data),
        "usual loop": usual_contender(data),
    }
    seconds = measure(contenders, args.rounds, args.device)
    steps = args.samples / BATCH
    print(
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, {args.device}, medians of {args.rounds} rounds"
    )
    print(f"{'':16} {'steps/s':>8} {'ms/step':>8} {'/ floor':>8} {'/ hand-written':>15}")
    for name, value in seconds.items():
        ratios = value / seconds["products + Adam"], value / seconds["hand-written"]
        print(f"{name:16} {steps / value:8.0f} {1000 * value / steps:8.2f} {ratios[0]:8.2f} {ratios[1]:15.2f}")


if __name__ == "__main__":
    main()
