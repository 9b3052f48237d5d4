"""The monitor as a callback of Lightning and of Hugging Face's ``Trainer``; neither is imported before it is used."""

import importlib
from typing import TYPE_CHECKING, Any

from alignscape.errors import InputError

if TYPE_CHECKING:
    from landscape.monitor import Curvature, Monitor


def lightning_callback(monitor: "Monitor") -> Any:
    """Return a ``lightning.pytorch.Callback`` that measures with ``monitor`` after steps of the optimiser.

    What it finds goes to the trainer's loggers (``curvature/eigenvalue`` and so on), and is part of Lightning's
    checkpoints as far as the monitor needs it to go on. The optimiser is the trainer's first, unless the monitor has
    one; samples are the monitor's, or the first batch. Under several processes the first one measures, by its own
    model and samples.

    Args:
        monitor: whose ``records`` fill.

    Raises:
        InputError: the package ``lightning`` (or ``pytorch_lightning``) is missing.

    Example:
        >>> import torch
        >>> from landscape import Monitor, lightning_callback
        >>> monitor = Monitor(torch.nn.MSELoss(), every=100)
        >>> # lightning.Trainer(callbacks=[lightning_callback(monitor)]).fit(module, loader)
    """
    base = _imported(("lightning.pytorch", "pytorch_lightning"), "Callback", "lightning")

    def on_train_batch_end(
        self: Any, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *more: Any
    ) -> None:
        if not trainer.is_global_zero or trainer.global_step == self.step:  # gradients that are still being gathered
            return
        self.step = trainer.global_step
        _adopt(monitor, trainer.optimizers[0] if trainer.optimizers else None)
        if (record := monitor.step(pl_module, batch, step=self.step)) is not None:
            for logger in trainer.loggers:
                logger.log_metrics(_scalars(record), step=self.step)

    hooks = {
        "step": 0,
        "on_train_batch_end": on_train_batch_end,
        "state_dict": lambda self: monitor.state_dict(),
        "load_state_dict": lambda self, state: monitor.load_state_dict(state),
    }
    return type("CurvatureCallback", (base,), hooks)()


def trainer_callback(monitor: "Monitor") -> Any:
    """Return a ``transformers.TrainerCallback`` that measures with ``monitor`` after steps of the optimiser.

    What it finds goes into ``trainer.state.log_history`` (``curvature/eigenvalue`` and so on). The ``Trainer`` shows
    its callbacks no batches, so the monitor needs ``data``: with a loss that the model computes itself,
    ``Monitor(lambda outputs, batch: outputs["loss"], data=batch)`` where ``batch`` is a mapping of tensors that has the
    labels. With several processes the first one measures.

    Args:
        monitor: whose ``records`` fill.

    Raises:
        InputError: the package ``transformers`` is missing; the monitor has no data.

    Example:
        >>> import torch
        >>> from landscape import Monitor, trainer_callback
        >>> batch = {"input_ids": torch.tensor([[1, 2]]), "labels": torch.tensor([[1, 2]])}
        >>> monitor = Monitor(lambda outputs, batch: outputs["loss"], batch, every=100)
        >>> # transformers.Trainer(model, args, callbacks=[trainer_callback(monitor)]).train()
    """
    if monitor.data is None:
        raise InputError("the Trainer shows its callbacks no batches: give the monitor data, one collated batch say")
    base = _imported(("transformers",), "TrainerCallback", "hf")

    def on_step_end(self: Any, args: Any, state: Any, control: Any, **given: Any) -> None:
        if not state.is_world_process_zero:
            return
        _adopt(monitor, given.get("optimizer"))
        if (record := monitor.step(given["model"], step=state.global_step)) is not None:
            state.log_history.append({**_scalars(record), "step": state.global_step})

    return type("CurvatureCallback", (base,), {"on_step_end": on_step_end})()


def _imported(modules: tuple[str, ...], name: str, extra: str) -> Any:
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except ImportError:
            continue
    raise InputError(f"this callback needs the package {modules[0]}: pip install 'alignscape[{extra}]'")


def _adopt(monitor: "Monitor", optimiser: Any) -> None:
    """Take the trainer's optimiser, from inside of what Lightning and Accelerate wrap it in."""
    if monitor.optimiser is None and optimiser is not None:
        for _ in range(3):
            optimiser = getattr(optimiser, "optimizer", optimiser)
        monitor.optimiser = optimiser


def _scalars(record: "Curvature") -> dict[str, float]:
    """Return what loggers take: the row without what is missing."""
    row = record.row()
    return {f"curvature/{name}": float(value) for name, value in row.items() if value == value and name != "step"}
