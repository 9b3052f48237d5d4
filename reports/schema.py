"""What the tables are: the columns of each CSV file with type, unit and meaning. Nothing heavy is imported here."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "int", "float", "bool"]
# key: with the others says which quantity a row is; setting: so too, but named only where what is compared differs in
# it; value: its number; cost: what it took, no result
Role = Literal["", "key", "setting", "value", "cost"]


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: as in the header.
        kind: of its cells; any but ``text`` may be missing (an empty cell, NaN).
        meaning: one line.
        unit: of its numbers; empty for counts, shares and ratios.
        role: see :data:`Role`.
        optional: there only where it was asked for.

    Example:
        >>> from reports import Column
        >>> Column("eps", "float", "radius of the ball", "pixels in [0, 1]", role="key").role
        'key'
    """

    name: str
    kind: Kind
    meaning: str
    unit: str = ""
    role: Role = ""
    optional: bool = False


@dataclass(frozen=True)
class Table:
    """One kind of table: ``NAME.csv``.

    Attributes:
        name: of the file, without its ending.
        columns: in order, after ``checkpoint`` and before the columns that identify a run.
        optional: written only where it was asked for.
        open: may have columns besides (``angle_LAYER`` in ``metrics.csv``).

    Example:
        >>> from reports import Column, Table
        >>> columns = Column("layer", "text", "its name", role="key"), Column("value", "float", "a norm")
        >>> Table("mine", columns).names("key")
        ['layer']
    """

    name: str
    columns: tuple[Column, ...]
    optional: bool = False
    open: bool = False

    def names(self, role: Role | None = None) -> list[str]:
        """Return the names of the columns, or of those with ``role``."""
        return [column.name for column in self.columns if role is None or column.role == role]

    @property
    def usual(self) -> list[str]:
        """The columns that are there without being asked for."""
        return [column.name for column in self.columns if not column.optional]

    @property
    def required(self) -> list[str]:
        """The columns that every such table has, wherever it is kept: a store keeps nothing of what it cost."""
        return [column.name for column in self.columns if not column.optional and column.role != "cost"]


def columns(kind: Kind, names: str, meaning: str = "", **more: object) -> tuple[Column, ...]:
    """Return columns of one kind, named in one string, that share what is said of them."""
    return tuple(Column(name, kind, meaning, **more) for name in names.split())  # type: ignore[arg-type]


def interval(of: str = "the value", prefix: str = "ci") -> tuple[Column, Column]:
    """Return ``PREFIX_low, PREFIX_high``: the ends of a 95 % interval."""
    low, high = (Column(f"{prefix}_{end}", "float", f"95 % interval of {of}") for end in ("low", "high"))
    return low, high


N_SAMPLES = Column("n_samples", "int", "samples of data it was measured on")
LOSS = Column("loss", "float", "mean loss of the run: cross-entropy, unless its --loss says otherwise", "nats")

# What identifies a row's network: the first column of every table, and for a run of ours the last ones.
CHECKPOINT = Column("checkpoint", "text", "the network, as it was given")
RUN = (
    Column("rule", "text", "learning rule", role=""),
    Column("angle", "float", "between forward and feedback weights at the start (ifa)", "degrees"),
    Column("seed", "int", "of weights, feedback and order of the data"),
    Column("epoch", "int", "epochs trained"),
)

METRICS = Table(
    "metrics",
    (
        *columns("int", "epoch step", "trained so far"),
        *columns("float", "train_loss test_loss", "mean loss of the run", unit="nats"),
        Column("train_accuracy", "float", "share of samples that are right"),
        Column("test_accuracy", "float", "share of samples that are right", role="value"),
        Column("seconds", "float", "of training so far", "s", role="cost"),
    ),
    open=True,
)

CURVATURE = Table(
    "curvature",
    (
        Column("step", "int", "steps trained so far"),
        Column("epoch", "float", "epochs trained so far"),
        Column("loss", "float", "mean loss of the run over the monitored samples", "nats"),
        Column("gradient_norm", "float", "length of its true gradient g", "nats / weight"),
        Column("eigenvalue", "float", "largest eigenvalue of its Hessian H", "nats / weight^2", role="value"),
        Column("residual", "float", "an eigenvalue lies this close to it", "nats / weight^2"),
        Column("trace", "float", "trace of H", "nats / weight^2", role="value"),
        *interval("the trace, over probes"),
        Column("alignment", "float", "|P_k g|^2 / |g|^2, the share of g in the top k eigenvectors", role="value"),
        Column("lr", "float", "learning rate of the next step"),
        Column(
            "threshold",
            "float",
            "edge of stability, of preconditioned_eigenvalue with Adam, else of eigenvalue",
            "as of that eigenvalue",
        ),
        Column("preconditioned_eigenvalue", "float", "largest eigenvalue of D^-1/2 H D^-1/2 (Adam)", "1 / lr"),
        Column("preconditioned_residual", "float", "an eigenvalue lies this close to it", "1 / lr"),
        Column("update_cosine", "float", "cosine between g and the rule's update u; none for bp"),
        Column("update_alignment", "float", "|P_k u|^2 / |u|^2; none for bp"),
        Column("k", "int", "eigenvectors that span the top space"),
        N_SAMPLES,
        Column("n_products", "int", "Hessian-vector products that it took", role="cost"),
    ),
    open=True,
)
