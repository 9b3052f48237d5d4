"""SIGKILL at any moment, again and again, and two sweeps at once: the store ends as if nothing had happened."""

import multiprocessing
import random
import time
from collections import Counter
from pathlib import Path

import pytest
import sweep_jobs
import torch

from training.checkpoint import load_checkpoint
from training.store.inventory import Inventory
from training.store.run_store import RunStore


@pytest.fixture(scope="module")
def processes():
    """Children that have torch already: forked from a server that has imported it, and runs no thread."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sweep_jobs", "training.store.cluster", "training.loop", "training.stack_size"])
    return context


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_a_sweep_that_is_killed_at_any_moment_ends_as_if_it_had_not_been(processes, tmp_path, seed):
    store, log = RunStore(tmp_path / "store"), str(tmp_path / "log")
    moments = random.Random(seed)
    kills = 0
    while True:
        child = processes.Process(target=sweep_jobs.run_here, args=(str(store.root), log))
        child.start()
        child.join(moments.uniform(0.05, 0.6) if kills < 12 else 60)
        if not child.is_alive():
            break
        child.kill()
        child.join()
        kills += 1
    assert child.exitcode == 0
    assert kills > 3
    undisturbed = RunStore(tmp_path / "undisturbed")
    sweep_jobs.run_here(str(undisturbed.root), log)

    inventory = Inventory.of(store)
    assert {run.path.name for run in inventory.runs} == {run.path.name for run in undisturbed.runs()}
    assert len(inventory.analyses) == 7
    assert [problem for item in inventory.items() for problem in inventory.problems(item, hashed=True)] == []
    for run in inventory.runs:
        ours, theirs = (load_checkpoint(s.run(run.path.name).checkpoint) for s in (store, undisturbed))
        for name, weights in ours.model.items():  # stacks may have been formed anew from what was left
            torch.testing.assert_close(weights, theirs.model[name], rtol=1e-4, atol=1e-6)
    left = [path for folder in ("runs", "analyses") for path in (store.root / folder).glob(".*")]
    assert left == []
    assert list((store.root / "runs").rglob("*.tmp*")) == []


def test_two_sweeps_at_once_share_the_work(processes, tmp_path):
    store, log = tmp_path / "store", tmp_path / "log"
    children = [processes.Process(target=sweep_jobs.run_here, args=(str(store), str(log), 0.2)) for _ in range(3)]
    for child in children:
        child.start()
    deadline = time.monotonic() + 100
    for child in children:
        child.join(deadline - time.monotonic())
    assert [child.exitcode for child in children] == [0, 0, 0]
    done = Counter(line.split()[1] for line in Path(log).read_text().splitlines() if line.startswith("end"))
    assert len(done) == 7
    assert set(done.values()) == {1}
    assert len(RunStore(store).runs()) == 6
