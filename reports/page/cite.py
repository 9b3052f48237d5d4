"""What to cite of a page: alignscape, and the sources of the methods whose results are on it, as BibTeX."""

from collections.abc import Iterable
from importlib.metadata import version
from importlib.resources import files

SOURCES = {
    "alignment": ("lillicrap2016", "nokland2016"),
    "hessian": ("pyhessian2020",),
    "spectrum": ("ghorbani2019",),
    "sharpness": ("foret2021", "kwon2021", "keskar2017"),
    "surface": ("li2018",),
    "trajectory": ("li2018", "antognini2018"),
    "attack": ("goodfellow2015", "madry2018", "croce2020", "athalye2018"),
    "corruptions": ("hendrycks2019",),
    "curvature": ("cohen2021",),
}  # by kind of table: keys of references.bib


def references_of(kinds: Iterable[str]) -> list[str]:
    """Return the keys of what the analyses on a page rest on, each once."""
    return list(dict.fromkeys(key for kind in kinds for key in SOURCES.get(kind, ())))


def bibtex(keys: Iterable[str]) -> str:
    """Return the entry of alignscape and those of ``keys``.

    Raises:
        KeyError: there is no such entry.
    """
    text = files("reports.page").joinpath("references.bib").read_text(encoding="utf-8")
    entries = {entry.partition("{")[2].partition(",")[0]: entry.strip() for entry in text.split("\n\n")}
    own = entries["alignscape"].replace("VERSION", version("alignscape"))
    return "\n\n".join([own, *(entries[key] for key in keys)]) + "\n"
