"""Analyses of other packages: what is wrong with one of them is told in one line and stands in nobody's way."""

import sys

import pandas as pd
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
    tables: ClassVar[tuple[Table, ...]] = (Table("weight_norms", (
        Column("parameter", "text", "its name", role="key"), Column("norm", "float", "of it", role="value"))),)
    section: ClassVar[Section] = Section(heading="Norms", text="Norms of the weights.", drawings=())
    {field}: float = setting(2.0, "p of the norm")

    def compute(self, subject, show=None):
        rows = [(name, float(p.detach().norm(self.{field}))) for name, p in subject.model.named_parameters()]
        return Found(tables={{"weight_norms": pd.DataFrame(rows, columns=["parameter", "norm"])}})
'''


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return what installs analyses, from names to classes of a module that consists of ``text``."""
    monkeypatch.syspath_prepend(tmp_path)
    plugins._warn_once.cache_clear()

    def lay_out(module: str, text: str, **entries: str) -> None:
        lines = "".join(f"{name} = {module}:{value}\n" for name, value in entries.items())
        install(tmp_path, f"{module}-package", "0.1", f"[alignscape.analyses]\n{lines}", {f"{module}.py": HEAD + text})

    return lay_out


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "bp"
    assert main(["train", "--hidden", "8", "--epochs", "1", "--device", "cpu", "--quiet", "--out", str(folder)]) == 0
    return folder


def test_its_table_may_have_another_name(installed, run, tmp_path, capsys):
    installed("own_table", WHOLE.format(name="Norms", lower="norms", field="power"), norms="Norms")
    assert main(["norms", str(run), "--out", str(tmp_path / "out"), "--device", "cpu", "--quiet"]) == 0
    assert "layers.1.weight" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "out" / "weight_norms.csv")) == 4


BAD = """
@dataclass(frozen=True, kw_only=True)
class Empty(Analysis):
    pass
""" + WHOLE.format(name="Undecorated", lower="undecorated", field="power").replace(
    "@dataclass(frozen=True, kw_only=True)\n", ""
) + WHOLE.format(name="Taken", lower="taken", field="model")  # fmt: skip


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", "own_bad:Empty of own_bad-package 0.1 declares no name, version, summary, tables, section"),
        ("number", "own_bad:number of own_bad-package 0.1 is no analysis called number"),
        ("undecorated", "own_bad:Undecorated of own_bad-package 0.1 must be a @dataclass"),
        ("taken", "taken has a setting whose flag is taken: argument --model: conflicting"),
    ],
)
def test_what_is_declared_wrong_is_one_line(installed, run, tmp_path, capsys, name, message):
    installed("own_bad", BAD, empty="Empty", number="number", undecorated="Undecorated", taken="Taken")
    assert main([name, str(run)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    with pytest.warns(UserWarning, match="own_bad"):
        assert "taken" in all_analyses()
    with pytest.warns(UserWarning, match="own_bad"):
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
