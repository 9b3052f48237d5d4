"""Code of users: found in their folder, and never mixed up with ours, whatever the names."""

import os
import pickle
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from alignscape.errors import InputError
from alignscape.imports import HOME, OURS, Folder, import_reference, locate

ROOT = Path(__file__).resolve().parent.parent


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    return folder


def run(folder: Path, code: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` as a console script runs: our packages are installed, the current folder is not searched."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-c", textwrap.dedent(code), *argv]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def analyze(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return run(folder, "import sys; from reports.cli import main; sys.exit(main(sys.argv[1:]))", *argv)


# Every one of our names is taken by the user, and so is errors.py.
THEIRS = {
    "training.py": "WIDTH = 8\ndef make():\n    import mynet\n    return mynet.make()\n",
    "reports/__init__.py": "from reports.widths import WIDTH\nfrom . import widths\n",
    "reports/widths.py": "WIDTH = 8\n",
    "landscape/__init__.py": "",
    "landscape/layers.py": "from torch import nn\n\ndef first(width):\n    return nn.Linear(64, width)\n",
    "robustness/plain.py": "DEPTH = 2\n",  # a package without __init__.py
    "alignscape.py": "NAME = 'mine'\n",
    "errors.py": "class InputError(Exception):\n    pass\n",
    "mynet.py": """
        import torch
        from torch import nn

        import reports.widths
        import training as course
        from errors import InputError
        from training import WIDTH

        assert not issubclass(InputError, ValueError) and course.WIDTH == WIDTH == reports.WIDTH == 8


        class Net(nn.Sequential):
            def forward(self, x):
                import robustness.plain
                from alignscape import NAME
                from landscape import layers

                assert robustness.plain.DEPTH == 2 and layers.first and NAME == "mine"
                return super().forward(x)


        def make():
            import training
            from landscape.layers import first
            from reports.widths import WIDTH

            assert training.WIDTH == WIDTH
            return Net(nn.Flatten(), first(WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))
        """,
}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> Path:
    """A folder whose modules have our names, with a run of a network from it."""
    folder = write(tmp_path_factory.mktemp("theirs"), THEIRS)
    flags = ["--epochs", "1", "--lr", "1e-3", "--snapshot-every", "20", "--device", "cpu", "--quiet", "--seeds", "0..1"]
    done = analyze(folder, "train", "--rule", "fa", "--network", "mynet:make", *flags)
    assert done.returncode == 0, done.stderr
    code = "import torch\nfrom training.checkpoint import load_checkpoint as load\n"
    code += "torch.save(load('runs/digits-mynet-make-fa-seed0/ckpt.pt').model, 'weights.pt')"
    assert run(folder, code).returncode == 0
    return folder


COMMANDS = {
    "hessian": ["--k", "1"],
    "spectrum": ["--steps", "5", "--probes", "2"],
    "surface": ["--points", "3"],
    "attack": ["--attack", "fgsm", "--eps", "0", "0.1"],
}
MODELS = {"ours": "mynet:make", "of one of our names": "training:make"}


ALIKE = ("spectrum", "surface")  # they load as hessian does, and take a minute of CI
EACH = [pytest.param(name, marks=[pytest.mark.slow] * (name in ALIKE)) for name in COMMANDS]


@pytest.mark.parametrize("command", EACH)
def test_commands_take_a_network_whose_modules_have_our_names(theirs, tmp_path, command):
    """From our checkpoint, which names its network, and from a state dict with ``--model``."""
    flags = [*COMMANDS[command], "--device", "cpu", "--quiet"]
    done = analyze(theirs, command, "runs/digits-mynet-make-fa-seed0", *flags, "--out", str(tmp_path / "checkpoint"))
    assert done.returncode == 0, done.stderr
    for i, model in enumerate(MODELS.values()):
        foreign = ["weights.pt", "--model", model, "--dataset", "digits"]
        done = analyze(theirs, command, *foreign, *flags, "--out", str(tmp_path / str(i)))
        assert done.returncode == 0, done.stderr
        assert (tmp_path / str(i) / f"{command}.csv").is_file()


def test_the_other_commands_take_the_checkpoint_too(theirs, tmp_path):
    run_folder = "runs/digits-mynet-make-fa-seed0"
    for command, argv in (("trajectory", []), ("alignment", []), ("attack", ["--gradient", "feedback"])):
        flags = ["--device", "cpu", "--quiet", "--out", str(tmp_path / command)]
        done = analyze(theirs, command, run_folder, *argv, *flags)
        assert done.returncode == 0, done.stderr


def test_ours_and_theirs_keep_apart_for_good(theirs):
    """Before, while and after their module is there; late imports in functions and threads; one object for a name."""
    done = run(
        theirs,
        """
        import sys, threading
        from pathlib import Path
        from alignscape.imports import HOME, import_reference
        import training

        def ours():
            import landscape.lanczos, reports.cli, robustness.attacks
            from training.models import MLP
            modules = (landscape, reports, robustness, sys.modules["training"], sys.modules[MLP.__module__])
            return all(Path(module.__file__).is_relative_to(HOME) for module in modules)

        make = import_reference("mynet:make", flag="--model")
        assert ours()
        module = import_reference("training:make", flag="--model").__globals__
        assert module["WIDTH"] == 8 and sys.modules["training"] is training
        assert import_reference("mynet:make", flag="--model") is make
        found = import_reference("reports:widths", flag="--model"), import_reference("reports.widths:WIDTH", flag="x")
        assert found[0].WIDTH == found[1] == 8

        import torch
        nets = []
        threads = [threading.Thread(target=lambda: (nets.append(make()), ours() or nets.clear())) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert len(nets) == 8 and nets[0](torch.zeros(1, 64)).shape == (1, 10)
        assert ours()
        """,
    )
    assert done.returncode == 0, done.stderr


def test_classes_of_either_name_can_be_pickled_and_looked_up(theirs):
    done = run(
        theirs,
        """
        import copy, inspect, io, pickle, torch
        from alignscape.imports import import_reference

        for reference in ("mynet:Net", "errors:InputError", "training:make", "landscape.layers:first"):
            thing = import_reference(reference, flag="--model")
            assert pickle.loads(pickle.dumps(thing)) is thing
            assert "def " in inspect.getsource(thing) or "class " in inspect.getsource(thing)
        net = import_reference("mynet:make", flag="--model")()
        assert type(pickle.loads(pickle.dumps(net))) is type(copy.deepcopy(net)) is type(net)
        """,
    )
    assert done.returncode == 0, done.stderr


def test_without_modules_of_ours_names_the_names_are_ours(tmp_path):
    """Folders that hold no Python are no packages; with a training.py of theirs, training.rules is still ours."""
    write(
        tmp_path,
        {
            "reports/index.html": "",
            "training/run/ckpt.pt": "",
            "a.py": "import reports.cli\nfrom training.models import MLP\ndef make(): return MLP(64, (8,), 10)\n",
            "with/training.py": "WIDTH = 3\n",
            "with/b.py": "import training.models\nfrom training import WIDTH\nfrom training.rules import Rule\n"
            "width = WIDTH\nlayers = training.models.MLP\n",
        },
    )
    assert run(tmp_path, "from training.models import import_model as f; assert f('a:make')").returncode == 0
    code = """
        import sys
        from alignscape.imports import import_reference
        from training.models import MLP
        from training.rules import Rule
        assert import_reference("b:Rule", flag="--rule") is Rule
        assert import_reference("b:width", flag="--rule") == 3 and import_reference("b:layers", flag="--rule") is MLP
    """
    done = run(tmp_path / "with", code)
    assert done.returncode == 0, done.stderr


def test_our_own_source_tree_is_nothing_special(monkeypatch):
    monkeypatch.chdir(ROOT)
    import training

    assert HOME == ROOT
    assert import_reference("training.models:MLP", flag="--model").__module__ == "training.models.mlp"
    assert import_reference("training:config", flag="--model") is sys.modules["training.config"]
    assert sys.modules["training"] is training


def test_names_that_installed_packages_have_too(tmp_path, monkeypatch):
    """Their ``scipy.py`` is theirs for them alone; a folder of data called torch is none."""
    write(
        tmp_path,
        {
            "scipy.py": "mine = True\n",
            "torch/data.csv": "",
            "user.py": "import scipy\nimport torch\nmine, seed = scipy.mine, torch.manual_seed\n",
        },
    )
    monkeypatch.chdir(tmp_path)
    assert import_reference("user:mine", flag="--model") is True
    import scipy
    import torch

    assert scipy.__version__
    assert import_reference("user:seed", flag="--model") is torch.manual_seed


def test_two_folders_with_a_module_of_one_name(tmp_path, monkeypatch):
    for value in ("one", "two"):
        write(
            tmp_path / value,
            {"samename.py": "import detail\nvalue = detail.value\n", "detail.py": f"value = '{value}'"},
        )
    for value in ("one", "two", "one"):
        monkeypatch.chdir(tmp_path / value)
        assert import_reference("samename:value", flag="--model") == value


def test_modules_that_wait_for_each_other_and_threads_that_wait_for_both(tmp_path, monkeypatch):
    """Circular imports work as ever, and threads that import at once get one module."""
    write(
        tmp_path,
        {
            "landscape/__init__.py": "import time\ntime.sleep(.05)\nfrom landscape import left, right\n",
            "landscape/left.py": "import landscape.right\nfrom . import right\nname = 'left'\n",
            "landscape/right.py": "import landscape.left\ndef other(): return landscape.left\n",
        },
    )
    monkeypatch.chdir(tmp_path)
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(import_reference("landscape.right:other", flag="f")))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert {id(module) for module in found} == {id(found[0])}
    assert found[0]().name == "left"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("broken:make", "--model broken:make: ZeroDivisionError: division by zero"),
        ("script:make", "SystemExit: it ends the process"),
        ("syntax:make", "SyntaxError"),
        ("needs:make", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("part:thing.missing", "AttributeError"),
        ("part.missing:thing", "No module named 'part.missing'"),
        ("part", "must be package.module:attribute"),
        ("part:", "must be package.module:attribute"),
        ("./part.py:thing", "must be package.module:attribute"),
        ("part:thing:more", "must be package.module:attribute"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, monkeypatch, reference, message):
    files = {
        "broken.py": "1 / 0",
        "script.py": "import sys; sys.exit(3)",
        "syntax.py": "def",
        "needs.py": "import nowhere_to_be_found",
        "part.py": "class thing:\n    class inner:\n        pass\n",
    }
    monkeypatch.chdir(write(tmp_path, files))
    with pytest.raises(InputError, match=message) as caught:
        import_reference(reference, flag="--model")
    assert "\n" not in str(caught.value)
    assert import_reference("part:thing.inner", flag="--model").__qualname__ == "thing.inner"


def test_a_module_is_located_without_running_it(tmp_path, monkeypatch):
    write(tmp_path, {"pkg/__init__.py": "raise SystemExit", "pkg/deep.py": "raise SystemExit", "data/x.csv": ""})
    monkeypatch.chdir(tmp_path)
    assert locate("pkg.deep") == tmp_path / "pkg" / "deep.py"
    assert locate("pkg") == tmp_path / "pkg" / "__init__.py"
    assert locate("training.rules.base") == ROOT / "training" / "rules" / "base.py"
    assert [locate(name) for name in ("data", "pkg.none", "nowhere", "sys", "pkg.deep.er")] == [None] * 5


def test_our_references_to_our_functions_are_ours(theirs, monkeypatch):
    from training.store.worker import import_function

    monkeypatch.chdir(theirs)
    assert import_function("training.store.worker:Worker.perform").__module__ == "training.store.worker"
    assert import_function("training:make").__globals__["WIDTH"] == 8, "ours has no such function, theirs has"
    assert set(OURS) == {"alignscape", "training", "landscape", "robustness", "reports"}
    assert pickle.dumps(Folder.at(theirs).find("mynet").name)
