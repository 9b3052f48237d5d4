"""How the site is built: `make docs`, or `sphinx-build -W -c docs . build/site`.

Why Sphinx and not MkDocs (looked at in November 2026): MkDocs 1 has had no release since August 2024 and its successor
drops plug-ins; Material for MkDocs only gets fixes, and says itself that it ends in May 2027; Zensical, which replaces
both, is at 0.1. Sphinx, MyST and Furo are all released regularly. Besides, the docstrings have cross-references as
Sphinx writes them (``:func:``), and Sphinx' search works on pages that are opened from a disk.

The sources are the Markdown files of the repository as they are, README.md included, so that each link works on the
repository's web view and on the site. Nothing is loaded from elsewhere: formulas are MathML, the theme has no fonts.
"""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the packages, and what their tests know of the public names
from public_api import PACKAGES, public  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
project = PROJECT["name"]
version = release = PROJECT["version"]
author = PROJECT["authors"][0]["name"]
copyright = f"2026, {author}"

_HOMES = ("alignscape", "training.store")  # these describe what other packages export too

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
root_doc = "README"
_PAGES = {"README.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs"}
exclude_patterns = [path.name for path in ROOT.iterdir() if path.name not in _PAGES]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the outputs in the file are shown; tests/test_notebook.py runs it
autodoc_typehints = "none"  # the docstrings say types and shapes; signatures would be wider than the page
autodoc_member_order = "alphabetical"
autodoc_inherit_docstrings = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False
copybutton_prompt_text = ">>> |\\.\\.\\. "
copybutton_prompt_is_regexp = True

smartquotes = False  # --flag stays --flag

html_theme = "furo"
html_title = f"alignscape {version}"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False


def _sections(text: str) -> dict[str, list[str]]:
    """Return the pages under each heading of docs/README.md, as documents: the order of the site."""
    titles, bodies = (re.split(r"^## (.+)$", text, flags=re.MULTILINE)[part::2] for part in (1, 2))
    links = [re.findall(r"^- \[[^\]]+\]\(([^)#]+)\)", body, re.MULTILINE) for body in bodies]
    return {title: [_document(link) for link in found] for title, found in zip(titles, links, strict=True)}


def _document(link: str) -> str:
    path = (ROOT / "docs" / link).resolve().relative_to(ROOT)
    return str(path.with_suffix(""))


def _add_contents(app: Sphinx, name: str, source: list[str]) -> None:
    """Give the first page the table of contents; and api.md a link from each name to its docstring."""
    if name == root_doc:
        pages = _sections((ROOT / "docs" / "README.md").read_text(encoding="utf-8"))
        source[0] += _toctree("", ["docs/README"]) + "".join(_toctree(title, docs) for title, docs in pages.items())
    if name == "docs/api":
        source[0] = _with_references(source[0])


def _toctree(title: str, documents: list[str]) -> str:
    options = ":hidden:\n" + (f":caption: {title}\n" if title else "")
    return "\n\n```{toctree}\n" + options + "\n" + "\n".join(documents) + "\n```\n"


def _with_references(text: str) -> str:
    package, lines = "", []
    for line in text.splitlines():
        if line.startswith("## ") and line[3:] in PACKAGES:
            package = line[3:]
        if line.startswith("| `") and package:
            _, names, rest = line.split("|", 2)
            names = ", ".join(_reference(package, name) for name in re.findall(r"`(\w+)`", names))
            line = f"| {names} |{rest}"
        lines.append(line)
    return "\n".join(lines)


def _reference(package: str, name: str) -> str:
    """Return a link to where ``name`` is described: a package says what it takes from another only once."""
    found = public(package)[name]
    home = next((home for home in _HOMES if public(home).get(name) is found), package)
    return f"{{py:obj}}`{name} <{home}.{name}>`"


def _escape(app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Take bars and lone stars of a docstring, which are plain text to its reader, for plain text; the rows of a table
    become a list."""
    found, in_example = [], False
    for line in lines:
        in_example = bool(line.strip()) and (in_example or line.lstrip().startswith(">>>"))
        if in_example:
            found.append(line)
        elif line.startswith("| "):
            found.append("* " + ": ".join(cell.strip() for cell in line.strip("| ").split(" | ")))
        elif not re.fullmatch(r"\|[-|]+\|", line):
            found.append(_escaped(line))
    lines[:] = found


def _escaped(line: str) -> str:
    parts = re.split(r"(``.*?``|`[^`]*`|(?<![\w*])\*\w[^*]*\*(?![\w*])|\*\*\S[^*]*\*\*)", line)
    parts[::2] = [re.sub(r"(?<!\\)([|*])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def _mathml(visitor: Any, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers draw by themselves."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    formula = convert(node.astext(), display=display)
    visitor.body.append(f'<div class="formula">{formula}</div>' if display == "block" else formula)
    raise nodes.SkipNode


def _write_entrance(app: Sphinx, failure: Exception | None) -> None:
    """Leave an index.html that leads to the first page."""
    if failure is None and app.builder.format == "html":
        target = f"{root_doc}.html"
        text = f'<!doctype html><meta http-equiv="refresh" content="0; url={target}"><a href="{target}">{project}</a>\n'
        (Path(app.outdir) / "index.html").write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Connect the above."""
    app.add_html_math_renderer("mathml", inline_renderers=(_mathml, None), block_renderers=(_mathml, None))
    app.connect("source-read", _add_contents)
    app.connect("autodoc-process-docstring", _escape, priority=900)  # after napoleon
    app.connect("build-finished", _write_entrance)
