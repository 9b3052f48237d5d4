"""Many networks of one architecture as one: a leading network axis on every parameter and buffer.

The forward pass is ``torch.func.vmap`` over the networks, each with its own mini-batches; one backward pass outside
gives each its own gradient, because the sum of their objectives has no term with two networks in it. A stack of one is
the ordinary pass, without the axis: a run alone and a run in a stack are the same code but for that.
"""

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from alignscape.device import synchronise
from alignscape.errors import InputError
from alignscape.seeding import derive_seed, generator, kept_streams
from training.augmentation import Augmentation
from training.captured import CapturedStep, recorder_for
from training.clipping import Clipping
from training.data import Dataset, Normalise, Split
from training.evaluation import StackEvaluation, evaluate
from training.losses import TrainingLoss
from training.memory import samples_at_once
from training.network import Network
from training.optimiser import StackOptimiser
from training.precision import autocast, products
from training.recordable import modules_of
from training.rules import Rule, Step
from training.rules.others import explained, is_ours
from training.rules.wrapping import decayed
from training.shared_rule import differing, shared_rule, unlike
from training.stacked_layers import StackedLayers


class Stack:
    """Networks at the same step, and what moves them: E = ``len(networks)``, n samples in the train split."""

    def __init__(self, networks: Sequence[Network], data: Dataset) -> None:
        self.networks = list(networks)
        self.data = data
        self.device = data.train.labels.device
        self.normalise = Normalise(data.mean, data.std).to(self.device)
        first = networks[0]
        self.config, self.twin = first.config, first.twin
        self.stacked = len(networks) > 1
        self.loss = TrainingLoss.of(self.config)
        differences = differing([network.config for network in networks])
        self.rule = shared_rule(first.rule, differences) if self.stacked else first.rule
        self.tensors = self._join()
        self.parameters = {name: self.tensors[name] for name, p in self.twin.named_parameters() if p.requires_grad}
        self.objective, self.mover = Objective(self.rule, self.twin), Mover(self.rule, self.twin)
        self.recorder = recorder_for(self.device)
        # Feedback moves within the step where that is recorded, for all networks at once; elsewhere network by network,
        # which gives the bits of a run alone.
        self._moves_inside = self.recorder is not None and self.rule.moves_by_tensors()
        own = [name for name, _ in first.model.named_parameters()]
        self._clip = Clipping([network.config for network in networks], own, self.device)
        self._labels: list[str] = []  # of what the rule draws for one network
        self.start_optimiser()
        self.sums = Sums.zero(len(networks), self.device)
        self._orders: dict[int, Tensor] = {}  # by epoch
        size = data.input_shape[1:]
        self._augmentation = None if self.config.augment == "none" else Augmentation(self.config.augment, size)
        self._views: dict[int, Tensor] = {}
        self._evaluation = self._stacked_evaluation(data.test) if self.stacked else None
        held = data.validation
        self._validation = self._stacked_evaluation(held) if self.stacked and held is not None else None

    def start_optimiser(self) -> None:
        """Begin with an optimiser that remembers nothing, and a step to record."""
        configs = [network.config for network in self.networks]
        recorded = self.recorder is not None
        self.optimiser = StackOptimiser(configs, self.parameters, decayed(self.twin), recorded=recorded)
        self._step = CapturedStep(
            self._body,
            self.recorder,
            moving=self._moving,
            keepers=(self.rule, *modules_of(self.twin)),
            what=f"the step of {self.config.model} with {self.config.rule}",
        )

    def _moving(self) -> Iterator[Tensor]:
        """Yield all tensors that a step changes."""
        yield from self.tensors.values()
        yield from self.optimiser.moving()
        yield from (self.sums.loss, self.sums.correct, self.sums.bad_step, self.sums.step)

    def _stacked_evaluation(self, split: Split) -> StackEvaluation:
        model = self.networks[0].model
        plain = {name: self.tensors[name] for name, _ in (*model.named_parameters(), *model.named_buffers())}
        samples = samples_at_once(self.networks[0].layers)
        return StackEvaluation(model, plain, self.normalise, split, samples, self.recorder, self.loss)

    @property
    def step(self) -> int:
        """Steps taken; below 0 while the networks learn from noise."""
        return self.networks[0].step

    def _join(self) -> dict[str, Tensor]:
        """Return parameters and buffers by name, (E, ...), of which the networks' own become views."""
        own = [network.tensors() for network in self.networks]
        if not self.stacked:
            for tensor in own[0].values():
                if tensor.untyped_storage().nbytes() > tensor.nbytes:  # the last one of a stack lets go of it
                    tensor.data = tensor.data.clone()
            return own[0]
        trained = {name for name, p in self.twin.named_parameters() if p.requires_grad}
        stacked: dict[str, Tensor] = {}
        for name in own[0]:
            stacked[name] = torch.stack([tensors[name].detach() for tensors in own]).requires_grad_(name in trained)
            for e, tensors in enumerate(own):
                tensors[name].data = stacked[name].detach()[e]
        return stacked

    def begin(self) -> None:
        """Let the rule of each network prepare its feedback, before the first step of a run."""
        for network in self.networks:
            network.begin()
        self._share_what_moved("before_training")

    def train_step(self, epoch: int, index: int) -> None:
        """Take the step on the mini-batch ``index`` of ``epoch``, both counted from 0; in an epoch below 0 on noise."""
        start = index * self.config.batch_size
        size = min(self.config.batch_size, len(self.data.train) - start)
        noise = self._noise(size) if epoch < 0 else None
        batch = self.order(max(epoch, 0))[:, start : start + size]  # (E, N)
        views = [] if noise is not None else self._views_of(batch, epoch)
        drawn = self._drawn(size) if self._moves_inside else []
        if not self._moves_inside:
            self._move_apart(batch, views, noise)
        if epoch >= 0:
            self.optimiser.set_step(self.step, self.networks[0].steps_per_epoch)
        with self._randomness():
            if noise is not None:
                self._learn(*(noise if self.stacked else (noise[0][0], noise[1][0])), *drawn)
            else:
                chosen = [batch, *views]
                self._step(*(chosen if self.stacked else [one[0] for one in chosen]), *drawn)
        for network in self.networks:
            network.step += 1

    def _drawn(self, size: int) -> list[Tensor]:
        """Return what each network's rule draws for the step on so many samples, one network after another."""
        drawn: list[Tensor] = []
        for network in self.networks:
            with explained(network.rule, "draws"):
                own = network.rule.draws(network.twin, network.step, size)
                drawn += [draw() for draw in own.values()]
            self._labels = list(own)
        return drawn

    def _move(self, inputs: Tensor, labels: Tensor, drawn: Sequence[Tensor]) -> None:
        """Move the feedback of all networks by what :meth:`_drawn` gave."""
        count = len(self._labels)
        with explained(self.rule, "move"):
            if not self.stacked:
                self.rule.move(self.twin, dict(zip(self._labels, drawn, strict=True)), inputs, labels)
                return
            by_label = {label: torch.stack(list(drawn[k::count])) for k, label in enumerate(self._labels)}
            own = {f"twin.{name}": tensor for name, tensor in self.tensors.items()}
            vmap(lambda *one: functional_call(self.mover, one[0], one[1:]))(own, by_label, inputs, labels)

    def _move_apart(self, batch: Tensor, views: Sequence[Tensor], noise: tuple[Tensor, Tensor] | None) -> None:
        """Move feedback network by network, before the step on ``views`` of ``batch`` (E, N) or on ``noise``."""
        if self.rule.moves_feedback:
            for network in self.networks:
                with explained(network.rule, "before_step"):
                    network.rule.before_step(network.twin, network.step)
        if self.rule.reads_batch:
            for e, network in enumerate(self.networks):
                own = (
                    self._samples(batch[e], *(view[e] for view in views))
                    if noise is None
                    else (noise[0][e], noise[1][e])
                )
                with explained(network.rule, "before_batch"):
                    network.rule.before_batch(network.twin, network.step, *own)
        if self.rule.moves_feedback or self.rule.reads_batch:
            self._share_what_moved("before_batch" if self.rule.reads_batch else "before_step")

    def _share_what_moved(self, moved_by: str) -> None:
        """Let the shared rule see what the method ``moved_by`` has set on the rule of each network.

        Raises:
            InputError: it is not the same for all: only tensors of the twin are each network's own.
        """
        first = self.networks[0]
        if not self.stacked or is_ours(type(first.rule)):
            return
        vars(self.rule).update({name: value for name, value in vars(first.rule).items() if name != "config"})
        for network in self.networks[1:]:
            if what := unlike(first, network):
                raise InputError(
                    f"{moved_by} of rule {self.config.rule} sets {what} differently for the networks of a stack: keep "
                    "it in a buffer of the twin, or give --stack 1 (docs/adding-a-rule.md)"
                )

    def start_epoch(self, epoch: int) -> None:
        """Set the schedule of ``epoch``, and the training mode."""
        if self.optimiser.set_epoch(epoch):
            self._step.forget()
        self.twin.train()

    def order(self, epoch: int) -> Tensor:
        """Return the order of the samples in ``epoch`` (E, n), each network's a function of its seed: drawn on the CPU,
        and so the same on every device."""
        if epoch not in self._orders:
            n = len(self.data.train)
            # Pinned, so that a GPU fetches them when it gets there and nobody waits.
            rows = torch.empty(len(self.networks), n, dtype=torch.int64, pin_memory=self.device.type == "cuda")
            for row, network in zip(rows, self.networks, strict=True):
                torch.randperm(n, generator=generator(network.config.seed, "order", epoch), out=row)
            self._orders = {e: order for e, order in self._orders.items() if e + 1 == epoch}
            self._orders[epoch] = rows.to(self.device, non_blocking=True)
        return self._orders[epoch]

    def prepare(self, epoch: int) -> None:
        """Draw what ``epoch`` needs of chance, while a GPU is still at work on the one before."""
        self.order(epoch)
        if self._augmentation is not None:
            self._all_views(self._augmentation, epoch)

    def _views_of(self, batch: Tensor, epoch: int) -> list[Tensor]:
        """Return the views (E, N, 5) that networks see of the samples ``batch`` (E, N), in a list; none if they see the
        images as they are."""
        if self._augmentation is None:
            return []
        return [torch.take_along_dim(self._all_views(self._augmentation, epoch), batch[..., None], 1)]

    def _all_views(self, augmentation: Augmentation, epoch: int) -> Tensor:
        """Return the view of each sample in ``epoch`` (E, n, 5), each network's a function of its seed: drawn on the
        CPU, as :meth:`order` is."""
        if epoch not in self._views:
            random = [generator(network.config.seed, "augmentation", epoch) for network in self.networks]
            views = torch.stack([augmentation.draw(len(self.data.train), one) for one in random])
            self._views = {e: view for e, view in self._views.items() if e + 1 == epoch}
            self._views[epoch] = views.to(self.device, non_blocking=True)
        return self._views[epoch]

    @contextlib.contextmanager
    def _randomness(self) -> Any:
        """Make dropout, which draws from torch's global stream, a function of (seed, step) like all else."""
        if self.networks[0].apart is None:
            yield
            return
        with kept_streams(self.device):
            torch.manual_seed(derive_seed(self.config.seed, "dropout", self.step))
            yield

    def _body(self, batch: Tensor, *drawn: Tensor) -> None:
        """One step on the samples ``batch`` (E, N), or (N,) for a run alone; where images are augmented, their views
        come first of what was ``drawn``. Reads nothing on the host."""
        views = int(self._augmentation is not None)
        self._learn(*self._samples(batch, *drawn[:views]), *drawn[views:])

    def _learn(self, inputs: Tensor, labels: Tensor, *drawn: Tensor) -> None:
        """One step on normalised ``inputs`` (E, N, C, H, W) and ``labels`` (E, N), without E for a run alone, after the
        feedback has moved by what was ``drawn``."""
        if self._moves_inside:
            self._move(inputs, labels, drawn)
        with autocast(self.config.precision, self.device), explained(self.rule, "objective"):
            step = self._evaluate(inputs, labels)
        with explained(self.rule, "gradients"):
            gradients = self.rule.gradients(self.parameters, step)
        self.optimiser.step(self._clip(gradients))
        self.sums.add(step.loss.detach(), (step.logits.detach().argmax(-1) == labels).sum(-1), labels.shape[-1])

    def _noise(self, size: int) -> tuple[Tensor, Tensor]:
        """Return inputs (E, size, C, H, W) ~ N(0, 1) and labels (E, size), each class as likely: what networks learn
        from before they see data (Cheon, Lee and Paik 2024). Each network's are a function of its seed and the step."""
        inputs, labels = [], []
        for network in self.networks:
            random = generator(network.config.seed, "noise epochs", self.step, device=self.device)
            inputs.append(torch.randn(size, *self.data.input_shape, generator=random, device=self.device))
            labels.append(torch.randint(self.data.classes, (size,), generator=random, device=self.device))
        return torch.stack(inputs), torch.stack(labels)

    def _samples(self, batch: Tensor, views: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return normalised inputs and labels of the samples ``batch``, of any shape, in these ``views`` (..., 5)."""
        images = self.data.train.images[batch]
        if self._augmentation is not None and views is not None:
            images = self._augmentation(images, views)
        return self.normalise(images), self.data.train.labels[batch]

    def _evaluate(self, inputs: Tensor, labels: Tensor) -> Step:
        if not self.stacked:
            return self.rule.objective(self.twin, inputs, labels)
        tensors = {f"twin.{name}": tensor for name, tensor in self.tensors.items()}
        with StackedLayers():
            return vmap(lambda own, x, y: functional_call(self.objective, own, (x, y)))(tensors, inputs, labels)

    def measure(self) -> float:
        """Measure the curvature of every network, if it is time; return the seconds that it took."""
        watched = [network.monitoring for network in self.networks if network.monitoring is not None]
        pace = watched[0].pace
        for one in watched[1:]:  # they share the time
            one.pace = pace
        if not pace.due(self.step):
            return 0.0
        synchronise(self.device)
        before = pace.spent
        with pace.measuring(), products("fp32"):
            for e, one in enumerate(watched):
                one.measure(self.step, self.optimiser.state(e))
        return pace.spent - before

    def evaluate(self) -> list[tuple[float, float]]:
        """Return loss and accuracy of each network on the test split."""
        if self._evaluation is not None:
            return self._evaluation()
        return [evaluate(self.networks[0].model, self.normalise, self.data.test, loss=self.loss)]

    def validate(self) -> list[tuple[float, ...]]:
        """Return loss and accuracy of each network on the samples that are held out, nothing if there are none."""
        if self.data.validation is None:
            return [()] * len(self.networks)
        if self._validation is not None:
            return list(self._validation())
        return [evaluate(self.networks[0].model, self.normalise, self.data.validation, loss=self.loss)]

    def states(self) -> Iterator[dict[str, Any]]:
        """Yield a resume point for each network, on the CPU; it fits any stack the network may be in next."""
        for e, (network, sums) in enumerate(zip(self.networks, self.sums.rows(), strict=True)):
            yield {**network.state(), "optimiser": self.optimiser.state(e), "sums": sums}

    def restore(self, states: Sequence[dict[str, Any]]) -> None:
        """Go back to resume points, one for each network, all of one step."""
        for network, state in zip(self.networks, states, strict=True):
            network.restore(state)
        self.optimiser.restore([state["optimiser"] for state in states])
        taken = self.step - self.networks[0].first_step
        self.sums = Sums.of([state["sums"] for state in states], taken, self.device)

    def without(self, leaving: Sequence[Network]) -> "Stack":
        """Return the stack of the networks that stay, where they stand."""
        staying = [network for network in self.networks if network not in leaving]
        states = [s for network, s in zip(self.networks, self.states(), strict=True) if network in staying]
        self.release()
        rest = Stack(staying, self.data)
        rest.restore(states)
        return rest

    def release(self) -> None:
        """Let go of recordings, each of which keeps all the memory of its step."""
        self._step.forget()
        if self._evaluation is not None:
            self._evaluation.forget()
        if self._validation is not None:
            self._validation.forget()

    def after_step(self) -> None:
        """Keep what is kept of single steps."""
        keeping = [network.keeps_step() for network in self.networks]
        if self.stacked and all(keeping):  # one row for each network at once
            names = [name for name, p in self.networks[0].model.named_parameters() if p.requires_grad]
            for network, row in zip(self.networks, self._rows(names), strict=True):
                network.after_step(row)
            return
        for network in itertools.compress(self.networks, keeping):
            network.after_step()

    def _rows(self, names: Sequence[str]) -> Tensor:
        """Return the parameters ``names`` of each network side by side (E, P)."""
        return torch.cat([self.tensors[name].detach().flatten(1) for name in names], 1)


class Objective(nn.Module):
    """A rule's objective as a module, so that ``functional_call`` can put other weights under it."""

    def __init__(self, rule: Rule, twin: nn.Module) -> None:
        super().__init__()
        self.rule = rule
        self.twin = twin

    def forward(self, inputs: Tensor, labels: Tensor) -> Step:
        return self.rule.objective(self.twin, inputs, labels)


class Mover(nn.Module):
    """How a rule moves feedback, as a module: see :class:`Objective`."""

    def __init__(self, rule: Rule, twin: nn.Module) -> None:
        super().__init__()
        self.rule = rule
        self.twin = twin

    def forward(self, drawn: Mapping[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
        self.rule.move(self.twin, drawn, inputs, labels)
        return labels  # ``vmap`` wants something back


@dataclass
class Sums:
    """Sums over an epoch so far, (E,) each, on the device: reading them every step would make a GPU wait."""

    loss: Tensor  # of the samples
    correct: Tensor
    bad_step: Tensor  # the first step whose loss was not finite; -1 if there was none
    step: Tensor  # steps since the start of training, ()

    @classmethod
    def zero(cls, size: int, device: torch.device) -> "Sums":
        """Sums of nothing yet."""
        return cls.of([{"loss": 0.0, "correct": 0, "bad_step": -1}] * size, 0, device)

    @classmethod
    def of(cls, rows: Sequence[dict[str, float]], step: int, device: torch.device) -> "Sums":
        """Undo :meth:`rows`."""
        return cls(
            loss=torch.tensor([row["loss"] for row in rows], dtype=torch.float64, device=device),
            correct=torch.tensor([row["correct"] for row in rows], dtype=torch.int64, device=device),
            bad_step=torch.tensor([row["bad_step"] for row in rows], dtype=torch.int64, device=device),
            step=torch.tensor(step, dtype=torch.int64, device=device),
        )

    def add(self, loss: Tensor, correct: Tensor, samples: int) -> None:
        """Count a step: mean ``loss`` and number ``correct``, (E,) or () for one network, of so many samples."""
        self.step += 1
        self.loss += loss * samples
        self.correct += correct
        first_bad = ~loss.isfinite() & (self.bad_step < 0)
        self.bad_step.copy_(torch.where(first_bad, self.step, self.bad_step))

    def rows(self) -> list[dict[str, float]]:
        """Return them as numbers, one dictionary for each network."""
        columns = zip(self.loss.tolist(), self.correct.tolist(), self.bad_step.tolist(), strict=True)
        return [{"loss": loss, "correct": correct, "bad_step": bad} for loss, correct, bad in columns]

    def start_epoch(self) -> None:
        """Forget the epoch's loss and correct answers, but no bad step."""
        self.loss.zero_()
        self.correct.zero_()
