"""Attacks of torchattacks (the ``peers`` extra), run and judged like ours."""

import importlib
import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alignscape.errors import InputError
from alignscape.seeding import kept_streams
from robustness.attacks import Batch, Perturber, SingleAttack, one_eps_at_a_time

GRADIENT_FREE = ("GN", "OnePixel", "Pixle", "SPSA", "Square")
ONE_STEP = ("FFGSM", "FGSM", "GN", "VANILA")
EPS, STEPS = ("eps", "max_epsilon"), ("steps", "n_queries", "nb_iter", "max_iterations")


@dataclass(frozen=True, kw_only=True)
class TorchattacksAttack(SingleAttack):
    """The attack ``torchattacks.NAME``: its own defaults but for eps, the norm, and the steps where given.

    Attacks that seek the smallest perturbation and have no eps (CW, DeepFool) run once; an image counts from the
    eps that its perturbation lies within.

    Attributes:
        attack: the class's name in torchattacks.
        norm: ``linf`` or ``l2``, one that the attack bounds.
        iterations: its number of steps or queries; its own default if None.
        loss: ``its own``, for the tables.
        restarts: how often to run it.

    Raises:
        InputError: torchattacks is not installed, has no such attack (the message lists those it has), or the
            attack does not bound the norm, needs more than a model, or has no number of steps to set.

    Example:
        >>> import torch
        >>> from robustness import TorchattacksAttack, attack_curve
        >>> same = torch.nn.Linear(3, 3, bias=False).requires_grad_(False)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), same)  # three pixels; the brightest is the class
        >>> _ = same.weight.copy_(torch.eye(3))
        >>> images = torch.tensor([[0.6, 0.4, 0.0], [0.2, 0.8, 0.0]]).reshape(2, 1, 1, 3)
        >>> labels = torch.tensor([0, 1])
        >>> attack = TorchattacksAttack(attack="MIFGSM", iterations=20)
        >>> attack_curve(model, images, labels, [0.09, 0.15], attack).frame()[["attack", "eps", "accuracy"]]
                        attack   eps  accuracy
        0  torchattacks:MIFGSM  0.09       1.0
        1  torchattacks:MIFGSM  0.15       0.5
    """

    attack: str
    norm: str = "linf"
    iterations: int | None = None
    loss: str = "its own"
    restarts: int = 1

    def __post_init__(self) -> None:
        parameters = self._parameters()
        if missing := [name for name, p in parameters.items() if p.default is p.empty]:
            raise InputError(f"{self.name} cannot be run from here: it needs {', '.join(missing)}")
        text = inspect.getdoc(self._class()) or ""
        measure = text.partition("Distance Measure")[2].partition("\n")[0].strip(" :")
        if measure and self.norm not in measure.lower():
            raise InputError(f"{self.name} bounds {measure}, not {self.norm}; choose another --norm or attack")
        if self.iterations is not None and self._named(STEPS) is None:
            raise InputError(f"{self.name} has no number of steps to set")

    @property
    def name(self) -> str:
        return f"torchattacks:{self.attack}"

    @property
    def needs_gradient(self) -> bool:
        return self.attack not in GRADIENT_FREE

    @property
    def steps(self) -> int | None:
        """What it was given, else its default; None of one that does not say (AutoAttack runs four attacks)."""
        name = self._named(STEPS)
        if self.iterations is not None:
            return self.iterations
        if name is None:
            return 1 if self.attack in ONE_STEP else None
        return int(self._parameters()[name].default)

    def on(self, batch: Batch, *, restart: int, stop_when_fooled: bool) -> Perturber:
        """Return the perturber; whether an image stops once fooled is the attack's own affair.

        Raises:
            InputError: another model's gradient is to be followed.
        """
        if batch.gradient_model is not batch.model:
            raise InputError(f"{self.name} always follows the model it attacks; use fgsm, bim or pgd for another")
        eps_name = self._named(EPS)
        once: list[Tensor] = []

        def perturber(eps: float, chosen: Tensor) -> Tensor:
            if eps_name is not None:
                return self._run(batch, chosen, {eps_name: eps})
            if not once:
                once.append(self._run(batch, torch.arange(len(batch.images)), {}))
            return once[0][chosen]

        return one_eps_at_a_time(perturber)

    def _run(self, batch: Batch, chosen: Tensor, options: dict[str, Any]) -> Tensor:
        images, parameters = batch.images[chosen], self._parameters()
        options = dict(options)
        if self.iterations is not None and (name := self._named(STEPS)) is not None:
            options[name] = self.iterations
        if "norm" in parameters:
            options["norm"] = {"linf": "Linf", "l2": "L2"}[self.norm]
        if "seed" in parameters:
            options["seed"] = batch.seed
        if "n_classes" in parameters:
            with torch.no_grad():
                options["n_classes"] = batch.model(images[:1]).shape[1]
        with _guarded(batch.model, batch.seed, images):
            return self._class()(batch.model, **options)(images, batch.labels[chosen]).detach()

    def _parameters(self) -> dict[str, inspect.Parameter]:
        parameters = inspect.signature(self._class().__init__).parameters
        return {name: p for name, p in parameters.items() if name not in ("self", "model")}

    def _named(self, names: tuple[str, ...]) -> str | None:
        """Return which of ``names`` the attack takes."""
        return next((name for name in names if name in self._parameters()), None)

    def _class(self) -> Any:
        try:
            torchattacks = importlib.import_module("torchattacks")
        except ImportError as error:
            raise InputError("torchattacks is not installed; pip install 'alignscape[peers]' brings it") from error
        found = getattr(torchattacks, self.attack, None)
        base = torchattacks.attack.Attack
        if not (inspect.isclass(found) and issubclass(found, base)):
            names = [n for n, c in vars(torchattacks).items() if inspect.isclass(c) and issubclass(c, base)]
            raise InputError(f"torchattacks has no attack {self.attack!r}; it has: {', '.join(sorted(names))}")
        return found


@contextmanager
def _guarded(model: nn.Module, seed: int, images: Tensor) -> Iterator[None]:
    """Keep a foreign attack from the global random state, our warnings and the parameters' gradients."""
    gradients = [(p, p.grad) for p in model.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        with kept_streams(images.device), warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            torch.manual_seed(seed)
            yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
