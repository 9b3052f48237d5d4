"""A store of many small runs: seconds of what is done with it, beside reading and hashing the same bytes.

    python -m benchmarks.store                 # 2,000 runs of 20 kB with an analysis each, in a temporary folder
    python -m benchmarks.store --runs 200 --store /tmp/kept

The runs are copies of a trained one with other seeds: their files, digests and keys are as training would have left
them. Each command is timed as a process of its own, start and imports included; the floor is one process that opens,
reads and hashes every file.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter

# Python puts this file's folder first, where a benchmark's name hides the package that it measures: move it to the end.
sys.path.sort(key=lambda entry: Path(entry).resolve() == Path(__file__).resolve().parent)

from alignscape.files import describe_files
from alignscape.recorded import read_record, write_record
from reports.paper import PROFILES, TARGETS
from reports.paper.reproduction import plan
from training import RunStore, TrainConfig, TrainJob, execute
from training.run_folder import RUN_FILES, RunFolder

ROOT = Path(__file__).resolve().parent.parent
FLOOR = """
import hashlib, sys
from pathlib import Path
print(sum(len(hashlib.sha256(path.read_bytes()).digest()) for path in Path(sys.argv[1]).rglob("*") if path.is_file()))
"""


def fill(store: RunStore, count: int) -> None:
    """Train one run and copy it ``count - 1`` times under other seeds, each with a small analysis."""
    first = TrainJob(config=TrainConfig(rule="fa", hidden=(32,), epochs=1, train_size=200))
    execute([first], store)
    for seed in range(count):
        run = copy_run(store, first, replace(first.config, seed=seed))
        digest = read_record(run.path / "done.json")["files"]["config.json"]["sha256"]
        entry = store.analysis("norms", version=1, inputs={"config": digest}, parameters={})
        entry.compute(lambda folder, seed=seed: (folder / "result.csv").write_text(f"seed\n{seed}\n"))  # type: ignore[misc]


def copy_run(store: RunStore, trained: TrainJob, config: TrainConfig) -> RunFolder:
    """Return the run of ``config``: a copy of ``trained``, another seed of it, unless it is there already."""
    source = trained.folder(store)
    recorded, done = source.read_config(), read_record(source.path / "done.json")
    key = config.key(recorded["data"]["digest"])
    run = store.run(key)
    if not run.is_done:
        shutil.copytree(source.path, run.path)
        text = json.dumps({**recorded, "config": config.to_dict()}, indent=2, sort_keys=True)
        (run.path / "config.json").write_text(text)
        write_record(run.path / "done.json", {**done, "key": key, "files": describe_files(run.path, RUN_FILES)})
    return run


def fill_for_figure(store: RunStore, settings: list[str]) -> None:
    """Make the runs of fig1: of each network one is trained, its other seeds are copies."""
    profile = PROFILES["smoke"]().changed(settings)
    jobs = [job for one in plan([TARGETS["fig1"]], profile, None, store, store.root / "none") for job in one.jobs()]
    trained: dict[tuple[str, float], TrainJob] = {}
    for job in jobs:
        if isinstance(job, TrainJob):
            first = trained.setdefault((job.config.rule, job.config.angle), job)
            if first is job:
                execute([job], store)
            copy_run(store, first, job.config)


def report(name: str, command: list[str], floor: float, times: int = 2) -> None:
    """Print the line of one command."""
    clock, worked = seconds("-m", "reports.cli", *command, times=times)
    print(f"{name:26}{clock:6.2f} s{worked:10.2f} s  {worked / floor:6.1f} times the floor", flush=True)


def seconds(*command: str, times: int = 2) -> tuple[float, float]:
    """Return the seconds that a process takes by the clock and of the processor, the best of so many."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = []
    for _ in range(times):
        started, before = perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], cwd=ROOT, env=variables, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found.append((perf_counter() - started, worked))
    return min(found, key=lambda pair: pair[1])


def main() -> None:
    """Print a line for each command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000, help="runs in the store (default: 2000)")
    parser.add_argument("--store", type=Path, help="keep the store here (default: a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        store = RunStore(args.store or Path(temporary) / "store")
        if not store.exists:
            fill(store, args.runs)
        root = str(store.root.absolute())
        size = sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file())
        print(f"{len(store.runs())} runs, {len(store.analyses())} analyses, {size / 1e6:.0f} MB")
        clock, floor = seconds("-c", FLOOR, root)
        print(f"{'':26}{'clock':>8}{'processor':>12}")
        print(f"{'read and hash every file':26}{clock:6.2f} s{floor:10.2f} s", flush=True)
        again = ["train", "--rule", "fa", "--hidden", "32", "--epochs", "1", "--train-size", "200", "--quiet"]
        commands = {
            "runs ls": ["runs", "ls"],
            "runs verify": ["runs", "verify", "--quiet"],
            "runs show": ["runs", "show", store.runs()[0].path.name],
            "train, all there already": [*again, "--seeds", f"0..{args.runs - 1}"],
        }
        for name, command in commands.items():
            report(name, [*command, "--store", root], floor)
        drawn = RunStore(store.root / "figures")
        settings = [f"seeds=0..{max(args.runs // 3, 1) - 1}", "angles=0,30,60", "hidden=4", "epochs=2"]
        fill_for_figure(drawn, settings)
        print(f"figures: {len(drawn.runs())} runs")
        figure = ["figures", "--only", "fig1", "--quiet", "--set", *settings, "--store", str(drawn.root.absolute())]
        report("figures, drawn", [*figure, "--out", str(drawn.root / "out")], floor, times=1)
        report("figures, nothing to do", [*figure, "--out", str(drawn.root / "out")], floor)


if __name__ == "__main__":
    main()
