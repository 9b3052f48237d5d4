"""How near B B^T comes to the identity as B becomes wider, as a job of the store: no network, nothing trained."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # of the eigenvalues
KURTOSIS = 9 / 5  # E[x^4] / E[x^2]^2 of the uniform distribution that B is drawn from


def expected_square(rows: int, width: int) -> float:
    """Return E[tr (B B^T)^2] / rows of B (rows, width), entries independent with mean 0, variance 1 / width and
    :data:`KURTOSIS`.

    Its diagonal has E[A_ii^2] = 1 + (kurtosis - 1) / width, each of the others E[A_ij^2] = 1 / width.
    """
    return 1 + (rows - 2 + KURTOSIS) / width


def expected_angle(rows: int, width: int) -> float:
    """Return the angle in degrees between W and B B^T W for a W whose columns point anywhere: its cosine is
    ``tr A / sqrt(rows tr A^2)``, 1 / sqrt(1 + 1 / k) for many rows and k = width / rows."""
    return math.degrees(math.acos(1 / math.sqrt(expected_square(rows, width))))


def spectrum_ends(rows: int, width: int) -> tuple[float, float]:
    """Return between what the eigenvalues of B B^T lie for many rows (Marchenko and Pastur 1967)."""
    root = math.sqrt(rows / width)
    return (1 - root) ** 2 if width >= rows else 0.0, (1 + root) ** 2


def expansion(
    folder: Path,
    inputs: Mapping[str, Path],
    *,
    expansions: Sequence[float],
    outputs: int,
    columns: int,
    draws: int,
    device: str = "auto",
    data_root: Path | None = None,
) -> None:
    """Write ``expansion.csv``: a row for each expansion and draw, with ``angle`` (degrees) between W and B B^T W and
    ``norm_ratio`` |B B^T W| / |W|, and the ``least, largest`` and :data:`QUANTILES` of the eigenvalues of B B^T.

    W is (outputs, columns), N(0, 2 / columns); B is what ``pfa`` draws, with the draw as its seed. With R = B^T W, to
    which learning with decay leads, the path B R is B B^T W.
    """
    import numpy as np
    import pandas as pd
    import torch

    from reports.tables import write_csv
    from training import TrainConfig, alignment, make_rule
    from training.rules.pfa import ProductFeedbackAlignment

    rows = []
    for draw in range(draws):
        rule = make_rule(TrainConfig(rule="pfa", seed=draw))
        assert isinstance(rule, ProductFeedbackAlignment)
        random = rule.stream("weights", "expansion")
        weight = torch.randn(outputs, columns, generator=random).double() * math.sqrt(2 / columns)
        for k in expansions:
            b = rule.fixed(f"expansion {k:g}", outputs, round(k * outputs), 1).double()
            product = b @ b.T
            found, values = alignment(weight, product @ weight), torch.linalg.eigvalsh(product).numpy()
            quantiles = {f"q{100 * q:g}": np.quantile(values, q) for q in QUANTILES}
            row = {"expansion": k, "width": b.shape[1], "draw": draw, "angle": found.flat_angle}
            rows.append({**row, "norm_ratio": found.norm_ratio, "least": values[0], **quantiles, "largest": values[-1]})
    write_csv(pd.DataFrame(rows), folder / "expansion.csv")
