"""Which claims of flatness survive which measure: at equal epochs, over the loss there, and at equal training loss."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame

from reports.figures.flatness import CHANGE, STAY, measured
from reports.paper.claim import DOUBLE, FACTOR, Claim, more, same
from reports.paper.groups import UP
from reports.paper.quantities import IDENTITY, logarithm
from reports.paper.verdicts import corrected, decidable, verdict

Tables = Mapping[str, DataFrame]
EPOCHS, PER_LOSS, LOSS = "equal epochs", "equal epochs, over the loss", "equal loss"
COMPARISONS = EPOCHS, PER_LOSS, LOSS
ONE_STEP = "sam", "asam"  # of which the worst cases are shown
SHOWN = {name: text for name, text in {**CHANGE, **STAY}.items() if name not in ONE_STEP}


def compared(tables: Tables) -> dict[str, DataFrame]:
    """Return the measured rows of each comparison, with ``row``, the measure's name.

    At equal loss only seeds count of which every rule has that loss: a run that never does has no value there, which
    says nothing of its sharpness.
    """
    epochs, loss = (with_loss(tables[name]) for name in ("epochs", "loss"))
    over = epochs[epochs["per_loss"].notna() & (epochs["measure"] != "loss")]
    return {
        EPOCHS: epochs,
        PER_LOSS: over.assign(value=over["per_loss"]),
        LOSS: _complete(loss, epochs["rule"].nunique()),
    }


def with_loss(table: DataFrame) -> DataFrame:
    """Return the rows that are drawn, and those of the mean loss."""
    if table.empty or "measure" not in table:
        return DataFrame(columns=["checkpoint", *IDENTITY, "measure", "radius", "layer", "value", "per_loss", "row"])
    kept = table[~table["measure"].isin(ONE_STEP)]
    return pd.concat([kept[kept["measure"] == "loss"].assign(row="mean loss"), measured(kept)], ignore_index=True)


def _complete(table: DataFrame, rules: int) -> DataFrame:
    """Return the rows of the seeds that have all rules."""
    found = table.groupby("seed")["rule"].nunique()
    return table[table["seed"].isin(found.index[found == rules])]


def claims_of(tables: Tables) -> list[tuple[str, str, Claim]]:
    """Return measure, comparison and claim: that IFA is flatter than FA by more than 10 %, and within a factor of two
    of BP."""
    rows, found = compared(tables), []
    for comparison, measure in ((one, name) for one in COMPARISONS for name in SHOWN):
        if not (rows[comparison]["measure"] == measure).any():
            continue
        values: Callable[[Tables], DataFrame] = partial(_values, rows[comparison], measure)
        text = f"log10 of {SHOWN[measure]}"
        say = {"statistic": text, "table": "sharpness"}
        flatter = more(
            "IFA is flatter than FA", "abstract, 4.3", values, "FA", "IFA 0°", relevant=FACTOR, failed=UP, **say
        )
        like = same(
            "IFA is as flat as BP", "4.3", values, "IFA 0°", margin=DOUBLE, failed=UP, unit="a factor of 2", **say
        )
        found += [(measure, comparison, flatter), (measure, comparison, like)]
    return found


def _values(rows: DataFrame, measure: str, tables: Tables) -> DataFrame:
    return logarithm(rows[rows["measure"] == measure])


def flatness_table(tables: Tables) -> DataFrame:
    """Return one row for each claim, measure and comparison, with a verdict; Holm's correction is over all measures and
    comparisons of a claim."""
    rows = []
    for measure, comparison, claim in claims_of(tables):
        one = claim.judge(tables)
        names = ("value", "ci_low", "ci_high", "ci_level", "n", "p", "p_against")
        rows.append(
            {"claim": claim.words, "measure": measure, "rescaling": "changes it" if measure in CHANGE else "leaves it",
             "comparison": comparison, "statistic": claim.statistic, "evidence": one,
             **{name: getattr(one, name) for name in names}}
        )  # fmt: skip
    table, parts = DataFrame(rows), []
    for _, part in table.groupby("claim", sort=False):
        evidence = part["evidence"].tolist()
        tested = decidable([one.n for one in evidence])
        holm, against = corrected(evidence, tested)
        told: dict[str, Any] = {"p_holm": holm, "p_against_holm": against, "can_be_decided": tested}
        told["verdict"] = [verdict(*pair) for pair in zip(holm, against, strict=True)]
        parts.append(part.assign(**told))
    return pd.concat(parts).sort_index().drop(columns="evidence")


def printed(table: DataFrame) -> DataFrame:
    """Return a row for each claim and measure, with the ratio and the verdict of each comparison."""

    def cell(row: "pd.Series[float]") -> str:
        low, high = (f"{10 ** row[end]:.3g}" for end in ("ci_low", "ci_high"))
        ends = f" [{low}, {high}]" if np.isfinite(row["ci_low"]) else ""
        return f"{10 ** row['value']:.3g}{ends} {row['verdict']}" if row["n"] else ""

    rows = table.assign(cell=table.apply(cell, axis=1), name=table["measure"].map(SHOWN))
    keys = ["claim", "name", "rescaling"]
    wide = rows.pivot_table("cell", keys, "comparison", aggfunc="first").reindex(columns=list(COMPARISONS))
    order = rows[keys].drop_duplicates()
    return order.merge(wide.reset_index(), on=keys, how="left").rename(columns={"name": "measure"}).fillna("")
