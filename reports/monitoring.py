"""What ``analyze train --monitor hessian`` measures of one network: a :class:`landscape.Monitor` of its true loss."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from landscape.monitor import Monitor
from landscape.stability import Stability, adam_preconditioner, adam_threshold, gradient_descent_threshold
from training.config import TrainConfig
from training.gradient_angles import rule_update
from training.losses import TrainingLoss
from training.rules.others import explained

if TYPE_CHECKING:
    from training.monitoring import Moments
    from training.network import Network


class HessianMonitor:
    """Measures the plain network on samples that are the same for every network of a data set, and the direction that
    its rule would move it in."""

    def __init__(self, network: "Network") -> None:
        config, data = network.config, network.data
        self.network = network
        samples = data.train.subset(min(config.monitor_samples, len(data.train)), 0)
        images, labels = next(samples.batches(len(samples)))  # where the labels are, though the split is streamed
        self.samples = replace(samples, images=images, labels=labels, mapped=False)
        self.normalise = data.normaliser()
        loss = TrainingLoss.of(config)
        self.monitor = Monitor(
            loss.criterion(),
            (self.samples.images, loss.targets(self.samples.labels, data.classes)),
            k=config.monitor_k,
            transform=self.normalise,
        )

    def measure(self, step: int, lr: float, moments: "Moments") -> dict[str, float]:
        """Return a row of ``curvature.csv``."""
        update = None if self.network.config.rule == "bp" else self._update
        record = self.monitor.measure(self.network.model, step=step, stability=self._edge(lr, moments), update=update)
        return record.row()

    def _edge(self, lr: float, moments: "Moments") -> Stability:
        """Return the edge of the optimiser of the run: the same for every rule, though only for ``bp`` it is that of
        steps down the gradient."""
        config = self.network.config
        if config.optimiser == "sgd":
            return Stability(lr=lr, threshold=gradient_descent_threshold(lr, config.momentum, nesterov=config.nesterov))
        names = [name for name, p in self.network.model.named_parameters() if p.requires_grad]
        known = all("exp_avg_sq" in moments[name] for name in names)
        return Stability(
            lr=lr,
            threshold=adam_threshold(lr, config.betas[0]),
            preconditioned=True,
            preconditioner=torch.cat([_flat_preconditioner(moments[name], config) for name in names])
            if known
            else None,
        )

    def _update(self) -> Tensor:
        network = self.network
        with explained(network.rule, "objective or gradients"):
            return rule_update(
                network.model, network.twin, network.rule, self.normalise(self.samples.images), self.samples.labels
            )

    def state(self) -> dict[str, Any]:
        """Return what a resume point must hold."""
        return self.monitor.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to it."""
        self.monitor.load_state_dict(state)


def _flat_preconditioner(moment: dict[str, Tensor], config: TrainConfig) -> Tensor:
    betas = config.betas[0], config.betas[1]
    return adam_preconditioner(moment["exp_avg_sq"], float(moment["step"]), betas).reshape(-1)
