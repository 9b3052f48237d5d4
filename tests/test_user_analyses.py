"""Analyses of other packages: what is wrong with one of them is told in one line and stands in nobody's way."""

import json
import sys
import warnings

import pytest
from test_plugins import install

from alignscape import plugins
from reports.analyses import all_analyses, known_tables
from reports.cli import main

HEAD = """
from dataclasses import dataclass
from typing import ClassVar
import pandas as pd
from alignscape.settings import setting
from reports.analyses import Analysis, Found
from reports.analyses.section import Section
from reports.schema import Column, Table

number = 7
"""
WHOLE = '''
@dataclass(frozen=True, kw_only=True)
class {name}(Analysis):
    """Norms."""
    name: ClassVar[str] = "{lower}"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = "norms of the weights"
    tables: ClassVar[tuple[Table, ...]] = (Table("{lower}", (
        Column("parameter", "text", "its name", role="key"), Column("norm", "float", "of it", role="value"))),)
    section: ClassVar[Section] = Section(heading="Norms", text="Norms of the weights.", drawings=())
    {field}: float = setting(2.0, "p of the norm")

    def compute(self, subject, show=None):
        rows = [(name, float(p.detach().norm(self.{field}))) for name, p in subject.model.named_parameters()]
        return Found(tables={{"{lower}": pd.DataFrame(rows, columns=["parameter", "norm"])}})
'''


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return what installs analyses, from names to classes of a module that consists of ``text``."""
    monkeypatch.syspath_prepend(tmp_path)
    plugins.warn_once.cache_clear()

    def lay_out(module: str, text: str, **entries: str) -> None:
        lines = "".join(f"{name} = {module}:{value}\n" for name, value in entries.items())
        install(tmp_path, f"{module}-package", "0.1", f"[alignscape.analyses]\n{lines}", {f"{module}.py": HEAD + text})

    return lay_out


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "bp"
    assert main(["train", "--hidden", "8", "--epochs", "1", "--device", "cpu", "--quiet", "--out", str(folder)]) == 0
    return folder


def test_its_checks_may_be_of_numpy_and_missing(installed, run, tmp_path):
    checks = """, checks=[{"least": np.float32(0.5), "n": np.int64(3), "of": np.nan, "ok": np.True_}])"""
    text = WHOLE.format(name="Sums", lower="sums", field="power").replace('"norm"])})', '"norm"])}' + checks)
    installed("checked_analyses", "import numpy as np\n" + text, sums="Sums")
    assert main(["sums", str(run), "--out", str(tmp_path / "out"), "--device", "cpu", "--quiet"]) == 0
    (row,) = json.loads((tmp_path / "out" / "sums.json").read_text())["checks"]
    assert row == {"checkpoint": str(run), "least": 0.5, "n": 3, "of": None, "ok": True}


BAD = """
@dataclass(frozen=True, kw_only=True)
class Empty(Analysis):
    pass
""" + WHOLE.format(name="Undecorated", lower="undecorated", field="power").replace(
    "@dataclass(frozen=True, kw_only=True)\n", ""
) + "".join((
    WHOLE.format(name="Taken", lower="taken", field="model"),
    WHOLE.format(name="Renamed", lower="renamed", field="power").replace('Table("renamed"', 'Table("norms"'),
    WHOLE.format(name="Second", lower="second", field="power").replace(
        '"value"))),)', '"value"))), Table("hessian", ()))'),
))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", "bad_analyses:Empty of bad_analyses-package 0.1 declares no name, version, summary, tables, section"),
        ("number", "bad_analyses:number of bad_analyses-package 0.1 is no analysis called number"),
        ("undecorated", "bad_analyses:Undecorated of bad_analyses-package 0.1 must be a @dataclass"),
        ("renamed", "bad_analyses:Renamed of bad_analyses-package 0.1 must call its first table renamed"),
        (
            "second",
            ":Second of bad_analyses-package 0.1 has the table hessian, which is one of alignscape's",
        ),
        ("taken", "taken has a setting whose flag is taken: argument --model: conflicting"),
    ],
)
def test_what_is_declared_wrong_is_one_line(installed, run, tmp_path, capsys, name, message):
    classes = {kind.lower(): kind for kind in ("Empty", "number", "Undecorated", "Taken", "Renamed", "Second")}
    installed("bad_analyses", BAD, **classes)
    assert main([name, str(run)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    with pytest.warns(UserWarning, match="bad_analyses"):
        assert "taken" in all_analyses()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        assert "hessian" in known_tables()


def test_a_command_of_ours_stays_ours(installed, run, tmp_path, capsys):
    installed("own_command", WHOLE.format(name="Report", lower="report", field="power"), report="Report")
    with pytest.raises(SystemExit) as end:
        main(["report", "--help"])
    assert end.value.code == 0
    found = capsys.readouterr()
    assert "--latex" in found.out
    assert "report of own_command-package 0.1 is no command: alignscape has one" in found.err
    assert "own_command" not in sys.modules
