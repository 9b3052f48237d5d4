"""The audit tried on networks that are honest and on networks that mask their gradient in known ways.

    python benchmarks/masking.py                          # the bundled digits, eps .1
    python benchmarks/masking.py --data-root DIR --eps .1 # MNIST
    python benchmarks/masking.py --only sigmoid softmax
    python benchmarks/masking.py --data-root DIR --table docs/robustness.md   # also into the page, between its markers

Whether a curve can be believed is measured, not assumed: PGD-10 is set beside the worst case of everything that is
known of the network (the gradient of the network that the mask was put on, and of the mask seen through, Square with
5,000 queries, and the yardstick of APGD itself), each on what the others left. A gap of more than 3 points, and of more
than chance, makes the curve *wrong*; a warning there is a true alarm, a warning elsewhere a false one. Prints a row a
network and the counts, as Markdown.
"""

import argparse
import copy
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# Python puts this file's folder first, where names of ours would hide the packages that it measures: to the end.
sys.path.sort(key=lambda entry: Path(entry).resolve() == Path(__file__).resolve().parent)

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustness import Approximated, Attack, Audit, SquareAttack, attack_curve, audit, mcnemar, pgd, strong
from robustness.inputs import seeded
from robustness.yardstick import yardstick
from training.config import TrainConfig
from training.data import load_split
from training.models import build_model
from training.rules import make_rule

WRONG = 0.03  # of accuracy
BEGIN, END = "<!-- benchmarks/masking.py -->", "<!-- end of benchmarks/masking.py -->"


@dataclass(frozen=True)
class Data:
    """Pixels in [0, 1] and labels, to train on and to attack."""

    x: Tensor
    y: Tensor
    images: Tensor
    labels: Tensor
    eps: float


@dataclass(frozen=True)
class Entry:
    """A network of the zoo.

    Attributes:
        name: what it is.
        model: logits from pixels.
        follow: whose gradient PGD follows; the model's own if None.
        seen_through: networks whose gradient an attacker who knows the mask would follow.
    """

    name: str
    model: nn.Module
    follow: nn.Module | None = None
    seen_through: tuple[nn.Module, ...] = ()


class Around(nn.Module):
    """A network with something before it and something behind it."""

    def __init__(
        self,
        inner: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        behind: Callable[[Tensor], Tensor] = lambda z: z,
    ) -> None:
        super().__init__()
        self.inner, self.before, self.behind = inner, before, behind

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(self.inner(self.before(x)))


class Winners(nn.Module):
    """k winners take all (Xiao, Zhong & Zheng 2020): all but the largest share of the activations are zero."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        least = x.topk(max(1, int(self.share * x.shape[1])), dim=1).values[:, -1:]
        return x * (x >= least)


class Sharp(nn.Module):
    """A sigmoid so steep that it is a step to float32."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.slope * x)


class AlwaysDropout(nn.Module):
    """Dropout that stays on at test time."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, training=True)


class Killed(torch.autograd.Function):
    """The identity with no gradient."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return torch.zeros_like(gradient)


class Misled(Killed):
    """The identity with a gradient that points elsewhere."""

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient.roll(3, dims=-1)


def mlp(data: Data, middle: Callable[[], nn.Module] = nn.ReLU, width: int = 128) -> nn.Sequential:
    """Return an untrained network of two hidden layers."""
    sizes = (data.x[0].numel(), width, width)
    hidden = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), middle())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, 10)).to(data.x.device)


def train(
    model: nn.Module,
    data: Data,
    *,
    steps: int = 400,
    adversary: float = 0.0,
    weight_decay: float = 0.0,
    teacher: nn.Module | None = None,
    temperature: float = 1.0,
    noise: float = 0.0,
) -> nn.Module:
    """Train in place and return the model: plain, adversarially (PGD-5), with noise, or on a teacher's soft answers."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=weight_decay)
    for step in range(steps):
        rows = torch.randint(0, len(data.x), (128,), generator=torch.Generator().manual_seed(step))
        x, y = data.x[rows], data.y[rows]
        if adversary:
            x = _pushed(model, x, y, adversary)
        logits = model((x + noise * torch.randn_like(x)).clamp(0, 1)) / temperature
        optimiser.zero_grad()
        target = y if teacher is None else (teacher(x) / temperature).softmax(1).detach()
        F.cross_entropy(logits, target).backward()
        optimiser.step()
    return model.requires_grad_(False).eval()


def _pushed(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    moved = (x + eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
    for _ in range(5):
        moved.requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(moved), y), moved)
        moved = (x + (moved.detach() + eps / 2 * gradient.sign() - x).clamp(-eps, eps)).clamp(0, 1)
    return moved.detach()


def aligned(data: Data, rule: str) -> tuple[nn.Module, nn.Module]:
    """Return a network that ``rule`` trained, and its backward path."""
    shape = tuple(data.x.shape[1:])
    config = TrainConfig(rule=rule, hidden=(128, 128), lr=2e-3)
    learner, plain = make_rule(config), build_model(config, shape, 10)  # type: ignore[arg-type]
    learner.initialise(plain)
    plain.to(data.x.device)
    twin = learner.wrap(plain, shape)
    parameters = dict(twin.named_parameters())
    optimiser = torch.optim.Adam(parameters.values(), lr=config.lr)
    for step in range(400):
        rows = torch.randint(0, len(data.x), (128,), generator=torch.Generator().manual_seed(step))
        for name, update in learner.gradients(parameters, learner.objective(twin, data.x[rows], data.y[rows])).items():
            parameters[name].grad = update
        optimiser.step()
    return plain.requires_grad_(False).eval(), learner.attack_path(twin).requires_grad_(False).eval()


def honest(data: Data) -> Iterator[Entry]:
    """Yield networks that mask nothing."""
    base = train(mlp(data), data)
    yield Entry("MLP", base)
    yield Entry("MLP, 32 units", train(mlp(data, width=32), data))
    yield Entry("MLP, 512 units", train(mlp(data, width=512), data))
    yield Entry("MLP, tanh", train(mlp(data, nn.Tanh), data))
    yield Entry("MLP, GELU", train(mlp(data, nn.GELU), data))
    yield Entry("MLP, weight decay", train(mlp(data), data, weight_decay=0.5))
    yield Entry("MLP, trained with noise", train(mlp(data), data, noise=0.2))
    yield Entry("adversarially trained, eps / 2", train(mlp(data), data, adversary=data.eps / 2))
    yield Entry("adversarially trained, eps", train(mlp(data, width=256), data, adversary=data.eps))
    yield Entry("FA, true gradient", aligned(data, "fa")[0])
    yield Entry("DFA, true gradient", aligned(data, "dfa")[0])
    yield Entry("gradient halved", Around(base, lambda x: (x + x.detach()) / 2))


def masked(data: Data) -> Iterator[Entry]:
    """Yield networks with a mask."""
    base = train(mlp(data), data)
    robust = train(mlp(data, width=256), data, adversary=data.eps)
    for size, frequency in ((0.01, 500.0), (0.02, 60.0)):
        for name, inner in (("MLP", base), ("robust", robust)):
            shattered = Around(inner, lambda x, a=size, w=frequency: x + a * torch.sin(w * x))
            yield Entry(f"shattered, a = {size:g}, w = {frequency:g}, {name}", shattered, None, (inner,))
    for share in (0.1, 0.2):
        yield Entry(
            f"k winners take all, {share:g}", train(mlp(data, lambda s=share: Winners(s), 256), data), None, (base,)
        )
    for scale in (1, 10):
        head = Around(base, behind=lambda z, s=scale: torch.sigmoid(s * z))
        yield Entry(f"sigmoid head x{scale}", head, None, (base,))
    for scale in (30, 300):
        head = Around(base, behind=lambda z, s=scale: (s * z).softmax(1))
        yield Entry(f"softmax head x{scale}", head, None, (base,))
    yield Entry("logits x1000", Around(base, behind=lambda z: 1000 * z), None, (base,))
    distilled = train(mlp(data), data, teacher=base, temperature=50.0)
    yield Entry("distilled, T = 50", distilled, None, (base,))
    quantised = Around(base, lambda x: (x * 4).round() / 4)
    yield Entry("quantised inputs", quantised, None, (base, Approximated(quantised, bpda=True)))
    yield Entry(
        "quantised, straight through", Around(base, lambda x: x + ((x * 4).round() / 4 - x).detach()), None, (base,)
    )
    noisy = Around(base, lambda x: x + 0.15 * torch.randn_like(x))
    yield Entry("noise layer", noisy, None, (base, Approximated(noisy, eot=20)))
    dropped = nn.Sequential(*base[:3], AlwaysDropout(), *base[3:])  # type: ignore[index]
    yield Entry("dropout at test time", dropped, None, (base, Approximated(dropped, eot=20)))
    yield Entry("sharp sigmoids", train(mlp(data, lambda: Sharp(30.0)), data), None, (base,))
    yield Entry("gradient killed", Around(base, lambda x: Killed.apply(x)), None, (base,))
    yield Entry("gradient misled", Around(base, lambda x: Misled.apply(x)), None, (base,))
    for rule in ("fa", "dfa"):
        plain, path = aligned(data, rule)
        yield Entry(f"{rule.upper()}, backward path", plain, path, (plain,))


def judge(entry: Entry, data: Data) -> tuple[float, float, bool, Audit]:
    """Return what PGD-10 leaves, what all that is known leaves, whether that makes PGD-10 wrong, and the audit."""
    model, mode = entry.model, "true" if entry.follow is None else "feedback"

    def fooled(rows: Tensor, attack: Attack, follow: nn.Module | None, label: str) -> Tensor:
        """Return the ``rows`` of the images that the attack fools."""
        images, labels = data.images[rows], data.labels[rows]
        return rows[
            attack_curve(model, images, labels, [data.eps], attack, gradient_model=follow, gradient=label).fooled[0]
        ]

    table = torch.zeros(len(data.labels), dtype=torch.bool)
    table[fooled(torch.arange(len(table)), pgd(), entry.follow, mode)] = True
    best = table.clone()
    through = [(pgd(steps=50, restarts=3), copy.deepcopy(other), "transfer") for other in entry.seen_through]
    own = [SquareAttack(queries=5000), yardstick([strong()], norm="linf", classes=10)]
    for attack, follow, label in [*through, *((attack, None, "true") for attack in own)]:
        if not best.all():
            best[fooled((~best).nonzero().squeeze(1), attack, follow, label)] = True
    gap = mcnemar(~table, ~best)
    wrong = gap.difference > WRONG and gap.p_value < 0.02
    found = audit(model, data.images, data.labels, eps=data.eps, gradient_model=entry.follow, gradient=mode)
    return 1 - table.double().mean().item(), 1 - best.double().mean().item(), wrong, found


def load(args: argparse.Namespace) -> Data:
    """Return MNIST where its folder is given, else the bundled digits."""
    name = "digits" if args.data_root is None else "mnist"
    train_set, test = (load_split(name, split, args.data_root) for split in ("train", "test"))
    test = test.subset(min(args.images, len(test)), 0)
    train_set, test = train_set.to(args.device), test.to(args.device)
    return Data(train_set.images / 255, train_set.labels, test.images / 255, test.labels, args.eps)


def row_of(entry: Entry, data: Data, counts: Counter[tuple[bool, bool]]) -> str:
    """Judge a network, count it, and return its row."""
    table, best, wrong, found = judge(entry, data)
    warned = [line.check for line in found.lines if line.verdict == "warn"]
    gap = next(line for line in found.lines if line.check == "attack has converged")
    counts[wrong, bool(warned)] += 1
    alarm = {(True, True): "true", (True, False): "**missed**", (False, True): "**false**"}.get((wrong, bool(warned)))
    interval = f"{100 * gap.value:.1f} [{100 * gap.ci_low:.1f}, {100 * gap.ci_high:.1f}]"
    return (
        f"| {entry.name} | {table:.3f} | {best:.3f} | {interval} | {', '.join(warned) or 'none'} | {alarm or 'none'} |"
    )


def write_table(path: Path, lines: Sequence[str]) -> None:
    """Put the lines between the markers of a Markdown page.

    Raises:
        SystemExit: it has no such markers.
    """
    text = path.read_text(encoding="utf-8")
    before, begins, rest = text.partition(BEGIN)
    _, ends, after = rest.partition(END)
    if not begins or not ends:
        raise SystemExit(f"{path} has no lines {BEGIN} and {END}")
    path.write_text("\n".join([before + BEGIN, "", *lines, "", END + after]), encoding="utf-8")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, help="folder with MNIST (default: the bundled digits)")
    parser.add_argument("--images", type=int, default=200, help="images to attack (default: 200)")
    parser.add_argument("--eps", type=float, default=0.1, help="radius (default: 0.1)")
    parser.add_argument("--group", choices=["honest", "masked"], help="networks of this group only")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="networks whose name holds one of these")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="(default: cpu)")
    parser.add_argument("--table", type=Path, metavar="FILE", help="also write it between the markers of this page")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data, counts, lines = load(args), Counter[tuple[bool, bool]](), []

    def say(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    say("| network | PGD-10 | all that is known | gap of the audit, points | warnings | alarm |")
    say("|---|---|---|---|---|---|")
    for seed, group in enumerate((honest, masked)):
        with seeded(seed, torch.device(args.device)):
            for entry in group(data) if args.group in (None, group.__name__) else ():
                if args.only is None or any(text in entry.name for text in args.only):
                    say(row_of(entry, data, counts))
    say("")
    say(
        f"{'Digits' if args.data_root is None else 'MNIST'}, eps {args.eps:g}, {len(data.labels)} images. "
        f"Curves that are wrong: {counts[True, True]} found, {counts[True, False]} missed. "
        f"Curves that are right: {counts[False, False]} passed, {counts[False, True]} false alarms."
    )
    if args.table is not None:
        write_table(args.table, lines)


if __name__ == "__main__":
    main()
