"""The example of docs/adding-an-analysis.md works as it stands: as a package's, as one of ours, and from Python."""

import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_imports import run
from test_plugins import install

import alignscape
from reports.cli import main
from reports.subjects import load_subject
from training.config import TrainConfig

PAGE = Path(__file__).resolve().parent.parent / "docs" / "adding-an-analysis.md"
CODE = "import sys; sys.path.append('site'); from reports.cli import main; sys.exit(main(sys.argv[1:]))"
QUIET = ["--device", "cpu", "--quiet"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of two rules, and the page's code as an installed package with the page's entry point."""
    root = tmp_path_factory.mktemp("calibration")
    text = PAGE.read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(.*?)```", text, re.S)
    (entries,) = (tomllib.loads(toml) for toml in re.findall(r"```toml\n(.*?)```", text, re.S))
    added = entries["project"]["entry-points"]["alignscape.analyses"]
    lines = "".join(f"{name} = {value}\n" for name, value in added.items())
    install(root / "site", "my-package", "0.1", f"[alignscape.analyses]\n{lines}", {"calibration.py": source})
    for rule in ("bp", "fa"):
        flags = ["--hidden", "16", "--epochs", "3", "--lr", "3e-3", *QUIET]
        assert main(["train", "--rule", rule, "--out", str(root / "runs" / rule), *flags]) == 0
    return root


def expected(path: Path, bins: int) -> tuple[pd.DataFrame, float]:
    """Return the table and the calibration error by numpy alone."""
    subject = load_subject(path, device="cpu")
    with torch.no_grad():
        logits = subject.model(subject.inputs()).double().numpy()
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    confidence, right = shares.max(1), shares.argmax(1) == subject.labels.numpy()
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    rows = [(b + 1, confidence[place == b].mean(), right[place == b].mean()) for b in np.unique(place)]
    error = sum((place == b).sum() * abs(right[place == b].mean() - confidence[place == b].mean()) for b in range(bins)
                if (place == b).any()) / len(right)  # fmt: skip
    return pd.DataFrame(rows, columns=["bin", "confidence", "accuracy"]), float(error)


def analyze(folder: Path, *argv: str) -> str:
    done = run(folder, CODE, *argv)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_commands_of_the_page_do_what_it_says(folder):
    commands = re.findall(r"^    analyze (.*)$", PAGE.read_text(encoding="utf-8"), re.M)
    assert [command.split()[0] for command in commands] == ["calibration", "compare", "report"]
    assert "calibration an analysis from my-package 0.1" in " ".join(analyze(folder, "--help").split())
    assert "bins of confidence between 0 and 1 (default: 10)" in analyze(folder, "calibration", "--help")
    printed = analyze(folder, *commands[0].split(), *QUIET)
    table = pd.read_csv(folder / "results" / "calibration.csv")
    for rule in ("bp", "fa"):
        truth, error = expected(folder / "runs" / rule, 5)
        own = table[table["rule"] == rule].reset_index(drop=True)
        pd.testing.assert_frame_equal(own[["bin", "confidence", "accuracy"]], truth, rtol=1e-5, check_dtype=False)
        assert f"{error:.3g}" in printed
    assert (folder / "results" / "calibration.pdf").is_file()
    analyze(folder, *commands[1].split(), "--out", "results", *QUIET)
    compared = set(pd.read_csv(folder / "results" / "compare.csv")["quantity"])
    assert {f"calibration bin {number}" for number in table["bin"]} <= compared | {"accuracy"}
    analyze(folder, *commands[2].split())
    page = (folder / "results" / "index.html").read_text(encoding="utf-8")
    for text in ("Below the diagonal a network is too sure of itself.", "calibration error", "Accuracy against conf"):
        assert text in page
    done = run(folder, CODE, "calibration", "runs/bp", "--bins", "0", "--out", "new")
    assert (done.returncode, done.stderr) == (2, "analyze: error: bins is 0; it must be at least 1\n")
    assert not (folder / "new").exists()


def test_from_python_with_and_without_the_entry_point(folder, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder / "site")])
    from calibration import Calibration

    networks = alignscape.load(folder / "runs" / "bp", device="cpu")
    found = networks.analyse(Calibration, bins=5)
    truth, error = expected(folder / "runs" / "bp", 5)
    assert found.frame()["accuracy"].tolist() == pytest.approx(truth["accuracy"].tolist())
    assert found.found.checks[0]["calibration error"] == pytest.approx(error, rel=1e-5)
    pd.testing.assert_frame_equal(networks.calibration(bins=5).frame(), found.frame())
    assert "calibration" in dir(networks)
    assert found.plot().axes[0].get_xlabel() == "confidence"


def test_as_one_of_ours_it_is_stored_and_a_lost_network_is_an_empty_table(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder / "site")])
    from calibration import Calibration

    from training.store import RunStore, TrainJob, execute

    config = {"hidden": (8,), "epochs": 1, "train_size": 100, "optimiser": "sgd"}
    store, runs = RunStore(tmp_path / "store"), []
    for lr in (0.1, 1e20):
        runs.append(TrainJob(config=TrainConfig(lr=lr, **config)))
    jobs = [Calibration(bins=4).job(checkpoint=one.file()) for one in runs]
    assert "analyses: 2 computed" in str(execute(jobs, store, device="cpu"))
    whole, lost = (pd.read_csv(job.entry(store).file("calibration.csv")) for job in jobs)
    assert list(whole) == list(lost) == Calibration.tables[0].names()
    assert len(whole) > 0
    assert lost.empty


def test_as_one_of_ours_it_is_a_command(folder):
    listed = "from calibration import Calibration; from reports.analyses import ANALYSES; "
    listed += "ANALYSES['calibration'] = Calibration; from reports.cli import main"
    done = run(folder, CODE.replace("from reports.cli import main", listed), "calibration", "--help")
    assert done.returncode == 0, done.stderr
    assert "bins of confidence between 0 and 1" in done.stdout
    assert "alignscape has a calibration of its own" in done.stderr
