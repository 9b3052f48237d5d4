"""One network of a run in memory: its rule, its weights, its metrics so far, and the folder they go to."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
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
        self.best: Checkpoint | None = None  # by what is held out
        self.is_stopped = False
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
        images, labels = next(split.batches(len(split)))  # where the labels are, though the split is streamed
        probe = self.data.normaliser()(images), labels
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

    @property
    def has_ended(self) -> bool:
        """Whether it takes no more steps: it has diverged, or waited long enough for a better epoch."""
        return self.diverged_step is not None or self.is_stopped

    def end_epoch(
        self, train_loss: float, train_accuracy: float, test_loss: float, test_accuracy: float, *validation: float
    ) -> None:
        """Add the epoch's row, with loss and accuracy on what is held out if anything is, and keep its checkpoint if
        the config asks for it or it is the best so far."""
        epoch = math.ceil(self.step / self.steps_per_epoch)
        row = {
            "epoch": epoch,
            "step": self.step,
            "train_loss": train_loss,  # mean over the epoch, as it went
            "train_accuracy": train_accuracy,
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
            **dict(zip(("validation_loss", "validation_accuracy"), validation, strict=False)),
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
        if validation and epoch >= 0:
            self._compare(epoch)

    def _compare(self, epoch: int) -> None:
        """Keep the network if it is the best so far, the first of equals; stop if none has been for long."""
        name = f"validation_{self.config.best_by}"
        value, before = self.rows[-1][name], None if self.best is None else self.best.metrics[name]
        is_better = before is None or (value < before if self.config.best_by == "loss" else value > before)
        if math.isfinite(value) and is_better:
            now = self.checkpoint(epoch)
            self.best = replace(now, model=_copies(now.model), feedback=_copies(now.feedback))
        since = epoch - (0 if self.best is None else self.best.epoch)
        self.is_stopped = 0 < self.config.patience <= since and epoch < self.config.epochs

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
            "tensors": _copies(self.tensors()),
            "step": self.step,
            "seconds": self.seconds,
            "diverged_step": self.diverged_step,
            "rows": self.rows,
            "trajectory": None if self.trajectory is None else self.trajectory.state(),
            **({} if self.monitoring is None else {"monitoring": self.monitoring.state()}),
            **({"is_stopped": self.is_stopped, "best": self._best_state()} if self.config.validation else {}),
        }

    def _best_state(self) -> dict[str, Any] | None:
        names = ("model", "feedback", "epoch", "step", "metrics")
        return None if self.best is None else {name: getattr(self.best, name) for name in names}

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
        if self.config.validation:
            self.is_stopped = state["is_stopped"]
            best = state["best"]
            self.best = None if best is None else replace(self.checkpoint(0), **best)

    def publish(self) -> None:
        """Write the metrics and the curvature so far."""
        self.run.write_metrics(self.rows)
        if self.monitoring is not None and self.monitoring.rows:
            self.run.write_curvature(self.monitoring.rows)
        if self.best is not None:
            save_checkpoint(self.best, self.run.best_checkpoint)

    def finish(self) -> None:
        """Write the final checkpoint and declare the run complete."""
        self.publish()
        if self.trajectory is not None:
            ended = "diverged_at" if self.diverged_step is not None else "stopped_at" if self.is_stopped else None
            self.trajectory.finish(**{} if ended is None else {ended: self.step})
        final = self.checkpoint(int(self.rows[-1]["epoch"]))
        save_checkpoint(final, self.run.checkpoint)
        diverged = self.diverged_step is not None
        summary: dict[str, Any] = {"key": final.config.key(final.data.digest), "epoch": final.epoch, "step": final.step}
        summary |= {"diverged": diverged, "seconds": self.seconds}
        if diverged:
            summary["diverged_step"] = self.diverged_step
        if self.config.validation:
            summary |= {"stopped": self.is_stopped, "best": self._summary_of_best()}
        if self.monitoring is not None:
            summary["monitor"] = self.monitoring.summary()
        self.run.finish(summary)

    def _summary_of_best(self) -> dict[str, float] | None:
        """Return the epoch that was best, with loss and accuracy there; None if none had finite numbers."""
        if self.best is None:
            return None
        names = [f"{of}_{what}" for of in ("validation", "test") for what in ("loss", "accuracy")]
        return {"epoch": self.best.epoch, "step": self.best.step, **{name: self.best.metrics[name] for name in names}}


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies on the CPU, of tensors that training goes on in."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
