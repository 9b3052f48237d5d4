"""``analyze report``: one self-contained page for a folder of results."""

import argparse
from pathlib import Path

from reports.commands.common import progress_bar

HELP = "one self-contained HTML page with the figures and tables of a folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    text = "folder with tables of analyses and run folders, at any depth; gets index.html"
    parser.add_argument("folder", type=Path, metavar="DIR", help=text)
    text = "also write each table of up to 400 rows as NAME.tex beside its CSV (default: no)"
    parser.add_argument("--latex", action="store_true", help=text)
    parser.add_argument("--quiet", action="store_true", help="print the page's path only, no progress")


def run(args: argparse.Namespace) -> None:
    """Write ``DIR/index.html`` and print its path."""
    from reports.page.html import write_page

    print(write_page(args.folder, progress=progress_bar(args, "report", "section")))
    if args.latex:
        from reports.page.latex import write_all

        for path in write_all(args.folder):
            print(path)
