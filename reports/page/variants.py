"""What sets the runs of a folder apart beside rule, angle and seed, and the table of their settings."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from pandas import DataFrame

from alignscape.settings import as_json, settings_of
from reports.figures.series import place_of, rule_name
from training.config import TrainConfig

_IDENTITY = ("rule", "angle", "seed")
_MOST_SEEDS = 12  # that are listed one by one


def run_of(name: str) -> tuple[str, ...]:
    """Return the parts of the path of a run, without the file of its checkpoint."""
    parts = PurePath(name).parts or (name,)
    if len(parts) > 1 and parts[-1] == "ckpt.pt":
        parts = parts[:-1]
    if len(parts) > 2 and parts[-2] == "checkpoints":
        parts = parts[:-2]
    return tuple(part for part in parts if part != "/") or (name,)


def one_name_each(names: Iterable[str]) -> dict[str, str]:
    """Map every name to the shortest one of the same network: ``/a/runs/fa/ckpt.pt`` and ``runs/fa`` are one."""
    stripped = {name: run_of(name) for name in names}
    known = set(stripped.values())
    return {
        name: "/".join(next(parts[-length:] for length in range(1, len(parts) + 1) if parts[-length:] in known))
        for name, parts in stripped.items()
    }


class Variants:
    """The settings of the runs in a folder.

    Args:
        configs: of each run, by its name, as ``config.json`` holds it.
    """

    def __init__(self, configs: Mapping[str, Mapping[str, Any]]) -> None:
        self.configs = {run_of(name): dict(config) for name, config in configs.items()}
        groups: dict[tuple[Any, ...], list[tuple[str, ...]]] = defaultdict(list)
        for run, config in self.configs.items():
            groups[config.get("rule"), config.get("angle")].append(run)
        self.texts = {
            run: text
            for runs in groups.values()
            for run, text in zip(runs, differences([self.configs[run] for run in runs]), strict=True)
        }

    def config(self, checkpoint: str) -> dict[str, Any]:
        """Return the settings of the run that a table calls ``checkpoint``; empty if it is none of the folder's."""
        return self.configs.get(self._run(checkpoint), {})

    def text(self, checkpoint: str) -> str:
        """Return e.g. ``lr 0.01``: in what the run differs from others of its rule; empty where in nothing."""
        return self.texts.get(self._run(checkpoint), "")

    def _run(self, checkpoint: str) -> tuple[str, ...]:
        parts = run_of(checkpoint)
        return next((parts[i:] for i in range(len(parts)) if parts[i:] in self.configs), ())

    def labelled(self, frame: DataFrame) -> DataFrame:
        """Return a table with a column ``variant``, by which figures tell its runs apart, if any differ."""
        if not any(self.texts.values()) or "checkpoint" not in frame:
            return frame
        texts = {name: self.text(name) for name in frame["checkpoint"].astype(str).unique()}
        return frame.assign(variant=frame["checkpoint"].astype(str).map(texts))

    def label(self, checkpoint: str, row: Mapping[str, Any]) -> tuple[tuple[Any, ...], str]:
        """Return what groups are sorted by, and the name of the group: rule, angle, and in what its runs differ."""
        config = self.config(checkpoint)
        rule, angle = config.get("rule", row.get("rule")), config.get("angle", row.get("angle"))
        rule = rule if isinstance(rule, str) else ""
        number = float(angle) if rule == "ifa" and isinstance(angle, int | float) and angle == angle else None
        name = rule_name(rule, number) if rule else "Networks of no known rule"
        text = self.text(checkpoint)
        return (*place_of(rule), number or 0.0, text), ", ".join(filter(None, (name, text)))

    def table(self) -> DataFrame | None:
        """Return a row for each group of runs that differ in their seed only: name, seeds, and each setting that is
        not the same in all runs; None if there is no run."""
        if not self.configs:
            return None
        differing = _differing(list(self.configs.values()))
        rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        seeds: dict[tuple[Any, ...], list[Any]] = defaultdict(list)
        for run, config in self.configs.items():
            order, label = self.label("/".join(run), {})
            values = {name: shown(value_of(config, name)) for name in differing}
            mark = (order, *values.values())
            rows[mark] = {"runs of": label, "n": 0, "seeds": "", **values}
            seeds[mark].append(config.get("seed"))
        for mark, row in rows.items():
            row.update(n=len(seeds[mark]), seeds=_ranges(seeds[mark]))
        return DataFrame([rows[mark] for mark in sorted(rows, key=repr)]).sort_values(
            "runs of", kind="stable", key=lambda names: names.map(self._places())
        )

    def _places(self) -> dict[str, int]:
        labels = sorted({self.label("/".join(run), {}) for run in self.configs})
        return {name: place for place, (_, name) in reversed(list(enumerate(labels)))}

    def shared(self) -> DataFrame | None:
        """Return ``setting, value, meaning`` of what is the same in all runs; None if there is no run."""
        if not self.configs:
            return None
        configs = list(self.configs.values())
        differing = {*_differing(configs), *_IDENTITY}
        known = settings_of(TrainConfig)
        rows = [
            {"setting": name, "value": shown(value), "meaning": known[name].help if name in known else ""}
            for name, value in configs[0].items()
            if name not in differing and value != ""
        ]
        return DataFrame(rows)


def _differing(configs: Sequence[Mapping[str, Any]], *, of_result: bool = False) -> list[str]:
    """Return the settings beside rule, angle and seed that are not the same in all configs, in the order in which they
    are declared; ``of_result``: those alone that a result depends on."""
    known = settings_of(TrainConfig)
    names = list(dict.fromkeys([*known, *(name for config in configs for name in config)]))
    if of_result:
        names = [name for name in names if name not in known or known[name].group not in ("output", MONITOR)]
    return [
        name
        for name in names
        if name not in _IDENTITY and len({repr(value_of(config, name)) for config in configs if config}) > 1
    ]


def value_of(config: Mapping[str, Any], name: str) -> Any:
    """Return a setting of a run, which files may leave out at its default; None if nothing is known of the run."""
    described = settings_of(TrainConfig)
    return config.get(name, as_json(described[name].default) if config and name in described else None)


def differences(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return for each of several runs of a rule in what its results differ from the others': ``lr 0.1``."""
    names = _differing(configs, of_result=True)
    return [
        ", ".join(f"{name.replace('_', ' ')} {shown(value_of(one, name)) if one else '?'}" for name in names)
        for one in configs
    ]


MONITOR = "curvature while training"


def shown(value: Any) -> Any:
    """Return a setting as a person reads it."""
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else value


def _ranges(seeds: list[Any]) -> str:
    """Return whole numbers as ``0..9, 12``."""
    if not all(isinstance(seed, int) for seed in seeds):
        return ", ".join(map(str, seeds[:_MOST_SEEDS]))
    runs: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    parts = [f"{a}" if a == b else f"{a}..{b}" for a, b in runs]
    return ", ".join(parts[:_MOST_SEEDS]) + (", …" if len(parts) > _MOST_SEEDS else "")
