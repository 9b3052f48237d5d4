"""The settings of ``sharpness``: what is measured, over which groups of samples, in which balls."""

from dataclasses import dataclass
from typing import Literal

from alignscape.settings import POSITIVE, Only, at_least, setting
from reports.analyses.analysis import samples_setting
from reports.analyses.curvature import Curvature

_BALLS, _NOISE = "worst cases", "noise"
Measure = Literal[
    "trace", "eigenvalue", "rescaled", "sam", "asam", "keskar", "fisher-rao", "relative-flatness", "sigma"
]
ALL: tuple[Measure, ...] = (
    "trace", "eigenvalue", "rescaled", "sam", "asam", "keskar", "fisher-rao", "relative-flatness", "sigma",
)  # fmt: skip
CHOSEN = "--measures {}"


def _with(*measures: str) -> Only:
    """Return that one of these measures is taken."""
    return Only(CHOSEN.format(" or ".join(measures)), lambda one: bool(set(measures) & set(one.measures)))


@dataclass(frozen=True, kw_only=True)
class SharpnessSettings(Curvature):
    """What to measure, and how."""

    samples: int | None = samples_setting(1000, "number of samples, drawn by the seed; at most what the split has")
    at_loss: float | None = setting(
        None,
        "CKPT are run folders: of each take the first checkpoint it kept (train with --checkpoint-every) whose mean "
        "loss on these samples is at most L",
        metavar="L",
        check=POSITIVE,
        default_text="the checkpoint given",
    )
    measures: tuple[Measure, ...] = setting(
        ALL, "what to measure; rescaled: trace and eigenvalue, minimised over rescalings of layers", metavar="NAME"
    )
    groups: int = setting(
        50,
        "groups of samples that the intervals over samples come from; 0: none, which takes less time",
        metavar="N",
        check=at_least(0),
    )
    rho: tuple[float, ...] = setting(
        (0.05, 0.1), "radii of SAM's ball", metavar="R", check=POSITIVE, only=_with("sam"), group=_BALLS
    )
    adaptive_rho: tuple[float, ...] = setting(
        (0.1, 0.5),
        "radii of ASAM's ball, relative to the weights",
        metavar="R",
        check=POSITIVE,
        only=_with("asam"),
        group=_BALLS,
    )
    box: float = setting(
        1e-3,
        "Keskar's eps: half the side of the box, relative to |w| + 1",
        metavar="E",
        check=POSITIVE,
        only=_with("keskar"),
        group=_BALLS,
    )
    steps: int = setting(
        20,
        "steps of ascent to a worst case",
        metavar="N",
        check=at_least(1),
        only=_with("sam", "asam", "keskar"),
        group=_BALLS,
    )
    rise: float = setting(
        0.1, "rise of the mean loss that defines sigma", metavar="L", check=POSITIVE, only=_with("sigma"), group=_NOISE
    )
    draws: int = setting(
        10,
        "pairs of noise of opposite signs",
        metavar="N",
        check=at_least(2),
        only=_with("sigma"),
        group=_NOISE,
    )
    tol: float = setting(
        1e-3,
        "residual |Hv - lambda v| of an eigenvalue to reach, relative to it",
        metavar="R",
        check=POSITIVE,
        only=_with("eigenvalue", "rescaled"),
    )
    trace_tol: float = setting(
        0.05,
        "half-width of a trace's 95 % interval over probes to reach, relative to the trace",
        metavar="R",
        check=POSITIVE,
        only=_with("trace", "rescaled", "relative-flatness"),
    )
    probes: int = setting(
        100,
        "random vectors for each trace at most",
        metavar="N",
        check=at_least(2),
        only=_with("trace", "rescaled", "relative-flatness"),
    )
