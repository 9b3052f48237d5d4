"""The pages: links lead somewhere, commands are ones that `analyze` takes, versions agree; and the site builds."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from reports.commands.parser import build_parser

ROOT = Path(__file__).resolve().parent.parent
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
PAGES = [name for name in TRACKED if name.endswith(".md")]
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!`)\]\(([^)\s]+)\)")


def _anchors(path: Path) -> set[str]:
    """Return the anchors of the headings of a page, as the web view and the site make them."""
    titles = re.findall(r"^#+ (.+)$", FENCED.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name):
    """Relative ones: to a file that is tracked, and to a heading of it."""
    page = ROOT / name
    links = LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8")))
    assert [link for link in links if not re.match(r"[a-z]+:", link) and not _leads(page, link)] == []


def _leads(page: Path, link: str) -> bool:
    file, _, anchor = link.partition("#")
    target = (page.parent / file).resolve() if file else page
    if not target.is_relative_to(ROOT) or str(target.relative_to(ROOT)) not in TRACKED:
        return False
    return not anchor or target.suffix != ".md" or anchor in _anchors(target)


def test_the_list_has_every_page():
    text = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    listed = {str((ROOT / "docs" / link).resolve().relative_to(ROOT)) for link in LINK.findall(text)}
    sources = {name for name in TRACKED if name.startswith("docs/") and name.endswith((".md", ".rst", ".ipynb"))}
    assert sources - {"docs/README.md"} <= listed
    assert {"ARCHITECTURE.md", "CHANGELOG.md"} <= listed


def _commands() -> list[tuple[str, str]]:
    """Return each page with each `analyze ...` of its indented blocks that leaves nothing out."""
    found = []
    for name in PAGES:
        if name not in ("CHANGELOG.md", "docs/adding-an-analysis.md"):  # the second adds a command of its own
            text = re.sub(r"\\\n +", "", (ROOT / name).read_text(encoding="utf-8"))  # lines that go on
            lines = re.findall(r"^ {4}(?:\.venv/bin/)?analyze (.+)$", text, re.MULTILINE)
            found += [(name, line.split("  #")[0]) for line in lines]
    return [(name, line) for name, line in found if not re.search(r"\.\.\.|\bCOMMAND\b|\|", line)]


def test_every_command_on_a_page_is_one(capsys):
    commands, wrong = _commands(), []
    for name, line in commands:
        words = shlex.split(line, comments=True)
        try:
            build_parser(words[0]).parse_args(words)
        except SystemExit as status:
            if status.code:
                wrong.append(f"{name}: analyze {line}: {capsys.readouterr().err}")
    assert wrong == []
    assert len(commands) > 50


def test_the_version_is_said_alike():
    (version,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE) == [version]
    assert re.findall(r"version = \{(.+)\}", (ROOT / "docs/citing.md").read_text()) == [version]
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_windows_is_told_at_the_import():
    code = "import sys; sys.platform = 'win32'; import alignscape"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "WSL" in done.stderr.splitlines()[-1]


def _checker():
    spec = importlib.util.spec_from_file_location("site_check", ROOT / ".ci" / "site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_check_of_the_site_sees_what_is_wrong(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="b.html#there"></a><a href="b.html#gone"></a><a href="c.html"></a><a href="https://x.org/y"></a>'
        '<script src="https://x.org/s.js"></script><img src="gone.png"><link rel="canonical" href="https://x.org/">'
    )
    (tmp_path / "b.html").write_text('<h1 id="there">B</h1>')
    (tmp_path / "s.css").write_text("body { background: url(https://x.org/b.png) }")
    assert _checker().faults(tmp_path) == [
        "a.html: loads https://x.org/s.js",
        "a.html: no b.html#gone",
        "a.html: no c.html",
        "a.html: no gone.png",
        "s.css: loads url(http",
    ]


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    """As `make docs` does; with formulas, the docstrings of every package and the notebook's figures in it."""
    pytest.importorskip("myst_nb", reason="the extra `docs` is not installed: make docs")
    flags = ["--quiet", "--fail-on-warning", "--keep-going", "-c", "docs", "-d", str(tmp_path / "trees")]
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *flags, ".", str(site)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert _checker().faults(site) == []
    assert "<math" in (site / "docs" / "mathematics.html").read_text()
    assert "landscape.top_eigenpairs" in (site / "docs" / "reference" / "landscape.html").read_text()
    assert 'href="reference/landscape.html#landscape.top_eigenpairs"' in (site / "docs" / "api.html").read_text()
    assert "image/png" in (site / "docs" / "tutorials" / "notebook.html").read_text() or list(site.rglob("*.png"))
