"""The second paper: its targets beside the first one's, its runs, its tables, and B B^T against closed forms."""

import functools
import importlib
import json
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from alignscape.errors import InputError
from reports.cli import main
from reports.commands.figures import PAPER_NAMES, PROFILE_NAMES
from reports.paper import TARGETS
from reports.paper.numbers import Numbers
from reports.paper.papers import FIRST, PAPERS, all_targets, chosen, profiles_of
from reports.paper.pfa import networks as runs
from reports.paper.pfa.claims import beforehand, declared
from reports.paper.pfa.expansion import expansion, expected_angle, expected_square, spectrum_ends
from reports.paper.pfa.figures import accuracies, ends
from reports.paper.pfa.profile import departures, paper, small, smoke
from reports.paper.pfa.published import FINAL
from reports.paper.reproduction import plan
from training.config import TrainConfig
from training.rules import find_rule
from training.store.run_store import RunStore

NAMES = ["pfa-expansion", "pfa-mnist", "pfa-sparsity", "pfa-paths", "pfa-cifar10", "pfa-imagenet", "pfa-claims"]
PFA = PAPERS["pfa"].targets


def metrics(accuracy: dict[str, float], seeds: int = 3, epochs: int = 4, **columns) -> pd.DataFrame:
    """Return metrics of runs that end at ``accuracy`` (percent) after a better epoch, with paths of three layers."""
    rows = []
    for place, (rule, end) in enumerate(accuracy.items()):
        for seed in range(seeds):
            for epoch in range(epochs + 1):
                share = (10 if epoch == 0 else end + 0.1 * seed + (0.5 if epoch == epochs - 1 else 0)) / 100
                paths = {} if rule == "bp" else {
                    f"{name}_layers.{layer}": value
                    for layer in (1, 2)
                    for name, value in (("angle", 80 - place), ("flat_angle", 75 - place - epoch), ("norm_ratio", 1.1))
                }  # fmt: skip
                rows.append({"checkpoint": f"{rule}-seed{seed}", "rule": rule, "angle": None, "seed": seed,
                             "epoch": epoch, "train_loss": 1.0, "test_loss": 1.0, "train_accuracy": share,
                             "test_accuracy": share, **paths, **columns})  # fmt: skip
    return pd.DataFrame(rows)


def tables_of(name: str) -> dict[str, pd.DataFrame]:
    """Return made-up tables that a target is drawn from."""
    sparse = pd.concat(
        [metrics({"fa": 98 - 4 * (density < 1), "pfa": 98.4, "bp": 98.5}, density=density) for density in (1.0, 0.1)]
    )
    whole = metrics(FINAL["mnist"])
    if name == "pfa-expansion":
        rows = [{"expansion": k, "width": 40 * k, "draw": draw, "angle": 50 / k + draw, "norm_ratio": 1 + 0.4 / k,
                 "least": 0.1, "q5": 0.2, "q25": 0.5, "q50": 1, "q75": 1.5, "q95": 2, "largest": 3}
                for k in (1, 10, 100) for draw in range(3)]  # fmt: skip
        return {"expansion": pd.DataFrame(rows)}
    known = {"pfa-sparsity": sparse, "pfa-paths": whole[whole["rule"] != "bp"], "pfa-mnist": whole}
    residual = metrics(FINAL["cifar"])
    if name == "pfa-claims":
        return {"mnist": whole, "sparse": sparse, "cifar": residual}
    return {"metrics": known.get(name, residual)}


@functools.cache
def drawn(name: str):
    module, _, function = PFA[name].draw.partition(":")
    return getattr(importlib.import_module(module), function)(tables_of(name), **PFA[name].options(small()))


def test_each_paper_has_targets_and_profiles_of_its_own():
    assert list(PFA) == NAMES
    assert list(PAPERS) == list(PAPER_NAMES)
    assert len(all_targets()) == sum(len(one.targets) for one in PAPERS.values())
    for one in PAPERS.values():
        assert tuple(one.profiles) == PROFILE_NAMES
        assert one.claims in one.targets
        assert all(isinstance(make(), Numbers) and make().name == name for name, make in one.profiles.items())
        assert set(profiles_of([FIRST], "smoke", [])) == {FIRST}


def test_without_names_the_first_paper_is_meant():
    assert chosen(None, None) == {FIRST: list(TARGETS.values())}
    assert [one.name for one in chosen(None, "pfa")["pfa"]] == NAMES
    both = chosen(["pfa-paths", "fig1", "pfa-mnist"], None)
    assert {paper: [one.name for one in of] for paper, of in both.items()} == {
        FIRST: ["fig1"], "pfa": ["pfa-mnist", "pfa-paths"]
    }  # fmt: skip
    with pytest.raises(InputError, match="unknown target fig1; known: pfa-expansion"):
        chosen(["fig1"], "pfa")


def test_a_setting_goes_to_the_papers_that_have_it():
    both = profiles_of([FIRST, "pfa"], "smoke", ["epochs=2", "cifar_epochs=3", "angles=0,30,60,75"])
    assert (both[FIRST].epochs, both["pfa"].epochs) == (2, 2)
    assert (both["pfa"].cifar_epochs, both[FIRST].angles[-1]) == (3, 75.0)
    for settings, words in ((["cifar_epochs=3"], "NAME=VALUE"), (["epochs=x"], "must be int")):
        with pytest.raises(InputError, match=words):
            profiles_of([FIRST], "smoke", settings)
    for settings in (["densities=1,0.5"], ["shown_accuracy=97"], ["rules="]):
        with pytest.raises(InputError):
            profiles_of(["pfa"], "smoke", settings)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_target_names_exists(name):
    module, _, function = PFA[name].draw.partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    for profile in (smoke(), small(), paper()):
        sources = PFA[name].sources(profile, None)
        assert all(sources.values())
        json.dumps([PFA[name].options(profile), [dict(one.columns) for of in sources.values() for one in of]])


def test_dense_feedback_is_the_run_without_a_density():
    dense = {one.train for one in runs.sparse(paper(), None) if one.columns["density"] == 1}
    assert dense < {one.train for one in runs.mnist(paper(), None)}
    sparse = [one.train.config for one in runs.sparse(paper(), None)]
    assert len(set(sparse)) == len(sparse) == 6 * 4 * 5
    for config in sparse:
        assert "feedback_density" in find_rule(config.rule).options or config.feedback_density == 1


def test_the_profile_paper_is_the_published_recipe():
    config = runs.mnist(paper(), None)[0].train.config
    assert config == TrainConfig(
        rule="bp", dataset="mnist", hidden=(512, 512), optimiser="sgd", lr=0.01, momentum=0.9, batch_size=64, epochs=40,
        lr_steps=(20, 30), lr_gamma=0.5, first_epoch_weight_decay=0.03, weight_decay=9e-5,
    )  # fmt: skip
    residual = runs.residual("cifar")(paper(), None)[0].train.config
    assert (residual.model, residual.lr_steps, residual.lr_gamma) == ("resnet20", (100, 150, 200), 0.1)
    assert (residual.batch_size, residual.epochs, residual.first_epoch_weight_decay) == (128, 250, 0.005)
    assert residual.augment == "crop-flip"
    assert departures(paper(), "epochs", "seeds") == []
    assert departures(small(), "epochs", "lr") == ["epochs 4 (published: 40)"]
    for name, words in (
        ("cifar", "augment none (published: crop-flip)"),
        ("imagenet", "augment none (published: random"),
    ):
        said = PFA["pfa-imagenet" if name == "imagenet" else "pfa-cifar10"].options(smoke())["departures"]
        assert sum(one.startswith(words) for one in said) == 1
        assert PFA["pfa-claims"].options(paper())["departures"] == []


def test_a_change_concerns_what_depends_on_it_and_nothing_else(tmp_path):
    store = RunStore(tmp_path / "store")

    def keys(*settings):
        profile = smoke().changed(settings)
        return {one.target.name: one.key for one in plan(list(PFA.values()), profile, None, store, tmp_path)}

    before = keys()
    for settings, concerned in (
        (["expansion_draws=5"], {"pfa-expansion"}),
        (["cifar_epochs=2"], {"pfa-cifar10", "pfa-claims"}),
        (["densities=1,0.5,0.1"], {"pfa-sparsity", "pfa-claims"}),
        (["epochs=2"], {"pfa-mnist", "pfa-sparsity", "pfa-paths", "pfa-claims"}),
    ):
        after = keys(*settings)
        assert {name for name in before if before[name] != after[name]} == concerned


def test_images_that_are_not_there_are_told_in_one_line(tmp_path):
    [one] = plan([PFA["pfa-imagenet"]], small(), tmp_path, RunStore(tmp_path / "store"), tmp_path)
    assert one.state == "impossible"
    assert "--set imagenet_dataset=" in one.problem
    assert "\n" not in one.problem
    [claims] = plan(
        [PFA["pfa-claims"]], smoke().changed(["cifar_dataset=svhn"]), tmp_path, RunStore(tmp_path), tmp_path
    )
    assert claims.state == "to make"
    assert "train_32x32.mat" in claims.left_out


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("pfa-claims", "pfa-imagenet")])
def test_a_figure_has_no_empty_panel_and_cuts_nothing_off(name):
    figures, tables = [[one for one in drawn(name) if (one.figure is None) is kind] for kind in (False, True)]
    (figure,) = (one.figure for one in figures)
    assert all(axes.lines or axes.collections for axes in figure.axes)
    box, (width, height) = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer()), figure.get_size_inches()
    assert min(box.x0, box.y0) >= -0.02
    assert box.x1 <= width + 0.02
    assert box.y1 <= height + 0.02
    assert [one.suffix for one in tables] == ["-table"]
    assert all(len(one.table) for one in tables)


def test_published_accuracies_stand_beside_ours_and_are_named_so():
    table = accuracies(metrics(FINAL["mnist"]), FINAL["mnist"]).set_index("rule")
    assert table["published_final"].to_dict() == {
        "BP": 98.38, "FA": 98.23, "DFA": 98.15, "USF": 98.25, "PFA": 98.39, "PFA-O": 98.42
    }  # fmt: skip
    assert table["final_mean"].to_numpy() == pytest.approx(table["published_final"].to_numpy() + 0.1)
    assert table["best_mean"].to_numpy() == pytest.approx(table["final_mean"].to_numpy() + 0.5)
    assert table["final_sd"].to_numpy() == pytest.approx(0.1)  # of 0, 0.1, 0.2
    assert set(table["n"]) == {3}
    labels = [text.get_text() for text in drawn("pfa-mnist")[0].figure.findobj() if hasattr(text, "get_text")]
    assert any("Open diamonds: published" in text and "epochs 4 (published: 40)" in text for text in labels)


def test_a_run_that_diverged_counts_in_no_mean():
    frame = metrics({"pfa": 98.0})
    frame.loc[(frame["seed"] == 2) & (frame["epoch"] == 4), "train_loss"] = np.nan
    row = accuracies(frame, {}).iloc[0]
    assert (row["n"], row["diverged"]) == (2, 1)
    assert row["final_mean"] == pytest.approx(98.05)
    assert math.isnan(row["published_final"])


def test_paths_end_where_the_last_epoch_is():
    published = PFA["pfa-paths"].options(paper())["published"]
    table = ends(metrics({"fa": 98, "pfa": 98}), published).set_index(["rule", "layer"])
    assert list(table.index) == [("FA", 2), ("FA", 3), ("PFA", 2), ("PFA", 3)]
    assert table.loc[("FA", 2), "angle_mean"] == 71  # 75, less one an epoch
    assert tuple(table.loc[("PFA", 3), ["published_angle_low", "published_angle_high"]]) == (19, 23)
    assert math.isnan(table.loc[("FA", 2), "published_norm_ratio_low"])


def test_claims_follow_what_was_put_into_the_tables():
    few, many = (dict(tables_of("pfa-claims")) for _ in range(2))
    many["mnist"] = metrics(FINAL["mnist"], seeds=11)
    sparse = {1.0: {"fa": 98.0, "pfa": 98.4}, 0.1: {"fa": 94.0, "pfa": 98.3}}
    many["sparse"] = pd.concat([metrics(of, seeds=11, density=density) for density, of in sparse.items()])
    many["cifar"] = metrics(FINAL["cifar"], seeds=11)
    profile = {"seeds": list(range(11)), "cifar_seeds": list(range(11))}
    found = importlib.import_module("reports.paper.judgement").judged(declared(profile), many)
    verdicts = found.set_index("claim")["verdict"]
    assert verdicts.pop("The path of PFA ends nearer to W than that of FA") == "holds"  # a degree a rule: 80, 79, ...
    assert verdicts.pop("The path of PFA-O ends nearer to W than that of PFA") != "holds"  # no more than a degree
    assert set(verdicts) == {"holds"}
    assert "undecided" in set(
        importlib.import_module("reports.paper.judgement").judged(declared(profile), few)["verdict"]
    )
    assert beforehand(paper().to_dict())["can_be_decided"].sum() == 1  # five seeds: 1/32 below 0.05, 2/32 not
    assert beforehand(paper().to_dict())["claim"].tolist() == found["claim"].tolist()


def test_sparse_runs_that_all_diverged_are_no_traceback():
    tables = dict(tables_of("pfa-claims"))
    parts = [metrics({"fa": 98.0, "pfa": 98.0}, density=density) for density in (1.0, 0.1)]
    parts[1] = parts[1].assign(checkpoint=parts[1]["checkpoint"] + "-sparse")
    parts[1].loc[parts[1]["epoch"] > 0, "train_loss"] = np.nan
    tables["sparse"] = pd.concat(parts, ignore_index=True)
    profile = {"seeds": [0, 1, 2], "cifar_seeds": [0, 1, 2]}
    found = importlib.import_module("reports.paper.judgement").judged(declared(profile), tables).set_index("claim")
    assert found.loc["Sparse feedback (density 0.1) costs PFA less than FA", "value"] == 0


def test_the_product_of_b_has_the_moments_and_ends_of_theory(tmp_path):
    rows, draws = 60, 40
    expansion(tmp_path, {}, expansions=[1, 4, 25], outputs=rows, columns=300, draws=draws)
    table = pd.read_csv(tmp_path / "expansion.csv")
    assert len(table) == 3 * draws
    for k, of in table.groupby("expansion"):
        width = int(k) * rows
        ratio, angle = of["norm_ratio"].mean(), of["angle"].mean()
        assert ratio**2 == pytest.approx(expected_square(rows, width), rel=0.02)
        assert angle == pytest.approx(expected_angle(rows, width), abs=0.5)
        least, largest = spectrum_ends(rows, width)
        assert of["least"].mean() == pytest.approx(least, abs=0.1)
        assert of["largest"].mean() == pytest.approx(largest, rel=0.1)


def test_the_closed_form_is_the_mean_over_every_matrix():
    """B of 2 x 2 with entries -a, 0, a: all 81 matrices, of variance 1 / 2 and a kurtosis that is that of the uniform
    distribution where 0 has the share that makes it so."""
    share = 1 - 1 / (9 / 5)  # of 0: E[x^4] / E[x^2]^2 = 1 / (1 - share)
    a = math.sqrt(0.5 / (1 - share))
    chance = {-a: (1 - share) / 2, 0.0: share, a: (1 - share) / 2}
    total = 0.0
    for entries in np.stack(np.meshgrid(*[list(chance)] * 4), -1).reshape(-1, 4):
        b = entries.reshape(2, 2)
        total += math.prod(chance[x] for x in entries) * float(np.trace(b @ b.T @ b @ b.T)) / 2
    assert total == pytest.approx(expected_square(2, 2))
    assert expected_angle(10**6, 10**7) == pytest.approx(17.548, abs=1e-3)  # k = 10: arccos(1 / sqrt(1.1))


TINY = ["hidden=8", "epochs=1", "seeds=0", "rules=bp,fa,pfa", "lr_steps=", "cifar_rules=bp,pfa", "imagenet_rules=bp",
        "cifar_train_size=32", "imagenet_train_size=32", "expansions=1,2", "expansion_draws=2"]  # fmt: skip


@pytest.mark.slow  # make smoke makes them all, in CI too
def test_targets_are_made_of_the_digits(tmp_path, capsys):
    """Two of the figures and the claims; `make smoke` makes them all."""
    names = ["pfa-mnist", "pfa-cifar10", "pfa-claims"]
    command = ["figures", "--only", *names, "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out"),
               "--latex", "--set", *TINY]  # fmt: skip
    assert main(command) == 0
    for name in names:
        record = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        assert record["target"] == name
        assert record["profile"]["rules"] == ["bp", "fa", "pfa"]
        assert (tmp_path / "out" / f"{name}.png").is_file() is (name != "pfa-claims")
    assert "published" in (tmp_path / "out" / "pfa-mnist-table.tex").read_text()
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.index('id="target-pfa-mnist"') < page.index('id="target-pfa-cifar10"')
    capsys.readouterr()
    assert main([*command, "--dry-run"]) == 0
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert [lines[name][-3:] for name in names] == [["up", "to", "date"]] * len(names)
    assert "fig1," in lines["of"]  # of another paper
