"""Tables as the targets of the paper read them, with made-up numbers of the right order."""

import math

import figure_frames as frames
import numpy as np
import pandas as pd
from pandas import DataFrame

HE = math.sqrt(2)


def networks(angles=(0.0, 30.0, 60.0), seeds: int = 3) -> list[dict]:
    """Return BP, IFA at ``angles`` and FA with the columns that the sources give them."""
    kinds = [("bp", None), *(("ifa", angle) for angle in angles), ("fa", None)]
    return [
        {"checkpoint": f"{rule}{'' if angle is None else f'{angle:g}'}-seed{seed}",
         "rule": rule, "angle": angle, "seed": seed}
        for rule, angle in kinds
        for seed in range(seeds)
    ]  # fmt: skip


def quality(net: dict) -> float:
    """Return 1 for a network as good as BP, less with the angle, 0 for FA."""
    return {"bp": 1.0, "fa": 0.0}.get(net["rule"], 1 - (net["angle"] or 0) / 95)


def metrics(nets: list[dict], epochs: int = 5, **columns) -> DataFrame:
    rng = np.random.default_rng(len(nets))
    rows = []
    for net in nets:
        good = quality(net) * (1 - 0.3 * (columns.get("forward", 1) > 3))
        start = 90.0 if net["angle"] is None else net["angle"]
        for epoch in range(epochs + 1):
            accuracy = 0.1 + (0.3 + 0.3 * good) * (1 - math.exp(-epoch / 3)) + 0.005 * rng.normal()
            angles = {} if net["rule"] == "bp" else {
                "angle_layers.1": start + (12 - 0.2 * start) * epoch / epochs,
                "angle_layers.2": start + (15 - 0.3 * start) * epoch / epochs + 0.1 * rng.normal()}  # fmt: skip
            rows.append({**net, "epoch": epoch, "step": 10 * epoch, "train_loss": 2.3 - accuracy,
                         "train_accuracy": accuracy + 0.05, "test_loss": 2.4 - accuracy, "test_accuracy": accuracy,
                         "seconds": 1.0, **angles, **columns})  # fmt: skip
    return pd.DataFrame(rows)


def over(nets: list[dict], settings: list[dict], epochs: int = 5) -> DataFrame:
    """Return metrics of every network in every setting."""
    return pd.concat([metrics(nets, epochs, **setting) for setting in settings], ignore_index=True)


def variances(scales=(1.0, HE, 4.0), seeds: int = 1) -> DataFrame:
    nets = [net for net in networks((0.0,), seeds) if net["rule"] != "bp"]
    sgd = [{"optimiser": "sgd", "forward": f, "backward": b} for f in scales for b in scales]
    return over(nets, [*sgd, *({"optimiser": "adam", "forward": f, "backward": HE} for f in scales)])


def depths(values=(2, 6, 10), seeds: int = 1) -> DataFrame:
    return over(networks((0.0,), seeds), [{"depth": value} for value in values])


def sizes(values=(100, 1000, 10_000), seeds: int = 1) -> DataFrame:
    return over(networks((0.0,), seeds), [{"size": value} for value in values])


def hessian(nets: list[dict], epochs: tuple[int, ...] = ()) -> DataFrame:
    rows = []
    for net in nets:
        for epoch in epochs or (None,):
            top = 10 * 10 ** (1 - quality(net)) * (1 + 0.05 * net["seed"] + 0.02 * (epoch or 0))
            tail = {} if epoch is None else {"epoch": epoch}
            for quantity, index, value in (("trace", 0, 9 * top), ("eigenvalue", 1, top), ("eigenvalue", 2, 0.7 * top)):
                rows.append({**net, "quantity": quantity, "index": index, "value": value, "ci_low": 0.95 * value,
                             "ci_high": 1.05 * value, **tail})  # fmt: skip
    return pd.DataFrame(rows)


def sharpness(nets: list[dict], at_loss: bool = False) -> DataFrame:
    table = frames.sharpness(nets)
    sharp = table["checkpoint"].map({net["checkpoint"]: 4 ** (1 - quality(net)) for net in nets})
    value = table["value"] * (1 if at_loss else sharp)
    return table.assign(value=value, per_loss=table["per_loss"] * (1 if at_loss else sharp))


def spectrum(nets: list[dict]) -> DataFrame:
    return frames.spectrum([{**net, "angle": np.nan if net["angle"] is None else net["angle"]} for net in nets], 2, 40)


def surface(nets: list[dict], points: int = 9) -> DataFrame:
    return frames.surface(nets, points)


def path(nets: list[dict]) -> DataFrame:
    return frames.trajectory(nets, 12)


def plane(nets: list[dict]) -> DataFrame:
    return frames.surface(nets, 9, reach=2.5)


def lengths(nets: list[dict]) -> DataFrame:
    """Return path lengths: FA's are half again as long as BP's."""
    rows = [(net, 10 * (1.5 - 0.5 * quality(net)) + 0.1 * net["seed"], 8.0) for net in nets]
    return pd.DataFrame([{**net, "length": long, "chord": chord, "ratio": long / chord} for net, long, chord in rows])


def attack(nets: list[dict], name: str = "fgsm") -> DataFrame:
    rows = []
    for net in nets:
        bp = net["rule"] == "bp"
        modes = ("true", "", 30), ("feedback", "feedback", 30 if bp else 6), ("feedback", "forward", 30 if bp else 12)
        for gradient, layer, rate in modes:
            for eps in (0.0, 0.01, 0.02, 0.03, 0.05):
                value = (0.3 + 0.2 * quality(net) + 0.002 * net["seed"]) * math.exp(-rate * eps)
                rows.append({**net, "attack": name, "gradient": gradient, "first_layer": layer, "eps": eps,
                             "accuracy": value, "ci_low": value - 0.03, "ci_high": value + 0.03,
                             "n_samples": 1000, "steps": 10, "curve": "nested"})  # fmt: skip
    return pd.DataFrame(rows)


def transfer(nets: list[dict]) -> DataFrame:
    table = attack(nets, "strong").query("gradient == 'true'")
    parts = []
    for source in nets:
        own = table["checkpoint"] == source["checkpoint"]
        of = {"source": source["checkpoint"], "source_rule": source["rule"]}
        higher = {name: table[name] + 0.1 * ~own for name in ("accuracy", "ci_low", "ci_high")}
        parts.append(table.assign(**of, **higher, gradient=own.map({True: "true", False: "transfer"})))
    return pd.concat(parts, ignore_index=True)


def radius(nets: list[dict]) -> DataFrame:
    rows = []
    for net in nets:
        bp = net["rule"] == "bp"
        modes = ("true", "", 30), ("feedback", "feedback", 30 if bp else 6), ("feedback", "forward", 30 if bp else 12)
        for gradient, layer, rate in modes:
            mean = (0.3 + 0.2 * quality(net) + 0.002 * net["seed"]) / rate
            about = {**net, "attack": "strong", "gradient": gradient, "first_layer": layer, "n_samples": 1000,
                     "norm": "linf"}  # fmt: skip
            statistics = [("all", "mean", np.nan, mean)]
            statistics += [("right", f"quantile {q:g}", q, -math.log(1 - q) * mean) for q in (0.1, 0.5, 0.9)]
            for images, name, q, value in statistics:
                rows.append({**about, "images": images, "statistic": name, "quantile": q, "radius": value,
                             "ci_low": 0.9 * value, "ci_high": 1.1 * value})  # fmt: skip
    return pd.DataFrame(rows)


def corruptions(nets: list[dict], severities=(1,)) -> DataFrame:
    rows = []
    for net in nets:
        for severity in severities:
            for category, names in frames.CORRUPTIONS.items():
                for place, name in enumerate(names):
                    value = 0.3 + 0.2 * quality(net) - 0.03 * severity - 0.02 * place + 0.002 * net["seed"]
                    rows.append({**net, "corruption": name, "category": category, "severity": severity,
                                 "accuracy": value, "ci_low": value - 0.02, "ci_high": value + 0.02,
                                 "n_samples": 2000, "provenance": "regenerated"})  # fmt: skip
    return pd.DataFrame(rows)


def corruption_means(nets: list[dict], severities=(1,)) -> DataFrame:
    rows = []
    for net in nets:
        for severity in severities:
            value = 0.3 + 0.2 * quality(net) - 0.03 * severity + 0.002 * net["seed"]
            for group in ("all", f"severity {severity}"):
                rows.append({**net, "quantity": "mean_accuracy", "group": group, "value": value,
                             "ci_low": value - 0.02, "ci_high": value + 0.02, "n_samples": 2000})  # fmt: skip
    return pd.DataFrame(rows)


def images() -> DataFrame:
    rng = np.random.default_rng(0)
    names = ["clean", *(name for names in frames.CORRUPTIONS.values() for name in names)]
    return pd.DataFrame({"name": names, "array": [rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in names]})


def every_severity(severities) -> DataFrame:
    return pd.concat([images().assign(severity=level) for level in severities], ignore_index=True)


def attacked_images() -> DataFrame:
    rng = np.random.default_rng(0)
    clean = rng.integers(30, 220, (32, 32, 3))
    rows = [(rule, f"{eps:g}", (clean + 255 * eps * rng.choice([-1, 1], clean.shape)).clip(0, 255).astype(np.uint8))
            for rule in ("bp", "ifa") for eps in (0.0, 0.01, 0.02, 0.03)]  # fmt: skip
    return pd.DataFrame(rows, columns=["rule", "name", "array"])


def tables_of(name: str, seeds: int = 3) -> dict[str, DataFrame]:
    """Return the tables that the target called ``name`` is drawn from."""
    all_nets = networks(seeds=seeds)
    three = [net for net in all_nets if net["angle"] in (None, 0.0)]
    first = [net for net in all_nets if net["seed"] == 0]
    first_three = [net for net in three if net["seed"] == 0]
    settings = {"networks": ("network", ("lenet", "alexnet")), "datasets": ("dataset", ("svhn", "cifar10", "stl10"))}
    elsewhere = {
        table: over(three, [{column: value} for value in values]) for table, (column, values) in settings.items()
    }
    several = (2, 3, 4, 5)
    return {
        "fig1": lambda: {"metrics": metrics(three)},
        "fig2": lambda: {"path": path(first_three), "plane": plane(first_three), "hessian": hessian(three, (0, 2, 4)),
                         "lengths": lengths(three)},
        "fig3": lambda: {"variances": variances(), "depths": depths(), "sizes": sizes()},
        "fig4": lambda: {"metrics": metrics(all_nets)},
        "fig5": lambda: {"surface": surface(first_three), "spectrum": spectrum(all_nets), "hessian": hessian(all_nets)},
        "fig6": lambda: {"corruptions": corruptions(all_nets), "summary": corruption_means(all_nets),
                         "images": images()},
        "fig7": lambda: {"attack": attack(all_nets), "images": attacked_images()},
        "figS1": lambda: {"metrics": metrics(three)},
        "figS2": lambda: {"metrics": metrics(three)},
        "figS3": lambda: {"metrics": elsewhere["networks"].assign(lr=1e-3)},
        "figS4": lambda: {"metrics": elsewhere["datasets"]},
        "figS5": lambda: {"metrics": variances()},
        "figS6": lambda: {"metrics": depths()},
        "figS7": lambda: {"metrics": sizes()},
        "figS8": lambda: {"metrics": metrics(all_nets)},
        "figS9": lambda: {"metrics": metrics(all_nets)},
        "figS10": lambda: {"surface": surface(first), "spectrum": spectrum(first)},
        "figS11": lambda: {"corruptions": corruptions(all_nets, several),
                           "summary": corruption_means(all_nets, several), "images": every_severity(several)},
        "figS12": lambda: {"attack": attack(all_nets, "bim")},
        "figS13": lambda: {"attack": attack(all_nets, "pgd")},
        "figS14": lambda: {"attack": attack(all_nets, "strong"), "radius": radius(all_nets)},
        "figS15": lambda: {
            "attack": pd.concat([attack(first, "strong"), attack(first, "auto").query("gradient == 'true'")]),
            "transfer": transfer(first),
        },
        **dict.fromkeys(
            ("figS16", "tableS3"), lambda: {"epochs": sharpness(three), "loss": sharpness(three, at_loss=True)}
        ),
        "tableS1": lambda: {"metrics": elsewhere["networks"].assign(lr=1e-3)},
        "tableS2": lambda: {"metrics": elsewhere["datasets"]},
        "claims": lambda: {
            "sweep": metrics(all_nets), "curvature": hessian(three, (0, 2, 4)), "hessian": hessian(all_nets),
            "spectrum": spectrum(all_nets), "corruptions": corruption_means(all_nets), "lengths": lengths(three),
            "cells": corruptions(all_nets), "severities": corruption_means(all_nets, several),
            "attacked": attack(all_nets, "strong"), "radius": radius(all_nets),
            "variances": variances(seeds=seeds), "depths": depths(seeds=seeds), "sizes": sizes(seeds=seeds),
            **elsewhere,
        },
    }[name]()  # fmt: skip
