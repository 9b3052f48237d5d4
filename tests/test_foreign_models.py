"""Networks from elsewhere, as a state dict and the function that builds them: a residual network with BatchNorm."""

import textwrap

import pandas as pd
import pytest
import torch

from landscape import HessianOperator
from reports.cli import main
from reports.subjects import load_subject

FACTORY = textwrap.dedent("""
    import torch
    from torch import nn


    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False)
            self.norm1, self.norm2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
            self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
            self.head = nn.Linear(4, 10)

        def forward(self, x):
            x = torch.tanh(self.norm1(self.stem(x)))
            return self.head((x + torch.tanh(self.norm2(self.conv(x)))).mean((2, 3)))


    class WithoutGradient(Residual):
        def forward(self, x):
            with torch.no_grad():
                return super().forward(x)
""")
COMMANDS = {
    "hessian": ["--k", "3"],
    "spectrum": ["--steps", "30", "--probes", "2"],
    "surface": ["--points", "3"],
    "attack": ["--attack", "fgsm", "pgd", "--eps", "0", "0.1"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with ``residual_factory.py`` and the weights of a network that has seen some batches."""
    root = tmp_path_factory.mktemp("foreign")
    (root / "residual_factory.py").write_text(FACTORY)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root)
        from residual_factory import Residual

        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = Residual()
            for _ in range(20):  # running statistics that are not those of any batch
                model(torch.randn(16, 1, 8, 8) * 0.7 + 0.2)
        torch.save(model.state_dict(), root / "weights.pt")
        yield root


@pytest.fixture
def foreign(folder):
    """The arguments that name the network."""
    return [str(folder / "weights.pt"), "--model", "residual_factory:Residual", "--dataset", "digits"]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_take_a_network_with_batch_norm(foreign, tmp_path, command):
    common = ["--samples", "120", "--quiet", "--device", "cpu", "--out", str(tmp_path)]
    assert main([command, *foreign, *COMMANDS[command], *common]) == 0
    frame = pd.read_csv(tmp_path / f"{command}.csv")
    assert not frame.empty
    assert (tmp_path / f"{command}.png").is_file()


def test_batch_norm_keeps_its_running_statistics(folder, foreign, tmp_path):
    """The Hessian is that of the network as it predicts: in evaluation mode, whatever the batches."""
    for size in ("11", "120"):
        flags = ["--k", "2", "--samples", "120", "--batch-size", size, "--quiet", "--out", str(tmp_path)]
        assert main(["hessian", *foreign, *flags]) == 0
        subject = load_subject(
            folder / "weights.pt", model="residual_factory:Residual", dataset="digits", split="train", samples=120
        )
        model = subject.model.double()
        data = subject.inputs().double(), subject.labels
        parameters = list(model.parameters())
        loss = torch.nn.functional.cross_entropy(model.eval()(data[0]), data[1])
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, create_graph=True)])
        rows = [torch.autograd.grad(entry, parameters, retain_graph=True) for entry in gradient]
        dense = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
        found = pd.read_csv(tmp_path / "hessian.csv").query("quantity == 'eigenvalue'").value
        assert found.tolist() == pytest.approx(torch.linalg.eigvalsh(dense).flip(0)[:2].tolist(), rel=1e-3)


@pytest.mark.parametrize("command", ["hessian", "spectrum", "surface"])
def test_curvature_of_a_network_without_gradients_is_refused(folder, tmp_path, capsys, command):
    foreign = [str(folder / "weights.pt"), "--model", "residual_factory:WithoutGradient", "--dataset", "digits"]
    assert main([command, *foreign, "--samples", "50", "--quiet", "--out", str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("analyze: error: the loss has no gradient to the parameters")
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_frozen_parameter_is_left_out(folder):
    """Only what is trained has curvature: the rows of a frozen parameter are no zeros, they are not there."""
    subject = load_subject(
        folder / "weights.pt", model="residual_factory:Residual", dataset="digits", split="train", samples=20
    )
    for parameter in subject.model.head.parameters():
        parameter.requires_grad_(False)
    operator = HessianOperator(subject.model, torch.nn.CrossEntropyLoss(), (subject.inputs(), subject.labels))
    assert operator.dim == sum(p.numel() for name, p in subject.model.named_parameters() if "head" not in name)
