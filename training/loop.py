"""Training: a config and a folder in, a finished run folder out. No command line, no plotting."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.alignment import alignment
from training.checkpoint import Checkpoint, DataInfo, save_checkpoint, split_state
from training.config import TrainConfig
from training.data import Dataset, Normalise, Split
from training.device import describe_device, versions
from training.models import build_model
from training.rules import make_rule
from training.runs import RunFolder
from training.seeding import generator
from training.trajectory import TrajectoryWriter, snapshot_steps

RESUME_SECONDS = 60.0  # a resume point at least this often; writing one costs about 1 % of that


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a progress display shows: steps done of all, and the last epoch's metrics."""

    step: int
    total_steps: int
    epoch: int
    metrics: dict[str, float]


def train(
    config: TrainConfig,
    data: Dataset,
    folder: Path,
    *,
    data_root: Path | None = None,
    progress: Callable[[Report], None] | None = None,
) -> RunFolder:
    """Train ``config`` on ``data`` (on its device) in ``folder``, going on from a resume point if there is one.

    A complete run is left as it is. Killed at any time and called again, a run ends with the weights of an
    uninterrupted one: bit-identical on a CPU with the same number of threads, because the order of the data is a
    function of (seed, epoch) and everything else that moves is in the resume point. Loss that is no longer finite ends
    the run, which records ``diverged`` and the step.

    Raises:
        InputError: unknown rule or model, a rule that cannot wrap the model, a folder of another run.
    """
    run = RunFolder(folder)
    info = DataInfo.of(data)
    description = {
        "data": info.to_dict(),
        "data_root": None if data_root is None else str(data_root.resolve()),
        "key": config.key(info.digest),
        "versions": versions(),
        "device": describe_device(data.train.labels.device),
    }
    trainer = Trainer(config, data, info)  # unknown names and modules fail before anything is written
    with run.locked():
        run.claim(config, description)
        if not run.is_done:
            trainer.run(run, progress)
    return run


class Trainer:
    """The state of one run in memory, and the loop over it."""

    def __init__(self, config: TrainConfig, data: Dataset, info: DataInfo) -> None:
        self.config = config
        self.data = data
        self.info = info
        self.device = data.train.labels.device
        self.normalise = Normalise(data.mean, data.std).to(self.device)
        self.rule = make_rule(config)
        self.model = build_model(config, data.input_shape, data.classes)
        self.rule.initialise(self.model)
        self.model.to(self.device)
        self.twin = self.rule.wrap(self.model)
        self.optimiser = make_optimiser(config, self.twin)
        self.steps_per_epoch = math.ceil(len(data.train) / config.batch_size)
        self.total_steps = config.epochs * self.steps_per_epoch
        self.step = 0
        self.seconds = 0.0  # spent training, over all attempts
        self.rows: list[dict[str, float]] = []
        # Sums over the epoch so far, on the device: reading them every step would make a GPU wait.
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self.bad_step = torch.full((), -1, dtype=torch.int64, device=self.device)  # first step with a bad loss

    def run(self, run: RunFolder, progress: Callable[[Report], None] | None) -> None:
        """Train to the end in ``run``, from its resume point if it has one."""
        trajectory = self._trajectory(run)
        if (state := run.load_resume()) is not None:
            self.restore(state)
        else:
            self._end_epoch(run)
            if trajectory is not None:
                trajectory.write(0)
        saved = time.monotonic()
        while self.step < self.total_steps and not self.diverged:
            started = time.monotonic()
            self._train_until_pause(trajectory, pause_at=saved + RESUME_SECONDS)
            self.seconds += time.monotonic() - started
            if self.step % self.steps_per_epoch == 0 or self.diverged:
                self._end_epoch(run)
                self._report(progress)
            if trajectory is not None:
                trajectory.flush()
            run.save_resume(self.state())
            saved = time.monotonic()
        self._finish(run, trajectory)

    def _trajectory(self, run: RunFolder) -> TrajectoryWriter | None:
        every = self.config.snapshot_every
        if not every:
            return None
        return TrajectoryWriter(
            run.path, self.model, snapshot_steps(self.total_steps, every), self.config.snapshot_dtype
        )

    def _train_until_pause(self, trajectory: TrajectoryWriter | None, pause_at: float) -> None:
        """Train to the end of the epoch, or to the first step after the time ``pause_at``."""
        epoch, first = divmod(self.step, self.steps_per_epoch)
        self._set_schedule(epoch)
        order = torch.randperm(len(self.data.train), generator=generator(self.config.seed, "order", epoch))
        batches = order.to(self.device).split(self.config.batch_size)
        self.twin.train()
        for batch in batches[first:]:
            self._train_step(batch)
            if trajectory is not None:
                trajectory.write(self.step)
            if time.monotonic() > pause_at:
                return

    def _train_step(self, batch: Tensor) -> None:
        inputs = self.normalise(self.data.train.images[batch])
        labels = self.data.train.labels[batch]
        objective, loss, logits = self.rule.objective(self.twin, inputs, labels)
        self.optimiser.zero_grad(set_to_none=True)
        objective.backward()
        self.optimiser.step()
        self.step += 1
        loss = loss.detach()
        self.loss_sum += loss * len(batch)
        self.correct += (logits.detach().argmax(1) == labels).sum()
        first_bad = ~loss.isfinite() & (self.bad_step < 0)
        self.bad_step = torch.where(first_bad, self.step, self.bad_step)

    def _set_schedule(self, epoch: int) -> None:
        """Set learning rate and decay of the epoch (counted from 0)."""
        config = self.config
        lr = config.lr * config.lr_gamma ** sum(epoch >= step for step in config.lr_steps)
        decay = config.weight_decay
        if epoch == 0 and config.first_epoch_weight_decay is not None:
            decay = config.first_epoch_weight_decay
        matrices, vectors = self.optimiser.param_groups
        matrices.update(lr=lr, weight_decay=decay)
        vectors.update(lr=lr)

    @property
    def diverged(self) -> bool:
        """Whether a loss was NaN or infinite."""
        return int(self.bad_step) >= 0

    def _end_epoch(self, run: RunFolder) -> None:
        """Add the epoch's row, keep its checkpoint if asked for, and start the next epoch's sums."""
        epoch = math.ceil(self.step / self.steps_per_epoch)
        self.rows.append(self._metrics(epoch))
        run.write_metrics(self.rows)
        self.loss_sum.zero_()
        self.correct.zero_()
        every = self.config.checkpoint_every
        if every and (epoch % every == 0 or epoch == self.config.epochs):
            save_checkpoint(self.checkpoint(epoch), run.epoch_checkpoint(epoch))

    def _metrics(self, epoch: int) -> dict[str, float]:
        seen = self._samples_seen()
        test_loss, test_accuracy = evaluate(self.model, self.normalise, self.data.test)
        row = {
            "epoch": epoch,
            "step": self.step,
            "train_loss": self.loss_sum.item() / seen if seen else math.nan,  # mean over the epoch, as it went
            "train_accuracy": self.correct.item() / seen if seen else math.nan,
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
            "seconds": round(self.seconds, 3),
        }
        for layer, pair in self.rule.backward_weights(self.twin).items():
            agreement = alignment(*pair)
            row[f"angle_{layer}"] = agreement.row_angle
            row[f"flat_angle_{layer}"] = agreement.flat_angle
            row[f"norm_ratio_{layer}"] = agreement.norm_ratio
        return row

    def _samples_seen(self) -> int:
        """Samples of the current epoch so far."""
        if self.step == 0:
            return 0
        in_epoch = (self.step - 1) % self.steps_per_epoch + 1
        return min(in_epoch * self.config.batch_size, len(self.data.train))

    def _report(self, progress: Callable[[Report], None] | None) -> None:
        if progress is not None:
            row = self.rows[-1]
            progress(Report(step=self.step, total_steps=self.total_steps, epoch=int(row["epoch"]), metrics=dict(row)))

    def checkpoint(self, epoch: int) -> Checkpoint:
        """Return the network as it stands."""
        model, feedback = split_state(self.model, self.twin)
        metrics: dict[str, float | bool] = {k: v for k, v in self.rows[-1].items() if k != "epoch"}
        return Checkpoint(
            config=self.config,
            data=self.info,
            model=model,
            feedback=feedback,
            epoch=epoch,
            step=self.step,
            metrics={**metrics, "diverged": self.diverged},
        )

    def state(self) -> dict[str, Any]:
        """Return the resume point: everything that moves."""
        return {
            "twin": self.twin.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "rows": self.rows,
            "loss_sum": self.loss_sum,
            "correct": self.correct,
            "bad_step": self.bad_step,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a resume point."""
        self.twin.load_state_dict(state["twin"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds, self.rows = state["step"], state["seconds"], state["rows"]
        for name in ("loss_sum", "correct", "bad_step"):
            setattr(self, name, state[name].to(self.device))

    def _finish(self, run: RunFolder, trajectory: TrajectoryWriter | None) -> None:
        if trajectory is not None:
            if self.diverged:
                trajectory.truncate(self.step)
            trajectory.flush()
        final = self.checkpoint(int(self.rows[-1]["epoch"]))
        save_checkpoint(final, run.checkpoint)
        summary = {"epoch": final.epoch, "step": final.step, "diverged": self.diverged, "seconds": self.seconds}
        if self.diverged:
            summary["diverged_step"] = int(self.bad_step)
        run.finish(summary)


def make_optimiser(config: TrainConfig, twin: nn.Module) -> torch.optim.Optimizer:
    """Return the fused optimiser over the parameters of ``twin``, in two groups: matrices, which are decayed, and
    vectors (biases, normalisation), which are not. Fixed feedback is a buffer and so never decayed; plastic feedback
    is a parameter and decays with the weights."""
    matrices = [p for p in twin.parameters() if p.ndim >= 2]
    vectors = [p for p in twin.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)
    # One pass over the weights instead of about ten: 3 times less of an MLP's step on a CPU.
    return torch.optim.Adam(groups, lr=config.lr, fused=True)


@torch.no_grad()
def evaluate(model: nn.Module, normalise: Normalise, split: Split, batch_size: int = 2500) -> tuple[float, float]:
    """Return mean cross-entropy (nats) and accuracy (0 to 1) of ``model`` on ``split``, in evaluation mode."""
    was_training = model.training
    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=split.labels.device)
    correct = torch.zeros((), dtype=torch.int64, device=split.labels.device)
    for images, labels in zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True):
        logits = model(normalise(images))
        loss += F.cross_entropy(logits, labels, reduction="sum")
        correct += (logits.argmax(1) == labels).sum()
    model.train(was_training)
    return loss.item() / len(split), correct.item() / len(split)
