"""How wide LaTeX sets a text, estimated from the widths of Computer Modern's characters.

There is no LaTeX to ask where the tables are written. The widths are those of ``cmr10`` (its font metrics, in
thousandths of the size); smaller fonts are drawn relatively wider, bold ones wider again.
"""

import re

TEXT_WIDTH = 345.0  # pt: that of ``article`` at 10 pt, the narrowest of the usual classes
SIZES = {"small": 9, "footnotesize": 8, "scriptsize": 7}  # pt, at 10 pt
_STRETCH = {9: 1.028, 8: 1.063, 7: 1.138}  # of cmr9, cmr8, cmr7 against cmr10
BOLD = 1.16
_USUAL, _CAPITAL = 556, 764  # what is not listed
_WIDTHS = {
    **dict.fromkeys("0123456789aog/$", 500),
    **dict.fromkeys("bdhkpquxyvn", 556),
    **dict.fromkeys("ijl.,:;'!", 278),
    **dict.fromkeys("ce", 444),
    **dict.fromkeys("()t", 389),
    **dict.fromkeys("rszf", 400),
    **{"m": 833, "w": 722, " ": 333, "-": 333, "%": 833, "+": 778, "=": 778, "I": 361, "J": 514, "M": 917, "W": 1028},
    **dict.fromkeys("AVXYHNKUTZ", 750),
    **dict.fromkeys("BCEFLPRS", 720),
}
_SIGNS = {"pm": 1222, "times": 1222, "circ": 500, "varepsilon": 466, "lambda": 583, "infty": 1000, "surd": 833,
          "uparrow": 500, "downarrow": 500, "dagger": 444, "ldots": 1167}  # fmt: skip


def width(latex: str, size: int, *, bold: bool = False) -> float:
    """Return the width in pt of one line of LaTeX that our tables have, set at ``size`` pt."""
    thousandths = 0.0
    for name in re.findall(r"\\([a-zA-Z]+)", latex):
        thousandths += _SIGNS.get(name, 778 if name.startswith("text") and name not in _FONTS else 0)
    raised = "".join(re.findall(r"\^\{([^}]*)\}", latex))
    plain = re.sub(r"\\[a-zA-Z]+|\^\{[^}]*\}|[{}$\\]", "", latex)
    negative = 445 * latex.count("$-")  # a minus sign is wider than a hyphen
    for text, share in ((plain, 1.0), (raised, 0.7)):
        thousandths += share * sum(_WIDTHS.get(c, _CAPITAL if c.isupper() else _USUAL) for c in text)
    return (thousandths + negative) / 1000 * size * _STRETCH[size] * (BOLD if bold or "bf{" in latex else 1.0)


_FONTS = ("textbf", "textit", "texttt")  # commands that print nothing themselves
