"""``alignscape.train``, ``alignscape.load`` and what they give, as a notebook uses them."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import alignscape
from alignscape.errors import InputError


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return alignscape.train(tmp_path_factory.mktemp("runs"), rule="fa", seed=np.arange(2), hidden=(8,), epochs=1)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 3))


INPUTS, LABELS = torch.rand(40, 5), torch.arange(40) % 3


def trace(networks):
    frame = networks.hessian(k=1, probes=4).frame()
    return frame[frame["quantity"] == "trace"]["value"].tolist()


def test_some_of_the_runs_are_runs(runs):
    assert len(runs) == 2
    assert runs[1].configs[0].seed == 1
    assert [len(one.frame()) for one in runs] == [2, 2]
    assert runs[:1].frame()["seed"].unique().tolist() == [0]
    with pytest.raises(InputError, match="no network is given"):
        runs[2:].hessian()


def test_settings_are_given_by_name_only(runs):
    with pytest.raises(TypeError, match=r"hessian\(\) takes its settings by name"):
        runs.hessian(3)


def test_numbers_and_arrays_of_numpy_are_settings(runs):
    found = runs[0].attack(attacks=["fgsm"], eps=np.linspace(0, 0.2, 3), samples=np.int64(20), seed=np.int64(1))
    assert found.analysis.eps == (0, 0.1, 0.2)
    assert [type(value) for value in (*found.analysis.eps, found.analysis.samples)] == [float] * 3 + [int]
    with pytest.raises(InputError, match=r"k is np.float64\(2.5\); it must be a whole number"):
        runs.hessian(k=np.float64(2.5))


def test_what_there_is_not_is_named(runs, tmp_path):
    found = runs.compare()
    with pytest.raises(InputError, match="compare draws nothing"):
        found.plot()
    with pytest.raises(InputError, match="compare has no table 'hessian' here; it has compare"):
        found.frame("hessian")
    surface = runs[0].surface(points=(3,), samples=20)
    with pytest.raises(InputError, match="surface has no figure 'surface_3d'; it has surface, surface-3d"):
        surface.plot("surface_3d")
    assert surface.plot("surface-3d").axes
    assert repr(surface) == str(surface)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule_source": "0"}, "no setting 'rule_source'; there are rule, angle"),
        ({"seed": "0..3"}, "seed is '0..3'; it must be a whole number"),
    ],
)
def test_train_refuses_what_it_cannot_use(settings, message, tmp_path):
    with pytest.raises(InputError, match=message):
        alignscape.train(tmp_path / "new", hidden=(8,), epochs=1, **settings)
    assert not (tmp_path / "new").exists()


def test_a_module_is_left_as_it_was(net):
    net.train()
    first = trace(alignscape.load(net, data=(INPUTS, LABELS), device=torch.device("cpu")))
    assert all(part.training for part in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert trace(alignscape.load(net.eval(), data=(INPUTS, LABELS), device="cpu")) == first


def test_arrays_and_labels_of_any_whole_type_are_data(net):
    first = trace(alignscape.load(net, data=(INPUTS, LABELS), device="cpu"))
    for labels in (LABELS.int(), LABELS.byte(), LABELS.numpy(), LABELS.tolist()):
        assert trace(alignscape.load(net, data=(INPUTS.numpy(), labels), device="cpu")) == first


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (INPUTS, "data are a pair"),
        ((INPUTS, LABELS, LABELS), "data are a pair"),
        ((INPUTS, "abc"), "data are a pair"),
        ((INPUTS, LABELS[:3]), r"not of the shapes \(40, 5\) and \(3,\)"),
        ((INPUTS, torch.eye(3)[LABELS]), r"not of the shapes \(40, 5\) and \(40, 3\)"),
        ((INPUTS[:0], LABELS[:0]), "not of the shapes"),
        ((INPUTS, LABELS.float()), "labels are the numbers of the classes"),
        ((INPUTS, LABELS - 1), "labels are the numbers of the classes"),
        ((INPUTS, LABELS + 1), "the model has 3 classes"),
    ],
)
def test_what_are_no_data_is_one_line(net, data, message):
    with pytest.raises(InputError, match=message):
        alignscape.load(net, data=data, device="cpu").hessian()


def test_a_dictionary_gives_the_names(net):
    networks = alignscape.load({"a//b": net, "./c": net, 3: net}, data=(INPUTS, LABELS), device="cpu")
    assert networks.hessian(k=1, probes=4).frame()["checkpoint"].unique().tolist() == ["a/b", "c", "3"]


def test_what_is_no_network_is_one_line(net, runs):
    for networks, message in (
        ((list(runs.given),), "a list is no network: give paths or modules, one by one"),
        (({"a": "runs/a"},), "a str is no network"),
        ((net, {"Sequential": net}), "two networks are called Sequential"),
    ):
        with pytest.raises(InputError, match=message):
            alignscape.load(*networks, data=(INPUTS, LABELS))
    with pytest.raises(InputError, match="model is for state dicts"):
        alignscape.load(net, data=(INPUTS, LABELS), model="torchvision:resnet18")


def test_mean_and_deviation_belong_together():
    net, images = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(6, 1, 2, 2)
    labels = torch.arange(6) % 2
    with pytest.raises(InputError, match="both mean and std, or neither"):
        alignscape.load(net, data=(images, labels), mean=0.5).hessian()
    shifted = trace(alignscape.load(net, data=(images, labels), mean=0.5, std=0.25))
    assert shifted == pytest.approx(trace(alignscape.load(net, data=((images - 0.5) / 0.25, labels))), rel=1e-4)


def test_a_missing_data_set_of_a_module_is_fetched_when_asked(net, tmp_path, monkeypatch):
    asked = []

    def load_split(name, split, root, *, download):
        asked.append(download)
        raise InputError("not here")

    monkeypatch.setattr("reports.memory.load_split", load_split)
    for download in (True, False):
        with pytest.raises(InputError, match="not here"):
            alignscape.load(net, dataset="mnist", data_root=tmp_path, download=download).hessian()
    assert asked == [True, False]


def test_results_are_the_commands_tables(runs, tmp_path):
    found = runs.hessian(k=1, samples=50)
    (path,) = found.save(tmp_path)
    pd.testing.assert_frame_equal(pd.read_csv(path).drop(columns="angle"), found.frame().drop(columns="angle"))
    assert f"<summary>{len(found.frame())} rows</summary>" in found._repr_html_()
