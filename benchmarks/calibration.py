"""Do the 95 % intervals cover 95 % of the time? Over many seeds, on nets whose Hessian is known entry by entry.

    python -m benchmarks.calibration                       # 200 seeds, prints the table of docs/calibration.md
    python -m benchmarks.calibration --seeds 50            # a quick look
    python -m benchmarks.calibration --matrices            # block matrices and a semicircle
    python -m benchmarks.calibration --sharpness           # measures of sharpness: the table of docs/sharpness.md

Two oracles: a tanh network 64-8-10 (610 parameters) on scikit-learn's digits, as initialised and after training. The
Hessian over 600 samples is computed densely in float64, once; the estimators see it through products only. For the
rows "over samples", the population is the whole train split, and every seed draws 600 samples of it.
"""

import argparse
import copy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Python puts this file's folder first, where a benchmark's name hides the package that it measures: move it to the end.
sys.path.sort(key=lambda entry: Path(entry).resolve() == Path(__file__).resolve().parent)

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from landscape import (
    Ball,
    HessianOperator,
    LossAround,
    data_error,
    extreme_eigenpairs,
    first_order_rise,
    fisher_rao,
    hutchinson_trace,
    keskar_sharpness,
    pac_bayes_sigma,
    relative_flatness,
    slq_density,
    worst_case_rise,
)
from landscape.sharpness.congruent import along, traced
from landscape.traces import Estimate
from training.data import SOURCES, Normalise, load_split


class DenseOperator:
    """A matrix that is multiplied only."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.dim, self.dtype, self.device = matrix, len(matrix), matrix.dtype, matrix.device
        self.n_products = 0

    def product(self, vectors: Tensor) -> Tensor:
        """Multiply rows."""
        self.n_products += len(vectors)
        return vectors @ self.matrix


@dataclass(frozen=True)
class Oracle:
    """A network, its data, and the truth about a fixed sample of them."""

    name: str
    model: nn.Module
    inputs: Tensor
    labels: Tensor
    matrix: Tensor
    spectrum: Tensor
    population: Tensor  # spectrum over all samples


def oracles() -> Iterator[Oracle]:
    """Yield the untrained and the trained network."""
    digits = load_split("digits", "train", None)
    source = SOURCES["digits"]
    inputs, labels = Normalise(source.mean, source.std)(digits.images).flatten(1).double(), digits.labels
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10)).double()
    for name, steps in (("untrained", 0), ("trained", 100)):
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(steps):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimiser.step()
        whole = dense(model, inputs, labels)
        matrix = dense(model, inputs[:600], labels[:600])
        yield Oracle(name, copy.deepcopy(model), inputs, labels, matrix, *map(torch.linalg.eigvalsh, (matrix, whole)))


def dense(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return the Hessian of the mean loss by differentiating twice, whole."""
    parameters = dict(model.named_parameters())
    sizes = [p.numel() for p in parameters.values()]

    def loss(flat: Tensor) -> Tensor:
        parts = {n: part.view_as(p) for (n, p), part in zip(parameters.items(), flat.split(sizes), strict=True)}
        return nn.functional.cross_entropy(torch.func.functional_call(model, parts, (inputs,)), labels)

    flat = torch.cat([p.detach().flatten() for p in parameters.values()])
    return torch.autograd.functional.hessian(loss, flat, vectorize=True)


def covers(estimate: Estimate, truth: float) -> bool:
    """Whether the interval holds the truth."""
    return estimate.ci_low <= truth <= estimate.ci_high


Trial = Callable[[Oracle, int], list[list[bool]]]
"""Of one net and seed: for each row of the table that the trial fills, whether its intervals cover."""


def trace_trial(*, tol: float, max_probes: int, first_seed: int, deflate: str = "nothing") -> Trial:
    """Return a trial of the trace's interval; rows have seeds of their own, so that they err independently."""

    def trial(oracle: Oracle, seed: int) -> list[list[bool]]:
        operator = DenseOperator(oracle.matrix)
        span = None
        if deflate != "nothing":
            pairs = extreme_eigenpairs(operator, 5, seed=first_seed + seed, keep_basis=deflate == "krylov space")
            span = pairs.vectors if pairs.basis is None else pairs.basis
        found = hutchinson_trace(operator, deflate=span, tol=tol, max_probes=max_probes, seed=first_seed + seed + 1000)
        return [[covers(found, float(oracle.spectrum.sum()))]]

    return trial


def residual_trial(oracle: Oracle, seed: int) -> list[list[bool]]:
    """Whether an eigenvalue lies within the residual of each of the top 5, found loosely."""
    pairs = extreme_eigenpairs(DenseOperator(oracle.matrix), 5, tol=3e-2, seed=seed)
    distance = (pairs.values[:, None] - oracle.spectrum).abs().amin(dim=1)
    return [(distance <= pairs.residuals + 1e-12).tolist()]


def density_trial(*, probes: int) -> Trial:
    """Return a trial of the pointwise bands, density and cumulative, over a grid that spans bulk and outliers."""

    def trial(oracle: Oracle, seed: int) -> list[list[bool]]:
        found = slq_density(DenseOperator(oracle.matrix), steps=80, probes=probes, seed=seed)
        spectrum = oracle.spectrum.numpy()
        width = 0.01 * (spectrum[-1] - spectrum[0])
        grid = np.concatenate([np.linspace(spectrum[0], 5 * width, 15), spectrum[-5:]])
        noise = stats.norm(scale=width)
        rows = []
        for function, curve in ((noise.pdf, found.density), (noise.cdf, found.cumulative)):
            truth, band = function(grid[:, None] - spectrum).mean(axis=1), curve(grid, width=width)
            rows.append(((band.low <= truth + 1e-12) & (truth <= band.high + 1e-12)).tolist())
        return rows

    return trial


def negative_trial(oracle: Oracle, seed: int) -> list[list[bool]]:
    """Whether the interval of the share below minus one width holds the true share."""
    found = slq_density(DenseOperator(oracle.matrix), steps=80, probes=3, seed=seed)
    return [[covers(found.share_below(-found.width), float((oracle.spectrum < -found.width).double().mean()))]]


def sample_trial(oracle: Oracle, seed: int) -> list[list[bool]]:
    """Whether the intervals over samples hold the values of the whole population: 5 eigenvalues and the trace.

    As ``analyze hessian --bootstrap`` computes them, with fewer probes: 600 samples drawn with replacement, 40 groups.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(oracle.labels), (600,), generator=generator)
    data = oracle.inputs[chosen], oracle.labels[chosen]
    operator = HessianOperator(oracle.model, nn.CrossEntropyLoss(), data, batch_size=15)
    pairs = extreme_eigenpairs(operator, 5, tol=1e-3, seed=seed, keep_basis=True)
    trace = hutchinson_trace(operator, deflate=pairs.basis, seed=10_000 + seed, max_probes=18)
    found = data_error(operator, pairs, trace, resamples=300, probes=6, seed=20_000 + seed)
    truth = oracle.population.flip(0)[:5].tolist()
    eigenvalues = [[covers(e, t)] for e, t in zip(found.eigenvalues, truth, strict=True)]
    return [*eigenvalues, [covers(found.trace, float(oracle.population.sum()))]]


ROWS: dict[tuple[str, ...], Trial] = {
    ("trace, 30 probes",): trace_trial(tol=1e-9, max_probes=30, first_seed=10_000),
    ("trace, 30 probes, deflated by 5 eigenvectors",): trace_trial(
        tol=1e-9, max_probes=30, first_seed=30_000, deflate="eigenvectors"
    ),
    ("trace, 30 probes, deflated by the Krylov space",): trace_trial(
        tol=1e-9, max_probes=30, first_seed=90_000, deflate="krylov space"
    ),
    ("trace, stopped at 10 %",): trace_trial(tol=0.1, max_probes=2000, first_seed=50_000),
    ("trace, stopped at 10 %, deflated by 5 eigenvectors",): trace_trial(
        tol=0.1, max_probes=2000, first_seed=70_000, deflate="eigenvectors"
    ),
    ("trace, as `analyze hessian` does it: Krylov space, stopped at 2 %",): trace_trial(
        tol=0.02, max_probes=200, first_seed=110_000, deflate="krylov space"
    ),
    ("density band, 1 probe", "cumulative band, 1 probe"): density_trial(probes=1),
    ("density band, 5 probes", "cumulative band, 5 probes"): density_trial(probes=5),
    (
        "1st eigenvalue over samples (b)",
        "2nd eigenvalue over samples (b)",
        "3rd eigenvalue over samples (b)",
        "4th eigenvalue over samples (b)",
        "5th eigenvalue over samples (b)",
        "trace over samples (b)",
    ): sample_trial,
    ("*bound*: share of negative eigenvalues (a)",): negative_trial,
    ("*bound*: eigenvalue within its residual (a)",): residual_trial,
}


def block_matrices() -> Iterator[tuple[str, Tensor]]:
    """Yield matrices on which random signs give few values, and one that a single eigenvalue dominates."""
    pair = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    yield "one block of 2 beside a diagonal", torch.block_diag(torch.diag(torch.arange(1.0, 9.0).double()), pair)
    yield "two blocks of 2 beside the identity", torch.block_diag(torch.eye(4, dtype=torch.float64), pair, pair)
    yield "three blocks of ones, 3 x 3", torch.block_diag(*[torch.ones(3, 3, dtype=torch.float64)] * 3)
    yield "ones, 30 x 30: one eigenvalue", torch.ones(30, 30, dtype=torch.float64)


def print_blocks(seeds: int) -> None:
    """Print how often the trace's interval covers, without deflation, by the number of probes."""
    counts = (6, 12, 30, 60)
    print("| trace, not deflated | " + " | ".join(f"{n} probes" for n in counts) + " |")
    print("|---|" + "---|" * len(counts))
    for name, matrix in block_matrices():
        rates = []
        for probes in counts:
            found = [hutchinson_trace(DenseOperator(matrix), tol=1e-9, max_probes=probes, seed=s) for s in range(seeds)]
            rates.append(np.mean([covers(f, float(matrix.trace())) for f in found]))
        print(f"| {name} | " + " | ".join(f"{rate:.3f}" for rate in rates) + " |", flush=True)


def print_semicircle(seeds: int) -> None:
    """Print how often the bands of ten probes cover a semicircle of 300 eigenvalues, by steps and width."""
    angles = np.linspace(-np.pi / 2, np.pi / 2, 40_001)
    mass = np.cumsum(np.cos(angles) ** 2)
    spectrum = np.interp((np.arange(300) + 0.5) / 300, mass / mass[-1], np.sin(angles))
    rotation, _ = torch.linalg.qr(torch.randn(300, 300, generator=torch.Generator().manual_seed(0)).double())
    operator = DenseOperator((rotation * torch.from_numpy(spectrum)) @ rotation.T)
    grid = np.linspace(-0.95, 0.95, 39)
    print("| density, cumulative band | width as resolved | 1 % of the range | 0.3 % |")
    print("|---|---|---|---|")
    for steps in (15, 30, 60, 100):
        covered: dict[float, list[list[float]]] = {0.0: [], 0.02: [], 0.006: []}
        for seed in range(seeds):
            found = slq_density(operator, steps=steps, probes=10, seed=seed)
            for width, rates in covered.items():
                noise, row = stats.norm(scale=width or found.width), []
                for curve, function in ((found.density, noise.pdf), (found.cumulative, noise.cdf)):
                    band, truth = curve(grid, width=width or None), function(grid[:, None] - spectrum).mean(axis=1)
                    row.append(float(((band.low <= truth) & (truth <= band.high)).mean()))
                rates.append(row)
        cells = [np.mean(rates, axis=0) for rates in covered.values()]
        print(f"| {steps} steps | " + " | ".join(f"{d:.3f}, {c:.3f}" for d, c in cells) + " |", flush=True)


SHARPNESS: dict[str, Callable[[LossAround], Estimate]] = {
    "SAM, one step, rho .1": lambda one: first_order_rise(one, Ball.around(one.centre, 0.1, "one")),
    "SAM, worst case, rho .1": lambda one: worst_case_rise(one, Ball.around(one.centre, 0.1, "one")),
    "ASAM, one step, rho .1": lambda one: first_order_rise(one, Ball.around(one.centre, 0.1, "magnitude")),
    "ASAM, worst case, rho .1": lambda one: worst_case_rise(one, Ball.around(one.centre, 0.1, "magnitude")),
    "Keskar, eps .001": keskar_sharpness,
    "Fisher-Rao norm": fisher_rao,
}


def print_sharpness(seeds: int) -> None:
    """Print how often the intervals of measures of sharpness hold their values over the whole population: 600 samples
    drawn with replacement, 40 groups."""
    nets = list(oracles())
    rates: dict[str, list[float]] = {}
    for net in nets:
        truths, held = sharpness_of(net.model, (net.inputs, net.labels), 1, seed=0), []
        for seed in range(seeds):
            chosen = torch.randint(len(net.labels), (600,), generator=torch.Generator().manual_seed(seed))
            found = sharpness_of(net.model, (net.inputs[chosen], net.labels[chosen]), 40, seed=1000 + seed)
            held.append({name: covers(one, truths[name].value) for name, one in found.items()})
        for name in truths:
            rates.setdefault(name, []).append(float(np.mean([one[name] for one in held])))
    print("| 95 % interval | " + " | ".join(net.name for net in nets) + " |")
    print("|---|" + "---|" * len(nets))
    for name, own in rates.items():
        print(f"| {name} | " + " | ".join(f"{rate:.3f}" for rate in own) + " |", flush=True)


def sharpness_of(model: nn.Module, data: tuple[Tensor, Tensor], groups: int, *, seed: int) -> dict[str, Estimate]:
    """Return every measure; of one group exactly, as far as draws and probes go."""
    around = LossAround(model, nn.CrossEntropyLoss(), data, groups=groups)
    found = {name: measure(around) for name, measure in SHARPNESS.items()}
    draws = 20 if groups > 1 else 400
    for name in ("sigma", "sigma, relative to the weights"):
        found[name] = pac_bayes_sigma(around, magnitude="relative" in name, draws=draws, seed=seed)
    whole = HessianOperator(model, nn.CrossEntropyLoss(), data)
    cut = None if groups == 1 else HessianOperator(model, nn.CrossEntropyLoss(), data, batch_size=600 // groups)
    exact = {"tol": 0.02, "max_probes": 1000} if groups == 1 else {"tol": 0.05, "max_probes": 100}
    found["trace"] = traced(whole, cut, seed=seed, **exact)[""]
    pairs = extreme_eigenpairs(whole, 1, tol=1e-4)
    found["top eigenvalue"] = along(float(pairs.values[0]), pairs.vectors[0], cut)
    found["relative flatness"] = relative_flatness(whole, cut, seed=seed, **exact)[""]
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200, help="seeds a row (default: 200)")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="rows whose name holds one of these (default: all)")
    parser.add_argument("--matrices", action="store_true", help="the tables of matrices made for the purpose only")
    parser.add_argument("--sharpness", action="store_true", help="the table of measures of sharpness only")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.sharpness:
        print_sharpness(args.seeds)
        return
    if args.matrices:
        print_blocks(args.seeds)
        print_semicircle(args.seeds // 4)
        return
    nets = list(oracles())
    print("| 95 % interval | " + " | ".join(net.name for net in nets) + " |")
    print("|---|" + "---|" * len(nets))
    for names, trial in ROWS.items():
        wanted = [args.only is None or any(text in name for text in args.only) for name in names]
        if not any(wanted):
            continue
        rates = [
            [np.mean(row) for row in zip(*(trial(net, s) for s in range(args.seeds)), strict=True)] for net in nets
        ]
        for place, name in enumerate(names):
            if wanted[place]:
                print(f"| {name} | " + " | ".join(f"{of_net[place]:.3f}" for of_net in rates) + " |", flush=True)


if __name__ == "__main__":
    main()
