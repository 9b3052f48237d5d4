"""One network of a run in memory: its rule, its weights, its metrics so far, and the folder they go to."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from alignscape.errors import InputError
from training.angles import alignment
from training.checkpoint import Checkpoint, DataInfo, save_checkpoint, split_state
from training.config import TrainConfig
from training.data import Dataset
from training.gradient_angles import as_metrics, gradient_alignment
from training.memory import layers_of, mlp_layers, require_room
from training.models import build_model
from training.models.trial import try_training
from training.monitoring import Monitoring
from training.rules import make_rule
from training.rules.others import explained, origin, refuse_own_loss
from training.run_folder import RunFolder
from training.trajectory import TrajectoryWriter, snapshot_steps

OnEpoch = Callable[[RunFolder, list[dict[str, float]]], None]


class Network:
    """What a run is besides its steps, whether it trains alone or in a stack.

    Raises:
        InputError: unknown rule or model, a rule that cannot wrap the model, more memory than there is. Nothing is
            written before ``open``.
    """

    def __init__(self, config: TrainConfig, data: Dataset, info: DataInfo, run: RunFolder) -> None:
        self.config = config
        self.info = info
        self.run = run
        self.rule = make_rule(config)
        if data.train.labels.is_floating_point():
            raise InputError(f"{data.name} has labels that are floats: training takes the numbers of classes")
        refuse_own_loss(self.rule)
        if config.augment != "none" and len(data.input_shape) != 3:
            raise InputError(f"--augment {config.augment} is for images; the inputs of {data.name} are none")
        device = data.train.labels.device
        if known := config.model == "mlp":
            self.layers = mlp_layers(config, math.prod(data.input_shape), data.classes)
            require_room([config], self.rule, self.layers, data.classes, device)
        self.model = build_model(config, data.input_shape, data.classes)
        if not known:
            self.layers = layers_of(self.model, data.input_shape)
            require_room([config], self.rule, self.layers, data.classes, device)
        with explained(self.rule, "initialise"):
            self.rule.initialise(self.model)
        self.apart = self._try(data)
        self.model.to(device)
        with explained(self.rule, "wrap"):
            self.twin = self.rule.wrap(self.model, data.input_shape)
        self.steps_per_epoch = math.ceil(len(data.train) / config.batch_size)
        self.total_steps = config.epochs * self.steps_per_epoch
        self.first_step = -config.noise_epochs * self.steps_per_epoch  # steps on noise come before step 0
        self.step = self.first_step
        self.seconds = 0.0  # spent training, over all attempts; a network of a stack counts its share
        self.diverged_step: int | None = None  # the first step whose loss, or test loss after it, was NaN or infinite
        self.rows: list[dict[str, float]] = []
        self.trajectory: TrajectoryWriter | None = None
        self.monitoring: Monitoring | None = None
        self.on_epoch: OnEpoch | None = None  # called with the run and all its rows
        self.data = data

    def _try(self, data: Dataset) -> str | None:
        """Return why this network can train in no stack, None if it can.

        Raises:
            InputError: parameters that are frozen or no float32; it cannot train on mini-batches as small as there
                will be.
        """
        for name, p in self.model.named_parameters():
            if not p.requires_grad or p.dtype != torch.float32:
                what = str(p.dtype).removeprefix("torch.") if p.requires_grad else "frozen"
                raise InputError(f"{name} is {what}: every parameter is drawn anew and trained, as float32")
        sizes = {min(self.config.batch_size, len(data.train)), len(data.train) % self.config.batch_size} - {0}
        drew = [try_training(self.model, data.input_shape, size) for size in {min(size, 2) for size in sizes}]
        if any(drew):
            return "dropout and the like draw from one stream for all networks of a stack"
        if any(isinstance(m, nn.modules.batchnorm._NormBase) and m.momentum is None for m in self.model.modules()):
            return "normalisation with momentum=None reads its count of steps on the host"
        return None

    def gradient_alignment(self) -> dict[str, float]:
        """Return the columns of the gradient alignment, measured on samples that are the same for every network."""
        split = self.data.train.subset(min(self.config.gradient_alignment, len(self.data.train)), 0)
        split = split.to(split.labels.device)
        probe = self.data.normaliser()(split.images), split.labels
        with explained(self.rule, "objective or gradients"):
            found = gradient_alignment(self.model, self.twin, self.rule, probe, batch_size=self.config.batch_size)
        return as_metrics(found)

    def tensors(self) -> dict[str, Tensor]:
        """Return parameters and buffers of the twin by name: all that a checkpoint holds, and that may move."""
        return {**dict(self.twin.named_parameters()), **dict(self.twin.named_buffers())}

    def begin(self) -> None:
        """Let the rule prepare its feedback, once, before a run starts: one that goes on has it."""
        with explained(self.rule, "before_training"):
            self.rule.before_training(self.twin)

    def open(self) -> None:
        """Open the files that grow with the run."""
        if self.config.snapshot_every:
            steps = snapshot_steps(self.total_steps, self.config.snapshot_every)
            self.trajectory = TrajectoryWriter(
                self.run.path, self.model, steps, self.config.snapshot_dtype, sketch=self.config.snapshot_sketch
            )
        if self.config.monitor != "none":
            self.monitoring = Monitoring(self.config, self, self.steps_per_epoch)

    def keeps_step(self) -> bool:
        """Whether :meth:`after_step` does anything, from step 0, before the first on the data."""
        return self.trajectory is not None and self.step >= 0 and self.trajectory.keeps(self.step)

    def after_step(self, weights: Tensor | None = None) -> None:
        """Keep what is kept of single steps; ``weights`` (P,) are those of the model, if they are at hand."""
        if self.trajectory is not None and self.keeps_step():
            self.trajectory.write(self.step, weights)

    def end_epoch(self, train_loss: float, train_accuracy: float, test_loss: float, test_accuracy: float) -> None:
        """Add the epoch's row, and keep its checkpoint if the config asks for it."""
        epoch = math.ceil(self.step / self.steps_per_epoch)
        row = {
            "epoch": epoch,
            "step": self.step,
            "train_loss": train_loss,  # mean over the epoch, as it went
            "train_accuracy": train_accuracy,
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
            "seconds": round(self.seconds, 3),
        }
        with explained(self.rule, "backward_weights"):
            pairs = self.rule.backward_weights(self.twin)
        for layer, pair in pairs.items():
            agreement = alignment(*pair)
            row[f"angle_{layer}"] = agreement.row_angle
            row[f"flat_angle_{layer}"] = agreement.flat_angle
            row[f"norm_ratio_{layer}"] = agreement.norm_ratio
        if self.config.gradient_alignment:
            row.update(self.gradient_alignment())
        self.rows.append(row)
        if self.on_epoch is not None:
            self.on_epoch(self.run, self.rows)
        every = self.config.checkpoint_every
        if every and epoch >= 0 and (epoch % every == 0 or epoch == self.config.epochs):
            save_checkpoint(self.checkpoint(epoch), self.run.epoch_checkpoint(epoch))

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
            metrics={**metrics, "diverged": self.diverged_step is not None},
            rule_origin=origin(self.config.rule, type(self.rule)),
        )

    def state(self) -> dict[str, Any]:
        """Return this part of a resume point."""
        if self.trajectory is not None:
            self.trajectory.flush()  # before the resume point that relies on the rows is written
        return {
            # A copy: a network of a stack is a view, which would drag the whole stack into the file.
            "tensors": {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.tensors().items()},
            "step": self.step,
            "seconds": self.seconds,
            "diverged_step": self.diverged_step,
            "rows": self.rows,
            "trajectory": None if self.trajectory is None else self.trajectory.state(),
            **({} if self.monitoring is None else {"monitoring": self.monitoring.state()}),
        }

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a resume point."""
        for name, tensor in self.tensors().items():
            tensor.copy_(state["tensors"][name])
        self.step, self.seconds, self.rows = state["step"], state["seconds"], state["rows"]
        self.diverged_step = state["diverged_step"]
        if self.trajectory is not None:
            self.trajectory.restore(state["trajectory"])
        if self.monitoring is not None:
            self.monitoring.restore(state["monitoring"])

    def publish(self) -> None:
        """Write the metrics and the curvature so far."""
        self.run.write_metrics(self.rows)
        if self.monitoring is not None and self.monitoring.rows:
            self.run.write_curvature(self.monitoring.rows)

    def finish(self) -> None:
        """Write the final checkpoint and declare the run complete."""
        self.publish()
        if self.trajectory is not None:
            self.trajectory.finish(diverged_at=None if self.diverged_step is None else self.step)
        final = self.checkpoint(int(self.rows[-1]["epoch"]))
        save_checkpoint(final, self.run.checkpoint)
        diverged = self.diverged_step is not None
        summary: dict[str, Any] = {"key": final.config.key(final.data.digest), "epoch": final.epoch, "step": final.step}
        summary |= {"diverged": diverged, "seconds": self.seconds}
        if diverged:
            summary["diverged_step"] = self.diverged_step
        if self.monitoring is not None:
            summary["monitor"] = self.monitoring.summary()
        self.run.finish(summary)
