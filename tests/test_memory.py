"""What cannot fit is refused before anything is made: the memory there is, and what a run needs at least."""

import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignscape import memory
from alignscape.errors import InputError
from alignscape.memory import free_memory, gigabytes, require_disk, require_memory
from landscape import HessianOperator, extreme_eigenpairs
from training import TrainConfig, build_model, load_dataset, make_rule, stack_size, train_many
from training import memory as training_memory
from training.memory import layers_of, mlp_layers, snapshot_count, training_bytes
from training.rules import RULES
from training.trajectory import snapshot_steps

ROOT = Path(__file__).resolve().parent.parent


def test_what_fits_passes_and_what_does_not_says_both_numbers(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 8_000_000_000)
    monkeypatch.setattr(memory, "_free_swap", lambda: 0)
    require_memory({"weights": 5_000_000_000, "feedback": 3_000_000_000}, "training", "less")
    with pytest.raises(InputError) as caught:
        require_memory({"weights": 5_000_000_000, "feedback": 4_000_000_000, "sketch": 0}, "training", "have less")
    assert str(caught.value) == (
        "training needs 9 GB of memory at least (weights 5 GB, feedback 4 GB); 8 GB are free: have less"
    )
    monkeypatch.setattr(memory, "_free_swap", lambda: 10**9)
    require_memory({"weights": 9_000_000_000}, "training", "less")


def test_a_system_that_does_not_say_refuses_nothing(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: None)
    require_memory({"weights": 10**30}, "training", "less")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_limit_on_the_address_space_counts():
    """As `ulimit -v` sets it; nothing heavy is imported for that."""
    code = (
        "import resource, sys\nfrom alignscape.memory import free_memory\nbefore = free_memory()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (500_000_000, 500_000_000))\nprint(before, free_memory())\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert 300_000_000 < after < 500_000_000 < before


def test_the_limit_of_a_control_group_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    free = free_memory()
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert free_memory() > free / 2
    (tmp_path / "memory.max").write_text("51000\n")
    assert free_memory() == 50_000
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("2000")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("3000")
    assert free_memory() == 0


@pytest.mark.parametrize(
    ("limit", "used", "prefix"),
    [
        ("memory.max", "memory.current", ""),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_"),
    ],
)
def test_files_that_a_control_group_has_read_leave_their_room(tmp_path, monkeypatch, limit, used, prefix):
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    monkeypatch.setattr(memory, "_available_by_kernel", lambda: None)
    monkeypatch.setattr(memory, "_left_by_limits", list)
    (tmp_path / "memory").mkdir()
    (tmp_path / limit).write_text(str(8 * 2**30))
    (tmp_path / used).write_text(str(8 * 2**30 - 2**20))
    stat = (tmp_path / used).with_name("memory.stat")
    assert free_memory() == 2**20
    other = "inactive_file 5\n" if prefix else "file_mapped 5\n"
    stat.write_text(f"anon 17\n{other}{prefix}inactive_file {6 * 2**30}\n{prefix}active_file {2**30}\n")
    assert free_memory() == 7 * 2**30 + 2**20
    stat.write_text("half a li")
    assert free_memory() == 2**20


def test_a_full_disk_names_the_folder(tmp_path):
    require_disk(1, tmp_path / "not" / "yet", "a trajectory", "less")
    with pytest.raises(OSError, match=r"a trajectory takes 1,000,000,000 GB on disk, .* are free, keep less") as caught:
        require_disk(10**18, tmp_path / "not" / "yet", "a trajectory", "keep less")
    assert caught.value.filename == str(tmp_path / "not" / "yet")


def test_bytes_in_words():
    assert [gigabytes(n) for n in (9760, 1_500_000, 2_000_000_000, 16_001_000_000_000)] == [
        *("0.00976 MB", "1.5 MB", "2 GB", "16,001 GB")
    ]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("network", ["mlp", "lenet"])
@pytest.mark.parametrize("density", [1.0, 0.5])
def test_the_size_of_feedback_is_that_of_its_tensors(rule, network, density):
    shape = (1, 8, 8) if network == "mlp" else (1, 32, 32)
    config = TrainConfig(rule=rule, model=network, hidden=(7, 5), expansion=3, feedback_density=density)
    made = make_rule(config)
    model = build_model(config, shape, 10)
    made.initialise(model)
    twin = made.wrap(model, shape)
    plain = {id(t) for t in (*model.parameters(), *model.buffers())}
    more = [t for t in (*twin.parameters(), *twin.buffers()) if id(t) not in plain]
    layers = layers_of(model, shape)
    found = training_bytes(config, made, layers, 10)
    assert found["weights"] == 4 * sum(p.numel() for p in model.parameters() if p.ndim > 1)
    assert found["feedback"] == sum(t.nbytes for t in more)
    assert found["gradients"] == found["weights"] + sum(t.nbytes for t in more if isinstance(t, torch.nn.Parameter))
    if network == "mlp":
        assert layers == mlp_layers(config, 64, 10)


@pytest.mark.parametrize(("optimiser", "momentum"), [("adam", 0.9), ("sgd", 0.9), ("sgd", 0.0)])
def test_the_size_of_the_optimiser_is_that_of_its_state(optimiser, momentum):
    weight = torch.nn.Parameter(torch.ones(5, 64))
    made = torch.optim.Adam([weight], 0.1) if optimiser == "adam" else torch.optim.SGD([weight], 0.1, momentum=momentum)
    weight.grad = torch.ones_like(weight)
    made.step()
    state = [t for t in made.state[weight].values() if isinstance(t, torch.Tensor) and t.numel() > 1]
    config = TrainConfig(hidden=(), optimiser=optimiser, momentum=momentum)
    found = training_bytes(config, make_rule(config), mlp_layers(config, 64, 5), 5)
    assert found["optimiser"] == sum(t.nbytes for t in state)


def test_a_sketch_takes_no_more_rows_than_there_are_steps():
    def rows(**fields) -> float:
        config = TrainConfig(hidden=(), snapshot_every=1, snapshot_sketch=30, batch_size=20, **fields)
        found = training_bytes(config, make_rule(config), mlp_layers(config, 64, 5), 5)
        return found["sketch"] / found["weights"]

    assert rows() == 63
    assert rows(epochs=2, train_size=90) == 2 * 5 + 1 + 3
    assert rows(epochs=50, train_size=90) == 63


@pytest.mark.parametrize("batch_size", [2, 500])
def test_noise_and_gradients_need_not_be_there_at_once(batch_size):
    config = TrainConfig(rule="wm", hidden=(7,), batch_size=batch_size)
    made, layers = make_rule(config), mlp_layers(config, 64, 5)
    found = training_bytes(config, made, layers, 5)
    noise = 4 * max(map(made.drawn_each_step, layers))
    assert (noise > found["gradients"]) == (batch_size == 500)
    assert found["gradients"] + found["noise"] == max(noise, found["gradients"])


@pytest.mark.parametrize("rule", [name for name, rule in RULES.items() if rule.moves_by_tensors()])
def test_what_a_rule_draws_for_a_step_is_known_before(rule):
    """All of it, as a recorded step wants it at once."""
    made = make_rule(config := TrainConfig(rule=rule, hidden=(9, 7), batch_size=20))
    twin = made.wrap(build_model(config, (1, 8, 8), 5), (1, 8, 8))
    drawn = sum(draw().numel() for draw in made.draws(twin, 0, 20).values())
    assert 0 < drawn <= sum(map(made.drawn_each_step, mlp_layers(config, 64, 5)))


def test_every_config_of_another_size_is_checked(monkeypatch):
    seen = []
    monkeypatch.setattr(training_memory, "require_room", lambda configs, *_: seen.extend(configs))
    base = TrainConfig(rule="fa", seed=1)
    others = [{"optimiser": "sgd"}, {"feedback_density": 0.5}, {"batch_size": 7}, {"hidden": (3,)}]
    configs = [base, dataclasses.replace(base, seed=2), *(dataclasses.replace(base, **other) for other in others)]
    training_memory.require_room_for_each(configs, torch.device("cpu"))
    assert len(seen) == 1 + len(others)


def test_no_memory_left_is_not_unknown(monkeypatch):
    for free, taken in ((0, 0), (None, 2**31), (5, 5)):
        monkeypatch.setattr(memory, "free_memory", lambda device, free=free: free)
        assert stack_size.free_memory(torch.device("cpu")) == taken


def test_a_basis_has_no_more_rows_than_the_matrix(monkeypatch):
    """40 rows are what a search takes; nine parameters leave room for nine."""
    model, data = torch.nn.Linear(2, 3), (torch.eye(2), torch.tensor([0, 2]))
    operator = HessianOperator(model, torch.nn.CrossEntropyLoss(), data)
    monkeypatch.setattr(memory, "_free_swap", lambda: 0)
    monkeypatch.setattr(memory, "free_memory", lambda device: 9 * 9 * 4)
    assert len(extreme_eigenpairs(operator, 1).values) == 1


@given(st.integers(0, 500), st.integers(1, 60))
def test_snapshots_are_counted_without_a_list(total, every):
    assert snapshot_count(total, every) == len(snapshot_steps(total, every))


def test_a_stack_that_does_not_fit_leaves_nothing(tmp_path, monkeypatch):
    configs = [TrainConfig(rule="fa", hidden=(64,), epochs=1, train_size=50, seed=seed) for seed in range(3)]
    needed = sum(training_bytes(configs[0], make_rule(configs[0]), mlp_layers(configs[0], 64, 10), 10).values())
    monkeypatch.setattr(memory, "_free_swap", lambda: 0)
    monkeypatch.setattr(memory, "free_memory", lambda device=None: math.ceil(1.5 * needed))
    data = load_dataset("digits", train_size=50)
    jobs = [(config, tmp_path / "runs" / str(config.seed)) for config in configs]
    with pytest.raises(InputError, match="training 2 networks at once needs"):
        train_many(jobs, data, stack=3)
    assert list(tmp_path.iterdir()) == []
    assert all(run.is_done for run in train_many(jobs, data, stack=1))


def test_a_trajectory_that_the_disk_does_not_hold_leaves_nothing(tmp_path):
    config = TrainConfig(hidden=(64,), epochs=10**9, snapshot_every=1, train_size=50)
    with pytest.raises(OSError, match="a trajectory of 1,000,000,001 snapshots takes"):
        train_many([(config, tmp_path / "run")], load_dataset("digits", train_size=50))
    assert list(tmp_path.iterdir()) == []
    assert os.path.isdir(tmp_path)
