"""What the page says about each analysis: its heading, how to read it, and which figures it draws."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pandas import DataFrame

from reports import figures
from reports.page.collect import Table


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure of the page."""

    title: str
    caption: str  # what to see in it
    draw: Callable[[DataFrame, Sequence[Table]], Figure]
    applies: Callable[[DataFrame], bool] = lambda frame: True
    saved_as: str = ""  # the name of its PDF and PNG, where no analysis has written them


@dataclass(frozen=True, kw_only=True)
class Section:
    """An analysis on the page."""

    kind: str
    heading: str
    text: str
    drawings: tuple[Drawing, ...]
    companions: tuple[str, ...] = ()  # kinds of tables that are shown with it


def _plain(draw: Callable[[DataFrame], Figure]) -> Callable[[DataFrame, Sequence[Table]], Figure]:
    return lambda frame, tables: draw(frame)


def _has_angles(frame: DataFrame) -> bool:
    angles = [name for name in frame if str(name).startswith("angle_")]
    return bool(angles) and bool(frame[angles].notna().any(axis=None))


def _trajectory(frame: DataFrame, tables: Sequence[Table]) -> Figure:
    return figures.trajectory(frame, planes_beside(tables))


def planes_beside(tables: Sequence[Table]) -> DataFrame | None:
    """Return the loss surfaces (``surface.npz``: alpha (A,), beta (B,), loss (A, B)) beside the trajectories."""
    parts = []
    for table in tables:
        path = table.path.with_name("surface.npz")
        if not path.is_file():
            continue
        with np.load(path, allow_pickle=False) as arrays:
            alpha, beta = np.meshgrid(arrays["alpha"], arrays["beta"], indexing="ij")
            columns = {"alpha": alpha.ravel(), "beta": beta.ravel(), "loss": arrays["loss"].ravel()}
        names = table.frame["checkpoint"].astype(str).unique()
        parts.append(DataFrame(columns).assign(checkpoint=names[0] if len(names) == 1 else table.name))
    return pd.concat(parts, ignore_index=True) if parts else None


SECTIONS = (
    Section(
        kind="metrics",
        heading="Training",
        text="Loss and accuracy after every epoch. Training values are means over the epoch as it went, test values "
        "are measured after it.",
        drawings=(
            Drawing(
                title="Learning curves",
                caption="The lower the loss and the higher the accuracy, the better; the gap between the left and the "
                "right panels is what the network does not carry over to new samples.",
                draw=_plain(figures.metrics),
                saved_as="metrics",
            ),
            Drawing(
                title="Alignment",
                caption="Angle between the forward weights and the feedback weights that carry the error down, per "
                "layer. At 90° they are independent; a fall means that forward weights align with the feedback.",
                draw=_plain(figures.alignment),
                applies=_has_angles,
                saved_as="angles",
            ),
        ),
    ),
    Section(
        kind="alignment",
        heading="Alignment",
        text="Agreement of the forward weights with the matrices that carry the error down, and of the rule's updates "
        "with the true gradient, over training.",
        drawings=(
            Drawing(
                title="Alignment over training",
                caption="At 90° forward and feedback weights are independent; at 0° feedback is backpropagation's. An "
                "update at less than 90° to the gradient lowers the loss; the last layer's always follows it, because "
                "the error is exact there.",
                draw=_plain(figures.alignment),
            ),
        ),
    ),
    Section(
        kind="hessian",
        heading="Curvature",
        text="Trace and top eigenvalues of the true Hessian of the loss (of the plain network, not through feedback "
        "weights), each with its interval.",
        drawings=(
            Drawing(
                title="Hessian trace and top eigenvalues",
                caption="Large values are sharp directions of the loss; a flat minimum has a small trace and a small "
                "top eigenvalue. Where bars do not overlap, networks differ by more than the estimates' error.",
                draw=_plain(figures.hessian),
            ),
        ),
    ),
    Section(
        kind="spectrum",
        heading="Hessian spectrum",
        text="Density of all eigenvalues from stochastic Lanczos quadrature, on an axis that is logarithmic on both "
        "sides of zero. The table holds the raw nodes and weights.",
        drawings=(
            Drawing(
                title="Spectral density",
                caption="The bulk near zero are directions in which the loss hardly changes, the peaks on the right "
                "the few sharp ones; red are directions in which the loss bends down.",
                draw=_plain(figures.spectrum),
            ),
        ),
    ),
    Section(
        kind="trajectory",
        heading="Training trajectory",
        text="The path of the weights in the plane of its first two principal components, with the loss in that plane.",
        drawings=(
            Drawing(
                title="Path of training",
                caption="Explained variance counts only beyond what a random walk of as many steps explains (in "
                "brackets). Where the distance from the plane is large, the contours are not the loss "
                "that training saw.",
                draw=_trajectory,
            ),
        ),
    ),
    Section(
        kind="surface",
        heading="Loss surface",
        text="Loss over the plane through the weights that two directions span (the top two Hessian eigenvectors "
        "unless the command below says otherwise).",
        drawings=(
            Drawing(
                title="Contours",
                caption="The cross is the trained network. Contours that lie close together are steep; all panels "
                "share one colour scale.",
                draw=_plain(figures.surface),
            ),
            Drawing(
                title="The same in three dimensions",
                caption="Height and colour are the loss, on one scale for all panels.",
                draw=_plain(figures.surface_3d),
            ),
        ),
    ),
    Section(
        kind="attack",
        companions=("audit",),
        heading="Adversarial attacks",
        text="Accuracy when every image may be changed by ε to fool the network. Only attacks through the true "
        "gradient, or without one, measure robustness; feedback and transferred gradients are labelled. Where an "
        "audit warns, do not trust the curve.",
        drawings=(
            Drawing(
                title="Accuracy against epsilon",
                caption="A robust network's curve falls late. A curve that stays high under the feedback gradient only "
                "shows that this gradient points nowhere.",
                draw=_plain(figures.attack),
            ),
        ),
    ),
    Section(
        kind="corruptions",
        companions=("corruptions_summary",),
        heading="Common corruptions",
        text="Accuracy on corrupted test images at severities 1 to 5.",
        drawings=(
            Drawing(
                title="Accuracy per corruption and severity",
                caption="Left: each corruption, mean over severities. Right: mean over corruptions, from clean (0) to "
                "most severe.",
                draw=_plain(figures.corruptions),
            ),
            Drawing(
                title="Every cell",
                caption="Accuracy in percent in each cell; dark cells are where the network fails.",
                draw=_plain(figures.corruption_heatmap),
            ),
        ),
    ),
    Section(
        kind="compare",
        heading="Comparison",
        text="Every network against the first. McNemar's test takes the same images in pairs, the rank-sum test the "
        "seeds of a rule as samples; p_holm allows for several tests of one kind, smallest_p is the least that so few "
        "seeds can reach. Rows without a test are plain differences.",
        drawings=(),
    ),
)
