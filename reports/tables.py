"""Tables on disk (CSV with a JSON sidecar that says where the numbers come from) and on the terminal."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from alignscape.device import describe_device
from alignscape.files import atomic_path, write_json
from alignscape.version import versions
from reports.subjects import Subject


def with_subject(frame: pd.DataFrame, subject: Subject) -> pd.DataFrame:
    """Return ``frame`` with ``checkpoint`` as its first column and, for a run of ours, ``rule, angle, seed, epoch``
    as its last ones."""
    labelled = frame.copy()
    labelled.insert(0, "checkpoint", subject.name)
    return labelled.assign(**subject.columns)


def write_table(frame: pd.DataFrame, path: Path, provenance: Mapping[str, Any]) -> None:
    """Write ``frame`` as CSV (floats at full precision) and ``provenance`` as JSON beside it, both atomically; the
    sidecar first, so that no table is without one."""
    write_json(path.with_suffix(".json"), provenance)
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False)


def provenance(subjects: Sequence[Subject], *, seed: int | None = None, **more: Any) -> dict[str, Any]:
    """Return what a sidecar holds: command line, versions, time, seed, digests of checkpoints and data; and
    ``more``, which must be JSON."""
    return {
        "command": shlex.join(["analyze", *sys.argv[1:]]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "seed": seed,
        "device": describe_device(subjects[0].device) if subjects else None,
        "checkpoints": {s.name: s.digest for s in subjects},
        "data": {
            s.name: {"dataset": s.dataset, "split": s.split, "samples": len(s.labels), "digest": s.data_digest}
            for s in subjects
        },
        **more,
    }


def render(frame: pd.DataFrame, *, digits: int = 5) -> str:
    """Return ``frame`` as an aligned text table for a terminal; missing values are blank."""

    def cell(value: Any) -> str:
        if value is None or (isinstance(value, float) and value != value):
            return ""
        return f"{value:.{digits}g}" if isinstance(value, float) else str(value)

    columns = [[str(name), *(cell(v) for v in frame[name].tolist())] for name in frame.columns]
    numeric = [pd.api.types.is_numeric_dtype(frame[name]) for name in frame.columns]
    widths = [max(map(len, column)) for column in columns]
    rows = zip(*columns, strict=True)
    return "\n".join(
        "  ".join(
            t.rjust(w) if right else t.ljust(w) for t, w, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in rows
    )
