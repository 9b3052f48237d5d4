"""What ``--by`` adds to the analyses of curvature: the same numbers of each group of parameters, and between them."""

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

    from landscape import Blocks, Eigenpairs, SpectralDensity
    from reports.analyses.analysis import Progress, Show

BY_HELP = (
    "also of each group of parameters: 'layer' (weights and biases of a module), 'block' (names as far as their first "
    "number, such as layer1.0), or patterns, each a group of what none before it matches, and 'rest'"
)


def hessian_rows(
    blocks: "Blocks",
    *,
    k: int,
    ends: Any,
    tol: float,
    trace_tol: float,
    probes: int,
    cross: bool,
    seed: int,
    largest: float,
    show: "Show",
    name: str,
) -> "DataFrame":
    """Return trace and eigenvalues of each group's block; with ``cross`` also the eigenvalues of what lies outside of
    the blocks, and the Frobenius norm of every block.

    Args:
        blocks: of the matrix.
        k, ends, tol, trace_tol, probes, cross, seed: settings of the analysis.
        largest: the wanted eigenvalue, the first, of the whole matrix, of which those of the groups are shares.
        show: where progress goes.
        name: of the network.
    """
    import pandas as pd

    begun = time.perf_counter()
    told = show(f"{name}: eigenvalues by group", "group")
    pairs = blocks.eigenpairs(k, ends=ends, tol=tol, between=cross, seed=seed, progress=told)
    after_pairs = time.perf_counter()
    told = show(f"{name}: traces by group", "group")
    traces = blocks.traces(pairs, tol=trace_tol, max_probes=probes, seed=seed + 1, progress=told)
    after_traces = time.perf_counter()
    total = sum(one.value for one in traces.values())
    rows = [
        one.frame().assign(
            quantity=f"trace:{group}",
            share=one.value / total if total else float("nan"),
            n_hvp=one.n_products,
            seconds=after_traces - after_pairs,
        )
        for group, one in traces.items()
    ]
    rows += [_eigenvalues(group, one, largest, after_pairs - begun) for group, one in pairs.items()]
    if cross:
        told = show(f"{name}: norms by group", "probe")
        rows.append(_norms(blocks, seed + 3, told).assign(seconds=time.perf_counter() - after_traces))
    return pd.concat(rows, ignore_index=True)


def _eigenvalues(group: str, pairs: "Eigenpairs", largest: float, seconds: float) -> "DataFrame":
    found = pairs.frame()
    share = found["value"] / largest if largest else float("nan")
    return found.assign(quantity=f"eigenvalue:{group}", share=share, n_hvp=pairs.n_products, seconds=seconds)


def _norms(blocks: "Blocks", seed: int, told: Any) -> "DataFrame":
    """Return the norms; the share of a block is that of its squares in those of the matrix, on both sides of the
    diagonal."""
    import pandas as pd

    probes = 20
    norms = blocks.norms(probes=probes, seed=seed, progress=told)
    squares = {pair: (1 if pair[0] == pair[1] else 2) * one.value**2 for pair, one in norms.items()}
    total = sum(squares.values())
    return pd.DataFrame(
        [
            {
                "quantity": f"norm:{first}" if first == second else f"norm:{first}|{second}",
                "index": 0,
                "value": one.value,
                "ci_low": one.ci_low,
                "ci_high": one.ci_high,
                "residual": float("nan"),
                "share": squares[first, second] / total if total else float("nan"),
                "n_hvp": probes * (1 if first == second else 2),
            }
            for (first, second), one in norms.items()
        ]
    )


def spectrum_rows(
    blocks: "Blocks", *, steps: int, probes: int, cross: bool, seed: int, progress: "Progress | None"
) -> "DataFrame":
    """Return the quadrature of each group's block, and with ``cross`` of what lies outside of the blocks."""
    import pandas as pd

    found: dict[str, SpectralDensity] = blocks.densities(
        steps=steps, probes=probes, between=cross, seed=seed, progress=progress
    )
    return pd.concat([one.frame().assign(group=group) for group, one in found.items()], ignore_index=True)
