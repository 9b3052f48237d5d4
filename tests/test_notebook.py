"""The notebook of docs/tutorials runs, finds what it says, and is stored with what it showed."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "tutorials" / "notebook.ipynb"


def _cells() -> list[dict]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_its_cells_run(tmp_path, monkeypatch):
    """In this process: a kernel would cost more than all of them. The slow test below has one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    names: dict = {}
    for number, cell in enumerate(_cells()):
        source = re.sub(r"^%.*$", "", "".join(cell["source"]), flags=re.MULTILINE)
        exec(compile(source, f"cell {number}", "exec"), names)  # the notebook is ours

    frame = names["curvature"].frame()
    assert len(frame) == 2 * 6  # trace and eigenvalue of three seeds of two rules
    assert (frame["value"] > 0).all()
    last = names["curves"].query("epoch == 10").groupby("rule")["test_accuracy"].mean()
    assert last["bp"] > last["fa"] > 0.3  # chance is 0.1
    left = names["attack"].frame().query("eps == 0.1").groupby(["gradient", "rule"])["accuracy"].mean()
    assert left["feedback", "bp"] == left["true", "bp"]  # what the page says of bp
    assert left["feedback", "fa"] > left["true", "fa"] + 0.1  # and of fa
    assert (tmp_path / "results" / "index.html").is_file()


def test_it_is_stored_with_what_it_showed():
    shown = [output for cell in _cells() for output in cell["outputs"]]
    assert [cell["execution_count"] for cell in _cells()] == list(range(1, len(_cells()) + 1))
    assert sum("image/png" in output.get("data", {}) for output in shown) == 3
    assert {output["output_type"] for output in shown} <= {"display_data", "execute_result"}  # no error, no warning
    assert str(Path.home()) not in NOTEBOOK.read_text(encoding="utf-8")
    assert NOTEBOOK.stat().st_size < 400_000


@pytest.mark.slow
def test_it_runs_in_a_kernel(tmp_path):
    pytest.importorskip("nbmake", reason="the extra `docs` is not installed: make docs")
    shutil.copy(NOTEBOOK, tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbmake", NOTEBOOK.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
