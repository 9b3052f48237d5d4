"""The order of a sweep: needs first, failures take only what needs them, deaths and busy jobs are tried again."""

from pathlib import Path

import pytest
import torch

from alignscape.errors import InputError
from training import loop
from training.checkpoint import load_checkpoint
from training.config import TrainConfig
from training.data import load_dataset
from training.loop import train
from training.store.cluster import execute, share
from training.store.jobs import AnalysisJob, DataFiles, TrainJob
from training.store.run_store import RunStore
from training.store.sweep import ATTEMPTS, Sweep
from training.store.worker import Worker


@pytest.fixture
def store(tmp_path) -> RunStore:
    return RunStore(tmp_path / "store")


def run_job(**fields) -> TrainJob:
    return TrainJob(config=TrainConfig(**{"hidden": (8,), "epochs": 1, "train_size": 50, **fields}))


def measure(tmp_path, *inputs, name="acc") -> AnalysisJob:
    return AnalysisJob(
        name=name,
        version=1,
        function="sweep_jobs:measure",
        inputs={str(i): job.file() for i, job in enumerate(inputs)},
        parameters={"log": str(tmp_path / "log"), "seconds": 0},
    )


def broken(name: str, *inputs, function="sweep_jobs:refuse") -> AnalysisJob:
    return AnalysisJob(
        name=name, version=1, function=function, inputs={str(i): job.file() for i, job in enumerate(inputs)}
    )


def reasons(summary) -> dict[str, str]:
    return {failure.job.label: failure.reason for failure in summary.failed}


class Crew:
    """A crew of ``size`` that notes what it is given and returns the last begun first; ``fate`` maps a job's label to
    the results of its attempts, before it is carried out for good."""

    def __init__(self, worker: Worker, size: int, fate: dict[str, list] | None = None) -> None:
        self.worker, self.size, self.fate = worker, size, fate or {}
        self.begun: list[str] = []
        self.tasks: list[list[str]] = []
        self.in_hand: list = []

    @property
    def idle(self) -> int:
        return self.size - len(self.in_hand)

    def begin(self, task) -> None:
        assert self.idle > 0
        self.tasks.append([job.label for _, job in task])
        self.begun += [job.label for _, job in task]
        self.in_hand.append(task)

    def finished(self, timeout):
        if not self.in_hand:
            return []
        task = self.in_hand.pop()
        if fates := next((self.fate[job.label] for _, job in task if self.fate.get(job.label)), None):
            fate = fates.pop(0)
            return [(task, None if fate is None else [fate] * len(task))]
        return [(task, self.worker.perform(task))]

    def close(self) -> None:
        pass


def test_needs_come_first_and_the_second_call_computes_nothing(store, tmp_path):
    runs = [run_job(seed=seed) for seed in range(3)]
    each = [measure(tmp_path, run) for run in runs]
    every = measure(tmp_path, *runs, name="all")
    calls = []
    summary = execute([every, *each, *each], store, progress=lambda *call: calls.append(call))
    assert str(summary) == "runs: 3 computed, 0 reused; analyses: 4 computed, 0 reused"
    assert calls == [(i, 7) for i in (3, 4, 5, 6, 7)]  # the runs as a stack
    accuracies = every.entry(store).read_table().accuracy.tolist()
    assert accuracies == [job.entry(store).read_table().accuracy[0] for job in each]
    assert str(execute([every, *each], store)) == "runs: 0 computed, 3 reused; analyses: 0 computed, 4 reused"
    # One parameter changed: what hangs on it is computed, and nothing else.
    again = execute([every, *each, run_job(seed=7), measure(tmp_path, run_job(seed=7))], store)
    assert str(again) == "runs: 1 computed, 3 reused; analyses: 1 computed, 4 reused"
    assert (tmp_path / "log").read_text().count("end") == 5


def test_a_failure_takes_only_what_needs_it(store, tmp_path):
    good, other = run_job(), run_job(seed=1)
    first = broken("first", good)
    second = broken("second", first, other)
    work = [
        second, measure(tmp_path, good), measure(tmp_path, other),
        broken("absent", good, function="sweep_jobs:nothing"),
        AnalysisJob(name="late", version=1, function="f:f", inputs={"c": good.file("checkpoints/epoch-0009.pt")}),
        measure(tmp_path, TrainJob(config=TrainConfig(dataset="cifar10"), data_root=tmp_path)),
        run_job(rule="hebb"),
    ]  # fmt: skip
    summary = execute(work, store)
    assert (summary.computed["runs"], summary.computed["analyses"]) == (2, 2)
    found = reasons(summary)
    assert len(found) == 6
    assert found["first of digits-bp-seed0"].startswith("ArithmeticError: no luck (traceback in ")
    report = Path(found["first of digits-bp-seed0"].split("traceback in ")[1].rstrip(")"))
    assert "raise ArithmeticError" in report.read_text()
    assert found[second.label].startswith("needs first of digits-bp-seed0, which failed: ArithmeticError")
    assert "no function 'sweep_jobs:nothing'" in found["absent of digits-bp-seed0"]
    assert "left no checkpoints/epoch-0009.pt; it has ckpt.pt" in found["late of digits-bp-seed0 epoch-0009"]
    assert "missing cifar-10-batches-py" in found["acc of cifar10-bp-seed0"]
    assert "unknown rule 'hebb'" in found["run digits-hebb-seed0"]
    assert [p.name for p in (store.root / "failed").iterdir()] == [report.name]
    # Mended, it is computed, and its report is gone.
    mended = AnalysisJob(
        name="first", version=1, function="sweep_jobs:measure", inputs=first.inputs, parameters=first.parameters
    )
    assert mended.key(store) == first.key(store)


@pytest.mark.parametrize("size", [1, 3])
def test_jobs_of_dead_workers_are_begun_again_and_no_others(store, tmp_path, size):
    runs = [run_job(seed=seed, hidden=(8 + seed,)) for seed in range(4)]  # no two in one stack
    sweep = Sweep([measure(tmp_path, run) for run in runs], store, None)
    crew = Crew(Worker(store), size, {"run digits-bp-seed2": [None, None], "acc of digits-bp-seed1": [None]})
    sweep.run(crew)
    assert sweep.summary.lost == 3
    assert str(sweep.summary).endswith("4 computed, 0 reused; 3 begun again because their worker died")
    assert not sweep.summary.failed
    times = {label: crew.begun.count(label) for label in crew.begun}
    assert times.pop("run digits-bp-seed2") == 3
    assert times.pop("acc of digits-bp-seed1") == 2
    assert set(times.values()) == {1}
    for run in runs:
        assert crew.begun.index(run.label) < crew.begun.index(f"acc of {run.label.removeprefix('run ')}")


def test_a_job_that_always_kills_its_worker_fails_in_the_end(store, tmp_path):
    sweep = Sweep([measure(tmp_path, run_job()), run_job(seed=1, hidden=())], store, None)
    sweep.run(Crew(Worker(store), 2, {"run digits-bp-seed0": [None] * ATTEMPTS}))
    found = reasons(sweep.summary)
    assert found["run digits-bp-seed0"] == f"its worker died {ATTEMPTS} times; is there memory enough for it?"
    assert found["acc of digits-bp-seed0"].startswith("needs run digits-bp-seed0, which failed")
    assert sweep.summary.computed["runs"] == 1


def test_a_job_in_another_hand_is_left_to_it(store, tmp_path, monkeypatch):
    monkeypatch.setattr("training.store.sweep.BUSY_SECONDS", 0.05)
    sweep = Sweep([run_job(), run_job(seed=1, hidden=())], store, None)
    crew = Crew(Worker(store), 1, {"run digits-bp-seed0": ["busy", "reused"]})
    sweep.run(crew)
    assert crew.begun == ["run digits-bp-seed0", "run digits-bp-seed1", "run digits-bp-seed0"]
    assert str(sweep.summary).startswith("runs: 1 computed, 1 reused")


def labels(*seeds: int) -> list[str]:
    return [f"run digits-bp-seed{seed}" for seed in seeds]


def test_networks_of_one_architecture_go_as_a_stack(store):
    """The worker knows how many fit; the rest is handed out again, and no more is handed out together after that."""
    runs = [run_job(seed=seed) for seed in range(5)] + [run_job(seed=9, hidden=(7,))]
    crew = Crew(Worker(store, stack=2), 1)
    sweep = Sweep(runs, store, None)
    sweep.run(crew)
    assert crew.tasks == [labels(0, 1, 2, 3, 4), labels(2, 3), labels(4), labels(9)]
    assert str(sweep.summary).startswith("runs: 6 computed, 0 reused")
    alone = train(runs[3].config, load_dataset("digits", train_size=50), store.root / "alone")
    ours, theirs = (load_checkpoint(run.checkpoint).model for run in (alone, runs[3].folder(store)))
    for name, weights in ours.items():
        torch.testing.assert_close(theirs[name], weights, rtol=1e-4, atol=1e-6)


def test_every_worker_gets_its_part_of_a_stack(store):
    crew = Crew(Worker(store), 2)
    Sweep([run_job(seed=seed) for seed in range(5)], store, None).run(crew)
    assert crew.tasks == [labels(0, 1, 2), labels(3, 4)]


def test_after_a_second_death_each_network_of_a_stack_goes_alone(store):
    crew = Crew(Worker(store), 1, {"run digits-bp-seed1": [None, None]})
    sweep = Sweep([run_job(seed=seed) for seed in range(3)], store, None)
    sweep.run(crew)
    assert crew.tasks == [labels(0, 1, 2)] * 2 + [labels(0), labels(1), labels(2)]
    assert sweep.summary.lost == 2


def test_what_a_dead_worker_had_committed_is_not_done_again(store):
    class Dying(Worker):
        """Commits what it was given, and dies before it can say so."""

        def perform(self, task):
            super().perform(task)
            return None

    crew = Crew(Dying(store), 1)
    sweep = Sweep([run_job(seed=seed) for seed in range(3)], store, None)
    sweep.run(crew)
    assert crew.tasks == [labels(0, 1, 2)]
    assert str(sweep.summary).startswith("runs: 3 computed, 0 reused")


def test_one_failure_in_a_stack_is_told_of_each_that_has_no_result(store, monkeypatch):
    whole = loop.train_many

    def breaks(jobs, data, **options):
        whole(jobs[:1], data, stack=1)
        raise ArithmeticError("no luck")

    monkeypatch.setattr(loop, "train_many", breaks)
    summary = execute([run_job(seed=seed) for seed in range(3)], store)
    assert summary.computed["runs"] == 1
    assert [failure.job.label for failure in summary.failed] == labels(1, 2)
    assert all(failure.reason.startswith("ArithmeticError: no luck") for failure in summary.failed)


def test_data_that_change_behind_their_time_stamp_are_noticed(store, monkeypatch):
    job = run_job()
    store.create()
    job.key(store)
    remembered = next((store.root / "data").iterdir())
    remembered.write_text(remembered.read_text().replace('"digest": "', '"digest": "0'))
    stale = job.folder(store).path
    summary = execute([job], store)
    assert "changed under their old time stamps" in reasons(summary)[job.label]
    assert not stale.exists()
    assert str(execute([job], store)).startswith("runs: 1 computed")
    assert job.folder(store).path != stale


def test_a_damaged_run_is_trained_again(store):
    job = run_job()
    execute([job], store)
    checkpoint = job.folder(store).checkpoint
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[:100])
    assert str(execute([job], store)).startswith("runs: 1 computed, 0 reused")
    assert checkpoint.stat().st_size == len(whole)


def test_data_sets_are_loaded_once_and_only_a_few_are_kept(store, monkeypatch):
    from training import data

    loaded = []
    original = data.load_dataset
    monkeypatch.setattr(data, "load_dataset", lambda *a, **k: (loaded.append(k["train_size"]), original(*a, **k))[1])
    sizes = (20, 20, 30, 40, 50, 20)
    jobs = [run_job(train_size=size, seed=seed) for seed, size in enumerate(sizes)]
    for job in jobs:
        job.key(store)  # remembers the digest
    loaded.clear()
    worker = Worker(store)
    assert [worker.perform(((job.key(store), job),)) for job in jobs] == [["computed"]] * 6
    assert loaded == [20, 30, 40, 50, 20]


def test_inputs_may_be_data_sets(store, tmp_path):
    job = AnalysisJob(
        name="set",
        version=1,
        function="test_sweep:list_inputs",
        inputs={"data": DataFiles("digits", tmp_path)},
    )
    execute([job], store)
    assert job.entry(store).file("paths.txt").read_text() == f"data {tmp_path} {tmp_path} auto"


def list_inputs(folder, inputs, *, device, data_root):
    (folder / "paths.txt").write_text(f"data {inputs['data']} {data_root} {device}")


def test_an_unknown_executor_is_refused(store):
    with pytest.raises(InputError, match="unknown executor 'slurm'; known: serial, ray"):
        execute([], store, executor="slurm")


@pytest.mark.parametrize(
    ("units", "actors", "part"), [(4, 4, 1), (4, 2, 1), (4, 8, 0.5), (4, 9, 0.3333), (1, 7, 0.1428), (2, 3, 0.5)]
)
def test_actors_share_gpus_so_that_all_find_a_place(units, actors, part):
    assert share(units, actors) == part
    assert units * (10_000 // round(10_000 * part)) >= actors
