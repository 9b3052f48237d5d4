"""The store: keys of what results depend on, whole entries or none, one process at a time, damage found."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from alignscape.errors import InputError
from reports.cli import main
from training.config import TrainConfig
from training.data import load_dataset
from training.loop import train
from training.run_folder import RunFolder
from training.store.cluster import execute
from training.store.digests import data_digest, forget_digests
from training.store.inventory import Inventory, _run_problems
from training.store.jobs import AnalysisJob, DataFiles, TrainJob
from training.store.run_store import RunStore, run_state

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def store(tmp_path) -> RunStore:
    return RunStore(tmp_path / "store")


def config(**fields) -> TrainConfig:
    return TrainConfig(**{"hidden": (8,), "epochs": 1, "train_size": 100, **fields})


def trained(store: RunStore, **fields) -> TrainJob:
    """A run in the store, and the job that names it."""
    job = TrainJob(config=config(**fields))
    train(job.config, load_dataset("digits", train_size=job.config.train_size), job.folder(store).path)
    return job


def test_a_sparse_pfa_run_of_the_old_scale_is_whole_and_found_no_more(store, monkeypatch):
    """Its config is what it was, and means another run."""
    store.create()
    with monkeypatch.context() as before:
        before.setattr("training.config.REVISIONS", {})
        job = trained(store, rule="pfa", expansion=2, feedback_density=0.5, optimiser="sgd")
        old = job.folder(store).path
        assert job.is_done(store)
    assert not job.is_done(store)
    assert Inventory.of(store).run_row(RunFolder(old))["state"] == "complete"
    assert not _run_problems(RunFolder(old), hashed=True)
    with pytest.raises(InputError, match="holds a run of an earlier version"):
        train(job.config, load_dataset("digits", train_size=100), old)


def write(text: str):
    return lambda folder: (folder / "result.csv").write_text(text)


def of_run(job: TrainJob, name="acc", **parameters) -> AnalysisJob:
    return AnalysisJob(
        name=name, version=1, function="nowhere:f", inputs={"checkpoint": job.file()}, parameters=parameters
    )


def test_the_key_is_that_of_everything_a_result_depends_on(store):
    def key(name="hessian", version=1, inputs=("a" * 64,), parameters=(("k", 2),)):
        named = {str(i): digest for i, digest in enumerate(inputs)}
        return store.analysis(name, version=version, inputs=named, parameters=dict(parameters)).key

    others = [
        key("trace"),
        key(version=2),
        key(inputs=["b" * 64]),
        key(inputs=["a" * 64] * 2),
        key(parameters={"k": 3}),
    ]
    assert len({key(), *others}) == 6
    assert key() == key()
    forward = store.analysis("x", version=1, inputs={}, parameters={"a": [1, 2], "b": None}).key
    assert forward == store.analysis("x", version=1, inputs={}, parameters={"b": None, "a": (1, 2)}).key


def test_an_analysis_is_there_whole_or_not_at_all(store):
    entry = store.analysis("hessian", version=1, inputs={"c": "0" * 64}, parameters={})

    def fails(folder):
        (folder / "result.csv").write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        entry.compute(fails)
    assert not entry.is_done
    assert list((store.root / "analyses").iterdir()) == []
    with pytest.raises(RuntimeError, match="hessian wrote nothing"):
        entry.compute(lambda folder: None)

    assert entry.compute(write("a,b\n1,2\n"), device="cpu") == "computed"
    assert entry.is_done
    assert entry.read_table().equals(pd.DataFrame({"a": [1], "b": [2]}))
    assert entry.meta()["device"] == "cpu"
    assert entry.compute(fails) == "reused"


def test_files_that_lost_their_size_are_computed_again(store):
    entry = store.analysis("hessian", version=1, inputs={}, parameters={})
    entry.compute(write("a\n1\n"))
    entry.file("result.csv").write_text("a\n")
    assert not entry.is_done
    assert entry.compute(write("a\n2\n")) == "computed"
    assert entry.read_table().a.tolist() == [2]


KILLED = """
import os, sys, signal
from training.store.run_store import RunStore
entry = RunStore(sys.argv[1]).analysis("hessian", version=1, inputs={}, parameters={})
def write(folder):
    (folder / "result.csv").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
entry.compute(write)
"""


def test_a_writer_that_is_killed_leaves_nothing_in_the_way(store):
    done = subprocess.run([sys.executable, "-c", KILLED, str(store.root)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    entry = store.analysis("hessian", version=1, inputs={}, parameters={})
    assert len(list((store.root / "analyses").glob(".*.tmp"))) == 1  # what it left
    assert not entry.is_done
    assert store.analyses() == []
    assert entry.compute(write("a\n1\n")) == "computed"
    assert [p.name for p in (store.root / "analyses").iterdir()] == [entry.path.name]


COUNTING = """
import sys, time
from training.store.run_store import RunStore
store = RunStore(sys.argv[1])
def write(folder):
    with open(sys.argv[2], "a") as log:
        log.write("once\\n")
    time.sleep(0.02)
    (folder / "result.csv").write_text("a")
for i in range(20):
    print(store.analysis("hessian", version=1, inputs={}, parameters={"i": i}).compute(write))
"""


def test_processes_at_once_compute_each_thing_once(store, tmp_path):
    command = [sys.executable, "-c", COUNTING, str(store.root), str(tmp_path / "log")]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [line for process in processes for line in process.communicate()[0].split()]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert (tmp_path / "log").read_text().count("once") == 20
    assert sorted(said) == ["computed"] * 20 + ["reused"] * 40


def test_a_key_that_is_held_is_busy_until_its_process_dies(store):
    code = (
        "import sys, time\nfrom training.store.run_store import RunStore\n"
        "with RunStore(sys.argv[1]).locked('f' * 64): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(store.root)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with store.locked("f" * 64, wait=False) as held:
        assert not held
    holder.kill()
    holder.wait()
    with store.locked("f" * 64, wait=False) as held:
        assert held


def test_the_digest_of_data_is_remembered_until_a_file_changes(store, tmp_path, monkeypatch):
    """For files in CIFAR-10's layout, counted by how often they are loaded."""
    calls = []

    def load(name, root, **options):
        calls.append(options)
        return load_dataset("digits", train_size=10 + len(calls))

    monkeypatch.setattr("training.data.load_dataset", load)
    names = ["batches.meta", "test_batch", *(f"data_batch_{i}" for i in range(1, 6))]
    for name in names:
        (tmp_path / "cifar-10-batches-py").mkdir(exist_ok=True)
        (tmp_path / "cifar-10-batches-py" / name).write_text(name)
    store.create()
    first = data_digest(store, "cifar10", tmp_path, train_size=None)
    assert first == load_dataset("digits", train_size=11).digest()
    assert data_digest(store, "cifar10", tmp_path, train_size=None) == first
    assert len(calls) == 1
    assert data_digest(store, "cifar10", tmp_path, train_size=5) != first
    os.utime(tmp_path / "cifar-10-batches-py" / "data_batch_3", (1, 1))
    assert data_digest(store, "cifar10", tmp_path, train_size=None) != first
    assert len(calls) == 3
    forget_digests(store, "cifar10")
    assert list((store.root / "data").iterdir()) == []


def test_jobs_find_their_results_by_the_digests_of_their_inputs(store):
    """Known before anything is there; a retrained network with other weights has other analyses."""
    job = TrainJob(config=config())
    first = of_run(job, k=1)
    later = AnalysisJob(name="plot", version=1, function="nowhere:f", inputs={"table": first.file()})
    assert first.entry(store) is None
    assert later.entry(store) is None
    keys = {first.key(store), later.key(store), job.key(store)}
    assert len(keys) == 3
    assert of_run(TrainJob(config=config()), k=1).key(store) == first.key(store)
    assert of_run(TrainJob(config=config(seed=1)), k=1).key(store) != first.key(store)

    trained(store)
    assert job.is_done(store)
    entry = first.entry(store)
    recorded = json.loads((job.folder(store).path / "done.json").read_text())["files"]
    assert entry.definition["inputs"] == {"checkpoint": recorded["ckpt.pt"]["sha256"]}
    assert later.entry(store) is None
    entry.compute(write("a\n1\n"))
    assert later.entry(store).definition["inputs"] == {"table": entry.meta()["files"]["result.csv"]["sha256"]}
    assert {first.key(store), later.key(store), job.key(store)} == keys
    with pytest.raises(InputError, match=r"left no checkpoints/epoch-0007.pt; it has ckpt.pt, config.json"):
        AnalysisJob(name="x", version=1, function="f:f", inputs={"c": job.file("checkpoints/epoch-0007.pt")}).entry(
            store
        )
    data = AnalysisJob(name="set", version=1, function="f:f", inputs={"data": DataFiles("digits")}).entry(store)
    assert data.definition["inputs"] == {"data": load_dataset("digits").digest()}


def test_planning_needs_no_torch(store):
    """A second `analyze figures` must answer at once."""
    job = trained(store)
    of_run(job).entry(store).compute(write("a\n1\n"))
    code = (
        "import sys\nfrom training.store.cluster import execute\nfrom training.config import TrainConfig\n"
        "from training.store.jobs import AnalysisJob, TrainJob\nfrom training.store.run_store import RunStore\n"
        "run = TrainJob(config=TrainConfig(hidden=(8,), epochs=1, train_size=100))\n"
        "job = AnalysisJob(name='acc', version=1, function='nowhere:f', inputs={'checkpoint': run.file()})\n"
        "print(execute([job], RunStore(sys.argv[1])))\n"
        "print([name for name in ('torch', 'numpy', 'pandas', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(store.root)], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "runs: 0 computed, 1 reused; analyses: 0 computed, 1 reused\n[]\n", done.stderr


# ---- analyze runs ----


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> RunStore:
    """Two complete runs (BP, FA), one that diverged, one interrupted; analyses on BP, and one on such an analysis."""
    store = RunStore(tmp_path_factory.mktemp("filled") / "store")
    store.create()
    bp, _ = trained(store, checkpoint_every=1), trained(store, rule="fa", seed=3)
    trained(store, rule="ifa", angle=30.0, lr=1e30, optimiser="sgd", epochs=2)
    first = of_run(bp)
    first.entry(store).compute(write("a\n1\n"), sources={"checkpoint": "digits-bp-seed0"})
    second = AnalysisJob(name="plot", version=2, function="nowhere:f", inputs={"table": first.file()})
    second.entry(store).compute(write("b\n2\n"))
    cut = trained(store, seed=9).folder(store).path
    (cut / "done.json").unlink()
    return store


@pytest.fixture
def copied(filled, tmp_path) -> RunStore:
    shutil.copytree(filled.root, tmp_path / "copy")
    return RunStore(tmp_path / "copy")


def analyze(capsys, store: RunStore, *argv: str) -> tuple[int, str, str]:
    action, *rest = argv
    try:
        status = main(["runs", action, *rest, "--store", str(store.root)])
    except SystemExit as error:
        status = error.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def rows(capsys, store: RunStore, *argv: str) -> list[dict]:
    return json.loads(analyze(capsys, store, "ls", "--json", *argv)[1])


def test_ls_shows_where_each_run_stands(capsys, filled):
    found = {(row["rule"], row["seed"]): row for row in rows(capsys, filled)}
    states = {who: row["state"] for who, row in found.items()}
    assert states == {
        ("bp", 0): "complete", ("fa", 3): "complete", ("ifa", 0): "diverged", ("bp", 9): "interrupted",
    }  # fmt: skip
    bp = found["bp", 0]
    folder = filled.root / "runs" / bp["key"]
    assert bp["accuracy"] == pytest.approx(pd.read_csv(folder / "metrics.csv").test_accuracy.iloc[-1])
    assert bp["bytes"] == sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    assert bp["analyses"] == 2  # one on the run, one on that one's table
    assert found["ifa", 0]["angle"] == 30
    assert [row["rule"] for row in rows(capsys, filled, "--rule", "fa", "--seed", "3")] == ["fa"]
    assert rows(capsys, filled, "--rule", "fa", "--seed", "4") == []
    assert len(rows(capsys, filled, "--state", "interrupted")) == 1
    _, table, _ = analyze(capsys, filled, "ls")
    lines = table.splitlines()
    assert lines[0].split()[:5] == ["key", "run", "rule", "angle", "seed"]
    assert "lr" in lines[0].split()  # in which the runs differ
    assert "momentum" not in lines[0].split()
    assert len(lines) == 5


def test_a_run_in_hand_is_in_progress(capsys, copied):
    key = next(row["key"] for row in rows(capsys, copied) if row["state"] == "interrupted")
    with copied.locked(key):
        assert [row["key"] for row in rows(capsys, copied, "--state", "in progress")] == [key]
        status, _, err = analyze(capsys, copied, "rm", key, "--yes")
        assert status == 2
        assert "another process is at work" in err
    assert (copied.root / "runs" / key).is_dir()


def test_show_finds_by_the_beginning_of_a_key(capsys, filled):
    bp = next(row["key"] for row in rows(capsys, filled, "--rule", "bp", "--seed", "0"))
    shown = json.loads(analyze(capsys, filled, "show", bp[:9], "--json")[1])
    assert shown["run"] == bp
    assert shown["config"]["hidden"] == [8]
    assert set(shown["analyses"].values()) == {"acc", "plot"}
    assert "checkpoints/epoch-0001.pt" in shown["files"]
    first = next(key for key, name in shown["analyses"].items() if name == "acc")
    _, text, _ = analyze(capsys, filled, "show", first)
    assert "name: acc" in text
    assert "digits-bp-seed0, sha256 " in text
    status, _, err = analyze(capsys, filled, "show", "")
    keys = [p.path.name for p in Inventory.of(filled).items()]
    assert status == 2
    assert f"the beginning of {len(keys)} keys: {keys[0]}, {keys[1]}" in err
    assert "no run or analysis" in analyze(capsys, filled, "show", "xyz")[2]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_verify_names_every_damaged_file(capsys, copied):
    assert analyze(capsys, copied, "verify", "--quiet")[0] == 0
    by_rule = {row["rule"]: copied.root / "runs" / row["key"] for row in rows(capsys, copied, "--state", "complete")}
    entries = {entry.definition["analysis"]: entry for entry in copied.analyses()}
    flip(by_rule["bp"] / "checkpoints" / "epoch-0000.pt")
    (by_rule["fa"] / "metrics.csv").unlink()
    recorded = (by_rule["fa"] / "config.json").read_text()
    (by_rule["fa"] / "config.json").write_text(recorded.replace('"seed": 3', '"seed": 4'))
    flip(entries["acc"].file("result.csv"))
    (entries["plot"].path / "meta.json").write_text("{")
    status, out, _ = analyze(capsys, copied, "verify", "--quiet")
    assert status == 1
    for path, problem in [
        (by_rule["bp"], "checkpoints/epoch-0000.pt has other contents than were written"),
        (by_rule["fa"], "metrics.csv is missing"),
        (by_rule["fa"], "config.json has other contents than were written"),
        (by_rule["fa"], "config.json does not fit its key"),
        (entries["acc"].path, "result.csv has other contents than were written"),
        (entries["plot"].path, "meta.json is missing or damaged"),
    ]:
        assert f"{path}: {problem}\n" in out
    assert out.splitlines()[-1].startswith("4 runs (1 unfinished) and 2 analyses: 4 damaged")
    assert [row["rule"] for row in rows(capsys, copied, "--state", "damaged")] == ["fa"]  # seen without reading

    assert analyze(capsys, copied, "rm", "--damaged", "--yes", "--quiet")[0] == 0
    assert analyze(capsys, copied, "verify", "--quiet")[0] == 0
    assert {row["state"] for row in rows(capsys, copied)} == {"diverged", "interrupted"}


def test_rm_takes_what_hangs_on_a_run_with_it(capsys, copied, monkeypatch):
    bp = next(row["key"] for row in rows(capsys, copied, "--rule", "bp", "--state", "complete"))
    status, out, err = analyze(capsys, copied, "rm", bp)
    assert (status, out) == (2, "")
    assert "remove 1 of 6 runs and analyses, and 2 analyses that hang on them? Say --yes" in err
    for answer, expected in (("n", 2), ("y", 0)):
        monkeypatch.setattr("sys.stdin.isatty", lambda: True)
        monkeypatch.setattr("builtins.input", lambda question, answer=answer: answer)
        assert (copied.root / "runs" / bp).is_dir()
        assert analyze(capsys, copied, "rm", bp)[0] == expected
    assert not (copied.root / "runs" / bp).exists()
    assert copied.analyses() == []
    assert len(rows(capsys, copied)) == 3
    assert analyze(capsys, copied, "rm", "--incomplete", "--yes")[1] == "removed 1 of 3 runs and analyses\n"
    assert analyze(capsys, copied, "rm", "--incomplete", "--yes")[1] == "nothing to remove\n"
    assert "name what to remove" in analyze(capsys, copied, "rm")[2]


def test_rm_unused_takes_analyses_of_what_is_gone(capsys, copied):
    assert analyze(capsys, copied, "rm", "--unused", "--yes")[1] == "nothing to remove\n"
    digits = AnalysisJob(name="set", version=1, function="f:f", inputs={"data": DataFiles("digits")})
    digits.entry(copied).compute(write("c\n"))
    bp = next(row["key"] for row in rows(capsys, copied, "--rule", "bp", "--state", "complete"))
    shutil.rmtree(copied.root / "runs" / bp)
    assert analyze(capsys, copied, "rm", "--unused", "--yes")[0] == 0
    assert [entry.definition["analysis"] for entry in copied.analyses()] == ["set"]


def test_a_folder_that_is_no_store_is_refused(capsys, tmp_path):
    status, _, err = analyze(capsys, RunStore(tmp_path), "ls")
    assert status == 2
    assert "no run store at" in err
    (tmp_path / "store.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="store of format 99; this alignscape reads format 1"):
        RunStore(tmp_path)


def test_a_path_where_no_store_can_be_is_refused_by_what_only_looks(capsys, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for place in ("file", "file/below", "loop", "loop/below"):
        flags = ["--only", "fig1", "--dry-run", "--store", str(tmp_path / place), "--out", str(tmp_path / "out")]
        assert main(["figures", *flags]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_killed_training_shows_as_interrupted_and_goes_on(store):
    """SIGKILL in the middle; the store then says so, and the same call completes it."""
    job = TrainJob(config=config(epochs=25, train_size=None))
    code = (
        "import sys\nfrom training.store.cluster import execute\nfrom training.config import TrainConfig\n"
        "from training.store.jobs import TrainJob\nfrom training.store.run_store import RunStore\n"
        "execute([TrainJob(config=TrainConfig(hidden=(8,), epochs=25))], RunStore(sys.argv[1]))"
    )
    command, one_thread = [sys.executable, "-c", code, str(store.root)], {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=one_thread)
    folder = store.run(job.key(store)).path
    while not (folder / "resume.pt").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert run_state(store.run(job.key(store))) == "in progress"
    assert Inventory.of(store).run_row(store.run(job.key(store)))["state"] == "interrupted"
    execute([job], store)
    assert run_state(store.run(job.key(store))) == "complete"
    alone = train(job.config, load_dataset("digits"), store.root / "alone")
    assert (
        pd.read_csv(alone.path / "metrics.csv")
        .drop(columns="seconds")
        .equals(pd.read_csv(folder / "metrics.csv").drop(columns="seconds"))
    )


def test_train_into_a_store(capsys, tmp_path):
    """`analyze train --store` gives each run its key, and leaves alone what is there."""
    flags = ["train", "--hidden", "8", "--epochs", "1", "--train-size", "60", "--store", str(tmp_path), "--quiet"]
    assert main([*flags, "--seeds", "0", "1"]) == 0
    assert capsys.readouterr().err == "2 trained, 0 there already\n"
    assert main([*flags, "--seeds", "0..2"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "1 trained, 2 there already\n"
    keys = [row["key"] for row in rows(capsys, RunStore(tmp_path))]
    assert len(keys) == 3
    assert all(f"/runs/{key}" in captured.out for key in keys)
    with pytest.raises(SystemExit, match="1"):
        main(["train", *flags[3:], "--network", "gpt"])
    assert "unknown model 'gpt'" in capsys.readouterr().err
    assert main([*flags, "--out", str(tmp_path / "x")]) == 2
    assert main(["train", "--executor", "ray"]) == 2
    assert "needs --store" in capsys.readouterr().err


def test_asking_for_a_key_makes_no_store_and_is_remembered_when_there_is_one(store, monkeypatch):
    job = TrainJob(config=config())
    key = job.key(store)
    assert not store.root.exists()
    monkeypatch.setattr("training.data.load_dataset", None)  # it would have to be loaded again
    assert job.key(store) == key
    store.create()
    assert len(list((store.root / "data").iterdir())) == 1


def test_what_is_remembered_for_a_store_by_a_relative_path_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = RunStore(Path("store"))
    relative.note(relative.root / "data" / "digits-0.json", {"digest": "7b"})
    monkeypatch.chdir("/")
    RunStore(tmp_path / "store").create()
    assert json.loads((tmp_path / "store" / "data" / "digits-0.json").read_text())["digest"] == "7b"


def test_a_folder_that_another_process_gives_up_meanwhile_is_a_line(tmp_path, monkeypatch):
    """Between its making and its lock file."""

    def made(path):
        return [path]

    monkeypatch.setattr("training.run_folder.make_folder", made)
    with pytest.raises(InputError, match="try again"), RunFolder(tmp_path / "run").locked():
        pass
