"""What the second paper means in numbers: digits in seconds, MNIST in about an hour, or as published."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from alignscape.settings import as_json, check_settings, setting
from reports.paper.numbers import Numbers, require
from training.config import seed_range

DENSE = 1.0  # the density of feedback that is not sparse
SETTINGS = ("cifar", "imagenet")  # the two with names of their own before each number
RULES = ("bp", "fa", "dfa", "usf", "pfa", "pfa-o")  # that the paper compares


@dataclass(frozen=True, kw_only=True)
class PfaProfile(Numbers):
    """Every number of the targets; the defaults are those of :func:`smoke`."""

    # MNIST (pfa-mnist, pfa-paths, pfa-sparsity): an MLP, SGD with momentum 0.9, every rule with the same recipe
    hidden: tuple[int, ...] = setting((32, 32), "widths of the hidden layers", empty=True)
    rules: tuple[str, ...] = setting((*RULES, "pal"), "learning rules; the paper's are the first six")
    batch_size: int = setting(64, "samples")
    lr: float = setting(0.05, "learning rate")
    lr_steps: tuple[int, ...] = setting((2,), "epochs after which the learning rate is halved", empty=True)
    epochs: int = setting(3, "length of training")
    first_decay: float = setting(0.1, "weight decay of the first epoch, which turns R towards B^T W")
    decay: float = setting(1e-4, "weight decay thereafter")
    expansion: int = setting(10, "of pfa")
    seeds: tuple[int, ...] = setting((0, 1), "of each network; 0..9 is a range", parse=seed_range)

    # Sparse feedback
    densities: tuple[float, ...] = setting((1.0, 0.1), "shares of the feedback weights that exist, with 1 and 0.1")
    sparse_rules: tuple[str, ...] = setting(("fa", "pfa"), "learning rules with sparse feedback")
    shown_accuracy: tuple[float, ...] = setting((), "ends of the axis, percent; none: what is drawn", empty=True)

    # CIFAR-10, ResNet-20
    cifar_dataset: str = setting("digits32", "data set")
    cifar_train_size: int | None = setting(128, "samples; None: all")
    cifar_network: str = setting("lenet", "architecture")
    cifar_rules: tuple[str, ...] = setting(("bp", "fa", "pfa", "pfa-o"), "learning rules")
    cifar_batch_size: int = setting(64, "samples")
    cifar_lr: float = setting(0.1, "learning rate")
    cifar_lr_steps: tuple[int, ...] = setting((), "epochs after which the learning rate is a tenth", empty=True)
    cifar_epochs: int = setting(1, "length of training")
    cifar_first_decay: float = setting(5e-3, "weight decay of the first epoch")
    cifar_decay: float = setting(1e-4, "weight decay thereafter")
    cifar_augment: str = setting("none", "random views of the images")
    cifar_seeds: tuple[int, ...] = setting((0,), "of each network", parse=seed_range)

    # ImageNet, ResNet-18
    imagenet_dataset: str = setting("digits32", "data set")
    imagenet_train_size: int | None = setting(128, "samples; None: all")
    imagenet_network: str = setting("lenet", "architecture")
    imagenet_rules: tuple[str, ...] = setting(("bp", "pfa", "pfa-o"), "learning rules")
    imagenet_batch_size: int = setting(64, "samples")
    imagenet_lr: float = setting(0.1, "learning rate")
    imagenet_lr_steps: tuple[int, ...] = setting((), "epochs after which the learning rate is a tenth", empty=True)
    imagenet_epochs: int = setting(1, "length of training")
    imagenet_first_decay: float = setting(5e-3, "weight decay of the first epoch")
    imagenet_decay: float = setting(1e-4, "weight decay thereafter")
    imagenet_augment: str = setting("none", "random views of the images")
    imagenet_seeds: tuple[int, ...] = setting((0,), "of each network", parse=seed_range)

    # B B^T against the expansion: nothing is trained
    expansions: tuple[float, ...] = setting((1.0, 10.0, 100.0), "widths of B in multiples of its rows")
    expansion_outputs: int = setting(40, "rows of W and of B")
    expansion_inputs: int = setting(60, "columns of W")
    expansion_draws: int = setting(10, "of W and B")

    def __post_init__(self) -> None:
        check_settings(self)
        require({DENSE, 0.1} <= set(self.densities), "densities must contain 1 and 0.1, which claims compare")
        require(len(self.shown_accuracy) in (0, 2), "shown_accuracy must have two ends, or none")


def smoke() -> PfaProfile:
    """Every target on the bundled digits, in seconds: shows that all of it works, and nothing else."""
    return PfaProfile()


def small() -> PfaProfile:
    """All of MNIST with three seeds and a tenth of the epochs, and a ResNet-20 on a part of CIFAR-10: about 75 minutes
    of one core. The shorter first epoch of the ResNet has a decay that lets it forget as much as the published one:
    learning rate x decay x steps is the same."""
    return replace(
        paper(),
        name="small", epochs=4, lr_steps=(2, 3), seeds=(0, 1, 2), rules=(*RULES, "pal"),
        densities=(1.0, 0.3, 0.1, 0.05), shown_accuracy=(),
        cifar_train_size=2_000, cifar_batch_size=64, cifar_epochs=4, cifar_lr_steps=(2, 3), cifar_first_decay=0.06,
        cifar_augment="none", cifar_seeds=(0,), cifar_rules=("bp", "fa", "pfa", "pfa-o"),
    )  # fmt: skip


def paper() -> PfaProfile:
    """As published, with the other rules of MNIST beside the paper's; meant for a GPU."""
    five_seeds = (0, 1, 2, 3, 4)
    return PfaProfile(
        name="paper", dataset="mnist", rules=(*RULES, "pal", "frsf", "brsf", "kp", "wm"), hidden=(512, 512), lr=0.01,
        lr_steps=(20, 30), epochs=40, first_decay=0.03, decay=9e-5, seeds=five_seeds,
        densities=(1.0, 0.5, 0.3, 0.17, 0.1, 0.05), sparse_rules=("fa", "dfa", "usf", "pfa"),
        shown_accuracy=(97.0, 99.0),
        cifar_dataset="cifar10", cifar_train_size=None, cifar_network="resnet20", cifar_rules=RULES,
        cifar_batch_size=128, cifar_lr_steps=(100, 150, 200), cifar_epochs=250, cifar_augment="crop-flip",
        cifar_seeds=five_seeds,
        imagenet_dataset="imagefolder:imagenet", imagenet_train_size=None, imagenet_network="torchvision:resnet18",
        imagenet_rules=("bp", "usf", "pfa", "pfa-o"), imagenet_batch_size=256, imagenet_lr_steps=(20, 40, 60),
        imagenet_epochs=75, imagenet_first_decay=5e-4, imagenet_augment="random-resized-crop",
        expansions=tuple(round(10 ** (k / 5), 4) for k in range(11)), expansion_outputs=100, expansion_inputs=256,
        expansion_draws=100,
    )  # fmt: skip


def departures(profile: PfaProfile, *names: str) -> list[str]:
    """Return which of these numbers are not those of :func:`paper`, in words: ``epochs 4 (published: 40)``."""
    published, labels = paper(), {field.name: field.name.replace("_", " ") for field in fields(profile)}
    return [
        f"{labels[name]} {_words(getattr(profile, name))} (published: {_words(getattr(published, name))})"
        for name in names
        if getattr(profile, name) != getattr(published, name)
    ]


def _words(value: object) -> str:
    if value is None:
        return "all"
    found = as_json(value)
    return ", ".join(map(str, found)) or "none" if isinstance(found, list) else str(found)


PROFILES: dict[str, Callable[[], PfaProfile]] = {"smoke": smoke, "small": small, "paper": paper}
