"""Print a markdown table of the last epoch of runs: one row a group of seeds, mean ± standard deviation over them.

    python docs/rules_table.py runs/bp runs/fa ...

Each argument is a folder of run folders. Groups are the runs of one folder that differ in nothing but the seed.
"""

import json
import math
import sys
from pathlib import Path

import pandas as pd

COLUMNS = ("train_accuracy", "test_accuracy")


def last_epoch(run: Path) -> pd.Series:
    """The run's last row of metrics, and the best test accuracy on the way."""
    metrics = pd.read_csv(run / "metrics.csv")
    row = metrics.iloc[-1].copy()
    row["best_test"] = metrics["test_accuracy"].max()
    return row


def group_of(run: Path) -> tuple[str, str]:
    """The folder of the run, and everything of its config but the seed."""
    config = json.loads((run / "config.json").read_text())["config"]
    config.pop("seed")
    return run.parent.name, json.dumps(config, sort_keys=True)


def percent(values: pd.Series) -> str:
    return f"{100 * values.mean():.2f} ± {100 * values.std():.2f}" if len(values) > 1 else f"{100 * values.mean():.2f}"


def angles(rows: pd.DataFrame) -> str:
    """Mean angle of each layer that has one, in order of the layers."""
    names = [name for name in rows if name.startswith("angle_") and rows[name].notna().all()]
    return ", ".join(f"{rows[name].mean():.0f}" for name in names) or "-"


def label(config: dict[str, object]) -> str:
    """What tells the run from the others: rule, angle, optimiser where it is not Adam at the default."""
    name = str(config["rule"])
    if name == "ifa":
        name += f" {config['angle']:g}°"
    if config["optimiser"] != "adam":
        name += f", {config['optimiser']} {config['lr']:g}"
    if not math.isclose(config["forward_scale"], math.sqrt(2)):  # He
        name += f", forward scale {config['forward_scale']:g}"
    if config["weight_decay"]:
        name += f", decay {config['weight_decay']:g}"
    if config["first_epoch_weight_decay"] is not None:
        name += f" (first epoch {config['first_epoch_weight_decay']:g})"
    return name


def main(folders: list[str]) -> None:
    head = ("rule", "seeds", "train %", "test %", "best test %", "angle of layers 2, 3, ... (deg)")
    lines = [head, ("---",) * len(head)]
    for folder in folders:
        groups: dict[tuple[str, str], list[Path]] = {}
        for run in sorted(path.parent for path in Path(folder).rglob("done.json")):
            groups.setdefault(group_of(run), []).append(run)
        for (_, config), runs in groups.items():
            rows = pd.DataFrame([last_epoch(run) for run in runs])
            cells = (*(percent(rows[name]) for name in (*COLUMNS, "best_test")), angles(rows))
            lines.append((label(json.loads(config)), str(len(runs)), *cells))
    sys.stdout.writelines(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main(sys.argv[1:])
