"""Networks of ours and of others."""

import pytest
import torch
from torch import nn

from training.config import TrainConfig
from training.errors import InputError
from training.models import MLP, build_model, import_model


def test_the_paper_s_mlp():
    model = build_model(TrainConfig(), (3, 32, 32), 10)
    assert sum(p.numel() for p in model.parameters()) == 1_841_162
    assert [name for name, _ in model.named_parameters()][::2] == [f"layers.{i}.weight" for i in range(3)]
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("hidden", [(), (4,), (4, 3, 2, 5)])
def test_any_depth_and_width(hidden):
    model = MLP(6, hidden, 3)
    assert [layer.out_features for layer in model.layers] == [*hidden, 3]
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    expected = x
    for index, layer in enumerate(model.layers):
        expected = layer(expected if index == 0 else expected.relu())
    torch.testing.assert_close(model(x), expected)


def test_factories_in_the_current_folder_are_found(tmp_path, monkeypatch):
    (tmp_path / "mynet.py").write_text(
        "from torch import nn\n"
        "def small(): return nn.Linear(3, 2)\n"
        "def broken(): raise KeyError('width')\n"
        "def number(): return 7\n"
    )
    monkeypatch.chdir(tmp_path)
    assert isinstance(import_model("mynet:small"), nn.Linear)
    for reference, message in [
        ("mynet:broken", "KeyError: 'width'"),
        ("mynet:number", "returned int, not a torch.nn.Module"),
        ("mynet:nothing", "AttributeError"),
        ("no_such_module:small", "No module named 'no_such_module'"),
        ("mynet", "must be package.module:factory"),
        ("torchvision:resnet1", "Unknown model"),
    ]:
        with pytest.raises(InputError, match=message):
            import_model(reference)


def test_torchvision_models():
    assert import_model("torchvision:resnet18").fc.out_features == 1000


def test_unknown_model_lists_the_known_ones():
    with pytest.raises(InputError, match="unknown model 'gpt'; known: mlp"):
        build_model(TrainConfig(model="gpt"), (1, 8, 8), 10)
