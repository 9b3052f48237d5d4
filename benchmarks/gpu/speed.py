"""What is timed: training, curvature, surfaces, attacks. At the paper's sizes, in a rehearsal at small ones."""

import argparse
import dataclasses
import itertools
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks import landscape as curvature
from benchmarks import robustness as attacks
from benchmarks import surface as planes
from benchmarks import train
from benchmarks.gpu.missing import missing
from benchmarks.gpu.parts import Report, Setup
from landscape import HessianOperator, extreme_eigenpairs, hutchinson_trace, krylov_subspace, slq_density
from landscape.surfaces import surface
from robustness import attack_curve, bim, fgsm, pgd
from training.data import Dataset, load_dataset
from training.network import Network
from training.precision import products

LOSS = nn.CrossEntropyLoss()
TOP = 64  # networks of the stack that the targets are about


def training(setup: Setup, report: Report) -> None:
    """Time our stacks beside an eager loop and the floor, in each precision; then the compiled loop beside both."""
    case = train.CASES["small" if setup.small else "mlp"]
    data = _data(case, setup)
    bandwidth = train.bandwidth(setup.device, 2**26 if setup.small else 2**30)
    report.row("bandwidth", copy_gb_s=round(bandwidth / 1e9, 1), adam_bytes=case.adam_bytes)
    stacks = (1, 8) if setup.small else (1, 8, 64, 256)
    precisions = ("fp32", "bf16") if setup.small else ("fp32", "tf32", "bf16")
    began = time.perf_counter()
    networks = train.made(case, data, max(stacks), "fp32")
    made = (time.perf_counter() - began) / len(networks)
    # From small to large: a network that was in a stack holds on to the memory of all of it.
    for count, precision in itertools.product(stacks, precisions):
        _stack(case, data, networks[:count], precision, bandwidth, setup, report)
        report.memory(f"training, {count} networks, {precision}")
    for precision in precisions:
        _compiled(case, data, networks[:1], precision, setup, report)
    report.line(f"a copy moves {bandwidth / 1e9:.0f} GB/s; to make a network takes {1000 * made:.0f} ms")


def _data(case: train.Case, setup: Setup) -> Dataset:
    if setup.data_root is not None and not setup.small:
        return load_dataset("cifar10", setup.data_root, device=setup.device)
    return train.random_data(case, setup.device)


def _measure(contenders: dict[str, train.Contender], precision: str, setup: Setup) -> dict[str, float]:
    """Return milliseconds of a network's step, for each contender."""
    steps, rounds = (10, 2) if setup.small else (100, 5)
    with products(precision):
        seconds = train.measure(contenders, steps, rounds, setup.device)
    return {name: 1000 * value / contenders[name].networks for name, value in seconds.items()}


def _prepared(networks: list[Network], precision: str) -> list[Network]:
    """Return the networks in another precision and back at step 0; their weights stay as they are."""
    for network in networks:
        network.config = dataclasses.replace(network.config, precision=precision)
        network.step = 0
    return networks


def _stack(
    case: train.Case,
    data: Dataset,
    networks: list[Network],
    precision: str,
    bandwidth: float,
    setup: Setup,
    report: Report,
) -> None:
    count = len(networks)
    ours, trainer = train.trained_by_us(_prepared(networks, precision), data)
    floor = train.floor(case, data, count, precision)
    took = _measure({"eager": train.eager(case, data, precision), "ours": ours, "floor": floor}, precision, setup)
    with products(precision):
        whole = train.run_seconds(trainer, count * took["ours"] / 1000)
    least = 1000 * case.adam_bytes / bandwidth
    times = {name: round(value, 4) for name, value in took.items()}
    report.row(
        "training",
        precision=precision,
        networks=count,
        ms_ours=times["ours"],
        ms_eager=times["eager"],
        x_eager=round(took["eager"] / took["ours"], 2),
        of_bytes_floor=round(least / took["ours"], 3),
        of_products_floor=round(took["floor"] / took["ours"], 3),
        s_of_30_epochs=round(whole, 3),
    )
    if count == TOP:
        name = f"stack of {TOP}, {precision}"
        x_eager = took["eager"] / took["ours"]
        report.target(f"{name}, against eager", target=20, measured=x_eager, unit="times", most=False)
        report.target(f"{name}, of the floor", target=0.5, measured=least / took["ours"], unit="", most=False)
        report.target(f"{name}, 30 epochs of CIFAR-10", target=0.5, measured=whole, unit="s a network", most=True)


def _compiled(
    case: train.Case, data: Dataset, networks: list[Network], precision: str, setup: Setup, report: Report
) -> None:
    """Time the compiled loop beside the eager one and a run of ours alone; skip it by name where it cannot be."""
    row = {"precision": precision}
    if reason := train.no_compiler(setup.device):
        report.row("compiled", **row, ms_compiled=f"skipped: {reason}", ms_eager="", ms_ours_alone="", s_to_compile="")
        return
    try:
        compiled = train.eager(case, data, precision, compiled=True)
        began = time.perf_counter()
        with products(precision):
            compiled.run(3)
        train.synchronise(setup.device)
        to_compile = time.perf_counter() - began
        contenders = {
            "compiled": compiled,
            "eager": train.eager(case, data, precision),
            "ours": train.trained_by_us(_prepared(networks, precision), data)[0],
        }
        took = {name: round(value, 4) for name, value in _measure(contenders, precision, setup).items()}
    except Exception as error:  # whatever the compiler does not like here
        reason = f"skipped: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]}"
        report.row("compiled", **row, ms_compiled=reason, ms_eager="", ms_ours_alone="", s_to_compile="")
        return
    times = {"ms_compiled": took["compiled"], "ms_eager": took["eager"], "ms_ours_alone": took["ours"]}
    report.row("compiled", **row, **times, s_to_compile=round(to_compile, 1))
    report.memory(f"training, compiled, {precision}")


def timed(work: Callable[[], object], device: str) -> float:
    """Return the seconds of one call, the device's queue included."""
    train.synchronise(device)
    began = time.perf_counter()
    work()
    train.synchronise(device)
    return time.perf_counter() - began


def landscape(setup: Setup, report: Report) -> None:
    """Time our curvature on the samples of a whole train split; then beside PyHessian, on fewer."""
    samples = 200 if setup.small else 50_000
    args = _problem(setup, samples)
    model, batch = small_problem(samples) if setup.small else curvature.make_problem(args)

    def operator() -> HessianOperator:
        return HessianOperator(model, LOSS, batch)

    def trace() -> None:
        whole = operator()
        hutchinson_trace(whole, deflate=krylov_subspace(whole, 25), tol=0.02, max_probes=20 if setup.small else 200)

    timed(lambda: extreme_eigenpairs(operator(), 1, tol=1e-2), setup.device)  # warms up
    works: dict[str, Callable[[], object]] = {
        "top 5 eigenpairs": lambda: extreme_eigenpairs(operator(), 5),
        "trace to 2 %": trace,
        "spectral density, 100 steps, 1 probe": lambda: slq_density(operator(), steps=100, probes=1),
    }
    seconds = {}
    for work, call in works.items():
        seconds[work] = timed(call, setup.device)
        report.row("landscape", work=work, samples=samples, seconds=round(seconds[work], 3), against="", ratio="")
        report.memory(f"{work}, {samples} samples")
    top = seconds["top 5 eigenpairs"]
    if not setup.small:
        report.target("top 5 eigenpairs, 50,000 samples", target=10, measured=top, unit="s", most=True)
    report.line(f"top 5 eigenpairs on {samples} samples in {top:.2f} s")
    _beside_pyhessian(setup, report, model, batch)


def _beside_pyhessian(setup: Setup, report: Report, model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    samples = 100 if setup.small else 2000
    few = batch[0][:samples], batch[1][:samples]
    for name in ("product",) if setup.small else ("product", "eigenvalues", "trace"):
        if missing(["pyhessian"]):
            row = {"seconds": "", "against": "skipped: pyhessian is not installed here", "ratio": ""}
            report.row("landscape", work=name, samples=samples, **row)
            continue
        found = curvature.ROWS[name](model, few, _problem(setup, samples))
        row = {"seconds": found.ours, "against": f"PyHessian: {found.theirs}", "ratio": round(found.ratio, 2)}
        report.row("landscape", work=found.work, samples=samples, **row)


def _problem(setup: Setup, samples: int) -> argparse.Namespace:
    given = {"checkpoint": None, "data_root": setup.data_root, "device": setup.device}
    return argparse.Namespace(**given, samples=samples, repeats=5, probes=60, clock="wall")


def small_problem(samples: int) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """Return a small network on the CPU with random images (samples, 1, 8, 8) from 0 to 1, for rehearsals."""
    random = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2, generator=random)
    images = torch.rand(samples, 1, 8, 8, generator=random)
    return model, (images, torch.randint(0, 10, (samples,), generator=random))


def surfaces(setup: Setup, report: Report) -> None:
    """Time a surface beside swapping parameters, and one of the paper's on its own."""
    samples, points, fine = (200, 5, 9) if setup.small else (2000, 21, 41)
    random = torch.Generator().manual_seed(1)
    if setup.small:
        model, (images, labels) = small_problem(5 * samples)
    else:
        model = planes.make_model("mlp", setup.device)
        images = torch.randn(5 * samples, 3, 32, 32, generator=random).to(setup.device)
        labels = torch.randint(0, 10, (len(images),), generator=random).to(setup.device)
    ours, theirs, difference = planes.compare(model, (images[:samples], labels[:samples]), points=points)
    report.row("surface", points=points, samples=samples, seconds=round(ours, 4), swapping=round(theirs, 4),
               ratio=round(theirs / ours, 2), difference=f"{difference:.1e}")  # fmt: skip
    report.memory(f"surface, {points} x {points} points, {samples} samples")
    size = sum(p.numel() for p in model.parameters())
    directions = torch.randn(2, size, generator=random).to(setup.device)
    directions /= directions.norm(dim=1, keepdim=True)
    axis = torch.linspace(-1, 1, fine)
    seconds = timed(lambda: surface(model, LOSS, (images, labels), directions, alphas=axis), setup.device)
    report.row("surface", points=fine, samples=len(images), seconds=round(seconds, 4), swapping="", ratio="",
               difference="")  # fmt: skip
    report.memory(f"surface, {fine} x {fine} points, {len(images)} samples")
    report.line(f"{points} x {points} points {theirs / ours:.1f} times as fast as swapping")


def robustness(setup: Setup, report: Report) -> None:
    """Time curves of 11 eps on a whole test split; then beside torchattacks, on fewer images."""
    images_of, peers_of = (200, 50) if setup.small else (10_000, 1000)
    args = argparse.Namespace(checkpoint=None, data_root=setup.data_root, device=setup.device, images=images_of)
    args.training_steps = 400
    if setup.small:
        model, (images, labels) = small_problem(images_of)
    else:
        model, images, labels = attacks.make_problem(args)
    kinds = {"fgsm": fgsm(), "bim": bim(steps=10), "pgd": pgd(steps=10)}
    for name, attack in kinds.items():
        few = images[:peers_of], labels[:peers_of]
        attack_curve(model, *few, attacks.EPS, attack)  # warms up
        seconds = timed(lambda attack=attack: attack_curve(model, images, labels, attacks.EPS, attack), setup.device)  # type: ignore[misc]
        row = {"attack": name, "images": images_of, "seconds": round(seconds, 3), "against": "", "ratio": ""}
        report.row("robustness", **row)
        report.memory(f"{name}, 11 eps, {images_of} images")
        if name == "pgd" and not setup.small:
            report.target("PGD-10, 11 eps, 10,000 images, MLP", target=2, measured=seconds, unit="s", most=True)
        report.line(f"{name}: 11 eps on {images_of} images in {seconds:.2f} s")
    for name, attack in kinds.items():
        row = {"attack": name, "images": peers_of}
        if attacks.torchattacks is None:
            report.row("robustness", **row, seconds="", against="skipped: torchattacks is not installed here", ratio="")
            continue
        theirs, ours = attacks.best_times(
            (
                lambda name=name: attacks.theirs(name, 10, model, *few),  # type: ignore[misc]
                lambda attack=attack: attack_curve(model, *few, attacks.EPS, attack),  # type: ignore[misc]
            ),
            1 if setup.small else 3,
            setup.device,
            False,
        )
        against = f"torchattacks: {theirs:.3f} s"
        report.row("robustness", **row, seconds=round(ours, 4), against=against, ratio=round(theirs / ours, 1))
