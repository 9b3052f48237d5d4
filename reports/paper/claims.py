"""The table of claims of the first paper, which are in :mod:`reports.paper.stated`."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from pandas import DataFrame

from reports.paper.claim import Tables
from reports.paper.judgement import judged, judged_beforehand
from reports.paper.stated import Scope, declared
from reports.paper.verdicts import COUNTED


def claims_table(
    tables: Tables, *, accesses: Mapping[str, float], chance: float = 0.1, eps: float | None = None
) -> DataFrame:
    """Return one row a claim.

    Args:
        tables: ``sweep`` (metrics of all networks), ``curvature`` (Hessians over epochs), ``hessian``, ``spectrum``,
            ``lengths``, ``corruptions`` and ``severities`` (means), ``cells``, ``attacked`` and ``radius`` (curves and
            radii of the strong attack); where there are ``variances, depths, sizes, networks, datasets``.
        accesses: memory accesses of one update by rule, and ``shared``, those of any rule with one shared memory.
        chance: accuracy of a guess.
        eps: at which accuracy under attack is judged; None: nowhere.
    """
    found = judged(declared(Scope.of_tables(tables, chance, eps)), tables)
    return pd.concat([found, DataFrame(_accesses(accesses))], ignore_index=True)


def _accesses(accesses: Mapping[str, float]) -> Iterator[dict[str, object]]:
    """Yield the counts: ratios, and under which hardware they are so; no verdict, because a count cannot fail."""
    about = {"section": "4.1", "groups": "BP / IFA", "weakest": "", "can_be_decided": False, "verdict": COUNTED, "n": 0}
    statistic = "ratio of values read and written by one update, counted from layer shapes"
    kinds = {"separate memories for the two directions": accesses["bp"], "one shared memory": accesses["shared"]}
    for hardware, count in kinds.items():
        yield {"claim": f"Memory accesses of BP against those of IFA, {hardware}", "statistic": statistic, **about,
               "value": count / accesses["ifa" if hardware.startswith("sep") else "shared"]}  # fmt: skip


def beforehand(profile: Mapping[str, Any]) -> DataFrame:
    """Return which claims the seeds of a profile (as JSON) can decide, as :func:`judged_beforehand` does."""
    return judged_beforehand(declared(Scope.of_profile(profile)), profile)
