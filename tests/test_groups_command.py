"""``analyze hessian`` and ``spectrum`` with ``--by`` and ``--hessian all``, against a dense Hessian."""

import pandas as pd
import pytest
import torch

import alignscape
from landscape import HessianOperator
from reports.cli import main


@pytest.fixture(scope="module")
def network():
    """A small network on the digits, with the dense matrices of its first 60 samples, by name."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = torch.nn.Linear(64, 4), torch.nn.Tanh(), torch.nn.Linear(4, 10)
        model = torch.nn.Sequential(torch.nn.Flatten(), *body)
    networks = alignscape.load({"net": model}, dataset="digits", device="cpu")
    subject = networks.subject("train", samples=60)
    inputs, targets = subject.inputs().double(), subject.labels
    dense = {}
    for kind in ("full", "ggn"):
        whole = HessianOperator(subject.model.double(), torch.nn.CrossEntropyLoss(), (inputs, targets), hessian=kind)
        dense[kind] = whole.product(torch.eye(whole.dim, dtype=torch.float64))
    model.float()
    dense["difference"] = dense["full"] - dense["ggn"]
    return networks, dense


@pytest.fixture(scope="module")
def found(network):
    return network[0].hessian(samples=60, k=2, by=["layer"], cross=True, hessian="all", trace_tol=0.05).frame()


GROUPS = {"1": slice(0, 260), "3": slice(260, 310)}


def value(found, quantity, index=0):
    (row,) = found[(found["quantity"] == quantity) & (found["index"] == index)].itertuples()
    return row


@pytest.mark.parametrize("matrix", ["full", "ggn", "difference"])
def test_each_matrix_by_groups(network, found, matrix):
    truth, prefix = network[1][matrix], "" if matrix == "full" else f"{matrix} "
    assert value(found, f"{prefix}eigenvalue", 1).value == pytest.approx(
        float(torch.linalg.eigvalsh(truth)[-1]), rel=1e-3
    )
    size = float(torch.linalg.matrix_norm(truth))
    for group, own in GROUPS.items():
        block = truth[own, own]
        row = value(found, f"{prefix}trace:{group}")
        assert row.value == pytest.approx(float(block.trace()), abs=2.5 * (row.ci_high - row.value) + 1e-6)
        for index in (1, 2):
            row = value(found, f"{prefix}eigenvalue:{group}", index)
            assert row.value == pytest.approx(float(torch.linalg.eigvalsh(block)[-index]), rel=1e-3)
            assert row.residual < 1e-3 * size
        row = value(found, f"{prefix}norm:{group}")
        assert row.value == pytest.approx(float(torch.linalg.matrix_norm(block)), rel=0.5)
    rest = truth.clone()
    for own in GROUPS.values():
        rest[own, own] = 0
    row = value(found, f"{prefix}eigenvalue:between groups", 1)
    assert row.value == pytest.approx(float(torch.linalg.eigvalsh(rest)[-1]), rel=1e-3)
    squares = found[found["quantity"].str.startswith(f"{prefix}norm:")]
    assert squares["share"].sum() == pytest.approx(1)
    traces = found[found["quantity"].str.startswith(f"{prefix}trace:")]
    assert traces["share"].sum() == pytest.approx(1)


def test_the_three_traces_add_up(found):
    """What the whole, its Gauss-Newton part and their difference say of the trace agrees within the intervals."""
    full, part, rest = (value(found, f"{prefix}trace") for prefix in ("", "ggn ", "difference "))
    error = sum((one.ci_high - one.value) ** 2 for one in (full, part, rest)) ** 0.5
    assert full.value == pytest.approx(part.value + rest.value, abs=2 * error)


def test_the_whole_is_what_it_is_without_groups(network, found):
    alone = network[0].hessian(samples=60, k=2, trace_tol=0.05).frame()
    mine = found[found["quantity"].isin(["trace", "eigenvalue"])]
    pd.testing.assert_frame_equal(
        mine[["quantity", "index", "value", "ci_low"]].reset_index(drop=True),
        alone[["quantity", "index", "value", "ci_low"]],
        check_exact=True,
    )


def test_spectra_by_group(network):
    result = network[0].spectrum(samples=60, steps=30, probes=2, by=["1.*", "*"], cross=True)
    groups = result.frame("spectrum_groups")
    assert groups["group"].unique().tolist() == ["1.*", "*", "between groups"]
    truth = network[1]["full"]
    top = groups.groupby("group")["node"].max()
    assert top["1.*"] == pytest.approx(float(torch.linalg.eigvalsh(truth[GROUPS["1"], GROUPS["1"]])[-1]), rel=1e-4)
    assert top["*"] == pytest.approx(float(torch.linalg.eigvalsh(truth[GROUPS["3"], GROUPS["3"]])[-1]), rel=1e-4)
    assert "between groups" in str(result)
    assert result.frame().columns.tolist()[:3] == ["checkpoint", "probe", "node"]


def test_the_command_writes_shares(tmp_path, capsys):
    run = tmp_path / "run"
    flags = ["--epochs", "1", "--hidden", "4", "--train-size", "60", "--quiet"]
    assert main(["train", "--rule", "bp", *flags, "--out", str(run)]) == 0
    out = tmp_path / "out"
    assert main(["hessian", str(run), "--by", "layer", "--k", "1", "--out", str(out), "--quiet"]) == 0
    frame = pd.read_csv(out / "hessian.csv")
    traces = frame[frame["quantity"].str.startswith("trace:")]
    assert len(traces) == 2
    assert traces["share"].sum() == pytest.approx(1)
    assert not frame["quantity"].str.startswith("norm").any()
    assert main(["spectrum", str(run), "--by", "*.weight", "--steps", "5", "--out", str(out), "--quiet"]) == 0
    assert set(pd.read_csv(out / "spectrum_groups.csv")["group"]) == {"*.weight", "rest"}
    capsys.readouterr()
    for flags, message in [
        (["--by", "nothing*"], "no parameters match nothing*"),
        (["--by", "layer", "--layers"], "give one of them"),
        (["--cross"], "has an effect with --by only"),
    ]:
        assert main(["hessian", str(run), *flags, "--out", str(tmp_path / "new"), "--quiet"]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert not (tmp_path / "new").exists()
