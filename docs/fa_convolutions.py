"""The tables and the figure of docs/fa-convolutions.md: LeNet on CIFAR-10 by feedback alignment, in several settings.

    python docs/fa_convolutions.py --data-root DIR --store runs/fa-convolutions
    python docs/fa_convolutions.py --data-root DIR --store runs/fa-convolutions --seeds 0 --only relu tanh

Trains what the store does not have (27 runs of 10,000 images and 10 epochs, half a minute each on a quiet core; killed
and called again it goes on), measures each network after every epoch, writes docs/figures/fa_convolutions.csv and .png
and the tables of the page. Losses, accuracies, angles and cosines are those of `metrics.csv`; the rest is measured from
the checkpoints, on images that are the same for all.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

# So that docs.fa_networks is found from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from reports.figures import layout
from reports.style import DOUBLE, Look, cycle_look, rule_look, styled
from training import Checkpoint, Normalise, RunStore, TrainConfig, TrainJob, execute, load_checkpoint, load_split
from training.losses import TrainingLoss
from training.rules.wrapping import weight_layers

ROOT = Path(__file__).resolve().parent.parent
SMALL = 0.495  # .35 of He
EPOCHS = 10
TIMES = (0, 1, 10)  # epochs of the table of causes, and its settings
TOLD = ("bp", "relu", "norm", "small", "capped", "tanh", "tanh-small")
BASE = TrainConfig(dataset="cifar10", model="lenet", rule="fa", train_size=10_000, epochs=EPOCHS, lr=1e-3,
                   checkpoint_every=1, gradient_alignment=1000)  # fmt: skip
IMAGES, DRAW = 256, 7  # of the train split, and the seed that draws them: what networks are measured on
VERSION = 2
PAGE = ROOT / "docs/fa-convolutions.md"
TABLE, FIGURE = ROOT / "docs/figures/fa_convolutions.csv", ROOT / "docs/figures/fa_convolutions.png"


@dataclass(frozen=True)
class Setting:
    """A line of the table: what differs from FA with ReLU, He's start and Adam at 1e-3."""

    label: str
    look: Look
    changes: dict[str, Any] = field(default_factory=dict)

    def config(self, seed: int) -> TrainConfig:
        return replace(BASE, seed=seed, **self.changes)


SETTINGS = {
    "bp": Setting("BP", rule_look("bp"), {"rule": "bp"}),
    "ifa": Setting("IFA 0°", rule_look("ifa", 0), {"rule": "ifa"}),
    "relu": Setting("FA, ReLU", cycle_look(1)),
    "clip": Setting("FA, ReLU, clipped", cycle_look(9), {"clip_norm": 1.0}),
    "norm": Setting("FA, ReLU, batch norm", cycle_look(7), {"model": "docs.fa_networks:batch_norm"}),
    "small": Setting("FA, ReLU, small start", cycle_look(5), {"forward_scale": SMALL}),
    "capped": Setting("FA, ReLU capped at 1", cycle_look(4), {"model": "docs.fa_networks:capped"}),
    "tanh": Setting("FA, tanh", cycle_look(6), {"activation": "tanh"}),
    "tanh-small": Setting("FA, tanh, small start", cycle_look(3), {"activation": "tanh", "forward_scale": SMALL}),
}


@dataclass(frozen=True)
class Batch:
    """The images that networks are measured on, normalised (N, C, H, W), and their labels (N,)."""

    inputs: Tensor
    labels: Tensor


def fixed_batch(data_root: Path, data: Checkpoint) -> Batch:
    split = load_split("cifar10", "train", data_root).subset(IMAGES, DRAW)
    return Batch(Normalise(data.data.mean, data.data.std)(split.images), split.labels)


def layer_rows(checkpoint: Checkpoint, batch: Batch) -> Iterator[dict[str, float | str]]:
    """Yield for each weight layer of the plain network:

    - ``activation``: root mean square of what it hands to the next layer, after activation and pooling (the last one:
      of the logits), in evaluation mode;
    - ``common``: the share of that mean square that is the same for all images, |mean h|^2 / mean |h|^2;
    - ``growth``: -<W, U> - <b, u>, the speed at which plain descent along the rule's update U, u would let
      (|W|^2 + |b|^2) / 2 grow; ``gradient_growth``: the same of the true gradient;
    - ``reversed``: of linear layers, the share of the eigenvalues of W B^T with a negative real part: error directions
      that a step below this layer makes larger.
    """
    model, twin, rule = checkpoint.plain_model(), checkpoint.training_twin(), checkpoint.rule()
    names = list(weight_layers(model))
    logits, handed = handed_on(model, names, batch.inputs)
    parameters = dict(model.named_parameters())
    loss = TrainingLoss.of(checkpoint.config).mean(logits, batch.labels)
    gradient = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    trained = {name: p for name, p in twin.named_parameters() if name in parameters}
    update = rule.gradients(trained, rule.objective(twin, batch.inputs, batch.labels))
    paths = rule.backward_weights(twin)
    for number, (name, h) in enumerate(zip(names, handed, strict=True), 1):
        yield {
            "layer": number,
            "name": name,
            "activation": h.square().mean().sqrt().item(),
            "common": (h.mean(0).square().sum() / h.square().sum(1).mean()).item(),
            "growth": -along(parameters, update, name),
            "gradient_growth": -along(parameters, gradient, name),
            "reversed": reversed_share(*paths.get(name, (parameters[name + ".weight"],) * 2)),
        }


def handed_on(model: nn.Module, names: Sequence[str], inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the logits, and what each layer hands on: the input (N, values) of the next, last the logits."""
    received: dict[str, Tensor] = {}
    for name in names:
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, given, name=name: received.__setitem__(name, given[0].detach().flatten(1))
        )
    logits = model(inputs)
    return logits, [*(received[name] for name in names[1:]), logits.detach()]


def along(parameters: dict[str, Tensor], update: dict[str, Tensor], layer: str) -> float:
    """Return <W, U> + <b, u> of a layer."""
    names = (f"{layer}.weight", f"{layer}.bias")
    return sum((parameters[name].detach() * update[name]).sum().item() for name in names)


def reversed_share(weight: Tensor, feedback: Tensor) -> float:
    """Return the share of eigenvalues of W B^T with a negative real part; NaN of convolutions."""
    if weight.ndim > 2:
        return math.nan
    return (torch.linalg.eigvals(weight.detach() @ feedback.detach().T).real < 0).double().mean().item()


def measured(job: TrainJob, store: RunStore) -> pd.DataFrame:
    """Return a row for each epoch and layer of a run, from the store if it has been measured."""
    run = job.folder(store)
    entry = store.analysis("fa-convolutions", version=VERSION, inputs={"run": job.key(store)},
                           parameters={"images": IMAGES, "draw": DRAW})  # fmt: skip

    def write(folder: Path) -> None:
        paths = [run.epoch_checkpoint(epoch) for epoch in range(job.config.epochs + 1)]
        checkpoints = [load_checkpoint(path) for path in paths if path.is_file()]
        batch = fixed_batch(job.data_root, checkpoints[0])
        rows = [{"epoch": one.epoch, **row} for one in checkpoints for row in layer_rows(one, batch)]
        metrics = {row["epoch"]: row for row in run.read_metrics()}
        for row in rows:
            whole, name = metrics[row["epoch"]], row.pop("name")
            row["angle"] = whole.get(f"angle_{name}", math.nan)
            row["gradient_cosine"] = whole[f"gradient_cosine_{name}"]
            row |= {column: whole[column] for column in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")}
        pd.DataFrame(rows).to_csv(folder / "result.csv", index=False)

    entry.compute(write)
    return entry.read_table()


def table_of(names: Sequence[str], seeds: Sequence[int], data_root: Path, store: RunStore) -> pd.DataFrame:
    """Train and measure, all settings of a seed before the next seed; return all rows."""
    frames = []
    for seed in seeds:
        for name in names:
            job = TrainJob(config=SETTINGS[name].config(seed), data_root=data_root)
            if failed := execute([job], store, stack=1, device="cpu").failed:
                sys.exit(f"{name}, seed {seed}: {failed[0].reason}")
            frame = measured(job, store)
            frame.insert(0, "setting", name)
            frame.insert(1, "seed", seed)
            frames.append(frame)
            last = frame.iloc[-1]
            sys.stderr.write(f"{name}, seed {seed}: test {last.test_accuracy:.4f}, loss {last.train_loss:.3f}\n")
    return pd.concat(frames, ignore_index=True)


PANELS = [  # of each layer, by row: column, what it is, whether logarithmic
    ("activation", "root mean square of outputs", True),
    ("gradient_cosine", "cosine of update and gradient", False),
    ("angle", "angle between W and B (°)", False),
]
WHOLE = {(1, 4): ("train_loss", "training loss (nats)", True), (2, 0): ("test_accuracy", "test accuracy (%)", False)}
LABELLED = ((0, 0), (1, 0), (2, 1))


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Draw a column of panels for each layer. Where a layer has nothing to show (the update of the last is the
    gradient, the first has no angle) are the training loss and the test accuracy."""
    settings = {name: one for name, one in SETTINGS.items() if name in set(table["setting"])}
    figure = Figure(figsize=(DOUBLE, 5.6))
    grid = figure.subplots(len(PANELS), 5, sharex=True)
    share_scale(grid[0])
    share_scale(grid[1][:4])
    share_scale(grid[2][1:])
    for (row, column), axes in np.ndenumerate(grid):
        whole = WHOLE.get((row, column))
        name, text, logarithmic = whole or PANELS[row]
        layout.title(axes, text.split(" (")[0] if whole else f"layer {column + 1}", row * 5 + column)
        axes.set_ylabel(text if (row, column) in LABELLED else "")
        axes.set_yscale("log" if logarithmic else "linear")
        for setting, one in settings.items():
            rows = table[(table["setting"] == setting) & (table["layer"] == column + 1)]
            draw_line(axes, rows, name, one.look, 100 if name == "test_accuracy" else 1)
        axes.set_xlabel("epoch" if row == len(PANELS) - 1 else "")
    entries = [layout.Line2D([], [], **one.look.keywords(label=one.label, marker="")) for one in settings.values()]
    layout.legend_above(figure, entries)
    layout.note(
        figure,
        f"Means over {table['seed'].nunique()} seeds; bands from the lowest to the highest. Outputs after activation "
        "and pooling; those of layer 5 are the logits. Test accuracy in %, training loss in nats, epoch 0: the start.",
    )
    return figure


def share_scale(panels: Sequence[Axes]) -> None:
    for axes in panels[1:]:
        axes.sharey(panels[0])
        axes.tick_params(labelleft=False)


def draw_line(axes: Axes, rows: pd.DataFrame, column: str, look: Look, scale: float) -> None:
    found = rows.groupby("epoch")[column].agg(["mean", "min", "max"]).dropna() * scale
    axes.plot(found.index, found["mean"], **look.keywords(marker="", linewidth=1))
    axes.fill_between(found.index, found["min"], found["max"], color=look.colour, alpha=0.15, linewidth=0)


def summary(table: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the page's first table: the last epoch, mean and standard deviation over seeds."""
    yield "setting", "seeds", "train loss", "train %", "test %", "outputs of layers 1 to 5", "angles of layers 2 to 5"
    for name, rows in by_setting(table[table["epoch"] == EPOCHS]):
        runs = rows[rows["layer"] == 1]
        layers = rows.groupby("layer")[["activation", "angle"]].mean()
        yield (
            SETTINGS[name].label,
            str(len(runs)),
            spread(runs["train_loss"], 1, 2),
            spread(runs["train_accuracy"], 100, 1),
            spread(runs["test_accuracy"], 100, 1),
            listed(layers["activation"], ".2g"),
            listed(layers["angle"].dropna(), ".0f"),
        )


def causes(table: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the page's second table: what goes with the growth, means over seeds, layer by layer."""
    yield "setting", "epoch", "growth by the update", "growth by the gradient", "common share", "reversed"
    for name, rows in by_setting(table[table["epoch"].isin(TIMES) & table["setting"].isin(TOLD)]):
        for epoch, of_epoch in rows.groupby("epoch"):
            means = of_epoch.groupby("layer")[["growth", "gradient_growth", "common", "reversed"]].mean()
            cells = [listed(means[column].iloc[:4], ".2g") for column in ("growth", "gradient_growth", "common")]
            yield SETTINGS[name].label, str(epoch), *cells, listed(100 * means["reversed"].dropna(), ".0f")


def listed(values: pd.Series, form: str) -> str:
    return ", ".join(f"{float(f'{value:.2g}'):g}" if form == ".2g" else f"{value:{form}}" for value in values)


def markdown(rows: Iterator[tuple[str, ...]]) -> str:
    head, *others = rows
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ("---",) * len(head), *others))


def written(page: str, name: str, text: str) -> str:
    """Return the page with ``text`` between its two marks of this name."""
    begin, end = f"<!-- {name}, by fa_convolutions.py -->\n", f"<!-- end of {name} -->"
    before, rest = page.split(begin)
    return before + begin + text + end + rest.split(end)[1]


def by_setting(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    return ((name, rows) for name in SETTINGS if len(rows := table[table["setting"] == name]))


def spread(values: pd.Series, scale: float, digits: int) -> str:
    mean = f"{scale * values.mean():.{digits}f}"
    return f"{mean} ± {scale * values.std():.{digits}f}" if len(values) > 1 else mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, help="folder with CIFAR-10")
    parser.add_argument("--store", type=Path, required=True, help="where the runs go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS), metavar="SETTING")
    parser.add_argument("--print-only", action="store_true", help="print the tables and write nothing")
    options = parser.parse_args()
    table = table_of(options.only, options.seeds, options.data_root, RunStore(options.store))
    tables = {"results": markdown(summary(table)), "causes": markdown(causes(table))}
    if options.print_only:
        sys.stdout.write("\n".join(tables.values()))
        return
    table.to_csv(TABLE, index=False, float_format="%.6g")
    draw(table).savefig(FIGURE, dpi=200, metadata={"Software": None})
    page = PAGE.read_text()
    for name, text in tables.items():
        page = written(page, name, text)
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
