"""Attack curves, fused, against torchattacks called once per eps.

    python benchmarks/robustness.py                          # random images, a network trained on them for a moment
    python benchmarks/robustness.py --data-root DIR          # CIFAR-10, where the clipping of pixels is real
    python benchmarks/robustness.py --checkpoint RUN --data-root DIR
    python benchmarks/robustness.py --auto --images 100      # AutoAttack's standard ensemble; minutes to hours

Network 3072-512-512-10, 1,000 images, 11 eps from 0 to 0.05. Both sides run in one process on the same images, get
the same step sizes, and alternate; the best of the repetitions counts for each. torchattacks is used as its users
do: one attack object an eps, then a forward pass for the accuracy.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, process_time

# Python puts this file's folder first, where its own name hides the package that it measures: move it to the end.
sys.path.sort(key=lambda entry: Path(entry).resolve() == Path(__file__).resolve().parent)

import torch
from torch import Tensor, nn

try:
    import torchattacks
except ImportError:  # then only what needs no peer can be called
    torchattacks = None

from robustness.attacks import Attack, GradientAttack, bim, fgsm, pgd
from robustness.curves import attack_curve
from robustness.ensembles import auto_attack, strong
from training.data import SOURCES, Normalise, load_split

EPS = [round(0.005 * k, 3) for k in range(11)]
TARGETS = {"fgsm": 3.5, "bim": 10.0, "pgd": 8.0}


def make_problem(args: argparse.Namespace) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a trained network from pixels, with images it has not seen, and their labels."""
    device = torch.device(args.device)
    if args.checkpoint is not None:
        from reports.subjects import load_subject

        subject = load_subject(args.checkpoint, data_root=args.data_root, samples=args.images, device=args.device)
        return subject.pixel_model(), subject.images / 255, subject.labels
    torch.manual_seed(0)
    if args.data_root is not None:
        train, test = (load_split("cifar10", split, args.data_root) for split in ("train", "test"))
        test = test.subset(args.images, 0)
        x, y, images, labels = train.images.float() / 255, train.labels, test.images / 255, test.labels
    else:
        centres = torch.rand(10, 3, 32, 32)
        y, labels = torch.randint(0, 10, (20_000,)), torch.randint(0, 10, (args.images,))
        x = (centres[y] * 0.1 + torch.randn(20_000, 3, 32, 32) * 0.25 + 0.45).clamp(0, 1)
        images = (centres[labels] * 0.1 + torch.randn(args.images, 3, 32, 32) * 0.25 + 0.45).clamp(0, 1)
    model = nn.Sequential(
        Normalise(SOURCES["cifar10"].mean, SOURCES["cifar10"].std),
        nn.Flatten(),
        nn.Linear(3072, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    for _ in range(args.training_steps):
        rows = torch.randint(0, len(x), (128,))
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimiser.step()
    return model.to(device).eval(), images.to(device), labels.to(device)


def theirs(name: str, steps: int, model: nn.Module, images: Tensor, labels: Tensor) -> list[float]:
    """Return the accuracy at each eps by torchattacks, one eps after the other."""
    accuracies = []
    for eps in EPS:
        if eps == 0:
            attack = torchattacks.VANILA(model)  # the images as they are: a user would not attack them
        elif name == "fgsm":
            attack = torchattacks.FGSM(model, eps=eps)
        elif name == "bim":
            attack = torchattacks.BIM(model, eps=eps, alpha=eps / steps, steps=steps)
        else:
            attack = torchattacks.PGD(model, eps=eps, alpha=2.5 * eps / steps, steps=steps)
        adversarial = attack(images, labels)
        with torch.no_grad():
            wrong = model(adversarial).argmax(1) != labels
        accuracies.append(1 - wrong.double().mean().item())
    return accuracies


def best_times(functions: Sequence[Callable[[], object]], repeats: int, device: str, cpu_time: bool) -> list[float]:
    """Return the best time of each function over alternating repetitions, after one round to warm up."""
    clock = process_time if cpu_time else perf_counter
    best = [float("inf")] * len(functions)
    for repeat in range(repeats + 1):
        for index, function in enumerate(functions):
            started = clock()
            function()
            if device == "cuda":
                torch.cuda.synchronize()
            if repeat:
                best[index] = min(best[index], clock() - started)
    return best


def main() -> None:
    """Print one line for each attack: times, ratios, and how far the accuracies lie apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="a run of ours to attack (default: train a network briefly)")
    parser.add_argument("--data-root", type=Path, help="folder of CIFAR-10 (default: random images)")
    parser.add_argument("--images", type=int, default=1000, help="number of images (default: 1000)")
    parser.add_argument("--steps", type=int, default=10, help="steps of bim and pgd (default: 10)")
    parser.add_argument("--training-steps", type=int, default=1200, help="of 128 images each (default: 1200)")
    parser.add_argument("--repeats", type=int, default=3, help="repetitions, best counts (default: 3)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument(
        "--cpu-time", action="store_true", help="measure CPU time, steadier on a machine that others use"
    )
    parser.add_argument("--auto", action="store_true", help="AutoAttack's standard ensemble instead, once")
    parser.add_argument("--auto-steps", type=int, nargs="+", default=[10, 100], help="of APGD, FAB (default: 10 100)")
    parser.add_argument("--ours-only", action="store_true", help="with --auto: without torchattacks")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    args = parser.parse_args()
    if torchattacks is None and not (args.auto and args.ours_only):
        parser.error("torchattacks is not installed: pip install 'alignscape[peers]'")
    torch.set_num_threads(args.threads)
    model, images, labels = make_problem(args)
    clean = (model(images).argmax(1) == labels).double().mean().item()
    print(
        f"torch {torch.__version__}, {args.device}, {args.threads} threads, {args.images} images, {len(EPS)} eps, "
        f"{'CPU' if args.cpu_time else 'wall'} time"
    )
    print(f"clean accuracy {clean:.3f}\n")
    if args.auto:
        report_auto(args, model, images, labels)
        return
    print("attack  torchattacks     raw  nested   raw   nested   target   largest difference of the accuracies")
    print("                   s       s       s  ratio    ratio           raw - theirs  nested - running minimum")
    attacks = {"fgsm": fgsm(), "bim": bim(steps=args.steps), "pgd": pgd(steps=args.steps)}
    for name, attack in attacks.items():
        report(name, attack, args, model, images, labels)


def their_auto(model: nn.Module, images: Tensor, labels: Tensor, steps: int) -> list[float]:
    """Return the accuracy at each eps by torchattacks' AutoAttack, with ``steps`` in place of its 10."""
    accuracies = []
    for eps in EPS:
        adversarial = images
        if eps:
            attack = torchattacks.AutoAttack(model, eps=eps, seed=0)
            for member in attack._autoattack.attacks[:3]:
                member.steps = steps
            adversarial = attack(images, labels)
        with torch.no_grad():
            accuracies.append((model(adversarial).argmax(1) == labels).double().mean().item())
        print(f"  theirs at {eps:g}: {accuracies[-1]:.3f}, CPU {process_time():.0f} s", file=sys.stderr, flush=True)
    return accuracies


def report_auto(args: argparse.Namespace, model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Time our ensemble and torchattacks' at each eps, both with the 10 steps of its APGD and FAB and with the 100
    of the paper. Square has 5,000 queries everywhere. Ours is timed before and after theirs, as other work slows the
    machine."""
    clock = process_time if args.cpu_time else perf_counter

    def ours(attack: Attack) -> list[float]:
        return attack_curve(model, images, labels, EPS, attack).accuracy.tolist()

    def timed(name: str, function: Callable[[], list[float]]) -> tuple[float, Tensor]:
        started = clock()
        accuracies = function()
        seconds = clock() - started
        percent = " ".join(f"{100 * accuracy:5.1f}" for accuracy in accuracies)
        print(f"{name:24s} {seconds:9.2f} s   {percent}", flush=True)
        return seconds, torch.tensor(accuracies)

    timed("ours, strong", lambda: ours(strong()))
    for steps in args.auto_steps:
        attack = auto_attack(steps=steps)
        before, found = timed(f"ours, {steps} steps", lambda attack=attack: ours(attack))  # type: ignore[misc]
        if args.ours_only:
            continue
        peer, theirs = timed(f"theirs, {steps} steps", lambda steps=steps: their_auto(model, images, labels, steps))  # type: ignore[misc]
        after, _ = timed("ours once more", lambda attack=attack: ours(attack))  # type: ignore[misc]
        apart = 100 * (found - theirs).abs().max().item()
        ratio = 2 * peer / (before + after)
        print(f"ratio {ratio:.1f} to the mean of ours; accuracies at most {apart:.1f} points apart", flush=True)


def report(
    name: str, attack: GradientAttack, args: argparse.Namespace, model: nn.Module, images: Tensor, labels: Tensor
) -> None:
    """Time one attack three ways and compare what they find."""

    def curve(raw: bool) -> Tensor:
        return attack_curve(model, images, labels, EPS, attack, raw=raw, seed=0).accuracy

    def peer() -> list[float]:
        return theirs(name, args.steps, model, images, labels)

    t_peer, t_raw, t_nested = best_times(
        (peer, lambda: curve(True), lambda: curve(False)), args.repeats, args.device, args.cpu_time
    )
    reference = torch.tensor(peer(), dtype=torch.float64)
    raw_gap = (curve(True) - reference).abs().max().item()
    nested_gap = (curve(False) - reference.cummin(0).values).abs().max().item()
    print(
        f"{name:6s} {t_peer:13.3f} {t_raw:7.3f} {t_nested:7.3f} {t_peer / t_raw:6.1f} {t_peer / t_nested:8.1f} "
        f"{TARGETS[name]:8.1f} {raw_gap:13.4f} {nested_gap:17.4f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
