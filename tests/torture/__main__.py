"""`make torture`: run every part, print each trial that broke something and a table of tries and survivors.

``python -m tests.torture [PART ...] [--minutes 15] [--table FILE]`` from the checkout's root. The exit status is 1 if
anything broke. Parts share the time that is left evenly; one that has none left says how far it came.
"""

import argparse
import sys
import time
from pathlib import Path

from .parts import PARTS
from .running import run_apart
from .trial import Tally


def table(tallies: list[Tally]) -> str:
    """Return the tallies as a table in Markdown."""
    rows = ["| what was tried | what is promised | tried | survived | skipped | seconds |", "|---|---|--:|--:|--:|--:|"]
    rows += [
        f"| {one.part.name} | {one.part.promise} | {one.tried} | {one.survived} | {one.skipped} | {one.seconds:.0f} |"
        for one in tallies
    ]
    return "\n".join(rows) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"all, or some of: {', '.join(PARTS)}")
    parser.add_argument("--minutes", type=float, default=15, help="for all of them together (default: %(default)s)")
    parser.add_argument("--table", type=Path, help="also write the table to this file, in Markdown")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    names = args.parts or list(PARTS)
    end = time.monotonic() + 60 * args.minutes
    tallies = []
    for left, name in zip(range(len(names), 0, -1), names, strict=True):
        tallies.append(run_apart(name, (end - time.monotonic()) / left))
    print("\n" + table(tallies), end="")
    if args.table is not None:
        args.table.write_text(table(tallies))
    return int(any(tally.broke for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
