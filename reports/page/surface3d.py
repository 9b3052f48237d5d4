"""Loss surfaces that can be turned on the page: the data for plotly.js, and plotly.js itself, packed."""

import base64
import gzip
from importlib.resources import files
from typing import Any

import numpy as np
from pandas import DataFrame

from reports.figures.planes import grid_of
from reports.figures.series import series_of

_POINTS = 81  # most grid points along an axis that are embedded; more are thinned out


def surface_payload(frame: DataFrame | None) -> list[dict[str, Any]]:
    """Return one dict per checkpoint: ``name, alpha, beta, loss`` (rows are beta, null where it is not finite)."""
    if frame is None or not {"alpha", "beta", "loss", "checkpoint"} <= set(frame.columns):
        return []
    payload = []
    for one in series_of(frame):
        for checkpoint, rows in one.frame.groupby("checkpoint", sort=False):
            alpha, beta, loss = grid_of(rows)
            if min(loss.shape) < 2 or not np.isfinite(loss).any():
                continue
            across, up = (slice(None, None, -(-size // _POINTS)) for size in (len(alpha), len(beta)))
            name = one.label if one.checkpoints == 1 else f"{one.label}, {checkpoint}"
            rounded = [[None if np.isnan(v) else float(f"{v:.5g}") for v in row] for row in loss[up, across]]
            axes = {"alpha": alpha[across].round(6).tolist(), "beta": beta[up].round(6).tolist()}
            payload.append({"name": name, "loss": rounded, **axes})
    return payload


def plotly_source() -> str:
    """Return plotly.js, as the installed plotly distribution carries it, as base64 of gzip (a third of its size)."""
    source = files("plotly").joinpath("package_data/plotly.min.js").read_bytes()
    return base64.b64encode(gzip.compress(source, mtime=0)).decode()
