"""The command line as a user meets it: answers at once, explains itself, fails in one line and writes nothing."""

import argparse
import errno
import json
import os
import pickle
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
import torch

from reports.cli import main
from reports.commands.parser import COMMANDS, build_parser
from training.rule_list import rule_summaries
from training.rules import RULES

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """BP and FA on the digits, with everything an analysis may ask for."""
    out = tmp_path_factory.mktemp("runs")
    for rule in ("bp", "fa"):
        flags = ["--hidden", "16", "--epochs", "2", "--lr", "1e-3", "--snapshot-every", "20", "--quiet"]
        assert main(["train", "--rule", rule, *flags, "--device", "cpu", "--out", str(out / rule)]) == 0
    return out


def commands() -> dict[str, argparse.ArgumentParser]:
    actions = build_parser()._subparsers._group_actions
    return actions[0].choices


def test_help_answers_at_once():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "reports.cli", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time, because the clock of a busy machine says nothing of the command.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    for command in COMMANDS:
        assert command in done.stdout


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"alignscape {version('alignscape')}\n"


def test_verbose_says_where_an_error_arose_and_on_what(runs, capsys):
    assert main(["hessian", "no-such-run", "--verbose"]) == 2
    err = capsys.readouterr().err
    assert err.splitlines()[0].startswith("analyze: alignscape ")
    assert "Traceback" in err
    assert err.splitlines()[-1] == "analyze: error: no such checkpoint: no-such-run"
    assert main(["runs", "ls", "--store", str(runs), "--verbose"]) == 2  # an action of a command takes it too
    assert "no run store at" in capsys.readouterr().err


def test_a_shell_completes_commands_and_flags(capsys):
    pytest.importorskip("shtab", reason="needs the extra completion")
    with pytest.raises(SystemExit):
        main(["--print-completion", "bash"])
    script = capsys.readouterr().out
    assert "--trace-tol" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_completion_without_its_extra_names_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["--print-completion", "zsh"]) == 2
    assert "pip install 'alignscape[completion]'" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command):
    """What makes --help slow, measured without a clock."""
    code = (
        "import sys\nfrom reports.cli import main\ntry:\n    main([sys.argv[1], '--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'pandas', 'scipy', 'matplotlib') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_explained_with_its_default(command):
    for action in commands()[command]._actions:
        assert action.help, f"{command} {action.option_strings or action.dest} has no help"
        takes_value = action.option_strings and action.nargs != 0
        if takes_value and not action.required and action.dest != "help":
            needed_together = "for a state dict" in action.help or "--images" in (*action.option_strings, action.help)
            needed_together |= action.help.endswith("of --images")
            assert "default" in action.help or needed_together, f"{command} {action.option_strings[0]}: no default"


def test_help_of_train_names_every_rule():
    text = commands()["train"].format_help()
    assert all(rule in text for rule in RULES)
    assert rule_summaries() == {name: rule.summary for name, rule in RULES.items()}


def failure(capsys, *argv: str) -> str:
    """Run a command that must fail with status 2 and one line; return the line."""
    try:
        status = main([*argv])
    except SystemExit as error:  # argparse
        status = error.code
    captured = capsys.readouterr()
    assert status == 2
    assert captured.out == ""
    assert captured.err.startswith("analyze: error: ")
    assert captured.err.count("\n") == 1, captured.err
    assert "Traceback" not in captured.err
    return captured.err


def analysis_commands(checkpoint: str, folder: Path) -> dict[str, list[str]]:
    small = {"hessian": [checkpoint], "spectrum": [checkpoint], "surface": [checkpoint], "attack": [checkpoint]}
    return {**small, "corruptions": [checkpoint, "--cifar10c", str(folder)]}


@pytest.mark.parametrize("command", ["hessian", "spectrum", "surface", "attack", "corruptions"])
def test_bad_checkpoints_fail_in_one_line_and_write_nothing(command, runs, tmp_path, capsys):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (os.fspath(tmp_path / "ran"),)

    whole = (runs / "fa" / "ckpt.pt").read_bytes()
    (tmp_path / "truncated.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "foreign.pt").write_bytes(b"GIF89a" + b"\0" * 100)
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"model": Bomb()}, protocol=2))
    nan = torch.load(runs / "bp" / "ckpt.pt", weights_only=True)
    nan["model"]["layers.0.weight"][0, 0] = float("nan")
    torch.save(nan, tmp_path / "nan.pt")
    torch.save({"weight": torch.zeros(2, 2)}, tmp_path / "plain.pt")
    before = sorted(tmp_path.rglob("*"))
    expected = {
        "truncated.pt": "truncated or not a torch file",
        "foreign.pt": "truncated or not a torch file",
        "evil.pt": "refused",
        "nan.pt": "NaN or infinity in layers.0.weight",
        "plain.pt": "give --model and --dataset",
        "missing.pt": "no such checkpoint",
    }
    for name, message in expected.items():
        line = failure(capsys, command, *analysis_commands(str(tmp_path / name), tmp_path)[command])
        assert message in line
        assert name in line or message.startswith("NaN")
    assert sorted(tmp_path.rglob("*")) == before


def test_bad_arguments_fail_in_one_line_and_write_nothing(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ALIGNSCAPE_DATA", raising=False)
    bp = str(runs / "bp" / "ckpt.pt")
    out = ["--out", str(tmp_path / "new")]
    cases = [
        (["train", "--rule", "hebb", *out], "unknown rule 'hebb'; known: bp, fa, ifa, dfa, pfa"),
        (["train", "--rule", "bp", "--angle", "30", *out], "--angle belongs to --rule ifa"),
        (["train", "--dataset", "imagenet", *out], "unknown data set 'imagenet'; known: digits"),
        (["train", "--dataset", "cifar10", "--data-root", "nowhere", *out], "cifar-10-batches-py/data_batch_1"),
        (["train", "--network", "gpt", *out], "unknown model 'gpt'"),
        (["train", "--lr", "-1", *out], "must be positive"),
        (["train", "--seeds", "3..1", *out], "empty range"),
        (["attack", bp, "--eps", "0.1", "1.5", *out], "1.5"),
        (["attack", bp, "--eps", "-0.1", *out], "-0.1"),
        (["attack", bp, "--attack", "magic", *out], "magic"),
        (["hessian", bp, "--dataset", "cifar10", "--data-root", "nowhere", *out], "test_batch|data_batch"),
        (["hessian", bp, "--model", "torchvision:resnet18", "--dataset", "digits", *out], "missing conv1.weight"),
        (["trajectory", str(tmp_path), *out], "config.json"),
        (["corruptions", bp, "--cifar10c", str(tmp_path / "nowhere"), *out], "nowhere"),
        (["report", str(tmp_path / "nowhere")], "no such folder"),
        (["frobnicate"], "frobnicate"),
        ([], "COMMAND"),
    ]
    if not torch.cuda.is_available():
        cases.append((["hessian", bp, "--device", "cuda", *out], "no CUDA"))
    for argv, message in cases:
        line = failure(capsys, *argv)
        assert any(part in line for part in message.split("|")), line
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_model_names_the_keys(runs, tmp_path, capsys):
    state = torch.load(runs / "bp" / "ckpt.pt", weights_only=True)["model"]
    torch.save(state, tmp_path / "state.pt")
    line = failure(
        capsys, "hessian", str(tmp_path / "state.pt"), "--model", "torchvision:resnet18", "--dataset", "digits"
    )
    assert "missing conv1.weight" in line
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_your_own_checkpoint(runs, tmp_path, monkeypatch, capsys):
    """A plain state dict with a factory in the current folder gives the numbers of our own checkpoint."""
    from safetensors.torch import save_file

    state = torch.load(runs / "bp" / "ckpt.pt", weights_only=True)["model"]
    torch.save(state, tmp_path / "weights.pt")
    save_file(state, tmp_path / "weights.safetensors")
    (tmp_path / "zoo.py").write_text("from training.models import MLP\ndef net():\n    return MLP(64, (16,), 10)\n")
    monkeypatch.chdir(tmp_path)
    flags = ["--k", "2", "--device", "cpu", "--quiet"]
    foreign = ["--model", "zoo:net", "--dataset", "digits"]
    tables = {}
    assert main(["hessian", str(runs / "bp"), *flags, "--out", "ours"]) == 0
    tables["ours"] = pd.read_csv("ours/hessian.csv")
    for file in ("weights.pt", "weights.safetensors"):
        assert main(["hessian", file, *foreign, *flags, "--out", file + ".d"]) == 0
        tables[file] = pd.read_csv(f"{file}.d/hessian.csv")
    for file in ("weights.pt", "weights.safetensors"):
        assert tables[file].value.tolist() == pytest.approx(tables["ours"].value.tolist(), rel=1e-5)
    sidecar = json.loads(Path("ours/hessian.json").read_text())
    assert sidecar["data"][str(runs / "bp")]["dataset"] == "digits"
    assert len(sidecar["checkpoints"][str(runs / "bp")]) == 64
    assert sidecar["versions"]["torch"] == torch.__version__


def test_columns_of_a_run_identify_it(runs, tmp_path):
    flags = ["--k", "1", "--device", "cpu", "--quiet", "--out", str(tmp_path)]
    assert main(["hessian", str(runs / "bp"), str(runs / "fa"), *flags]) == 0
    frame = pd.read_csv(tmp_path / "hessian.csv")
    assert list(frame.columns[:10]) == [
        *("checkpoint", "quantity", "index", "value", "ci_low", "ci_high", "residual", "n_samples", "n_hvp", "seconds")
    ]
    assert set(frame.checkpoint) == {str(runs / "bp"), str(runs / "fa")}
    assert set(frame.rule) == {"bp", "fa"}
    assert set(frame.epoch) == {2}


def test_the_demo_makes_every_file_kind(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "demo"), "--epochs", "2", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    page = tmp_path / "demo" / "index.html"
    assert printed.rstrip().endswith(str(page.resolve()))
    made = {p.name for p in (tmp_path / "demo").iterdir()}
    tables = {f"{n}.csv" for n in ("hessian", "spectrum", "trajectory", "surface", "attack", "corruptions")}
    assert tables <= made
    assert {t.replace("csv", "json") for t in tables} <= made
    assert {p.name for p in (tmp_path / "demo" / "runs").iterdir()} == {"bp", "fa", "ifa0", "ifa45", "dfa", "pfa"}
    text = page.read_text()
    for word in ("hessian", "spectrum", "trajectory", "surface", "attack", "corruptions"):
        assert word in text.lower()


@pytest.mark.parametrize("command", ["train", "hessian", "alignment"])
def test_a_folder_that_cannot_be_made_is_one_line(runs, tmp_path, capsys, command):
    (tmp_path / "file").write_text("mine")
    given = ["--hidden", "8", "--epochs", "1"] if command == "train" else [str(runs / "fa")]
    assert main([command, *given, "--quiet", "--device", "cpu", "--out", str(tmp_path / "file" / "out")]) == 2
    err = capsys.readouterr().err.splitlines()
    assert err[-1].startswith("analyze: error: Not a directory: ")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_disk_too_small_for_the_trajectory_is_one_line(tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    flags = ["--hidden", "8", "--epochs", "1", "--snapshot-every", "1", "--quiet", "--device", "cpu"]
    assert main(["train", *flags, "--out", str(tmp_path / "run")]) == 2
    expected = f"analyze: error: No space left on device: {tmp_path / 'run'}"
    assert capsys.readouterr().err.startswith(expected)
    assert not list((tmp_path / "run").glob("*trajectory*"))


LONG = {"name": "n" * 256, "path": "/".join(["d" * 200] * 22)}
REFUSED_PATHS = {
    LONG["name"]: "File name too long",
    LONG["path"]: "File name too long",
    "loop": "File exists|Too many levels of symbolic links",
    "loop/below": "Too many levels of symbolic links",
    "file/below": "Not a directory",
}


@pytest.mark.parametrize("command", ["train", "train --store", "attack", "report", "figures", "runs"])
@pytest.mark.parametrize("place", REFUSED_PATHS, ids=lambda place: place[:10])
def test_paths_that_cannot_be_are_one_line_and_leave_nothing(command, place, runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("mine")
    train = ["train", "--hidden", "8", "--epochs", "1", "--device", "cpu", "--quiet"]
    small = ["--samples", "20", "--device", "cpu", "--quiet", "--out", place]
    calls = {
        "train": [*train, "--out", place],
        "train --store": [*train, "--store", place],
        "attack": ["attack", str(runs / "bp"), "--attack", "fgsm", "--eps", "0.1", *small],
        "report": ["report", place],
        "figures": ["figures", "--only", "fig1", "--store", place, "--executor", "serial", "--out", place],
        "runs": ["runs", "ls", "--store", place],
    }
    line = failure(capsys, *calls[command])
    missing = "no such folder|no run store|is a file"  # where nothing would be made
    assert any(part in line for part in f"{REFUSED_PATHS[place]}|{missing}".split("|")), line
    assert len(line) < 400
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]


def test_an_output_that_takes_nothing_is_one_line():
    for argv in (["train", "--dump-config"], ["runs", "ls", "--help"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "reports.cli", *argv], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True
            )
        assert done.stderr.count("\n") == ("--help" not in argv)
        assert done.returncode == (0 if "--help" in argv else 2)
    assert "analyze: error: No space left on device" not in done.stderr


def test_a_limit_on_the_size_of_files_is_one_line_and_leaves_nothing(runs, tmp_path):
    """As `ulimit -f` sets it: CSV, PDF, PNG, checkpoints. The table that still fits stays, whole."""
    code = (
        "import resource, sys\nfrom reports.cli import main\nimport reports.runner, training.loop, reports.style\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))\nsys.exit(main(sys.argv[2:]))"
    )
    attack = ["attack", str(runs / "bp"), "--attack", "fgsm", "--eps", "0.1", "--samples", "20", "--device", "cpu"]
    train = ["train", "--hidden", "8", "--epochs", "1", "--device", "cpu"]
    for limit, argv, kept in ((100, train, []), (5000, attack, ["attack.csv", "attack.json"])):
        out = tmp_path / argv[0]
        done = subprocess.run(
            [sys.executable, "-c", code, str(limit), *argv, "--quiet", "--out", str(out)],
            **{"cwd": ROOT, "capture_output": True, "text": True},
        )
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith(f"analyze: error: File too large: {out}")
        assert done.stderr.count("\n") == 1
        assert sorted(path.name for path in out.rglob("*")) == kept
