"""LaTeX tables: escaped, of one width, and compiled where there is a LaTeX."""

import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from reports.page.latex import LONG_ROWS, escape, latex_table
from reports.page.latex_width import SIZES, TEXT_WIDTH, width

NASTY = r"50 % of $x_1 & \frac{a}{b} # ~ ^ < > | 30° ±ε √2"


def test_every_special_character_is_escaped():
    text = escape(NASTY)
    bare = re.sub(r"\\[a-zA-Z]+(\{\})?|\\[%$&#_{}]|\$\^\{\\circ\}\$|\$\\[a-z]+\$", "", text)
    assert not set(bare) & set("%&#_~^\\<>|$"), bare


def test_rows_have_the_columns_of_the_head():
    frame = pd.DataFrame({"a_b": [1.5, np.nan, -1e-7], "text": ["x & y", None, "100%"], "n": [1, 2, 3]})
    lines = latex_table(frame, caption="50 % of it", label="tab:x").splitlines()
    rows = [line for line in lines if line.endswith(r"\\")]
    assert [len(re.split(r"(?<!\\)&", row)) for row in rows] == [3] * 4
    assert rows[1].startswith(r"1.5 & x \& y & 1")
    assert rows[2].startswith(" &  & 2")
    assert r"$-1 \times 10^{-7}$" in rows[3]
    assert r"\begin{tabular}{rlr}" in lines


def test_sentences_break_into_lines():
    frame = pd.DataFrame({"claim": ["short", "a claim that is as long as a sentence is wont to be"], "n": [1, 2]})
    assert r"{p{0.36\linewidth}r}" in latex_table(frame, caption="", label="t")


def test_a_long_table_breaks_over_pages():
    frame = pd.DataFrame({"x": range(LONG_ROWS + 1)})
    assert r"\begin{longtable}" in latex_table(frame, caption="", label="t")
    text = latex_table(frame, caption="Once", label="tab:once")
    assert text.count(r"\caption{Once}") == text.count(r"\label{tab:once}") == 1  # later pages count no further table
    assert text.index(r"\endfirsthead") < text.index(r"\caption[]{Once}") < text.index(r"\endhead")
    assert r"\begin{tabular}" in latex_table(frame[:-1], caption="", label="t")
    claims = pd.DataFrame({"claim": ["a claim that takes two lines of the page it is on"] * (LONG_ROWS // 2)})
    assert r"\begin{tabular}" in latex_table(claims, caption="", label="t")
    assert r"\begin{longtable}" in latex_table(pd.concat([claims, claims[:1]]), caption="", label="t")


def wide(rows=6, names=None):
    """A table as analyses write them: paths, costs, constants and many numbers."""
    names = names or [f"/home/me/experiments/of-some-length/runs/fa-seed{seed}/ckpt.pt" for seed in range(rows)]
    numbers = {f"quantity_number_{i:02d}": [1.5e-7 * (i + 1), *[123.456] * (rows - 1)] for i in range(14)}
    frame = pd.DataFrame({"checkpoint": names, "attack": "pgd", **numbers, "n_samples": 1000})
    return frame.assign(seconds=1.5, n_hvp=50, n_products=7, rule="fa", angle=np.nan, seed=range(rows))


def widths(text):
    """The estimated widths in pt of the tables in LaTeX: their widest row, column by column."""
    size = next(points for name, points in SIZES.items() if f"\\{name}" in text)
    room = float(re.search(r"tabcolsep\}\{(\d+)pt", text)[1]) if "tabcolsep" in text else 6.0
    for table in re.findall(r"\\toprule\n(.*?)\\bottomrule", text, re.S):
        rows = [line.removesuffix(r"\\").split(" & ") for line in table.splitlines() if " & " in line]
        heads, *body = [row for row in rows if row is rows[0] or r"\textbf" not in row[0]]  # long ones have two heads
        wrapped = [re.findall(r"\\textbf\{((?:[^{}]|\{[^}]*\})*)\}", head) for head in heads]
        columns = [
            max([width(line, size, bold=True) for line in lines] + [width(row[place].strip(), size) for row in body])
            for place, lines in enumerate(wrapped)
        ]
        yield sum(columns) + 2 * room * (len(columns) - 1)


@pytest.mark.parametrize("names", [None, [f"{'x' * 60}{seed}" for seed in range(6)]])
def test_a_wide_table_fits_the_text_width(names):
    text = latex_table(wide(names=names), caption="Some", label="t")
    found = list(widths(text))
    assert len(found) > 1  # in parts, as a last resort
    assert max(found) <= TEXT_WIDTH
    plain = re.sub(r"\} \\\\ \\textbf\{", " ", text)
    assert all(f"number {i:02d}" in plain for i in range(14))
    assert "attack pgd, n samples 1000" in text  # in the caption, once for all rows


def test_neither_paths_nor_costs_are_printed():
    text = latex_table(wide(), caption="Some", label="t")
    for word in ("/home", "experiments", "seconds", "hvp", "products"):
        assert word not in text
    said = wide().assign(message="the gradient of /home/me/experiments/of-some-length/runs/fa-seed1 leaves 0.5 / 0.6")
    assert "the gradient of fa-seed1 leaves 0.5 / 0.6" in latex_table(said, caption="", label="t")
    same = wide().assign(seed=0)  # which rule and seed do not tell apart
    assert "fa-seed3" in latex_table(same, caption="", label="t")


def test_widths_are_those_of_computer_modern():
    """Ten digits are 50 pt wide at 10 pt in cmr10, and bold ones and smaller fonts relatively wider."""
    assert width("0123456789", 9) == pytest.approx(50.0 * 0.9 * 1.028)
    assert width("$-1.5$", 9) > width("$1.5$", 9)
    assert width("accuracy", 9, bold=True) > width("accuracy", 9) > width("accuracy", 7)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex on the PATH")
def test_compiled_tables_are_no_wider_than_the_text(tmp_path):
    tables = "\n".join([latex_table(wide(), caption="c", label="a"), latex_table(wide(60), caption="c", label="b")])
    document = r"\documentclass{article}\usepackage{booktabs,longtable}\begin{document}" + tables
    (tmp_path / "t.tex").write_text(document + r"\end{document}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, text=True)
    assert done.returncode == 0
    assert r"Overfull \hbox" not in done.stdout, done.stdout


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex on the PATH")
def test_it_compiles(tmp_path):
    frame = pd.DataFrame({"claim_1": [NASTY] * 3, "p": [0.01, np.nan, 1e-9]})
    tables = (
        latex_table(frame, caption=NASTY, label="tab:a"),
        latex_table(pd.concat([frame] * 20), caption="", label="b"),
    )
    document = r"\documentclass{article}\usepackage{booktabs,longtable}\begin{document}" + "\n".join(tables)
    (tmp_path / "t.tex").write_text(document + r"\end{document}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120).returncode == 0
