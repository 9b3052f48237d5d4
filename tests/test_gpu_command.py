"""``python -m benchmarks.gpu``: its limits, its judgements and its tables; on a CPU, where it rehearses."""

import dataclasses
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import train
from benchmarks.gpu import equality, figures, missing, projection, running, speed, tables
from benchmarks.gpu.__main__ import main, together
from benchmarks.gpu.parts import PARTS, Part, Report, Setup
from reports.paper import PROFILES, TARGETS
from reports.paper.reproduction import distinct_jobs, plan
from training.data import load_dataset
from training.rules.fa import FeedbackAlignment
from training.store import RunStore

ROOT = Path(__file__).resolve().parent.parent
PART = Part("fake", "a part of a test", "none:none", 1.0, decides=True)

# A part that says something, starts a process of its own and then behaves as its first argument says.
FAKE = """
import json, subprocess, sys, time
words = dict(zip(sys.argv[2::2], sys.argv[3::2]))
rows = open(words["--rows"], "a")
def say(**one):
    rows.write(json.dumps(one) + chr(10)); rows.flush()
say(kind="check", name="first", outcome="passed", detail="")
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
say(kind="line", text=str(child.pid))
if sys.argv[1] == "hangs":
    rows.write('{"kind": "check", "na'); rows.flush(); time.sleep(600)
if sys.argv[1] == "fails":
    say(kind="check", name="second", outcome="failed", detail="")
sys.exit(sys.argv[1] == "breaks")
"""


def fake(manner, tmp_path, **options):
    command = [sys.executable, "-c", FAKE, manner]
    return running.run_part(PART, command, **{"seconds": 60, "log": tmp_path / "log", **options})


def lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("manner", "state", "fails"), [("ends", "passed", False), ("fails", "failed", True), ("breaks", "broke", True)]
)
def test_a_part_is_judged_by_what_it_says_and_how_it_ends(manner, state, fails, tmp_path):
    outcome = fake(manner, tmp_path)
    assert (outcome.state, outcome.fails) == (state, fails)
    assert "1 passed" in outcome.line


def test_a_part_that_hangs_is_killed_with_all_that_it_started_and_keeps_what_it_said(tmp_path):
    began = time.monotonic()
    outcome = fake("hangs", tmp_path, seconds=3)
    assert time.monotonic() - began < 20
    assert (outcome.state, outcome.fails) == ("cut short", True)
    assert [one["kind"] for one in outcome.said] == ["check", "line"], "a line of which a part was written is left out"
    child = outcome.said[1]["text"]
    deadline = time.monotonic() + 10
    while lives(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not lives(child)


def test_what_is_missing_skips_its_part_by_name(tmp_path):
    needy = dataclasses.replace(PART, needs=("json", "no_such_module"))
    outcome = running.run_part(needy, ["false"], seconds=60, log=tmp_path / "log")
    assert (outcome.state, outcome.line, outcome.fails) == ("skipped", "no_such_module is not installed here", False)


def test_parts_that_are_not_timed_go_side_by_side_on_a_gpu():
    parts = list(PARTS.values())
    assert [part.name for part in next(iter(together(parts, "cuda")))] == ["tests", "equality", "resume"]
    assert [len(group) for group in together(parts, "cpu")] == [1] * len(parts)


def command(monkeypatch, *words: object) -> int:
    """Give the command in this process; its parts are processes of their own."""
    monkeypatch.setattr(sys, "argv", ["gpu", *map(str, words)])
    monkeypatch.setattr("signal.signal", lambda *given: None)
    return main()


def test_without_a_gpu_one_line_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command(monkeypatch, "--out", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "sees no GPU; --device cpu rehearses" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_rehearsal_of_one_part_leaves_its_tables(tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"{tables.BEGIN}\n{tables.END}\n")
    words = ("surface", "--device", "cpu", "--minutes", 5, "--out", tmp_path / "out", "--table", page)
    assert command(monkeypatch, *words) == 0, (tmp_path / "out" / "gpu.log").read_text()
    assert capsys.readouterr().out.startswith("surface    done ")
    found = json.loads((tmp_path / "out" / "gpu.json").read_text())
    (part,) = found["parts"]
    rows = tables.tables(found["parts"])
    assert [row["points"] for row in rows["surface"]] == [5, 9]
    assert float(rows["surface"][0]["difference"]) < 1e-5
    assert part["seconds"] <= found["seconds"] <= 300
    for text in (page.read_text(), (tmp_path / "out" / "gpu.md").read_text()):
        assert "### Surface\n| points | samples |" in text


def said(stream: io.StringIO, kind: str) -> list[dict]:
    return [one for line in stream.getvalue().splitlines() if (one := json.loads(line))["kind"] == kind]


def check_equality(tmp_path, rule: str) -> dict[str, str]:
    stream = io.StringIO()
    setup = Setup(device="cpu", folder=tmp_path, seconds=60)
    equality.equality(setup, Report(stream, "cpu"), rules=(rule,))
    return {one["name"]: one["outcome"] for one in said(stream, "check")}


def test_equality_holds_on_the_cpu(tmp_path):
    outcomes = check_equality(tmp_path, "brsf")
    assert sorted(set(outcomes.values())) == ["passed", "skipped"]
    assert outcomes["alone, recorded, fp32"] == "skipped"
    assert {"brsf, stack of 3, as it runs, bf16, 20 steps", "brsf, alone, as it runs, fp32, 1 step"} <= set(outcomes)


def test_equality_sees_a_step_that_is_off_by_a_ten_thousandth(tmp_path, monkeypatch):
    gradients = FeedbackAlignment.gradients

    def off(self, parameters, step):
        found = gradients(self, parameters, step)
        stacked = next(iter(parameters.values())).ndim == 3
        return {name: g * (1 + 1e-4 * name.endswith("weight") * stacked) for name, g in found.items()}

    monkeypatch.setattr(FeedbackAlignment, "gradients", off)
    # Adam does not see the size of a gradient, so this is of SGD.
    monkeypatch.setitem(equality.OPTIMISER, "fp32", {"optimiser": "sgd", "lr": 1e-2})
    outcomes = check_equality(tmp_path, "fa")
    assert outcomes["fa, stack of 3, as it runs, fp32, 1 step"] == "failed"
    assert outcomes["fa, alone, as it runs, fp32, 1 step"] == "passed"


@pytest.mark.parametrize("rule", ["brsf", "wm", "pal"])
def test_the_cpu_takes_the_feedback_that_it_is_given(rule):
    """Of rules that draw: what a device has drawn, here that of another seed, is what the steps go by."""
    data = load_dataset("digits")
    own, other = (dataclasses.replace(equality.config_of(rule, "fp32"), seed=seed) for seed in (0, 1))
    drawn = [states[0] for states in equality.walk([other], data, recorded=False)]
    path = equality.walk([own], data, recorded=False, given=drawn)
    feedback = [name for name in drawn[0] if name.endswith("feedback")]
    assert feedback
    for step in (1, 20):
        assert all(torch.equal(path[step][0][name], drawn[step][name]) for name in feedback)
        assert not torch.equal(path[step][0]["layers.0.weight"], drawn[step]["layers.0.weight"])


def test_a_tensor_that_should_not_move_makes_the_error_infinite():
    start = {"w": torch.zeros(2), "feedback": torch.ones(2)}
    moved = {"w": torch.tensor([3.0, 4.0]), "feedback": torch.ones(2)}
    assert equality.distance(start, moved, moved) == 0
    assert equality.distance(start, moved, {**moved, "w": torch.tensor([3.0, 4.5])}) == pytest.approx(0.1)
    assert equality.distance(start, moved, {**moved, "feedback": torch.tensor([1.0, 1.1])}) == float("inf")


def test_the_floor_can_be_recorded(monkeypatch):
    """On a fake GPU: Adam refuses to be recorded unless its counts of steps are on the device."""
    made = []
    build = train.StackOptimiser

    def kept(*given, **options):
        made.append(build(*given, **options))
        return made[-1]

    monkeypatch.setattr(train, "StackOptimiser", kept)
    monkeypatch.setattr(train, "recorded", lambda body: body)
    with FakeTensorMode():
        data = SimpleNamespace(train=SimpleNamespace(labels=torch.zeros(1, device="cuda")))
        train.floor(train.CASES["small"], data, 2, "fp32")
    assert all(group["capturable"] and group["lr"].is_cuda for group in made[0].torch.param_groups)


@pytest.mark.parametrize(("part", "peers"), [("landscape", True), ("landscape", False), ("robustness", False)])
def test_what_is_timed_goes_with_peers_and_without(part, peers, tmp_path, monkeypatch):
    """The benchmarks that the parts call are changed for their own sake."""
    peer = {"landscape": "pyhessian", "robustness": "torchattacks"}[part]
    if peers:
        pytest.importorskip(peer)
    else:
        monkeypatch.setattr(speed, "missing", list)
        monkeypatch.setattr(speed.attacks, "torchattacks", None)
    stream = io.StringIO()
    getattr(speed, part)(Setup(device="cpu", folder=tmp_path, seconds=60), Report(stream, "cpu"))
    against = [row["columns"]["against"] for row in said(stream, "row") if row["table"] == part]
    wanted = "PyHessian: " if part == "landscape" else "torchattacks: "
    assert any(text.startswith(wanted if peers else f"skipped: {peer} is not installed") for text in against)


# -- the projection -------------------------------------------------------------------------------------------------


def test_every_job_of_the_smoke_profile_is_of_one_kind(tmp_path):
    profile, targets, store = PROFILES["smoke"](), list(TARGETS.values()), RunStore(tmp_path)
    found = projection.kinds(profile, targets)
    jobs = distinct_jobs(plan(targets, profile, None, store, tmp_path), store)
    counted = [job for kind in found.values() for job in kind.jobs]
    assert {job.key(store) for job in counted} == set(jobs)
    # The digests of training subsets are not known before they are read: full-size subsets are one job to the store.
    assert len(jobs) <= len(counted) <= len(jobs) + 3


def test_kinds_are_multiplied_by_their_jobs_and_filled_from_what_is_alike(monkeypatch, tmp_path):
    profile = PROFILES["smoke"]()
    found = projection.kinds(profile, [TARGETS["fig1"], TARGETS["figS12"], TARGETS["figS13"]])
    monkeypatch.setattr(projection, "measure_training", lambda configs, *more: (0.5, 0.25 * len(configs)))
    monkeypatch.setattr(projection, "measure_analysis", lambda *more: 3.0)
    noted: list[projection.Kind] = []
    projection.project_trainings(found, None, "cpu", lambda: 1.0, noted.append)
    trained = [kind for kind in found.values() if kind.name == "train"]
    epochs = profile.epochs
    for kind in trained:
        assert kind.seconds == pytest.approx(0.5 + 0.25 * len(kind.jobs) * epochs)
    sampled = projection.kinds(projection.sample_of(profile), [TARGETS["figS12"], TARGETS["figS13"]])
    left = iter([1.0, 0.0, 0.0, 0.0])  # time for the first kind only
    projection.project_analyses(found, sampled, 1.0, RunStore(tmp_path), "cpu", lambda: next(left), noted.append)
    attacked = [kind for kind in projection.filled(found) if kind.name == "attack"]
    assert {id(kind) for kind in noted} == {id(kind) for kind in (*trained, attacked[0])}
    assert noted[0].label.startswith("train ifa"), "most work first"
    assert len(attacked) == 4
    assert [kind.how for kind in attacked[1:]] == [f"as {attacked[0].label}"] * 3
    assert [kind.seconds for kind in attacked] == [3.0 * len(kind.jobs) for kind in attacked]


def test_trainings_that_were_not_measured_are_taken_by_their_work(monkeypatch):
    found = projection.kinds(PROFILES["smoke"](), [TARGETS["figS7"]])  # sizes of the training set
    monkeypatch.setattr(projection, "measure_training", lambda configs, *more: (0.0, 6.0))
    calls = iter([1.0] + [0.0] * 100)
    projection.project_trainings(found, None, "cpu", lambda: next(calls), lambda kind: None)
    (measured,) = [kind for kind in found.values() if kind.seconds is not None]
    for kind in projection.filled(found):
        (own,), (first,) = projection.stacks(kind)[0], projection.stacks(measured)[0]
        ratio = (own.train_size or 1437) / (first.train_size or 1437)
        assert kind.seconds == pytest.approx(measured.seconds * ratio * len(kind.jobs) / len(measured.jobs))


def test_a_set_that_is_needed_is_measured_before_what_needs_it(monkeypatch, tmp_path):
    found = projection.kinds(PROFILES["smoke"](), [TARGETS["fig6"]])
    noted: list[projection.Kind] = []
    monkeypatch.setattr(projection, "measure_analysis", lambda *more: 3.0)
    projection.project_analyses(found, found, 20.0, RunStore(tmp_path), "cpu", lambda: 1.0, noted.append)
    assert noted[0].name == "corrupted-set"
    assert {kind.seconds / len(kind.jobs) for kind in noted} == {60.0}, "as many times as there are images"


def test_what_nothing_is_like_stays_unknown():
    found = projection.kinds(PROFILES["smoke"](), [TARGETS["figS3"]])
    assert figures.summed(found).unknown == [kind.label for kind in found.values()]
    first = next(iter(found.values()))
    first.seconds = 2.0
    total = figures.summed(found)
    assert total.measured == 2.0 < total.seconds
    assert total.unknown == [kind.label for kind in found.values() if "alexnet" in kind.label]


def test_a_training_is_stretched_to_its_epochs(monkeypatch):
    """With a clock that ticks once a look: two epochs of so many looks."""
    (kind, *_) = projection.kinds(PROFILES["smoke"](), [TARGETS["fig1"]]).values()
    ticks = iter(range(10**6))
    monkeypatch.setattr(projection, "clock", lambda device: float(next(ticks)))
    monkeypatch.setattr(projection, "SHORT", 0.0)
    configs = [dataclasses.replace(job.config, hidden=(4,), train_size=64) for job in kind.jobs[:2]]
    rest, epoch = projection.measure_training(configs, None, "cpu")
    assert (rest, epoch) == (3.0, 2.0), "a look at each network's epoch, those at the start, and one at the end"


def test_random_bytes_are_read_as_cifar10(tmp_path, monkeypatch):
    small = projection.random_data("cifar10", (3, 32, 32), 50, 10)
    root = figures.random_cifar10(tmp_path, small)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *given: True)
    read = load_dataset("cifar10", root)
    assert torch.equal(read.train.images, small.train.images)
    assert torch.equal(read.test.labels, small.test.labels)


# -- what is missing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["training", "landscape", "robustness", "reports"])
def test_the_stand_in_for_lazy_loader_loads_the_same_names(package):
    module = __import__(package)
    load, names, every = missing.attach_stub(package, module.__file__)
    assert set(every) == set(names()) >= set(module.__all__)
    for name in module.__all__:
        assert load(name) is getattr(module, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        load("nothing")


def test_imports_of_a_file_are_found(tmp_path):
    (tmp_path / "one.py").write_text("import os\nimport numpy.linalg as la\nfrom torch import nn\nfrom . import x\n")
    assert missing.imported_by(tmp_path / "one.py") == ["numpy", "torch"]
    assert missing.missing(["numpy", "no_such_module"]) == ["no_such_module"]


# -- tables ---------------------------------------------------------------------------------------------------------


def a_result() -> dict:
    stream = io.StringIO()
    report = Report(stream, "cpu")
    report.row("training", precision="fp32", x_eager=21.5)
    report.row("training", precision="bf16", x_eager="a|b")
    report.target("stack of 64, fp32, against eager", target=20, measured=21.5, unit="times", most=False)
    report.target("PGD-10", target=2, measured=2.5, unit="s", most=True)
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    part = {"name": "training", "title": "it", "state": "done", "line": "a line", "seconds": 3.0, "said": told}
    about = {"device": "cpu", "hardware": "a CPU", "versions": {"torch": "2"}, "created": "now", "command": "it"}
    return {**about, "seconds": 4.0, "parts": [part]}


def test_tables_say_what_was_found_against_what_was_wanted():
    text = "\n".join(tables.lines(a_result()))
    assert text.startswith("**A rehearsal on a CPU")
    assert "| stack of 64, fp32, against eager | at least 20 times | 21.5 | yes |" in text
    assert "| PGD-10 | at most 2 s | 2.5 | **no** |" in text
    assert "### Training\n| precision | x eager |\n|---|---|\n| fp32 | 21.5 |\n| bf16 | a\\|b |" in text


def test_tables_go_between_the_markers_of_a_page(tmp_path):
    page = tmp_path / "gpu.md"
    page.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n")
    assert tables.has_markers(page)
    for _ in range(2):
        tables.write_between(page, a_result())
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith(f"{tables.END}\nafter\n")
    assert "old" not in text
    assert text.count("### Training") == 1
    assert not tables.has_markers(tmp_path / "none.md")


def test_the_page_has_a_place_for_the_tables():
    assert tables.has_markers(ROOT / "docs" / "gpu.md")


@pytest.mark.slow
def test_a_rehearsal_of_every_part(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--out", str(tmp_path), "--minutes", "60"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    states = {part["name"]: part["state"] for part in found["parts"]}
    assert list(states) == list(PARTS)
    assert states.pop("tests") == "skipped", "all of them need a GPU"
    assert set(states.values()) == {"passed", "done"}
    named = tables.tables(found["parts"])
    assert {"equality", "resume", "training", "landscape", "surface", "robustness", "smoke", "paper"} <= set(named)
    assert "failures" not in named, named
    assert {row["state"] for row in named["targets"]} == {"made"}
    assert (tmp_path / "gpu.md").read_text().startswith("**A rehearsal on a CPU")
