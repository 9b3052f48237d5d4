"""Tables on disk and on the terminal, and the bars between them."""

import json

import pandas as pd
import pytest

from alignscape.errors import InputError
from reports.progress import ProgressDisplay
from reports.schema import METRICS
from reports.tables import provenance, read_table, render, without_shared_folder, write_table


def test_csv_keeps_every_digit_and_has_its_sidecar(tmp_path):
    frame = pd.DataFrame({"checkpoint": ["a"], "value": [1 / 3], "angle": [float("nan")]})
    write_table(frame, tmp_path / "deep" / "t.csv", provenance([], seed=3, note={"k": 5}))
    assert pd.read_csv(tmp_path / "deep" / "t.csv").value[0] == 1 / 3
    sidecar = json.loads((tmp_path / "deep" / "t.json").read_text())
    assert (sidecar["seed"], sidecar["note"]) == (3, {"k": 5})
    assert sidecar["command"].split()[0] == "analyze"
    assert {"alignscape", "git_commit", "python", "torch", "numpy"} == set(sidecar["versions"])


def test_a_sidecar_that_is_not_json_leaves_no_table_behind(tmp_path):
    with pytest.raises(TypeError):
        write_table(pd.DataFrame({"x": [1]}), tmp_path / "t.csv", {"bad": object()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cell", ["1.5", "inf", "one"])
def test_a_number_that_is_not_whole_is_not_cut_off(tmp_path, cell):
    path = tmp_path / "metrics.csv"
    path.write_text(f"epoch,step\n0,0\n{cell},3\n")
    with pytest.raises(InputError, match=r"metrics.csv, column epoch: "):
        read_table(path, METRICS, needed=("epoch", "step"))
    path.write_text("epoch,step\n0,0\n,3\n")
    assert read_table(path, METRICS, needed=())["step"].tolist() == [0, 3]


def test_whole_numbers_beyond_the_digits_of_a_float_come_back(tmp_path):
    seeds = [2**53 + 1, 2**63 - 1]
    (tmp_path / "a.csv").write_text("seed,large\n" + "".join(f"{seed},{10 * seed}\n" for seed in seeds))
    read = read_table(tmp_path / "a.csv")
    assert read["seed"].tolist() == seeds
    assert read["large"].tolist() == [float(10 * seed) for seed in seeds]  # more than 64 bits


def test_render_aligns_numbers_right_and_blanks_what_is_missing():
    frame = pd.DataFrame({"name": ["a", "long"], "value": [1.23456789, float("nan")], "n": [1, 20]})
    assert render(frame).splitlines() == ["name   value   n", "a     1.2346   1", "long          20"]


def cells(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line]


def test_a_wide_table_is_stacked_with_its_names_in_each_part():
    frame = pd.DataFrame({"name": ["a", "b"], **{f"value {i:02d}": [10.0 + i, 0.5] for i in range(12)}})
    text = render(frame)
    parts = text.split("\n\n")
    assert len(parts) == 2
    assert max(map(len, text.splitlines())) <= 80
    assert [cells(part)[1][0] for part in parts] == ["a", "a"]
    assert [cell for part in parts for cell in cells(part)[1][1:]] == [f"{10 + i}" for i in range(12)]
    narrow = render(frame[list(frame)[:8]])
    assert len(narrow.splitlines()) == 3  # 74 characters


def test_rows_with_long_names_are_known_by_their_numbers():
    names = ["/a/folder/of/some/length/" + "x" * 40 + end for end in "ab"]
    frame = pd.DataFrame({"checkpoint": names, "mode": "true", **{f"value {i:02d}": [1.0, 2.0] for i in range(12)}})
    first, *others = render(frame).split("\n\n")
    assert cells(first) == [["checkpoint", "mode"], ["1", names[0], "true"], ["2", names[1], "true"]]
    assert all(cells(part)[2][0] == "2" for part in others)
    assert sum(len(cells(part)[1]) - 1 for part in others) == 12
    assert all(len(line) <= 80 for part in others for line in part.splitlines())
    few = frame[["checkpoint", "value 00", "value 01"]]
    assert [row[0] for row in cells(render(few))[1:]] == ["x" * 40 + end for end in "ab"]  # nothing is stacked for it


def test_a_wider_terminal_has_wider_tables(monkeypatch):
    frame = pd.DataFrame({"name": ["a", "b"], **{f"value {i:02d}": [10.0 + i, 0.5] for i in range(12)}})
    monkeypatch.setenv("COLUMNS", "200")
    assert len(render(frame).splitlines()) == 3
    monkeypatch.setenv("COLUMNS", "5")
    assert max(map(len, render(frame).splitlines())) <= 60


@pytest.mark.parametrize(
    ("paths", "short"),
    [
        (["/a/runs/bp/x", "/a/runs/fa/x"], ["bp/x", "fa/x"]),
        (["/a/runs/bp", "/a/runs/bp"], ["bp", "bp"]),
        (["a/runs", "a/runs/bp"], ["runs", "runs/bp"]),
        (["net", "a/b"], ["net", "a/b"]),
        ([], []),
    ],
)
def test_paths_without_what_they_share(paths, short):
    assert without_shared_folder(paths) == short


def test_progress_in_a_log_is_a_line_every_tenth(capsys):
    show = ProgressDisplay("work", "image")
    for done in range(101):
        show(done, 100)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("work: 10/100 images")
