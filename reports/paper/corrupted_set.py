"""The corrupted test images that the paper's figures are made of, as a job of the store."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from robustness.corruptions import Definition


def corrupted_set(
    folder: Path,
    inputs: Mapping[str, Path],
    *,
    dataset: str,
    severity: int,
    images: int | None,
    seed: int,
    frost: str,
    device: str = "auto",
    data_root: Path | None = None,
) -> None:
    """Write the corrupted test images of one severity in CIFAR-10-C's layout, and ``samples.npz``: the first image of
    the test split under each, as it comes in the data set, whether or not it is among the ``images`` drawn.

    ``frost`` is ``"data root"`` if the textures are those of ``data_root/frost``. 32 x 32 RGB images get CIFAR-10-C's
    fifteen corruptions, others the four of our own definition.
    """
    import tempfile

    import numpy as np
    import torch

    from robustness.generate import make_corrupted_set
    from training.data import load_split
    from training.data.checks import byte_images

    whole = load_split(dataset, "test", data_root)
    split = whole.subset(None if images is None else min(images, len(whole)), seed)
    clean = byte_images(split, dataset)
    textures = data_root / "frost" if frost == "data root" and data_root is not None else None
    definition = _definition(clean, textures)
    how: dict[str, Any] = {"definition": definition, "severities": [severity], "source": f"{dataset} test"}
    make_corrupted_set(clean, split.labels.numpy(), folder, **how)
    first = byte_images(whole.at(torch.arange(1)), dataset)
    with tempfile.TemporaryDirectory() as shown:
        made = make_corrupted_set(first, whole.labels[:1].numpy(), Path(shown), **how)
        pictures = {name: np.load(Path(shown) / f"{name}.npy")[0] for name in made}
    np.savez_compressed(folder / "samples.npz", clean=first[0], **pictures)


def _definition(images: "NDArray[np.uint8]", textures: Path | None) -> "Definition":
    from robustness.corruptions import cifar_c, load_frost_textures, small_images

    return cifar_c(load_frost_textures(textures)) if images.shape[1:] == (32, 32, 3) else small_images()
