"""Rules that are not ours: from the user's folder or an installed package, in runs, checkpoints, stacks and figures."""

import dataclasses
import json
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_figures import VISION, seen_distances
from test_imports import analyze, run
from test_plugins import install
from test_stack import Killed, assert_close_runs, assert_same_run, kill_at

from alignscape.errors import InputError
from reports import style
from reports.cli import main
from reports.commands.parser import build_parser
from reports.figures.series import rule_name, series_of
from training import clock, stack_size
from training.checkpoint import load_checkpoint
from training.config import TrainConfig
from training.data import load_dataset
from training.loop import train, train_many
from training.names import run_name
from training.rules import pinned
from training.rules.fa import FeedbackAlignment
from training.stack import Stack
from training.store.jobs import TrainJob

ROOT = Path(__file__).resolve().parent.parent
MOVING = """
    import torch
    from torch import nn
    from training.rules import Rule
    from training.rules.base import wrapped_layers
    from training.rules.feedback import FixedFeedback

    class Moving(Rule):
        '''Feedback that walks at random.'''
        moves_feedback = True

        def layer(self, layer):
            return None if layer.use.first else FixedFeedback(layer, self.draw(layer.plain.weight, "b", layer.name))

        @torch.no_grad()
        def before_step(self, twin, step):
            for name, layer in wrapped_layers(twin).items():
                layer.feedback += 0.1 * self.draw(layer.weight, "walk", name, step)
"""


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", train_size=200)


def config(rule: str, **fields) -> TrainConfig:
    return TrainConfig(**{"rule": rule, "hidden": (16,), "epochs": 2, "batch_size": 32, "lr": 1e-3, **fields})


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder; ``here(name, source)`` writes a module into it."""
    monkeypatch.chdir(tmp_path)
    return lambda name, source: (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))


# Runs and checkpoints


def test_a_run_with_a_rule_of_the_folder_and_what_needs_the_rule(tmp_path):
    """The plain network needs no rule; the twin asks for it, says where it was from, and warns if it has changed."""
    home, away = tmp_path / "home", tmp_path / "away"
    home.mkdir(), away.mkdir()
    (home / "own_moving.py").write_text(textwrap.dedent(MOVING))
    (home / "training.py").write_text("mine = True\n")  # a module of one of our names beside it
    flags = ["--hidden", "8", "--epochs", "1", "--device", "cpu", "--quiet"]
    done = analyze(home, "train", "--rule", "own_moving:Moving", *flags)
    assert done.returncode == 0, done.stderr
    folder = home / "runs" / "digits-own_moving-Moving-seed0"
    fields = torch.load(folder / "ckpt.pt", weights_only=True)
    digest = find_digest(home / "own_moving.py")
    assert fields["rule_origin"] == {"reference": "own_moving:Moving", "file": "own_moving.py", "sha256": digest}
    assert fields["config"]["rule"] == "own_moving:Moving"
    assert fields["config"]["rule_source"] == digest
    assert json.loads((folder / "config.json").read_text())["rule_origin"]["sha256"] == digest

    small = ["--device", "cpu", "--quiet", "--out", str(tmp_path / "out")]
    done = analyze(away, "hessian", str(folder), "--k", "1", *small)
    assert done.returncode == 0, done.stderr
    assert set(pd.read_csv(tmp_path / "out" / "hessian.csv").rule) == {"own_moving:Moving"}
    feedback = ["attack", str(folder), "--gradient", "feedback", "--attack", "fgsm", "--eps", "0.1", *small]
    done = analyze(away, *feedback)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"own_moving:Moving (own_moving.py, SHA-256 {digest[:12]})" in done.stderr
    assert "No module named 'own_moving'" in done.stderr
    assert analyze(home, *feedback).stderr == ""
    assert analyze(home, "alignment", str(folder), *small).returncode == 0
    (home / "own_moving.py").write_text(textwrap.dedent(MOVING) + "# edited\n")
    done = analyze(home, *feedback)
    assert done.returncode == 0
    assert "warning: the source of rule own_moving:Moving has changed since the run" in done.stderr
    done = analyze(home, "train", "--rule", "own_moving:Moving", *flags)  # the same folder, another rule
    assert done.returncode == 2
    assert "holds another run (rule_source" in done.stderr


def find_digest(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_killed_run_with_a_rule_of_the_folder_goes_on_to_the_same_bits(digits, tmp_path, here, monkeypatch):
    here("own_walk", MOVING)
    cfg = config("own_walk:Moving", epochs=3)
    train(cfg, digits, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(clock, "RESUME_SHARE", 1e9)
        kill_at(patch, Stack, "train_step", 9)
        with pytest.raises(Killed):
            train(cfg, digits, tmp_path / "cut")
    assert_same_run(train(cfg, digits, tmp_path / "cut").path, tmp_path / "whole")


def test_the_source_is_part_of_the_key_of_such_a_rule_alone(here, tmp_path):
    here("own_key", MOVING)
    cfg = pinned(config("own_key:Moving"))
    assert cfg.rule_source == find_digest(tmp_path / "own_key.py")
    assert cfg.key("d") != config("own_key:Moving").key("d")
    assert TrainJob(config=config("own_key:Moving")).config == cfg
    assert pinned(cfg) == cfg
    assert pinned(config("ifa")) == config("ifa")
    with pytest.raises(InputError, match="the source of --rule own_key:Moving has changed"):
        pinned(dataclasses.replace(cfg, rule_source="0" * 64))
    here("own_child", "from own_key import Moving\nclass Child(Moving): pass\n")
    digest = pinned(config("own_child:Child")).rule_source
    assert digest not in (cfg.rule_source, find_digest(tmp_path / "own_child.py")), "its base is its source too"


def test_a_sweep_in_a_store(here, tmp_path, capsys):
    here("own_store", MOVING)
    argv = ["train", "--rule", "own_store:Moving", "--hidden", "8", "--epochs", "1", "--seeds", "0..1", "--quiet"]
    argv += ["--train-size", "100", "--device", "cpu", "--store", "store"]
    assert main(argv) == 0
    assert "2 trained, 0 there already" in capsys.readouterr().err
    assert main(argv) == 0
    assert "0 trained, 2 there already" in capsys.readouterr().err


@pytest.mark.slow
def test_ray_workers_find_the_rule_in_the_folder_of_the_driver(tmp_path):
    """Also where that folder has a module of one of our names."""
    pytest.importorskip("ray")
    (tmp_path / "own_ray.py").write_text(textwrap.dedent(MOVING) + "from training import mine\nassert mine\n")
    (tmp_path / "training.py").write_text("mine = True\n")
    flags = ["--hidden", "8", "--epochs", "1", "--train-size", "100", "--quiet", "--device", "cpu", "--store", "store"]
    sweep = ["train", "--rule", "own_ray:Moving", *flags, "--seeds", "0..1", "--executor", "ray", "--workers", "1"]
    done = analyze(tmp_path, *sweep)
    assert done.returncode == 0, done.stderr
    assert "2 trained, 0 there already" in done.stderr


# What is no rule

BAD = """
    import abc
    import torch
    from training.rules import Rule

    def function(): pass
    class Plain: pass
    class Abstract(Rule, abc.ABC):
        @abc.abstractmethod
        def scale(self): ...
    class Options(Rule):
        options = ("no_such_setting",)
    class Text(Rule):
        options = "angle"
    class Making(Rule):
        def __init__(self, config): raise KeyError("width")
    class Wrapping(Rule):
        def layer(self, layer): return {}["x"]
    class Stepping(Rule):
        def objective(self, twin, inputs, labels): return 1 / 0
    class Updating(Rule):
        def gradients(self, parameters, step): return parameters["nothing"]
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_bad:function", "is a function, not a subclass of training.rules.Rule"),
        ("own_bad:Plain", "is a class Plain, not a subclass"),
        ("own_bad:Abstract", "does not define scale"),
        ("own_bad:Options", "its options must be a tuple of settings of a run, and no_such_setting is none"),
        ("own_bad:Text", "its options must be a tuple"),
        ("own_bad:Nothing", "AttributeError: module 'own_bad' has no attribute 'Nothing'"),
        ("own_bad:Making", "cannot be made: KeyError: 'width'"),
        ("own_bad:Wrapping", "rule own_bad:Wrapping fails in wrap (own_bad.py, line 18): KeyError: 'x'"),
        ("own_bad:Stepping", "fails in objective"),
        ("own_bad:Updating", "fails in gradients (own_bad.py, line 22): KeyError: 'nothing'"),
        ("no_such_module_of_mine:Rule", "No module named 'no_such_module_of_mine'"),
    ],
)
def test_mistakes_are_one_line(here, tmp_path, capsys, name, message):
    here("own_bad", BAD)
    flags = ["--hidden", "8", "--epochs", "1", "--quiet", "--device", "cpu", "--out", "run"]
    assert main(["train", "--rule", name, *flags]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err


# Installed packages


def test_a_rule_of_an_installed_package(tmp_path):
    """Listed by name with its package, without being imported; used by name; its package is named where it is from."""
    site, folder = tmp_path / "site", tmp_path / "work"
    entries = "[alignscape.rules]\nwalk = walking:Moving\nbroken = walking_badly:Moving\nfa = walking:Moving\n"
    folder.mkdir()
    modules = {"walking.py": textwrap.dedent(MOVING), "walking_badly.py": "import no_such_thing\n"}
    install(site, "walking-rules", "0.1", entries, modules)

    def command(*argv: str):
        code = f"import sys; sys.path.append({str(site)!r}); from reports.cli import main; sys.exit(main(sys.argv[1:]))"
        return run(folder, code, *argv)

    done = command("train", "--help")
    assert done.returncode == 0, done.stderr
    assert "walk: from walking-rules 0.1" in " ".join(done.stdout.split())
    flags = ["--hidden", "8", "--epochs", "1", "--device", "cpu", "--quiet"]
    done = command("train", "--rule", "walk", *flags)
    assert done.returncode == 0, done.stderr
    assert "fa of walking-rules 0.1 is not used: alignscape has a fa of its own" in done.stderr
    final = load_checkpoint(folder / "runs" / "digits-walk-seed0" / "ckpt.pt")
    assert final.config.rule == "walk"
    assert final.rule_origin["distribution"] == "walking-rules 0.1"
    assert final.rule_origin["reference"] == "walking:Moving"
    done = command("train", "--rule", "broken", *flags)
    assert done.returncode == 2
    assert "--rule broken (walking_badly:Moving of walking-rules 0.1): ModuleNotFoundError" in done.stderr
    done = command("train", "--rule", "hebb", *flags)
    assert "wm, broken, walk, package.module:Class" in done.stderr
    with pytest.raises(InputError, match=r"walking:Moving \(walking-rules 0.1, SHA-256 .*unknown rule 'walk'"):
        final.training_twin()
    assert final.plain_model()


def test_help_says_that_a_rule_may_be_yours():
    commands = build_parser()._subparsers._group_actions[0].choices
    assert "package.module:Class" in commands["train"].format_help()


# Stacks

TRAPS = """
    import torch
    from training.rules.base import wrapped_layers
    from training.rules.fa import FeedbackAlignment
    from training.rules.feedback import FixedFeedback

    class Reads(FeedbackAlignment):
        '''The loss is scaled by a setting.'''
        field = "angle"
        def objective(self, twin, inputs, labels):
            step = super().objective(twin, inputs, labels)
            return step._replace(objective=step.objective * (1 + getattr(self.config, self.field) / 10))

    class Declares(Reads):
        options = ("angle",)
    class ReadsSeed(Reads):
        field = "seed"
    class ReadsRate(Reads):
        field = "lr"
    class LatelyReads(Reads):
        '''By then the networks are together.'''
        calls = 0
        def objective(self, twin, inputs, labels):
            type(self).calls += 1
            return (super() if type(self).calls > 9 else super(Reads, self)).objective(twin, inputs, labels)

    class ReadsInGradients(FeedbackAlignment):
        def gradients(self, parameters, step):
            found = super().gradients(parameters, step)
            return {name: g * (1 + self.config.angle / 10) for name, g in found.items()}

    class KeepsAtStart(FeedbackAlignment):
        def __init__(self, config):
            super().__init__(config)
            self.factor = 1 + config.angle / 10
        def objective(self, twin, inputs, labels):
            step = super().objective(twin, inputs, labels)
            return step._replace(objective=step.objective * self.factor)

    class Scaled(FixedFeedback):
        factor = 1.0
        def backward_weight(self):
            return self.feedback * self.factor

    class KeepsInLayer(FeedbackAlignment):
        def layer(self, layer):
            made = Scaled(layer, self.feedback(layer.name, layer.plain))
            made.factor = 1 + self.config.seed
            return made

    class Moves(FeedbackAlignment):
        moves_feedback = True
        factor = 1.0
        def before_step(self, twin, step):
            self.factor = 1 + step % 3
        def objective(self, twin, inputs, labels):
            step = super().objective(twin, inputs, labels)
            return step._replace(objective=step.objective * self.factor)

    class MovesApart(Moves):
        def before_step(self, twin, step):
            self.factor = 1 + self.config.seed * (step > 3)

    class MovesLayersApart(Moves):
        def layer(self, layer):
            made = Scaled(layer, self.feedback(layer.name, layer.plain))
            made.factor = torch.ones(())
            return made
        def before_step(self, twin, step):
            for layer in wrapped_layers(twin).values():
                layer.factor.fill_(1 + self.config.angle)

    class Initial(FeedbackAlignment):
        '''Only where it starts.'''
        options = initial_options = ("angle",)
        def initialise(self, model):
            super().initialise(model)
            for p in model.parameters():
                p.data *= 1 + self.config.angle / 100
"""


@pytest.mark.parametrize(
    ("name", "together"),
    [
        ("Declares", 2),
        ("Reads", 1),
        ("ReadsSeed", 1),
        ("ReadsRate", 1),
        ("ReadsInGradients", 1),
        ("KeepsAtStart", 2),  # those of one angle
        ("KeepsInLayer", 2),  # those of one seed
        ("Initial", 4),
        ("Moves", 4),
    ],
)
def test_each_network_goes_by_its_own_settings_in_a_stack(digits, tmp_path, here, monkeypatch, name, together):
    """Each network ends as it would alone, whatever the rule does with the settings in which they differ."""
    here("own_traps", TRAPS)
    rule = f"own_traps:{name}"
    configs = [config(rule, angle=angle, seed=seed, lr=lr) for seed, angle, lr in SETTINGS]
    sizes = []
    begin = Stack.__init__

    def counted(self, networks, data):
        sizes.append(len(networks))
        begin(self, networks, data)

    monkeypatch.setattr(Stack, "__init__", counted)
    runs = train_many([(cfg, tmp_path / "stack" / str(i)) for i, cfg in enumerate(configs)], digits, stack=4)
    assert sizes == [together] * (4 // together)
    finals = []
    for cfg, done in zip(configs, runs, strict=True):
        alone = train(cfg, digits, tmp_path / f"alone-{done.path.name}")
        assert_close_runs(done, alone)
        finals.append(load_checkpoint(done.checkpoint).model["layers.0.weight"])
    assert not torch.allclose(finals[0], finals[1], atol=1e-4), "the setting matters"


SETTINGS = [(1, 10.0, 1e-3), (1, 60.0, 2e-3), (2, 10.0, 1e-3), (2, 60.0, 2e-3)]


def test_a_rule_that_reads_such_a_setting_later_ends_with_a_line(digits, tmp_path, here):
    here("own_late", TRAPS)
    configs = [config("own_late:LatelyReads", angle=angle) for angle in (10.0, 60.0)]
    with pytest.raises(InputError, match=r"own_late:LatelyReads reads angle while it trains.*--stack 1"):
        train_many([(cfg, tmp_path / str(i)) for i, cfg in enumerate(configs)], digits, stack=2)


@pytest.mark.parametrize(("name", "what"), [("MovesApart", "factor of the rule"), ("MovesLayersApart", "factor of")])
def test_a_rule_that_moves_more_than_tensors_ends_with_a_line(digits, tmp_path, here, name, what):
    here("own_moves", TRAPS)
    configs = [config(f"own_moves:{name}", seed=i, angle=10.0 * i) for i in range(2)]
    with pytest.raises(InputError, match=rf"before_step of rule own_moves:{name} sets {what}.*--stack 1"):
        train_many([(cfg, tmp_path / str(i)) for i, cfg in enumerate(configs)], digits, stack=2)
    assert len(train_many([(cfg, tmp_path / f"{i}") for i, cfg in enumerate(configs)], digits, stack=1)) == 2


def test_options_keep_networks_apart_unless_the_start_alone_reads_them(here):
    here("own_options", TRAPS)
    free = [stack_size.free_fields(config(rule)) for rule in ("own_options:Declares", "own_options:Initial", "ifa")]
    assert ["angle" in fields for fields in free] == [False, True, True]
    assert all("seed" in fields for fields in free)


# Figures and tables


def test_names_of_runs_and_in_legends():
    assert run_name(TrainConfig(rule="my.rules:Hebb")) == "digits-my.rules-Hebb-seed0"
    assert run_name(TrainConfig(rule="m:Hebb", angle=30), ["angle"]) == "digits-m-Hebb-angle30-seed0"
    assert run_name(TrainConfig(rule="ifa", angle=30), ["angle"]) == "digits-ifa30-seed0"
    assert [rule_name(r) for r in ("m:Hebb", "my.rules:Hebb", "hebb")] == ["Hebb (m)", "Hebb (my.rules)", "hebb"]


def test_every_rule_has_a_look_that_stays_and_is_its_own():
    names = [f"{module}:{name}" for module in ("mine", "theirs.rules") for name in ("Hebb", "Oja", "Stale", "Walk")]
    looks = [style.rule_look(name) for name in names]
    assert len(set(looks)) == len(names)
    assert looks == [style.rule_look(name) for name in names]
    code = f"from reports.style import rule_look\nprint([rule_look(n).colour for n in {names!r}])"
    assert run(ROOT, code).stdout.strip() == str([look.colour for look in looks]), "in another process too"
    ours = {(look.marker, str(look.linestyle)) for look in style.RULES.values()}
    assert not {look.marker for look in looks} & {marker for marker, _ in ours}
    assert not {str(look.linestyle) for look in looks} & {line for _, line in ours}
    assert style.rule_look("") is None


@pytest.mark.parametrize("vision", [None, *VISION])
def test_colours_of_such_rules_keep_apart_from_each_other_and_from_the_demo(vision):
    demo = [style.rule_look(rule) for rule in ("bp", "fa", "dfa", "pfa")]
    demo += [style.rule_look("ifa", angle) for angle in (0.0, 45.0, 90.0)]
    colours = [*style.OWN_COLOURS, *(look.colour for look in demo)]
    matrix = np.eye(3) if vision is None else VISION[vision]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VISION, "tested", matrix)
        distances = seen_distances(colours, "tested")
    assert distances.min() > 10


def test_a_class_may_declare_its_look(here):
    here("own_look", "raise SystemExit\nclass Mine:\n    colour = 'tomato'\n    marker: str = '8'\n")
    look = style.rule_look("own_look:Mine")
    assert (look.colour, look.marker) == ("#ff6347", "8"), "read without running the module"
    here("own_wrong", "class Mine:\n    colour = 'no colour'\n    marker = 'no marker'\n")
    assert style.rule_look("own_wrong:Mine").colour in style.OWN_COLOURS


def test_series_of_two_such_rules():
    rows = [("a", "zoo:Hebb"), ("b", "fa"), ("c", "art:Oja"), ("d", "")]
    frame = pd.DataFrame([{"checkpoint": c, "rule": r, "seed": 0, "epoch": 1, "value": 1.0} for c, r in rows])
    series = series_of(frame)
    assert [one.label for one in series] == ["FA", "Oja (art)", "Hebb (zoo)", "d"]
    assert len({one.look for one in series}) == 4


def test_old_checkpoints_load(digits, tmp_path):
    run = train(config("fa", epochs=1), digits, tmp_path / "run")
    fields = torch.load(run.checkpoint, weights_only=True)
    final = tmp_path / "old.pt"  # beside the run, whose record is of the file as it was
    assert "rule_origin" not in fields, "a rule of ours needs none"
    del fields["config"]["rule_source"]
    torch.save(fields, final)
    assert isinstance(load_checkpoint(final).rule(), FeedbackAlignment)
    assert load_checkpoint(final).config.rule_source == ""
