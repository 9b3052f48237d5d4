"""What a profile of the paper will take, from one job of each kind.

Jobs are of one kind where they cost the same: trainings that differ in what networks of a stack may differ in, analyses
of one name with the same settings. A training is measured over two epochs of a whole stack and stretched to its
epochs; an analysis is measured once, on a network that trained for two epochs, and multiplied. What was not measured
is taken from what is most alike, and said to be.
"""

import dataclasses
import functools
import itertools
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reports.paper import Profile, Target
from reports.paper.reproduction import Plan
from training.config import TrainConfig
from training.data import SOURCES, Dataset, Split, load_dataset
from training.loop import train_many
from training.stack_size import stack_key
from training.store import AnalysisJob, RunStore, TrainJob, execute
from training.store.jobs import Job, JobFile

EPOCHS = 2  # of a measured training: the first is slower
SHORT = 3.0  # seconds: what takes less is measured again, since the first of its name also loads what it needs
IMAGES = 500  # most images of a measured corrupted set; what is made of them is stretched to all
TOGETHER = 64  # most networks of a measured training
BY_IMAGES = ("corrupted-set", "corruptions")
SHAPES = {  # of data sets that are not at hand: an image, and the sizes of both splits
    "cifar10": ((3, 32, 32), 50_000, 10_000),
    "cifar100": ((3, 32, 32), 50_000, 10_000),
    "svhn": ((3, 32, 32), 73_257, 26_032),
    "stl10": ((3, 96, 96), 5_000, 8_000),
}


Left = Callable[[], float]


@dataclass
class Kind:
    """Jobs that cost the same.

    Attributes:
        name: ``"train"``, or that of the analysis.
        label: for people.
        jobs: all of them.
        seconds: that they take together; None as long as nothing is known.
        how: where the seconds are from.
    """

    name: str
    label: str
    jobs: list[Job]
    seconds: float | None = None
    how: str = "not measured"


Note = Callable[[Kind], None]


def kinds(profile: Profile, targets: Iterable[Target[Profile]], root: Path | None = None) -> dict[str, Kind]:
    """Return every kind of job that the targets need, each job in one of them, those of the first targets first."""
    found: dict[str, Kind] = {}
    seen: set[str] = set()
    for target in targets:
        for job in _planned(target, profile, root).jobs():
            if (own := identity(job)) in seen:
                continue
            seen.add(own)
            key = kind_of(job)
            found.setdefault(key, Kind("train" if isinstance(job, TrainJob) else job.name, label(job), []))
            found[key].jobs.append(job)
    return found


def _planned(target: Target[Profile], profile: Profile, root: Path | None) -> Plan:
    return Plan(target=target, profile=profile, sources=target.sources(profile, root), key="", state="to make")


def identity(job: Job) -> str:
    """Return what tells jobs apart, whether their data is there or not."""
    if isinstance(job, TrainJob):
        return repr(job.config)
    inputs = [
        (name, source.name, identity(source.job) if isinstance(source, JobFile) else "")
        for name, source in job.inputs.items()
    ]
    return repr([job.name, job.version, json.dumps(job.parameters, sort_keys=True), inputs])


def kind_of(job: Job) -> str:
    """Return what jobs of one kind have in common."""
    if isinstance(job, TrainJob):
        return f"train {stack_key(dataclasses.replace(job.config, subset_seed=0))}"
    settings = {name: value for name, value in job.parameters.items() if name != "images"}
    return f"{job.name} {json.dumps(settings, sort_keys=True)} {_has_feedback(job)}"


def _has_feedback(job: AnalysisJob) -> bool:
    """Whether a network that it reads has feedback, and so more to be measured."""
    needed = (source.job for source in job.inputs.values() if isinstance(source, JobFile))
    return any(one.config.rule != "bp" for one in needed if isinstance(one, TrainJob))


def label(job: Job) -> str:
    """Return what people call jobs like this one."""
    if not isinstance(job, TrainJob):
        more = ", severity {severity}" if "severity" in job.parameters else ""
        more += ", {attacks}" if "attacks" in job.parameters else ""
        return f"{job.name}{more.format(**job.parameters)}{'' if _has_feedback(job) else ' (no feedback)'}"
    config = job.config
    net = "-".join(map(str, config.hidden)) if config.model == "mlp" else config.model
    size = "" if config.train_size is None else f", {config.train_size} samples"
    return f"train {config.rule} {net} on {config.dataset}{size}, {config.optimiser}, {config.epochs} epochs"


def stacks(kind: Kind) -> list[list[TrainConfig]]:
    """Return the configs of a kind of training, those that may train together side by side."""
    configs = [job.config for job in kind.jobs if isinstance(job, TrainJob)]
    return [list(group) for _, group in itertools.groupby(sorted(configs, key=stack_key), key=stack_key)]


def work(configs: Sequence[TrainConfig]) -> float:
    """Return multiply-adds, up to a factor, that training networks of one architecture takes."""
    first = configs[0]
    shape, train, _ = SHAPES.get(first.dataset, ((1, 8, 8), 1437, 360))
    classes = SOURCES[first.dataset].classes
    widths = (math.prod(shape), *first.hidden, classes) if first.model == "mlp" else (math.prod(shape), 1)
    weights = sum(n * out for n, out in itertools.pairwise(widths))
    return float(len(configs)) * first.epochs * (first.train_size or train) * weights


@functools.lru_cache(maxsize=2)
def data_for(name: str, train_size: int | None, subset_seed: int, root: Path | None, device: str) -> Dataset:
    """Return a data set, or random bytes of its shape where it is not at hand."""
    from alignscape.errors import InputError

    try:
        return load_dataset(name, root, train_size=train_size, subset_seed=subset_seed, device=device)
    except InputError:
        if name not in SHAPES:
            raise
    shape, train, test = SHAPES[name]
    return random_data(name, shape, min(train, train_size or train), test).to(device)


def random_data(name: str, shape: tuple[int, ...], train: int, test: int) -> Dataset:
    """Return random bytes as a data set."""
    import torch

    random, source = torch.Generator().manual_seed(0), SOURCES[name]

    def split(n: int) -> Split:
        images = torch.randint(256, (n, *shape), dtype=torch.uint8, generator=random)
        return Split(images=images, labels=torch.randint(source.classes, (n,), generator=random))

    return Dataset(
        name=name, train=split(train), test=split(test), mean=source.mean, std=source.std, classes=source.classes
    )


def clock(device: str) -> float:
    """Return the time: of a rehearsal, that of this process's work, since others may use the cores too."""
    return time.process_time() if device == "cpu" else time.perf_counter()


def measure_training(configs: Sequence[TrainConfig], root: Path | None, device: str) -> tuple[float, float]:
    """Train a stack for at most two epochs; return the seconds that it takes but for its epochs, and those of one."""
    rest, epoch = _training(configs, root, device)
    return (rest, epoch) if rest + EPOCHS * epoch > SHORT else _training(configs, root, device)


def _training(configs: Sequence[TrainConfig], root: Path | None, device: str) -> tuple[float, float]:
    short = [dataclasses.replace(config, epochs=min(EPOCHS, config.epochs)) for config in configs]
    first = short[0]
    ends: dict[int, float] = {}

    def note(run: object, rows: list[dict[str, float]]) -> None:
        ends[int(rows[-1]["epoch"])] = clock(device)  # of the last network that says so

    data = data_for(first.dataset, first.train_size, first.subset_seed, root, device)
    with tempfile.TemporaryDirectory() as folder:
        began = clock(device)
        train_many([(config, Path(folder) / str(i)) for i, config in enumerate(short)], data, on_epoch=note)
        whole = clock(device) - began
    if first.epochs < EPOCHS:
        return 0.0, whole / max(first.epochs, 1)
    each = ends[EPOCHS] - ends[EPOCHS - 1]
    return whole - EPOCHS * each, each


def project_trainings(found: Mapping[str, Kind], root: Path | None, device: str, left: Left, note: Note) -> None:
    """Measure kinds of training as long as ``left`` says that there is time: one of each model, then one rule of each
    architecture, then the others, those with most work first. Each is given to ``note``."""
    trained = [kind for kind in found.values() if kind.name == "train"]
    trained.sort(key=lambda kind: -sum(map(work, stacks(kind))))
    seen: set[object] = set()
    for likeness in (_model, _architecture, id):
        for kind in trained:
            if kind.seconds is not None or likeness(kind) in seen or left() <= 0:
                continue
            seen |= {_model(kind), _architecture(kind)}
            groups = stacks(kind)
            configs = groups[0][:TOGETHER]
            rest, epoch = measure_training(configs, root, device)
            kind.seconds = (rest + configs[0].epochs * epoch) * sum(map(len, groups)) / len(configs)
            kind.how = f"{len(configs)} networks measured: {epoch:.2f} s an epoch"
            note(kind)


def _model(kind: Kind) -> str:
    return stacks(kind)[0][0].model


def _architecture(kind: Kind) -> str:
    return kind_of(TrainJob(config=dataclasses.replace(stacks(kind)[0][0], rule="bp")))


def project_analyses(
    found: Mapping[str, Kind],
    sampled: Mapping[str, Kind],
    stretch: float,
    store: RunStore,
    device: str,
    left: Left,
    note: Note,
) -> None:
    """Measure one job of each kind of analysis as long as there is time, with the jobs of ``sampled``, which are the
    same on networks that train for two epochs; ``stretch`` is how many times the images are more. Each kind is given
    to ``note``."""
    names: set[str] = set()
    # What others need comes first, or it would be made with them.
    analyses = sorted(
        (key for key, kind in found.items() if kind.name != "train"), key=lambda key: _is_late(found[key])
    )
    for key in analyses:
        kind = found[key]
        if key not in sampled or left() <= 0:
            continue
        jobs = sampled[key].jobs
        try:
            each = measure_analysis(jobs[0], store, device)
            if kind.name not in names and each < SHORT and len(jobs) > 1:
                each = measure_analysis(jobs[1], store, device)
        except RuntimeError as error:
            kind.how = f"failed: {error}"
        else:
            names.add(kind.name)
            each *= stretch if kind.name in BY_IMAGES else 1
            kind.seconds, kind.how = each * len(kind.jobs), f"one measured: {each:.2f} s"
        note(kind)


def _is_late(kind: Kind) -> bool:
    return any(isinstance(needed, AnalysisJob) for needed in kind.jobs[0].needs)


def measure_analysis(job: Job, store: RunStore, device: str) -> float:
    """Return the seconds of an analysis, when all that it needs is there.

    Raises:
        RuntimeError: it failed.
    """
    execute(job.needs, store, device=device)
    began = clock(device)
    summary = execute([job], store, device=device)
    if summary.failed:
        raise RuntimeError(summary.failed[0].reason)
    return clock(device) - began


def filled(found: Mapping[str, Kind]) -> list[Kind]:
    """Return the kinds, those that were not measured with the seconds of what is most alike, by work or by number."""
    known = [kind for kind in found.values() if kind.seconds is not None]
    return [kind if kind.seconds is not None else _as_another(kind, known) for kind in found.values()]


def _as_another(kind: Kind, known: Iterable[Kind]) -> Kind:
    alike = [one for one in known if one.name == kind.name]
    ratios = {id(one): len(kind.jobs) / len(one.jobs) for one in alike}
    if kind.name == "train":
        mine, own = stacks(kind)[0][0], sum(map(work, stacks(kind)))
        alike = [one for one in alike if _model(one) == mine.model]
        ratios = {id(one): own / sum(map(work, stacks(one))) for one in alike}
        alike.sort(key=lambda one: (stacks(one)[0][0].hidden != mine.hidden, abs(math.log(ratios[id(one)]))))
    if not alike or alike[0].seconds is None:
        return kind
    return dataclasses.replace(kind, seconds=alike[0].seconds * ratios[id(alike[0])], how=f"as {alike[0].label}")


def sample_of(profile: Profile) -> Profile:
    """Return the profile whose analyses are measured in place of those of ``profile``."""
    epochs = min(EPOCHS, profile.epochs)
    images = profile.corrupted_images
    if profile.dataset != "digits":
        images = min(IMAGES, images or IMAGES)
    every = min(profile.checkpoint_every, epochs)
    return dataclasses.replace(profile, epochs=epochs, checkpoint_every=every, corrupted_images=images)


def images_ratio(profile: Profile, sample: Profile) -> float:
    """Return how many times the corrupted images of the one are those of the other."""
    if sample.corrupted_images is None:
        return 1.0
    whole = profile.corrupted_images or SHAPES.get(profile.dataset, ((), 0, 360))[2]
    return whole / sample.corrupted_images
