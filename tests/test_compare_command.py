"""``analyze compare`` on several seeds of two rules."""

import re

import numpy as np
import pandas as pd
import pytest

from reports.analyses import Compare
from reports.analyses.compared import comparison_frame, group_label, seed_rows
from reports.cli import main
from reports.subjects import load_subject
from robustness.comparison import holm, mcnemar, rank_sum

COLUMNS = [
    *("quantity", "test", "first", "second", "value_first", "value_second", "difference", "ci_low", "ci_high"),
    *("p_value", "p_holm", "smallest_p", "n_first", "n_second"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders bp0, bp1, bp2, fa0, fa1, fa2."""
    root = tmp_path_factory.mktemp("runs")
    for rule in ("bp", "fa"):
        for seed in range(3):
            flags = ["--hidden", "16", "--epochs", "4", "--lr", "5e-3", "--quiet", "--device", "cpu"]
            assert (
                main(["train", "--rule", rule, "--seed", str(seed), "--out", str(root / f"{rule}{seed}"), *flags]) == 0
            )
    return root


def compare(capsys, *arguments):
    """Return exit status, stdout and stderr of ``analyze compare``."""
    try:
        status = main(["compare", *map(str, arguments), "--quiet", "--device", "cpu"])
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def right(folder):
    """Return which test digits the network in ``folder`` gets right."""
    subject = load_subject(folder, device="cpu")
    return (subject.pixel_model()(subject.images / 255).argmax(1) == subject.labels).numpy()


def test_pairs_and_groups_are_tested(runs, tmp_path, capsys):
    folders = [runs / f"{rule}{seed}" for rule in ("bp", "fa") for seed in range(3)]
    status, out, _ = compare(capsys, *folders, "--attack", "fgsm", "--eps", 0.1, "--out", tmp_path)
    assert status == 0
    frame = pd.read_csv(tmp_path / "compare.csv")
    assert list(frame.columns) == COLUMNS
    assert set(frame.quantity) == {"accuracy", "accuracy under fgsm, eps 0.1"}
    paired = frame[frame.test == "mcnemar"]
    assert len(paired) == 5 * 2
    assert set(paired.second) == {str(folders[0])}
    row = paired[(paired.quantity == "accuracy") & (paired["first"] == str(runs / "fa1"))].iloc[0]
    expected = mcnemar(right(runs / "fa1"), right(runs / "bp0"))
    assert row.p_value == pytest.approx(expected.p_value)
    assert row.difference == pytest.approx(expected.difference)
    assert row.value_first == pytest.approx(right(runs / "fa1").mean())
    family = paired[paired.quantity == "accuracy"]  # one question, five networks
    assert row.p_holm == pytest.approx(holm(family.p_value.tolist())[list(family.index).index(row.name)])

    ranks = frame[(frame.test == "rank-sum") & (frame.quantity == "accuracy")]
    assert ranks[["first", "second", "n_first", "n_second"]].to_numpy().tolist() == [["fa", "bp", 3, 3]]
    groups = [[right(runs / f"{rule}{seed}").mean() for seed in range(3)] for rule in ("fa", "bp")]
    assert ranks.p_value.iloc[0] == pytest.approx(rank_sum(*groups).p_value)
    assert ranks.smallest_p.iloc[0] == pytest.approx(0.1)
    assert "rank-sum" in out
    assert (tmp_path / "compare.json").is_file()


def test_numbers_of_other_tables_join(runs, tmp_path, capsys):
    folders = [runs / "bp0", runs / "bp1", runs / "fa0", runs / "fa1"]
    table = pd.DataFrame(
        {
            "checkpoint": [*map(str, folders), "elsewhere"],
            "quantity": "trace",
            "index": 0,
            "value": [1.0, 2.0, 30.0, 40.0, 500.0],
            "rule": ["bp", "bp", "fa", "fa", "fa"],
            "angle": np.nan,
        }
    )
    table.to_csv(tmp_path / "hessian.csv", index=False)
    assert compare(capsys, *folders, "--tables", tmp_path / "hessian.csv", "--out", tmp_path)[0] == 0
    frame = pd.read_csv(tmp_path / "compare.csv")
    trace = frame[frame.quantity == "hessian trace index 0"].set_index(["test", "first"])
    assert trace.difference["none", str(runs / "fa1")] == 39.0
    assert trace.difference["rank-sum", "fa"] == 35.0 - 1.5
    assert np.isnan(trace.p_value["none", str(runs / "fa1")])
    assert "elsewhere" not in frame.to_csv()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bp0"], "at least two checkpoints"),
        (["bp0", "bp0"], "given twice"),
        (["bp0", "bp1", "--tables", "none.csv"], "no such table: none.csv"),
        (["bp0", "bp1", "--tables", "bp0/metrics.csv"], "has no column checkpoint"),
        (["bp0", "bp1", "--attack", "pgd", "--eps", "2"], "eps 2 is outside [0, 1]"),
        (["bp0", "bp1", "--attack", "pdg"], "unknown attack 'pdg'"),
        (["bp0", "bp1", "--attack", "--eps", ".1"], "--eps has an effect with --attack only"),
        (["bp0", "bp1", "--attack", "--norm", "l2"], "--norm has an effect with --attack only"),
        (
            ["bp0", "bp1", "--attack", "fgsm", "--steps", "3"],
            "--attack bim, pgd, apgd-..., fab, strong, auto, torchattacks:NAME",
        ),
    ],
)
def test_bad_input_is_one_line(runs, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(runs)
    status, out, err = compare(capsys, *arguments, "--out", tmp_path / "new")
    assert status == 2
    assert re.fullmatch(rf"analyze: error: .*{re.escape(message)}.*\n", err)
    assert out == ""
    assert not (tmp_path / "new").exists()


def test_tables_of_other_checkpoints_are_refused(runs, tmp_path, capsys):
    pd.DataFrame({"checkpoint": ["x"], "value": [1.0]}).to_csv(tmp_path / "hessian.csv", index=False)
    status, _, err = compare(capsys, runs / "bp0", runs / "bp1", "--tables", tmp_path / "hessian.csv")
    assert status == 2
    assert "no row of the checkpoints given; it has x" in err


@pytest.mark.parametrize("given", ["", "ckpt.pt", "checkpoints/epoch-0002.pt"])
@pytest.mark.parametrize("held", ["", "ckpt.pt", "checkpoints/epoch-0002.pt"])
def test_a_run_is_its_last_checkpoint_by_any_name(tmp_path, capsys, given, held):
    flags = ["--hidden", "8", "--epochs", "2", "--checkpoint-every", "1", "--quiet", "--device", "cpu"]
    folders = [tmp_path / rule for rule in ("bp", "fa")]
    for folder in folders:
        assert main(["train", "--rule", folder.name, "--out", str(folder), *flags]) == 0
    rows = [(str(f / "checkpoints" / f"epoch-000{epoch}.pt"), 100.0) for f in folders for epoch in range(2)]
    rows += [(str(folder / held), value) for folder, value in zip(folders, (1.0, 4.0), strict=True)]
    table = pd.DataFrame(rows, columns=["checkpoint", "value"]).assign(quantity="trace", rule="fa", angle=np.nan)
    table.to_csv(tmp_path / "hessian.csv", index=False)
    flags = ["--tables", tmp_path / "hessian.csv", "--out", tmp_path]
    assert compare(capsys, *(folder / given for folder in folders), *flags)[0] == 0
    frame = pd.read_csv(tmp_path / "compare.csv").set_index("quantity")
    assert frame.loc["hessian trace", ["value_first", "value_second"]].tolist() == [4.0, 1.0]
    assert frame.loc["hessian trace", "first"] == str(folders[1] / given)


@pytest.fixture(scope="module")
def lost(tmp_path_factory):
    """A run that diverged, with its snapshots and its start."""
    folder = tmp_path_factory.mktemp("lost") / "lost"
    flags = ["--hidden", "16", "--epochs", "2", "--optimiser", "sgd", "--lr", "1e20", "--quiet", "--device", "cpu"]
    kept = ["--checkpoint-every", "1", "--snapshot-every", "5"]
    assert main(["train", *flags, *kept, "--out", str(folder)]) == 0
    return folder


def test_a_diverged_network_among_others_is_left_out_by_name(runs, lost, tmp_path, capsys):
    status, _, err = compare(capsys, runs / "bp0", lost, runs / "bp1", "--out", tmp_path)
    assert status == 0
    assert err == f"analyze: warning: {lost} is left out: its training diverged\n"
    assert set(pd.read_csv(tmp_path / "compare.csv")["first"]) == {str(runs / "bp1")}
    for folders, message in (
        ([lost, runs / "bp0", runs / "bp1"], "has diverged: give another network first"),
        ([runs / "bp0", lost], "every network but the baseline has diverged"),
        ([lost, lost / "ckpt.pt"], "every network given has diverged"),
        ([lost], "compare needs at least two checkpoints"),
    ):
        status, _, err = compare(capsys, *folders, "--out", tmp_path / "new")
        assert (status, message in err) == (2, True)
    flags = ["--gradient", "transfer", "--eps", ".1", "--quiet", "--device", "cpu", "--out", str(tmp_path / "new")]
    assert main(["attack", str(runs / "bp0"), "--surrogate", str(lost), *flags]) == 2
    assert f"{lost}: the weights hold NaN" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_hessians_of_a_sweep_go_round_a_diverged_network(runs, lost, tmp_path, capsys):
    flags = ["--k", "1", "--probes", "4", "--out", str(tmp_path), "--quiet", "--device", "cpu"]
    assert main(["hessian", str(lost), str(runs / "bp0"), *flags]) == 0
    assert set(pd.read_csv(tmp_path / "hessian.csv").checkpoint) == {str(runs / "bp0")}
    assert main(["hessian", str(lost), "--every-epoch", "--force", *flags]) == 0
    assert set(pd.read_csv(tmp_path / "hessian.csv").epoch) == {0}
    assert main(["hessian", str(lost), "--force", *flags]) == 2
    assert f"{lost}: the weights hold NaN" in capsys.readouterr().err


def test_groups_are_rules_and_angles():
    assert group_label({"rule": "ifa", "angle": 45.0, "seed": 1}) == "ifa 45"
    assert group_label({"rule": "fa", "angle": float("nan")}) == "fa"
    assert group_label({}) is None


def test_a_single_run_or_a_diverged_one_has_no_rank():
    values = pd.DataFrame(
        {"group": ["bp", "bp", "fa", "ifa 0", "ifa 0"], "quantity": "q", "value": [1.0, 2.0, 3.0, np.inf, 4.0]}
    )
    assert seed_rows(values, "bp") == []
    assert seed_rows(values, None) == []
    assert comparison_frame([], Compare.tables[0]).columns.tolist() == COLUMNS


def attack_table(path, folders, values, **changed):
    """Write a table of PGD at eps .1 on these networks."""
    fixed = {"attack": "pgd", "gradient": "true", "eps": 0.1, "norm": "linf", "loss": "ce", "steps": 10, "restarts": 1}
    fixed |= {"step_size": 0.025, "curve": "nested", "rule": [f.name[:2] for f in folders], "angle": np.nan}
    frame = pd.DataFrame({"checkpoint": [*map(str, folders)], "accuracy": values, **(fixed | changed)})
    path.parent.mkdir(exist_ok=True)
    frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("changed", [{"norm": "l2"}, {"steps": 40}, {"loss": "dlr"}, {"curve": "raw"}, {"restarts": 5}])
def test_threat_models_are_not_pooled(runs, tmp_path, capsys, changed):
    folders = [runs / name for name in ("bp0", "bp1", "fa0", "fa1")]
    one = attack_table(tmp_path / "one" / "attack.csv", folders, [0.1, 0.2, 0.3, 0.4])
    two = attack_table(tmp_path / "two" / "attack.csv", folders, [0.5, 0.6, 0.7, 0.8], **changed)
    assert compare(capsys, *folders, "--tables", one, two, "--out", tmp_path)[0] == 0
    frame = pd.read_csv(tmp_path / "compare.csv")
    ranks = frame[(frame.test == "rank-sum") & frame.quantity.str.startswith("attack")]
    assert ranks[["n_first", "n_second"]].to_numpy().tolist() == [[2, 2], [2, 2]]
    assert sorted(ranks.value_first) == pytest.approx([0.35, 0.75])
    ((name, value),) = changed.items()
    shown = value if isinstance(value, str) else f"{name} {value}"
    assert ranks.quantity.str.endswith(shown).tolist().count(True) == 1


def test_two_tables_of_one_quantity_are_refused(runs, tmp_path, capsys):
    folders = [runs / "bp0", runs / "bp1"]
    one = attack_table(tmp_path / "one" / "attack.csv", folders, [0.1, 0.2])
    two = attack_table(tmp_path / "two" / "attack.csv", folders, [0.1, 0.3])
    status, _, err = compare(capsys, *folders, "--tables", one, two, "--out", tmp_path / "new")
    assert status == 2
    assert f"two numbers of attack pgd true eps 0.1 for {runs / 'bp1'}" in err
    assert compare(capsys, *folders, "--tables", one, one, "--out", tmp_path / "new")[0] == 0


@pytest.fixture(scope="module")
def epochs(tmp_path_factory):
    """Folders bp0, bp1, fa0, fa1 with a checkpoint of each of two epochs."""
    root = tmp_path_factory.mktemp("epochs")
    flags = ["--hidden", "8", "--epochs", "2", "--checkpoint-every", "1", "--quiet", "--device", "cpu"]
    for rule in ("bp", "fa"):
        for seed in "01":
            assert main(["train", "--rule", rule, "--seed", seed, "--out", str(root / f"{rule}{seed}"), *flags]) == 0
    return root


@pytest.mark.parametrize("other", ["ckpt.pt", "checkpoints/epoch-0002.pt"])
def test_one_run_by_two_names_is_refused(epochs, capsys, other):
    status, _, err = compare(capsys, epochs / "bp0", epochs / "bp1", epochs / "bp0" / other)
    assert status == 2
    assert f"{epochs / 'bp0'} and {epochs / 'bp0' / other} are one run at one epoch, given twice" in err


def test_epochs_of_a_run_are_one_seed_and_mixed_epochs_are_told(epochs, tmp_path, capsys):
    early = epochs / "bp0" / "checkpoints" / "epoch-0001.pt"
    runs = [epochs / "bp0", early, epochs / "bp1", epochs / "fa0", epochs / "fa1"]
    status, _, err = compare(capsys, *runs, "--out", tmp_path)
    assert status == 0
    assert f"warning: {early}: earlier epochs of runs given, no seeds of their own" in err
    frame = pd.read_csv(tmp_path / "compare.csv")
    ranks = frame[frame.test == "rank-sum"].iloc[0]
    assert (ranks.n_first, ranks.n_second) == (2, 2)
    assert str(early) in set(frame[frame.test == "mcnemar"]["first"])  # image by image it is a network like any other
    runs[3] = epochs / "fa0" / "checkpoints" / "epoch-0001.pt"
    status, _, err = compare(capsys, *runs, "--out", tmp_path, "--force")
    assert status == 0
    assert f"networks of different epochs are compared (epoch 1: {runs[3]}; epoch 2: {runs[0]}" in err


def test_holm_asks_one_quantity_at_a_time():
    rows = [
        {"quantity": q, "test": "mcnemar", "p_value": p} for q, p in zip("aabb", (0.01, 0.03, 0.02, 0.5), strict=True)
    ]
    frame = comparison_frame(rows, Compare.tables[0])
    assert frame.p_holm.tolist() == pytest.approx([0.02, 0.03, 0.04, 0.5])


def test_runs_in_a_store_are_called_by_their_names(tmp_path, capsys):
    flags = ["--rule", "bp", "fa", "--hidden", "8", "--epochs", "1", "--quiet", "--device", "cpu"]
    assert main(["train", *flags, "--store", str(tmp_path / "store")]) == 0
    folders = sorted(path.parent for path in (tmp_path / "store").rglob("done.json"))
    capsys.readouterr()  # the table of the training has the names too
    status, out, _ = compare(capsys, *folders, "--attack", "fgsm", "--eps", 0.1, "--out", tmp_path / "out")
    assert status == 0
    assert "digits-bp-seed0" in out
    assert "digits-fa-seed0" in out
    frame = pd.read_csv(tmp_path / "out" / "compare.csv")
    paired = frame[frame.test == "mcnemar"]
    assert {*paired.run_first, *paired.run_second} == {"digits-bp-seed0", "digits-fa-seed0"}
    assert {*paired["first"], *paired["second"]} == set(map(str, folders))
