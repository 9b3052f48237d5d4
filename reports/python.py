"""The Python call: networks with every analysis as a method, by the same code as the commands.

runs = alignscape.train(rule="fa", seed=[0, 1, 2])
curvature = runs.hessian(k=3)
curvature.frame(); curvature.plot(); curvature.save("results")
"""

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self

from torch import nn

from alignscape.errors import InputError
from alignscape.settings import settings_of
from reports.analyses import (
    ANALYSES,
    Alignment,
    Analysis,
    Attack,
    Compare,
    Corruptions,
    Hessian,
    Sharpness,
    Spectrum,
    Surface,
    Trajectory,
    find_analysis,
    installed_analyses,
)
from reports.analyses.analysis import silent
from reports.flags import default_text, givable, one_of
from reports.loading import Loading
from reports.memory import InMemory
from reports.progress import TrainingDisplay, show_progress
from reports.runner import Result, run_analysis
from reports.trainer import configs_of, train_configs
from training.config import TrainConfig
from training.data_names import is_own
from training.run_folder import RunFolder

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from reports.schema import Table
    from reports.subjects import Subject
    from training.stack_size import Sizes

P = ParamSpec("P")


def _analysing(cls: Callable[P, Analysis]) -> "Callable[Concatenate[Networks, P], Result]":
    """Return the method that makes an analysis; its signature is that of the analysis' settings."""

    def analyse(networks: "Networks", /, *args: P.args, **settings: P.kwargs) -> Result:
        if args:
            raise TypeError(f"{cls.name}() takes its settings by name")  # type: ignore[attr-defined]
        return networks.analyse(cls, **settings)  # type: ignore[arg-type]

    described = settings_of(cls)  # type: ignore[arg-type]
    lines = [f"    {name}: {one.help} (default: {default_text(one)})." for name, one in described.items()]
    head = f"Return {cls.summary}.\n\nArgs:\n"  # type: ignore[attr-defined]
    raises = "\n\nRaises:\n    InputError: a setting, a network or the data will not do."
    analyse.__doc__ = head + "\n".join(lines) + raises
    own = inspect.signature(cls).replace(return_annotation=Result)
    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    analyse.__signature__ = own.replace(parameters=[first, *own.parameters.values()])  # type: ignore[attr-defined]
    analyse.__name__ = analyse.__qualname__ = cls.name  # type: ignore[attr-defined]
    return analyse


class Networks(Sequence["Networks"]):
    """One network or several, with every analysis as a method; made by :func:`load` and :func:`train`.

    An index or a slice gives some of them. What other packages add to the analyses is here too, by its name.

    Example:
        >>> import torch
        >>> from alignscape import load
        >>> heads = {name: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)) for name in ("a", "b")}
        >>> networks = load(heads, dataset="digits", device="cpu")
        >>> len(networks), networks[1:]
        (2, load('b'))
        >>> networks.attack(attacks=["fgsm"], eps=[0, 0.1], samples=50).frame()["checkpoint"].tolist()
        ['a', 'a', 'b', 'b']
    """

    def __init__(self, given: Sequence[Path], loading: Loading | InMemory, *, progress: bool = False) -> None:
        self.given = tuple(given)
        self.loading = loading
        self.progress = progress

    hessian = _analysing(Hessian)
    spectrum = _analysing(Spectrum)
    sharpness = _analysing(Sharpness)
    surface = _analysing(Surface)
    trajectory = _analysing(Trajectory)
    attack = _analysing(Attack)
    corruptions = _analysing(Corruptions)
    alignment = _analysing(Alignment)
    compare = _analysing(Compare)

    def analyse(self, analysis: type[Analysis], **settings: Any) -> Result:
        """Return what ``analysis`` with these settings finds of the networks.

        Raises:
            InputError: a setting that is unknown, out of its range or without effect; a network or data that will
                not do.
        """
        if unknown := [name for name in settings if name not in settings_of(analysis)]:
            raise InputError(
                f"{analysis.name} has no setting {unknown[0]!r}; it has {', '.join(settings_of(analysis))}"
            )
        made: Analysis = one_of(analysis, settings, places={name: name for name in settings})
        text = ", ".join(f"{name}={value!r}" for name, value in settings.items())
        show = show_progress if self.progress else silent
        return run_analysis(made, self.given, self.loading, show, command=f"{self!r}.{analysis.name}({text})")

    def subject(self, split: str = "test", samples: int | None = None, seed: int = 0) -> "Subject":
        """Return the first network as a module with its samples: what an analysis is given.

        Raises:
            InputError: the network or the data cannot be loaded.
        """
        return self.loading.subject(self.given[0], split=split, samples=samples, seed=seed)

    def __getattr__(self, name: str) -> Callable[..., Result]:
        if name.startswith("_") or name not in (added := installed_analyses()):
            raise AttributeError(f"no analysis {name!r}; there are {', '.join((*ANALYSES, *installed_analyses()))}")
        return functools.partial(self.analyse, find_analysis(added[name].name))

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *installed_analyses()})

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, index: Any) -> Self:
        chosen = self.given[index]
        return type(self)(chosen if isinstance(index, slice) else (chosen,), self.loading, progress=self.progress)

    def __iter__(self) -> Iterator[Self]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"load({', '.join(repr(str(path)) for path in self.given)})"


class Runs(Networks):
    """Runs of ours: what :func:`train` returns.

    Example:
        >>> import tempfile
        >>> from alignscape import train
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     runs = train(folder, rule="ifa", angle=[0, 90], hidden=(8,), epochs=1)
        ...     [config.angle for config in runs.configs], type(runs.plot()).__name__
        ([0.0, 90.0], 'Figure')
    """

    def frame(self) -> "DataFrame":
        """Return the learning curves: one row an epoch of each run, the columns of ``metrics.csv`` with the run's."""
        from reports.schema import METRICS

        return self._rows(METRICS)

    def curvature(self) -> "DataFrame":
        """Return what ``monitor="hessian"`` measured: one row a measurement of each run, the columns of
        ``curvature.csv`` with the run's.

        Raises:
            InputError: a run was trained without a monitor.
        """
        from reports.schema import CURVATURE

        return self._rows(CURVATURE)

    def _rows(self, table: "Table") -> "DataFrame":
        import pandas as pd

        from reports.subjects import run_columns
        from reports.tables import read_table

        parts = []
        for path, config in zip(self.given, self.configs, strict=True):
            rows = read_table(path / f"{table.name}.csv", table)
            columns = {name: value for name, value in run_columns(config, 0).items() if name != "epoch"}
            rows.insert(0, "checkpoint", str(path))
            parts.append(rows.assign(**columns))
        return pd.concat(parts, ignore_index=True)

    def plot(self) -> "Figure":
        """Draw the learning curves."""
        from reports.figures import metrics

        return metrics(self.frame())

    @property
    def configs(self) -> list[TrainConfig]:
        """The configs of the runs, in order."""
        return [TrainConfig.from_dict(RunFolder(path).read_config()["config"]) for path in self.given]

    def _repr_html_(self) -> str:
        last = self.frame().groupby("checkpoint", sort=False).tail(1)
        return last.to_html(index=False)


def train(
    out: str | Path | None = None,
    *,
    data_root: str | Path | None = None,
    download: bool = False,
    device: "str | torch.device" = "auto",
    stack: "Sizes" = "auto",
    progress: bool = False,
    **settings: Any,
) -> Runs:
    """Train networks with a learning rule and return the runs.

    Example:
        >>> import tempfile
        >>> from alignscape import train
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     runs = train(folder, rule="fa", seed=[0, 1], hidden=(16,), epochs=2)
        ...     last = runs.frame().groupby("seed")["epoch"].max().tolist()
        ...     last, runs.hessian(k=1, samples=200).frame()["quantity"].tolist()
        ([2, 2], ['trace', 'eigenvalue', 'trace', 'eigenvalue'])

    A run that was interrupted goes on, and one that is complete is left alone, as on the command line.

    Args:
        out: the run's folder; of several runs, the folder of their folders (default: ``runs/NAME``).
        data_root: folder of the data sets (default: ``$ALIGNSCAPE_DATA``, else ``./data``); digits need none.
        download: fetch a missing data set first.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        stack: networks that train at once, or ``"auto"``.
        progress: show a bar.
        settings: fields of :class:`training.TrainConfig`; a list or range of a field that can be swept (``rule`` is
            none, ``seed``, ``angle``, ``lr`` and others are) is a run of each.

    Raises:
        InputError: a setting that is unknown, out of its range or without effect; data or device that are not there.
    """
    from reports.subjects import find_data_root

    known = givable(TrainConfig)
    if unknown := [name for name in settings if name not in known]:
        raise InputError(f"no setting {unknown[0]!r}; there are {', '.join(known)}")
    values = {
        name: list(value) if known[name].swept and isinstance(value, Iterable) and not isinstance(value, str) else value
        for name, value in settings.items()
    }
    configs = configs_of(values, {name: name for name in values})
    root = find_data_root(None if data_root is None else Path(data_root), Path())
    root = None if configs[0].dataset == "digits" or is_own(configs[0].dataset) else root
    runs = train_configs(
        configs,
        None if out is None else Path(out),
        data_root=root,
        download=download,
        device=str(device),
        stack=stack,
        progress=TrainingDisplay(configs[0].epochs) if progress else None,
    )
    loading = Loading(data_root=root, device=str(device))
    return Runs([run.path for run in runs], loading, progress=progress)


def load(
    *networks: str | Path | nn.Module | Mapping[str, nn.Module],
    data: Any = None,
    dataset: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    model: str | None = None,
    pretrained: bool = False,
    output: str | None = None,
    image_size: int | None = None,
    data_root: str | Path | None = None,
    download: bool = False,
    device: "str | torch.device" = "auto",
    progress: bool = False,
) -> Networks:
    """Return networks to analyse.

    Example:
        >>> import torch
        >>> from alignscape import load
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        >>> found = load(net, dataset="digits").hessian(k=2, samples=100)
        >>> found.frame()["quantity"].tolist()
        ['trace', 'eigenvalue', 'eigenvalue']

    Args:
        networks: run folders, checkpoints or state dicts (with ``model`` and ``dataset``); or modules, with ``dataset``
            or ``data``, where a dictionary gives them names.
        data: inputs (N, ...) and labels (N,) for modules: uint8 images (N, C, H, W), or floats as they are; or a
            ``torch.utils.data.Dataset`` or batches, of tensors, tuples or mappings (docs/data.md).
        dataset: name of a data set, for state dicts and modules: one of ours, ``npz:FILE``, ``imagefolder:DIR`` or
            ``package.module:function``.
        mean: of each channel of pixels in [0, 1] (default: the data set's, or none of ``data``).
        std: standard deviation, likewise.
        model: for state dicts, what they belong to, such as ``torchvision:resnet18``.
        pretrained: without ``networks``: take the weights that the zoo of ``model`` has published from its cache.
        output: which part of what the networks return are the logits.
        image_size: pixels a side of the pictures of ``imagefolder:DIR``.
        data_root: folder of the data sets (default: ``$ALIGNSCAPE_DATA``, else where a run was trained from).
        download: fetch a missing data set first.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        progress: show bars.

    Raises:
        InputError: nothing was given, files and modules together, or modules without data.
    """
    modules = _named(networks)
    paths = [Path(one) for one in networks if isinstance(one, (str, os.PathLike))]
    if pretrained and not networks and model is not None:
        paths = [Path(model)]
    if bool(modules) == bool(paths):
        raise InputError("give run folders or checkpoints, or modules with data; not nothing, and not both")
    root = None if data_root is None else Path(data_root)
    mean, std = _channels(mean), _channels(std)
    if paths:
        if data is not None:
            raise InputError("data are for modules; a checkpoint takes its data set, or --dataset")
        settings: dict[str, Any] = {"model": model, "dataset": dataset, "mean": mean, "std": std, "data_root": root}
        settings |= {"pretrained": pretrained, "output": output, "image_size": image_size}
        loading = Loading(**settings, download=download, device=str(device))
        return Networks(paths, loading, progress=progress)
    if (data is None) == (dataset is None):
        raise InputError("a module needs data: dataset=NAME, or data=(inputs, labels)")
    if model is not None:
        raise InputError("model is for state dicts: a module is one already")
    held = InMemory(
        modules=modules,
        data=(dataset or "") if data is None else data,
        mean=mean,
        std=std,
        data_root=root,
        download=download,
        device=str(device),
        image_size=image_size,
        output=output,
    )
    return Networks([Path(name) for name in modules], held, progress=progress)


def _named(networks: Sequence[Any]) -> dict[str, nn.Module]:
    """Return the modules among what was given, each with the name that it has in tables.

    Raises:
        InputError: something that is neither a module nor a path, or two modules of one name.
    """
    found: dict[str, nn.Module] = {}
    for one in networks:
        plain = type(one).__name__ if type(one).__name__ not in found else f"network {len(found) + 1}"
        for name, module in one.items() if isinstance(one, Mapping) else ((plain, one),):
            if isinstance(one, (str, os.PathLike)):
                continue
            if not isinstance(module, nn.Module):
                raise InputError(f"a {type(module).__name__} is no network: give paths or modules, one by one")
            if (key := str(Path(str(name)))) in found:
                raise InputError(f"two networks are called {key}")
            found[key] = module
    return found


def _channels(values: "Sequence[float] | float | None") -> "Sequence[float] | None":
    """Return what was given for each channel; a number is that of one."""
    return (float(values),) if isinstance(values, (int, float)) else values
