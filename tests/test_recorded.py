"""Files are compared with what was recorded of them, when they are read."""

import errno
import fcntl
import json
import os
import resource
import shutil

import pandas as pd
import pytest

from alignscape.errors import DamagedError, InputError
from alignscape.files import describe_files
from alignscape.recorded import check_recorded, read_record, read_recorded, seal_of, write_record
from reports.cli import main
from reports.tables import read_table, write_table
from training.checkpoint import load_checkpoint
from training.config import TrainConfig
from training.data import load_dataset
from training.loop import train
from training.run_folder import RUN_FILES
from training.store.cluster import execute
from training.store.inventory import Inventory
from training.store.jobs import AnalysisJob, TrainJob
from training.store.run_store import RunStore, in_use, run_state
from training.store.worker import Worker


def flip(path, place=None):
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    kept = {"snapshot_every": 1, "snapshot_sketch": 2, "checkpoint_every": 1}
    config = TrainConfig(hidden=(8,), epochs=1, train_size=100, batch_size=20, **kept)
    return train(config, load_dataset("digits", train_size=100), tmp_path_factory.mktemp("recorded") / "run").path


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def test_a_record_knows_itself(tmp_path):
    path = tmp_path / "done.json"
    (tmp_path / "config.json").write_text("{}")
    write_record(path, {"seconds": 3.25, "files": {}})
    assert read_record(path) == {"seconds": 3.25, "files": {}}
    assert json.loads(path.read_text())["seal"] == seal_of({"files": {}, "seconds": 3.25})
    path.write_text(path.read_text().replace("3.25", "3.75"))
    with pytest.raises(DamagedError, match=r"done.json has other contents than were written: remove .* and train it"):
        read_record(path)
    path.write_text('{"half')
    with pytest.raises(DamagedError, match="is damaged"):
        read_record(path)


def test_every_file_of_a_run_is_compared_and_others_are_not(run):
    (run / "other.txt").write_text("mine")
    assert read_recorded(run / "other.txt")[0] == b"mine"
    for name in describe_files(run, RUN_FILES):
        kept = (run / name).read_bytes()
        assert read_recorded(run / name)[0] == kept
        check_recorded(run / name)
        flip(run / name)
        for read in (read_recorded, check_recorded):
            with pytest.raises(DamagedError, match=f"{name} has other contents than were written"):
                read(run / name)
        (run / name).write_bytes(kept)


@pytest.mark.parametrize("record", ["run/done.json", "done.json", "run/meta.json"])
def test_records_of_others_are_none(record, tmp_path):
    """They lie beside weights that are no run: nothing was recorded of these, and nothing is to be removed."""
    weights = tmp_path / "run" / "weights.pt"
    weights.parent.mkdir()
    weights.write_bytes(b"mine")
    for content in ('{"half', '{"files": {"weights.pt": {"sha256": "0"}, "run/weights.pt": {"sha256": "0"}}}'):
        (tmp_path / record).write_text(content)
        assert read_recorded(weights)[0] == b"mine"
        check_recorded(weights)
        weights.touch()
    (tmp_path / record).write_text('{"half')
    with pytest.raises(DamagedError) as caught:
        read_record(tmp_path / record)
    assert "remove" not in str(caught.value)


def test_a_checkpoint_is_read_once_and_knows_its_digest(run, monkeypatch):
    digest = describe_files(run, ["ckpt.pt"])["ckpt.pt"]["sha256"]
    assert load_checkpoint(run / "ckpt.pt").digest == digest
    flip(run / "ckpt.pt")
    with pytest.raises(DamagedError):
        load_checkpoint(run / "ckpt.pt")
    shutil.copyfile(run / "checkpoints" / "epoch-0000.pt", run / "ckpt.pt")  # another that is sound in itself
    with pytest.raises(DamagedError):
        load_checkpoint(run / "ckpt.pt")


def test_a_table_is_compared_with_its_sidecar(tmp_path):
    path = tmp_path / "hessian.csv"
    write_table(pd.DataFrame({"value": [1.5, 2.5]}), path, {"seed": 0})
    assert read_table(path)["value"].tolist() == [1.5, 2.5]
    path.write_text(path.read_text().replace("2.5", "3.5"))
    with pytest.raises(DamagedError, match="give the command that wrote it again"):
        read_table(path)
    path.with_suffix(".json").unlink()  # nothing is recorded of it any more
    assert read_table(path)["value"].tolist() == [1.5, 3.5]


def test_a_command_says_it_in_one_line(run, tmp_path, capsys):
    flip(run / "trajectory.npy", -1)
    assert main(["trajectory", str(run), "--points", "3", "--samples", "20", "--out", str(tmp_path / "new")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{run}/trajectory.npy has other contents than were written: remove {run} and train it again" in said
    assert not (tmp_path / "new").exists()


def read_weights(folder, inputs, **_):
    load_checkpoint(inputs["checkpoint"])
    (folder / "result.csv").write_text("a\n1\n")


def test_a_sweep_tells_damage_from_other_failures(tmp_path):
    store = RunStore(tmp_path / "store")
    job = TrainJob(config=TrainConfig(hidden=(8,), epochs=1, train_size=100))
    execute([job], store)
    flip(job.folder(store).checkpoint)
    reads = AnalysisJob(name="r", version=1, function=f"{__name__}:read_weights", inputs={"checkpoint": job.file()})
    (failure,) = execute([reads], store).failed
    assert failure.damaged
    assert "`analyze runs rm --damaged" in failure.reason


def test_a_run_in_the_place_of_another_is_damaged(tmp_path):
    store = RunStore(tmp_path / "store")
    jobs = [TrainJob(config=TrainConfig(hidden=(8,), epochs=1, train_size=100, seed=seed)) for seed in (0, 1)]
    execute(jobs, store)
    first, second = (job.folder(store) for job in jobs)
    shutil.rmtree(first.path)
    shutil.copytree(second.path, first.path)
    assert [run_state(one) for one in (first, second)] == ["damaged", "complete"]


def test_what_is_read_is_not_removed(tmp_path):
    store = RunStore(tmp_path / "store")
    job = TrainJob(config=TrainConfig(hidden=(8,), epochs=1, train_size=100))
    execute([job], store)
    run, found = job.folder(store), Inventory.of(store)
    for path in (run.path, run.checkpoint):
        with in_use([path]), pytest.raises(InputError, match="another process is at work on"), found.removing([run]):
            pass
    with in_use([run.path]), in_use([run.path]):  # readers do not keep each other out
        pass
    with found.removing([run]):
        pass
    assert not run.path.exists()


def test_more_runs_are_held_than_files_may_be_open(tmp_path):
    store, limits = RunStore(tmp_path / "store"), resource.getrlimit(resource.RLIMIT_NOFILE)
    store.create()
    folders = [store.root / "runs" / f"{number:016x}" for number in range(300)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
    try:
        with (
            in_use(folders),
            store.locked(folders[-1].name, wait=False) as got,
            store.locked("other", wait=False) as free,
        ):
            assert (got, free) == (False, True)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_what_trains_is_read_without_waiting_and_once_a_run(tmp_path):
    store = RunStore(tmp_path / "store")
    store.create()
    folder = store.run("a" * 64).path
    epochs = [folder / "checkpoints" / f"epoch-{epoch:04d}.pt" for epoch in range(50)]
    with store.locked(folder.name), in_use(epochs):  # it waited for the end of the training
        pass
    before = len(os.listdir("/proc/self/fd"))
    with in_use([folder, *epochs]):
        assert len(os.listdir("/proc/self/fd")) == before + 1
        with store.locked(folder.name, wait=False) as free:
            assert not free


def test_a_store_without_locks_is_read(tmp_path, monkeypatch):
    def read_only(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    store = RunStore(tmp_path / "store")
    store.create()
    monkeypatch.setattr(fcntl, "flock", read_only)
    with store.read("a" * 64):
        pass


def test_a_run_that_is_there_is_free_while_the_rest_of_its_stack_trains(tmp_path, monkeypatch):
    store = RunStore(tmp_path / "store")
    jobs = [TrainJob(config=TrainConfig(hidden=(8,), epochs=1, train_size=100, seed=seed)) for seed in (0, 1)]
    execute(jobs[:1], store)
    keys = [job.key(store) for job in jobs]
    free = []

    def train_together(*_):
        for key in keys:
            with store.locked(key, wait=False) as held:
                free.append(held)

    worker = Worker(store, "cpu", 2)
    monkeypatch.setattr(worker, "_train_together", train_together)
    assert worker.perform(list(zip(keys, jobs, strict=True)))[0] == "reused"
    assert free == [True, False]


def test_results_do_not_replace_a_file_of_the_run(run, capsys):
    flags = ["trajectory", str(run), "--points", "3", "--samples", "20", "--quiet"]
    assert main([*flags, "--out", str(run)]) == 2
    assert "trajectory.json of the run" in capsys.readouterr().err
    for _ in range(2):  # the second call found the layout of the weights replaced
        assert main(flags) == 0
    assert (run / "trajectory" / "trajectory.csv").is_file()
    assert "steps" in json.loads((run / "trajectory.json").read_text())
