"""From claims to their table: the evidence of each, and a verdict by a rule stated beforehand.

Nothing here is typed in: every number comes from the tables of the runs. The rules of the verdict are in
``docs/reproduction.md``.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pandas import DataFrame

from reports.paper.claim import Claim, Tables
from reports.paper.evidence import Evidence
from reports.paper.verdicts import corrected, decidable, verdict


def judged(claims: Sequence[Claim], tables: Tables) -> DataFrame:
    """Return one row a claim, in their order; where seeds do not suffice for all of them, they go to the first."""
    found = [claim.judge(tables) for claim in claims]
    tested = decidable([one.n for one in found])
    holm, against = corrected(found, tested)
    return DataFrame(
        [
            {**_row(claim, one), "p_holm": p, "p_against_holm": opposite, "can_be_decided": chosen,
             "verdict": verdict(p, opposite)}
            for claim, one, p, opposite, chosen in zip(claims, found, holm, against, tested, strict=True)
        ]
    )  # fmt: skip


def judged_beforehand(claims: Sequence[Claim], profile: Mapping[str, Any]) -> DataFrame:
    """Return which of the claims the seeds of a profile (as JSON) can decide: columns ``claim, groups, section, seeds,
    least_p_holm, can_be_decided``."""
    seeds = [len(profile[claim.seeds]) for claim in claims]
    tested = decidable(seeds)
    rows = [
        {"claim": claim.words, "groups": claim.groups, "section": claim.section, "seeds": count,
         "least_p_holm": sum(tested) * 0.5**count if chosen else math.nan, "can_be_decided": chosen}
        for claim, count, chosen in zip(claims, seeds, tested, strict=True)
    ]  # fmt: skip
    return DataFrame(rows)


def _row(claim: Claim, one: Evidence) -> dict[str, object]:
    identity = {"claim": claim.words, "section": claim.section, "statistic": claim.statistic, "groups": claim.groups}
    names = (
        "weakest",
        "value",
        "ci_low",
        "ci_high",
        "ci_level",
        "effect_size",
        "effect_low",
        "effect_high",
        "n",
        "p",
        "p_against",
    )
    return {**identity, **{name: getattr(one, name) for name in names}}


def printed(table: DataFrame) -> DataFrame:
    """Return the table of claims with the columns that a page has room for."""
    low, high = table["ci_low"], table["ci_high"]
    found = [_with_interval(*numbers) for numbers in zip(table["value"], low, high, strict=True)]
    p = ["" if np.isnan(one) else "< 0.001" if one < 0.001 else f"{one:.3f}" for one in table["p_holm"]]
    numbers = {"difference": found, "p": p, "seeds": table["n"]}
    return DataFrame({"claim": table["claim"], **numbers, "verdict": table["verdict"]})


def _with_interval(value: float, low: float, high: float) -> str:
    if np.isnan(value):
        return ""
    return f"{value:.2f}" + ("" if np.isnan(low) or np.isnan(high) else f" [{low:.2f}, {high:.2f}]")
