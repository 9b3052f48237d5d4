"""What defines a training run: one frozen dataclass, its canonical JSON and the key derived from it.

Nothing heavy is imported here: the flags of ``analyze train`` and the keys of its config files are made of it.
"""

import argparse
import hashlib
import json
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from alignscape.errors import InputError
from alignscape.settings import (
    NON_NEGATIVE,
    POSITIVE,
    Only,
    at_least,
    between,
    changed_settings,
    check_settings,
    recorded_settings,
    setting,
    settings_json,
    settings_of,
)
from training.data_names import DATA_SETS, form_of, is_own

# headings of ``analyze train --help``
DATA, OPTIMISATION, OUTPUT, MONITOR = "data and network", "optimisation", "output", "curvature while training"

SGD = Only("--optimiser sgd", lambda config: config.optimiser == "sgd")
OURS = ("mlp", "lenet", "alexnet", "resnet20")
ACTIVATED = Only(
    f"hidden layers of a network of ours (--network {'|'.join(OURS)})",
    lambda config: config.model in OURS and (config.model != "mlp" or len(config.hidden) > 0),
)
MLP = Only("--network mlp", lambda config: config.model == "mlp")
FOLDER = Only("--dataset imagefolder:DIR", lambda config: config.dataset.startswith("imagefolder:"))
ADAM = Only("--optimiser adam or adamw", lambda config: config.optimiser != "sgd")
HEAVY = Only("--optimiser sgd with --momentum", lambda config: config.optimiser == "sgd" and config.momentum > 0)
DECAYED = Only("--weight-decay", lambda config: config.weight_decay > 0 or (config.first_epoch_weight_decay or 0) > 0)
CROSS_ENTROPY = Only("--loss cross-entropy", lambda config: config.loss == "cross-entropy")
BY_STEPS = Only("--schedule steps", lambda config: config.schedule == "steps")
SUBSET = Only("--train-size or --validation", lambda config: config.train_size is not None or config.validation > 0)
VALIDATED = Only("--validation", lambda config: config.validation > 0)
LR_STEPS = Only("--lr-steps", lambda config: len(config.lr_steps) > 0 and config.schedule == "steps")
SNAPSHOTS = Only("--snapshot-every", lambda config: config.snapshot_every > 0)
MONITORED = Only("--monitor hessian", lambda config: config.monitor != "none")
BY_SHARE = Only(
    "--monitor hessian without --monitor-every", lambda config: config.monitor != "none" and config.monitor_every == 0
)
# At 0 and 180 degrees W is B, or its negative, either way. Which rules have an angle at all they say themselves.
OBLIQUE = Only("an --angle between 0 and 180", lambda config: config.rule != "ifa" or 0 < config.angle < 180, kept=True)


DIGITS = ("digits", "digits32", "mnist", "svhn")  # of which a mirror image is none

# Runs of which an earlier version made something else, and how often that has changed: part of their keys, so that what
# a store holds of old is not taken for what would be trained now.
REVISIONS: dict[str, tuple[int, Only]] = {
    "scale of sparse pfa": (
        2,
        Only("a sparse pfa", lambda config: config.rule == "pfa" and config.feedback_density < 1),
    ),
    "rates of pal below a pool": (
        2,
        Only("a pal that may pool", lambda config: config.rule == "pal" and config.model != "mlp"),
    ),
    "noise of the mirror mode": (
        2,
        Only("a wm that mirrors first", lambda config: config.rule == "wm" and config.mirror_steps > 0),
    ),
}

MOST_SEEDS = 100_000  # of a range


def seed_range(text: str) -> list[int]:
    """Parse ``7`` or ``0..9`` (both ends included).

    Raises:
        ArgumentTypeError: an empty range, or one that no one means.
        ValueError: no whole numbers.
    """
    first, dots, last = text.partition("..")
    if dots and not (first and last):
        raise argparse.ArgumentTypeError(f"{text} has one end; a range is 0..9")
    low, high = int(first), int(last or first)
    if high < low:
        raise argparse.ArgumentTypeError(f"{text} is an empty range")
    if high - low >= MOST_SEEDS:
        raise argparse.ArgumentTypeError(f"{text} has more than {MOST_SEEDS} seeds")
    return list(range(low, high + 1))


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that the result of a run depends on, except the bytes of the data.

    Defaults are the paper's MLP on CIFAR-10 as far as our copy of it says: it is without the tables of numbers, and
    the learning rate, 1e-4, is ours (docs/defaults.md). Sequences are tuples, so that configs
    are hashable and compare by value. A setting may have no effect beside the others here (``momentum`` with Adam):
    that is refused where settings are given, and not in a run of old.

    Raises:
        InputError: a value is out of its range; the message names the field and the range.

    Example:
        >>> from training import TrainConfig
        >>> config = TrainConfig(rule="ifa", angle=30, hidden=(64, 64), epochs=3)
        >>> config.angle, config.batch_size, TrainConfig.from_dict(config.to_dict()) == config
        (30.0, 128, True)
        >>> TrainConfig(angle=200)
        Traceback (most recent call last):
        alignscape.errors.InputError: angle is 200; it must lie in [0, 180] degrees
    """

    SWEPT: ClassVar[bool] = True  # each setting may be given several values, with a run of each

    rule: str = setting(
        "bp",
        "learning rule, or one of yours as package.module:Class, of the current folder say",
        metavar="NAME",
        group="rule",
    )
    rule_source: str = setting(
        "", "SHA-256 of the source of a rule that is not ours, see `training.rules.pinned`", flag=False, group="rule"
    )
    angle: float = setting(
        0.0,
        "ifa: angle between forward and feedback weights at the start, 0 to 180 degrees; 90 is fa",
        metavar="DEG",
        check=between(0, 180, "degrees"),
        flags=("--angle", "--angles"),
        group="rule",
    )
    alignment: Literal["gaussian", "exact"] = setting(
        "gaussian",
        "ifa: gaussian: --angle holds for each unit's weights in expectation; exact: exactly",
        group="rule",
        only=OBLIQUE,
    )
    expansion: int = setting(
        10,
        "pfa: width between its two feedback matrices, in multiples of the layer's outputs",
        metavar="K",
        check=at_least(1, most=10_000),
        group="rule",
    )
    feedback_density: float = setting(
        1.0,
        "fa, dfa, pfa, pfa-o, usf, frsf, brsf: share of the feedback weights that exist, 0 to 1; the others stay 0",
        metavar="SHARE",
        check=between(0, 1, low_open=True),
        group="rule",
    )
    forward_scale: float = setting(
        2**0.5,
        "scale S of the weights at the start, N(0, S^2 / fan_in): 1.414 is He, 1 LeCun; see --init",
        metavar="S",
        check=POSITIVE,
        flags=("--forward-scale", "--forward-scales"),
        short="forward",
        group="rule",
        default_text="1.414",
    )
    backward_scale: float = setting(
        2**0.5,
        "all but bp: the same for random feedback weights",
        metavar="S",
        check=POSITIVE,
        flags=("--backward-scale", "--backward-scales"),
        short="backward",
        group="rule",
        default_text="1.414",
    )
    init: Literal["he", "xavier", "lecun"] = setting(
        "he",
        "variance of the weights at the start, and of random feedback, at the scale of 1.414: he: 2 / fan_in; xavier: "
        "2 / (fan_in + fan_out); lecun: 1 / fan_in",
        group="rule",
        sparse=True,
    )
    init_distribution: Literal["normal", "uniform"] = setting(
        "normal", "distribution of the same: normal, or uniform around 0", group="rule", sparse=True
    )
    mirror_rate: float = setting(
        0.02,
        "wm: learning rate of the feedback, which takes a step of the mirror before each step of training",
        metavar="ETA",
        check=POSITIVE,
        group="rule",
    )
    mirror_decay: float = setting(
        0.01,
        "wm: share by which each step of the mirror shrinks the feedback, 0 to 1",
        metavar="SHARE",
        check=between(0, 1, low_open=True),
        group="rule",
    )
    mirror_noise: Literal["normal", "uniform"] = setting(
        "normal", "wm: distribution of the noise, of mean 0 and variance 1; the paper's is uniform", group="rule"
    )
    mirror_steps: int = setting(
        0,
        "wm: steps of the mirror before training starts",
        metavar="N",
        check=at_least(0, most=10**6),
        group="rule",
    )
    pal_noise: float = setting(
        0.01,
        "pal: standard deviation of the noise at the outputs of hidden layers",
        metavar="SIGMA",
        check=between(1e-6, 1e6),  # its square divides
        group="rule",
    )
    pal_rate: float = setting(
        0.01,
        "pal: share of the feedback that a step's response to noise replaces, 0 to 1",
        metavar="RHO",
        check=between(0, 1, low_open=True),
        group="rule",
    )
    pal_gain: float = setting(
        2.0,
        "pal: factor of that response; 2 makes up for the half of all units that ReLU holds at 0; another "
        "--activation wants the inverse of its mean slope",
        metavar="GAMMA",
        check=POSITIVE,
        group="rule",
    )
    dataset: str = setting(
        "digits",
        f"digits comes with the package; {DATA_SETS}",
        metavar="NAME",
        group=DATA,
    )
    image_size: int | None = setting(
        None,
        "pixels a side that the pictures of imagefolder:DIR are resized and cropped to",
        metavar="PIXELS",
        check=at_least(1, most=4096),
        group=DATA,
        default_text="224",
        only=FOLDER,
    )
    train_size: int | None = setting(
        None,
        "train on N samples of the train split",
        short="train",
        metavar="N",
        check=at_least(1, "sample"),
        group=DATA,
        default_text="all",
    )
    subset_seed: int = setting(
        0,
        "seed that draws the samples of --train-size, smaller subsets being contained in larger ones, and of "
        "--validation",
        short="subset",
        metavar="S",
        check=NON_NEGATIVE,
        group=DATA,
        only=SUBSET,
    )
    validation: float = setting(
        0.0,
        "share of the train split that is not learned from, to find the best epoch on; its weights are kept as best.pt",
        metavar="SHARE",
        check=between(0, 1, high_open=True),
        group=DATA,
        sparse=True,
    )
    model: str = setting(
        "mlp",
        "architecture: mlp, lenet, alexnet, resnet20, torchvision:NAME, timm:NAME or package.module:factory, a "
        "function of no arguments",
        metavar="NAME",
        flags=("--network",),
        group=DATA,
    )
    hidden: tuple[int, ...] = setting(
        (512, 512),
        "units of each hidden layer; none for a linear network",
        metavar="UNITS",
        check=at_least(1, "unit", most=10**6),
        empty=True,
        group=DATA,
        only=MLP,
    )
    activation: Literal["relu", "tanh", "sigmoid", "gelu", "silu", "elu", "leaky_relu"] = setting(
        "relu", "activation of hidden layers", group=DATA, only=ACTIVATED, sparse=True
    )
    augment: Literal["none", "crop", "crop-flip", "random-resized-crop"] = setting(
        "none",
        "learn from random views of the images: crop: moved by up to an eighth of their sides; crop-flip: also "
        "mirrored; random-resized-crop: parts of them, stretched and mirrored",
        group=DATA,
        sparse=True,
    )
    epochs: int = setting(30, "passes over the train split", metavar="N", check=NON_NEGATIVE, group=OPTIMISATION)
    noise_epochs: int = setting(
        0,
        "before training, epochs of the rule on noise: each mini-batch fresh N(0, 1) inputs with random labels",
        short="noise",
        metavar="K",
        check=NON_NEGATIVE,
        group=OPTIMISATION,
    )
    batch_size: int = setting(128, "samples per step", metavar="N", check=at_least(1), group=OPTIMISATION, short="bs")
    loss: Literal["cross-entropy", "mse"] = setting(
        "cross-entropy",
        "mse: mean over samples and classes of the squares of logits less one-hot targets; what the metrics and the "
        "analyses call the loss of the run follows",
        group=OPTIMISATION,
        sparse=True,
    )
    label_smoothing: float = setting(
        0.0,
        "share of the target that is spread over all classes, 0 to 1",
        metavar="SHARE",
        check=between(0, 1, high_open=True),
        group=OPTIMISATION,
        only=CROSS_ENTROPY,
        sparse=True,
    )
    optimiser: Literal["adam", "sgd", "adamw"] = setting(
        "adam", "adamw: adam that decays the weights apart from their gradient", group=OPTIMISATION
    )
    betas: tuple[float, ...] = setting(
        (0.9, 0.999),
        "decays of adam's means of gradients and of their squares",
        metavar="B",
        check=between(0, 1, high_open=True),
        group=OPTIMISATION,
        only=ADAM,
        sparse=True,
    )
    lr: float = setting(
        1e-4,
        "learning rate at the start",
        metavar="LR",
        check=POSITIVE,
        flags=("--lr", "--lrs"),
        group=OPTIMISATION,
        default_text="1e-4",
    )
    momentum: float = setting(
        0.9, "momentum, 0 to 1", metavar="M", check=between(0, 1, high_open=True), group=OPTIMISATION, only=SGD
    )
    nesterov: bool = setting(False, "Nesterov's momentum", group=OPTIMISATION, only=HEAVY, sparse=True)
    weight_decay: float = setting(
        0.0,
        "WD times the weights is added to their gradient, and so for plastic feedback; not for biases (--decay-all); "
        "adamw shrinks the weights by the learning rate times WD in each step instead",
        metavar="WD",
        check=NON_NEGATIVE,
        flags=("--weight-decay", "--weight-decays"),
        short="wd",
        group=OPTIMISATION,
    )
    first_epoch_weight_decay: float | None = setting(
        None,
        "weight decay of the first epoch, which pfa's authors set apart",
        metavar="WD",
        check=NON_NEGATIVE,
        group=OPTIMISATION,
        default_text="that of --weight-decay",
    )
    decay_all: bool = setting(
        False, "decay biases and normalisation too", group=OPTIMISATION, only=DECAYED, sparse=True
    )
    schedule: Literal["steps", "cosine"] = setting(
        "steps",
        "steps: the learning rate changes at --lr-steps; cosine: it falls along half a cosine, step by step, to 0 at "
        "the end",
        group=OPTIMISATION,
        sparse=True,
    )
    warmup_epochs: int = setting(
        0,
        "epochs in which the learning rate first rises evenly, step by step",
        metavar="N",
        check=NON_NEGATIVE,
        group=OPTIMISATION,
        sparse=True,
    )
    lr_steps: tuple[int, ...] = setting(
        (),
        "epochs after which the learning rate is multiplied by --lr-gamma",
        metavar="EPOCH",
        check=at_least(1),
        empty=True,
        group=OPTIMISATION,
        only=BY_STEPS,
    )
    lr_gamma: float = setting(
        0.1, "factor of the learning rate there", metavar="G", check=POSITIVE, group=OPTIMISATION, only=LR_STEPS
    )
    clip_norm: float | None = setting(
        None,
        "norm of all gradients of a network beyond which they are scaled down to it, in each step",
        metavar="NORM",
        check=POSITIVE,
        group=OPTIMISATION,
        default_text="no clipping",
        sparse=True,
    )
    best_by: Literal["accuracy", "loss"] = setting(
        "accuracy",
        "what makes an epoch the best, on the samples of --validation",
        group=OPTIMISATION,
        only=VALIDATED,
        sparse=True,
    )
    patience: int = setting(
        0,
        "stop after so many epochs without a better one; 0: never",
        metavar="EPOCHS",
        check=NON_NEGATIVE,
        group=OPTIMISATION,
        only=VALIDATED,
        sparse=True,
    )
    precision: Literal["fp32", "tf32", "bf16"] = setting(
        "fp32",
        "compute matrix products in float32, TensorFloat-32 or bfloat16; weights, feedback and optimiser stay float32",
        group=OPTIMISATION,
    )
    seed: int = setting(
        0,
        "seed of weights, feedback and data order; 0..9 is a range",
        metavar="S",
        check=NON_NEGATIVE,
        flags=("--seed", "--seeds"),
        group=OPTIMISATION,
        parse=seed_range,
    )
    checkpoint_every: int = setting(
        0,
        "keep a checkpoint every so many epochs, the start included; 0: only the final one",
        metavar="EPOCHS",
        check=NON_NEGATIVE,
        group=OUTPUT,
    )
    snapshot_every: int = setting(
        0,
        "keep the weights every so many steps for `analyze trajectory`; 0: never",
        metavar="STEPS",
        check=NON_NEGATIVE,
        group=OUTPUT,
    )
    snapshot_dtype: Literal["float32", "float16"] = setting(
        "float32", "number format of these weights: 4 or 2 bytes each on disk", group=OUTPUT, only=SNAPSHOTS
    )
    snapshot_sketch: int = setting(
        0,
        "also sketch the weights after every step, in 2 ROWS vectors of weights; 8 keeps the two leading directions to "
        "a small part of a degree, more rows cost more time in each step (see docs/trajectories.md); 0: no sketch",
        metavar="ROWS",
        check=at_least(0, most=10_000),
        group=OUTPUT,
        only=SNAPSHOTS,
    )
    gradient_alignment: int = setting(
        0,
        "measure after each epoch, on N samples of the train split, the cosine between the rule's update and the true "
        "gradient (columns of metrics.csv); 0: do not measure",
        metavar="N",
        check=NON_NEGATIVE,
        group=OUTPUT,
    )

    monitor: Literal["none", "hessian"] = setting(
        "none",
        "hessian: measure leading eigenvalues, trace and gradient of the true loss while training, with the edge of "
        "stability, into curvature.csv (docs/monitor.md); the weights come out the same, bit for bit",
        group=MONITOR,
    )
    monitor_every: int = setting(
        0,
        "measure at exactly every N-th step, from step 0; the share of the time that it took is reported",
        metavar="N",
        check=NON_NEGATIVE,
        group=MONITOR,
        default_text="as often as --monitor-share allows",
        only=MONITORED,
    )
    monitor_share: float = setting(
        0.05,
        "share of the time that measuring may take, 0 to 1; the first measurement, at step 0, is always made",
        metavar="SHARE",
        check=between(0, 1, low_open=True),
        group=MONITOR,
        only=BY_SHARE,
    )
    monitor_samples: int = setting(
        500,
        "samples of the train split that all measurements are made on, the same for every network",
        metavar="N",
        check=at_least(1, "sample"),
        group=MONITOR,
        only=MONITORED,
    )
    monitor_k: int = setting(
        5,
        "leading eigenvectors, which span the top space",
        metavar="K",
        check=at_least(1, most=1000),
        group=MONITOR,
        only=MONITORED,
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.dataset in DIGITS and self.augment in ("crop-flip", "random-resized-crop"):
            raise InputError(f"augment is {self.augment!r}, which mirrors: {self.dataset} has digits, take 'crop'")
        if len(self.betas) != 2:
            raise InputError(f"betas has {len(self.betas)} values; it must have two, as in --betas 0.9 0.999")
        if self.warmup_epochs > self.epochs:
            raise InputError(f"warmup_epochs is {self.warmup_epochs}; the run has {self.epochs} epochs")
        if self.snapshot_sketch > 0 and self.snapshot_every == 0:
            raise InputError(
                "snapshot_sketch needs snapshot_every > 0: the sketch gives the directions, the snapshots the path"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types (tuples become lists)."""
        return settings_json(self)

    def recorded(self) -> dict[str, Any]:
        """Return the fields as files hold them: settings of recipes only where they are not at their default, so that
        the files of a run without them are what they were before there were any, byte for byte."""
        return recorded_settings(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Rebuild a config; fields that did not exist when it was written take their defaults.

        Raises:
            InputError: a field is unknown here (the file is from a newer version).
        """
        if unknown := sorted(set(fields) - set(settings_of(cls))):
            raise InputError(f"the config has unknown fields: {', '.join(unknown)}; is it from a newer alignscape?")
        return cls(**fields)

    def key(self, data_digest: str, *, revised: bool = True) -> str:
        """Return the identity of a run: SHA-256 (64 hex digits) of the canonical config and the data's digest.

        Fields at their default are left out, so that a new field never changes the key of an old run; a changed
        default would make an old key mean another run, and a test holds the defaults. Where the same config means
        another run than in an earlier version, the key says so; ``revised=False`` gives that of the earlier one.
        """
        chosen: dict[str, Any] = {"config": changed_settings(self), "data": data_digest}
        if is_own(self.dataset):  # its bytes say what it is, and not where it lies
            chosen["config"]["dataset"] = form_of(self.dataset)
            chosen["config"].pop("image_size", None)  # the shape is with the bytes, and 224 is what None means
        if revised and (revisions := {name: n for name, (n, affected) in REVISIONS.items() if affected.holds(self)}):
            chosen["revisions"] = revisions
        canonical = json.dumps(chosen, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def differences(self, other: "TrainConfig") -> list[str]:
        """Return ``"field: mine -> theirs"`` for every field that differs."""
        mine, theirs = self.to_dict(), other.to_dict()
        return [f"{name}: {theirs[name]} -> {mine[name]}" for name in mine if mine[name] != theirs[name]]
