"""Sweeps in this process or by Ray, on one machine or many. The only file that imports Ray."""

import contextlib
import logging
import math
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alignscape.errors import InputError, ends_all_work
from alignscape.imports import HOME
from training.sinks import SinkChoice
from training.store.jobs import Job
from training.store.run_store import RunStore
from training.store.standing import SweepStanding
from training.store.sweep import Crew, Outcome, SerialCrew, Summary, Sweep
from training.store.worker import Task, Worker

if TYPE_CHECKING:
    from training.loop import Progress

EXECUTORS = ("serial", "ray")
OBJECT_STORE_BYTES = 80_000_000  # Ray's least: results go through the run store
KNOCK_SECONDS = 10.0
LONGEST_TEMPORARY = 40  # characters; Ray's sockets lie 65 deeper, and the kernel's limit is 107


def execute(
    work: Iterable[Job],
    store: RunStore,
    *,
    executor: str = "serial",
    ray_address: str | None = None,
    workers: int | None = None,
    device: str = "auto",
    stack: int | Literal["auto"] = "auto",
    progress: Callable[[int, int], None] | None = None,
    training_progress: "Progress | None" = None,
    watch: Callable[[SweepStanding], None] | None = None,
    sinks: Sequence[SinkChoice] = (),
) -> Summary:
    """Carry out ``work`` and all it needs, but for what the store has; every result is committed as it comes.

    A job that fails takes those that need it with it, and no other. A worker that dies (killed, out of memory, its
    node gone) loses what it had in hand, which goes to another one; a training goes on from its resume point. Killed
    itself and called again, the sweep ends as if it had not been. Several sweeps may share a store: a job that another
    process has in hand is left to it.

    Args:
        work: jobs; what they need comes by itself.
        store: where results are, and go.
        executor: ``"serial"`` works in this process; ``"ray"`` in one actor a GPU, or a CPU where there is none.
        ray_address: of a running Ray cluster (``"auto"`` finds the one on this machine); None starts one here.
        workers: number of actors; more than there are GPUs share them.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        stack: networks that train together; ``"auto"``: what the memory holds, and 1 where stacks are slower.
        progress: called with (jobs finished, jobs that were missing).
        training_progress: ``serial`` only: called as by ``train_many``, while networks train.
        watch: called every second or so with where the sweep stands: what is at work, with its last metrics, and the
            time left. In this process, between two tasks.
        sinks: where the metrics of runs go as they come, besides the store.

    Raises:
        InputError: unknown executor; Ray is not installed, or not where it was said to be.

    Example:
        >>> import tempfile
        >>> from training import RunStore, TrainConfig, TrainJob, execute
        >>> job = TrainJob(config=TrainConfig(hidden=(16,), epochs=1, train_size=200))
        >>> with tempfile.TemporaryDirectory() as root:
        ...     print(execute([job], RunStore(root)))
        ...     job.is_done(RunStore(root))  # the same call again would find nothing to do
        runs: 1 computed, 0 reused; analyses: 0 computed, 0 reused
        True
    """
    if executor not in EXECUTORS:
        raise InputError(f"unknown executor {executor!r}; known: {', '.join(EXECUTORS)}")
    sweep = Sweep(work, store, progress, watch)
    if not sweep.jobs:
        return sweep.summary
    worker = Worker(RunStore(Path(os.path.realpath(store.root))), device, stack, sinks=tuple(sinks), names=sweep.names)
    crew: Crew
    if executor == "ray":
        crew = RayCrew(worker, ray_address, workers)
    else:
        store.create()
        worker.progress = training_progress
        crew = SerialCrew(worker)
    try:
        sweep.run(crew)
    finally:
        crew.close()
    return sweep.summary


class RayCrew:
    """Persistent actors: a process that has torch and the data loaded takes a job in milliseconds.

    An actor is given jobs only while it is known to live. The job of one that died goes to whichever is idle; the
    actor itself comes back when Ray has found it a place.
    """

    def __init__(self, worker: Worker, address: str | None, workers: int | None) -> None:
        self.ray, self.owns_ray = start_ray(address)
        self.store = worker.store
        self.store.create()  # now that there is somebody to work for it
        resources = self.ray.cluster_resources()
        gpus = 0 if worker.device == "cpu" else int(resources.get("GPU", 0))
        cpus = max(int(resources.get("CPU", 1)), 1)
        self.size = count = workers or gpus or cpus
        gpu = {"num_gpus": share(gpus, count)} if gpus else {}
        options = {**gpu, "num_cpus": share(cpus, count), "max_restarts": -1}
        actor_class = self.ray.remote(Worker).options(**options)
        self.starting: dict[Any, Any] = {}  # answer to come -> actor
        self.working: dict[Any, tuple[Any, Task]] = {}  # result to come -> actor, task
        self.free: list[Any] = []
        for _ in range(count):
            how = {"folder": Path.cwd(), "sinks": worker.sinks, "names": worker.names, "notes": True}
            self._await(actor_class.remote(worker.store, worker.device, worker.stack, **how))

    @property
    def idle(self) -> int:
        return len(self.free)

    def begin(self, task: Task) -> None:
        actor = self.free.pop()
        self.working[actor.perform.remote(task)] = actor, task

    def finished(self, timeout: float) -> list[Outcome]:
        if not (pending := [*self.starting, *self.working]):
            time.sleep(timeout)
        answers, _ = self.ray.wait(pending, num_returns=1, timeout=timeout) if pending else ([], [])
        outcomes: list[Outcome] = []
        for answer in answers:
            if answer in self.starting:
                self._started(answer)
            else:
                outcomes.append(self._result(answer))
        return outcomes

    def close(self) -> None:
        if self.owns_ray:
            self.ray.shutdown()

    def _await(self, actor: Any) -> None:
        """Have ``actor`` answer once it lives; only then is it given work."""
        self.starting[actor.identity.options(max_task_retries=-1).remote()] = actor

    def _started(self, answer: Any) -> None:
        actor = self.starting.pop(answer)
        try:
            identity = self.ray.get(answer)
        except self.ray.exceptions.RayError as error:
            raise InputError(f"a worker cannot start: {str(error).strip().splitlines()[-1]}") from error
        if identity != self.store.identity:
            raise InputError(
                f"a worker finds another store, or none, at {self.store.root}: "
                "--store must lie on a file system that all nodes share"
            )
        self.free.append(actor)

    def _result(self, answer: Any) -> Outcome:
        actor, task = self.working.pop(answer)
        try:
            results = self.ray.get(answer)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, OSError) and ends_all_work(error.cause):
                raise error.cause from error
            raise  # not the job's error, which is a result, but ours
        except self.ray.exceptions.RayError:
            self._await(actor)
            return task, None
        self.free.append(actor)
        return task, results


def share(units: int, actors: int) -> float:
    """Return the part of a GPU or CPU that each of ``actors`` takes, so that all find a place; 1 at most. Ray counts in
    units of 1e-4, and a seventh rounded up would leave room for six."""
    return math.floor(1e4 / math.ceil(actors / units)) / 1e4


def start_ray(address: str | None) -> tuple[Any, bool]:
    """Connect to the cluster at ``address``, or start one on this machine that ends with this process.

    Returns the module, and whether the connection is ours to end.

    Raises:
        InputError: Ray is not installed; nothing answers at ``address``.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of a change to come
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # else it tells stdout of every node that dies
    if address is not None and has_token():  # Ray asks for it at a cluster's start, but does not show it by itself
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ImportError as error:
        raise InputError("--executor ray needs Ray: pip install 'alignscape[ray]'") from error
    if ray.is_initialized():  # by the program that calls us
        return ray, False
    # Workers search the folder that Ray is started from before all others. In a user's folder a module called training,
    # say, would be taken for ours there; the workers go to that folder when ours are loaded.
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        temporary = Path(tempfile.gettempdir()) / "ray"
        local: dict[str, Any] = {"_temp_dir": str(temporary)} if len(str(temporary)) <= LONGEST_TEMPORARY else {}
        with contextlib.chdir(HOME):
            ray.init(address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **local, **quiet)
        return ray, True
    try:
        knock(address)  # Ray itself tries for minutes, and ends the process if nobody answers
        with contextlib.chdir(HOME):
            ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"no Ray cluster at {address}: {reason} (start one: ray start --head)") from error
    return ray, True


def knock(address: str) -> None:
    """Connect to ``HOST:PORT`` and hang up; other forms of address are left to Ray.

    Raises:
        OSError: nothing answers.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()


def has_token() -> bool:
    """Whether there is a token to show to a Ray cluster, in one of the three places where Ray looks."""
    places = (os.environ.get("RAY_AUTH_TOKEN_PATH"), Path.home() / ".ray" / "auth_token")
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or any(place and Path(place).is_file() for place in places)
