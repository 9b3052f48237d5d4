"""What ``--dataset`` may name, besides data sets of ours. Nothing heavy is imported here."""

from pathlib import Path

FILES = ("npz", "imagefolder")
FORMS = "npz:FILE, imagefolder:DIR or package.module:function"
OURS = "digits, mnist, fashionmnist, cifar10, cifar100, svhn or stl10"
DATA_SETS = f"{OURS}; or data of your own (docs/data.md): {FORMS}"


def is_own(name: str) -> bool:
    """Whether ``name`` is one of :data:`FORMS`, and not a data set of ours."""
    return ":" in name


def form_of(name: str) -> str:
    """Return what a key says of a data set, whose bytes it knows anyhow: of a file not where it lies."""
    form = name.partition(":")[0]
    return form if is_own(name) and form in FILES else name


def short_name(name: str) -> str:
    """Return what a run is called after a data set: ``flowers`` for ``npz:data/flowers.npz``."""
    form, _, rest = name.partition(":")
    if not rest:
        return name
    return Path(rest).stem or form if form in FILES else rest


def located(name: str) -> str:
    """Return ``name`` with the path in it from the root of the file system: a checkpoint is read in any folder."""
    form, _, rest = name.partition(":")
    return f"{form}:{Path(rest).expanduser().absolute()}" if form in FILES and rest else name
