"""The one table of rules and metrics: means, deviations, what a test says, and what is compared with what."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from alignscape.errors import InputError
from reports import metric_table
from reports.cli import main
from reports.page.collect import find_tables
from reports.page.metric_table import direction, welch
from reports.page.metric_text import fragment, latex, number, overview_fragment, text
from robustness import holm

SEEDS = {"bp": (0.95, 0.96, 0.955), "ifa": (0.949, 0.961, 0.954), "fa": (0.80, 0.82, 0.81)}


def write_run(folder, rule, seed, accuracy, loss=0.5, **config):
    """A run folder as far as its table goes."""
    folder.mkdir(parents=True)
    rows = [
        {"epoch": epoch, "step": 10 * epoch, "train_loss": loss, "test_loss": loss, "train_accuracy": 1.0}
        | {"test_accuracy": value, "seconds": 1.0}
        for epoch, value in enumerate((0.1, accuracy))
    ]
    pd.DataFrame(rows).to_csv(folder / "metrics.csv", index=False)
    settings = {"rule": rule, "seed": seed, "angle": 45.0 if rule == "ifa" else 0.0, "optimiser": "adam", **config}
    (folder / "config.json").write_text(json.dumps({"config": settings}))


@pytest.fixture
def runs(tmp_path):
    for rule, accuracies in SEEDS.items():
        for seed, accuracy in enumerate(accuracies):
            write_run(tmp_path / "runs" / f"{rule}-{seed}", rule, seed, accuracy)
    return tmp_path / "runs"


def rows_of(table, metric="test accuracy (%)"):
    return table.rows[table.rows["metric"] == metric].set_index("label")


def test_means_deviations_and_tests_are_those_of_scipy(runs):
    found = rows_of(metric_table([runs]))
    assert found.index.tolist() == ["BP", "IFA 45°", "FA"]
    for label, values in zip(found.index, SEEDS.values(), strict=True):
        assert found["mean"][label] == pytest.approx(100 * np.mean(values))
        assert found["sd"][label] == pytest.approx(100 * np.std(values, ddof=1))
    raw = [stats.ttest_ind(SEEDS["bp"], SEEDS[other], equal_var=False).pvalue for other in ("ifa", "fa")]
    assert found["p_holm"].tolist()[1:] == pytest.approx(holm(raw))
    assert np.isnan(found["p_holm"]["BP"])
    assert found["n"].tolist() == [3, 3, 3]


def test_bold_are_the_best_and_what_is_not_told_from_it(runs):
    table = metric_table([runs])
    assert rows_of(table)["bold"].tolist() == [True, True, False]
    assert not rows_of(table, "train loss")["bold"].any()  # all alike: no rule is told from another
    assert rows_of(table, "train loss")["better"].tolist() == ["lower"] * 3


def test_runs_that_were_trained_otherwise_are_not_compared(runs):
    for seed in range(3):
        write_run(runs / f"pfa-{seed}", "pfa", seed, 0.99 + seed / 1000, optimiser="sgd")
    table = metric_table([runs])
    found = rows_of(table)
    assert table.apart == ("PFA",)
    assert found["bold"].tolist() == [True, True, False, False]  # though PFA is best by far
    assert not found["compared"]["PFA"]
    assert any("optimiser sgd, not adam" in note for note in table.notes)
    assert "PFA †" in text(table)


def test_one_seed_has_no_spread_and_takes_no_part(runs):
    write_run(runs / "dfa", "dfa", 0, 0.5)
    found = rows_of(table := metric_table([runs]))
    assert (found["n"]["DFA"], found["bold"]["DFA"], found["compared"]["DFA"]) == (1, False, False)
    assert np.isnan(found["sd"]["DFA"])
    assert found["p_holm"]["FA"] == rows_of(metric_table([runs]))["p_holm"]["FA"]
    assert "Rows of one seed take no part in the tests." in table.notes
    write_run(runs / "kp", "kp", 0, 0.99)  # the best mean, of which nothing is known
    assert not rows_of(metric_table([runs]))["bold"].any()


def test_settings_in_which_seeds_of_a_rule_differ_make_rows(runs):
    write_run(runs / "fa-lr", "fa", 0, 0.9, lr=0.1)
    write_run(runs / "fa-lr-1", "fa", 1, 0.9, lr=0.01)
    labels = metric_table([runs]).labels
    assert "FA, lr 0.1" in labels
    assert "FA, lr 0.01" in labels


def test_a_setting_that_a_file_leaves_out_is_at_its_default(runs):
    for seed in range(2):
        write_run(runs / f"tanh-{seed}", "bp", 3 + seed, 0.9, activation="tanh", clip_norm=1.0)  # sparse settings
        write_run(runs / f"watched-{seed}", "bp", 5 + seed, 0.9, monitor="hessian")  # which changes nothing
    found = rows_of(metric_table([runs]))["n"].to_dict()
    assert found == {
        "BP, activation relu, clip norm none": 5,
        "BP, activation tanh, clip norm 1": 2,
        "IFA 45°": 3,
        "FA": 3,
    }


def test_two_networks_of_one_seed_are_no_seeds(runs):
    write_run(runs / "again", "fa", 0, 0.9)
    with pytest.raises(InputError, match=r"again.*fa-0.* are all FA, seed 0|fa-0.*again.* are all FA, seed 0"):
        metric_table([runs])


def test_a_run_that_diverged_counts_in_no_mean(runs):
    (runs / "bp-0" / "done.json").write_text(json.dumps({"diverged": True, "files": {}}))
    table = metric_table([runs])
    assert rows_of(table)["n"]["BP"] == 2
    assert "Runs that diverged count in no mean." in table.notes
    assert re.search(r"BP .*3", text(table).splitlines()[1]) is None


def hessians(folder, runs, **values):
    frame = pd.DataFrame(
        [
            {"checkpoint": str(runs / name / "ckpt.pt"), "quantity": quantity, "index": place, "value": value}
            | {"ci_low": value, "ci_high": value, "residual": 0.0, "n_samples": 10, "rule": name[:2], "angle": np.nan}
            | {"seed": int(name[-1]), "epoch": 1}
            for name, value in values.items()
            for place, quantity in enumerate(("trace", "eigenvalue"))
        ]
    )
    folder.mkdir(exist_ok=True)
    frame.to_csv(folder / "hessian.csv", index=False)
    (folder / "hessian.json").write_text(json.dumps({"checkpoints": {}}))


def test_numbers_of_a_network_meet_whatever_it_is_called(runs, tmp_path):
    names = {f"{rule}-{seed}": 10.0 + seed for rule in ("bp", "fa") for seed in range(3)}
    hessians(tmp_path / "results", runs, **names)
    table = metric_table([runs, tmp_path / "results"])
    assert table.labels == ["BP", "IFA 45°", "FA"]
    found = rows_of(table, "Hessian trace")
    assert found["mean"].tolist()[::2] == [11.0, 11.0]
    assert found["n"].tolist() == [3, 0, 3]
    assert metric_table([runs, tmp_path / "results"], ["trace"]).metrics == ["Hessian trace"]
    assert metric_table([tmp_path / "results" / "hessian.csv"], ["hessian eigenvalue index 1"]).labels == ["BP", "FA"]
    with pytest.raises(InputError, match="no metric is called 'beauty'; there are: test accuracy"):
        metric_table([runs], ["beauty"])


def test_two_numbers_for_one_network_are_refused(runs, tmp_path):
    hessians(tmp_path / "one", runs, **{"bp-0": 1.0})
    hessians(tmp_path / "two", runs, **{"bp-0": 1.0})
    assert metric_table([runs, tmp_path / "one", tmp_path / "two"]).metrics[2:] == ["Hessian trace", "top eigenvalue"]
    hessians(tmp_path / "two", runs, **{"bp-0": 2.0})
    with pytest.raises(InputError, match="both have hessian numbers of"):
        metric_table([runs, tmp_path / "one", tmp_path / "two"])


def test_welch_of_groups_without_spread():
    assert welch([1, 1], [1, 1]) == 1
    assert welch([1, 1], [2, 2]) == 0
    assert welch([1, 1, 1], [2, 2, 3]) == pytest.approx(stats.ttest_1samp([2, 2, 3], 1).pvalue)


@pytest.mark.parametrize(
    ("mean", "sd", "shown"),
    [
        (95.4321, 0.31, "95.4 ± 0.3"),
        (95.4321, 0.14, "95.43 ± 0.14"),
        (3012.3, 210.0, "3012 ± 210"),
        (0.07757, float("nan"), "0.07757"),
        (2.0, 0.0, "2 ± 0"),
        (1.234e7, 5e5, "(1.23 ± 0.05)e7"),
        (float("nan"), float("nan"), ""),
    ],
)
def test_numbers_have_the_digits_of_their_spread(mean, sd, shown):
    assert number(mean, sd) == shown


@pytest.mark.parametrize(
    ("metric", "better"), [("test accuracy (%)", "higher"), ("Hessian trace", "lower"), ("height", "")]
)
def test_of_what_more_is_better(metric, better):
    assert direction(metric) == better


def test_latex_and_html_have_the_table(runs):
    table = metric_table([runs])
    tex, page = latex(table), fragment(table)
    assert r"$\mathbf{95.50 \pm 0.05}$" not in tex
    assert re.search(r"BP & \$\\mathbf\{95\.5 \\pm 0\.5\}\$", tex)
    assert r"IFA 45$^{\circ}$" in tex
    assert str(runs) not in tex
    assert page.count("<strong>") == 2
    assert re.search(r'<td data-value="95\.5\d*"><strong>95\.5 ± 0\.5</strong></td>', page)
    assert overview_fragment(find_tables(runs)) == page


def test_the_command_writes_three_files_and_replaces_only_its_own(runs, tmp_path, capsys):
    out = tmp_path / "out"
    call = ["compare", str(runs), "--table", "--out", str(out)]
    assert main(call) == 0
    assert "*95.5 ± 0.5*" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == [
        f"metric_table.{end}" for end in ("csv", "html", "json", "tex")
    ]
    first = (out / "metric_table.csv").read_bytes()
    assert main(call) == 0
    assert (out / "metric_table.csv").read_bytes() == first
    assert main([*call, "--metrics", "loss"]) == 2
    assert (
        "metric_table.csv holds another table: choose another --out, or replace it by --force"
        in capsys.readouterr().err
    )
    assert (out / "metric_table.csv").read_bytes() == first
    assert main([*call, "--metrics", "loss", "--force"]) == 0
    assert main([*call, "--samples", "5"]) == 2
    assert "--samples has no effect with --table" in capsys.readouterr().err
    assert main(["compare", str(runs), str(runs), "--metrics", "loss"]) == 2
