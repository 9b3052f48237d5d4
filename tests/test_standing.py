"""Where a sweep stands: notes of workers, time left, what is shown of it, and the logs of jobs."""

import json
import re

import pytest

from reports.progress import EVERY_SWEEP, SweepDisplay, running_text, sweep_text
from training.config import TrainConfig
from training.store.cluster import execute
from training.store.jobs import AnalysisJob, TrainJob
from training.store.run_store import RunStore
from training.store.standing import Notes, Running, SweepStanding, note_path, read_note
from training.store.sweep import Sweep
from training.store.worker import Worker

FIELDS = {"hidden": (4,), "epochs": 2, "train_size": 40}


def job(**fields) -> TrainJob:
    return TrainJob(config=TrainConfig(**{**FIELDS, **fields}))


class Watching:
    """A crew of one that looks at where the sweep stands while it works."""

    size = 1

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.task = None
        self.seen: list = []

    @property
    def idle(self) -> int:
        return int(self.task is None)

    def begin(self, task) -> None:
        self.task = task

    def finished(self, timeout):
        task, self.task = self.task, None
        notes = note_path(self.worker.store, task[0][0])
        self.worker.progress = lambda _: self.seen.append((self.sweep.standing(), notes.is_file()))
        return [(task, self.worker.perform(task))]


def test_a_sweep_knows_what_is_at_work(tmp_path, monkeypatch):
    monkeypatch.setattr("training.store.standing.NOTE_SECONDS", 0.0)
    store, shown = RunStore(tmp_path), []
    store.create()
    crew = Watching(Worker(store, notes=True))
    jobs = [job(lr=lr, seed=seed) for lr in (0.1, 0.01) for seed in (0, 1)]
    crew.sweep = sweep = Sweep(jobs, store, None, shown.append)
    sweep.run(crew)
    (running,) = crew.seen[-1][0].running
    assert (running.name, running.networks, running.epoch, running.epochs) == ("digits-bp-lr0.1-seed0", 4, 2, 2)
    assert {"train_loss", "test_accuracy"} <= running.metrics.keys()
    assert running.share == 1
    assert crew.seen[-1][1]
    assert not any((tmp_path / "running").iterdir())  # a note is gone with its task
    assert (shown[-1].done, shown[-1].total, shown[-1].failed, shown[-1].running) == (4, 4, 0, [])


def test_the_time_left_counts_what_is_under_way():
    half = Running(name="a", networks=4, share=0.5)
    standing = SweepStanding(done=2, total=10, failed=1, running=[half], seconds=60)
    assert standing.seconds_left == pytest.approx(90)  # 4 of 10 in 60 s
    assert SweepStanding(done=0, total=10, failed=0, running=[], seconds=60).seconds_left is None
    assert sweep_text(standing) == "[2/10] 1 failed, 1 at work, 01:30 left"
    whole = Running(name="b", epoch=1, epochs=3, metrics={"train_loss": 1.5, "test_accuracy": 0.25, "seconds": 1.0})
    assert running_text(whole) == "b: epoch 1/3  loss 1.5000  test 0.2500"
    assert running_text(Running(name="c", networks=3, seconds=7.4)) == "c and 2 more: 7 s"


def test_a_note_of_a_worker_that_died_is_not_read_as_of_the_next(tmp_path):
    store = RunStore(tmp_path)
    path = note_path(store, "k" * 64)
    path.parent.mkdir(parents=True)
    note = {"networks": 1, "epoch": 5, "epochs": 9, "share": 0.5, "metrics": {"train_loss": None}, "time": 0.0}
    path.write_text(json.dumps(note))
    assert read_note(store, "k" * 64, "run", 3, 10.0) == Running(name="run", networks=3, seconds=10.0)
    path.write_text("{")
    assert read_note(store, "k" * 64, "run", 3, 10.0).epoch is None


def test_a_note_that_cannot_be_written_stops_nobody(tmp_path):
    (tmp_path / "running").write_text("in the way")
    from training.loop import Standing

    counts = {"networks": 1, "finished": 0, "jobs": 1, "step": 1, "total_steps": 2, "epoch": 0, "epochs": 1}
    standing = Standing(name="a", **counts, metrics={}, ends_epoch=False, seconds_left=0, seconds_each=0)
    Notes(RunStore(tmp_path), "k" * 64)(standing)


def test_a_log_says_it_in_lines_now_and_then(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("reports.progress.time.monotonic", lambda: now[0])
    show = SweepDisplay()
    running = [Running(name=f"run{i}") for i in range(10)]
    for seconds in (1, EVERY_SWEEP, EVERY_SWEEP + 1, 2 * EVERY_SWEEP):
        now[0] = seconds
        show(SweepStanding(done=1, total=200, failed=0, running=running, seconds=seconds))
    show(SweepStanding(done=200, total=200, failed=0, running=[], seconds=99))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 * (1 + 8 + 1) + 1
    assert lines[0].startswith("[1/200] 10 at work, ")
    assert lines[9] == "  and 2 more tasks"
    assert lines[-1] == "[200/200]"


def test_each_job_has_a_log_under_its_name_and_failures_say_where(tmp_path):
    store = RunStore(tmp_path)
    fine, bad = job(lr=0.1), job(lr=0.01, rule="nosuch")
    broken = AnalysisJob(name="odd", version=1, function="sweep_jobs:refuse", inputs={"c": fine.file()})
    summary = execute([broken, bad, job(lr=0.01)], store)
    log = (tmp_path / "logs" / f"{fine.key(store)[:16]}.txt").read_text()
    assert "run digits-bp-lr0.1-seed0: begun by process" in log
    assert re.search(r"epoch 2/2, step 2/2, means of 2 networks: .*test_accuracy 0\.\d", log)
    assert log.rstrip().endswith("done")
    failed = {failure.name: failure for failure in summary.failed}
    assert failed.keys() == {"odd of digits-bp-lr0.1-seed0", "digits-nosuch-lr0.01-seed0"}
    (odd,) = [failure for name, failure in failed.items() if name.startswith("odd")]
    assert "raise ArithmeticError" in odd.log.read_text()
