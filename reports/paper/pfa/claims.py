"""What the paper claims, each with the number of each run that decides it; the wording is ours.

How claims are put and judged is the same as for the first paper (``docs/reproduction.md``).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from pandas import DataFrame

from reports.paper import quantities as of
from reports.paper.claim import POINT, Claim, Tables, more, same
from reports.paper.evidence import Evidence, above, within
from reports.paper.groups import DOWN, UP, both, of_group, paired
from reports.paper.judgement import judged_beforehand

MARGIN = 0.5  # percentage points of MNIST within which accuracies count as comparable: FA and BP differ by 0.15
SPARSE = 0.1  # the density that claims compare with 1


def declared(profile: Mapping[str, Any]) -> list[Claim]:
    """Return the claims about the runs of a profile (as JSON), the abstract's first: where seeds do not suffice for
    all of them, they go to the first."""
    return sorted(_claims(profile), key=lambda claim: "abstract" not in claim.section)


def beforehand(profile: Mapping[str, Any]) -> DataFrame:
    """Return which claims the seeds of a profile (as JSON) can decide, as :func:`judged_beforehand` does."""
    return judged_beforehand(declared(profile), profile)


def _claims(profile: Mapping[str, Any]) -> Iterator[Claim]:
    yield from _mnist()
    yield from _sparse()
    yield from _paths()
    yield from _cifar()


def _mnist() -> Iterator[Claim]:
    say: dict[str, Any] = {"statistic": "final test accuracy, percentage points", "table": "mnist"}
    for rule in ("PFA", "PFA-O"):
        words = f"{rule} is comparable to BP on MNIST"
        yield same(words, "abstract, results", _final("mnist"), rule, margin=MARGIN, unit="0.5 points", **say)


def _sparse() -> Iterator[Claim]:
    def at_least_density(tables: Tables) -> DataFrame:
        return _at(tables, SPARSE)

    say: dict[str, Any] = {"statistic": "best test accuracy, percentage points", "table": "sparse"}
    words = f"Sparse feedback (density {SPARSE:g}) costs PFA less than FA"
    yield Claim(words=words, section="abstract, results", groups="FA, PFA", judge=_costs_less, **say)
    kept = f"PFA keeps its accuracy at density {SPARSE:g} (within {MARGIN:g} points)"
    judge = partial(_kept, rule="PFA")
    yield Claim(words=kept, section="results", groups=f"PFA at 1, PFA at {SPARSE:g}", judge=judge, **say)
    better = f"PFA learns better than FA at density {SPARSE:g}"
    yield more(better, "results", at_least_density, "PFA", "FA", relevant=MARGIN, **say)


def _paths() -> Iterator[Claim]:
    say: dict[str, Any] = {"statistic": "angle between W and its path in the last layer, degrees", "table": "mnist"}
    for first, second in (("FA", "PFA"), ("PFA", "PFA-O")):
        words = f"The path of {second} ends nearer to W than that of {first}"
        yield more(words, "results", _last_angle, first, second, relevant=POINT, failed=UP, **say)


def _cifar() -> Iterator[Claim]:
    say: dict[str, Any] = {"statistic": "final test accuracy, percentage points", "table": "cifar"}
    claims = [
        same(f"{rule} is comparable to BP in ResNet-20 on CIFAR-10", "abstract, results", _final("cifar"), rule, **say)
        for rule in ("PFA", "PFA-O")
    ]
    for second in ("FA", "USF"):
        words = f"PFA-O learns better than {second} in ResNet-20 on CIFAR-10"
        claims.append(more(words, "results", _final("cifar"), "PFA-O", second, **say))
    yield from (replace(claim, seeds="cifar_seeds") for claim in claims)


def _final(table: str) -> Callable[[Tables], DataFrame]:
    """Return what gives the final accuracies of a table; none where the table is not there."""
    empty = DataFrame(columns=["rule", "angle", "seed", "value"])
    return lambda tables: of.final(tables[table]) if table in tables else empty


def _last_angle(tables: Tables) -> DataFrame:
    return of.aligned(tables["mnist"], of.layers_of(tables["mnist"])[-1])


def _at(tables: Tables, density: float) -> DataFrame:
    best = of.largest(tables["sparse"], "test_accuracy", "density")
    return best[best["density"] == density]


def _kept(tables: Tables, rule: str) -> Evidence:
    dense, sparse = (of_group(_at(tables, density), rule) for density in (1.0, SPARSE))
    return within(paired(dense, sparse, DOWN), MARGIN) if both(dense, sparse) else Evidence()


def _costs_less(tables: Tables) -> Evidence:
    """Return the evidence that FA loses more than PFA when its feedback becomes sparse, by more than the margin; where
    both lose everything, since their sparse runs failed, they count as equal."""
    dense, sparse = (_at(tables, density) for density in (1.0, SPARSE))
    if not all(both(of_group(dense, rule), of_group(sparse, rule)) for rule in ("FA", "PFA")):
        return Evidence()
    lost = {rule: paired(of_group(dense, rule), of_group(sparse, rule), DOWN) for rule in ("FA", "PFA")}
    with np.errstate(invalid="ignore"):
        more_lost = lost["FA"] - lost["PFA"]
    return above(np.where(np.isnan(more_lost), 0.0, more_lost), MARGIN)
