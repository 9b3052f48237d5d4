"""``analyze make-cifar10c``: the corrupted test sets, in the official file layout."""

import argparse
import multiprocessing
import os
import warnings
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignscape.errors import InputError
from reports.commands.common import add_quiet_argument, add_seed_argument, progress_bar, worker_count
from training.data_names import short_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from robustness.corruptions import Definition

HELP = "make CIFAR-10-C (15 corruptions at 5 severities) from the clean test set, in the official file layout"
FOLDERS = {"cifar10": "CIFAR-10-C", "cifar100": "CIFAR-100-C"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    text = "folder that holds the clean data set in torchvision's layout (default: $ALIGNSCAPE_DATA, else ./data)"
    parser.add_argument("--data-root", type=Path, metavar="DIR", help=text)
    parser.add_argument("--download", action="store_true", help="fetch a missing data set into --data-root first")
    text = "data set of 32 x 32 RGB images to corrupt: cifar10, cifar100, svhn, or of your own: npz:FILE, "
    text += "imagefolder:DIR, package.module:function (default: cifar10)"
    parser.add_argument("--dataset", default="cifar10", metavar="NAME", help=text)
    text = "corrupt these images instead: uint8 (N, 32, 32, 3), with --labels"
    parser.add_argument("--images", type=Path, metavar="FILE.npy", help=text)
    parser.add_argument("--labels", type=Path, metavar="FILE.npy", help="integer labels (N,) of --images")
    text = "folder with frost1.png frost2.png frost3.png frost4.jpg frost5.jpg (default: those of an installed "
    text += "imagecorruptions, else a stand-in that is labelled approximate)"
    parser.add_argument("--frost-dir", type=Path, metavar="DIR", help=text)
    text = "make only these corruptions (default: all 15)"
    parser.add_argument("--corruptions", nargs="+", metavar="NAME", help=text)
    text = "where to make the folder CIFAR-10-C (2.3 GB; default: the current folder)"
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help=text)
    text = "processes; the result does not depend on it (default: cores)"
    parser.add_argument("--workers", type=worker_count, metavar="N", help=text)
    add_quiet_argument(parser)
    add_seed_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Make the set, or what is missing of it, draw its contact sheet, and say what every file is."""
    from robustness.corruptions import cifar_c, load_frost_textures
    from robustness.generate import make_corrupted_set

    images, labels, name = _clean_images(args)
    with warnings.catch_warnings(record=True) as of_textures:
        warnings.simplefilter("always")
        definition = cifar_c(load_frost_textures(args.frost_dir))
    if args.corruptions is not None and "frost" not in args.corruptions:
        of_textures = []  # nothing is made with them
    folder = args.out / name
    bar = progress_bar(args, f"making {folder}", "image")

    def advance(done: int, total: int) -> None:
        while of_textures:  # once it is clear that the set can be begun: a call that is refused says one line
            told = of_textures.pop()
            warnings.warn_explicit(told.message, told.category, told.filename, told.lineno)
        if bar is not None:
            bar(done, total)

    provenance = make_corrupted_set(
        images,
        labels,
        folder,
        definition=definition,
        corruptions=args.corruptions,
        seed=args.seed,
        workers=args.workers,
        source=str(args.images or f"{args.dataset} test"),
        progress=advance,
    )
    sheet = _draw_sheet(folder, args.out / f"{name}-contact-sheet", images, definition, provenance)
    print(_table(provenance))
    print(f"wrote {folder} and {sheet}")


def _clean_images(args: argparse.Namespace) -> "tuple[NDArray[np.uint8], NDArray[np.int64], str]":
    """Return images (N, H, W, C), labels (N,) and the name of the set to make."""
    if (args.images is None) != (args.labels is None):
        raise InputError("--images and --labels go together")
    if args.images is not None:
        return _read(args.images), _read(args.labels), f"{args.images.stem}-C"
    # torch and torchvision take more memory than all the rest of the work: a process of its own reads, and ends.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as reader:
        pixels, labels = reader.submit(read_test_set, args.dataset, args.data_root, args.download).result()
    return pixels, labels, FOLDERS.get(args.dataset, f"{short_name(args.dataset)}-C")


def read_test_set(name: str, root: Path | None, download: bool) -> "tuple[NDArray[np.uint8], NDArray[np.int64]]":
    """Return images (N, H, W, C) and labels (N,) of a data set's test split, ``root`` by default the usual folder."""
    from reports.subjects import DATA_ROOT_VARIABLE
    from training.data import load_split
    from training.data.checks import byte_images

    split = load_split(name, "test", root or Path(os.environ.get(DATA_ROOT_VARIABLE, "data")), download=download)
    return byte_images(split, name), split.labels.numpy()


def _read(path: Path) -> "NDArray[Any]":
    import numpy as np

    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path} is no file")
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as a NumPy array: {error}") from error
    return array


def _draw_sheet(
    folder: Path, stem: Path, images: "NDArray[np.uint8]", definition: "Definition", names: "Iterable[str]"
) -> Path:
    """Draw the set's first image under the corruptions called ``names``; return the PNG."""
    import numpy as np

    from reports.figures.contact_sheet import contact_sheet
    from reports.style import save
    from robustness.corruptions import SEVERITIES

    # Image 0 of every severity; the rest of the files stays on disk.
    chosen = [corruption for name, corruption in definition.corruptions.items() if name in names]
    stacks = {c.name: np.load(folder / f"{c.name}.npy", mmap_mode="r")[:: len(images)] for c in chosen}
    categories = {corruption.name: corruption.category for corruption in chosen}
    return save(contact_sheet(stacks, SEVERITIES, categories=categories, clean=images[0]), stem)[1]


def _table(provenance: "Mapping[str, str]") -> str:
    import pandas as pd

    from reports.tables import render

    return render(pd.DataFrame({"corruption": list(provenance), "provenance": list(provenance.values())}))
