"""Recipes: what published numbers need beside the defaults, each against torch's own or a closed form."""

import csv
import json
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from tape import TapeRecorder
from torch import nn
from torch.nn import functional as F
from torchvision import transforms
from torchvision.transforms import functional

import alignscape
from alignscape.errors import InputError
from alignscape.seeding import generator
from alignscape.settings import settings_of
from reports.analyses import gap
from reports.cli import main
from reports.subjects import load_subject
from reports.tables import provenance
from training import clock
from training import stack as stack_module
from training.angles import alignment
from training.augmentation import AREA, RATIO, Augmentation
from training.checkpoint import load_checkpoint
from training.clipping import Clipping
from training.config import OURS, TrainConfig
from training.data import Dataset, Normalise, Split, hold_out, load_dataset
from training.evaluation import evaluate
from training.gradient_angles import gradient_alignment
from training.loop import train, train_many
from training.losses import TrainingLoss
from training.models import build_model
from training.models.activations import FUNCTIONS, MODULES
from training.optimiser import learning_rate
from training.rules import RULES, make_rule
from training.rules.base import wrapped_layers
from training.rules.initial import fan
from training.rules.wm import mirror
from training.stack import Stack


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", train_size=96)


def config(**fields) -> TrainConfig:
    small = {"hidden": (12, 9), "epochs": 2, "batch_size": 32, "train_size": 96, "lr": 0.01}
    return TrainConfig(**{**small, **fields})


def weights_of(tmp_path, digits, configs, stack) -> list[dict[str, torch.Tensor]]:
    jobs = [(one, tmp_path / f"{stack}-{i}") for i, one in enumerate(configs)]
    found = [load_checkpoint(run.checkpoint) for run in train_many(jobs, digits, stack=stack)]
    return [{**one.model, **one.feedback} for one in found]


def assert_stack_is_single(tmp_path, digits, configs, atol=2e-5) -> list[dict[str, torch.Tensor]]:
    """Train ``configs`` together and apart; the weights must be the same up to rounding."""
    together = weights_of(tmp_path, digits, configs, len(configs))
    for ours, alone in zip(together, weights_of(tmp_path, digits, configs, 1), strict=True):
        for name in alone:
            torch.testing.assert_close(ours[name], alone[name], rtol=1e-3, atol=atol, msg=lambda m, n=name: f"{n}: {m}")
    return together


# ---- activations ----


def test_every_activation_is_there_as_function_and_module():
    values = torch.linspace(-3, 3, 101, dtype=torch.float64)
    assert set(settings_of(TrainConfig)["activation"].choices) == set(FUNCTIONS) == set(MODULES)
    for name, function in FUNCTIONS.items():
        torch.testing.assert_close(function(values), MODULES[name]()(values))
    torch.testing.assert_close(FUNCTIONS["gelu"](values), values * 0.5 * (1 + torch.erf(values / 2**0.5)))
    torch.testing.assert_close(FUNCTIONS["silu"](values), values / (1 + (-values).exp()))


@pytest.mark.parametrize("model", OURS)
def test_our_networks_take_every_activation(model):
    """The network with tanh is the one with ReLU, but for tanh in the place of each ReLU."""
    outputs = {}
    side = 8 if model == "alexnet" else 16  # it is slow on larger ones
    inputs = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    for name in FUNCTIONS if model != "alexnet" else ("relu", "tanh"):
        network = build_model(TrainConfig(model=model, activation=name, hidden=(7, 5)), (3, side, side), 10).eval()
        make_rule(TrainConfig()).initialise(network)
        assert name == "relu" or not any(isinstance(module, nn.ReLU) for module in network.modules())
        outputs[name] = network(inputs)
    values = list(outputs.values())
    assert all(not torch.allclose(a, b) for i, a in enumerate(values) for b in values[:i])


def test_pal_follows_the_activation():
    """B comes to the mean of phi'(upper) W phi'(lower), with sigmoid rates as the authors have them."""
    samples = 40_000
    fields = {"pal_rate": 1.0, "pal_gain": 1.0, "activation": "sigmoid"}
    rule = make_rule(TrainConfig(rule="pal", hidden=(6, 5), **fields))
    model = build_model(rule.config, (1, 2, 2), 3)
    rule.initialise(model)
    twin = rule.wrap(model, (1, 2, 2))
    inputs = torch.randn(samples, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    rule.before_batch(twin, 0, inputs, torch.zeros(samples).long())
    with torch.no_grad():
        low = model.layers[0](inputs.flatten(1)).sigmoid()
        high = model.layers[1](low).sigmoid()
    slopes = (high * (1 - high)).T @ (low * (1 - low)) / samples
    torch.testing.assert_close(twin.layers[1].feedback, slopes * model.layers[1].weight.detach(), rtol=0, atol=0.006)


def test_the_mirror_has_the_slope_of_its_activation():
    """By Stein's lemma the covariance is E[phi'] W: E[phi'] of tanh by quadrature."""
    weight = torch.tensor([[0.6, -0.8]], dtype=torch.float64)
    noise = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    density = (-(grid**2) / 2).exp() / math.sqrt(2 * math.pi)
    slope = torch.trapezoid((1 - grid.tanh() ** 2) * density, grid)
    torch.testing.assert_close(mirror(weight, None, noise, torch.tanh), slope * weight, rtol=0, atol=0.01)


# ---- starts ----


@pytest.mark.parametrize("init", ["he", "xavier", "lecun"])
@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_starts_have_the_spread_of_torchs_initialisers(init, distribution):
    """Of weights and feedback: standard deviation, extremes and fourth moment, which tells normal from uniform."""
    fields = {"init": init, "init_distribution": distribution, "hidden": (400, 200)}
    rule = make_rule(TrainConfig(rule="fa", **fields))
    model = build_model(rule.config, (1, 15, 20), 10)
    rule.initialise(model)
    twin = rule.wrap(model, (1, 15, 20))
    for layer in list(twin.layers)[:2]:
        reference = torch.empty_like(layer.weight)
        if init == "xavier":
            getattr(nn.init, f"xavier_{distribution}_")(reference)
        else:
            gain = "relu" if init == "he" else "linear"
            getattr(nn.init, f"kaiming_{distribution}_")(reference, nonlinearity=gain)
        for drawn in (layer.weight.detach(), layer.feedback):
            assert abs(drawn.std() / reference.std() - 1) < 0.02
            assert abs((drawn**4).mean() / drawn.var() ** 2 - (3 if distribution == "normal" else 1.8)) < 0.15
            if distribution == "uniform":
                assert abs(drawn.abs().max() / reference.abs().max() - 1) < 1e-3


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("init", ["xavier", "lecun"])
def test_every_rule_starts_its_feedback_so(rule, init):
    """The path down has the standard deviation of W at the scale of 1.414; the product of pfa too."""
    made = make_rule(TrainConfig(rule=rule, init=init, init_distribution="uniform", hidden=(300, 200)))
    model = build_model(made.config, (1, 15, 20), 10)
    made.initialise(model)
    twin = made.wrap(model, (1, 15, 20))
    expected = {"xavier": (2 / 500) ** 0.5, "lecun": (1 / 300) ** 0.5}[init]
    assert model.layers[1].weight.std().item() == pytest.approx(expected, rel=0.02)
    layer = wrapped_layers(twin).get("layers.1")
    if rule == "dfa":
        expected = {"xavier": (2 / 310) ** 0.5, "lecun": (1 / 300) ** 0.5}[init]
        assert layer.feedback.std().item() == pytest.approx(expected, rel=0.05)
    elif layer is not None:
        assert layer.backward_weight().std().item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("shape", [(16, 6, 5, 5), (120, 400), (8, 1, 3, 3)])
def test_fans_are_torchs(shape):
    """Of convolutions, of which a group is a part, and of dense layers."""
    into, out = nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))
    fans = {init: fan(TrainConfig(init=init), shape) for init in ("he", "xavier", "lecun")}
    assert fans == {"he": into, "xavier": into + out, "lecun": 2 * into}


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("init", ["he", "xavier"])
def test_the_angle_of_ifa_holds_for_uniform_starts(init, exact):
    fields = {"init": init, "init_distribution": "uniform", "alignment": "exact" if exact else "gaussian"}
    rule = make_rule(TrainConfig(rule="ifa", angle=40.0, hidden=(500, 400), **fields))
    model = build_model(rule.config, (1, 20, 20), 10)
    rule.initialise(model)
    layer = rule.wrap(model, (1, 20, 20)).layers[1]
    found = alignment(layer.weight.detach(), layer.feedback)
    assert found.row_angle == pytest.approx(40.0, abs=0.001 if exact else 0.3)
    assert found.norm_ratio == pytest.approx(1.0, rel=0.001 if exact else 0.01)


# ---- gradient clipping ----


@pytest.mark.parametrize("limit", [0.01, 3.0, 1e4])
def test_clipping_is_torchs(limit):
    random = torch.Generator().manual_seed(0)
    shapes = {"w": (4, 3), "b": (4,), "scalar": ()}
    updates = {name: torch.randn(2, *shape, generator=random) for name, shape in shapes.items()}
    both = [TrainConfig(clip_norm=limit), TrainConfig(clip_norm=2 * limit)]
    clipped = Clipping(both, set(shapes), torch.device("cpu"))({**updates, "feedback": None})
    assert clipped["feedback"] is None
    for e, one in enumerate(both):
        parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes.values()]
        for parameter, update in zip(parameters, updates.values(), strict=True):
            parameter.grad = update[e].clone()
        nn.utils.clip_grad_norm_(parameters, one.clip_norm)
        alone = Clipping([one], set(shapes), torch.device("cpu"))({name: u[e] for name, u in updates.items()})
        for name, parameter in zip(shapes, parameters, strict=True):
            torch.testing.assert_close(clipped[name][e], parameter.grad)
            torch.testing.assert_close(alone[name], parameter.grad)


def test_a_limit_leaves_other_networks_alone_and_feedback_out_of_the_norm():
    updates = {"w": torch.full((2, 3), 7.0), "w.feedback_plastic": torch.full((2, 3), 1e6)}
    clipped = Clipping([TrainConfig(clip_norm=1.0), TrainConfig()], {"w"}, torch.device("cpu"))(updates)
    assert torch.equal(clipped["w"][1], updates["w"][1])
    assert clipped["w"][0].norm().item() == pytest.approx(1, rel=1e-5)
    ratio = clipped["w.feedback_plastic"][0] / clipped["w"][0]
    torch.testing.assert_close(ratio, torch.full((3,), 1e6 / 7))


# ---- in stacks, and at once ----

FIRST = [
    ("bp", {"activation": "tanh"}),
    ("pal", {"activation": "sigmoid", "pal_gain": 4.0}),
    ("wm", {"activation": "elu"}),
    ("dfa", {"init": "xavier", "init_distribution": "uniform", "clip_norm": 0.5}),
    ("pfa", {"init": "lecun", "clip_norm": 0.1, "optimiser": "sgd"}),
    ("kp", {"clip_norm": 0.2, "weight_decay": 0.1, "optimiser": "sgd"}),
]


@pytest.mark.parametrize(("rule", "fields"), FIRST)
def test_a_stack_gives_what_single_runs_give(rule, fields, digits, tmp_path):
    limits = [0.05, None] if "clip_norm" in fields else [None, None]
    configs = [config(rule=rule, **fields), config(rule=rule, **{**fields, "clip_norm": limits[0]}, seed=1)]
    assert_stack_is_single(tmp_path, digits, configs)


# ---- optimisers and schedules ----


@pytest.mark.parametrize(
    ("fields", "reference"),
    [
        ({"optimiser": "adamw", "weight_decay": 0.1}, lambda p: torch.optim.AdamW(p, lr=0.01)),
        ({"betas": (0.5, 0.9), "weight_decay": 0.1}, lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.5, 0.9))),
        (
            {"optimiser": "sgd", "nesterov": True, "decay_all": True, "first_epoch_weight_decay": 0.2},
            lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
        ),
        (
            {"optimiser": "sgd", "schedule": "cosine", "warmup_epochs": 1, "clip_norm": 0.3},
            lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
        ),
    ],
)
def test_bp_equals_torchs_own_loop(fields, reference, digits, tmp_path):
    """Mini-batches through torch's optimisers, schedulers and clip_grad_norm_ by hand."""
    cfg = config(**fields, epochs=3)
    (trained,) = weights_of(tmp_path, digits, [cfg], 1)
    model = build_model(cfg, digits.input_shape, 10)
    make_rule(cfg).initialise(model)
    groups = [{"params": [p]} for p in model.parameters()]
    optimiser = reference(groups)
    schedule = None
    if "schedule" in fields:
        warm = torch.optim.lr_scheduler.LinearLR(optimiser, 1 / 3, total_iters=2)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 6)
        schedule = torch.optim.lr_scheduler.SequentialLR(optimiser, [warm, cosine], [3])
    pixels = (digits.train.images.float() / 255 - digits.mean[0]) / digits.std[0]
    for epoch in range(3):
        decay = fields.get("weight_decay", 0.0) if epoch else fields.get("first_epoch_weight_decay", cfg.weight_decay)
        for group in optimiser.param_groups:
            group["weight_decay"] = decay if cfg.decay_all or group["params"][0].ndim == 2 else 0.0
        for batch in torch.randperm(96, generator=generator(cfg.seed, "order", epoch)).split(32):
            optimiser.zero_grad()
            F.cross_entropy(model(pixels[batch]), digits.train.labels[batch]).backward()
            if cfg.clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), cfg.clip_norm)
            optimiser.step()
            if schedule is not None:
                schedule.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(trained[name], parameter.detach(), rtol=1e-4, atol=1e-5)


def test_learning_rates_of_every_step():
    """A warm-up multiplies what the steps say; noise comes before it, at the full rate."""
    steps = TrainConfig(lr=2.0, epochs=4, warmup_epochs=2, lr_steps=(1, 3), lr_gamma=0.1)
    found = [learning_rate(steps, step, 2) for step in range(-2, 8)]
    assert found == pytest.approx([2, 2, 0.5, 1.0, 0.15, 0.2, 0.2, 0.2, 0.02, 0.02])
    cosine = TrainConfig(lr=2.0, epochs=4, schedule="cosine")
    found = [learning_rate(cosine, step, 2) for step in range(8)]
    assert found == pytest.approx([1 + math.cos(math.pi * step / 8) for step in range(8)])


def test_the_edge_of_stability_is_that_of_the_optimiser(digits, tmp_path):
    """As landscape takes it from torch's optimiser of the same settings."""
    kept = {"monitor": "hessian", "monitor_every": 3, "monitor_samples": 20, "monitor_k": 1, "epochs": 2}
    sgd = config(optimiser="sgd", nesterov=True, schedule="cosine", **kept)
    (run,) = train_many([(sgd, tmp_path / "sgd")], digits, stack=1)
    rows = list(csv.DictReader((run.path / "curvature.csv").read_text().splitlines()))
    rates = [0.01 * (1 + math.cos(math.pi * step / 6)) / 2 for step in (0, 3, 5)]
    assert [float(row["lr"]) for row in rows] == pytest.approx(rates)
    assert [float(row["threshold"]) for row in rows] == pytest.approx([3.8 / (2.8 * rate) for rate in rates])
    (run,) = train_many([(config(optimiser="adamw", betas=(0.5, 0.9), **kept), tmp_path / "adam")], digits, stack=1)
    rows = list(csv.DictReader((run.path / "curvature.csv").read_text().splitlines()))
    assert float(rows[0]["threshold"]) == pytest.approx(3 / (0.5 * 0.01))


SECOND = [
    ("bp", {"optimiser": "adamw", "weight_decay": 0.1}, {"weight_decay": 0.2, "betas": (0.5, 0.9)}),
    ("pfa", {"optimiser": "sgd", "nesterov": True, "weight_decay": 0.1}, {"decay_all": True, "nesterov": False}),
    ("brsf", {"init": "lecun"}, {"init": "xavier", "init_distribution": "uniform"}),
    ("fa", {"warmup_epochs": 1}, {"schedule": "cosine", "warmup_epochs": 0}),
]


@pytest.mark.parametrize(("rule", "fields", "other"), SECOND)
def test_networks_of_a_stack_have_optimisers_of_their_own(rule, fields, other, digits, tmp_path):
    assert_stack_is_single(tmp_path, digits, [config(rule=rule, **fields), config(rule=rule, **fields | other, seed=1)])


# ---- losses ----

LOSSES = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.3},
    "mse": {"loss": "mse"},
}


def by_hand(fields: dict, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss of each sample, from its definition."""
    wanted = torch.eye(logits.shape[1], dtype=logits.dtype)[labels]
    if fields.get("loss") == "mse":
        return ((logits - wanted) ** 2).sum(1) / logits.shape[1]
    smoothing = fields.get("label_smoothing", 0.0)
    return -(((1 - smoothing) * wanted + smoothing / logits.shape[1]) * logits.log_softmax(1)).sum(1)


@pytest.mark.parametrize("name", LOSSES)
def test_every_form_of_a_loss_is_its_definition(name):
    loss = TrainingLoss.of(TrainConfig(**LOSSES[name]))
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 4, generator=random, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(4, (7,), generator=random)
    each = by_hand(LOSSES[name], logits, labels)
    torch.testing.assert_close(loss.each(logits, labels), each)
    torch.testing.assert_close(loss.total(logits, labels), each.sum())
    torch.testing.assert_close(loss.mean(logits, labels), each.mean())
    torch.testing.assert_close(loss.criterion()(logits, loss.targets(labels, 4).double()
                               if name == "mse" else labels), each.mean())  # fmt: skip
    (gradient,) = torch.autograd.grad(each.mean(), logits)
    torch.testing.assert_close(loss.error(logits.detach(), labels), gradient)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("rule", RULES)
def test_the_error_of_every_rule_is_the_gradient_of_its_loss(rule, name):
    """Updates by explicit products in float64, from e, the gradient of the loss by the logits."""
    made = make_rule(TrainConfig(rule=rule, hidden=(7, 6), **LOSSES[name]))
    model = build_model(made.config, (1, 3, 3), 4)
    made.initialise(model)
    model.double()
    twin = made.wrap(model, (1, 3, 3))
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(9, 1, 3, 3, generator=random, dtype=torch.float64)
    labels = torch.randint(4, (9,), generator=random)
    step = made.objective(twin, inputs, labels)
    found = made.gradients(dict(twin.named_parameters()), step)
    layers = [layer.weight.detach() for layer in model.layers]
    hidden = [inputs.flatten(1)]
    for weight in layers[:-1]:
        hidden.append((hidden[-1] @ weight.T).relu())
    logits = (hidden[-1] @ layers[-1].T).requires_grad_()
    value = by_hand(LOSSES[name], logits, labels).mean()
    torch.testing.assert_close(step.loss.detach(), value.detach())
    (error,) = torch.autograd.grad(value, logits)
    torch.testing.assert_close(found["layers.2.weight"], error.T @ hidden[2])
    down = wrapped_layers(twin)["layers.2"] if rule != "bp" else None
    if rule == "dfa":
        signal = error @ down.feedback
    else:
        signal = error @ (layers[2] if down is None else down.backward_weight().detach())
    torch.testing.assert_close(found["layers.1.weight"], (signal * (hidden[2] > 0)).T @ hidden[1])
    if rule == "bp":  # what the measure of gradients takes for the truth
        alike = gradient_alignment(model, twin, made, (inputs, labels), batch_size=9)["all"]
        assert alike.sample_cosine == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("name", [pytest.param("smoothed", marks=pytest.mark.slow), "mse"])
def test_metrics_and_analyses_take_the_loss_of_the_run(name, digits, tmp_path):
    """Metrics of single runs and of stacks, the monitor, Hessian, spectrum, surface, trajectory, sharpness and gap."""
    kept = {"snapshot_every": 2, "monitor": "hessian", "monitor_every": 6, "monitor_samples": 40, "monitor_k": 1}
    cfg = config(hidden=(5,), **LOSSES[name], **kept)
    (run,) = train_many([(cfg, tmp_path / "run")], digits, stack=1)
    stacked = train_many([(replace(cfg, seed=s, monitor="none"), tmp_path / f"s{s}") for s in (0, 1)], digits, stack=2)
    row = run.read_metrics()[-1]
    assert stacked[0].read_metrics()[-1]["test_loss"] == pytest.approx(row["test_loss"], rel=1e-4)
    subject = load_subject(run.path, split="test", device="cpu")
    model = subject.model.double()
    model.requires_grad_()
    logits = model(subject.inputs().double())
    value = by_hand(LOSSES[name], logits, subject.labels).mean()
    assert row["test_loss"] == pytest.approx(value.item(), rel=1e-5)
    assert "trained on" in subject.doubt
    assert subject.name in provenance([subject])["losses"]

    monitored = list(csv.DictReader((run.path / "curvature.csv").read_text().splitlines()))[-1]
    seen = digits.train.subset(40, 0)
    watched = by_hand(LOSSES[name], model(subject.normalise(seen.images).double()), seen.labels).mean()
    assert float(monitored["loss"]) == pytest.approx(watched.item(), rel=1e-5)

    parameters = list(model.parameters())
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(value, parameters, create_graph=True)])
    rows = [torch.cat([r.flatten() for r in torch.autograd.grad(g, parameters, retain_graph=True)]) for g in gradient]
    dense = torch.stack(rows)
    eigenvalue = torch.linalg.eigvalsh(dense)[-1].item()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = alignscape.load(run.path, device="cpu")
        hessian = net.hessian(k=1, split="test").frame()
        assert hessian.query("quantity == 'eigenvalue'")["value"].iloc[0] == pytest.approx(eigenvalue, rel=1e-3)
        path = net.trajectory(points=1, split="test")
        assert path.frame()["loss"].iloc[-1] == pytest.approx(value.item(), rel=1e-5)
        sharp = net.sharpness(split="test", measures=("sam",), groups=5).frame()
        assert sharp.query("measure == 'loss'")["value"].iloc[0] == pytest.approx(value.item(), rel=1e-5)
        plane = net.surface(points=(1,), split="test", plane="random").frame()
        assert plane["loss"].iloc[0] == pytest.approx(value.item(), rel=1e-5)
    assert gap._measured(load_subject(run.path, split="test", device="cpu"))[0] == pytest.approx(value.item(), rel=1e-5)


def test_a_rule_with_an_objective_of_its_own_must_say_that_it_heeds_the_loss(digits, tmp_path, monkeypatch):
    (tmp_path / "own_objective.py").write_text(
        "from training.rules import Rule\nclass Deaf(Rule):\n    def objective(self, twin, inputs, labels):\n"
        "        return super().objective(twin, inputs, labels)\nclass Heeding(Deaf):\n    options = ('loss',)\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"own_objective:Deaf has an objective of its own.*--loss"):
        train_many([(config(rule="own_objective:Deaf", loss="mse"), tmp_path / "deaf")], digits)
    train_many([(config(rule="own_objective:Heeding", loss="mse", epochs=0), tmp_path / "heeding")], digits)


@pytest.mark.parametrize("rule", ["fa", "dfa"])
def test_stacks_learn_from_other_losses(rule, digits, tmp_path):
    for name in ("smoothed", "mse"):
        configs = [config(rule=rule, seed=seed, **LOSSES[name]) for seed in (0, 1)]
        assert_stack_is_single(tmp_path / name, digits, configs)


# ---- augmentation ----


def test_crops_and_flips_are_torchvisions():
    """Each view is what torchvision makes of the same box: shifted with black around, and mirrored, byte for byte."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (40, 3, 32, 24), generator=random).to(torch.uint8)
    augmentation = Augmentation("crop-flip", (32, 24))
    views = augmentation.draw(40, random)
    found = augmentation(images, views)
    for image, view, got in zip(images, views.tolist(), found, strict=True):
        top, left, height, width, mirrored = (int(number) for number in view)
        assert (height, width) == (32, 24)
        expected = functional.crop(image, top, left, 32, 24)
        assert torch.equal(got, functional.hflip(expected) if mirrored else expected)
    many = augmentation.draw(20_000, random)
    assert set(many[:, 0].tolist()) == set(range(-4, 5))
    assert set(many[:, 1].tolist()) == set(range(-3, 4))
    assert many[:, 4].mean().item() == pytest.approx(0.5, abs=0.02)
    assert not Augmentation("crop", (8, 8)).draw(100, random)[:, 4].any()


def test_resized_crops_are_torchvisions():
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (40, 3, 32, 24), generator=random).to(torch.uint8)
    augmentation = Augmentation("random-resized-crop", (32, 24))
    views = augmentation.draw(40, random)
    exact = augmentation(images.double() / 255, views.double())
    for image, view, got, byte in zip(images, views.tolist(), exact, augmentation(images, views), strict=True):
        top, left, height, width, mirrored = (int(number) for number in view)
        expected = functional.resized_crop(image.double() / 255, top, left, height, width, [32, 24], antialias=True)
        expected = functional.hflip(expected) if mirrored else expected
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
        assert (byte.double() - 255 * expected).abs().max() <= 0.501


@pytest.mark.parametrize("size", [(32, 32), (20, 60)])
def test_boxes_are_drawn_as_torchvision_draws_them(size):
    """Quantiles of top, left, height and width over many draws; a wide image often needs the box in the middle."""
    ours = Augmentation("random-resized-crop", size).draw(6000, torch.Generator().manual_seed(0))[:, :4]
    torch.manual_seed(0)
    image = torch.zeros(3, *size)
    theirs = torch.tensor(
        [transforms.RandomResizedCrop.get_params(image, list(AREA), list(RATIO)) for _ in range(6000)]
    )
    levels = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
    assert (ours.quantile(levels, dim=0) - theirs.float().quantile(levels, dim=0)).abs().max() <= 1
    torch.testing.assert_close(ours.mean(0), theirs.float().mean(0), rtol=0.03, atol=0.2)


@pytest.mark.parametrize("rule", ["bp", "pal"])
def test_augmented_stacks_and_resumed_runs(rule, digits, tmp_path, monkeypatch):
    """A stack gives what single runs give; killed inside an epoch, a run ends with the same bits; views change by epoch
    and seed, and the last run shows that they matter."""
    fields = {"augment": "crop", "label_smoothing": 0.1, "warmup_epochs": 1, "clip_norm": 1.0}
    together = assert_stack_is_single(tmp_path, digits, [config(rule=rule, seed=s, **fields) for s in (0, 1)])
    plain = weights_of(tmp_path / "plain", digits, [config(rule=rule, **fields | {"augment": "none"})], 1)
    assert not torch.allclose(together[0]["layers.0.weight"], plain[0]["layers.0.weight"])
    again = killed_and_resumed(tmp_path / "killed", digits, config(rule=rule, **fields), monkeypatch)
    alone = weights_of(tmp_path / "alone", digits, [config(rule=rule, **fields)], 1)[0]
    assert all(torch.equal(again[name], alone[name]) for name in alone)


def killed_and_resumed(folder, digits, cfg, monkeypatch, at: int = 4) -> dict[str, torch.Tensor]:
    """Train until a step fails, with a resume point after each, then to the end; return the weights."""
    step = Stack.train_step

    def failing(self, epoch, index):
        if self.step == at:
            raise KeyboardInterrupt
        step(self, epoch, index)

    with monkeypatch.context() as patch:
        patch.setattr(Stack, "train_step", failing)
        patch.setattr(clock.Clock, "save_is_due", lambda self: True)
        with pytest.raises(KeyboardInterrupt):
            train_many([(cfg, folder)], digits)
    (run,) = train_many([(cfg, folder)], digits)
    kept = load_checkpoint(run.checkpoint)
    return {**kept.model, **kept.feedback}


def test_other_data_take_mirrored_views(tmp_path):
    """Data of the user's own, floats in [0, 1], against a loop by hand with torchvision's crops of the same boxes."""
    random = torch.Generator().manual_seed(0)
    images = torch.rand(40, 3, 8, 8, generator=random)
    split = Split(images=images, labels=torch.arange(40) % 2)
    data = Dataset(name="mine", train=split, test=split, mean=(0.5,) * 3, std=(0.3,) * 3, classes=2)
    cfg = TrainConfig(dataset="mine", augment="random-resized-crop", hidden=(5,), epochs=2, batch_size=20, lr=0.1,
                      optimiser="sgd")  # fmt: skip
    trained = weights_of(tmp_path, data, [cfg], 1)[0]
    model = build_model(cfg, (3, 8, 8), 2)
    make_rule(cfg).initialise(model)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    augmentation = Augmentation("random-resized-crop", (8, 8))
    for epoch in range(2):
        views = augmentation.draw(40, generator(0, "augmentation", epoch))
        for batch in torch.randperm(40, generator=generator(0, "order", epoch)).split(20):
            seen = [
                functional.resized_crop(images[i], *(int(n) for n in views[i, :4].tolist()), [8, 8], antialias=True)
                for i in batch
            ]
            seen = [functional.hflip(x) if views[i, 4] else x for i, x in zip(batch, seen, strict=True)]
            optimiser.zero_grad()
            F.cross_entropy(model((torch.stack(seen) - 0.5) / 0.3), split.labels[batch]).backward()
            optimiser.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(trained[name], parameter.detach(), rtol=1e-4, atol=1e-5)


# ---- validation ----


def test_held_out_samples_are_a_share_that_is_not_learned_from():
    split = Split(images=torch.arange(50, dtype=torch.uint8).view(-1, 1, 1, 1), labels=torch.arange(50))
    kept, held = hold_out(split, 0.2, 3)
    assert len(held) == 10
    assert sorted((*kept.labels.tolist(), *held.labels.tolist())) == list(range(50))
    assert torch.equal(kept.images.flatten().long(), kept.labels)
    assert not torch.equal(held.labels, hold_out(split, 0.2, 4)[1].labels)
    for share in (0.001, 0.999):
        with pytest.raises(InputError, match=r"holds out (0|50) of 50 samples"):
            hold_out(split, share, 0)


VALIDATING = {"validation": 0.25, "epochs": 8, "lr": 0.03}


def test_the_best_epoch_is_kept_as_it_was(digits, tmp_path):
    """best.pt is the checkpoint of the epoch with the best validation accuracy, the first of equals."""
    cfg = config(**VALIDATING, checkpoint_every=1, weight_decay=0.1)
    (run,) = train_many([(cfg, tmp_path / "run")], digits)
    rows, done = run.read_metrics(), json.loads((run.path / "done.json").read_text())
    accuracies = [row["validation_accuracy"] for row in rows]
    best = accuracies.index(max(accuracies))
    assert 0 < best < 8, "or this shows nothing"
    kept, then = load_checkpoint(run.best_checkpoint), load_checkpoint(run.epoch_checkpoint(best))
    assert kept.epoch == best
    assert kept.metrics == then.metrics
    assert all(torch.equal(kept.model[name], then.model[name]) for name in then.model)
    names = "validation_loss", "validation_accuracy", "test_loss", "test_accuracy"
    measured = {name: rows[best][name] for name in names}
    assert done["best"] == {"epoch": best, "step": rows[best]["step"], **measured}
    assert "best.pt" in done["files"]
    learned, held = hold_out(digits.train, 0.25, 0)
    normalise = Normalise(digits.mean, digits.std)
    found = evaluate(kept.plain_model(), normalise, held)
    assert found == pytest.approx((rows[best]["validation_loss"], rows[best]["validation_accuracy"]))
    assert rows[1]["step"] == math.ceil(len(learned) / 32)
    images = load_subject(run.path, split="train", device="cpu").images
    assert torch.equal(images, learned.images), "analyses of the train split see what was learned from"


@pytest.mark.parametrize("best_by", ["accuracy", "loss"])
def test_patience_ends_runs_one_by_one_in_a_stack_too(best_by, digits, tmp_path):
    """A run ends as many epochs after its best as it has patience, where the run without patience would have gone on;
    weights and rows are the same up to there."""
    fields = {**VALIDATING, "lr": 0.1, "best_by": best_by, "epochs": 20}
    configs = [config(seed=s, patience=2 + s, **fields) for s in (0, 1)]
    whole = train_many([(config(seed=s, **fields), tmp_path / f"whole-{s}") for s in (0, 1)], digits, stack=1)
    for size in (1, 2):
        runs = train_many([(one, tmp_path / f"{size}-{one.seed}") for one in configs], digits, stack=size)
        for one, run, other in zip(configs, runs, whole, strict=True):
            values = [row[f"validation_{best_by}"] for row in other.read_metrics()]
            better = (lambda a, b: a > b) if best_by == "accuracy" else (lambda a, b: a < b)
            best = last = 0
            while last < 20 and last - best < one.patience:
                last += 1
                best = last if better(values[last], values[best]) else best
            assert last < 20, "or nobody stops"
            done = json.loads((run.path / "done.json").read_text())
            assert (done["stopped"], done["epoch"], done["best"]["epoch"]) == (True, last, best)
            if size == 1:
                assert [row["test_loss"] for row in run.read_metrics()] == [
                    row["test_loss"] for row in other.read_metrics()[: last + 1]
                ]


def test_the_trajectory_of_a_run_that_was_stopped_ends_with_it(digits, tmp_path):
    fields = {**VALIDATING, "lr": 0.1, "epochs": 20, "snapshot_every": 7, "snapshot_sketch": 2}
    run = train(config(patience=1, **fields), digits, tmp_path / "run")
    step = json.loads((run.path / "done.json").read_text())["step"]
    steps = json.loads((run.path / "trajectory.json").read_text())["steps"]
    rows = np.load(run.path / "trajectory.npy")
    assert step % 7 > 0
    assert step < 60, "or nobody stopped"
    assert steps == [*range(0, step, 7), step]
    assert len(rows) == len(steps)
    weights = torch.cat([w.flatten() for w in load_checkpoint(run.checkpoint).model.values()])
    assert np.array_equal(rows[-1], weights.numpy())
    whole = train(config(**fields), digits, tmp_path / "whole")
    assert np.array_equal(rows[:-1], np.load(whole.path / "trajectory.npy")[: len(rows) - 1])


def test_validation_survives_a_kill(digits, tmp_path, monkeypatch):
    """Killed between its best epoch and the end, a run ends with the same best.pt and done.json."""
    cfg = config(**VALIDATING, patience=2)
    (whole,) = train_many([(cfg, tmp_path / "whole")], digits)
    done = json.loads((whole.path / "done.json").read_text())
    assert done["stopped"]
    at = done["best"]["step"] + 4
    killed_and_resumed(tmp_path / "killed", digits, cfg, monkeypatch, at=at)
    again = json.loads((tmp_path / "killed" / "done.json").read_text())
    assert (again["best"], again["epoch"]) == (done["best"], done["epoch"])
    one, other = (load_checkpoint(tmp_path / name / "best.pt").model for name in ("whole", "killed"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_runs_show_and_the_table_say_what_was_best(tmp_path, capsys):
    flags = ["--hidden", "8", "--epochs", "3", "--train-size", "100", "--validation", "0.3", "--quiet"]
    assert main(["train", *flags, "--store", str(tmp_path)]) == 0
    assert "best test acc" in capsys.readouterr().out
    key = next((tmp_path / "runs").iterdir()).name
    assert main(["runs", "show", "--store", str(tmp_path), key]) == 0
    out = capsys.readouterr().out
    assert "best epoch:" in out
    assert "validation_accuracy" in out


@pytest.mark.parametrize("networks", [1, 2])
def test_recipes_are_recorded_for_a_gpu(networks, digits, tmp_path, monkeypatch):
    """By the stand-in for CUDA graphs: rates, views and limits reach replayed steps, and no step is given up."""
    fields = {"optimiser": "adamw", "schedule": "cosine", "warmup_epochs": 1, "weight_decay": 0.1, "decay_all": True}
    fields |= {"clip_norm": 0.5, "augment": "crop", "loss": "mse", "validation": 0.2, "activation": "tanh", "epochs": 4}
    found, recorders = [], []

    def tape(device):
        recorders.append(TapeRecorder(device))
        return recorders[-1]

    for place in ("plain", "recorded"):
        configs = [config(rule="pfa", expansion=2, seed=seed, **fields) for seed in range(networks)]
        found.append(weights_of(tmp_path / place, digits, configs, networks))
        monkeypatch.setattr(stack_module, "recorder_for", tape)
    assert all(recorder.counts["replay"] for recorder in recorders)
    for one, other in zip(*found, strict=True):
        for name in one:
            torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-4)
