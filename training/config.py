"""What defines a training run: one frozen dataclass, its canonical JSON and the key derived from it."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Self

from alignscape.errors import InputError

OPTIMISERS = ("adam", "sgd")
SNAPSHOT_DTYPES = ("float32", "float16")
PRECISIONS = ("fp32", "tf32", "bf16")
ALIGNMENTS = ("gaussian", "exact")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that the result of a run depends on, except the bytes of the data.

    Defaults are the paper's MLP on CIFAR-10 where the paper gives a value; it gives no learning rate, and 1e-4 is
    ours (``docs/defaults.md``). Sequences are tuples, so that configs are hashable and compare by value.

    Raises:
        InputError: a value is out of its range; the message names the field and the range.
    """

    rule: str = "bp"
    rule_source: str = ""  # SHA-256 of the source of a rule that is not ours, see `training.rules.pinned`
    angle: float = 0.0  # degrees between W and B at the start; `ifa` only
    alignment: str = "gaussian"  # `ifa`: rows at `angle` in expectation, or exactly
    expansion: int = 10  # k of the (k out)-dimensional middle of `pfa`
    feedback_density: float = 1.0  # share of the feedback weights that exist; `fa`, `dfa`, `pfa` and `pfa-o`
    forward_scale: float = 2**0.5  # weights start from N(0, forward_scale^2 / fan_in): sqrt 2 is He, 1 LeCun
    backward_scale: float = 2**0.5  # the same for random feedback
    mirror_rate: float = 0.02  # `wm`: what a step of the mirror adds to the feedback
    mirror_decay: float = 0.01  # `wm`: share of the feedback that a step of the mirror takes away
    dataset: str = "digits"
    train_size: int | None = None  # samples; None = the whole train split
    subset_seed: int = 0  # which samples, when train_size is given; smaller subsets are contained in larger ones
    model: str = "mlp"
    hidden: tuple[int, ...] = (512, 512)  # units of each hidden layer of `mlp`
    epochs: int = 30
    batch_size: int = 128
    optimiser: str = "adam"
    lr: float = 1e-4
    momentum: float = 0.9  # `sgd` only
    weight_decay: float = 0.0  # L2 penalty on weight matrices, not on biases
    first_epoch_weight_decay: float | None = None  # replaces weight_decay in the first epoch (PFA's schedule)
    lr_steps: tuple[int, ...] = ()  # epochs after which lr is multiplied by lr_gamma
    lr_gamma: float = 0.1
    precision: str = "fp32"  # of the products of a step; weights, feedback and optimiser are float32 in each
    seed: int = 0  # weights, feedback and order of the data
    checkpoint_every: int = 0  # epochs between kept checkpoints (epoch 0 included); 0 = only the final one
    snapshot_every: int = 0  # steps between rows of trajectory.npy; 0 = no trajectory
    snapshot_dtype: str = "float32"
    snapshot_sketch: int = 0  # rows L of a sketch of every step's weights, beside the snapshots; 0 = none
    gradient_alignment: int = 0  # samples on which each epoch's gradient alignment is measured; 0 = not measured

    def __post_init__(self) -> None:
        for name in ("hidden", "lr_steps"):  # lists come from JSON and from the command line
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _require(self.optimiser in OPTIMISERS, f"optimiser is {self.optimiser!r}; known: {', '.join(OPTIMISERS)}")
        _require(self.alignment in ALIGNMENTS, f"alignment is {self.alignment!r}; known: {', '.join(ALIGNMENTS)}")
        _require(self.precision in PRECISIONS, f"precision is {self.precision!r}; known: {', '.join(PRECISIONS)}")
        _require(
            self.snapshot_dtype in SNAPSHOT_DTYPES,
            f"snapshot_dtype is {self.snapshot_dtype!r}; known: {', '.join(SNAPSHOT_DTYPES)}",
        )
        _require(0 <= self.angle <= 180, f"angle is {self.angle}; it must lie in [0, 180] degrees")
        for name in ("lr", "forward_scale", "backward_scale", "mirror_rate"):
            _require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}; it must be positive")
        for name in ("feedback_density", "mirror_decay"):
            _require(0 < getattr(self, name) <= 1, f"{name} is {getattr(self, name)}; it must lie in (0, 1]")
        _require(0 <= self.momentum < 1, f"momentum is {self.momentum}; it must lie in [0, 1)")
        for name in ("expansion", "batch_size"):
            _require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in (
            *("epochs", "weight_decay", "checkpoint_every", "snapshot_every"),
            *("snapshot_sketch", "gradient_alignment"),
        ):
            _require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}; it must not be negative")
        _require(
            self.snapshot_sketch == 0 or self.snapshot_every > 0,
            "snapshot_sketch needs snapshot_every > 0: the sketch gives the directions, the snapshots the path",
        )
        _require(self.train_size is None or self.train_size >= 1, "train_size must be at least 1 sample")
        _require(
            self.first_epoch_weight_decay is None or self.first_epoch_weight_decay >= 0,
            "first_epoch_weight_decay must not be negative",
        )
        _require(all(width >= 1 for width in self.hidden), "every hidden layer needs at least 1 unit")
        for field in dataclasses.fields(self):  # 30 and 30.0 are one angle, and must have one key
            if field.type in (float, float | None) and isinstance(value := getattr(self, field.name), int):
                object.__setattr__(self, field.name, float(value))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types (tuples become lists)."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Rebuild a config; fields that did not exist when it was written take their defaults.

        Raises:
            InputError: a field is unknown here (the file is from a newer version).
        """
        unknown = sorted(set(fields) - {f.name for f in dataclasses.fields(cls)})
        _require(
            not unknown,
            f"the config has unknown fields: {', '.join(unknown)}; is it from a newer alignscape?",
        )
        return cls(**fields)

    def key(self, data_digest: str) -> str:
        """Return the identity of a run: SHA-256 (64 hex digits) of the canonical config and the data's digest.

        Fields at their default are left out, so that a new field never changes the key of an old run; a changed
        default would make an old key mean another run, and a test holds the defaults.
        """
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        chosen = {k: v for k, v in self.to_dict().items() if getattr(self, k) != defaults[k]}
        canonical = json.dumps({"config": chosen, "data": data_digest}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def differences(self, other: "TrainConfig") -> list[str]:
        """Return ``"field: mine -> theirs"`` for every field that differs."""
        mine, theirs = self.to_dict(), other.to_dict()
        return [f"{name}: {theirs[name]} -> {mine[name]}" for name in mine if mine[name] != theirs[name]]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)
