"""The figures: what is drawn is what the table says, every axis is named, and no text is cut off or covered."""

import functools
import itertools
import subprocess
import sys

import figure_frames as frames
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from PIL import Image, ImageSequence
from skimage.color import deltaE_ciede2000, rgb2lab

from alignscape.errors import InputError
from reports import figures, style
from reports.figures import planes
from reports.figures.groups import relative
from reports.figures.series import over_seeds, series_of, short_names

ATTACKS = (("fgsm", "true"), ("pgd", "true"), ("pgd", "feedback"), ("square", "none"))


def common_plane(nets):
    return frames.surface(nets[:1], reach=2.5).assign(checkpoint="plane")[["checkpoint", "alpha", "beta", "loss"]]


def by_angle(seeds):
    """Two quantities of BP, FA and IFA at ten angles, with ``seeds`` seeds."""
    nets = pd.DataFrame(frames.networks(12, seeds))
    angle = nets["angle"].fillna(nets["rule"].map({"bp": 0.0, "fa": 90.0}))
    parts = {
        "test accuracy (%)": 60 - 0.2 * angle + nets["seed"],
        "Hessian trace": 10 ** (3 - angle / 45) + nets["seed"],
    }
    return pd.concat([nets.assign(quantity=name, value=values) for name, values in parts.items()])


# name -> (drawing, number of panels with data)
def on_noise(numbers: tuple[int, ...], seeds: int) -> pd.DataFrame:
    """The metrics of fa after so many epochs on noise."""
    runs = []
    for noise in numbers:
        for seed in range(seeds):
            epoch = np.arange(-noise, 6)
            learnt = 90 - 50 * np.exp(-(epoch.clip(0) + noise / 2 + seed / 9))
            accuracy = np.where(epoch > 0, learnt / 100, 0.1)
            run = {"checkpoint": f"fa-noise{noise}-seed{seed}", "rule": "fa", "seed": seed, "epoch": epoch}
            angles = {f"angle_layers.{i}": 90 - i * (epoch + noise) for i in (1, 2)}
            runs.append(pd.DataFrame({**run, "test_accuracy": accuracy, **angles}))
    return pd.concat(runs, ignore_index=True)


CASES = {
    "metrics, 1": (lambda: figures.metrics(frames.metrics(frames.networks(1))), 4),
    "metrics, 6, one diverged": (lambda: figures.metrics(frames.metrics(frames.networks(6), diverged=3)), 4),
    "metrics, 12 x 3 seeds": (lambda: figures.metrics(frames.metrics(frames.networks(12, 3))), 4),
    "monitored, 1": (lambda: figures.monitored(frames.monitored(frames.networks(1))), 5),
    "monitored, 6, adam": (lambda: figures.monitored(frames.monitored(frames.networks(6), adam=True)), 8),
    "monitored, 12 x 3 seeds": (lambda: figures.monitored(frames.monitored(frames.networks(12, 3), points=9)), 7),
    "alignment, 1": (lambda: figures.alignment(frames.metrics(frames.networks(6)[3:4])), 2),
    "alignment, 6": (lambda: figures.alignment(frames.metrics(frames.networks(6))), 2),
    "hessian, 1": (lambda: figures.hessian(frames.hessian(frames.networks(1))), 2),
    "hessian, 12 x 3 seeds": (lambda: figures.hessian(frames.hessian(frames.networks(12, 3))), 2),
    "hessian, epochs": (lambda: figures.hessian(frames.hessian(frames.networks(6), epochs=[0, 1, 2, 5, 10])), 2),
    "hessian, no rule": (lambda: figures.hessian(frames.hessian(frames.anonymous(3))), 2),
    "groups, 1": (lambda: figures.hessian_groups(frames.by_group(frames.networks(1), ("a", "b"))), 2),
    "groups, 3 x 2 seeds": (lambda: figures.hessian_groups(frames.by_group(frames.networks(3, 2), tuple("abcdef"))), 2),
    "spectrum, 1": (lambda: figures.spectrum(frames.spectrum(frames.networks(1))), 2),
    "spectrum, 6": (lambda: figures.spectrum(frames.spectrum(frames.networks(6), probes=4)), 7),
    "spectrum, 12": (lambda: figures.spectrum(frames.spectrum(frames.networks(12), probes=3)), 13),
    "sharpness, 1": (lambda: figures.sharpness(frames.sharpness(frames.networks(1))), 2),
    "sharpness, 6 x 3 seeds": (lambda: figures.sharpness(frames.sharpness(frames.networks(6, 3), (0.05, 0.1))), 2),
    "sharpness, no rule": (lambda: figures.sharpness(frames.sharpness(frames.anonymous(3))), 2),
    "gap, 1": (lambda: figures.gap(frames.gap(1, ("all",))), 2),
    "gap, 20": (lambda: figures.gap(frames.gap(20)), 2),
    "surface, 1": (lambda: figures.surface(frames.surface(frames.networks(1))), 1),
    "surface, 6 with a hole": (lambda: figures.surface(frames.surface(frames.networks(6), hole=True)), 6),
    "surface, 12": (lambda: figures.surface(frames.surface(frames.networks(12))), 12),
    "surface, one point": (lambda: figures.surface(frames.surface(frames.networks(1), points=1)), 1),
    "surface_3d, 1": (lambda: figures.surface_3d(frames.surface(frames.networks(1))), 1),
    "surface_3d, 6": (lambda: figures.surface_3d(frames.surface(frames.networks(6))), 6),
    "surface_3d, 12": (lambda: figures.surface_3d(frames.surface(frames.networks(12), points=11)), 12),
    "trajectory, 1": (
        lambda: figures.trajectory(
            frames.trajectory(frames.networks(1)), frames.surface(frames.networks(1), reach=2.5)
        ),
        3,
    ),
    "trajectory, 3 in one plane": (
        lambda: figures.trajectory(frames.trajectory(frames.networks(3)), common_plane(frames.networks(1))),
        3,
    ),
    "trajectory, 6": (
        lambda: figures.trajectory(
            frames.trajectory(frames.networks(6)), frames.surface(frames.networks(6), reach=2.5)
        ),
        8,
    ),
    "trajectory, no surface": (lambda: figures.trajectory(frames.trajectory(frames.networks(2))), 3),
    "radius, 2": (lambda: figures.radius(frames.radius(frames.networks(2))), 2),
    "attack, 1": (lambda: figures.attack(frames.attack(frames.networks(1), kinds=ATTACKS[:1])), 1),
    "attack, 6": (lambda: figures.attack(frames.attack(frames.networks(6), kinds=ATTACKS)), 4),
    "attack, 12": (lambda: figures.attack(frames.attack(frames.networks(12))), 2),
    "masking, 2": (lambda: figures.masking(frames.transfer(frames.networks(2))), 3),
    "masking, 6": (
        lambda: figures.masking(
            frames.transfer(frames.networks(6)), frames.attack(frames.networks(6), kinds=WAYS_TRIED)
        ),
        7,
    ),
    "corruptions, 1": (lambda: figures.corruptions(frames.corruptions(frames.networks(1))), 2),
    "corruptions, 12 x 2 seeds": (lambda: figures.corruptions(frames.corruptions(frames.networks(12, 2))), 2),
    "against angle, 1": (lambda: figures.against_angle(by_angle(1)), 2),
    "against angle, 3 seeds": (lambda: figures.against_angle(by_angle(3)), 2),
    "noise, 1": (lambda: figures.noise_pretraining(on_noise((4,), 1)), 3),
    "noise, 3 x 3 seeds": (lambda: figures.noise_pretraining(on_noise((0, 2, 4), 3)), 3),
    "heat map, 1": (lambda: figures.corruption_heatmap(frames.corruptions(frames.networks(1))), 1),
    "heat map, 12": (lambda: figures.corruption_heatmap(frames.corruptions(frames.networks(12))), 12),
}


WAYS_TRIED = (
    *(("fgsm", "true"), ("strong", "true"), ("auto", "true"), ("square", "none"), ("strong", "feedback")),
    ("worst case", "true"),
)
DEAR = {"spectrum, 12", "surface_3d, 12", "heat map, 12"}
PARAMETERS = [pytest.param(case, marks=[pytest.mark.slow] if case in DEAR else []) for case in CASES]


@functools.cache
def drawn(case: str) -> Figure:
    return CASES[case][0]()


def panels(figure: Figure):
    """Return the visible axes that are not colour bars."""
    return [axes for axes in figure.get_axes() if axes.get_visible() and axes.get_label() != "<colorbar>"]


def texts_on_paper(figure: Figure):
    """Draw the figure and return every text that is drawn, with its box in pixels."""
    found = []
    original = Text.draw

    def record(self, renderer, *args, **kwargs):
        if self.get_visible() and self.get_text().strip():
            found.append((self.get_text(), self.get_window_extent(renderer), self))
        return original(self, renderer, *args, **kwargs)

    Text.draw = record
    try:
        FigureCanvasAgg(figure).draw()
    finally:
        Text.draw = original
    return found


@pytest.mark.parametrize("case", PARAMETERS)
def test_every_panel_has_data_and_named_axes(case):
    figure, count = drawn(case), CASES[case][1]
    assert len(panels(figure)) == count
    sides = {"x": set(), "y": set()}
    for axes in panels(figure):
        assert axes.has_data(), axes.get_title(loc="left")
        for side, label in (("x", axes.get_xlabel()), ("y", axes.get_ylabel())):
            sides[side].add(label)
    assert sides["x"] - {""}, "no x axis is named"
    named_rows = sides["y"] - {""} or {t.get_text() for axes in panels(figure) for t in axes.get_yticklabels()} - {""}
    assert named_rows, "neither a y label nor names on the y axis"
    for axes in panels(figure):  # a panel without a label of its own shares the axis of one that has it
        spec = axes.get_subplotspec()
        if not axes.get_xlabel() and spec is not None:
            column = spec.colspan.start
            below = [a for a in panels(figure) if a.get_subplotspec().colspan.start == column]
            assert any(a.get_xlabel() for a in below), "a column of panels has no x label"


@pytest.mark.parametrize("case", PARAMETERS)
def test_no_text_is_clipped_or_covered(case):
    figure = drawn(case)
    page = figure.bbox
    found = texts_on_paper(figure)
    for text, box, _ in found:
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= page.x1 + 1 and box.y1 <= page.y1 + 1
        assert inside, f"{text!r} is cut off at the edge"
    if case.startswith("surface_3d"):
        return  # boxes of slanted axis labels overlap where their glyphs do not
    for (text, box, _), (other, other_box, _) in itertools.combinations(found, 2):
        wide = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
        high = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
        assert wide < 1.5 or high < 1.5, f"{text!r} and {other!r} overlap"


@pytest.mark.parametrize("case", PARAMETERS)
def test_no_legend_covers_a_panel(case):
    figure = drawn(case)
    assert all(axes.get_legend() is None for axes in figure.get_axes())
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert not any(box.overlaps(axes.get_window_extent()) for axes in panels(figure))


def test_the_overlap_check_sees_an_overlap():
    figure = Figure(figsize=(2, 1))
    figure.text(0.5, 0.5, "one text")
    figure.text(0.52, 0.5, "another")
    boxes = [box for _, box, _ in texts_on_paper(figure)]
    assert len(boxes) == 2
    assert boxes[0].overlaps(boxes[1])


def test_attack_draws_the_table():
    table = frames.attack(frames.networks(2), kinds=(("pgd", "feedback"),))
    (axes,) = panels(figures.attack(table))
    assert "PGD" in axes.get_title(loc="left")
    assert "feedback" in axes.get_title(loc="left")
    bands = [band for band in axes.collections if isinstance(band, PolyCollection)]
    for (_, rows), line, band in zip(table.groupby("checkpoint", sort=False), axes.lines, bands, strict=True):
        np.testing.assert_allclose(line.get_xdata(), rows["eps"])
        np.testing.assert_allclose(line.get_ydata(), 100 * rows["accuracy"])
        vertices = band.get_paths()[0].vertices
        for edge in ("ci_low", "ci_high"):
            wanted = np.column_stack([rows["eps"], 100 * rows[edge]])
            assert all(np.abs(vertices - point).sum(1).min() < 1e-9 for point in wanted)


def test_masking_draws_the_lowest_of_each_way_and_the_matrix():
    nets = frames.networks(3)
    figure = figures.masking(frames.transfer(nets), frames.attack(nets, kinds=WAYS_TRIED))
    *each, matrix = panels(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        *("feedback, B at the first layer", "another's gradient", "no gradient", "true gradient", "AutoAttack")
    ]
    bars = {bar.lines[0].get_color(): bar.lines[0].get_ydata() for bar in each[0].containers}
    colour = {text.get_text(): line.get_color() for text, line in zip(figure.legends[0].get_texts(),
              figure.legends[0].legend_handles, strict=True)}  # fmt: skip
    assert bars[colour["another's gradient"]].tolist() == pytest.approx([50, 45, 45])  # the last of the other two
    assert bars[colour["true gradient"]][-1] == pytest.approx(50 * np.exp(-48 * 0.05))  # the lower of two attacks
    shown = np.array([float(text.get_text()) for text in matrix.texts]).reshape(3, 3)
    assert np.diag(shown).tolist() == [30, 30, 30]
    assert shown[0, 1:].tolist() == [47, 45]


def test_attack_names_every_gradient_mode():
    kinds = [("pgd", mode) for mode in ("true", "feedback", "transfer", "none")]
    table = frames.attack(frames.networks(1), kinds=kinds)
    titles = " ".join(axes.get_title(loc="left") for axes in panels(figures.attack(table)))
    assert all(word in titles for word in ("true gradient", "feedback gradient", "transferred", "gradient-free"))


def test_norms_and_raw_curves_are_panels_of_their_own():
    table = frames.attack(frames.networks(2), kinds=(("pgd", "true"),)).assign(norm="linf", curve="nested")
    table = pd.concat([table, table.assign(norm="l2"), table.assign(curve="raw")])
    found = [(axes.get_title(loc="left"), axes.get_xlabel()) for axes in panels(figures.attack(table))]
    assert [title.split("  ")[1] for title, _ in found] == [
        "PGD, true gradient", "PGD, true gradient, L2", "PGD, true gradient, last iterate",
    ]  # fmt: skip
    assert ["L2" in label for _, label in found] == [False, True, False]


def test_hessian_draws_values_and_intervals():
    table = frames.hessian(frames.networks(1))
    trace, eigenvalues = panels(figures.hessian(table))
    for axes, quantity in ((trace, "trace"), (eigenvalues, "eigenvalue")):
        rows = table[table["quantity"] == quantity]
        assert len(axes.containers) == len(rows)
        for bar, value, low, high in zip(axes.containers, rows.value, rows.ci_low, rows.ci_high, strict=True):
            (segment,) = bar.lines[2][0].get_segments()
            np.testing.assert_allclose(np.asarray(segment, float)[:, 0], [low, high])
            np.testing.assert_allclose(np.asarray(bar.lines[0].get_xdata(), float), [value])


def test_hessian_says_that_a_network_diverged():
    table = frames.hessian(frames.networks(2))
    table.loc[table["rule"] == "ifa", ["value", "ci_low", "ci_high"]] = np.nan
    for axes in panels(figures.hessian(table)):
        assert [text.get_text() for text in axes.texts] == ["not finite: the run diverged"]


def test_hessian_axis_is_symmetric_logarithmic_where_values_are_negative_and_spread():
    table = frames.hessian(frames.networks(1), k=3)
    table.loc[table["quantity"] == "eigenvalue", "value"] = [200.0, 1.0, -20.0]
    assert [axes.get_xscale() for axes in panels(figures.hessian(table))] == ["linear", "symlog"]


def test_seeds_are_drawn_as_mean_and_standard_deviation():
    table = frames.metrics(frames.networks(1, seeds=3))
    axes = panels(figures.metrics(table))[1]
    by_epoch = table.groupby("epoch")["test_loss"]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), by_epoch.mean())
    edges = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert np.isclose(edges.max(), (by_epoch.mean() + by_epoch.std()).max())


def test_the_number_of_seeds_is_told_once_if_it_is_the_same_for_all():
    def words(table):
        return [text for text, *_ in texts_on_paper(figures.attack(table))]

    same = frames.attack(frames.networks(2, seeds=3))
    assert any("over 3 seeds" in text for text in words(same))
    assert "BP" in words(same)
    mixed = same[(same["rule"] == "bp") | (same["seed"] < 2)]
    assert {"BP (3 seeds)", "IFA 0° (2 seeds)"} <= set(words(mixed))


def test_a_diverged_run_ends_in_a_cross_and_is_named():
    figure = drawn("metrics, 6, one diverged")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "FA, diverged at epoch 6" in labels
    crosses = [line for line in panels(figure)[0].lines if line.get_marker() == "x"]
    assert [float(line.get_xdata()[0]) for line in crosses] == [5.0]


def test_alignment_draws_degrees_below_a_line_at_ninety():
    table = frames.metrics(frames.networks(6))
    axes = panels(figures.alignment(table))[0]
    assert "°" in axes.get_ylabel()
    assert list(axes.lines[0].get_ydata()) == [90, 90]
    rows = table[(table["rule"] == "ifa") & (table["angle"] == 45)]
    assert any(
        np.allclose(line.get_ydata(), rows["angle_layers.1"]) for line in axes.lines if len(line.get_ydata()) > 2
    )


def test_alignment_panels_are_a_row_per_quantity():
    table = frames.metrics(frames.networks(2))
    for layer in ("layers.1", "layers.2"):
        table[f"norm_ratio_{layer}"] = np.where(table["rule"] == "ifa", 1.0, np.nan)
    found = [(axes.get_title(loc="left")[-8:], axes.get_ylabel()[:4]) for axes in panels(figures.alignment(table))]
    assert found == [("layers.1", "angl"), ("layers.2", ""), ("layers.1", "norm"), ("layers.2", "")]
    first, second = panels(figures.alignment(table))[:2]
    assert first.get_ylim() == second.get_ylim(), "the scale is written once for a row"
    letters = [axes.get_title(loc="left")[5] for axes in panels(figures.alignment(table))]
    assert "".join(letters) == "abcd"


def test_names_of_layers_stay_in_their_columns():
    """Six panels share the width: their titles end before the next begins."""
    names = [f"layer{i}.0.downsample.{i}" for i in range(9)]
    table = pd.concat(
        [
            pd.DataFrame({"checkpoint": "a", "rule": "fa", "epoch": [0, 1], "layer": name, "row_angle": 90.0,
                          "gradient_cosine": 0.5}) for name in (*names, "all")
        ]
    )  # fmt: skip
    figure = figures.alignment(table)
    figure.canvas.draw()
    titles = [axes._left_title.get_window_extent() for axes in panels(figure)]
    for one, following in itertools.pairwise(titles):
        if following.x0 > one.x0:
            assert one.x1 < following.x0
    assert max(title.x1 for title in titles) <= figure.bbox.x1


def test_alignment_of_backpropagation_alone_is_an_input_error():
    with pytest.raises(InputError, match="feedback weights"):
        figures.alignment(frames.metrics(frames.networks(1)).assign(angle_layers=np.nan))


def test_spectral_density_integrates_to_the_weight_away_from_zero():
    table = frames.spectrum(frames.networks(1), probes=3)
    axes = panels(figures.spectrum(table))[0]
    shares, edges, _ = axes.patches[0].get_data()
    at_zero = table.loc[table["node"] == 0, "weight"].sum() / 3
    assert shares.sum() == pytest.approx(100 * (1 - at_zero))
    below = table.loc[table["node"] < 0, "weight"].sum() / 3
    assert shares[edges[:-1] < 0].sum() == pytest.approx(100 * below)
    assert f"{100 * below:.2g} % below 0; {100 * at_zero:.2g} % at 0" in axes.get_title(loc="left")


def test_no_bar_stands_where_no_node_lies():
    """Bars are as wide for one spectrum as for another, and red only where there is a negative node."""
    wide = frames.spectrum(frames.networks(1), probes=2)
    narrow = wide.assign(node=wide["node"].abs() / 100, checkpoint="narrow", rule="fa")
    found = panels(figures.spectrum(pd.concat([wide, narrow])))[:2]
    edges = [axes.patches[0].get_data().edges for axes in found]
    np.testing.assert_array_equal(*edges)
    np.testing.assert_allclose(np.diff(np.arcsinh(edges[0] / _linear_width(found[0]))), edges_step(found[0]), rtol=1e-6)
    for axes, nodes in zip(found, (wide["node"], narrow["node"]), strict=True):
        shares, at, _ = axes.patches[0].get_data()
        occupied = np.histogram(nodes, at)[0] > 0
        assert not (shares[~occupied] > 1e-9).any()
    negative, *_ = panels(figures.spectrum(pd.concat([wide, narrow])))[1].patches[-1].get_data()
    assert (negative < 1e-9).all()


def _linear_width(axes):
    return axes.xaxis.get_transform().linear_width


def edges_step(axes):
    edges = axes.patches[0].get_data().edges
    return np.ptp(np.arcsinh(edges / _linear_width(axes))) / (len(edges) - 1)


def test_a_node_that_lies_at_zero_by_accident_is_no_mass_at_zero():
    table = frames.spectrum(frames.networks(1), probes=3)
    table = table[(table["node"] != 0) | (table["probe"] == 0)]
    axes = panels(figures.spectrum(table))[0]
    assert "at 0: at most" in axes.get_title(loc="left")
    assert not any(list(line.get_xdata()) == [0, 0] for line in axes.lines)


def test_nodes_beside_zero_leave_open_what_lies_below_it():
    """A kernel whose node came to lie at -0.001 is not told as 70 % of the directions bending down."""
    nodes, weights = np.array([-0.1, -0.001, 0.5, 9.0]), np.array([0.1, 0.7, 0.15, 0.05])
    table = pd.DataFrame({"checkpoint": "a", "probe": 0, "node": nodes, "weight": weights, "n_parameters": 900})
    figure = figures.spectrum(table)
    assert "10 to 95 % below 0" in panels(figure)[0].get_title(loc="left")
    assert any("may stand for zeros" in text.get_text() for text in figure.texts)
    positive = figures.spectrum(table.assign(node=nodes + 1))
    assert "\n0 % below 0" in panels(positive)[0].get_title(loc="left")


def test_cumulative_weight_jumps_by_the_mass_at_zero_and_ends_at_all():
    table = frames.spectrum(frames.networks(1), probes=3)
    line = panels(figures.spectrum(table))[1].lines[0]
    x, y = line.get_xdata(), line.get_ydata()
    jump = np.interp(2e-4, x, y) - np.interp(-2e-4, x, y)
    near = table.loc[table["node"] == 0, "weight"].sum() / 3
    assert jump == pytest.approx(100 * near, abs=0.05)
    assert near > 0.4
    assert (y[0], y[-1]) == pytest.approx((0, 100))


def test_spectrum_shows_small_negative_eigenvalues_beside_large_ones():
    nodes = np.array([-0.02, 0.0, 0.5, 200.0])
    table = pd.DataFrame(
        {"checkpoint": "a", "probe": 0, "node": nodes, "weight": [0.1, 0.5, 0.3, 0.1], "n_parameters": 9}
    )
    axes, _ = panels(figures.spectrum(table))
    assert axes.get_xscale() == "asinh"
    assert axes.get_xlim()[0] < -0.02
    assert "10 % below 0" in axes.get_title(loc="left")
    assert "50 % at 0" in axes.get_title(loc="left")
    assert any(list(line.get_xdata()) == [0, 0] for line in axes.lines), "no stem for the mass at zero"


def test_spectra_of_several_seeds_are_drawn_as_their_mean_and_spread():
    table = frames.spectrum(frames.networks(1, seeds=3), probes=2)
    axes = panels(figures.spectrum(table))[0]
    shares, edges, _ = axes.patches[0].get_data()
    away = table[table["node"] != 0]
    values = [np.histogram(rows["node"], edges, weights=rows["weight"] / 2)[0] for _, rows in away.groupby("seed")]
    np.testing.assert_allclose(shares, 100 * np.mean(values, axis=0), atol=1e-9)
    assert len(values) == 3


def test_surface_axes_are_not_swapped():
    """Loss that depends on alpha only: every contour line is vertical and lies where the loss has its level."""
    table = frames.surface(frames.networks(1))
    table["loss"] = 2 + table["alpha"]
    (axes,) = panels(figures.surface(table))
    filled, lines = axes.collections[:2]
    levels = lines.levels
    for level, path in zip(levels, lines.get_paths(), strict=True):
        if len(path.vertices) and table["loss"].min() < level < table["loss"].max():
            np.testing.assert_allclose(path.vertices[:, 0], level - 2, atol=1e-6)
            assert np.ptp(path.vertices[:, 1]) == pytest.approx(2)
    assert filled.levels[0] == pytest.approx(1)


def test_surface_grid_keeps_holes_as_nan():
    table = frames.surface(frames.networks(1), points=5, hole=True)
    alpha, beta, loss = planes.grid_of(table)
    assert loss.shape == (len(beta), len(alpha))
    wanted = (alpha[None, :] > 0.6) & (beta[:, None] > 0.6)
    np.testing.assert_array_equal(np.isnan(loss), wanted)


def test_surfaces_share_one_colour_scale():
    figure = drawn("surface, 6 with a hole")
    levels = [axes.collections[0].levels for axes in panels(figure)]
    assert all(np.array_equal(level, levels[0]) for level in levels)


def test_trajectory_draws_the_path_and_the_explained_variance():
    path = frames.trajectory(frames.networks(1))
    plane, off, loss = panels(figures.trajectory(path, frames.surface(frames.networks(1), reach=2.5)))
    assert plane.get_xlabel() == "PC 1: 82.0 % [60.8 %]"
    full = [line for line in plane.lines if len(line.get_xdata()) == len(path)]
    assert full
    assert all(np.allclose(line.get_xdata(), path["alpha"]) for line in full)
    np.testing.assert_allclose(off.lines[0].get_ydata(), path["off_plane"])
    np.testing.assert_allclose(loss.lines[0].get_ydata(), path["loss"])
    np.testing.assert_allclose(loss.lines[1].get_ydata(), path["plane_loss"])


def test_corruptions_are_ordered_by_category_and_averaged():
    table = frames.corruptions(frames.networks(1)).sample(frac=1, random_state=0)
    dots, lines = panels(figures.corruptions(table))
    names = [label.get_text() for label in dots.get_yticklabels()]
    assert set(names[:3]) == {"gaussian noise", "shot noise", "impulse noise"}
    assert set(names[11:]) == {"contrast", "elastic transform", "pixelate", "jpeg compression"}
    cells = table[table["severity"] > 0]
    means = cells.groupby("corruption")["accuracy"].mean()
    for place, bar in enumerate(dots.containers):
        wanted = 100 * means[names[place].replace(" ", "_")]
        assert bar.lines[0].get_xdata()[0] == pytest.approx(wanted)
    by_severity = table.groupby("severity")["accuracy"].mean()
    np.testing.assert_allclose(lines.lines[0].get_ydata(), 100 * by_severity)
    assert lines.get_xlabel() == "severity (0: clean)"


def test_heatmap_shows_every_cell():
    table = frames.corruptions(frames.networks(1))
    (axes,) = panels(figures.corruption_heatmap(table))
    image = next(child for child in axes.get_children() if isinstance(child, AxesImage))
    assert image.get_array().shape == (15, 5)
    cell = table[(table["corruption"] == "shot_noise") & (table["severity"] == 4)]["accuracy"].iloc[0]
    assert image.get_array()[1, 3] == pytest.approx(100 * cell)
    assert len(axes.texts) == 75


def test_against_angle_draws_means_and_the_rules_that_have_no_angle():
    table = by_angle(3)
    axes = panels(figures.against_angle(table))[0]
    assert axes.get_ylabel() == "test accuracy (%)"
    ifa = table[(table["quantity"] == "test accuracy (%)") & (table["rule"] == "ifa")]
    line = next(line for line in axes.lines if list(line.get_xdata()) == list(range(0, 100, 10)))
    np.testing.assert_allclose(line.get_ydata(), ifa.groupby("angle")["value"].mean())
    levels = {float(line.get_ydata()[0]) for line in axes.lines if list(line.get_xdata()) == [0, 1]}
    assert levels == {61.0, 43.0}
    assert [text.get_text() for text in axes.figure.legends[0].get_texts()] == ["IFA", "BP", "FA"]
    bars = [bar.lines[2][0].get_segments()[0] for bar in axes.containers]
    assert all(np.ptp(np.asarray(bar, float)[:, 1]) == pytest.approx(2) for bar in bars), "two standard deviations"


def test_learning_from_noise_has_a_line_for_each_number_of_epochs():
    figure = figures.noise_pretraining(on_noise((4, 0), 2))
    accuracy, first, _ = panels(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["FA, no noise", "FA, 4 epochs on noise"]
    lines = [line for line in first.lines if len(line.get_xdata()) > 2]
    assert [line.get_xdata()[0] for line in lines] == [0, -4]
    assert [line.get_ydata()[-1] for line in lines] == [85, 81], "epoch 5"
    assert max(accuracy.lines[0].get_ydata()) > 50, "in percent"
    with pytest.raises(InputError, match="no column angle_LAYER"):
        figures.noise_pretraining(on_noise((4,), 1)[["checkpoint", "epoch", "test_accuracy"]])


@pytest.mark.parametrize("name", [name for name in figures.__all__ if name not in ("trajectory_gif", "against_angle")])
def test_missing_columns_are_named(name):
    with pytest.raises(InputError, match="lacks the column"):
        getattr(figures, name)(pd.DataFrame({"checkpoint": ["a"], "nonsense": [1]}))


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("attack", frames.attack(frames.networks(1))),
        ("hessian", frames.hessian(frames.networks(1))),
        ("surface", frames.surface(frames.networks(1))),
    ],
)
def test_an_empty_table_is_an_input_error(name, table):
    with pytest.raises(InputError, match="no rows"):
        getattr(figures, name)(table.iloc[:0])


def test_a_surface_of_a_diverged_network_is_an_input_error():
    with pytest.raises(InputError, match="diverged"):
        figures.surface(frames.surface(frames.networks(1)).assign(loss=np.nan))


# Series


def test_seeds_are_one_series_and_a_repeated_seed_is_not():
    seeds = frames.attack(frames.networks(2, seeds=3))
    assert [(one.label, one.checkpoints) for one in series_of(seeds)] == [("BP", 3), ("IFA 0°", 3)]
    again = seeds.assign(seed=0)
    assert [one.checkpoints for one in series_of(again)] == [1] * 6
    assert len({one.label for one in series_of(again)}) == 6
    assert len({(one.look.colour, one.look.marker) for one in series_of(again)}) == 6


def test_epochs_are_apart_unless_they_are_the_axis():
    table = frames.hessian(frames.networks(1), epochs=[0, 5])
    assert [one.label for one in series_of(table)] == ["BP, epoch 0", "BP, epoch 5"]
    assert [one.label for one in series_of(table, along="epoch")] == ["BP"]


def test_series_are_in_the_same_order_whatever_the_order_of_rows():
    table = frames.attack(frames.networks(6)).sample(frac=1, random_state=1)
    assert [one.label for one in series_of(table)] == ["BP", "IFA 0°", "IFA 45°", "FA", "DFA", "PFA"]


def test_names_of_files_are_short_and_differ():
    paths = ["/a/b/run1/ckpt.pt", "/a/b/run2/ckpt.pt", "/a/b/run2/checkpoints/epoch-0003.pt"]
    assert list(short_names(paths).values()) == ["run1", "run2", "run2/epoch-0003"]
    long = [f"models/{'x' * 40}{i}{'y' * 40}.pt" for i in range(3)]
    assert len(set(short_names(long).values())) == 3
    assert short_names(["ckpt.pt"]) == {"ckpt.pt": "ckpt.pt"}


def test_names_with_mathematics_in_them_are_drawn_as_they_are():
    table = frames.attack([{"checkpoint": "a_$b$_{c}"}])
    figure = figures.attack(table)
    assert any(text.replace("\\", "") == "a_$b$_{c}" for text, *_ in texts_on_paper(figure))


def test_over_seeds_keeps_the_interval_of_one_and_the_spread_of_several():
    table = pd.DataFrame({"x": [0, 0, 1], "y": [1.0, 3.0, 5.0], "lo": [0.0, 0.0, 4.5], "hi": [9.0, 9.0, 6.0]})
    points = over_seeds(table, "x", "y", "lo", "hi")
    assert points["value"].tolist() == [2, 5]
    np.testing.assert_allclose(points["low"], [2 - np.sqrt(2), 4.5])
    np.testing.assert_allclose(points["high"], [2 + np.sqrt(2), 6.0])


# Style

# Machado, Oliveira, Fernandes (2009), severity 1, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def as_seen(colours, vision):
    """Return linear RGB (N, 3) as a person with that vision sees it."""
    rgb = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.clip(linear @ np.asarray(VISION[vision]).T, 0, 1)


def seen_distances(colours, vision):
    """Return the CIEDE2000 distance of every pair of colours as a person with that vision sees them."""
    seen = as_seen(colours, vision)
    encoded = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = rgb2lab(encoded[None])[0]
    distances = deltaE_ciede2000(lab[:, None], lab[None])
    return distances[np.triu_indices(len(colours), 1)]


@pytest.mark.parametrize("vision", VISION)
def test_the_rules_of_the_demo_keep_apart_in_colour(vision):
    looks = [style.rule_look(rule) for rule in ("bp", "fa", "dfa", "pfa")]
    looks += [style.rule_look("ifa", angle) for angle in (0.0, 45.0, 90.0)]
    assert seen_distances([look.colour for look in looks], vision).min() > 10


def test_every_rule_has_a_marker_and_a_line_of_its_own():
    assert len({look.marker for look in style.RULES.values()}) == len(style.RULES)
    assert len({look.colour for look in style.RULES.values()}) == len(style.RULES)
    dashed = [str(look.linestyle) for rule, look in style.RULES.items() if rule not in ("bp", "ifa")]
    assert len(set(dashed)) == len(dashed)


@pytest.mark.parametrize("vision", VISION)
def test_angles_are_a_ramp_of_lightness(vision):
    colours = [style.rule_look("ifa", float(angle)).colour for angle in range(0, 91, 10)]
    assert (np.diff(as_seen(colours, vision) @ [0.2126, 0.7152, 0.0722]) > 0).all()


def test_saved_files_are_complete_and_the_same_each_time(tmp_path):
    first, second = (figures.hessian(frames.hessian(frames.networks(2))) for _ in range(2))
    paths = style.save(first, tmp_path / "hessian")
    assert [path.name for path in paths] == ["hessian.pdf", "hessian.png"]
    again = style.save(second, tmp_path / "again")
    assert [a.read_bytes() == b.read_bytes() for a, b in zip(paths, again, strict=True)] == [True, True]
    pdf = paths[0].read_bytes()
    assert b"/FontFile2" in pdf, "text is not TrueType"
    assert b"CreationDate" not in pdf
    with Image.open(paths[1]) as image:
        assert image.size == tuple((first.get_size_inches() * 300).astype(int))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.pdf", "again.png", "hessian.pdf", "hessian.png"]


def test_the_users_matplotlib_settings_change_nothing(tmp_path):
    table = frames.attack(frames.networks(2))
    (plain,) = [p for p in style.save(figures.attack(table), tmp_path / "plain") if p.suffix == ".png"]
    with mpl.rc_context({"font.size": 20, "lines.linewidth": 9, "savefig.bbox": "tight"}):
        (other,) = [p for p in style.save(figures.attack(table), tmp_path / "other") if p.suffix == ".png"]
    assert plain.read_bytes() == other.read_bytes()


def test_a_rule_has_one_look_in_every_figure():
    attack = figures.attack(frames.attack(frames.networks(6)))
    hessian = figures.hessian(frames.hessian(frames.networks(6)[3:4]))
    colour = next(h.get_color() for h in attack.legends[0].legend_handles if h.get_label() == "FA")
    assert panels(hessian)[0].containers[0].lines[0].get_color() == colour == style.RULES["fa"].colour


def test_drawing_does_not_touch_pyplot():
    code = (
        "import sys, figure_frames as f; from reports import figures; figures.attack(f.attack(f.networks(1)));"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd="tests", env={"PYTHONPATH": "..:."}).returncode == 0


def test_a_grid_of_one_point_is_one_dot():
    (axes,) = panels(drawn("surface, one point"))
    (dots,) = [c for c in axes.collections if isinstance(c, PathCollection)]
    assert len(dots.get_offsets()) == 1


# Animation


def test_trajectory_gif_replays_the_path(tmp_path):
    nets = frames.networks(2)
    seen = []
    file = figures.trajectory_gif(
        frames.trajectory(nets), common_plane(nets), tmp_path / "t.gif", frames=8, seconds=1,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen[-1] == (8, 8)
    with Image.open(file) as film:
        assert film.n_frames == 8
        assert film.info["loop"] == 0
        pictures = [np.asarray(picture.convert("RGB")).astype(int) for picture in ImageSequence.Iterator(film)]
    assert all(np.abs(a - b).max() > 60 for a, b in itertools.pairwise(pictures)), "two pictures are the same"
    black = [int((picture.sum(2) < 60).sum()) for picture in pictures]
    assert black[-1] > black[0], "the path does not grow"
    assert [path.name for path in tmp_path.iterdir()] == ["t.gif"]


def test_trajectory_gif_needs_two_frames(tmp_path):
    with pytest.raises(InputError, match="2 frames"):
        figures.trajectory_gif(frames.trajectory(frames.networks(1)), None, tmp_path / "t.gif", frames=1)
    assert not list(tmp_path.iterdir())


def test_groups_are_shares_of_their_own_network():
    table = frames.by_group(frames.networks(2), ("first", "last"))
    figure = figures.hessian_groups(table)
    for axes in figure.axes:
        for bars in axes.containers:
            assert np.allclose(bars.lines[0].get_xdata(), [0.1, 0.2])


def test_shares_of_a_negative_trace_have_ends_in_order_and_of_none_are_no_traceback():
    table = pd.DataFrame({"quantity": ["trace", "trace:a", "trace:b"], "value": [-2.0, 3.0, -5.0]})
    table = table.assign(checkpoint="net", index=0, ci_low=table["value"] - 1, ci_high=table["value"] + 1)
    found = relative(table, "trace")
    assert found[["ci_low", "value", "ci_high"]].to_numpy().tolist() == [[-2, -1.5, -1], [2, 2.5, 3]]
    with pytest.raises(InputError, match="zero"):
        figures.hessian_groups(table.assign(value=0.0))
