"""The order in which a sweep's jobs are carried out, whoever carries them out."""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from alignscape.errors import InputError
from training.store.job_log import log_path
from training.store.jobs import Job, TrainJob, names_of
from training.store.run_store import RunStore
from training.store.standing import SweepStanding, read_note
from training.store.worker import DAMAGED, FAILED, Result, Task, Worker

ATTEMPTS = 4  # times that a job may take its worker down with it (out of memory, say) before it counts as failed
ATTEMPTS_TOGETHER = 2  # of them in a stack; then each network goes alone
LONG_SECONDS = 60.0
BUSY_SECONDS = 1.0  # between two looks at a job that another process has in hand
WATCH_SECONDS = 1.0  # between two looks at what workers do

Outcome = tuple[Task, list[Result] | None]  # None: the worker died


@dataclass(frozen=True)
class Failure:
    """A job that has no result, and why.

    Attributes:
        job: that failed.
        reason: one line.
        damaged: whether a stored file that is not what was written is why.
        name: of the job among those of its sweep, for people.
        log: the job's log, if it has begun.

    Example:
        >>> import tempfile
        >>> from training import RunStore, TrainConfig, TrainJob, execute
        >>> with tempfile.TemporaryDirectory() as root:
        ...     summary = execute([TrainJob(config=TrainConfig(rule="nosuch"))], RunStore(root))
        >>> summary.failed[0].reason[:22]
        "unknown rule 'nosuch';"
    """

    job: Job
    reason: str
    damaged: bool = False
    name: str = ""
    log: Path | None = None


@dataclass(kw_only=True)
class Summary:
    """What a sweep came to; :func:`execute` returns it.

    Attributes:
        computed: how many jobs were carried out, by kind (``runs``, ``analyses``).
        reused: how many were in the store by the time their turn came, by kind.
        failed: jobs without a result.
        lost: tasks that were begun again because their worker died.

    Example:
        >>> from collections import Counter
        >>> from training.store import Summary
        >>> print(Summary(computed=Counter(runs=3), reused=Counter(analyses=1)))
        runs: 3 computed, 0 reused; analyses: 0 computed, 1 reused
    """

    computed: Counter[str] = field(default_factory=Counter)
    reused: Counter[str] = field(default_factory=Counter)
    failed: list[Failure] = field(default_factory=list)
    lost: int = 0

    def __str__(self) -> str:
        kinds = ("runs", "analyses")
        parts = [f"{kind}: {self.computed[kind]} computed, {self.reused[kind]} reused" for kind in kinds]
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        parts += [f"{self.lost} begun again because their worker died"] if self.lost else []
        return "; ".join(parts)


class Crew(Protocol):
    """Workers, however many and wherever they are."""

    size: int

    @property
    def idle(self) -> int:
        """Number of workers with nothing to do."""
        ...

    def begin(self, task: Task) -> None:
        """Give ``task`` to an idle worker."""
        ...

    def finished(self, timeout: float) -> list[Outcome]:
        """Return what has finished, waiting for the first to do so for at most ``timeout`` seconds."""
        ...

    def close(self) -> None:
        """Let go of the workers."""
        ...


class SerialCrew:
    """This process."""

    def __init__(self, worker: Worker) -> None:
        self.size = 1
        self.worker = worker
        self.task: Task | None = None

    @property
    def idle(self) -> int:
        return int(self.task is None)

    def begin(self, task: Task) -> None:
        self.task = task

    def finished(self, timeout: float) -> list[Outcome]:
        if self.task is None:
            time.sleep(timeout)
            return []
        task, self.task = self.task, None
        return [(task, self.worker.perform(task))]

    def close(self) -> None:
        pass


class Sweep:
    """The jobs of one call of ``execute``: done, ready, waiting for others, failed."""

    def __init__(
        self,
        work: Iterable[Job],
        store: RunStore,
        progress: Callable[[int, int], None] | None,
        watch: Callable[[SweepStanding], None] | None = None,
    ) -> None:
        self.store = store
        self.progress = progress
        self.watch = watch
        self.began = time.monotonic()
        self.at_work: dict[str, tuple[Task, float]] = {}  # first key of a task -> it, and when it was given away
        self.summary = Summary()
        self.jobs: dict[str, Job] = {}  # key -> job that the store does not have
        self.ready: deque[str] = deque()
        self.missing: dict[str, set[str]] = {}  # job -> jobs it waits for
        self.dependants: dict[str, list[str]] = defaultdict(list)
        self.not_before: dict[str, float] = {}  # job that another process has in hand -> time to look again
        self.attempts: Counter[str] = Counter()
        self.running = 0
        self.stack_sizes: dict[str, int] = {}  # group -> networks that went together
        self._groups: dict[str, str] = {}
        self._seen: set[str] = set()
        work = list(work)
        self.names = names_of(work)
        for job in work:
            self._add(job)
        self.total = len(self.jobs)

    def run(self, crew: Crew) -> None:
        """Have ``crew`` carry out everything that can be."""
        while self.ready or self.running:
            while crew.idle and (task := self._next_task(crew)):
                self.running += 1
                self.at_work[task[0][0]] = task, time.monotonic()
                crew.begin(task)
            patience = self._patience() if crew.idle else LONG_SECONDS
            for task, results in crew.finished(patience if self.watch is None else min(patience, WATCH_SECONDS)):
                self.running -= 1
                self.at_work.pop(task[0][0], None)
                self._settle(task, results)
            if self.watch is not None:
                self.watch(self.standing())

    def standing(self) -> SweepStanding:
        """Return where the sweep stands."""
        now, done = time.monotonic(), self.total - len(self.jobs)
        running = [
            read_note(self.store, key, self._name(task[0][1]), len(task), now - since)
            for key, (task, since) in self.at_work.items()
        ]
        seconds, failed = now - self.began, len(self.summary.failed)
        return SweepStanding(done=done, total=self.total, failed=failed, running=running, seconds=seconds)

    def _name(self, job: Job) -> str:
        """Return what a person calls a job of this sweep."""
        return job.called(self.names).removeprefix("run ")

    def _add(self, job: Job) -> None:
        try:
            key = job.key(self.store)
            if key in self._seen:
                return
            self._seen.add(key)
            for needed in job.needs:
                self._add(needed)
            if job.is_done(self.store):
                self.summary.reused[kind(job)] += 1
                return
        except InputError as error:  # its data cannot be read, or a run has no such file
            self.summary.failed.append(Failure(job, str(error), name=self._name(job)))
            return
        self.jobs[key] = job
        self.missing[key] = {needed.key(self.store) for needed in job.needs} & self.jobs.keys()
        for needed_key in self.missing[key]:
            self.dependants[needed_key].append(key)
        if not self.missing[key]:
            self.ready.append(key)

    def _next_task(self, crew: Crew) -> Task | None:
        for _ in range(len(self.ready)):
            key = self.ready.popleft()
            if self._is_due(key):
                return tuple((member, self.jobs[member]) for member in [key, *self._companions(key, crew)])
            self.ready.append(key)
        return None

    def _is_due(self, key: str) -> bool:
        return self.not_before.get(key, 0) <= time.monotonic()

    def _companions(self, key: str, crew: Crew) -> list[str]:
        """Take from the ready jobs those that may train in one stack with ``key``: no more than this worker's part of
        them, nor than went together before."""
        if not isinstance(self.jobs[key], TrainJob) or self.attempts[key] >= ATTEMPTS_TOGETHER:
            return []
        group = self._group(key)
        fitting = [
            other
            for other in self.ready
            if self._group(other) == group and self._is_due(other) and self.attempts[other] < ATTEMPTS_TOGETHER
        ]
        part = -(-(len(fitting) + 1) // max(crew.size - self.running, 1))
        chosen = fitting[: min(part, self.stack_sizes.get(group, part)) - 1]
        taken = set(chosen)
        self.ready = deque(other for other in self.ready if other not in taken)
        return chosen

    def _group(self, key: str) -> str:
        """Return what the networks of a stack have in common; of an analysis, nothing with any."""
        if key not in self._groups:
            from training.stack_size import stack_key

            job = self.jobs[key]
            self._groups[key] = f"{job.data_root} {stack_key(job.config)}" if isinstance(job, TrainJob) else ""
        return self._groups[key]

    def _patience(self) -> float:
        """Return the seconds until a job that another process had in hand is worth another look."""
        times = [self.not_before[key] for key in self.ready]  # with a worker idle, no other jobs are ready
        return max(min(times) - time.monotonic(), 0.01) if times else LONG_SECONDS

    def _settle(self, task: Task, results: list[Result] | None) -> None:
        if results is None:
            self._begin_again(task)
            return
        if "deferred" in results:
            self.stack_sizes[self._group(task[0][0])] = len(results) - results.count("deferred")
            later = [key for (key, _), result in zip(task, results, strict=True) if result == "deferred"]
            self.ready.extendleft(reversed(later))
        for (key, job), result in zip(task, results, strict=True):
            if result == "deferred":
                continue
            if result == "busy":
                self.not_before[key] = time.monotonic() + BUSY_SECONDS
                self.ready.append(key)
            elif result.startswith((FAILED, DAMAGED)):
                reason = result.removeprefix(FAILED).removeprefix(DAMAGED)
                self._fail(key, reason, damaged=result.startswith(DAMAGED))
            else:
                (self.summary.computed if result == "computed" else self.summary.reused)[kind(job)] += 1
                self._finish(key)
        self._report()

    def _begin_again(self, task: Task) -> None:
        self.summary.lost += 1
        for key, job in reversed(task):
            self.attempts[key] += 1
            if job.is_done(self.store):  # it had committed that one
                self.summary.computed[kind(job)] += 1
                self._finish(key)
            elif self.attempts[key] < ATTEMPTS:
                self.ready.appendleft(key)
            else:
                self._fail(key, f"its worker died {ATTEMPTS} times; is there memory enough for it?")

    def _finish(self, key: str) -> None:
        del self.jobs[key]
        for dependant in self.dependants.pop(key, []):
            if waits_for := self.missing.get(dependant):
                waits_for.discard(key)
                if not waits_for:
                    self.ready.append(dependant)

    def _fail(self, key: str, reason: str, *, damaged: bool = False) -> None:
        job = self.jobs.pop(key)
        log = log_path(self.store, key)
        self.summary.failed.append(Failure(job, reason, damaged, self._name(job), log if log.is_file() else None))
        for dependant in self.dependants.pop(key, []):
            if dependant in self.jobs:
                self.missing.pop(dependant)
                self._fail(dependant, f"needs {job.label}, which failed: {reason}", damaged=damaged)

    def _report(self) -> None:
        if self.progress is not None:
            self.progress(self.total - len(self.jobs), self.total)


def kind(job: Job) -> str:
    """Return ``"runs"`` or ``"analyses"``."""
    return "runs" if isinstance(job, TrainJob) else "analyses"
