"""How fast the trainer is, side by side in one run with the usual PyTorch loop and with the floor.

    python benchmarks/train.py [--device cpu] [--data-root DIR] [--case mlp small] [--stacks 8] [--rounds 5]
    python benchmarks/train.py --compile           # with a loop by torch.compile, where there is a compiler
    python benchmarks/train.py --break-even        # where stacks begin to pay on a CPU

Every contender trains the same network by backpropagation on the same samples with Adam; rounds of a fixed number of
steps alternate between the contenders, and the median counts. Cases: ``mlp`` is the paper's 3072-512-512-10 with
mini-batches of 128 (CIFAR-10 if ``--data-root`` is given, random bytes otherwise: the work is the same), ``small`` is
64-64-64-10 with 32 on random bytes.

* ``tutorial, W workers``: torchvision's CIFAR10 with ToTensor and Normalize, a DataLoader, ``Adam(parameters, lr)``.
* ``tensors``: the same loop over a TensorDataset of floats that are normalised already.
* ``eager``: a loop by hand over normalised floats that are on the device already, with Adam's defaults.
* ``compiled``: the same loop, its loss compiled by ``torch.compile`` (on a GPU with CUDA graphs), with fused Adam.
* ``alignscape, E``: what ``analyze train`` runs, E networks as a stack; E = 1 is a run alone.
* ``floor, E``: the matrix products of a step on fixed inputs and fused Adam, nothing else.

``x usual`` compares a network's steps a second with the faster of the usual loops, ``x tutorial`` with the fastest
tutorial loop; ``of floor`` with the floor at the same E.
"""

import argparse
import dataclasses
import importlib.util
import itertools
import shutil
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision import datasets, transforms

from training.checkpoint import DataInfo
from training.config import TrainConfig
from training.data import Dataset, Normalise, Split, load_dataset
from training.loop import Trainer
from training.models import MLP
from training.network import Network
from training.optimiser import StackOptimiser
from training.precision import autocast, products
from training.run_folder import RunFolder
from training.stack_size import CPU_BREAK_EVEN


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network and its data."""

    shape: tuple[int, int, int]
    hidden: tuple[int, int]
    batch: int
    samples: int  # of the real data set: steps an epoch follow from it
    tests: int

    def config(self, precision: str = "fp32") -> TrainConfig:
        return TrainConfig(dataset="cifar10", hidden=self.hidden, batch_size=self.batch, precision=precision)

    @property
    def widths(self) -> tuple[int, ...]:
        return (torch.Size(self.shape).numel(), *self.hidden, 10)

    @property
    def adam_bytes(self) -> int:
        """Bytes that a step of Adam moves at least: weights, gradients and two moments in, weights and moments out."""
        return 28 * sum((n + 1) * out for n, out in itertools.pairwise(self.widths))


CASES = {
    "mlp": Case(shape=(3, 32, 32), hidden=(512, 512), batch=128, samples=50_000, tests=10_000),
    "small": Case(shape=(1, 8, 8), hidden=(64, 64), batch=32, samples=1437, tests=360),
}
EPOCHS = 30  # of the projection


@dataclass
class Contender:
    """``run(steps)`` takes so many steps with each of ``networks`` networks."""

    run: Callable[[int], None]
    networks: int = 1


def random_data(case: Case, device: str) -> Dataset:
    """Random bytes of the shape of the case's data."""
    random = torch.Generator().manual_seed(0)

    def split(n: int) -> Split:
        images = torch.randint(256, (n, *case.shape), dtype=torch.uint8, generator=random)
        return Split(images=images, labels=torch.randint(10, (n,), generator=random)).to(device)

    ones = (1.0,) * case.shape[0]
    mean, std = (tuple(value * x for x in ones) for value in (0.5, 0.25))
    return Dataset(name="random", train=split(case.samples), test=split(case.tests), mean=mean, std=std, classes=10)


def usual_step(case: Case, device: str) -> Callable[[Tensor, Tensor], None]:
    """The training step of every tutorial."""
    model: nn.Module = MLP(case.widths[0], case.hidden, 10).to(device)
    adam = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step(inputs: Tensor, labels: Tensor) -> None:
        adam.zero_grad()
        F.cross_entropy(model(inputs.to(device)), labels.to(device)).backward()
        adam.step()

    return step


def usual(case: Case, device: str, loader: "DataLoader[tuple[Tensor, Tensor]]") -> Contender:
    """The usual loop over ``loader``, epoch after epoch."""
    step = usual_step(case, device)

    def batches() -> Iterable[tuple[Tensor, Tensor]]:
        while True:
            yield from loader

    stream = iter(batches())

    def run(steps: int) -> None:
        for _ in range(steps):
            step(*next(stream))

    return Contender(run)


def eager(case: Case, data: Dataset, precision: str, *, compiled: bool = False) -> Contender:
    """The usual step over samples that are on the device, with nothing between them and the network.

    Args:
        case: the network.
        data: on the device.
        precision: of the products.
        compiled: by ``torch.compile``, with fused Adam; its first steps take seconds.
    """
    device = data.train.labels.device
    inputs, labels = Normalise(data.mean, data.std).to(device)(data.train.images), data.train.labels
    model: nn.Module = MLP(case.widths[0], case.hidden, 10).to(device)
    options = {"fused": True, "capturable": device.type == "cuda"} if compiled else {}
    adam = torch.optim.Adam(model.parameters(), lr=1e-4, **options)

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        with autocast(precision, device):
            return F.cross_entropy(model(x), y)

    mode = "reduce-overhead" if device.type == "cuda" else None
    loss = torch.compile(loss_of, mode=mode) if compiled else loss_of

    def batches() -> Iterable[Tensor]:
        while True:
            yield from torch.randperm(len(labels), device=device).split(case.batch)[:-1]

    stream = iter(batches())

    def run(steps: int) -> None:
        for _ in range(steps):
            batch = next(stream)
            adam.zero_grad()
            loss(inputs[batch], labels[batch]).backward()
            adam.step()

    return Contender(run)


def no_compiler(device: str) -> str | None:
    """Return what ``torch.compile`` lacks here, None if nothing."""
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return "no C++ compiler is installed here"
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        return "triton is not installed here"
    return None


def bandwidth(device: str, size: int = 2**30, rounds: int = 10) -> float:
    """Return the bytes a second that a copy of ``size`` bytes reads and writes, in the fastest of ``rounds``."""
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(rounds + 2):  # the first ones warm up
        synchronise(device)
        start = time.perf_counter()
        target.copy_(source)
        synchronise(device)
        best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best


def synchronise(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def tensors(case: Case, data: Dataset, device: str) -> Contender:
    inputs = Normalise(data.mean, data.std).to(device)(data.train.images).cpu()
    loaded = TensorDataset(inputs, data.train.labels.cpu())
    return usual(case, device, DataLoader(loaded, batch_size=case.batch, shuffle=True))


def tutorial(case: Case, data: Dataset, device: str, workers: int) -> Contender:
    # torchvision's own class around the samples at hand, so that random bytes run through the same code as files.
    pictures = datasets.CIFAR10.__new__(datasets.CIFAR10)
    images = data.train.images.cpu()
    pictures.data = images.permute(0, 2, 3, 1).contiguous().numpy()
    pictures.targets = data.train.labels.tolist()
    pictures.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(data.mean, data.std)])
    pictures.target_transform = None
    loader = DataLoader(
        pictures, batch_size=case.batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    return usual(case, device, loader)


def made(case: Case, data: Dataset, networks: int, precision: str) -> list[Network]:
    """Make so many networks, each with its own seed."""
    info = DataInfo.of(data)
    configs = [dataclasses.replace(case.config(precision), seed=seed) for seed in range(networks)]
    return [Network(config, data, info, RunFolder(Path())) for config in configs]


def alignscape(case: Case, data: Dataset, networks: int, precision: str) -> tuple[Contender, Trainer]:
    return trained_by_us(made(case, data, networks, precision), data)


def trained_by_us(networks: list[Network], data: Dataset) -> tuple[Contender, Trainer]:
    """Return the contender that trains these networks as a stack, from where they stand."""
    trainer = Trainer(networks, data)
    steps_per_epoch = trainer.steps_per_epoch - 1  # whole mini-batches only, as the other contenders

    def run(steps: int) -> None:
        epoch = 1 + trainer.stack.step // steps_per_epoch
        trainer.stack.start_epoch(epoch)
        for index in range(steps):
            trainer.stack.train_step(epoch, index % steps_per_epoch)

    return Contender(run, len(networks)), trainer


def floor(case: Case, data: Dataset, networks: int, precision: str) -> Contender:
    """The products of a step of E three-layer MLPs on fixed inputs, and fused Adam, captured like ours on a GPU."""
    device = data.train.labels.device
    widths = case.widths
    random = torch.Generator().manual_seed(0)
    lead = (networks,) if networks > 1 else ()
    weights = [
        (0.02 * torch.randn(*lead, out, n, generator=random)).to(device) for n, out in itertools.pairwise(widths)
    ]
    parameters = {str(i): weight for i, weight in enumerate(weights)}
    adam = StackOptimiser([case.config()] * networks, parameters, decayed=parameters)
    x0 = torch.randn(*lead, case.batch, widths[0], generator=random).to(device)
    low = torch.bfloat16 if precision == "bf16" else torch.float32

    @torch.no_grad()
    def body() -> None:
        w0, w1, w2 = (weight.to(low) for weight in weights)
        x = x0.to(low)
        x1 = (x @ w0.mT).relu_()
        x2 = (x1 @ w1.mT).relu_()
        delta2 = (x2 @ w2.mT).softmax(-1)
        delta1 = delta2 @ w2
        delta0 = delta1 @ w1
        gradients = (delta0.mT @ x, delta1.mT @ x1, delta2.mT @ x2)
        adam.step({str(i): g.float() for i, g in enumerate(gradients)})

    step = recorded(body) if device.type == "cuda" else body

    def run(steps: int) -> None:
        for _ in range(steps):
            step()

    return Contender(run, networks)


def recorded(body: Callable[[], None]) -> Callable[[], None]:
    """Record ``body`` as a CUDA graph, by the few lines that torch's manual gives, and return what replays it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            body()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        body()
    return graph.replay


def measure(contenders: dict[str, Contender], steps: int, rounds: int, device: str) -> dict[str, float]:
    """Median seconds a step of each contender, all its networks together, over alternating rounds after a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for round_number in range(rounds + 1):
        for name, contender in contenders.items():
            count = max(8, steps // contender.networks)
            synchronise(device)
            start = time.perf_counter()
            contender.run(count)
            synchronise(device)
            if round_number:
                seconds[name].append((time.perf_counter() - start) / count)
    return {name: statistics.median(values) for name, values in seconds.items()}


def compare(name: str, args: argparse.Namespace) -> None:
    """Measure one case and print its table."""
    case, device = CASES[name], args.device
    real = name == "mlp" and args.data_root is not None
    data = load_dataset("cifar10", args.data_root, device=device) if real else random_data(case, device)
    contenders = {
        **({f"tutorial, {w} workers": tutorial(case, data, device, w) for w in (0, 2)} if name == "mlp" else {}),
        "tensors": tensors(case, data, device),
    }
    usual_names = list(contenders)
    contenders["eager"] = eager(case, data, args.precision)
    if args.compile and (reason := no_compiler(device)):
        print(f"compiled: skipped: {reason}")
    elif args.compile:
        contenders["compiled"] = eager(case, data, args.precision, compiled=True)
    trainers = {}
    for networks in (1, *args.stacks):
        label = f"alignscape, {networks}"
        contenders[label], trainers[label] = alignscape(case, data, networks, args.precision)
        contenders[f"floor, {networks}"] = floor(case, data, networks, args.precision)
    with products(args.precision):
        seconds = measure(contenders, args.steps, args.rounds, device)
    rates = {key: contenders[key].networks / value for key, value in seconds.items()}  # network steps a second
    fastest = max(rates[key] for key in usual_names)
    pictures = max((rates[key] for key in usual_names if key.startswith("tutorial")), default=float("nan"))
    threads = torch.get_num_threads()
    where = torch.cuda.get_device_name() if device == "cuda" else f"cpu, {threads} threads"
    shape = "-".join(map(str, case.widths))
    print(
        f"\n{name}: {shape}, batch {case.batch}, {args.precision}; {where}; torch {torch.__version__}; "
        f"medians of {args.rounds} rounds"
    )
    print(f"{'':22}{'networks':>9}{'ms/network':>12}{'steps/s':>10}{'x usual':>9}{'x tutorial':>12}{'of floor':>10}")
    for key, rate in rates.items():
        same = rates.get(key.replace("alignscape", "floor"))
        of_floor = f"{rate / same:10.2f}" if key.startswith("alignscape") and same else ""
        versus = f"{rate / fastest:9.2f}{rate / pictures:12.2f}"
        print(f"{key:22}{contenders[key].networks:9}{1000 / rate:12.3f}{rate:10.0f}{versus}{of_floor}")
    for key, trainer in trainers.items():
        project(key, case, trainer, seconds[key])


def project(name: str, case: Case, trainer: Trainer, step_seconds: float) -> None:
    """Print what a run of so many epochs costs each network."""
    total = run_seconds(trainer, step_seconds)
    print(f"{name}: {EPOCHS} epochs of {case.samples} samples, evaluated after each: {total:.2f} s a network")


def run_seconds(trainer: Trainer, step_seconds: float) -> float:
    """Return the seconds of a run of so many epochs by network: steps, order of the samples, evaluation, metrics."""
    device = trainer.stack.device.type
    trainer._end_epoch()  # the first time it warms up
    synchronise(device)
    start = time.perf_counter()
    trainer._end_epoch()
    trainer.stack.order(trainer.stack.step // trainer.steps_per_epoch + 2)
    synchronise(device)
    evaluation = time.perf_counter() - start
    return EPOCHS * (trainer.steps_per_epoch * step_seconds + evaluation) / len(trainer.stack.networks)


def break_even(args: argparse.Namespace) -> None:
    """Print how much faster a stack is than single networks, by the multiply-adds of a network's step."""
    print(f"cpu, {torch.get_num_threads()} threads; a stack is chosen below {CPU_BREAK_EVEN:.0e} multiply-adds")
    print(f"{'inputs':>7}{'hidden':>8}{'batch':>7}{'multiply-adds':>15}{'ms alone':>10}{'x at 4':>8}{'x at 16':>9}")
    for side, hidden, batch in (
        *((8, 32, 32), (8, 64, 32), (8, 64, 128), (8, 256, 64)),
        *((28, 64, 64), (28, 256, 128), (28, 512, 64), (32, 512, 128)),
    ):
        case = Case(
            shape=(3 if side == 32 else 1, side, side), hidden=(hidden, hidden), batch=batch, samples=4096, tests=10
        )
        data = random_data(case, "cpu")
        contenders = {str(e): alignscape(case, data, e, "fp32")[0] for e in (1, 4, 16)}
        seconds = measure(contenders, args.steps, args.rounds, "cpu")
        work = 3 * batch * sum(n * out for n, out in itertools.pairwise(case.widths))
        gains = [seconds["1"] / (seconds[str(e)] / e) for e in (4, 16)]
        line = f"{case.widths[0]:7}{hidden:8}{batch:7}{work:15.1e}{1000 * seconds['1']:10.2f}"
        print(f"{line}{gains[0]:8.2f}{gains[1]:9.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, help="folder with CIFAR-10 (default: random bytes)")
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES), help="(default: all)")
    parser.add_argument("--stacks", nargs="*", type=int, help="stack sizes (default: 8, on a GPU 8 64)")
    parser.add_argument(
        "--steps", type=int, default=100, help="steps a round; a stack of E: a round of 1/E (default: 100)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (default: 5)")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "tf32", "bf16"), help="of ours and the floor")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--compile", action="store_true", help="also a loop by torch.compile")
    parser.add_argument("--break-even", action="store_true", help="measure where stacks begin to pay on this CPU")
    args = parser.parse_args()
    if args.stacks is None:
        args.stacks = [8, 64] if args.device == "cuda" else [8]
    if args.break_even:
        break_even(args)
        return
    for name in args.case:
        compare(name, args)


if __name__ == "__main__":
    main()
