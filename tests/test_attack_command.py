"""``analyze attack`` end to end on runs over the bundled digits."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch

from reports.analyses.attack import Attack
from reports.cli import main
from reports.subjects import load_subject
from robustness import minimal_radii, strong


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of a bp, an fa and a second bp run."""
    root = tmp_path_factory.mktemp("runs")
    common = ["--dataset", "digits", "--hidden", "32", "32", "--epochs", "8", "--lr", "3e-3", "--quiet"]
    for name, rule, seed in (("bp", "bp", "0"), ("fa", "fa", "0"), ("other", "bp", "1")):
        assert main(["train", "--rule", rule, "--seed", seed, "--out", str(root / name), *common]) == 0
    return root


def attack(capsys, *arguments):
    """Return exit status, stdout and stderr of ``analyze attack``."""
    try:
        status = main(["attack", *map(str, arguments), "--quiet", "--device", "cpu"])
    except SystemExit as stop:  # argparse's own errors
        status = stop.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_writes_table_sidecar_figure_and_examples(runs, tmp_path, capsys):
    arguments = ["--attack", "fgsm", "pgd", "square", "--eps", 0, 0.1, "51/255", "--queries", 30, "--save-examples"]
    status, out, _ = attack(capsys, runs / "bp", runs / "fa", *arguments, "--out", tmp_path)
    assert status == 0
    frame = pd.read_csv(tmp_path / "attack.csv")
    assert list(frame.columns[:5]) == ["checkpoint", "attack", "gradient", "eps", "accuracy"]
    assert set(frame.attack) == {"fgsm", "pgd", "square", "worst case"}
    assert frame.eps.unique().tolist() == [0.0, 0.1, 0.2]
    assert frame.groupby("checkpoint").rule.first().tolist() == ["bp", "fa"]
    assert {*frame[frame.attack == "square"].gradient} == {"none"}
    worst = frame[frame.attack == "worst case"].set_index(["checkpoint", "eps"]).accuracy
    best = frame[frame.attack != "worst case"].groupby(["checkpoint", "eps"]).accuracy.min()
    assert (worst <= best).all()
    assert "worst case" in out
    sidecar = json.loads((tmp_path / "attack.json").read_text())
    assert sidecar["seed"] == 0
    assert [a["name"] for a in sidecar["attacks"]] == ["fgsm", "pgd", "square"]
    assert (tmp_path / "attack.pdf").is_file()
    assert (tmp_path / "attack.png").is_file()

    subject = load_subject(runs / "fa", device="cpu", samples=1000)
    with np.load(tmp_path / "examples" / "01-pgd-true.npz") as stored:
        images, labels, minimal = (torch.from_numpy(stored[k]) for k in ("images", "labels", "minimal_eps"))
    fooled = minimal.isfinite()
    assert fooled.float().mean() > 0.5
    assert (subject.pixel_model()(images[fooled]).argmax(1) != labels[fooled]).all()
    assert ((images - subject.images / 255).flatten(1).abs().amax(1)[fooled] <= minimal[fooled] + 1e-5).all()


def test_feedback_attack_is_labelled_and_differs_from_the_truth(runs, tmp_path, capsys):
    """Followed through its feedback, an FA network seems robust; through its true gradient it is not."""
    arguments = ["--attack", "pgd", "--gradient", "true", "feedback", "--eps", 0, 0.15, "--out", tmp_path]
    assert attack(capsys, runs / "bp", runs / "fa", *arguments)[0] == 0
    frame = pd.read_csv(tmp_path / "attack.csv")
    strong = frame[frame.eps == 0.15].set_index(["rule", "gradient"]).accuracy
    assert strong["fa", "feedback"] > strong["fa", "true"] + 0.3
    assert strong["bp", "feedback"] == strong["bp", "true"]  # its own backward pass is the true one


def test_transfer_follows_the_surrogate(runs, tmp_path, capsys):
    arguments = ["--attack", "bim", "--gradient", "transfer", "--surrogate", runs / "other", "--eps", 0.2]
    assert attack(capsys, runs / "bp", *arguments, "--out", tmp_path)[0] == 0
    frame = pd.read_csv(tmp_path / "attack.csv")
    assert frame.gradient.tolist() == ["transfer"]
    assert str(runs / "other") in json.loads((tmp_path / "attack.json").read_text())["checkpoints"]


def test_audit_prints_every_check_and_a_verdict(runs, tmp_path, capsys):
    arguments = ["--attack", "fgsm", "--gradient", "true", "feedback", "--eps", 0.1, "--audit", "--samples", 200]
    status, out, _ = attack(capsys, runs / "fa", *arguments, "--surrogate", runs / "other", "--out", tmp_path)
    assert status == 0
    frame = pd.read_csv(tmp_path / "audit.csv")
    assert list(frame.columns[:6]) == ["checkpoint", "gradient", "eps", "check", "verdict", "value"]
    assert frame.groupby("gradient").size().to_dict() == {"feedback": 13, "true": 13}
    verdicts = frame.set_index(["gradient", "check"]).verdict
    assert verdicts["feedback", "gradient beats black box"] == "warn"
    assert verdicts["true", "gradient beats black box"] == "pass"
    assert "do not trust this curve" in out
    assert all(check in out for check in frame.check)
    assert (tmp_path / "audit.json").is_file()


def test_the_audit_is_of_the_attack_of_the_table(runs, tmp_path, capsys):
    arguments = ["--attack", "pgd", "square", "--step-size", 1e-4, "--queries", 100, "--eps", 0, 0.05, 0.1, 0.2]
    status, out, _ = attack(capsys, runs / "bp", *arguments, "--audit", "--samples", 150, "--out", tmp_path)
    assert status == 0
    table = pd.read_csv(tmp_path / "attack.csv").set_index(["attack", "eps"])
    found = pd.read_csv(tmp_path / "audit.csv").set_index("check")
    square, pgd = (table.accuracy[name, 0.1] for name in ("square", "pgd"))
    assert (table.step_size["pgd"] == 1e-4).all()
    assert found.message["gradient beats black box"].startswith(
        f"square leaves accuracy {square:.3f}, the audited attack {pgd:.3f}: a gap of"
    )
    assert found.verdict["gradient beats black box"] == found.verdict["attack has converged"] == "warn"
    assert f"that is: {found.means['attack has converged']}" in " ".join(out.split())


def test_the_first_layer_of_the_feedback_is_in_every_row(runs, tmp_path, capsys):
    arguments = ["--attack", "pgd", "--gradient", "true", "feedback", "--first-layer", "feedback", "forward"]
    status, out, _ = attack(capsys, runs / "fa", *arguments, "--eps", 0, 0.15, "--out", tmp_path)
    assert status == 0
    frame = pd.read_csv(tmp_path / "attack.csv", keep_default_na=False)
    at = frame[frame.eps == 0.15].set_index(["gradient", "first_layer"]).accuracy
    assert set(at.index) == {("true", ""), ("feedback", "feedback"), ("feedback", "forward")}
    assert at["true", ""] < at["feedback", "forward"] < at["feedback", "feedback"]
    assert "first_layer" in out.splitlines()[2]
    assert " ".join(out.split()).startswith(
        "% of images that stay right (nested in eps: what fools within less counts too; a share of 1 in"
    )
    figure = (tmp_path / "attack.pdf").is_file()
    assert figure


def test_eot_and_bpda_are_in_every_row(runs, tmp_path, capsys):
    arguments = ["--attack", "bim", "square", "--eot", 2, "--bpda", "--eps", 0.1, "--queries", 5, "--samples", 30]
    assert attack(capsys, runs / "bp", *arguments, "--out", tmp_path)[0] == 0
    frame = pd.read_csv(tmp_path / "attack.csv").set_index("attack")
    assert frame.eot.to_dict() == {"bim": 2, "square": 1, "worst case": 2}
    assert frame.bpda.to_dict() == {"bim": True, "square": False, "worst case": True}
    plain = tmp_path / "plain"
    assert attack(capsys, runs / "bp", "--attack", "bim", "--eps", 0.1, "--samples", 30, "--out", plain)[0] == 0
    assert pd.read_csv(plain / "attack.csv").accuracy[0] == frame.accuracy["bim"]  # nothing random, nothing rounded


def test_raw_curves_are_marked(runs, tmp_path, capsys):
    assert attack(capsys, runs / "bp", "--raw", "--attack", "bim", "--eps", 0.1, "--out", tmp_path)[0] == 0
    assert pd.read_csv(tmp_path / "attack.csv")["curve"].tolist() == ["raw"]


def test_torchattacks_agrees(runs, tmp_path, capsys):
    """The tables agree with torchattacks at equal parameters within the interval."""
    pytest.importorskip("torchattacks", reason="needs the extra `peers`")
    arguments = ["--attack", "pgd", "torchattacks:PGD", "--raw", "--eps", 0.1, "--step-size", "2/255"]
    assert attack(capsys, runs / "fa", *arguments, "--out", tmp_path)[0] == 0
    frame = pd.read_csv(tmp_path / "attack.csv").set_index("attack")
    ours, theirs = frame.loc["pgd"], frame.loc["torchattacks:PGD"]
    assert ours.ci_low <= theirs.accuracy <= ours.ci_high


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--attack", "fgms"], "unknown attack 'fgms'; known: fgsm, bim, pgd, apgd-ce, apgd-dlr"),
        (["--eps", "1.5"], "eps 1.5 is outside [0, 1]"),
        (["--eps", "8/0"], "8/0 is not a finite number"),
        (["--norm", "l2", "--attack", "pgd", "--eps", "9"], "eps 9 is outside [0, 8]"),
        (["--gradient", "transfer"], "needs --surrogate"),
        (["--gradient", "none"], "--gradient none leaves no attack: add --attack square"),
        (["--audit", "--eps", "0"], "--audit needs an eps above 0"),
        (["--audit", "--audit-eps", "2"], "eps 2 is outside [0, 1]"),
        (["--steps", "0"], "steps is 0; it must be at least 1"),
        (["--surrogate", "nowhere.pt"], "--surrogate has an effect with --gradient transfer or --audit only"),
        (["--attack", "fgsm", "--steps", "5"], "--steps has an effect with"),
        (["--attack", "bim", "--queries", "50"], "--queries has an effect with --attack square or auto only"),
        (["--first-layer", "forward"], "--first-layer has an effect with --gradient feedback only"),
        (["--attack", "square", "--eot", "3"], "--eot has an effect with an attack that follows a gradient only"),
        (["--eot", "0"], "eot is 0; it must be at least 1"),
        (["--audit-eps", ".1"], "--audit-eps has an effect with --audit only"),
        (["--gradient", "guessed"], "invalid choice: 'guessed'"),
        (["--audit", "--surrogate", "nowhere.pt"], "no such checkpoint: nowhere.pt"),
        (["--attack"], "argument --attack: expected at least one argument"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(runs, tmp_path, capsys, arguments, message):
    status, out, err = attack(capsys, runs / "bp", "--out", tmp_path / "new", *arguments)
    assert status == 2
    assert re.fullmatch(rf"analyze: error: .*{re.escape(message)}.*\n", err)
    assert out == ""
    assert not (tmp_path / "new").exists()


def test_a_plain_state_dict_has_no_feedback_path(runs, tmp_path, capsys):
    subject = load_subject(runs / "bp", device="cpu")
    torch.save(subject.model.state_dict(), tmp_path / "plain.pt")
    (tmp_path / "factory_for_attack.py").write_text(
        "from training.models import MLP\n\n\ndef build():\n    return MLP(64, (32, 32), 10)\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        foreign = ["--model", "factory_for_attack:build", "--dataset", "digits", "--attack", "fgsm", "--eps", 0.1]
        assert attack(capsys, tmp_path / "plain.pt", *foreign)[0] == 0
        status, _, err = attack(capsys, tmp_path / "plain.pt", *foreign, "--gradient", "feedback", "--force")
    assert status == 2
    assert "has no feedback path" in err


def test_a_model_without_gradients_is_named_and_square_still_runs(tmp_path, capsys, monkeypatch):
    (tmp_path / "detached_factory.py").write_text(
        "from torch import nn\n\n\n"
        "class Detached(nn.Linear):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x.flatten(1).detach()).detach()\n\n\n"
        "def build():\n    return Detached(64, 10)\n"
    )
    state = {"weight": torch.zeros(10, 64), "bias": torch.arange(10.0)}
    torch.save(state, tmp_path / "weights.pt")
    monkeypatch.chdir(tmp_path)
    foreign = ["weights.pt", "--model", "detached_factory:build", "--dataset", "digits", "--eps", 0.1, "--out", "new"]
    status, _, err = attack(capsys, *foreign, "--attack", "pgd")
    assert status == 2
    assert err.count("\n") == 1
    assert "use the square attack, which needs none" in err
    assert not (tmp_path / "new").exists()
    assert attack(capsys, *foreign, "--attack", "square", "--queries", 5)[0] == 0


MINE = """
from dataclasses import dataclass
import torch
from robustness import SingleAttack

def invert(model, images, labels, eps):
    return 1 - images
invert.needs_gradient = False

def still(model, images, labels, eps, steps=7, loss="ce"):
    return images

@dataclass
class Darken(SingleAttack):
    kernel: torch.Tensor
    name: str = "dark/en"
    norm: str = "linf"
    loss: str = "none"
    steps: int = 1
    restarts: int = 1
    needs_gradient: bool = False

    def on(self, batch, *, restart, stop_when_fooled):
        return lambda eps, chosen: (batch.images[chosen] - eps).clamp(0, 1)

dark = Darken(torch.ones(2))
other = Darken(torch.ones(2), name="pgd")
round = Darken(torch.ones(2), norm="l2")

class Half:
    def on(self, batch, *, restart, stop_when_fooled):
        return lambda eps, chosen: batch.images[chosen]

half = Half()

class Whole(SingleAttack):
    name, norm, loss, steps, restarts, needs_gradient = "whole", "linf", "none", 1, 1, False
    def on(self, batch, *, restart, stop_when_fooled):
        return lambda eps, chosen: batch.images[chosen]
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Be in a folder with attacks of the user's own; return their module's name."""
    (tmp_path / f"own_{tmp_path.name}.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return f"own_{tmp_path.name}"


@pytest.mark.parametrize(
    ("attacks", "message"),
    [
        (["Whole"], "Whole is no function, but a class"),
        (["half"], "half has `on`, but not all of robustness.Attack: inherit robustness.SingleAttack"),
        (["round"], "round has the norm l2: give --norm l2"),
        (["pgd", "other"], "two attacks are called pgd"),
    ],
)
def test_an_attack_of_ones_own_that_does_not_go_is_one_line(runs, mine, capsys, attacks, message):
    names = [name if name == "pgd" else f"{mine}:{name}" for name in attacks]
    status, _, err = attack(capsys, runs / "bp", "--attack", *names, "--samples", 20, "--out", "new")
    assert status == 2
    assert re.fullmatch(rf"analyze: error: .*{re.escape(message)}.*\n", err)


def test_steps_and_loss_reach_an_attack_of_ones_own(runs, mine, capsys, tmp_path):
    arguments = ["--attack", f"{mine}:still", "--steps", 3, "--loss", "dlr", "--eps", 0.1, "--samples", 20]
    assert attack(capsys, runs / "bp", *arguments, "--out", tmp_path)[0] == 0
    row = pd.read_csv(tmp_path / "attack.csv").iloc[0]
    assert (row.steps, row.loss) == (3, "dlr")


def test_an_object_that_is_an_attack_is_recorded_in_words(runs, mine, capsys, tmp_path):
    arguments = ["--attack", f"{mine}:dark", "--eps", 0.1, "--samples", 20, "--save-examples", "--out", tmp_path]
    assert attack(capsys, runs / "bp", *arguments)[0] == 0
    (recorded,) = json.loads((tmp_path / "attack.json").read_text())["attacks"]
    assert recorded["kernel"] == "tensor([1., 1.])"
    assert [path.name for path in (tmp_path / "examples").iterdir()] == ["00-dark-en-none.npz"]


def test_images_that_leave_the_ball_are_spoken_of(runs, mine, capsys, tmp_path):
    arguments = ["--attack", f"{mine}:invert", "--eps", 0, 0.1, "--samples", 20, "--out", tmp_path]
    status, _, err = attack(capsys, runs / "bp", *arguments)
    assert status == 0
    rejected = pd.read_csv(tmp_path / "attack.csv").rejected.max()
    assert rejected > 0
    assert f"{rejected} images of {mine}:invert fooled outside of the ball or of [0, 1], and do not count" in err


def test_a_matrix_of_transfers_is_what_each_surrogate_gives(runs, tmp_path, capsys):
    given = ["--attack", "strong", "--steps", 3, "--eps", 0, 0.1, "--samples", 60]
    pair = [runs / "bp", runs / "fa"]
    every = ["auto", "square", "--queries", 10, "--gradient", "true", "feedback", "--transfer-matrix"]
    status, out, error = attack(capsys, *pair, *given[:2], *every, *given[2:], "--out", tmp_path / "all")
    assert status == 0, error
    assert "with the gradient of (diagonal: its own)" in out
    assert (tmp_path / "all" / "masking.png").is_file()
    made = pd.read_csv(tmp_path / "all" / "attack.csv", dtype={"gradient": str})
    tried = {(row.attack, row.gradient.lower()) for row in made.itertuples() if row.attack != "worst case"}
    expected = {("strong", "true"), ("strong", "feedback"), ("auto", "true"), ("square", "none")}
    assert tried == expected
    matrix = pd.read_csv(tmp_path / "all" / "transfer.csv", dtype={"gradient": str})
    assert list(matrix.groupby(["rule", "source_rule"]).gradient.first().str.lower()) == [
        *("true", "transfer", "transfer", "true")
    ]
    other = ["--gradient", "transfer", "--surrogate", runs / "fa", "--out", tmp_path / "one"]
    assert attack(capsys, runs / "bp", *given, *other)[0] == 0
    own = pd.read_csv(tmp_path / "one" / "attack.csv").accuracy
    cell = matrix[(matrix.rule == "bp") & (matrix.source_rule == "fa")]
    assert cell.accuracy.tolist() == own.tolist()
    alone = made[(made.attack == "strong") & (made.rule == "bp") & (made.gradient.str.lower() == "true")]
    assert matrix[(matrix.rule == "bp") & (matrix.source_rule == "bp")].accuracy.tolist() == alone.accuracy.tolist()
    assert cell.accuracy.iloc[-1] > alone.accuracy.iloc[-1]  # another's gradient is the weaker


@pytest.mark.parametrize(
    ("networks", "attacks", "message"),
    [
        (["bp"], ["strong"], "--transfer-matrix needs several networks"),
        (["bp", "bp/ckpt.pt"], ["strong"], "is .* again, or has other images"),
        (["bp", "fa"], ["square"], "follows a gradient throughout: add --attack strong"),
    ],
)
def test_a_matrix_of_transfers_that_says_nothing_is_refused(runs, tmp_path, capsys, networks, attacks, message):
    given = [runs / name for name in networks]
    status, _, error = attack(
        capsys, *given, "--attack", *attacks, "--samples", 10, "--transfer-matrix", "--out", tmp_path / "none"
    )
    assert status == 2
    assert re.search(message, error)
    assert error.count("\n") == 1
    assert not (tmp_path / "none").exists()


def test_the_audit_leaves_out_what_cannot_follow_a_gradient(runs, tmp_path, capsys):
    few = ["--eps", 0.1, "--samples", 20, "--steps", 2, "--queries", 5, "--gradient", "feedback", "--audit"]
    status, out, err = attack(capsys, runs / "fa", "--attack", "auto", "strong", *few, "--out", tmp_path)
    assert status == 0, err
    assert "audit of the gradient feedback" in " ".join(out.split())
    assert "pgd" in pd.read_csv(tmp_path / "audit.csv").set_index("check").message["logits do not saturate"]
    status, _, err = attack(capsys, runs / "fa", "--attack", "auto", *few, "--out", tmp_path / "new")
    assert status == 2
    assert "--gradient feedback" in err


def test_tables_say_how_an_attack_was_made(runs, tmp_path, capsys):
    few = ["--attack", "strong", "apgd-t", "--eps", 0.1, "--samples", 20, "--steps", 2, "--restarts", 2, "--eot", 2]
    more = ["--radius", "--transfer-matrix", "--out", tmp_path]
    assert attack(capsys, runs / "bp", runs / "other", *few, *more)[0] == 0
    for name in ("attack", "radius", "transfer"):
        frame = pd.read_csv(tmp_path / f"{name}.csv").groupby("attack")[["steps", "restarts", "eot", "bpda"]].first()
        assert frame.loc["strong"].tolist() == [4, 2, 2, False]
        assert frame.loc["apgd-t"].tolist() == [18, 2, 2, False]


def test_where_no_image_is_right_there_is_no_figure_of_radii(runs):
    subject = load_subject(runs / "bp", device="cpu", samples=20)
    drawing = next(one for one in Attack.section.drawings if one.stem == "radius")
    model = torch.nn.Sequential(subject.normalise, subject.model)
    wrong = (model(subject.pixels()).argmax(1) + 1) % 10
    assert not drawing.applies(minimal_radii(model, subject.pixels(), wrong, strong(steps=1)).frame())
