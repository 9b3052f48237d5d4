"""Malformed calls, made from what the commands declare, and what becomes of them.

Every flag and argument of every command is tried with what its kind of value cannot be: numbers that are not finite or
larger than any memory, text that is none, paths too long, in a circle, of the wrong kind or forbidden. Then whole
commands run with too little disk. A call that is refused says so in one line, with status 2, and leaves nothing; one
that is accepted may do its work. Anything else broke.

A call runs in a child of this process, forked when all that is heavy is imported: some 50 ms each.
"""

import argparse
import contextlib
import ctypes
import importlib
import itertools
import os
import random
import resource
import selectors
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .trial import Outcome, Trial

REFUSING_SECONDS = 60.0  # of a call that must be refused, on a busy machine
SECONDS = 2.0  # of a call that is neither refused nor done: it was accepted, and computes
DISK_SECONDS = 60.0  # of a call that is to run into the end of the disk
ROOM = 6 * 2**30  # address space a call may take: what asks for more is to be refused, not to push others out


@dataclass(frozen=True, kw_only=True)
class Call:
    """A command that may break something.

    Attributes:
        name: what is tried.
        argv: words of the command line; ``{box}`` is the folder it runs in, ``{given}`` that of :func:`given`.
        refused: whether it must be; else it may also do its work.
        prepare: called with the box before.
        file_size: most bytes that a file may have (``ulimit -f``).
        disk: bytes of the disk that the box is.
        as_nobody: with permissions that count, without the rights of root.
        seconds: after which it counts as accepted.
        stdout: where its output goes, if not to us.
    """

    name: str
    argv: tuple[str, ...]
    refused: bool = True
    prepare: Callable[[Path], object] = lambda box: None
    file_size: int | None = None
    disk: int | None = None
    as_nobody: bool = False
    seconds: float = SECONDS
    stdout: str = ""


# ---- what is given to the commands ----

TRAIN = ("--hidden", "8", "--epochs", "1", "--train-size", "100", "--batch-size", "20", "--device", "cpu", "--quiet")
KEPT = ("--checkpoint-every", "1", "--snapshot-every", "1")


def given(folder: Path) -> Path:
    """Make runs, a table and a corrupted set for the commands to read, in a process of its own; return ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    script = f"""
import numpy as np, torch
torch.set_num_threads(1)
from reports.cli import main
for rule in ("bp", "fa"):
    assert main(["train", "--rule", rule, *{TRAIN!r}, *{KEPT!r}, "--out", f"runs/{{rule}}"]) == 0
assert main(["attack", "runs/bp", "--attack", "fgsm", "--eps", "0.1", "--samples", "20", "--quiet", "--out", "."]) == 0
assert main(["train", *{TRAIN!r}, "--store", "store"]) == 0
from reports.commands.demo import _make_digits_c
from pathlib import Path
_make_digits_c(Path("digits-C"))
np.save("images.npy", np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8))
np.save("labels.npy", np.arange(8))
"""
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder


# What makes each command a call that is over in a second; the flag that is tried comes last and wins.
BASES: Mapping[str, tuple[str, ...]] = {
    "train": (*TRAIN, "--out", "{box}/out"),
    "hessian": ("{given}/runs/bp", "--k", "1", "--probes", "2", "--samples", "50"),
    "spectrum": ("{given}/runs/bp", "--steps", "3", "--probes", "1", "--samples", "50"),
    "sharpness": ("{given}/runs/bp", "--samples", "50", "--groups", "5"),
    "surface": ("{given}/runs/bp", "--points", "3", "--samples", "50"),
    "trajectory": ("{given}/runs/bp", "--points", "3", "--samples", "50"),
    "alignment": ("{given}/runs/fa", "--samples", "50"),
    "attack": ("{given}/runs/bp", "--attack", "fgsm", "--eps", "0.1", "--samples", "20"),
    "compare": ("{given}/runs/bp", "{given}/runs/fa", "--samples", "20"),
    "corruptions": ("{given}/runs/bp", "--cifar10c", "{given}/digits-C", "--no-clean"),
    "make-cifar10c": (
        *("--images", "{given}/images.npy", "--labels", "{given}/labels.npy", "--corruptions", "contrast"),
        *("--workers", "1", "--quiet", "--out", "{box}/out"),
    ),
    "figures": ("--only", "fig1", "--dry-run", "--quiet", "--store", "{box}/store", "--out", "{box}/out"),
    "report": ("{box}/results", "--quiet"),
    "demo": ("--out", "{box}/out", "--device", "cpu"),
    "runs ls": ("--store", "{given}/store"),
    "runs show": ("--store", "{given}/store", "0"),
    "runs verify": ("--store", "{given}/store", "--quiet"),
    "runs rm": ("--store", "{given}/store", "--incomplete"),
}
OUTPUT = ("--quiet", "--device", "cpu", "--out", "{box}/out")  # of every analysis

# What else must be given for a setting to have an effect, where its declaration does not say so in flags.
COMPANY: Mapping[str, tuple[str, ...]] = {
    "train alignment": ("--rule", "ifa", "--angle", "45"),
    "train subset_seed": ("--train-size", "50"),
    "train lr_gamma": ("--lr-steps", "1"),
    "train nesterov": ("--optimiser", "sgd"),
    "train decay_all": ("--weight-decay", "0.1"),
    "train best_by": ("--validation", "0.2"),
    "train patience": ("--validation", "0.2"),
    "train snapshot_dtype": ("--snapshot-every", "5"),
    "train snapshot_sketch": ("--snapshot-every", "5"),
    "train monitor_every": ("--monitor", "hessian"),
    "train monitor_share": ("--monitor", "hessian"),
    "train monitor_samples": ("--monitor", "hessian"),
    "train monitor_k": ("--monitor", "hessian"),
    "hessian cross": ("--by", "layer"),
    "spectrum cross": ("--by", "layer"),
    "attack steps": ("--attack", "pgd"),
    "attack step_size": ("--attack", "pgd"),
    "attack restarts": ("--attack", "pgd"),
    "attack queries": ("--attack", "square"),
    "attack audit_eps": ("--audit",),
    "attack surrogate": ("--gradient", "transfer"),
    "train ray_address": ("--store", "{box}/store", "--executor", "ray"),
    "figures ray_address": ("--executor", "ray"),
}


# ---- what is tried ----


@dataclass(frozen=True)
class Flag:
    """An argument of a command as its parser declares it.

    Attributes:
        command: such as ``hessian`` or ``runs ls``.
        words: its first name; none of a positional argument.
        dest: what the namespace calls it.
        kind: ``int float seeds path text choice``, or ``switch``.
    """

    command: str
    words: tuple[str, ...]
    dest: str
    kind: str


def flags() -> list[Flag]:
    """Return every argument of every command."""
    from reports.commands.parser import COMMANDS, build_parser

    found: list[Flag] = []
    for name in COMMANDS:
        found += _flags_of(name, build_parser(name)._subparsers._group_actions[0].choices[name])  # type: ignore[union-attr]
    return found


def _flags_of(command: str, parser: argparse.ArgumentParser) -> Iterator[Flag]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, own in action.choices.items():
                yield from _flags_of(f"{command} {name}", own)
        elif action.dest != "help":
            yield Flag(command, tuple(action.option_strings[:1]), action.dest, _kind(action))


def _kind(action: argparse.Action) -> str:
    if action.nargs == 0:
        return "switch"
    if action.choices is not None:
        return "choice"
    if action.type is None or action.type is str:
        return "text"
    if action.type is Path:
        return "path"
    value = action.type("7")  # type: ignore[operator]
    return "seeds" if isinstance(value, list) else type(value).__name__


LARGE = 10**25  # more than 64 bits hold
HUGE = "9" * 5000  # more digits than Python reads

NOT_WHOLE = ("x", "1.5", "1e3", str(LARGE), str(-LARGE), HUGE)
NOT_SEEDS = (
    *NOT_WHOLE,
    "0..",
    "..3",
    "3..1",
    "1..2..3",
    "-1",
    "-3..2",
    "0..99999999999",
    str(2**64),
    f"{2**64}..{2**64}",
)
NOT_FINITE = ("inf", "-inf", "nan", "1e400", "1e39", "-1e39", "x", "1/0", "1e39/1")
NO_TEXT = ("", "\udcff", "x" * 5000, "../x", "a\nb", "\x07", ":", "x:", ":x", "os:path", "torchvision:", "no.such:x")
NO_WORD = ("", "x")
MUST_BE_REFUSED = {"int": NOT_WHOLE, "seeds": NOT_SEEDS, "float": NOT_FINITE, "choice": NO_WORD, "text": (), "path": ()}
ODD = {
    "int": ("", "0", "-1", "3000000", str(10**12), str(2**63 - 1)),
    "seeds": ("", "0", str(2**63 - 1)),
    "float": ("", "0", "-1", "-0.0", "1e-46", "1e-300", "3e38"),
    "text": NO_TEXT,
    "choice": (),
    "path": (),
}
FILTERS = ("runs ls seed", "runs ls angle")  # what nothing is like finds nothing


def value_calls() -> Iterator[Call]:
    """Yield every flag with every value that is none of its kind, or an odd one."""
    for flag in flags():
        for values, refused in ((MUST_BE_REFUSED, True), (ODD, False)):
            for value in values.get(flag.kind, ()):
                yield _with(flag, value, refused=refused and f"{flag.command} {flag.dest}" not in FILTERS)


def _with(flag: Flag, value: str, *, refused: bool, **how: object) -> Call:
    given = f"{flag.words[0]}={value}" if flag.words else value
    return Call(
        name=f"{flag.command} {flag.words[0] if flag.words else flag.dest.upper()} {_short(value)}",
        argv=_call(flag, given),
        refused=refused,
        **how,  # type: ignore[arg-type]
    )


def _short(text: str) -> str:
    shown = ascii(text)[1:-1] or "''"
    return shown if len(shown) <= 40 else f"{shown[:12]}... ({len(text)} characters)"


def _call(flag: Flag, given: str) -> tuple[str, ...]:
    """Return the words of a call with ``given`` for this argument."""
    from reports.analyses import ANALYSES

    words = (*BASES[flag.command], *(OUTPUT if flag.command in ANALYSES else ()))
    if flag.command == "train" and flag.dest == "model":
        words = words[2:]  # --hidden is for MLPs
    if flag.command == "spectrum" and flag.dest == "accuracy":
        words = (words[0], *words[5:])  # without --steps and --probes
    if flag.command == "train" and flag.dest in ("store", "ray_address"):
        words = words[:-2]  # the store names its folders itself
    if not flag.words:  # the positional arguments come first
        first = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
        kept = words[1:first] if flag.command == "compare" else ()
        if flag.command == "runs show":
            return ("runs", "show", *BASES[flag.command][:2], given)
        return (*flag.command.split(), given, *kept, *words[first:])
    return (*flag.command.split(), *words, *_company(flag), given)


def _company(flag: Flag) -> tuple[str, ...]:
    """Return the flags with which a setting has an effect, from what declares it."""
    from alignscape.settings import settings_of
    from training.config import TrainConfig
    from training.rules import option_owners

    if (known := COMPANY.get(f"{flag.command} {flag.dest}")) is not None:
        return known
    if flag.command == "compare" and flag.dest in ("eps", "norm", "steps", "step_size", "restarts", "loss"):
        return ("--attack", "pgd")
    if flag.command == "compare" and flag.dest == "queries":
        return ("--attack", "square")
    if flag.command != "train":
        return ()
    rule = [("--rule", owner) for owner in option_owners(flag.dest)][:1]
    one = settings_of(TrainConfig).get(flag.dest)
    words = one.only.words.split() if one is not None and one.only is not None else []
    return (*itertools.chain(*rule), *(words if len(words) == 2 and words[0].startswith("--") else ()))


TOO_LARGE = (
    "--hidden 3000000 3000000",
    "--hidden 9999999999",
    "--hidden 1000000 1000000",
    "--hidden 200000 200000 --rule fa",
    "--hidden 200000 200000 --optimiser sgd",
    "--rule pfa --expansion 999999999999",
    "--rule pfa --expansion 10000 --hidden 30000 30000",
    "--snapshot-every 1 --snapshot-sketch 99999999999",
    "--snapshot-every 1 --snapshot-sketch 10000 --hidden 4000 4000 --epochs 20000",
)


def range_calls() -> Iterator[Call]:
    """Yield sizes that no memory or disk holds, in settings that work together, and a cluster that is not there."""
    stored = ("train", *TRAIN, "--store", "{box}/store")
    train = ("train", *BASES["train"])
    for words in TOO_LARGE:
        yield Call(name=f"train {words}", argv=(*train, *words.split()))
        yield Call(name=f"train --store {words}", argv=(*stored, *words.split()))
    for words in ("--epochs 1000000000000 --snapshot-every 1", "--seeds 0..99999 --hidden 4000 4000 --stack 100000"):
        yield Call(name=f"train {words}", argv=(*train, *words.split()))
    images = ("train", *TRAIN[2:], "--dataset", "digits32", "--out", "{box}/out")
    yield Call(
        name="train --network alexnet --rule pfa --expansion 10000",
        argv=(*images, "--network", "alexnet", "--rule", "pfa", "--expansion", "10000"),
    )
    wrong = ("--executor", "ray", "--ray-address", "127.0.0.1:1")
    yield Call(name="train --store with a wrong --ray-address", argv=(*stored, *wrong))
    figures = ("figures", "--only", "fig1", "--quiet", "--store", "{box}/store", "--out", "{box}/out")
    yield Call(name="figures --store with a wrong --ray-address", argv=(*figures, *wrong))


def profile_calls() -> Iterator[Call]:
    """Yield every number of a profile of ``figures`` with every value that is none."""
    from alignscape.settings import settings_of
    from reports.paper.profile import Profile

    base = ("figures", *BASES["figures"], "--set")
    for name, one in settings_of(Profile).items():
        kind = {int: "int", float: "float"}.get(one.kind, "text")
        refused = {"int": ("x", "1.5", str(LARGE), HUGE), "float": ("inf", "-inf", "nan", "1e39", "x")}.get(kind, ())
        for value in (*refused, *ODD[kind]):
            yield Call(
                name=f"figures --set {name}={_short(value)}", argv=(*base, f"{name}={value}"), refused=value in refused
            )


NO_TOML_VALUE = (
    "inf",
    "-inf",
    "nan",
    "1e39",
    str(LARGE),
    "''",
    "'x'",
    "[]",
    "[[1]]",
    "{a = 1}",
    "true",
    "1979-05-27",
)


def config_calls() -> Iterator[Call]:
    """Yield every setting of ``train`` in a config file with values of every kind."""
    from alignscape.settings import settings_of
    from training.config import TrainConfig

    base = ("train", "--epochs", "1", "--quiet", "--out", "{box}/out", "--config", "{box}/a.toml")
    for name, one in settings_of(TrainConfig).items():
        company = _company(Flag("train", one.flags[:1], name, "")) if one.flags else ()
        argv = (*(word for word in base if name != "epochs" or word not in ("--epochs", "1")), *company)
        for value in NO_TOML_VALUE:
            fits = one.kind is str or (value == "[]" and one.empty) or (value == str(LARGE) and one.kind is float)
            text = f"{name} = {value}\n"
            yield Call(
                name=f"train --config: {name} = {value}",
                argv=argv,
                refused=not fits,
                prepare=lambda box, text=text: (box / "a.toml").write_text(text),
            )


LONG_NAME = "n" * 256
LONG_PATH = "/".join(["d" * 200] * 22)


def path_calls() -> Iterator[Call]:
    """Yield every argument that is a path with paths that cannot be, and with things that are no such file."""
    for flag in flags():
        if flag.kind != "path":
            continue
        writes = flag.dest in ("out", "store", "dump_config") and not flag.command.startswith("runs")
        for value, prepare, must in _paths(writes):
            refused = must and flag.dest not in ("data_root", "frost_dir")  # the digits need none; nor do other images
            refused = refused and not (flag.command == "figures" and flag.dest == "out")  # a dry run writes nothing
            refused = refused and not (flag.dest == "dump_config" and value == "{box}/loop")  # the link is replaced
            refused = refused and not (flag.dest == "config" and value in ("{box}/pipe", "{box}/empty"))  # as they say
            yield _with(flag, value, refused=refused, prepare=prepare, as_nobody="forbidden" in value)
        if flag.dest == "dump_config":
            yield _with(flag, "{box}/folder", refused=True, prepare=lambda box: (box / "folder").mkdir())


def _paths(writes: bool) -> Iterator[tuple[str, Callable[[Path], object], bool]]:
    yield f"{{box}}/{LONG_NAME}", _nothing, True
    yield f"{{box}}/{LONG_NAME}/x", _nothing, True
    yield f"{{box}}/{LONG_PATH}", _nothing, True
    yield "{box}/loop", _loop, True
    yield "{box}/loop/x", _loop, True
    yield "{box}/loop/x/y", _loop, True
    yield "{box}/file/x", _file, True
    yield "{box}/forbidden/x", _forbidden, True
    yield "{box}/forbidden/x/y", _forbidden, True
    yield "\udcff/x", _nothing, False
    if not writes:
        yield "{box}/dangling", _dangling, True
        yield "{box}/pipe", _pipe, True
        yield "{box}/file", _file, True
        yield "{box}/empty", _empty, True
        yield "/dev/zero", _nothing, True
        yield "", _nothing, False


def _nothing(box: Path) -> None:
    pass


def _loop(box: Path) -> None:
    (box / "loop").symlink_to("loop")


def _dangling(box: Path) -> None:
    (box / "dangling").symlink_to("nowhere")


def _file(box: Path) -> None:
    (box / "file").write_text("mine")


def _empty(box: Path) -> None:
    (box / "empty").touch()


def _pipe(box: Path) -> None:
    os.mkfifo(box / "pipe")


def _forbidden(box: Path) -> None:
    (box / "forbidden").mkdir(mode=0)


# ---- too little disk ----

# Whole commands that write: each leaves files of every kind that it knows.
DISK = ("--quiet", "--device", "cpu", "--out", "{disk}/out")
WRITING: Mapping[str, tuple[str, ...]] = {
    "train": ("train", *TRAIN, *KEPT, "--snapshot-sketch", "2", "--out", "{disk}/out"),
    "train --tensorboard": ("train", *TRAIN, "--tensorboard", "--out", "{disk}/out"),
    "train, a stack": ("train", *TRAIN, *KEPT, "--rule", "fa", "--seeds", "0..2", "--out", "{disk}/out"),
    "train --store": ("train", *TRAIN, *KEPT, "--seeds", "0..1", "--store", "{disk}/store"),
    "train --dump-config": ("train", *TRAIN, "--dump-config", "{disk}/a.toml"),
    "attack --save-examples": ("attack", *BASES["attack"], "--save-examples", *DISK),
    "trajectory --gif": ("trajectory", *BASES["trajectory"], "--gif", *DISK),
    "hessian": ("hessian", *BASES["hessian"], *DISK),
    "surface": ("surface", *BASES["surface"], *DISK),
    "alignment": ("alignment", *BASES["alignment"], *DISK),
    "make-cifar10c": ("make-cifar10c", *BASES["make-cifar10c"][:-2], "--out", "{disk}/out"),
    "report --latex": ("report", "{disk}/results", "--latex", "--quiet"),
    "figures": (
        *("figures", "--only", "fig1", "--set", "epochs=1", "seeds=0", "angles=0", "hidden=4"),
        *(*DISK, "--store", "{disk}/store"),
    ),
}
LEAST = (0, 200, 1_500, 6_000, 20_000, 60_000, 200_000)  # bytes


def disk_calls() -> Iterator[Call]:
    """Yield every command that writes, with a limit on the size of files, and on a disk that is soon full."""
    for name, argv in WRITING.items():
        prepare = _results if name.startswith("report") else _nothing
        for limit in LEAST:
            beside = tuple(word.replace("{disk}", "{box}") for word in argv)
            about = {"refused": False, "prepare": prepare, "seconds": DISK_SECONDS}
            yield Call(name=f"{name}, files up to {limit} bytes", argv=beside, file_size=limit, **about)  # type: ignore[arg-type]
            size = max(limit, 4096) // 4096 * 4096
            yield Call(name=f"{name}, disk of {size} bytes", argv=argv, disk=size, **about)  # type: ignore[arg-type]
    for name in ("runs ls", "hessian", "report"):
        argv = (*name.split(), *(word for word in BASES[name]), *(OUTPUT if name == "hessian" else ()))
        yield Call(name=f"{name} > /dev/full", argv=argv, stdout="/dev/full", prepare=_results, seconds=DISK_SECONDS)


def _results(box: Path) -> None:
    target = next(one for one in (box / "disk", box) if one.is_dir()) / "results"
    target.mkdir()
    for path in (box.parent / "results").glob("attack.*"):
        shutil.copy(path, target)


KINDS: Mapping[str, Callable[[], Iterator[Call]]] = {
    "values": value_calls,
    "sizes": range_calls,
    "profiles": profile_calls,
    "configs": config_calls,
    "paths": path_calls,
    "disks": disk_calls,
}


# ---- what becomes of it ----


def attempt(call: Call, given: Path, box: Path) -> Trial:
    """Make a call in the folder ``box``, which is made and removed."""
    box.mkdir(parents=True)
    box.chmod(0o777)
    disk = _mounted(box / "disk", call.disk) if call.disk is not None else contextlib.nullcontext(box)
    try:
        with disk as room:
            if room is None:
                return Trial(call.name, "skipped", "no small disk can be mounted here")
            call.prepare(box)
            places = {"{box}": str(box), "{given}": str(given), "{disk}": str(room)}
            before, kept = _listing(box), _listing(given)
            status, out, err = _run(call, [_placed(word, places) for word in call.argv], box)
            after = _listing(box)
            changed = [] if _listing(given) == kept else ["what was given"]
            changed += sorted({*before.items()} ^ {*after.items()}) and sorted(
                name for name, _ in {*before.items()} ^ {*after.items()}
            )
            outcome, detail = judged(call, status, out, err, changed)
            return Trial(call.name, outcome, detail)
    finally:
        with contextlib.suppress(FileNotFoundError):
            (box / "forbidden").chmod(0o755)
        shutil.rmtree(box)


def _placed(word: str, places: Mapping[str, str]) -> str:
    for name, place in places.items():
        word = word.replace(name, place)
    return word


def judged(call: Call, status: int | None, out: str, err: str, changed: list[str]) -> tuple[Outcome, str]:
    """Return the outcome of a call and why; ``status`` is None for one that was still at work, ``changed`` the paths
    that it made or changed. The detail of one that was refused is its line, of another it begins with "status"."""
    lines = err.splitlines()
    said = _short(lines[-1]) if lines else "nothing on stderr"
    said = lines[-1][:300] if lines else said
    if status == 2:
        temporary = [name for name in changed if ".tmp" in Path(name).name]
        if len(lines) != 1 or not lines[0].startswith("analyze: error: "):
            return "broke", f"status 2, but {len(lines)} lines: {err[-1500:]}"
        if "has an effect with" in err or "belongs to --rule" in err:
            return "broke", f"the trial says nothing: {said}"
        if temporary or (changed and not _may_leave(call)):
            return "broke", f"left {', '.join(temporary or changed[:4])}: {said}"
        return "survived", said
    if status in (None, 0):
        if "Traceback" in err or "Exception ignored" in err:
            return "broke", err[-1500:]
        return ("broke" if call.refused else "survived"), f"status {status}, {said}"
    return "broke", f"status {status}: {err[-1500:]}"


def _may_leave(call: Call) -> bool:
    """Whether files may stay that were whole before the disk was full."""
    return bool(call.disk is not None or call.file_size or call.stdout)


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Return kind and size of everything in ``folder``."""
    found = {}
    for base, folders, files in os.walk(folder):
        for name in (*folders, *files):
            stat = os.lstat(os.path.join(base, name))
            size = 0 if name in folders else stat.st_size
            found[os.path.relpath(os.path.join(base, name), folder)] = (stat.st_mode, size)
    return found


@contextlib.contextmanager
def _mounted(folder: Path, size: int) -> Iterator[Path | None]:
    """Yield ``folder`` as a disk of ``size`` bytes; None where that is not allowed."""
    folder.mkdir()
    if not sys.platform.startswith("linux") or not shutil.which("mount") or os.geteuid() != 0:
        yield None
        return
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=777", "tmpfs", str(folder)], capture_output=True
    )
    if done.returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _run(call: Call, argv: list[str], box: Path) -> tuple[int | None, str, str]:
    """Return status, standard output and standard error of the call; the status is None if it had to be stopped."""
    pipes = [os.pipe(), os.pipe()]
    child = os.fork()
    if child == 0:
        os.setsid()
        for (_, write), descriptor in zip(pipes, (1, 2), strict=True):
            os.dup2(write, descriptor)
        os.closerange(3, 64)
        _child(call, argv, box)
    for _, write in pipes:
        os.close(write)
    seconds = max(call.seconds, REFUSING_SECONDS) if call.refused else call.seconds
    (out, err), over = _drained([read for read, _ in pipes], time.monotonic() + seconds)
    if not over:  # it has ended, or is about to, once its pipes are closed
        _, status = os.waitpid(child, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if over:
        os.waitpid(child, 0)
    for read, _ in pipes:
        os.close(read)
    return None if over else os.waitstatus_to_exitcode(status), *(text.decode(errors="replace") for text in (out, err))


def _drained(descriptors: list[int], deadline: float) -> tuple[list[bytes], bool]:
    """Return what comes out of pipes until they are closed or time is up, and whether it is up."""
    found = dict.fromkeys(descriptors, b"")
    with selectors.DefaultSelector() as selector:
        for descriptor in descriptors:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                if chunk := os.read(key.fd, 65536):
                    found[key.fd] += chunk
                else:
                    selector.unregister(key.fd)
        return list(found.values()), bool(selector.get_map())


def _child(call: Call, argv: list[str], box: Path) -> None:
    """Make the call, and end this process as the command would."""
    status = 1
    try:
        from reports.cli import main

        os.chdir(box)
        sys.argv = ["analyze", *argv]
        sys.stdin = open(os.devnull)  # noqa: SIM115
        out = call.stdout or 1
        sys.stdout = open(out, "w", errors="backslashreplace")  # noqa: SIM115
        sys.stderr = open(2, "w", errors="backslashreplace", buffering=1)  # noqa: SIM115
        for name in ("ALIGNSCAPE_DATA", "ALIGNSCAPE_STORE"):
            os.environ.pop(name, None)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if call.file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (call.file_size, call.file_size))
        if call.as_nobody and os.geteuid() == 0:
            _drop_override()
        try:
            status = main(argv)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        sys.stdout.flush()
    except BaseException:
        status = 1
        with contextlib.suppress(Exception):
            traceback.print_exc(file=sys.stderr)
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(status or 0)


HEAVY = (
    *("matplotlib.backends.backend_pdf", "sklearn.datasets", "landscape", "robustness.generate", "training.loop"),
    *("reports.figures", "reports.page.html", "reports.page.latex", "reports.paper", "reports.runner"),
)


def _drop_override() -> None:
    """Let permissions count for root too: drop CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (capabilities(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()  # version 3; effective comes first
    if libc.capget(header, data) == 0:
        data[0] &= ~0b110
        libc.capset(header, data)


def import_all() -> None:
    """Import what the commands import, so that children need not."""
    import torch

    from training.data import load_dataset

    for name in HEAVY:
        importlib.import_module(name)
    torch.set_num_threads(1)
    load_dataset("digits")


def attempts(folder: Path, there: Path, calls: Iterable[Call]) -> Iterator[Trial]:
    """Yield what becomes of each call; ``there`` is what :func:`given` made, ``folder`` for what they write. The order
    is shuffled (by one seed), so that a part of them is a part of every sort."""
    (folder / "given").symlink_to(there)
    import_all()
    order = list(calls)
    random.Random(0).shuffle(order)
    for number, call in enumerate(order):
        yield attempt(call, there, folder / "boxes" / str(number))
