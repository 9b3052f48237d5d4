"""``analyze runs``: what the run store holds."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignscape.errors import InputError
from reports.commands.common import add_quiet_argument, add_store_argument, progress_bar

if TYPE_CHECKING:
    from training.store.inventory import Inventory, Item

HELP = "list, show, verify and remove the runs and analyses that a run store holds"

FILTERS = ("rule", "dataset", "angle", "seed", "state")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    text = "what to do; ACTION --help explains its flags"
    actions = parser.add_subparsers(metavar="ACTION", required=True, help=text)
    _add_ls(_action(actions, "ls", ls, "one line for each run"))
    show_parser = _action(actions, "show", show, "everything about one run or analysis")
    text = "its key, or enough of the beginning to tell it; `analyze runs ls` lists the keys of runs"
    show_parser.add_argument("key", metavar="KEY", help=text)
    show_parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    text = "compare every file with its recorded digest; exit status 1 if any is damaged"
    add_quiet_argument(_action(actions, "verify", verify, text))
    _add_rm(_action(actions, "rm", rm, "remove runs, with the analyses made from them, or analyses"))


def run(args: argparse.Namespace) -> None:
    """Look into the store and carry out the action."""
    from training.store.inventory import Inventory
    from training.store.run_store import RunStore

    args.action(args, Inventory.of(RunStore(args.store)))


def _action(
    actions: Any, name: str, function: "Callable[[argparse.Namespace, Inventory], None]", text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    parser.set_defaults(action=function)
    add_store_argument(parser)
    return parser


def _add_ls(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rule", metavar="NAME", help="only runs of this learning rule (default: all)")
    parser.add_argument("--dataset", metavar="NAME", help="only runs on this data set (default: all)")
    text = "only ifa runs of this angle in degrees (default: all)"
    parser.add_argument("--angle", type=float, metavar="DEG", help=text)
    parser.add_argument("--seed", type=int, metavar="S", help="only runs of this seed (default: all)")
    states = ("complete", "in progress", "interrupted", "diverged", "damaged")
    text = "only runs in this state; interrupted: begun, and no process at work on it (default: all)"
    parser.add_argument("--state", choices=states, help=text)
    text = "print a JSON list instead of a table; sizes in bytes, ages in s"
    parser.add_argument("--json", action="store_true", help=text)


def _add_rm(parser: argparse.ArgumentParser) -> None:
    text = "key of a run or an analysis, or enough of the beginning to tell it"
    parser.add_argument("keys", nargs="*", metavar="KEY", help=text)
    parser.add_argument("--incomplete", action="store_true", help="also runs that were interrupted")
    parser.add_argument("--damaged", action="store_true", help="also what `analyze runs verify` finds damaged")
    text = "also analyses of checkpoints that are no longer in the store"
    parser.add_argument("--unused", action="store_true", help=text)
    parser.add_argument("--yes", action="store_true", help="do not ask before removing")
    add_quiet_argument(parser)


def ls(args: argparse.Namespace, inventory: "Inventory") -> None:
    """Print the table of runs."""
    rows = [inventory.run_row(run) for run in inventory.runs]
    rows.sort(key=lambda row: [str(row["dataset"]), str(row["rule"]), row["angle"] or 0, row["seed"] or 0, row["key"]])
    for name in FILTERS:
        if (wanted := getattr(args, name)) is not None:
            rows = [row for row in rows if row[name] == wanted]
    if args.json:
        print(json.dumps(rows, indent=2))
    elif not rows:
        print(f"no such runs among {len(inventory.runs)} in {args.store}", file=sys.stderr)
    else:
        print(_table(rows))
        size = _size(sum(row["bytes"] for row in rows))
        print(f"\n{len(rows)} runs, {size}; {len(inventory.analyses)} analyses in the store", file=sys.stderr)


def _table(rows: list[dict[str, Any]]) -> str:
    """Return the table, with a column for every setting in which the listed runs differ."""
    import pandas as pd

    from reports.tables import render

    configs = [row["config"] for row in rows]
    settings = sorted({name for config in configs for name in config} - rows[0].keys() - {"epochs"})
    varying = [name for name in settings if len({json.dumps(config.get(name)) for config in configs}) > 1]
    shown = [
        {
            **{name: row[name] for name in ("key", "dataset", "rule", "angle", "seed")},
            **{name: _text(row["config"].get(name)) for name in varying},
            "epochs": f"{row['epochs'] or 0:g}/{row['config'].get('epochs', '?')}",
            **{name: row[name] for name in ("state", "accuracy", "analyses")},
            "size": _size(row["bytes"]),
            "age": _age(row["age_seconds"]),
        }
        for row in rows
    ]
    return render(pd.DataFrame(shown).dropna(axis="columns", how="all"), stacked=False)


def show(args: argparse.Namespace, inventory: "Inventory") -> None:
    """Print one run or analysis."""
    from training.run_folder import RunFolder

    item = inventory.find(args.key)
    description = {
        **(_describe_run(item, inventory) if isinstance(item, RunFolder) else _describe_analysis(item, inventory)),
        "files": _files(item.path),
        "analyses": {e.path.name: e.definition.get("analysis", "damaged") for e in inventory.dependants([item])},
    }
    if args.json:
        print(json.dumps(description, indent=2))
        return
    for heading, value in description.items():
        if isinstance(value, dict):
            width = max(map(len, value), default=0)
            print(f"{heading}:", *(f"  {name.ljust(width)}  {_text(entry)}" for name, entry in value.items()), sep="\n")
        else:
            print(f"{heading}: {_text(value)}")


def _describe_run(run: Any, inventory: "Inventory") -> dict[str, Any]:
    from training.store.inventory import last_metrics
    from training.store.run_store import read_json

    row, recorded = inventory.run_row(run), run.read_config()
    return {
        "run": row["key"],
        "folder": str(run.path),
        "state": row["state"],
        "problems": inventory.problems(run, hashed=False),
        "config": recorded["config"],
        "data": {name: recorded["data"][name] for name in ("name", "digest")} | {"root": recorded.get("data_root")},
        "trained with": {**recorded.get("versions", {}), "device": recorded.get("device")},
        "last metrics": last_metrics(run),
        **({"best epoch": best} if (best := read_json(run.path / "done.json").get("best")) else {}),
    }


def _describe_analysis(entry: Any, inventory: "Inventory") -> dict[str, Any]:
    meta, definition = entry.meta(), entry.definition
    inputs = definition.get("inputs", {}).items()
    return {
        "analysis": entry.path.name,
        "folder": str(entry.path),
        "problems": inventory.problems(entry, hashed=False),
        "name": definition.get("analysis"),
        "version": definition.get("version"),
        "parameters": definition.get("parameters", {}),
        "inputs": {n: f"{meta.get('sources', {}).get(n, 'unknown')}, sha256 {digest[:16]}" for n, digest in inputs},
        **{name: meta.get(name) for name in ("created", "seconds")},
    }


def _files(folder: Path) -> dict[str, int]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def verify(args: argparse.Namespace, inventory: "Inventory") -> None:
    """Compare every file with the digest that was recorded when it was written.

    Raises:
        SystemExit: status 1 when something is damaged.
    """
    damaged = _damaged(args, inventory)
    for item, problems in damaged:
        for problem in problems:
            print(f"{item.path}: {problem}")
    unfinished = sum(not run.is_done for run in inventory.runs)
    print(
        f"{len(inventory.runs)} runs ({unfinished} unfinished) and {len(inventory.analyses)} analyses: "
        + (f"{len(damaged)} damaged; `analyze runs rm --damaged` removes them" if damaged else "all as written")
    )
    if damaged:
        raise SystemExit(1)


def _damaged(args: argparse.Namespace, inventory: "Inventory") -> "list[tuple[Item, list[str]]]":
    progress, items = progress_bar(args, "verify", "item"), inventory.items()
    damaged = []
    for done, item in enumerate(items, start=1):
        if problems := inventory.problems(item, hashed=True):
            damaged.append((item, problems))
        if progress is not None:
            progress(done, len(items))
    return damaged


def rm(args: argparse.Namespace, inventory: "Inventory") -> None:
    """Remove runs and analyses, after asking.

    Raises:
        InputError: nothing was named; a key is unknown or ambiguous; a process is at work on one of them; there is
            nobody to ask.
    """
    if not (args.keys or args.incomplete or args.damaged or args.unused):
        raise InputError("name what to remove: KEY ..., --incomplete, --damaged or --unused")
    chosen = [inventory.find(key) for key in args.keys]
    if args.incomplete:
        chosen += [r for r in inventory.runs if inventory.run_row(r)["state"] == "interrupted"]
    if args.damaged:
        chosen += [item for item, _ in _damaged(args, inventory)]
    if args.unused:
        chosen += inventory.unused()
    items = list({item.path: item for item in chosen}.values())
    hanging = [entry for entry in inventory.dependants(items) if entry not in items]
    if not items:
        print("nothing to remove")
        return
    what = f"{len(items)} of {len(inventory.items())} runs and analyses"
    what += f", and {len(hanging)} analyses that hang on them" if hanging else ""
    with inventory.removing([*items, *hanging]):
        if not args.yes and not _confirmed(f"remove {what}?"):
            raise InputError("nothing was removed")
    print(f"removed {what}")


def _confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise InputError(f"{question} Say --yes where nobody can be asked")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "" if value is None else str(value)


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
