"""What the page says about a kind of table: its heading, how to read it, and which figures it draws."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure.

    Attributes:
        title: on the page.
        caption: what to see in it, whatever the table has.
        remarks: further sentences of the caption, each with the test of a table that says whether it has what the
            sentence speaks of.
        draw: ``"package.module:function"``, called with the table (and those of ``beside``); imported when needed.
        of: the table that it shows, if not the main one; without one in the folder it is not drawn.
        beside: further tables of the same folder that it shows.
        stem: name of its PDF and PNG.
        applies: whether a table has what it shows.
        derived: no analysis writes it: the page does.
        panel_each: it has a panel for each network, so that the page draws the first of very many only.

    Example:
        >>> from reports import Drawing
        >>> Drawing(title="Spectrum", caption="", draw="reports.figures:spectrum", stem="spectrum").stem
        'spectrum'
    """

    title: str
    caption: str
    draw: str
    stem: str
    of: str = ""
    beside: tuple[str, ...] = ()
    applies: "Callable[[DataFrame], bool]" = lambda frame: True
    derived: bool = False
    remarks: "tuple[tuple[str, Callable[[DataFrame], bool]], ...]" = ()
    panel_each: bool = False

    def caption_of(self, frame: "DataFrame") -> str:
        """Return the caption of the figure of a table: nothing of what it does not show."""
        return " ".join([self.caption, *(text for text, holds in self.remarks if holds(frame))]).strip()

    def figure(self, tables: "Mapping[str, DataFrame]", main: str) -> "Figure":
        """Draw the table called ``main``.

        Raises:
            InputError: the table lacks what the figure shows.
        """
        module, _, name = self.draw.partition(":")
        function: Any = getattr(importlib.import_module(module), name)
        return function(tables[self.of or main], *(tables.get(other) for other in self.beside))


def has(*columns: str) -> "Callable[[DataFrame], bool]":
    """Return the test whether a table has a number, or a text, in each of these columns.

    >>> has("loss").__name__
    'holds'
    """

    def holds(frame: "DataFrame") -> bool:
        return all(name in frame and bool(frame[name].notna().any()) for name in columns)

    return holds


def several_networks(frame: "DataFrame") -> bool:
    """Whether a table is of more than one network."""
    return "checkpoint" in frame and len(frame["checkpoint"].unique()) > 1


@dataclass(frozen=True, kw_only=True)
class Section:
    """What the page says of one kind of table.

    Attributes:
        heading: of the section.
        text: how to read it.
        drawings: its figures; the first is what ``Result.plot()`` draws.

    Example:
        >>> from reports import Section
        >>> Section(heading="Mine", text="What it is.", drawings=()).heading
        'Mine'
    """

    heading: str
    text: str
    drawings: tuple[Drawing, ...]
