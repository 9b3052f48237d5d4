"""The same commands in two processes and two folders write the same bytes, but for what docs/reliability.md names."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

COMMANDS = """
from reports.cli import main
train = "--train-size 300 --hidden 16 --epochs 2 --quiet --device cpu"
stack = "--rule fa --seeds 0 1 --stack 2 --checkpoint-every 1 --snapshot-every 5 --snapshot-sketch 2"
networks = "out/single out/stack/digits-fa-seed0"
for command in (
    f"train {train} {stack} --out out/stack",
    f"train {train} --rule bp --out out/single",
    f"hessian {networks} --samples 100 --k 1 --quiet --device cpu --out out/hessian",
    f"attack {networks} --samples 50 --attack fgsm --eps .05 .1 --quiet --device cpu --out out/attack",
    "report out --quiet",
):
    assert main(command.split()) == 0
"""
REPORT = "from reports.cli import main; assert main('report out --quiet'.split()) == 0"


def run(script, folder):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "random"}
    subprocess.run([sys.executable, "-c", script], cwd=folder, env=environment, check=True, capture_output=True)


@pytest.fixture(scope="module")
def twice(tmp_path_factory) -> tuple[Path, Path]:
    """The folders of two processes that did the same."""
    root = tmp_path_factory.mktemp("twice")
    for name in ("a", "b"):
        (root / name).mkdir()
        run(COMMANDS, root / name)
    return root / "a" / "out", root / "b" / "out"


def names(folder: Path, *patterns: str) -> list[Path]:
    return sorted(path.relative_to(folder) for pattern in patterns for path in folder.rglob(pattern))


def test_both_wrote_the_same_files(twice):
    first, second = twice
    assert names(first, "*") == names(second, "*")


@pytest.mark.parametrize("pattern", ["*.png", "*.pdf", "trajectory.*", "sketch.npz", "config.json", "epoch-0000.pt"])
def test_what_holds_no_time_is_the_same_byte_for_byte(twice, pattern):
    first, second = twice
    found = names(first, pattern)
    assert found
    assert [name for name in found if (first / name).read_bytes() != (second / name).read_bytes()] == []


def test_checkpoints_differ_in_their_seconds_alone(twice):
    found = names(twice[0], "*.pt")
    assert len(found) == 9
    for name in found:
        a, b = (torch.load(folder / name, weights_only=True) for folder in twice)
        for state in ("model", "feedback"):
            assert a[state].keys() == b[state].keys()
            assert all(torch.equal(a[state][key], b[state][key]) for key in a[state])
        for one in (a, b):
            one["metrics"].pop("seconds")
        assert repr({**a, "model": 0, "feedback": 0}) == repr({**b, "model": 0, "feedback": 0})


def test_tables_differ_in_their_seconds_alone(twice):
    found = names(twice[0], "*.csv")
    assert {name.name for name in found} == {"metrics.csv", "hessian.csv", "attack.csv"}
    for name in found:
        a, b = (pd.read_csv(folder / name, dtype=str) for folder in twice)
        assert "seconds" in a
        pd.testing.assert_frame_equal(a.drop(columns="seconds"), b.drop(columns="seconds"), check_exact=True)


def test_sidecars_differ_in_their_time_and_in_the_digests_of_checkpoints(twice):
    for name in ("hessian/hessian.json", "attack/attack.json"):
        a, b = ((folder / name).read_text() for folder in twice)
        changed = [pair for pair in zip(a.splitlines(), b.splitlines(), strict=True) if pair[0] != pair[1]]
        known = r' +"(created|seal|bytes|sha256|out/\S+)": | +"[0-9a-f]{64}",?$'  # the last: of what the result is of
        assert all(re.match(known, line) for pair in changed for line in pair), changed


def test_the_page_of_a_folder_differs_in_its_date_alone(twice, tmp_path):
    shutil.copytree(twice[0], tmp_path / "out")
    old = (tmp_path / "out" / "index.html").read_bytes()
    run(REPORT, tmp_path)
    made = rb"on \d{4}-\d\d-\d\d \d\d:\d\d UTC"
    assert len(re.findall(made, old)) == 1
    assert re.sub(made, b"", (tmp_path / "out" / "index.html").read_bytes()) == re.sub(made, b"", old)
    for figure in names(twice[0], "*.png", "*.pdf"):
        assert (tmp_path / "out" / figure).read_bytes() == (twice[0] / figure).read_bytes()
