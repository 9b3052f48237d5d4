"""Networks of ours and of others."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from alignscape.errors import InputError
from training.config import TrainConfig
from training.models import MLP, build_model, import_model, try_forward

CIFAR, MNIST, DIGITS = (3, 32, 32), (1, 28, 28), (1, 8, 8)


def build(model: str, shape: tuple[int, int, int], **fields) -> nn.Module:
    return build_model(TrainConfig(model=model, **fields), shape, 10)


def images(shape: tuple[int, int, int], n: int = 3) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))


def test_the_paper_s_mlp():
    model = build("mlp", CIFAR)
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


@pytest.mark.parametrize(
    ("model", "shape", "parameters", "convolutions", "linear"),
    [
        ("lenet", MNIST, 61_706, 2, 3),  # LeNet-5 as the literature counts it
        ("lenet", CIFAR, 62_006, 2, 3),
        ("alexnet", CIFAR, 7_506_762, 5, 3),
        ("alexnet", DIGITS, 256 * 1024 - 4096 * 1024 + 7_506_762 - 2 * 64 * 9, 5, 3),
        ("resnet20", CIFAR, 269_722, 19, 1),  # He et al. give .27 M
        ("resnet20", DIGITS, 269_722 - 2 * 16 * 9, 19, 1),
    ],
)
def test_layers_and_parameters(model, shape, parameters, convolutions, linear):
    net = build(model, shape)
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert sum(isinstance(m, nn.Conv2d) for m in net.modules()) == convolutions
    assert sum(isinstance(m, nn.Linear) for m in net.modules()) == linear
    assert net(images(shape)).shape == (3, 10)


def test_lenet_by_hand():
    net, x = build("lenet", MNIST), images(MNIST)
    w = list(net.state_dict().values())
    for index, padding in ((0, 2), (2, 0)):
        x = F.max_pool2d(F.conv2d(x, w[index], w[index + 1], padding=padding).clamp_min(0), 2)
    x = x.flatten(1)
    assert x.shape[1] == 400
    for index in (4, 6):
        x = (x @ w[index].T + w[index + 1]).clamp_min(0)
    torch.testing.assert_close(net(images(MNIST)), x @ w[8].T + w[9])


def test_a_residual_block_is_its_shortcut_where_the_branch_is_silent():
    """With the second normalisation at 0 a block is relu(shortcut): subsampled pixels, new channels at zero."""
    net = build("resnet20", CIFAR).eval()
    blocks = list(net.blocks)
    assert len(blocks) == 9
    block = blocks[3]
    nn.init.zeros_(block.bn2.weight)
    x = torch.rand(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    out = block(x)
    assert out.shape == (2, 32, 4, 4)
    torch.testing.assert_close(out[:, :16], x[:, :, ::2, ::2])
    assert not out[:, 16:].any()


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        ("lenet", DIGITS, "lenet needs images of at least 12 x 12 pixels, not 8 x 8"),
        ("alexnet", (3, 7, 9), "alexnet needs images of at least 8 x 8 pixels, not 7 x 9"),
        ("torchvision:resnet18", MNIST, "ResNet cannot take images of 1 x 28 x 28: .* 3 channels"),
        ("torch.nn:ReLU", CIFAR, "ReLU gives a tensor of shape .* logits"),
    ],
)
def test_images_that_do_not_fit(model, shape, message):
    with pytest.raises(InputError, match=message):
        build(model, shape)


def test_factories_in_the_current_folder_are_found(tmp_path, monkeypatch):
    (tmp_path / "mynet.py").write_text(
        "from torch import nn\n"
        "def small(): return nn.Sequential(nn.Flatten(), nn.Linear(3, 2))\n"
        "def broken(): raise KeyError('width')\n"
        "def number(): return 7\n"
    )
    monkeypatch.chdir(tmp_path)
    assert isinstance(import_model("mynet:small"), nn.Sequential)
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
    assert isinstance(build_model(TrainConfig(model="mynet:small"), (3, 1, 1), 2), nn.Sequential)
    with pytest.raises(InputError, match="--network mynet:small has 2 outputs; the data set has 10 classes"):
        build_model(TrainConfig(model="mynet:small"), (3, 1, 1), 10)
    with pytest.raises(InputError, match="--network mynet:broken"):
        build_model(TrainConfig(model="mynet:broken"), (3, 1, 1), 10)


def test_torchvision_models():
    assert import_model("torchvision:resnet18").fc.out_features == 1000
    assert build("torchvision:resnet18", CIFAR).fc.out_features == 10


def test_a_trial_changes_nothing():
    net = build("resnet20", DIGITS)
    net.blocks[0].eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert try_forward(net, DIGITS).shape == (1, 10)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net.training
    assert not net.blocks[0].training


def test_building_leaves_the_global_stream_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    build("lenet", MNIST)
    assert torch.equal(torch.rand(3), expected)


def test_unknown_model_lists_the_known_ones():
    with pytest.raises(InputError, match="unknown model 'gpt'; known: mlp, lenet, alexnet, resnet20, torchvision:NAME"):
        build("gpt", DIGITS)
