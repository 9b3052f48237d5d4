"""No result is lost in silence: the same call replaces its own, another one is refused before it computes."""

import json

import pandas as pd
import pytest
import torch
from torch import nn

import alignscape
from alignscape.errors import InputError
from reports.cli import main
from reports.commands.report import check_page
from reports.page.latex import write_kept

FEW = ["--k", "1", "--probes", "2", "--samples", "50", "--quiet", "--device", "cpu"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    for rule in ("bp", "fa"):
        flags = ["--hidden", "8", "--epochs", "1", "--train-size", "100", "--checkpoint-every", "1", "--quiet"]
        assert main(["train", "--rule", rule, *flags, "--device", "cpu", "--out", str(out / rule)]) == 0
    return out


def hessian(capsys, *words):
    status = main(["hessian", *map(str, words), *FEW])
    return status, capsys.readouterr().err


def test_two_checkpoints_of_a_folder_have_two_places(runs, capsys):
    folder = runs / "bp" / "checkpoints"
    for epoch in (0, 1):
        assert hessian(capsys, folder / f"epoch-000{epoch}.pt")[0] == 0
    assert hessian(capsys, runs / "bp" / "ckpt.pt")[0] == 0
    found = [pd.read_csv(folder / f"epoch-000{epoch}" / "hessian.csv") for epoch in (0, 1)]
    assert [frame["epoch"].unique().tolist() for frame in found] == [[0], [1]]
    assert (runs / "bp" / "hessian.csv").is_file()


def test_the_same_call_replaces_its_own_and_another_is_refused(runs, tmp_path, capsys):
    assert hessian(capsys, runs / "bp", "--out", tmp_path)[0] == 0
    assert hessian(capsys, runs / "bp", "--out", tmp_path)[0] == 0
    assert hessian(capsys, runs / "bp", "--batch-size", "20", "--out", tmp_path)[0] == 0  # no part of the result
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for words, reason in (
        ((runs / "bp", "--tol", "0.5"), "--tol 0.0001, not 0.5"),
        ((runs / "fa",), "of other networks"),
        ((runs / "bp", runs / "fa"), "of other networks"),
    ):
        status, err = hessian(capsys, *words, "--out", tmp_path)
        assert status == 2
        assert f"hessian.csv holds another result ({reason}): choose another --out, or replace it by --force" in err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert hessian(capsys, runs / "fa", "--force", "--out", tmp_path)[0] == 0
    assert set(pd.read_csv(tmp_path / "hessian.csv")["rule"]) == {"fa"}


def test_a_table_of_somebody_else_is_kept(runs, tmp_path, capsys):
    (tmp_path / "hessian.csv").write_text("mine\n1\n")
    status, err = hessian(capsys, runs / "bp", "--out", tmp_path)
    assert status == 2
    assert "its sidecar does not say which" in err
    assert (tmp_path / "hessian.csv").read_text() == "mine\n1\n"


def test_results_from_before_there_were_identities_go_by_settings_and_networks(runs, tmp_path, capsys):
    assert hessian(capsys, runs / "bp", "--out", tmp_path)[0] == 0
    record = json.loads((tmp_path / "hessian.json").read_text())
    del record["identity"]
    (tmp_path / "hessian.json").write_text(json.dumps(record))
    assert hessian(capsys, runs / "fa", "--out", tmp_path)[0] == 2
    assert hessian(capsys, runs / "bp", "--out", tmp_path)[0] == 0
    assert "identity" in json.loads((tmp_path / "hessian.json").read_text())


def test_the_order_counts_where_the_first_is_the_baseline(runs, tmp_path, capsys):
    flags = ["--attack", "--samples", "50", "--quiet", "--device", "cpu", "--out", str(tmp_path)]
    assert main(["compare", str(runs / "bp"), str(runs / "fa"), *flags]) == 0
    assert main(["compare", str(runs / "bp"), str(runs / "fa"), *flags]) == 0
    assert main(["compare", str(runs / "fa"), str(runs / "bp"), *flags]) == 2


def test_saving_from_python_goes_by_the_same_rule(tmp_path):
    torch.manual_seed(0)
    net, images = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(60, 1, 2, 2)
    data = (images, torch.arange(60) % 2)
    alignscape.load(net, data=data).hessian(k=1).save(tmp_path)
    alignscape.load(net, data=data).hessian(k=1).save(tmp_path)
    others = [
        alignscape.load(net, data=data).hessian(k=2),
        alignscape.load(net, data=(images / 2, data[1])).hessian(k=1),
        alignscape.load(net, data=data, mean=0.5, std=0.5).hessian(k=1),
    ]
    nn.init.zeros_(net[1].bias)
    for other in (*others, alignscape.load(net, data=data).hessian(k=1)):
        with pytest.raises(InputError, match=r"choose another folder, or replace it by force=True"):
            other.save(tmp_path)
    others[0].save(tmp_path, force=True)
    assert len(pd.read_csv(tmp_path / "hessian.csv")) == 3


def test_latex_that_was_edited_is_kept(tmp_path):
    path = tmp_path / "t.tex"
    assert write_kept(path, "one\n")
    assert write_kept(path, "two\n")
    path.write_text(path.read_text().replace("two", "my own"))
    with pytest.warns(UserWarning, match="was edited, or is not ours"):
        assert not write_kept(path, "three\n")
    assert "my own" in path.read_text()
    assert write_kept(path, "three\n", force=True)


def test_a_page_of_somebody_else_is_kept(tmp_path):
    check_page(tmp_path)
    (tmp_path / "index.html").write_text("<h1>My page</h1>")
    with pytest.raises(InputError, match="was not made by analyze report"):
        check_page(tmp_path)
    (tmp_path / "index.html").write_text("<p>Made by alignscape 0.1.0</p>")
    check_page(tmp_path)


def test_a_config_file_is_not_replaced_by_another(tmp_path, capsys):
    path = tmp_path / "run.toml"
    call = ["train", "--rule", "fa", "--dump-config", str(path)]
    assert main(call) == 0
    assert main(call) == 0
    before = path.read_text()
    assert main([*call, "--lr", "0.5"]) == 2
    assert "is there already, with other settings" in capsys.readouterr().err
    assert path.read_text() == before
    assert main([*call, "--lr", "0.5", "--force"]) == 0
    assert path.read_text() != before
    assert main(["train", "--force", "--out", str(tmp_path / "run")]) == 2
