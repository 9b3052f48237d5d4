"""Tables as the analyses write them, with made-up numbers of the right order: what the figure tests draw."""

import numpy as np
import pandas as pd
from pandas import DataFrame

SIX = [("bp", np.nan), ("ifa", 0.0), ("ifa", 45.0), ("fa", np.nan), ("dfa", np.nan), ("pfa", np.nan)]
TWELVE = [("bp", np.nan), *(("ifa", float(angle)) for angle in range(0, 100, 10)), ("fa", np.nan)]
CORRUPTIONS = {
    "noise": ["gaussian_noise", "shot_noise", "impulse_noise"],
    "blur": ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur"],
    "weather": ["snow", "frost", "fog", "brightness"],
    "digital": ["contrast", "elastic_transform", "pixelate", "jpeg_compression"],
}


def networks(count: int, seeds: int = 1) -> list[dict]:
    """Return the identifying columns of ``count`` networks, each with ``seeds`` seeds."""
    rules = TWELVE if count > len(SIX) else SIX
    return [
        {"checkpoint": f"runs/{rule}{'' if np.isnan(angle) else f'-{angle:g}'}-s{seed}/ckpt.pt",
         "rule": rule, "angle": angle, "seed": seed}
        for rule, angle in rules[:count]
        for seed in range(seeds)
    ]  # fmt: skip


def anonymous(count: int) -> list[dict]:
    """Return networks that are files from elsewhere: no rule, angle or seed."""
    return [
        {"checkpoint": f"/home/someone/models/resnet_variant_{i}/final weights_{i}.safetensors"} for i in range(count)
    ]


def _table(nets: list[dict], rows_of) -> DataFrame:
    return pd.DataFrame([{**net, **row} for place, net in enumerate(nets) for row in rows_of(place, net)])


def metrics(nets: list[dict], epochs: int = 10, diverged: int | None = None) -> DataFrame:
    rng = np.random.default_rng(0)

    def rows(place, net):
        for epoch in range(epochs + 1):
            loss = 2.3 * np.exp(-epoch / (4 + place)) + 0.8 + 0.02 * rng.normal()
            lost = place == diverged and epoch > epochs // 2
            angles = {} if net.get("rule") == "bp" else {
                f"angle_{layer}": 90 - (90 - (net.get("angle", 90) if net.get("rule") == "ifa" else 90))
                * np.exp(-epoch / 8) - 15 * (1 - np.exp(-epoch / 5)) for layer in ("layers.1", "layers.2")}  # fmt: skip
            yield {"epoch": epoch, "step": 391 * epoch, "train_loss": np.nan if lost else loss,
                   "train_accuracy": 0.1 if lost else 0.6 - loss / 6, "test_loss": np.nan if lost else loss + 0.1,
                   "test_accuracy": 0.1 if lost else 0.55 - loss / 6, "seconds": 4.5, **angles}  # fmt: skip

    return _table(nets, rows)


def monitored(nets: list[dict], adam: bool = False, points: int = 30) -> DataFrame:
    """What a monitor finds: an eigenvalue that climbs up to its edge."""
    rng = np.random.default_rng(1)

    def rows(place, net):
        for step in range(0, 100 * points, 100):
            risen = 1 - np.exp(-step / 900)
            top, own = 40 * risen * (1 + place / 99) + rng.random(), 38000 * risen * (1 + 0.05 * rng.random())
            trace = 6 * top + 20 * rng.random()
            true = net.get("rule") == "bp"
            yield {"step": step, "epoch": step / 400, "loss": 2.5 * np.exp(-step / 600) + 0.01, "gradient_norm":
                   2 * np.exp(-step / 900), "eigenvalue": top, "residual": 0.01, "trace": trace, "ci_low": trace - 9,
                   "ci_high": trace + 9, "alignment": 0.3 + 0.6 * risen, "lr": 1e-3 if adam else 0.05,
                   "threshold": 38000.0 if adam else 40.0, "preconditioned_eigenvalue": own if adam else np.nan,
                   "preconditioned_residual": 1.0, "update_cosine": np.nan if true else 0.4 * risen,
                   "update_alignment": np.nan if true else 0.2, "k": 5, "n_samples": 500, "n_products": 35,
                   "eigenvalue_2": top / 2}  # fmt: skip

    return _table(nets, rows)


def hessian(nets: list[dict], k: int = 5, epochs: list[int] | None = None) -> DataFrame:
    def rows(place, net):
        for epoch in epochs or [None]:
            top = 120 / (1 + place) ** 1.5 * (1 if epoch is None else 1 + 0.1 * epoch)
            top *= 1 + 0.1 * net.get("seed", 0)
            tail = {} if epoch is None else {"epoch": epoch}
            trace = {"value": 9 * top, "ci_low": 8.2 * top, "ci_high": 9.8 * top}
            yield {"quantity": "trace", "index": 0, **trace, "residual": np.nan, **tail}
            for i in range(k):
                value = top * 0.8**i
                yield {"quantity": "eigenvalue", "index": i + 1, "value": value, "ci_low": value * 0.99,
                       "ci_high": value * 1.01, "residual": value * 0.01, **tail}  # fmt: skip

    return _table(nets, rows)


def by_group(nets: list[dict], groups: tuple[str, ...]) -> DataFrame:
    whole = hessian(nets, k=1)
    parts = [
        whole.assign(quantity=whole["quantity"] + f":{group}", value=whole["value"] * (place + 1) / 10)
        for place, group in enumerate(groups)
    ]
    return pd.concat([whole, *parts], ignore_index=True)


SHARPNESS = {
    "loss": 0.5, "trace": 900, "eigenvalue": 90, "trace_min": 700, "eigenvalue_min": 60, "sam": 0.03, "sam_worst": 0.04,
    "asam": 0.01, "asam_worst": 0.02, "keskar": 2, "fisher_rao": 1.5, "relative_flatness": 200, "sigma": 0.05,
    "sigma_magnitude": 0.2,
}  # fmt: skip


def sharpness(nets: list[dict], radii: tuple[float, ...] = (0.1,)) -> DataFrame:
    def rows(place, net):
        for measure, typical in SHARPNESS.items():
            for radius in radii if "sam" in measure else (np.nan,):
                value = typical * (1 + 0.3 * place + 0.1 * net.get("seed", 0))
                yield {"measure": measure, "radius": radius, "layer": "", "value": value, "ci_low": 0.9 * value,
                       "ci_high": 1.1 * value, "per_loss": np.nan if "sigma" in measure else value / 2}  # fmt: skip
        yield {"measure": "relative_flatness", "radius": np.nan, "layer": "layers.0.weight", "value": 1.0,
               "ci_low": 0.9, "ci_high": 1.1, "per_loss": 1.0}  # fmt: skip

    return _table(nets, rows)


OVER = ("all", "bp", "ifa 0", "fa", "psi, rule", "psi, lr", "psi")


def gap(quantities: int, over: tuple[str, ...] = OVER) -> DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {"quantity": f"sharpness measure {place} radius 0.05 ", "gap": kind, "over": one, "tau": rng.uniform(-0.5, 0.5)}
        for place in range(quantities)
        for kind in ("loss", "accuracy")
        for one in over
    ]
    table = pd.DataFrame(rows)
    return table.assign(ci_low=table["tau"] - 0.3, ci_high=table["tau"] + 0.3, n_runs=12, n_seeds=4)


def spectrum(nets: list[dict], probes: int = 8, steps: int = 60) -> DataFrame:
    rng = np.random.default_rng(1)

    def rows(place, net):
        top = 120 / (1 + place) ** 1.5
        for probe in range(probes):
            bulk = np.sort(rng.normal(0, 0.01 * top, steps - 6))
            nodes = np.concatenate([[-0.06 * top], bulk, [0.0], top * np.array([0.1, 0.4, 0.7, 1.0])])
            weights = np.concatenate([[1e-5], np.full(steps - 6, 1.0), [40.0], rng.gamma(1, 3e-5, 4) * steps])
            for node, weight in zip(nodes, weights / weights.sum(), strict=True):
                yield {"probe": probe, "node": node, "weight": weight, "n_parameters": 100_000}

    return _table(nets, rows)


def surface(nets: list[dict], points: int = 21, reach: float = 1.0, hole: bool = False) -> DataFrame:
    axis = np.linspace(-reach, reach, points) if points > 1 else np.zeros(1)

    def rows(place, net):
        for alpha in axis:
            for beta in axis:
                loss = 0.9 + 3 * alpha**2 / (1 + place) + 0.7 * beta**2 + 0.4 * alpha * beta + 0.3 * beta**3
                lost = hole and alpha > 0.6 * reach and beta > 0.6 * reach
                yield {"alpha": alpha, "beta": beta, "loss": np.inf if lost else loss}

    return _table(nets, rows)


def trajectory(nets: list[dict], steps: int = 40) -> DataFrame:
    time = np.linspace(0, 1, steps)

    def rows(place, net):
        alpha, beta = -2 * (1 - time) ** (1 + 0.2 * place), 1.2 * np.sin(3 * time + 0.3 * place) * (1 - time)
        for i in range(steps):
            loss = 2.3 - 1.4 * time[i] ** 0.5
            yield {"step": 50 * i, "alpha": alpha[i], "beta": beta[i], "off_plane": np.sin(3 * time[i]) * 0.4,
                   "loss": loss, "plane_loss": loss + 0.15 * np.sin(3 * time[i]), "explained_1": 0.82,
                   "explained_2": 0.11, "random_walk_1": 0.608, "random_walk_2": 0.152}  # fmt: skip

    return _table(nets, rows)


def attack(nets: list[dict], kinds=(("fgsm", "true"), ("pgd", "true")), n: int = 1000) -> DataFrame:
    def rows(place, net):
        for name, gradient in kinds:
            for eps in np.linspace(0, 0.05, 11):
                rate = (6 if gradient == "feedback" else 30) * (1 if name == "fgsm" else 1.6)
                value = (0.5 - 0.02 * place) * np.exp(-rate * eps)
                half = 1.96 * np.sqrt(value * (1 - value) / n)
                yield {"attack": name, "gradient": gradient, "eps": eps, "accuracy": value,
                       "ci_low": value - half, "ci_high": value + half, "n_samples": n, "steps": 10}  # fmt: skip

    return _table(nets, rows)


def radius(nets: list[dict], kinds=(("strong", "true"), ("strong", "feedback"))) -> DataFrame:
    def rows(place, net):
        for name, gradient in kinds:
            for quantile in np.linspace(0.05, 0.95, 19):
                value = -np.log(1 - quantile) / ((6 if gradient == "feedback" else 30) + 4 * place)
                yield {"attack": name, "gradient": gradient, "images": "right", "quantile": quantile, "radius": value,
                       "ci_low": 0.9 * value, "ci_high": 1.1 * value, "n_samples": 500}  # fmt: skip

    return _table(nets, rows)


def transfer(nets: list[dict]) -> DataFrame:
    """Each network loses 20 points to its own gradient and 5 to that of each network further in the list."""

    def rows(place, net):
        for other, source in enumerate(nets):
            for eps in (0, 0.02, 0.04):
                value = 0.5 - (0.2 if other == place else 0.05 * (other + 1) / len(nets)) * (eps > 0)
                yield {"source": source["checkpoint"], "attack": "strong",
                       "gradient": "true" if other == place else "transfer", "eps": eps, "accuracy": value,
                       "ci_low": value - 0.02, "ci_high": value + 0.02, "n_samples": 1000}  # fmt: skip

    return _table(nets, rows)


def corruptions(nets: list[dict], kinds: dict[str, list[str]] = CORRUPTIONS, n: int = 10_000) -> DataFrame:
    def rows(place, net):
        for category, names in {"clean": ["clean"], **kinds}.items():
            for order, name in enumerate(names):
                for severity in [0] if name == "clean" else range(1, 6):
                    value = 0.62 - 0.005 * place - 0.03 * severity * (1 + 0.3 * order)
                    half = 1.96 * np.sqrt(value * (1 - value) / n)
                    yield {"corruption": name, "category": category, "severity": severity, "accuracy": value,
                           "ci_low": value - half, "ci_high": value + half, "n_samples": n,
                           "provenance": "official"}  # fmt: skip

    return _table(nets, rows)
