"""``analyze report``: one self-contained page for a folder of results."""

import argparse
from pathlib import Path

from alignscape.errors import InputError
from reports.commands.common import progress_bar

PAGE_HEAD = 100_000  # characters of a page within which it names what wrote it
HELP = "one self-contained HTML page with the figures and tables of a folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    text = "folder with tables of analyses and run folders, at any depth; gets index.html"
    parser.add_argument("folder", type=Path, metavar="DIR", help=text)
    text = "also write each table of up to 400 rows as NAME.tex beside its CSV, as wide as a page (default: no)"
    parser.add_argument("--latex", action="store_true", help=text)
    text = "replace an index.html that this command did not write, and LaTeX that was edited (default: no)"
    parser.add_argument("--force", action="store_true", help=text)
    parser.add_argument("--quiet", action="store_true", help="print the page's path only, no progress")


def run(args: argparse.Namespace) -> None:
    """Write ``DIR/index.html`` and print its path.

    Raises:
        InputError: there are no tables; there is a page of somebody else's.
    """
    if not args.force:
        check_page(args.folder)
    from reports.page.html import write_page

    print(write_page(args.folder, progress=progress_bar(args, "report", "section")))
    if args.latex:
        from reports.page.latex import write_all

        for path in write_all(args.folder, force=args.force):
            print(path)


def check_page(folder: Path) -> None:
    """Check that a page in ``folder`` is one that we wrote, which is made anew from the tables.

    Raises:
        InputError: it is somebody else's.
    """
    page = folder / "index.html"
    if page.is_file() and "alignscape" not in page.read_text(encoding="utf-8", errors="replace")[:PAGE_HEAD]:
        raise InputError(f"{page} was not made by analyze report: move it away, or replace it by --force")
