"""The papers whose figures and tables can be made, each with targets and profiles of its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignscape.errors import InputError
from alignscape.settings import settings_of
from reports.paper.catalogue import TARGETS
from reports.paper.numbers import Numbers
from reports.paper.pfa.catalogue import TARGETS as PFA_TARGETS
from reports.paper.pfa.profile import PROFILES as PFA_PROFILES
from reports.paper.profile import PROFILES
from reports.paper.target import Target


@dataclass(frozen=True, kw_only=True)
class Paper:
    """One paper.

    Attributes:
        title: of the paper.
        source: where it is.
        targets: its figures and tables by name, in its order; no two papers share a name.
        profiles: what makes its profile of each size, which all papers have.
        claims: its target that is the table of claims, if it has one.
        beforehand: ``"package.module:function"``, from a profile as JSON to which of the claims can be decided.
    """

    title: str
    source: str
    targets: Mapping[str, Target[Any]]
    profiles: Mapping[str, Callable[[], Numbers]]
    claims: str = ""
    beforehand: str = ""


PAPERS: dict[str, Paper] = {
    "ifa": Paper(
        title="One-Time Soft Alignment Enables Resilient Learning without Weight Transport",
        source="arXiv 2505.20892",
        targets=TARGETS,
        profiles=PROFILES,
        claims="claims",
        beforehand="reports.paper.claims:beforehand",
    ),
    "pfa": Paper(
        title="Deep Learning without Weight Symmetry",
        source="arXiv 2405.20594",
        targets=PFA_TARGETS,
        profiles=PFA_PROFILES,
        claims="pfa-claims",
        beforehand="reports.paper.pfa.claims:beforehand",
    ),
}
FIRST = "ifa"  # whose targets are meant where none are named


def all_targets() -> dict[str, Target[Any]]:
    """Return the targets of every paper by name."""
    return {name: target for paper in PAPERS.values() for name, target in paper.targets.items()}


def chosen(names: Sequence[str] | None, paper: str | None) -> dict[str, list[Target[Any]]]:
    """Return the targets called ``names`` by paper, in the order of the papers and of their figures.

    Args:
        names: of any paper, or of ``paper`` where that is given; None: all of it.
        paper: a name of :data:`PAPERS`; None: the one that has the name, or the first paper where there are no names.

    Raises:
        InputError: a name is unknown; the message lists the known ones.
    """
    among = {name: PAPERS[name] for name in ([paper] if paper else PAPERS if names is not None else [FIRST])}
    known = [target for one in among.values() for target in one.targets]
    if unknown := [name for name in names or () if name not in known]:
        raise InputError(f"unknown target {', '.join(unknown)}; known: {', '.join(known)}")
    found = {
        name: [target for target in one.targets.values() if names is None or target.name in names]
        for name, one in among.items()
    }
    return {name: targets for name, targets in found.items() if targets}


def profiles_of(papers: Sequence[str], size: str, settings: Sequence[str]) -> dict[str, Numbers]:
    """Return the profile of each of these papers, with ``NAME=VALUE`` settings applied to each that has the name.

    Raises:
        InputError: a name that none of them has, or a value of another kind than the one it replaces.
    """
    made = {name: PAPERS[name].profiles[size]() for name in papers}
    known = {name: settings_of(type(profile)) for name, profile in made.items()}
    names = {words: words.partition("=")[0] for words in settings}
    strange = [words for words, name in names.items() if not any(name in of for of in known.values())]
    return {
        paper: profile.changed([*strange, *(words for words in settings if names[words] in known[paper])])
        for paper, profile in made.items()
    }  # what no paper has is refused by the first
