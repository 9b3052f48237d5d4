"""The monitor in Lightning and in Hugging Face's ``Trainer``: with the library where there is one, and with a stand-in
that calls its callbacks as the library does."""

import sys
import types

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from alignscape.errors import InputError
from landscape import Monitor, lightning_callback, top_eigenpairs, trainer_callback

LR, STEPS = 0.05, 8


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(4 * STEPS, 3, generator=random), torch.randn(4 * STEPS, 1, generator=random)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


# ---- Lightning ----


class StandInCallback:
    """The hooks that this package could shadow, as ``lightning.pytorch.Callback`` has them."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pass

    def state_dict(self):
        return {}

    def load_state_dict(self, state_dict):
        pass


@pytest.fixture(params=["library", "stand-in"])
def fit(request, monkeypatch, tmp_path):
    """A function (model, callback, accumulate) that trains for STEPS mini-batches, and returns what loggers got."""
    if request.param == "library":
        name = "lightning.pytorch"
        pytest.importorskip(name, reason="the extra `lightning` is not installed: only its stand-in is tried")
        return lambda model, callback, accumulate=1: fit_with_lightning(model, callback, accumulate, tmp_path)
    package, module = types.ModuleType("lightning"), types.ModuleType("lightning.pytorch")
    module.Callback = StandInCallback
    package.pytorch = module
    monkeypatch.setitem(sys.modules, "lightning", package)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", module)
    return fit_with_stand_in


def fit_with_lightning(model, callback, accumulate, folder):
    import lightning.pytorch as pl
    from lightning.pytorch.loggers.logger import DummyLogger

    class Kept(DummyLogger):
        rows: list[tuple[dict, int]] = []  # noqa: RUF012

        def log_metrics(self, metrics, step):
            self.rows.append((dict(metrics), step))

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, index):
            return F.mse_loss(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=LR)

    logger = Kept()
    logger.rows = []
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=logger, callbacks=[callback], enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, accumulate_grad_batches=accumulate,
        default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(TensorDataset(*samples()), batch_size=4))
    return [(row, step) for row, step in logger.rows if "curvature/eigenvalue" in row]


def fit_with_stand_in(model, callback, accumulate=1):
    rows = []
    logger = types.SimpleNamespace(log_metrics=lambda metrics, step: rows.append((metrics, step)))
    optimiser = torch.optim.SGD(model.parameters(), lr=LR)
    trainer = types.SimpleNamespace(is_global_zero=True, global_step=0, optimizers=[optimiser], loggers=[logger])
    assert isinstance(callback, StandInCallback)
    for index, batch in enumerate(DataLoader(TensorDataset(*samples()), batch_size=4)):
        (F.mse_loss(model(batch[0]), batch[1]) / accumulate).backward()
        if (index + 1) % accumulate == 0:
            optimiser.step()
            optimiser.zero_grad()
            trainer.global_step += 1
        callback.on_train_batch_end(trainer, model, None, batch, index)
    return rows


def test_lightning_measures_logs_and_trains_the_same(fit):
    plain, watched = network(), network()
    fit(plain, lightning_callback(Monitor(nn.MSELoss(), samples(), every=10**6, k=1)))
    monitor = Monitor(nn.MSELoss(), samples(), every=4, k=2)
    logged = fit(watched, lightning_callback(monitor))
    assert [record.step for record in monitor.records] == [4, 8]
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), watched.parameters(), strict=True))
    last = monitor.records[-1]
    truth = top_eigenpairs(watched, nn.MSELoss(), samples(), k=2)
    assert last.eigenvalues == pytest.approx(truth.frame()["value"].tolist(), rel=1e-3)
    assert last.threshold == pytest.approx(2 / LR)
    assert [step for _, step in logged] == [4, 8]
    assert logged[-1][0]["curvature/eigenvalue"] == last.eigenvalues[0]
    assert "curvature/preconditioned_eigenvalue" not in logged[-1][0]


def test_lightning_counts_steps_of_the_optimiser_and_keeps_the_first_batch(fit):
    monitor = Monitor(nn.MSELoss(), every=2, k=1)
    fit(network(), lightning_callback(monitor), 2)
    assert [record.step for record in monitor.records] == [2, 4]
    assert monitor.records[0].n_samples == 4
    assert torch.equal(monitor.data[0], samples()[0][4:8])  # of the first step of the optimiser


def test_lightning_checkpoints_hold_the_state(fit):
    first, second = Monitor(nn.MSELoss(), samples(), every=4, k=1), Monitor(nn.MSELoss(), samples(), every=4, k=1)
    callback = lightning_callback(first)
    fit(model := network(), callback)
    lightning_callback(second).load_state_dict(callback.state_dict())
    assert second.measure(model, step=9) == first.measure(model, step=9)


# ---- Hugging Face ----


class Regression(nn.Module):
    """As its models do: batches by name, outputs with the loss."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, inputs, labels=None):
        outputs = self.net(inputs)
        return {"loss": F.mse_loss(outputs, labels), "logits": outputs}


def own_loss(outputs, batch):
    return outputs["loss"]


@pytest.fixture(params=["library", "stand-in"])
def train(request, monkeypatch, tmp_path):
    """A function (model, callback) that trains for STEPS mini-batches, and returns the history of the log."""
    if request.param == "library":
        pytest.importorskip("transformers", reason="the extra `hf` is not installed: only its stand-in is tried")
        pytest.importorskip("accelerate", reason="the extra `hf` is not installed: only its stand-in is tried")
        return lambda model, callback: train_with_library(model, callback, tmp_path)
    module = types.ModuleType("transformers")
    module.TrainerCallback = type("TrainerCallback", (), {"on_step_end": lambda self, args, state, control, **k: None})
    monkeypatch.setitem(sys.modules, "transformers", module)
    return train_with_stand_in


def train_with_library(model, callback, folder):
    from transformers import Trainer, TrainingArguments

    inputs, labels = samples()
    data = [{"inputs": x, "labels": y} for x, y in zip(inputs, labels, strict=True)]
    args = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=4, num_train_epochs=1, learning_rate=LR, use_cpu=True,
        report_to=[], save_strategy="no", disable_tqdm=True, optim="adamw_torch", lr_scheduler_type="constant",
    )  # fmt: skip
    trainer = Trainer(model=model, args=args, train_dataset=data, callbacks=[callback])
    trainer.train()
    return trainer.state.log_history


def train_with_stand_in(model, callback):
    optimiser = torch.optim.AdamW(model.parameters(), lr=LR)
    state = types.SimpleNamespace(global_step=0, log_history=[], is_world_process_zero=True)
    inputs, labels = samples()
    for x, y in zip(inputs.split(4), labels.split(4), strict=True):
        model(inputs=x, labels=y)["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()
        state.global_step += 1
        callback.on_step_end(None, state, None, model=model, optimizer=optimiser, lr_scheduler=None)
    return state.log_history


def test_the_trainer_measures_logs_and_trains_the_same(train):
    inputs, labels = samples()
    batch = {"inputs": inputs, "labels": labels}
    plain, watched = Regression(), Regression()
    train(plain, trainer_callback(Monitor(own_loss, batch, every=10**6, k=1)))
    monitor = Monitor(own_loss, batch, every=4, k=2)
    history = train(watched, trainer_callback(monitor))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), watched.parameters(), strict=True))
    assert [record.step for record in monitor.records] == [4, 8]
    last = monitor.records[-1]
    truth = top_eigenpairs(watched.net, nn.MSELoss(), samples(), k=2)
    assert last.eigenvalues == pytest.approx(truth.frame()["value"].tolist(), rel=1e-3)
    assert last.threshold == pytest.approx(38 / LR)
    assert last.preconditioned_eigenvalue > 0
    rows = [row for row in history if "curvature/eigenvalue" in row]
    assert [row["step"] for row in rows] == [4, 8]
    assert rows[-1]["curvature/eigenvalue"] == last.eigenvalues[0]


def test_the_trainer_needs_samples():
    with pytest.raises(InputError, match="give the monitor data"):
        trainer_callback(Monitor(own_loss))


@pytest.mark.parametrize(("make", "extra"), [(lightning_callback, "lightning"), (trainer_callback, "hf")])
def test_a_missing_package_is_named(monkeypatch, make, extra):
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=rf"pip install 'alignscape\[{extra}\]'"):
        make(Monitor(nn.MSELoss(), samples()))
