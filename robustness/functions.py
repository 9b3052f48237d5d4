"""Attacks of a user's own: any function that changes images, on the same curves as ours."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from alignscape.errors import InputError
from alignscape.seeding import kept_streams
from robustness.attacks import Batch, Perturber, SingleAttack, one_eps_at_a_time

OPTIONS = ("norm", "seed", "steps", "loss", "gradient_model")


@dataclass(frozen=True, kw_only=True)
class FunctionAttack(SingleAttack):
    """An attack that is a function ``f(model, images, labels, eps, ...) -> images``.

    ``model`` gives logits (N, C) from pixels in [0, 1], ``images`` are floats (N, ...), ``labels`` int64 (N,), ``eps``
    a float in pixel units. Of ``norm``, ``seed``, ``steps``, ``loss`` and ``gradient_model`` it is given those that it
    has as parameters. An attribute ``needs_gradient = False`` of the function says that it follows no gradient. Images
    that leave the ball or [0, 1] fool nobody: the curve counts them as rejected.

    Attributes:
        function: the attack.
        name: what the tables call it.
        norm: ``linf`` or ``l2``, of the ball.
        steps: handed on to a function that takes it, of which None leaves the default; 1 for another.
        loss: handed on to a function that takes it; ``its own`` for another.
        restarts: 1: a function that starts anew does so itself.

    Raises:
        InputError: something that is no function of (model, images, labels, eps), or that needs more.

    Example:
        >>> import torch
        >>> from robustness import FunctionAttack, attack_curve
        >>> darken = lambda model, images, labels, eps: (images - eps).clamp(0, 1)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1, 2))
        >>> with torch.no_grad():
        ...     _ = model[1].weight.copy_(torch.tensor([[-1.0], [1.0]])), model[1].bias.copy_(torch.tensor([0.5, -0.5]))
        >>> attack = FunctionAttack(function=darken, name="darken")
        >>> attack_curve(model, torch.tensor([[0.6]]), torch.tensor([1]), [0, 0.05, 0.2], attack).fooled.tolist()
        [[False], [False], [True]]
    """

    function: Callable[..., Tensor] = field(repr=False)
    name: str
    norm: str = "linf"
    steps: Any = None
    loss: str = "its own"
    restarts: int = 1

    def __post_init__(self) -> None:
        if not callable(self.function) or isinstance(self.function, type):
            kind = "a class" if isinstance(self.function, type) else type(self.function).__name__
            raise InputError(f"the attack {self.name} is no function, but {kind}")
        try:
            inspect.signature(self.function).bind(None, None, None, 0.0, **self._options(None))
        except (TypeError, ValueError) as error:
            raise InputError(f"the attack {self.name} must take (model, images, labels, eps): {error}") from error
        if self.steps is None or "steps" not in self._parameters():
            object.__setattr__(self, "steps", self._default_steps())
        if "loss" not in self._parameters():
            object.__setattr__(self, "loss", "its own")

    @property
    def needs_gradient(self) -> bool:
        return bool(getattr(self.function, "needs_gradient", True))

    def _parameters(self) -> dict[str, inspect.Parameter]:
        return dict(inspect.signature(self.function).parameters)

    def _default_steps(self) -> int:
        default = self._parameters()["steps"].default if "steps" in self._parameters() else 1
        return default if isinstance(default, int) else 1

    def _options(self, batch: Batch | None) -> dict[str, Any]:
        """Return what the function wants beside its four arguments."""
        values: dict[str, Any] = {"norm": self.norm, "seed": 0 if batch is None else batch.seed, "steps": self.steps}
        values |= {"loss": self.loss, "gradient_model": None if batch is None else batch.gradient_model}
        unset = {name for name in ("steps", "loss") if values[name] in (None, "its own")}
        return {name: values[name] for name in OPTIONS if name in self._parameters() and name not in unset}

    def on(self, batch: Batch, *, restart: int, stop_when_fooled: bool) -> Perturber:
        """Return the perturber.

        Raises:
            InputError: the function fails, returns something else than images of this shape, or cannot follow the
                gradient of another model.
        """
        if batch.gradient_model is not batch.model and "gradient_model" not in self._parameters():
            raise InputError(f"{self.name} follows the model it attacks: it has no parameter gradient_model")

        def perturber(eps: float, chosen: Tensor) -> Tensor:
            images, labels = batch.images[chosen], batch.labels[chosen]
            try:
                with kept_streams(images.device), torch.enable_grad():
                    torch.manual_seed(batch.seed)
                    found = self.function(batch.model, images.clone(), labels, eps, **self._options(batch))
            except InputError:
                raise
            except Exception as error:  # whatever the user's own code raises becomes one line that names it
                text = next(iter(str(error).splitlines()), "")
                raise InputError(f"the attack {self.name}: {type(error).__name__}: {text}") from error
            if not isinstance(found, Tensor) or found.shape != images.shape:
                raise InputError(f"the attack {self.name} must return images of shape {tuple(images.shape)}")
            return found.detach().to(images)

        return one_eps_at_a_time(perturber)
