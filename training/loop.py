"""Training: configs and folders in, finished run folders out. No command line, no plotting."""

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignscape.device import describe_device
from alignscape.version import versions
from training.checkpoint import DataInfo
from training.clock import Clock
from training.config import TrainConfig
from training.data import Dataset, hold_out
from training.memory import require_room, require_room_for_snapshots, require_room_to_search
from training.network import Network, OnEpoch
from training.precision import products
from training.rules import find_rule, pinned
from training.rules.others import origin
from training.run_folder import RunFolder
from training.shared_rule import alike
from training.stack import Stack
from training.stack_size import Sizes, plan


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a progress display shows of the networks that train together; ``progress`` of :func:`train` gets it.

    Attributes:
        name: of the run folder, or of the first of several.
        networks: how many train together.
        finished: networks of the same call that were done before these.
        jobs: all networks of the call.
        step: finished steps, those on noise included.
        total_steps: of a run, likewise.
        epoch: finished epochs; below 0 on noise.
        metrics: means over the networks, of the last finished epoch; inside one, train_loss and train_accuracy so far.
        ends_epoch: whether an epoch has just ended.
        seconds_left: of the whole call, at the pace so far.
        seconds_each: that a network takes from start to end, at this pace.

    Example:
        >>> import tempfile
        >>> from training import TrainConfig, load_dataset, train
        >>> def show(standing):
        ...     if standing.ends_epoch:
        ...         print(f"{standing.name}: epoch {standing.epoch}, step {standing.step} of {standing.total_steps}")
        >>> config = TrainConfig(hidden=(16,), epochs=2, batch_size=50, train_size=200)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = train(config, load_dataset("digits", train_size=200), f"{folder}/bp", progress=show)
        bp: epoch 1, step 4 of 8
        bp: epoch 2, step 8 of 8
    """

    name: str
    networks: int
    finished: int
    jobs: int
    step: int
    total_steps: int
    epoch: int
    metrics: dict[str, float]
    ends_epoch: bool
    seconds_left: float
    seconds_each: float


Progress = Callable[[Standing], None]


def train(
    config: TrainConfig,
    data: Dataset,
    folder: str | Path,
    *,
    data_root: str | Path | None = None,
    progress: Progress | None = None,
) -> RunFolder:
    """Train ``config`` on ``data`` (on its device) in ``folder``, going on from a resume point if there is one.

    A complete run is left as it is. Killed at any time and called again, a run ends with the weights of an
    uninterrupted one: bit-identical on a CPU with the same number of threads, because the order of the data is a
    function of (seed, epoch) and everything else that moves is in the resume point. A loss that is not finite ends
    the run with its epoch; it records ``diverged`` and the step.

    Args:
        config: what defines the run.
        data: what it is trained and tested on, at best ``load_dataset(config.dataset, ...)``.
        folder: of the run; made if it is not there.
        data_root: where the data came from, for the record.
        progress: called about twice a second and after each epoch.

    Raises:
        InputError: unknown rule or model, a rule that cannot wrap the model, a folder of another run.

    Example:
        >>> import tempfile
        >>> from training import TrainConfig, load_checkpoint, load_dataset, train
        >>> config = TrainConfig(rule="fa", hidden=(32,), epochs=5, batch_size=20, lr=0.01, train_size=300)
        >>> data = load_dataset("digits", train_size=300)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     checkpoint = load_checkpoint(train(config, data, folder).checkpoint)
        >>> checkpoint.epoch, checkpoint.step, checkpoint.metrics["test_accuracy"] > 0.5
        (5, 75, True)
    """
    return train_many([(config, folder)], data, stack=1, data_root=data_root, progress=progress)[0]


def train_many(
    jobs: Sequence[tuple[TrainConfig, str | Path]],
    data: Dataset,
    *,
    stack: Sizes = "auto",
    data_root: str | Path | None = None,
    progress: Progress | None = None,
    report_plan: Callable[[str], None] | None = None,
    on_epoch: OnEpoch | None = None,
) -> list[RunFolder]:
    """Train each config in its folder, networks of one architecture together; return the folders in order.

    Configs that differ only in seed, angle, initialisation, schedule or what they keep train as stacks of at most
    ``stack`` networks (``"auto"``: what the memory holds, and 1 where stacks are slower). Each network of a stack ends
    as if it had trained alone, up to the rounding of float32. Everything that :func:`train` says of a run holds for
    each, and for a stack as a whole: killed and called again with the same jobs and ``stack``, its networks end
    bit-identical on a CPU. A network that diverges leaves the stack at the end of its epoch; the others go on.

    Args:
        jobs: each config with its folder.
        data: as for :func:`train`.
        stack: most networks that train together, or ``"auto"``.
        data_root: as for :func:`train`.
        progress: called about twice a second and after each epoch.
        report_plan: called with a line for each architecture: how many networks train together, and why.
        on_epoch: called with the run and all its rows of metrics, for each network after each epoch.

    Raises:
        InputError: as :func:`train`, for any of the jobs.

    Example:
        >>> import tempfile
        >>> from training import TrainConfig, load_dataset, train_many
        >>> configs = [TrainConfig(rule="fa", hidden=(16,), epochs=1, train_size=200, seed=seed) for seed in (0, 1)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     jobs = [(config, f"{folder}/seed-{config.seed}") for config in configs]
        ...     runs = train_many(jobs, load_dataset("digits", train_size=200), stack=2)
        ...     [(run.path.name, run.is_done) for run in runs]
        [('seed-0', True), ('seed-1', True)]
    """
    jobs = [(pinned(config), folder) for config, folder in jobs]
    runs = [RunFolder(Path(folder)) for _, folder in jobs]
    session = Session(data, None if data_root is None else Path(data_root), len(jobs), progress)
    session.on_epoch = on_epoch
    session.waiting = sum(not run.is_done for run in runs)
    for members in plan([config for config, _ in jobs], data, session.info, stack, report_plan):
        session.train([jobs[i][0] for i in members], [runs[i] for i in members])
    return runs


class Session:
    """What several stacks on one data set share."""

    def __init__(self, data: Dataset, data_root: Path | None, jobs: int, progress: Progress | None) -> None:
        self.data = data
        self.data_root = data_root
        self.jobs = jobs
        self.finished = 0
        self.waiting = 0  # networks that are neither done nor training
        self.progress = progress
        self.on_epoch: OnEpoch | None = None
        self.info = DataInfo.of(data)
        self._held_out: dict[tuple[float, int], Dataset] = {}  # the last one

    def train(self, configs: Sequence[TrainConfig], runs: Sequence[RunFolder]) -> None:
        """Train the configs of one stack that are not done."""
        data = self._split(configs[0])  # networks of a stack hold out the same samples
        # Built before anything is written, so that unknown names and modules leave nothing behind.
        todo = [(config, run) for config, run in zip(configs, runs, strict=True) if not run.is_done]
        pending = [Network(config, data, self.info, run) for config, run in todo[:1]]
        if pending:
            self._require_room(pending[0], todo)
        pending += [Network(config, data, self.info, run) for config, run in todo[1:]]
        self.waiting -= len(pending)
        with ExitStack() as locks:
            for config, run in zip(configs, runs, strict=True):
                locks.enter_context(run.locked())
                run.claim(config, self._description(config))
            pending = [network for network in pending if not network.run.is_done]  # by another process, meanwhile
            for network in pending:
                network.on_epoch = self.on_epoch
            for group in alike(pending):
                for networks, states in common_points(group):
                    with products(networks[0].config.precision):
                        Trainer(networks, data, self.progress and self._report).run(states)
        self.finished += len(runs)

    def _split(self, config: TrainConfig) -> Dataset:
        """Return the data without what ``config`` holds out, and that beside it.

        Raises:
            InputError: as :func:`training.data.hold_out`.
        """
        if not config.validation:
            return self.data
        chosen = config.validation, config.subset_seed
        if chosen not in self._held_out:
            train, validation = hold_out(self.data.train, *chosen)
            self._held_out = {chosen: dataclasses.replace(self.data, train=train, validation=validation)}
        return self._held_out[chosen]

    def _require_room(self, first: Network, todo: Sequence[tuple[TrainConfig, RunFolder]]) -> None:
        """Refuse a stack that memory or disk do not hold, when the ``first`` of its networks is made.

        Raises:
            InputError: memory does not.
            OSError: the disk does not.
        """
        configs, device = [config for config, _ in todo], self.data.train.labels.device
        if others := configs[1:]:
            require_room(others, first.rule, first.layers, self.data.classes, device)
        weights = sum(p.numel() for p in first.model.parameters())
        require_room_to_search(configs[0], weights, device)
        require_room_for_snapshots(configs, [run.path for _, run in todo], weights, first.steps_per_epoch)

    def _report(self, report: Standing) -> None:
        if self.progress is not None:
            seconds = report.seconds_left + self.waiting * report.seconds_each
            self.progress(dataclasses.replace(report, finished=self.finished, jobs=self.jobs, seconds_left=seconds))

    def _description(self, config: TrainConfig) -> dict[str, Any]:
        source = origin(config.rule, find_rule(config.rule))
        return {
            **({"rule_origin": source} if source else {}),
            "data": self.info.to_dict(),
            "data_root": None if self.data_root is None else os.path.realpath(self.data_root),
            "key": config.key(self.info.digest),
            "versions": versions(),
            "device": describe_device(self.data.train.labels.device),
        }


def common_points(networks: Sequence[Network]) -> Iterator[tuple[list[Network], list[dict[str, Any]] | None]]:
    """Yield networks that can go on together, with the resume points to do so from; None is the start.

    What a killed stack left has a step in common, if need be the start: to a network of which no resume point was put
    in force, the start is as good as a point. Without it a kill inside the first save of a stack would take it apart,
    and in a smaller stack sums are rounded otherwise. Networks that were trained apart go on in groups by step.
    """
    start = networks[0].first_step - 1 if networks else 0  # stands for a start from nothing among their steps
    points: list[dict[int, dict[str, Any] | None]] = []
    for network in networks:
        states: dict[int, dict[str, Any] | None] = {} if network.run.has_resume_point else {start: None}
        points.append(states | {state["step"]: state for state in network.run.resume_points()})
    common = set.intersection(*(set(states) for states in points)) if points else set()
    if common:
        yield list(networks), _states_at(max(common), points)
        return
    latest = [max(states) for states in points]
    for step in sorted(set(latest)):
        members = [i for i, own in enumerate(latest) if own == step]
        yield [networks[i] for i in members], _states_at(step, [points[i] for i in members])


def _states_at(step: int, points: Sequence[dict[int, dict[str, Any] | None]]) -> list[dict[str, Any]] | None:
    states = [point for own in points if (point := own[step]) is not None]
    return states or None


class Trainer:
    """The loop over a stack."""

    def __init__(self, networks: Sequence[Network], data: Dataset, progress: Progress | None = None) -> None:
        self.stack = Stack(networks, data)
        self.samples = len(data.train)
        self.steps_per_epoch = networks[0].steps_per_epoch
        self.first_step, self.total_steps = networks[0].first_step, networks[0].total_steps
        self.progress = progress
        self.clock = Clock(sum(tensor.nbytes for tensor in self.stack.tensors.values()) * 3)  # with the moments

    def run(self, states: list[dict[str, Any]] | None = None) -> None:
        """Train to the end, from resume points if there are any."""
        if states is None:
            self.stack.begin()
        for network in self.stack.networks:
            network.open()
        if states is None:
            self._end_epoch()
            self.stack.after_step()
            self._monitor()
        else:
            self.stack.restore(states)
        self.clock.start(self.stack.step - self.first_step)
        self._release_ended()
        while self.stack.networks and self.stack.step < self.total_steps:
            self._train_epoch()
            self._end_epoch()
            self._report(ends_epoch=True)
            self._release_ended()
            if self.stack.networks and self.clock.save_is_due():
                self._save()
        if len(self.stack.networks) > 1:
            self._save()  # killed while its networks finish, the stack goes on from its very end
        for network in self.stack.networks:
            network.finish()
        self.stack.release()

    def _train_epoch(self) -> None:
        """Train to the end of the epoch."""
        epoch, first = divmod(self.stack.step, self.steps_per_epoch)
        if self.stack.step == 0 > self.first_step:
            self.stack.start_optimiser()  # what it remembers is of noise
        self.stack.start_epoch(epoch)
        self.clock.lap()
        listens = any(network.trajectory is not None for network in self.stack.networks)
        for index in range(first, self.steps_per_epoch):
            self.stack.train_step(epoch, index)
            if listens:
                self.stack.after_step()
            self._monitor()
            if index + 1 < self.steps_per_epoch:  # else the epoch's end sees to these
                if self.clock.save_is_due():
                    self._count_time()
                    self._save()
                if self.clock.report_is_due():
                    self._report(ends_epoch=False)
        if 0 <= epoch + 1 < self.stack.config.epochs:
            self.stack.prepare(epoch + 1)
        self._count_time()

    def _monitor(self) -> None:
        """Measure the curvature of every network, if it is time: what that takes is no part of the training time."""
        if self.stack.config.monitor != "none" and self.stack.step >= 0:
            self.clock.last_lap += self.stack.measure()

    def _count_time(self) -> None:
        seconds = self.clock.lap() / len(self.stack.networks)
        for network in self.stack.networks:
            network.seconds += seconds

    def _end_epoch(self) -> None:
        """Give each network the epoch's row, and start the next epoch's sums."""
        seen = self._samples_seen()
        tests, held = self.stack.evaluate(), self.stack.validate()
        for network, sums, test, own in zip(self.stack.networks, self.stack.sums.rows(), tests, held, strict=True):
            if sums["bad_step"] >= 0:
                network.diverged_step = int(sums["bad_step"]) + self.first_step
            elif seen and not math.isfinite(test[0]):  # the update after the last loss of the epoch did it
                network.diverged_step = self.stack.step
            loss, accuracy = (sums[name] / seen if seen else math.nan for name in ("loss", "correct"))
            network.end_epoch(loss, accuracy, *test, *own)
        self.stack.sums.start_epoch()

    def _samples_seen(self) -> int:
        """Samples of the current epoch so far."""
        if self.stack.step == self.first_step:
            return 0
        in_epoch = (self.stack.step - 1) % self.steps_per_epoch + 1
        return min(in_epoch * self.stack.config.batch_size, self.samples)

    def _release_ended(self) -> None:
        """Finish the networks that have diverged or were stopped, and go on with the others."""
        leaving = [network for network in self.stack.networks if network.has_ended]
        if not leaving:
            return
        if len(self.stack.networks) > 1:
            self._save()  # killed from here on, nobody takes a step again, and the others go on in the stack they form
        if len(leaving) < len(self.stack.networks):
            self.stack = self.stack.without(leaving)
        else:
            self.stack.networks = []
        for network in leaving:
            network.finish()

    def _save(self) -> None:
        began = time.monotonic()
        for network, state in zip(self.stack.networks, self.stack.states(), strict=True):
            network.publish()
            network.run.stage_resume(state)
        for network in self.stack.networks:
            network.run.commit_resume()
        self.clock.saved(time.monotonic() - began)

    def _report(self, *, ends_epoch: bool) -> None:
        if self.progress is None:
            return
        networks = self.stack.networks
        rows = [network.rows[-1] for network in networks if network.diverged_step is None]
        rows = rows or [network.rows[-1] for network in networks]
        metrics = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
        if not ends_epoch:
            sums, seen = self.stack.sums.rows(), self._samples_seen()
            for name, source in (("train_loss", "loss"), ("train_accuracy", "correct")):
                metrics[name] = sum(row[source] for row in sums) / len(sums) / seen
        step, steps = self.stack.step - self.first_step, self.total_steps - self.first_step
        left, whole = self.clock.seconds_left(step, steps)
        self.progress(
            Standing(
                name=networks[0].run.path.name,
                networks=len(networks),
                finished=0,
                jobs=len(networks),
                step=step,
                total_steps=steps,
                epoch=int(rows[0]["epoch"]),
                metrics=metrics,
                ends_epoch=ends_epoch,
                seconds_left=left,
                seconds_each=whole / len(networks),
            )
        )
