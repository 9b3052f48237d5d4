"""Data of users': files, folders and functions, held against the same bytes by other ways."""

import itertools
import json
import os
import shlex
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from alignscape.errors import InputError
from reports.cli import main
from reports.subjects import load_subject
from training.config import TrainConfig
from training.data import load_dataset, load_split
from training.data.given import returned
from training.loop import train
from training.names import run_names


def pixels(*shape, seed=0):
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIGNSCAPE_CACHE", "")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("own_data_")]:
        del sys.modules[name]


def digits_file(path, **more):
    data = load_dataset("digits")
    arrays = {f"x_{name}": getattr(data, name).images[:, 0].numpy() for name in ("train", "test")}
    arrays |= {f"y_{name}": getattr(data, name).labels.numpy() for name in ("train", "test")}
    np.savez(path, **{**arrays, "mean": data.mean, "std": data.std, **more})
    return f"npz:{path}"


def config(dataset, **more):
    options = {"hidden": (8,), "epochs": 1, "batch_size": 40, "train_size": 200, "rule": "fa"}
    return TrainConfig(dataset=dataset, **{**options, **more})


def trained(dataset, folder, **more):
    one = config(dataset, **more)
    data = load_dataset(dataset, train_size=one.train_size, image_size=one.image_size)
    return train(one, data, folder)


def weights(run):
    return torch.load(run.checkpoint, weights_only=True)["model"]


# ---- the same bytes, by other ways ----


def test_the_digits_from_a_file_train_to_the_same_bits(here):
    own, ours = trained(digits_file(here / "d.npz"), "own"), trained("digits", "ours")
    for name, tensor in weights(ours).items():
        assert torch.equal(weights(own)[name], tensor), name
    rows = [run.read_metrics()[-1] for run in (own, ours)]
    assert [row["test_loss"] for row in rows] == [rows[0]["test_loss"]] * 2


def test_a_key_goes_by_bytes_and_not_by_place(here):
    (here / "sub").mkdir()
    names = [digits_file(here / "d.npz"), digits_file(here / "sub" / "e.npz")]
    keys = {config(name).key(load_dataset(name).digest()) for name in names}
    assert len(keys) == 1
    others = [digits_file(here / "f.npz", std=(0.5,)), digits_file(here / "g.npz", y_test=np.zeros(360, int))]
    keys |= {config(name).key(load_dataset(name).digest()) for name in others}
    assert len(keys) == 3, "the deviation and the labels are part of it"


def test_a_run_goes_on_where_its_file_has_moved_to(here):
    run = trained(digits_file(here / "d.npz"), "run")
    (here / "sub").mkdir()
    moved = digits_file(here / "sub" / "e.npz")
    assert trained(moved, "run").path == run.path
    with pytest.raises(InputError, match="other bytes"):
        trained(digits_file(here / "f.npz", std=(0.5,)), "run")


def test_files_of_one_name_have_runs_of_their_own(here):
    configs = [config(f"npz:{here}/{folder}/d.npz", seed=seed) for folder in "ab" for seed in (0, 1)]
    assert len(set(run_names(configs))) == 4


def test_the_usual_size_of_images_is_no_other_run():
    sizes = [config("imagefolder:pictures", image_size=size) for size in (None, 224)]
    assert sizes[0].key("digest") == sizes[1].key("digest") != sizes[0].key("digest of other pixels")


def test_an_analysis_reads_a_file_again_that_has_changed(here):
    name = digits_file(here / "d.npz")
    run = trained(name, "run")
    before = load_subject(run.path, device="cpu", samples=5).images
    data = load_dataset("digits")
    digits_file(here / "d.npz", x_test=255 - data.test.images[:, 0].numpy())
    assert torch.equal(load_subject(run.path, device="cpu", samples=5).images, 255 - before)


def test_batches_of_a_file_with_channels_last_are_laid_out_as_those_in_memory(here, monkeypatch):
    images = np.random.default_rng(0).random((6, 5, 4, 3), dtype=np.float32)
    np.savez(here / "f.npz", x_train=images, y_train=np.arange(6) % 2, x_test=images, y_test=np.arange(6) % 2)
    monkeypatch.setenv("ALIGNSCAPE_DATA_MEMORY", "0")
    split = load_dataset("npz:f.npz").train
    inputs, _ = next(split.batches(4))
    assert split.mapped
    assert inputs.is_contiguous()
    assert np.array_equal(inputs.numpy(), images[:4].transpose(0, 3, 1, 2))


def test_what_watches_a_run_takes_its_samples_from_a_streamed_split(here, monkeypatch):
    name = digits_file(here / "d.npz")
    how = {"monitor": "hessian", "monitor_every": 5, "monitor_samples": 20, "monitor_k": 1, "gradient_alignment": 80}
    whole = trained(name, "whole", **how)
    monkeypatch.setenv("ALIGNSCAPE_DATA_MEMORY", "0")
    streamed = trained(name, "streamed", **how)
    tables = [(run.path / "curvature.csv").read_text() for run in (whole, streamed)]
    assert tables[0] == tables[1]
    cosines = [[row["gradient_cosine_all"] for row in run.read_metrics()] for run in (whole, streamed)]
    assert cosines[0] == cosines[1]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_what_is_streamed_from_a_file_gives_the_same_bits(here, monkeypatch, last, streamed):
    images = pixels(150, 3, 14, 14).numpy()
    labels = np.arange(150) % 3
    order = (0, 2, 3, 1) if last else (0, 1, 2, 3)
    arrays = {"x_train": images[:100].transpose(order), "x_test": images[100:].transpose(order)}
    np.savez("d.npz", **arrays, y_train=labels[:100, None], y_test=labels[100:, None])
    monkeypatch.setenv("ALIGNSCAPE_DATA_MEMORY", "0" if streamed else "1")
    data = load_dataset(f"npz:{here / 'd.npz'}")
    assert data.train.mapped is streamed
    assert data.input_shape == (3, 14, 14)
    assert torch.equal(data.train.take(torch.tensor([[3, 99]]))[0][0], torch.from_numpy(images)[[3, 99]])
    one_config = config(data.name, model="lenet", hidden=(512, 512), train_size=None, augment="crop-flip")
    run = train(one_config, data, "run")
    one = load_subject(run.path, split="train", device="cpu")
    assert one.mapped is streamed
    monkeypatch.setenv("ALIGNSCAPE_DATA_MEMORY", "1")
    whole = returned({"train": (images[:100], labels[:100]), "test": (images[100:], labels[100:])}, data.name)
    assert whole.digest() == data.digest()
    assert (whole.mean, whole.std) == (data.mean, data.std)
    alone = train(
        config(data.name, model="lenet", hidden=(512, 512), train_size=None, augment="crop-flip"), whole, "alone"
    )
    for name, tensor in weights(alone).items():
        assert torch.equal(weights(run)[name], tensor), name


def test_moments_of_pixels_are_those_of_the_train_split(here):
    images = pixels(50, 3, 5, 4)
    data = returned(((images, torch.arange(50) % 2), (images[:9], torch.arange(9) % 2)), "own")
    floats = images.double() / 255
    torch.testing.assert_close(torch.tensor(data.mean).double(), floats.mean((0, 2, 3)), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.tensor(data.std).double(), floats.std((0, 2, 3), correction=0), atol=1e-6, rtol=0)


def test_a_compressed_file_and_a_folder_of_arrays_are_the_same_data(here):
    x, y = pixels(20, 6, 6).numpy(), np.arange(20) % 4
    arrays = {"x_train": x[:15], "y_train": y[:15], "x_test": x[15:], "y_test": y[15:]}
    np.savez("a.npz", **arrays)
    np.savez_compressed("b.npz", **arrays)
    (here / "c").mkdir()
    for name, array in arrays.items():
        np.save(here / "c" / f"{name}.npy", array)
    assert len({load_dataset(f"npz:{name}").train.digest() for name in ("a.npz", "b.npz", "c")}) == 1


class Samples(torch.utils.data.Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def test_every_way_of_giving_a_split_is_the_same_split():
    from PIL import Image

    x, y = pixels(10, 3, 4, 4), torch.arange(10) % 3
    pictures = [(Image.fromarray(one.permute(1, 2, 0).numpy()), int(label)) for one, label in zip(x, y, strict=True)]
    whole = torch.utils.data.TensorDataset(x, y)
    ways = {
        "tensors": (x, y),
        "arrays": (x.numpy(), y.numpy()),
        "list of labels": [x, y.tolist()],
        "a column of labels": (x, y[:, None]),
        "TensorDataset": whole,
        "DataLoader": torch.utils.data.DataLoader(whole, batch_size=4),
        "subset": torch.utils.data.Subset(whole, range(10)),
        "samples": Samples(list(zip(x, y.tolist(), strict=True))),
        "pictures": Samples(pictures),
        "two batches": [(x[:5], y[:5]), (x[5:], y[5:])],
        "generator": ((x[i : i + 3], y[i : i + 3]) for i in range(0, 10, 3)),
    }
    digests = {name: returned({"train": way, "test": (x, y)}, "own").train.digest() for name, way in ways.items()}
    assert len(set(digests.values())) == 1, digests


def test_what_a_function_returns_may_have_several_forms():
    from collections import namedtuple
    from types import SimpleNamespace

    pair = pixels(6, 5), torch.arange(6) % 2
    form = namedtuple("Mine", "train test mean std")
    found = [
        {"train": pair, "test": pair, "mean": 0.5, "std": 0.25},
        (pair, pair, 0.5, 0.25),
        form(pair, pair, 0.5, [0.25]),
        SimpleNamespace(train=pair, test=pair, mean=(0.5,), std=(0.25,)),
    ]
    assert len({returned(one, "own:f").digest() for one in found}) == 1
    assert returned(found[0], "own:f").input_shape == (5,)


# ---- pictures in folders ----


def write_pictures(root, sizes=((40, 30), (30, 60), (33, 33)), classes=("b", "a")):
    from PIL import Image

    for split, shift in (("train", 0), ("val", 50)):
        for c, name in enumerate(classes):
            for i, (width, height) in enumerate(sizes):
                folder = root / split / name / ("deep" if i == 2 else "")
                folder.mkdir(parents=True, exist_ok=True)
                array = pixels(height, width, 3, seed=shift + 10 * c + i).numpy()
                picture = Image.fromarray(array if i else array[:, :, 0])  # the first is grey
                picture.save(folder / (f"{i}.png" if i != 1 else f"{i}.JPEG"))
    return root


def torchvision_split(root, split, size):
    from torchvision import datasets, transforms

    made = [transforms.Resize(round(size * 256 / 224)), transforms.CenterCrop(size), transforms.PILToTensor()]
    found = datasets.ImageFolder(root / split, transforms.Compose(made))
    return torch.stack([image for image, _ in found]), torch.tensor(found.targets)


def test_pictures_are_those_of_torchvision(here, monkeypatch):
    root = write_pictures(here / "pictures")
    for size in (16, 20):
        data = load_dataset("imagefolder:pictures", image_size=size)
        for split, own in (("train", data.train), ("val", data.test)):
            images, labels = torchvision_split(root, split, size)
            assert torch.equal(own.images, images)
            assert torch.equal(own.labels, labels)
    assert sorted(path.name for path in (root / ".alignscape").glob("*.npy")) == sorted(
        f"{split}-{size}{end}.npy" for split in ("train", "val") for size in (16, 20) for end in ("", ".marks")
    )
    monkeypatch.setattr("training.data.folders._fits", lambda cache, needed: False)
    monkeypatch.setenv("ALIGNSCAPE_CACHE", str(here / "elsewhere"))
    from training.data.own import _read

    _read.cache_clear()
    monkeypatch.setenv("ALIGNSCAPE_DATA_MEMORY", "0")
    streamed = load_dataset("imagefolder:pictures", image_size=20)
    assert streamed.train.streams
    assert streamed.digest() == data.digest()
    assert torch.equal(streamed.train.take(torch.tensor([[5, 1]]))[0], data.train.images[[5, 1]][None])
    options = {"hidden": (4,), "train_size": 5, "batch_size": 2, "epochs": 1, "image_size": 20, "augment": "crop"}
    one = config("imagefolder:pictures", **options)
    runs = [
        train(one, load_dataset(one.dataset, train_size=5, image_size=20), "streamed"),
        train(one, data.__class__(**{**vars(data), "train": data.train.subset(5, 0)}), "kept"),
    ]
    assert all(torch.equal(a, b) for a, b in zip(*(weights(run).values() for run in runs), strict=True))
    subject = load_subject(runs[0].path, split="train", device="cpu")
    assert subject.images.shape == (5, 3, 20, 20)
    assert not subject.doubt


def test_a_changed_picture_is_another_digest_and_the_run_says_so(here):
    from PIL import Image

    root = write_pictures(here / "pictures")
    run = trained("imagefolder:pictures", "run", image_size=16, train_size=None)
    assert load_subject(run.path, split="train", device="cpu").doubt == ""
    Image.fromarray(pixels(30, 40, 3, seed=99).numpy()).save(root / "train" / "a" / "0.png")
    os.utime(root / "train" / "a")  # as a file that comes or goes does
    assert "has changed since run was trained" in load_subject(run.path, split="train", device="cpu").doubt
    assert load_subject(run.path, split="test", device="cpu").doubt == ""


# ---- what is not pixels ----


def test_eps_is_a_share_of_the_range_of_floats(here):
    x = torch.linspace(-3, 5, 40).reshape(20, 2)
    (here / "own_data_floats.py").write_text(
        "import torch\nx = torch.linspace(-3, 5, 40).reshape(20, 2)\n"
        "def data(): return (x, torch.arange(20) % 2), (x, torch.arange(20) % 2)\n"
        "def net(): return torch.nn.Linear(2, 2)\n"
    )
    torch.save({"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "bias": torch.zeros(2)}, "net.pt")
    one = load_subject(here / "net.pt", model="own_data_floats:net", dataset="own_data_floats:data", device="cpu")
    assert one.range == (-3.0, 5.0)
    moved = one.pixels()
    moved[:, 0] = (moved[:, 0] + 0.05).clamp(max=1)
    torch.testing.assert_close(one.pixel_model()(one.pixels()), x)
    torch.testing.assert_close((one.pixel_model()(moved) - x)[:10, 0], torch.full((10,), 0.05 * 8))
    few = load_subject(
        here / "net.pt", model="own_data_floats:net", dataset="own_data_floats:data", samples=3, device="cpu"
    )
    assert few.range == one.range, "whatever samples are taken"


TREES = """
import torch
from torch import nn
from dataclasses import dataclass
g = torch.Generator().manual_seed(0)
x, y, t = torch.randn(30, 4, generator=g), torch.arange(30) % 3, torch.randn(30, 2, generator=g)
@dataclass
class Output:
    hidden: torch.Tensor
    logits: torch.Tensor
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 3)
    def forward(self, x, mask=None):
        h = torch.tanh(self.a(x))
        return Output(h, self.b(h * (1 if mask is None else mask)))
class Plain(Net):
    def forward(self, x): return super().forward(x).logits
class Two(Net):
    def forward(self, x): return x, super().forward(x).logits
def tree():
    mask = torch.ones(30, 5)
    batches = [{"x": x[i:i + 7], "mask": mask[i:i + 7], "labels": y[i:i + 7]} for i in range(0, 30, 7)]
    return batches, batches
def plain(): return (x, y), (x, y)
def numbers(): return (x, t), (x, t)
def line(): return nn.Linear(4, 2)
def halved(outputs, labels): return nn.functional.cross_entropy(outputs, labels) / 2
def broken(outputs, labels): return outputs.nothing
"""


@pytest.fixture
def trees(here):
    (here / "own_data_trees.py").write_text(TREES)
    random = torch.Generator().manual_seed(1)
    shapes = {"a.weight": (5, 4), "a.bias": (5,), "b.weight": (3, 5), "b.bias": (3,)}
    torch.save({name: torch.randn(shape, generator=random) for name, shape in shapes.items()}, "net.pt")
    return here


def curvature(argv):
    import pandas as pd

    shared = ["--quiet", "--device", "cpu", "--k", "2", "--out", "out", "--force"]
    assert main(["hessian", *argv, *shared]) == 0
    return pd.read_csv("out/hessian.csv")["value"].to_numpy()


def test_batches_and_outputs_that_are_several_tensors_have_the_same_curvature(trees):
    def of(model, data, *more):
        return curvature(["net.pt", "--model", f"own_data_trees:{model}", "--dataset", f"own_data_trees:{data}", *more])

    expected = of("Plain", "plain")
    np.testing.assert_allclose(of("Net", "tree"), expected, rtol=1e-5)
    np.testing.assert_allclose(of("Two", "plain", "--output", "1"), expected, rtol=1e-5)
    np.testing.assert_allclose(of("Plain", "plain", "--loss", "own_data_trees:halved"), expected / 2, rtol=1e-5)


def test_the_hessian_of_squared_errors_is_the_covariance_of_the_inputs(trees):
    torch.save({"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}, "line.pt")
    words = ["line.pt", "--model", "own_data_trees:line", "--dataset", "own_data_trees:numbers", "--loss", "mse"]
    found = curvature([*words, "--probes", "10"])
    import own_data_trees

    x = torch.cat([own_data_trees.x, torch.ones(30, 1)], 1).double()
    moments = torch.linalg.eigvalsh(x.T @ x / 30)  # of the mean over 2 outputs: 2 / 2 times that, twice
    np.testing.assert_allclose(found[1:], [moments[-1]] * 2, rtol=1e-3)
    np.testing.assert_allclose(found[0], 2 * moments.sum(), rtol=1e-2)  # deflated: the Krylov space is all there is


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model", "own_data_trees:Two", "--dataset", "own_data_trees:plain"], "several tensors (0, 1)"),
        (["--model", "own_data_trees:Net", "--dataset", "own_data_trees:plain", "--output", "odd"], "without a tensor"),
        (
            ["--model", "own_data_trees:Plain", "--dataset", "own_data_trees:tree"],
            "does not take own_data_trees:tree's",
        ),
        (["--model", "own_data_trees:Plain", "--dataset", "own_data_trees:plain", "--loss", "huber"], "--loss 'huber'"),
        (
            ["--model", "own_data_trees:Plain", "--dataset", "own_data_trees:plain", "--loss", "own_data_trees:broken"],
            "--loss own_data_trees:broken: AttributeError",
        ),
        (["--dataset", "own_data_trees:plain"], "is a plain state dict"),
        (["--model", "own_data_trees:Plain", "--dataset", "own_data_trees:plain", "--image-size", "8"], "--image-size"),
        (["--model", "own_data_trees:Plain", "--dataset", "own_data_trees:plain", "--device", "cuda:99"], "cuda:99"),
    ],
)
def test_what_does_not_go_together_is_one_line(trees, capsys, argv, message):
    assert main(["hessian", "net.pt", *argv, "--quiet", "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (trees / "out").exists()


def test_attacks_refuse_what_is_no_picture(trees, capsys):
    argv = ["net.pt", "--model", "own_data_trees:Net", "--dataset", "own_data_trees:tree", "--device", "cpu"]
    assert main(["attack", *argv, "--eps", "0.1", "--quiet"]) == 2
    assert "an attack changes pixels or floats a little" in capsys.readouterr().err


# ---- what is refused ----

GOOD = {"x_train": np.zeros((4, 3), np.float32), "y_train": [0, 1, 0, 1], "x_test": np.ones((2, 3), np.float32),
        "y_test": [1, 0]}  # fmt: skip
WRONG_ARRAYS = [
    ({"y_test": None}, "has no array y_test; it has x_train, y_train, x_test"),
    ({"x_train": np.zeros((4, 3), np.int64)}, "x_train is int64; pixels are uint8"),
    ({"x_train": np.full((4, 3), np.nan, np.float32)}, "train inputs hold NaN"),
    ({"x_train": np.zeros((5, 3), np.float32)}, "the train split has 5 inputs and 4 labels"),
    ({"x_test": np.ones((2, 4), np.float32)}, "train inputs are (3) each, test inputs (4)"),
    ({"y_train": [0, -1, 0, 1]}, "a train label is -1"),
    ({"y_train": [0, 9, 0, 1], "classes": 3}, "a label is 9; with 3 classes they are 0 to 2"),
    ({"y_train": [[0, 1]] * 4}, "the train labels are int64 (4, 2)"),
    ({"x_train": np.zeros((0, 3), np.float32), "y_train": []}, "the train split holds no sample"),
    ({"mean": [0, 0]}, "give both mean and std"),
    ({"mean": [0, 0], "std": [1, 1]}, "mean has 2 values; give 1, or 3"),
    ({"mean": 0, "std": 0}, "std must be above 0"),
    ({"mean": "a", "std": 1}, "mean is no number"),
    ({"x_train": np.zeros((4, 3, 5, 3), np.uint8)}, "may have channels first or last"),
    ({"layout": "HWC"}, "layout is 'HWC'"),
    ({"classes": "x"}, "classes is 'x'"),
    ({"classes": []}, "classes is []"),
    ({"y_train": np.array([None] * 4)}, "cannot be read"),
    ({"x_train": np.array(["a"] * 4)}, "no tensor can be made"),
    ({"y_train": [1e9, 2, 3, 4]}, "train labels are float32"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_ARRAYS)
def test_arrays_that_are_no_data_set_are_one_line(here, capsys, change, message):
    np.savez("d.npz", **{name: value for name, value in {**GOOD, **change}.items() if value is not None})
    assert main(["train", "--dataset", "npz:d.npz", "--out", "run", "--device", "cpu", "--quiet"]) == 2
    error = capsys.readouterr().err
    assert message in error, error
    assert error.count("\n") == 1
    assert not (here / "run").exists()


WRONG_FUNCTIONS = {
    "raises": ("raise KeyError('weather')", "--dataset own_data_wrong:f: KeyError: 'weather'"),
    "ends": ("raise SystemExit(3)", "it ends the process"),
    "one": ("return None", "without 'train' and 'test'"),
    "test is missing": ("return {'train': good}", "a mapping without 'test'"),
    "more": ("return {'train': good, 'test': good, 'valid': good}", "'valid', which nothing uses"),
    "six": ("return (good,) * 6", "returned 6 things"),
    "lengths": ("return (x, y[:2]), good", "the train split has 3 inputs and 2 labels"),
    "empty": ("return [], good", "holds no sample"),
    "a number": ("return 5, good", "train is a int"),
    "three": ("return [(x, y, y)], good", "3 things at a time"),
    "no labels": ("return [{'a': x, 'b': x}], good", "one of labels, label"),
    "unlike": ("return [(x, y), (x[:, :1], y)], good", "they do not go together"),
    "text": ("return [('a', 0)], good", "no tensor can be made"),
    "complex": ("return (x + 0j, y), good", "inputs are complex64"),
    "infinite": ("return (x / 0, y), good", "inputs hold NaN or infinity"),
    "labels of truth": ("return (x, y > 0), good", "train labels are bool"),
    "no classes": ("return {'train': good, 'test': good, 'classes': 0}", "classes is 0"),
}


@pytest.mark.parametrize("name", WRONG_FUNCTIONS)
def test_functions_that_return_no_data_set_are_one_line(here, capsys, name):
    body, message = WRONG_FUNCTIONS[name]
    head = "import torch\nx, y = torch.ones(3, 2), torch.arange(3) % 2\ngood = x, y\n"
    (here / "own_data_wrong.py").write_text(f"{head}def f():\n    {body}\n")
    assert main(["train", "--dataset", "own_data_wrong:f", "--out", "run", "--device", "cpu", "--quiet"]) == 2
    error = capsys.readouterr().err
    assert message in error, error
    assert error.count("\n") == 1
    assert not (here / "run").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "no such folder"),
        (lambda root: (root / "val").mkdir(parents=True), "has no folder train/"),
        (lambda root: (root / "train" / "a").mkdir(parents=True), "has no folder val/ or test/"),
        (lambda root: [(root / name).mkdir(parents=True) for name in ("train", "val")], "has no folders, one for each"),
        (lambda root: [(root / name / "a").mkdir(parents=True) for name in ("train", "val")], "holds no picture"),
        (lambda root: (write_pictures(root) / "val" / "c").mkdir(), "the class c, which the train split has not"),
        (
            lambda root: (write_pictures(root) / "val" / "a" / "9.png").write_bytes(b"no picture"),
            "9.png cannot be read",
        ),
    ],
)
def test_folders_that_hold_no_classes_are_one_line(here, capsys, make, message):
    make(here / "p")
    assert main(["train", "--dataset", "imagefolder:p", "--out", "run", "--image-size", "16", "--quiet"]) == 2
    error = capsys.readouterr().err
    assert message in error, error
    assert error.count("\n") == 1
    assert not (here / "run").exists()


def test_other_words_are_refused_with_the_forms(here, capsys):
    for words, message in [
        (["--dataset", "npz:"], "'npz:' must be"),
        (["--dataset", "npz:nowhere.npz"], "no such file"),
        (["--dataset", "imagenet"], "npz:FILE, imagefolder:DIR or package.module:function"),
        (["--dataset", "digits", "--image-size", "9"], "--image-size has an effect with --dataset imagefolder:DIR"),
        (["--device", "cuda:99"], "cuda:99"),
    ]:
        assert main(["train", *words, "--out", "run", "--quiet"]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["train", "--device", "gpu", "--out", "run"])
    assert ended.value.code == 2
    assert "unknown device 'gpu'; known: auto, cpu, cuda, cuda:N or mps" in capsys.readouterr().err
    (here / "short.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(InputError, match=r"is no \.npz file"):
        load_dataset("npz:short.npz")


def test_what_an_apple_gpu_cannot_compute_is_one_line(here, monkeypatch, capsys):
    def fails(*_, **__):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    monkeypatch.setattr("training.data.load_dataset", fails)
    assert main(["train", "--epochs", "1", "--out", "run", "--quiet"]) == 2
    assert "--device mps cannot compute this (Cannot convert a MPS Tensor" in capsys.readouterr().err


# ---- runs, stores and what they record ----


def test_a_store_trains_anew_when_the_bytes_change(here, capsys):
    argv = ["train", "--dataset", "npz:d.npz", "--hidden", "4", "--epochs", "1", "--store", "store", "--quiet"]
    digits_file(here / "d.npz")
    counts = []
    for change in ({}, {}, {"y_train": np.zeros(1437, int)}):
        digits_file(here / "d.npz", **change)
        assert main([*argv, "--device", "cpu"]) == 0
        counts.append(capsys.readouterr().err.split("\n")[-2])
    assert counts == ["1 trained, 0 there already", "0 trained, 1 there already", "1 trained, 0 there already"]


def test_a_checkpoint_is_read_from_any_folder_and_finds_a_file_that_moved(here, monkeypatch, capsys):
    digits_file(here / "d.npz")
    words = ["--hidden", "4", "--epochs", "1", "--train-size", "50", "--device", "cpu", "--quiet"]
    assert main(["train", "--dataset", "npz:d.npz", *words, "--out", "run"]) == 0
    recorded = json.loads((here / "run" / "config.json").read_text())
    assert recorded["config"]["dataset"] == f"npz:{here / 'd.npz'}"
    (here / "deep").mkdir()
    monkeypatch.chdir(here / "deep")
    assert len(load_subject(here / "run", split="train", device="cpu").labels) == 50
    (here / "d.npz").rename(here / "moved.npz")
    with pytest.raises(InputError, match="no such file"):
        load_subject(here / "run", device="cpu")
    moved = load_subject(here / "run", dataset=f"npz:{here / 'moved.npz'}", split="train", device="cpu")
    assert len(moved.labels) == 50
    assert not moved.doubt


def test_fashion_mnist_is_read_from_its_files(here):
    raw = here / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    images = pixels(3, 28, 28).numpy()
    for split in ("train", "t10k"):
        head = struct.pack(">IIII", 2051, 3, 28, 28), struct.pack(">II", 2049, 3)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(head[0] + images.tobytes())
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(head[1] + bytes([9, 0, 4]))
    split = load_split("fashionmnist", "test", here)
    assert torch.equal(split.images, torch.from_numpy(images)[:, None])
    assert split.labels.tolist() == [9, 0, 4]


# ---- weights that a zoo has published ----

ZOO = "import torch\ndef data():\n    x = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)\n"
ZOO += "    return {'train': (x, torch.arange(4)), 'test': (x, torch.arange(4)), 'classes': 1000}\n"


def test_published_weights_come_from_the_cache_or_are_asked_for(here, monkeypatch, capsys):
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    (here / "own_data_zoo.py").write_text(ZOO)
    monkeypatch.setenv("TORCH_HOME", str(here / "home"))
    argv = ["--model", "torchvision:squeezenet1_1", "--pretrained", "--dataset", "own_data_zoo:data"]
    assert main(["surface", *argv, "--quiet", "--out", "out"]) == 2
    error = capsys.readouterr().err
    file = here / "home" / "hub" / "checkpoints" / os.path.basename(SqueezeNet1_1_Weights.DEFAULT.url)
    assert str(file) in error
    assert "--download" in error
    assert "get_model('squeezenet1_1'" in error
    file.parent.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(squeezenet1_1().state_dict(), file)
    one = load_subject(
        here.__class__("torchvision:squeezenet1_1"),
        model="torchvision:squeezenet1_1",
        pretrained=True,
        dataset="own_data_zoo:data",
        device="cpu",
    )
    assert one.path == file
    kept = torch.load(file, weights_only=True)
    assert all(torch.equal(kept[name], tensor) for name, tensor in one.model.state_dict().items())
    expected = torch.tensor([-m / s for m, s in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)])
    torch.testing.assert_close(one.inputs()[0, :, 0, 0], expected)
    options = ["--plane", "random", "--points", "1", "--samples", "2", "--device", "cpu", "--quiet", "--out", "out"]
    assert main(["surface", *argv, *options]) == 0
    with open(here / "out" / "surface.csv") as table:
        assert "torchvision:squeezenet1_1" in table.read()
    assert main(["surface", "--model", "torchvision:squeezenet1_1", "--quiet"]) == 2
    assert "CKPT is missing" in capsys.readouterr().err
    assert main(["surface", "--model", "own_data_zoo:data", "--pretrained", "--quiet"]) == 2
    assert "--pretrained has an effect with --model torchvision:NAME" in capsys.readouterr().err


def test_a_network_of_floats_trains_by_every_rule(here):
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    data = returned({"train": (x, (x[:, 0] > 0).long()), "test": (x, (x[:, 0] > 0).long())}, "own:floats")
    assert isinstance(data.normaliser(), nn.Module)
    assert torch.equal(data.normaliser()(x), x)
    for rule in ("bp", "dfa", "kp"):
        run = train(config("own:floats", rule=rule, train_size=None, lr=0.05, epochs=10), data, rule)
        assert run.read_metrics()[-1]["test_accuracy"] > 0.8


# ---- docs/data.md ----


def page():
    return (Path(__file__).parent.parent / "docs" / "data.md").read_text(encoding="utf-8")


def module_of(name):
    """Return the module that the page shows under this name."""
    lines = page().split(f"    # {name}\n")[1].split("\n")
    shown = itertools.takewhile(lambda line: line.startswith("    ") or not line, lines)
    return "\n".join(line[4:] for line in shown if not line.startswith("    analyze "))


def run_shown(words, *more):
    (shown,) = [line.strip() for line in page().splitlines() if line.startswith(f"    analyze {words}")]
    return main([*shlex.split(shown)[1:], "--device", "cpu", "--quiet", *more])


def test_the_page_s_function_trains_and_has_a_hessian(here, monkeypatch):
    (here / "mydata.py").write_text(module_of("mydata.py"))
    assert run_shown("train --dataset mydata:weather") == 0
    assert run_shown("hessian runs/weather", "--samples", "50") == 0
    assert (here / "runs" / "weather" / "hessian.csv").is_file()
    monkeypatch.delitem(sys.modules, "mydata")


def test_the_page_s_files_train_and_are_attacked(here):
    x, y = pixels(60, 32, 32, 3).numpy(), np.arange(60) % 5
    np.savez("flowers.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    assert run_shown("train --dataset npz:flowers.npz") == 0
    assert run_shown("attack runs/flowers", "--attack", "fgsm") == 0
    write_pictures(here / "imagenette2", sizes=((70, 66),))
    assert run_shown("train --dataset imagefolder:imagenette2", "--batch-size", "1") == 0


def test_the_page_s_network_for_text_has_a_hessian(here, monkeypatch):
    pytest.importorskip("transformers")
    (here / "mytext.py").write_text(module_of("mytext.py"))
    monkeypatch.syspath_prepend(here)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(__import__("mytext").network().state_dict(), "bert.pt")
    assert run_shown("hessian bert.pt", "--probes", "2") == 0
    monkeypatch.delitem(sys.modules, "mytext")
