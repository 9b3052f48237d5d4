"""The report page: complete, self-contained, readable, and alive in a real browser."""

import base64
import gzip
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import chromium
import figure_frames as frames
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from alignscape.errors import InputError
from reports import figures
from reports.cli import main
from reports.page import cite, html, svg
from reports.page.cards import MOST_ROWS
from reports.page.collect import batches, find_tables
from reports.page.html import write_page
from reports.page.overview import by_rule, overview, told_apart
from reports.page.variants import Variants
from reports.style import ANGLES, GREY, RULES
from reports.tables import read_table

KINDS = ("hessian", "spectrum", "surface", "attack", "corruptions", "trajectory")


def write_results(folder: Path, count: int = 3, kinds=KINDS) -> list[dict]:
    """Write what a demo leaves: run folders, and a table with its sidecar for each analysis."""
    nets = frames.networks(count)
    for net in nets:
        run = folder / Path(net["checkpoint"]).parent
        run.mkdir(parents=True)
        table = frames.metrics([net], epochs=4).drop(columns=["checkpoint", "rule", "angle", "seed"])
        table.to_csv(run / "metrics.csv", index=False)
        config = {"rule": net["rule"], "angle": 0.0 if np.isnan(net["angle"]) else net["angle"], "seed": 0}
        (run / "config.json").write_text(json.dumps({"config": config, "versions": {"torch": "2.15.0"}}))
    for kind in kinds:
        getattr(frames, kind)(nets).to_csv(folder / f"{kind}.csv", index=False)
        sidecar = {"command": f"analyze {kind} runs", "seed": 7, "checkpoints": {"runs/bp-s0": "ab" * 32}}
        (folder / f"{kind}.json").write_text(json.dumps(sidecar))
    return nets


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "results"
    folder.mkdir()
    write_results(folder)
    write_page(folder)
    return folder


class Reader(HTMLParser):
    """Collects tags with their attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def figures(self):
        """What each figure says of itself."""
        return [attributes["aria-label"] for attributes in self.all("svg")]


def read(folder: Path) -> Reader:
    return Reader((folder / "index.html").read_text(encoding="utf-8"))


def test_the_page_loads_nothing_from_outside(results):
    page = read(results)
    assert not page.all("link")
    assert not page.all("iframe")
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "data", "poster", "action"):
            assert str(attributes.get(name, "data:")).startswith("data:"), (tag, attributes)
    styles = re.search(r"<style>(.*?)</style>", (results / "index.html").read_text(encoding="utf-8"), re.S).group(1)
    assert "url(" not in styles
    assert "@import" not in styles
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy, "the browser itself is told to load nothing"
    assert "http" not in policy


def test_links_lead_to_files_that_are_there(results):
    links = [a["href"] for a in read(results).all("a")]
    anchors = {a["id"] for _, a in read(results).tags if "id" in a}
    assert {link for link in links if link.startswith("#")} <= {f"#{name}" for name in anchors}
    files = [link for link in links if not link.startswith("#")]
    assert files
    assert all((results / link).is_file() for link in files), files


def test_every_table_is_on_the_page_with_its_provenance(results):
    text = " ".join(read(results).text)
    for path in results.rglob("*.csv"):
        name = path.relative_to(results).as_posix()
        assert name in text
        table = pd.read_csv(path)
        assert all(str(column) in text for column in table.columns)
        assert f"{len(table)} rows" in text
    for kind in KINDS:
        assert f"analyze {kind} runs" in text
    assert "ab" * 32 in text
    assert "2.15.0" in text


def test_cells_hold_the_values_of_the_table(results):
    page = read(results)
    values = {a["data-value"] for a in page.all("td")}
    table = pd.read_csv(results / "hessian.csv", float_precision="round_trip")
    assert {repr(float(value)) for value in table["value"]} <= values
    assert {"trace", "eigenvalue"} <= values


def test_a_long_table_is_cut_and_says_so(results):
    rows = len(pd.read_csv(results / "spectrum.csv"))
    assert rows > MOST_ROWS
    assert f"The first {MOST_ROWS} of {rows} rows" in " ".join(read(results).text)


def test_every_figure_has_a_text_alternative_and_a_caption(results):
    page = read(results)
    assert not page.all("img")
    assert len(page.figures) == 10
    assert len(page.all("figcaption")) == len(page.figures) + 1  # and the surface to turn
    assert all(len(text) > 40 for text in page.figures)
    assert all(one["role"] == "img" and float(one["viewbox"].split()[2]) > 200 for one in page.all("svg"))
    assert any("BP, IFA 0°, IFA 45°" in text for text in page.figures)
    assert all(head.get("scope") == "col" for head in page.all("th"))
    assert page.all("html")[0]["lang"] == "en"


def test_one_bad_figure_leaves_the_rest(tmp_path):
    write_results(tmp_path, 2, kinds=("surface", "attack"))
    table = pd.read_csv(tmp_path / "surface.csv").assign(loss=np.nan)
    table.to_csv(tmp_path / "surface.csv", index=False)
    write_page(tmp_path)
    page = read(tmp_path)
    assert "No figure: surface has no finite loss: the network diverged." in "".join(page.text)
    assert any("Accuracy against epsilon" in text for text in page.figures)
    assert "The cross is the trained network" not in "".join(page.text), "no caption of what is not drawn"


def test_markup_in_names_stays_text(tmp_path):
    evil = "<script>alert(1)</script>&\"'"
    table = frames.attack([{"checkpoint": evil}])
    table.to_csv(tmp_path / "attack.csv", index=False)
    (tmp_path / "attack.json").write_text(json.dumps({"command": evil}))
    frames.surface([{"checkpoint": evil}], points=3).to_csv(tmp_path / "surface.csv", index=False)
    write_page(tmp_path)
    page = read(tmp_path)
    assert len(page.all("script")) == 4  # what LaTeX escapes, surfaces, plotly.js, ours
    assert evil in "".join(page.text)


def test_figures_of_no_analysis_are_written_too(results):
    names = {path.name for path in results.glob("*.p??")}
    assert names == {"metrics.pdf", "metrics.png", "angles.pdf", "angles.png"}
    assert names <= {link["href"] for link in read(results).all("a")}


def test_other_tables_and_unreadable_ones(tmp_path):
    write_results(tmp_path, 1, kinds=())
    pd.DataFrame({"pair": ["a-b"], "p": [0.03125]}).to_csv(tmp_path / "pairs.csv", index=False)
    (tmp_path / "broken.csv").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / ".attack.123.tmp.csv").write_text("half a fi")
    (tmp_path / "pairs.json").write_text("{half")
    pd.DataFrame({"checkpoint": ["a"], "x": [1]}).to_csv(tmp_path / "hessian.csv", index=False)
    with pytest.warns(UserWarning, match=r"is (left out|no JSON)") as warned:
        write_page(tmp_path)
    ours = [str(w.message) for w in warned if not issubclass(w.category, DeprecationWarning)]
    assert sorted(text.split(" is ")[1][:8] for text in ours) == ["left out", "no JSON "]
    text = " ".join(read(tmp_path).text)
    assert "pairs.csv" in text
    assert "0.03125" in text
    assert "No figure: hessian lacks the column(s) quantity, index" in text
    assert "broken" not in text
    assert "tmp" not in text


def test_gradient_modes_stay_words(results):
    (table,) = [table for table in find_tables(results) if table.kind == "attack"]
    assert set(table.frame["gradient"]) == {"true"}
    assert any("true" in cell["data-value"] for cell in read(results).all("td"))


def test_runs_are_named_by_their_config(results):
    metrics = batches(find_tables(results), "metrics")[0].frame
    found = metrics[["checkpoint", "rule", "angle"]].drop_duplicates().to_numpy().tolist()
    assert [[c, r, None if np.isnan(a) else a] for c, r, a in found] == [
        ["runs/bp-s0", "bp", None],
        ["runs/ifa-0-s0", "ifa", 0.0],
        ["runs/ifa-45-s0", "ifa", 45.0],
    ]


def test_a_diverged_run_is_shown_as_such(tmp_path):
    write_results(tmp_path, 2, kinds=())
    run = tmp_path / "runs" / "bp-s0"
    (run / "done.json").write_text(json.dumps({"diverged": True, "step": 900, "epoch": 3}))
    table = pd.read_csv(run / "metrics.csv")
    table.loc[table["epoch"] >= 3, ["train_loss", "test_loss"]] = np.nan
    table.to_csv(run / "metrics.csv", index=False)
    write_page(tmp_path)
    assert any("BP, diverged at epoch 3" in text for text in read(tmp_path).figures)


def test_an_audit_is_shown_with_the_attacks(tmp_path):
    frames.attack(frames.networks(1)).to_csv(tmp_path / "attack.csv", index=False)
    pd.DataFrame({"check": ["loss does not matter"], "verdict": ["warn"]}).to_csv(tmp_path / "audit.csv", index=False)
    write_page(tmp_path)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "Other tables" not in text
    assert text.index('id="attack"') < text.index("loss does not matter")


def test_radii_are_drawn_where_there_are_some(tmp_path):
    frames.attack(frames.networks(1)).to_csv(tmp_path / "attack.csv", index=False)
    write_page(tmp_path)
    assert "Smallest eps that fools an image" not in (tmp_path / "index.html").read_text(encoding="utf-8")
    frames.radius(frames.networks(1)).to_csv(tmp_path / "radius.csv", index=False)
    write_page(tmp_path)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "Smallest eps that fools an image" in text
    assert "Other tables" not in text


def test_a_comparison_has_a_section_of_its_own(tmp_path):
    rows = [
        {"quantity": "accuracy", "test": "mcnemar", "first": "fa", "second": "bp", "difference": -0.125},
        {"quantity": "accuracy", "test": "none", "first": "fa", "second": "bp", "difference": -0.0625},
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "compare.csv", index=False)
    write_page(tmp_path)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "Other tables" not in text
    assert text.index('id="compare"') < text.index("McNemar") < text.index("-0.125") < text.index("-0.0625")
    assert "No figure" not in text


def test_a_copy_of_a_table_counts_once_and_a_second_analysis_is_drawn_apart(tmp_path):
    table = frames.hessian(frames.networks(2))
    for name, rows in {"one": table, "two": table, "three": table.assign(n_samples=7), "four": table.iloc[:0]}.items():
        (tmp_path / name).mkdir()
        rows.to_csv(tmp_path / name / "hessian.csv", index=False)
    found = batches(find_tables(tmp_path), "hessian")
    assert [[table.name for table in batch.tables] for batch in found] == [["one/hessian.csv"], ["three/hessian.csv"]]
    write_page(tmp_path)
    assert ["one/hessian.csv" in text for text in read(tmp_path).figures] == [True, False]


def test_the_work_of_grouping_grows_as_the_runs_do(tmp_path, monkeypatch):
    """75 runs took 62 s: every table was grouped anew for each table, and compared with every other."""
    from reports.analyses import all_analyses
    from reports.page import collect, html, sections

    counted = {"batches": 0, "equals": 0, "all_analyses": 0}

    def counting(name, function):
        def call(*args, **options):
            counted[name] += 1
            return function(*args, **options)

        return call

    monkeypatch.setattr(html, "batches", counting("batches", collect.batches))
    monkeypatch.setattr(sections, "all_analyses", counting("all_analyses", all_analyses))
    monkeypatch.setattr(pd.DataFrame, "equals", counting("equals", pd.DataFrame.equals))
    monkeypatch.setattr(html, "_section", lambda *args: {"kind": "", "heading": "", "text": "", "pictures": [],
                                                         "films": [], "groups": [], "grids": []})  # fmt: skip
    table = frames.hessian(frames.networks(1))
    seen = []
    for count in (6, 24):
        for number in range(count):
            (tmp_path / f"{number}").mkdir(exist_ok=True)
            rows = table.assign(checkpoint=f"run{number}", value=table.value + number)
            rows.to_csv(tmp_path / f"{number}" / "hessian.csv", index=False)
        counted.update(dict.fromkeys(counted, 0))
        write_page(tmp_path)
        seen.append(dict(counted))
    assert seen[0]["batches"] == 1
    assert seen[0] == seen[1]  # none of them depends on the number of runs


def test_runs_in_planes_of_their_own_share_a_figure_and_a_common_plane_does_not(tmp_path):
    nets = frames.networks(3)
    for name, rows in {"a": nets[:1], "b": nets[1:2], "common": nets}.items():
        (tmp_path / name).mkdir()
        frames.trajectory(rows).to_csv(tmp_path / name / "trajectory.csv", index=False)
    found = batches(find_tables(tmp_path), "trajectory")
    names = [[table.name.split("/")[0] for table in batch.tables] for batch in found]
    assert names == [["a", "b"], ["common"]]


def test_trajectories_are_drawn_over_the_surface_beside_them(tmp_path, monkeypatch):
    nets = frames.networks(1)
    frames.trajectory(nets).to_csv(tmp_path / "trajectory.csv", index=False)
    alpha, beta = (grid.ravel() for grid in np.meshgrid(*[np.linspace(-9, 9, 7)] * 2, indexing="ij"))
    plane = pd.DataFrame({"checkpoint": nets[0]["checkpoint"], "alpha": alpha, "beta": beta, "loss": 1 + alpha**2})
    plane.to_csv(tmp_path / "trajectory_plane.csv", index=False)
    drawn = []
    monkeypatch.setattr(figures, "trajectory", lambda path, ground: drawn.append(ground) or Figure())
    write_page(tmp_path)
    (ground,) = drawn
    pd.testing.assert_frame_equal(ground, plane, check_dtype=False)


def test_an_animation_beside_its_table_is_on_the_page_unopened(tmp_path):
    nets = frames.networks(1)
    frames.trajectory(nets, steps=60).to_csv(tmp_path / "trajectory.csv", index=False)
    Image.new("P", (4, 4)).save(tmp_path / "trajectory.gif")
    write_page(tmp_path)
    page = read(tmp_path)
    (film,) = [image for image in page.all("img") if image["src"].startswith("data:image/gif")]
    assert base64.b64decode(film["src"].split(",")[1]) == (tmp_path / "trajectory.gif").read_bytes()
    assert all("open" not in part for part in page.all("details") if part.get("class") == "data")
    assert "trajectory.gif" in [link["href"] for link in page.all("a")]


def test_overview_has_one_row_per_network_with_the_numbers_of_the_tables(results):
    tables = find_tables(results)
    analyses = {table.kind: batches(tables, table.kind)[0].frame for table in tables}
    table = overview(analyses)
    assert table["network"].tolist() == ["BP", "IFA 0°", "IFA 45°"]
    metrics, hessian, attack = analyses["metrics"], analyses["hessian"], analyses["attack"]
    last = metrics[(metrics["rule"] == "bp") & (metrics["epoch"] == 4)]["test_accuracy"].iloc[0]
    assert table["test accuracy (%)"][0] == pytest.approx(100 * last)
    traces = hessian[hessian["quantity"] == "trace"]["value"]
    np.testing.assert_allclose(table["Hessian trace"], traces)
    tops = hessian[(hessian["quantity"] == "eigenvalue") & (hessian["index"] == 1)]["value"]
    np.testing.assert_allclose(table["top eigenvalue"], tops)
    (column,) = [name for name in table if "under attack" in name]
    eps = float(re.search(r"ε = ([\d.]+)", column).group(1))
    worst = attack[np.isclose(attack["eps"], eps)].groupby("checkpoint", sort=False)["accuracy"].min()
    np.testing.assert_allclose(table[column], 100 * worst)
    assert 0.3 < worst.mean() / attack[attack["eps"] == 0]["accuracy"].mean() < 0.7


def test_many_angles_are_drawn_against_the_angle(tmp_path):
    frames.hessian(frames.networks(12)[:5]).to_csv(tmp_path / "hessian.csv", index=False)
    write_page(tmp_path)
    assert read(tmp_path).figures[0].startswith("Against the initial angle: IFA, BP.")


def test_overview_knows_a_run_by_all_its_names_and_keeps_repeats_apart():
    def one(checkpoint, **columns):
        return pd.DataFrame([{"checkpoint": checkpoint, "rule": "fa", "angle": np.nan, "seed": 0, **columns}])

    metrics = pd.concat([one("runs/fa", epoch=1, test_accuracy=0.5), one("runs/again", epoch=1, test_accuracy=0.6)])
    hessian = pd.concat(
        one(name, quantity="trace", index=0, value=value, epoch=epoch)
        for name, value, epoch in [("/x/runs/fa/checkpoints/epoch-0001.pt", 1.0, 1), ("/x/runs/fa/ckpt.pt", 2.0, 9)]
    )
    table = overview({"metrics": metrics, "hessian": hessian})
    assert table["network"].tolist() == ["FA, fa", "FA, again"]
    assert table["test accuracy (%)"].tolist() == [50, 60]
    assert table["Hessian trace"].fillna(-1).tolist() == [2, -1]


def test_plotly_is_on_the_page_once_and_whole(results):
    text = (results / "index.html").read_text(encoding="utf-8")
    (packed,) = re.findall(r'id="plotly-packed">(.*?)</script>', text, re.S)
    assert b"plotly.js v" in gzip.decompress(base64.b64decode(packed))[:200]


def test_a_page_without_surfaces_is_small(tmp_path):
    write_results(tmp_path, 1, kinds=("hessian",))
    assert write_page(tmp_path).stat().st_size < 600_000


@pytest.mark.slow
def test_twelve_networks_fit_in_eight_megabytes(tmp_path):
    write_results(tmp_path, 12)
    assert write_page(tmp_path).stat().st_size < 8_000_000


def test_progress_counts_the_sections(tmp_path):
    write_results(tmp_path, 1, kinds=("hessian", "attack"))
    seen = []
    write_page(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_command_prints_the_path(tmp_path, capsys):
    write_results(tmp_path, 1, kinds=("hessian",))
    assert main(["report", str(tmp_path), "--quiet"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "index.html")


@pytest.mark.parametrize("make", [lambda path: path / "missing", lambda path: path])
def test_a_folder_without_results_is_one_line_and_nothing_written(tmp_path, capsys, make):
    folder = make(tmp_path)
    assert main(["report", str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("analyze: error: ")
    assert error.count("\n") == 1
    assert not (folder / "index.html").exists()
    with pytest.raises(InputError):
        write_page(folder)


# Many runs

RUNS = (("bp", 1e-3), ("fa", 1e-3), ("fa", 1e-2))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The page of a rule with two learning rates beside another, two seeds each, with what the page says."""
    folder = tmp_path_factory.mktemp("sweep") / "results"
    for rule, lr in RUNS:
        for seed in (0, 1):
            run = folder / "runs" / f"{rule}-{lr:g}-{seed}"
            run.mkdir(parents=True)
            net = {"checkpoint": "", "rule": rule, "angle": np.nan, "seed": seed}
            table = frames.metrics([net], epochs=2).drop(columns=["checkpoint", "rule", "angle", "seed"])
            table["test_accuracy"] = 0.5 + 0.1 * seed + (0.2 if lr == 1e-2 else 0)
            table.to_csv(run / "metrics.csv", index=False)
            config = {"rule": rule, "angle": 0.0, "seed": seed, "lr": lr, "batch_size": 128}
            (run / "config.json").write_text(json.dumps({"config": config, "versions": {"torch": "2.15.0"}}))
    write_page(folder)
    return folder


def rows_of(text: str, label: str) -> list[list[str]]:
    """Return the texts of the cells of the table called ``label``."""
    body = text[text.index(f'aria-label="{label}"') :].partition("</tbody>")[0].partition("<tbody>")[2]
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in body.split("</tr>")]
    return [[re.sub("<[^>]+>", " ", cell).strip() for cell in row] for row in cells if row]


def test_the_overview_is_mean_deviation_and_interval_over_seeds(sweep):
    rows = rows_of((sweep / "index.html").read_text(encoding="utf-8"), "Rules and metrics")
    # of 50 and 60: mean 55, deviation 50 / sqrt(50); t of one degree of freedom is tan(0.475 pi), over sqrt(2) seeds
    half = np.tan(0.475 * np.pi) * np.sqrt(50) / np.sqrt(2)
    assert half == pytest.approx(63.5, abs=0.05)
    assert rows == [
        ["BP", "2", "55.0 ± 7.1 [-8.5, 118.5]"],
        ["FA, lr 0.001", "2", "55.0 ± 7.1 [-8.5, 118.5]"],
        ["FA, lr 0.01", "2", "75.0 ± 7.1 [11.5, 138.5]"],
    ]


def test_the_best_of_a_metric_is_bold_where_a_test_says_so(sweep):
    tables = find_tables(sweep)
    first = {"metrics": batches(tables, "metrics")[0].frame}
    variants = Variants({str(table.frame["checkpoint"][0]): table.provenance["config"] for table in tables})
    assert told_apart(tables)[0] == set(), "two seeds of one rule lie as far apart as the rules"
    table = by_rule(first, variants, {("FA, lr 0.01", "test accuracy (%)")})
    assert [[cell["best"] for cell in row] for row in table["rows"]] == [[False] * 3, [False] * 3, [False, False, True]]


def test_tables_that_are_read_together_are_as_if_each_were_read(tmp_path):
    texts = ["layer,value,text\na,1.5,x\nb,,y\n", "layer,value,text\nc,0.1,z\n", 'layer,value,text\nd,2,"x, y"\n']
    texts += ["layer,value,text\ne,3,z", "layer,value,other\nf,4,1\n"]
    for number, text in enumerate(texts):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "mine.csv").write_text(text)
    tables = find_tables(tmp_path)
    assert len(tables) == 5
    for table in tables:
        pd.testing.assert_frame_equal(table.frame, read_table(table.path), check_dtype=False)


def test_runs_are_grouped_by_rule_and_settings_with_their_seeds_inside(sweep):
    text = (sweep / "index.html").read_text(encoding="utf-8")
    groups = re.findall(r'<details class="group">\s*<summary><strong>(.*?)</strong>, (\d) runs', text)
    assert groups == [("BP", "2"), ("FA, lr 0.001", "2"), ("FA, lr 0.01", "2")]
    assert re.findall(r"<summary>(Seed \d): <code>(.*?)</code>, (\d) rows", text)[-2:] == [
        ("Seed 0", "runs/fa-0.01-0/metrics.csv", "3"),
        ("Seed 1", "runs/fa-0.01-1/metrics.csv", "3"),
    ]
    assert [row[0] for row in rows_of(text, "Last rows of FA, lr 0.01")] == ["0", "1"]


def test_the_settings_are_a_table_of_what_differs_and_one_of_what_does_not(sweep):
    text = (sweep / "index.html").read_text(encoding="utf-8")
    assert rows_of(text, "Settings in which runs differ") == [
        ["BP", "2", "0..1", "0.001"],
        ["FA, lr 0.001", "2", "0..1", "0.001"],
        ["FA, lr 0.01", "2", "0..1", "0.01"],
    ]
    assert [row[:2] for row in rows_of(text, "Settings that all runs share")] == [
        ["batch size".replace(" ", "_"), "128"]
    ]
    assert text.count("2.15.0") == 1, "what all runs share is said once"


def test_curves_of_other_settings_are_no_seeds_of_one_rule(sweep):
    (curves,) = [text for text in read(sweep).figures if text.startswith("Learning curves")]
    assert "BP, FA, lr 0.001, FA, lr 0.01." in curves


def test_ids_are_unique_and_every_reference_has_its_own(results, sweep):
    for folder in (results, sweep):
        text = (folder / "index.html").read_text(encoding="utf-8")
        ids = [attributes["id"] for _, attributes in read(folder).tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        used = set(re.findall(r"url\(#(.*?)\)", text)) | set(re.findall(r'href="#(.*?)"', text))
        assert used <= set(ids)


def test_files_are_in_sight_while_their_table_is_folded(results):
    text = (results / "index.html").read_text(encoding="utf-8")
    folded = re.sub(r"<template>.*?</template>", "", re.sub(r"<details.*?</details>", "", text, flags=re.S), flags=re.S)
    for kind in KINDS:
        assert f'<a class="file" href="{kind}.csv">' in folded
        assert f'<a class="file" href="{kind}.json">' in folded


def test_alignment_is_drawn_once(tmp_path):
    nets = frames.networks(4)
    write_results(tmp_path, 4, kinds=())
    rows = [
        {"checkpoint": net["checkpoint"], "rule": net["rule"], "angle": net["angle"], "seed": 0, "epoch": epoch,
         "layer": "layers.1", "row_angle": 80.0 - epoch} for net in nets[1:3] for epoch in (0, 1)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "alignment.csv", index=False)
    write_page(tmp_path)
    of_training, of_its_own = [text for text in read(tmp_path).figures if text.startswith(("Alignment", "Angle"))]
    assert of_training.startswith("Alignment: FA.")  # that alignment.csv does not have
    assert "IFA 0°, IFA 45°" in of_its_own
    assert "An update at less than 90°" not in of_its_own, "no gradient is drawn"


def test_the_page_says_what_to_cite(results):
    text = "".join(read(results).text)
    entries = re.findall(r"^@\w+\{(\w+),$", text, re.M)
    assert entries[:2] == ["alignscape", "pyhessian2020"]
    assert len(entries) == len(set(entries)) == 10
    assert "VERSION" not in text


def test_every_reference_is_in_the_file():
    assert cite.bibtex(cite.references_of(cite.SOURCES)).count("\n@") == len(cite.references_of(cite.SOURCES))


def contrast(first: str, second: str) -> float:
    """WCAG 2.2, relative luminance."""
    light, dark = sorted((_luminance(to_rgb(one)) for one in (first, second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(rgb) -> float:
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in rgb]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_colours_are_seen_on_dark_ground_and_keep_apart():
    rules = [svg.in_the_dark(look.colour) for look in RULES.values()]
    assert len(set(rules)) == len(rules)
    assert min(contrast(colour, svg.GROUND) for colour in rules) > 4.5
    assert contrast(svg.in_the_dark(GREY), svg.GROUND) > 4.5
    assert svg.in_the_dark("#ffffff") == svg.GROUND
    ramp = [_luminance(to_rgb(svg.in_the_dark(to_hex(ANGLES(share))))) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert ramp == sorted(ramp)


def test_ids_of_a_figure_are_the_same_in_every_process_and_hatched_holes_keep_their_pattern():
    text = svg.svg_of(figures.surface(frames.surface(frames.networks(2), points=9, hole=True)), "f1", "two planes")
    ids = re.findall(r' id="(.*?)"', text)
    assert ids == [f"f1-{place}" for place in range(len(ids))]
    assert set(re.findall(r"url\(#(.*?)\)", text)) | set(re.findall(r'href="#(.*?)"', text)) == set(ids)
    assert "<pattern" in text


def test_figures_have_no_colour_of_their_own_but_on_images(results):
    text = (results / "index.html").read_text(encoding="utf-8")
    named = set(re.findall(r"var\((--c-[0-9a-f]{6})\)", text))
    light, dark = re.findall(r":root \{ (--c-.*?) \}", text)
    assert {part.partition(":")[0] for part in light.split("; ") if part} == named
    assert {part.partition(":")[0] for part in dark.split("; ") if part} == named
    (curves,) = [one for one in re.findall(r"<svg.*?</svg>", text, re.S) if "Learning curves" in one]
    assert not re.search("#[0-9a-f]{6}", curves)
    (heat,) = [one for one in re.findall(r"<svg.*?</svg>", text, re.S) if "Every cell" in one]
    assert "#ffffff" in heat  # numbers on dark cells


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node on the PATH")
@pytest.mark.parametrize("name", html.SCRIPTS)
def test_scripts_are_javascript(name):
    script = Path(html.__file__).parent / "templates" / name
    assert subprocess.run(["node", "--check", script], capture_output=True).stderr == b""


# In a browser

needs_browser = pytest.mark.skipif(chromium.find() is None, reason="needs a chromium or chrome on the PATH")


@needs_browser
def test_the_page_works_in_a_browser_without_errors_or_requests(results):
    with chromium.Page(chromium.find()) as page:
        page.open(results / "index.html")
        assert page.evaluate("[...document.querySelectorAll('svg')].every((one) => one.clientWidth > 200)")

        page.evaluate("document.getElementById('turnable').scrollIntoView({ behavior: 'instant' })")
        page.wait_for("!!window.Plotly && !!document.querySelector('#surface-plot canvas')")
        eye = "JSON.stringify(document.getElementById('surface-plot')._fullLayout.scene.camera.eye)"
        box = page.evaluate("(({x, y, width, height}) => [x, y, width, height])"
                            "(document.getElementById('surface-plot').getBoundingClientRect())")  # fmt: skip
        before = page.evaluate(eye)
        page.drag(box[0] + box[2] / 2, box[1] + box[3] / 2, 120, 30)
        page.wait_for(f"{eye} !== {json.dumps(before)}")

        first = "document.getElementById('surface-plot').data[0].z[0][0]"
        value = page.evaluate(first)
        page.evaluate("{ const c = document.getElementById('surface-choice'); c.value = '2';"
                      " c.dispatchEvent(new Event('change')); }")  # fmt: skip
        page.wait_for(f"{first} !== {value}")
        assert page.evaluate(eye) != before, "choosing another network must keep the view"

        assert page.errors == []
        assert {url.split(":")[0] for url in page.requests} <= {"file", "data", "blob"}
        assert [url for url in page.requests if url.startswith("file:")] == [(results / "index.html").as_uri()]


@needs_browser
def test_tables_sort_by_a_click(results):
    column = "[...document.querySelectorAll('#hessian tbody tr')].map((row) => row.cells[{}].dataset.value)"
    click = "document.querySelectorAll('#hessian th button')[{}].click()"
    names = list(pd.read_csv(results / "hessian.csv").columns)
    value, quantity, residual = names.index("value"), names.index("quantity"), names.index("residual")
    with chromium.Page(chromium.find()) as page:
        page.open(results / "index.html")
        page.evaluate(click.format(value))
        up = [float(v) for v in page.evaluate(column.format(value))]
        assert up == sorted(up)
        assert page.evaluate(f"document.querySelectorAll('#hessian th')[{value}].ariaSort") == "ascending"
        page.evaluate(click.format(value))
        assert [float(v) for v in page.evaluate(column.format(value))] == sorted(up, reverse=True)
        page.evaluate(click.format(quantity))
        words = page.evaluate(column.format(quantity))
        assert words == sorted(words)
        page.evaluate(click.format(residual))
        residuals = page.evaluate(column.format(residual))
        blanks = residuals.count("")
        assert blanks == 3
        assert residuals[-blanks:] == [""] * blanks
        assert page.errors == []


@needs_browser
def test_a_phone_shows_the_page_without_scrolling_sideways(results):
    with chromium.Page(chromium.find(), width=390, height=844) as page:
        page.open(results / "index.html")
        wide, screen = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert wide <= screen == 390
        page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        lightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]"
        assert page.evaluate(lightness) > 200
        page.set_dark(True)
        assert page.evaluate(lightness) < 60
        assert page.errors == []
