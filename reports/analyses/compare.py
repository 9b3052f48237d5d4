"""``compare``: several networks in one table, with differences and tests."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from alignscape.errors import InputError
from alignscape.settings import Only, setting
from reports.analyses.analysis import Analysis, Found, Show, batch_setting, silent, split_setting
from reports.analyses.attack import Attack
from reports.analyses.attack_settings import Attacks, pixels
from reports.analyses.section import Drawing, Section, has
from reports.schema import Column, Table, columns, interval

if TYPE_CHECKING:
    from reports.subjects import Subject

ATTACKED = Only("--attack", lambda one: len(one.attacks) > 0)
COMPARED = "what is compared (accuracy always is)"


@dataclass(frozen=True, kw_only=True)
class Compare(Attacks, Analysis):
    """Every network against the first by McNemar's test over images, every rule against the first's by the rank-sum
    test over seeds.

    >>> Compare(attacks=("fgsm",), eps=(0.1,)).gradients
    ('true',)
    """

    name: ClassVar[str] = "compare"
    version: ClassVar[int] = 2  # a family of p_holm is a quantity, a run is one seed
    summary: ClassVar[str] = (
        "several networks against the first: differences with paired tests, and rules with rank-sum tests over seeds"
    )
    against_first: ClassVar[bool] = True
    gradients: ClassVar[tuple[str, ...]] = ("true",)
    tables: ClassVar[tuple[Table, ...]] = (
        Table(
            "compare",
            (
                Column("quantity", "text", "what is compared"),
                Column("test", "text", "mcnemar (images in pairs), rank-sum (seeds of a rule), or none"),
                *columns("text", "first second", "network, or rule and angle"),
                *columns("float", "value_first value_second", "share, or median over seeds"),
                Column("difference", "float", "first minus second"),
                *interval("the difference"),
                *columns(
                    "float",
                    "p_value p_holm smallest_p",
                    "of the test, adjusted within its quantity, and least possible",
                ),
                *columns("float", "n_first n_second", "images or runs"),
                *columns("text", "run_first run_second", "what a run in a store is called", optional=True),
            ),
        ),
        Table(
            "gap",
            (
                Column("quantity", "text", "what is correlated with the generalisation gap"),
                Column("gap", "text", "loss: test minus training loss; accuracy: training minus test accuracy"),
                Column("over", "text", "all runs, those of a rule, or psi: those that differ in one setting alone"),
                Column("tau", "float", "Kendall's rank correlation; of psi, its mean over groups of runs"),
                *interval("tau, over seeds"),
                *columns("int", "n_runs n_seeds", "behind it"),
            ),
            optional=True,
        ),
    )
    section: ClassVar[Section] = Section(
        heading="Comparison",
        text="Every network against the first. McNemar's test takes the same images in pairs, the rank-sum test the "
        "seeds of a rule as samples; p_holm allows for the several networks, or rules, that are set against the first "
        "in one quantity, smallest_p is the least that so few seeds can reach. Rows without a test are plain "
        "differences. With --gap: the rank correlation of each quantity with the generalisation gap.",
        drawings=(
            Drawing(
                title="Rank correlation with the generalisation gap",
                caption="At 1 the larger number always goes with the larger gap between test and training set.",
                remarks=(
                    (
                        "Psi: among runs that differ in one setting alone.",
                        lambda table: bool(table["over"].astype(str).str.startswith("psi").any()),
                    ),
                    ("Where a bar crosses zero, seeds do not tell the sign.", has("ci_low", "ci_high")),
                ),
                draw="reports.figures:gap",
                of="gap",
                stem="gap",
            ),
        ),
    )

    split: Literal["train", "test"] = split_setting("test")
    batch_size: int | None = batch_setting(2500)
    attacks: tuple[str, ...] = setting(
        ("strong",),
        "also accuracy under these attacks with the true gradient: fgsm, bim, pgd, strong, square, "
        "torchattacks:NAME, package.module:function, ...: see analyze attack --help; nothing after --attack: none",
        metavar="NAME",
        flags=("--attack",),
        empty=True,
        group=COMPARED,
    )
    eps: tuple[float, ...] = setting(
        (0.01, 0.03), "their radii, pixel units", metavar="E", parse=pixels, only=ATTACKED, group=COMPARED
    )
    norm: Literal["linf", "l2"] = setting("linf", "norm of the ball", only=ATTACKED, group=COMPARED)
    with_tables: tuple[Path, ...] = setting(
        (),
        "also the numbers in these tables of other commands, for the same checkpoints: hessian.csv, attack.csv, "
        "corruptions.csv; where a table has several epochs of a run, the last",
        metavar="CSV",
        flags=("--tables",),
        empty=True,
        group=COMPARED,
    )

    gap: bool = setting(
        False,
        "also the rank correlation of each number in --tables with the generalisation gap, over runs",
        only=Only("--tables", lambda one: len(one.with_tables) > 0),
        group=COMPARED,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_attacks()
        if self.gap and self.split == "train":
            raise InputError("--gap sets the training set against samples that are none of it: leave --split at test")

    def compute_all(self, subjects: "Iterable[Subject]", show: Show = silent) -> Found:
        """Compare the networks with the first."""
        import pandas as pd

        from alignscape.files import sha256_file
        from reports.analyses import compared, known_tables

        subjects = list(subjects)
        compared.check_same_images(subjects)
        first, known = subjects[0], known_tables()
        others = compared.read_values(self.with_tables, subjects, known)
        kept = compared.seeds(subjects)
        attack = self._attack()
        results = {subject.name: compared.outcomes(attack, subject, show) for subject in subjects}
        measured = [
            (subject.name, compared.group_label(subject.columns), quantity, right.mean())
            for subject in subjects
            for quantity, right in results[subject.name].items()
        ]
        values = pd.DataFrame(measured, columns=["checkpoint", "group", "quantity", "value"])
        both = pd.concat([values, others], ignore_index=True) if len(others) else values
        rows = [
            *compared.paired_rows(results, first.name, self.seed),
            *compared.value_rows(others, first.name),
            *compared.seed_rows(both[both.checkpoint.isin(kept)], compared.group_label(first.columns)),
        ]
        digests = {str(path): sha256_file(path) for path in self.with_tables}
        tables = {"compare": compared.with_run_names(compared.comparison_frame(rows, self.tables[0]), subjects)}
        if self.gap:
            from reports.analyses.gap import gap_table, gaps_of

            own = [subject for subject in subjects if subject.name in kept or subject.checkpoint is None]
            tables["gap"] = gap_table(others, gaps_of(own), own, self.tables[1])
        return Found(tables=tables, record={"tables": digests})

    def _attack(self) -> Attack | None:
        """Return the attacks with the true gradient, None if there are none."""
        if not self.attacks:
            return None
        own = {name: getattr(self, name) for name in Attacks.__dataclass_fields__}
        return Attack(**own, batch_size=self.batch_size, seed=self.seed)

    def compute(self, subject: "Subject", show: Show = silent) -> Found:
        """One network is compared with nothing.

        Raises:
            InputError: always.
        """
        raise InputError("compare needs at least two networks; the first is the baseline")

    def text(self, found: Found) -> str:
        """Return the table without the numbers of images, shares in percent, as the unit says."""
        from reports.analyses import compared, known_tables
        from reports.tables import render

        frame = compared.called(found.tables["compare"].drop(columns=["n_first", "n_second"]))
        shares = [name for name, table in known_tables().items() if "accuracy" in table.names("value")]
        percent = frame["quantity"].str.split(" ").str[0].isin(["accuracy", *shares])
        scaled = ["value_first", "value_second", "difference", "ci_low", "ci_high"]
        frame.loc[percent, scaled] *= 100
        frame.insert(2, "unit", percent.map({True: "%", False: ""}))
        frame = frame.dropna(axis="columns", how="all")
        text = f"{render(frame, digits=3)}\n(in compare.csv accuracies are shares of 1)"
        if "gap" not in found.tables:
            return text
        told = "rank correlation with the generalisation gap (Kendall's tau; psi: of runs that differ in one setting)"
        gaps = found.tables["gap"]
        shown = gaps[~gaps["over"].isin(gaps["over"][gaps["n_runs"] < gaps["n_runs"].max()])]  # rules are in gap.csv
        return f"{text}\n\n{told}\n{render(shown, digits=3)}"
