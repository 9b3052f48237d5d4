"""``landscape`` and ``robustness`` as libraries of somebody else's project, whose modules may have our names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
THEIRS = ("training.py", "reports/__init__.py", "errors.py", "files.py", "utils.py", "data.py", "models.py")

SCRIPT = """
import torch
import landscape
import robustness

model = torch.nn.Linear(3, 1, bias=False).double()
inputs = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
pairs = landscape.top_eigenpairs(model, torch.nn.MSELoss(), (inputs, torch.zeros(3, 1)), k=2)
assert torch.allclose(pairs.values, torch.tensor([6.0, 8 / 3], dtype=torch.float64)), pairs.values

images = torch.tensor([[0.6, 0.4], [0.2, 0.8]]).reshape(2, 1, 1, 2)
curve = robustness.attack_curve(torch.nn.Flatten(), images, torch.tensor([0, 1]), [0, 0.15, 0.35], robustness.fgsm())
assert curve.accuracy.tolist() == [1.0, 0.5, 0.0], curve.accuracy
"""


def test_modules_of_a_user_do_not_stand_in_the_way(tmp_path):
    for name in THEIRS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise AssertionError(__file__)\n", encoding="utf-8")
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    # A script's own folder is the first of sys.path, before PYTHONPATH.
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_module_loaded_under_a_name_of_ours_is_named(tmp_path):
    (tmp_path / "reports.py").write_text("WIDTH = 16\n", encoding="utf-8")
    (tmp_path / "script.py").write_text("import alignscape, reports\nalignscape.load('runs')\n", encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: alignscape needs its own package reports, and {tmp_path / 'reports.py'} is")


WITHOUT = """
import doctest, importlib, sys, warnings

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(f"{{name}} was imported", name=name)

sys.meta_path.insert(0, Refuse())
import {package}
from public_api import documented

finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
for name, found in documented("{package}").items():
    if name != "TorchattacksAttack":  # its package is optional
        for test in finder.find(found, name, globs={{}}):
            runner.run(test)
results = runner.summarize()
assert results.attempted > 100, results
sys.exit(results.failed)
"""


@pytest.mark.parametrize(
    ("package", "other"), [("landscape", "robustness"), ("robustness", "landscape")], ids=["landscape", "robustness"]
)
def test_no_public_name_needs_the_other_packages(package, other, tmp_path):
    """Imports inside functions too: every example runs where the other packages cannot be imported."""
    script = WITHOUT.format(package=package, blocked={"training", "reports", other})
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
