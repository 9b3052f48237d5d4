"""The public names: that they load when first used, are documented, typed and described in one way."""

import ast
import dataclasses
import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
from public_api import PACKAGES, documented, fields, is_submodule, public, section

from alignscape.settings import settings_of

ROOT = Path(__file__).resolve().parent.parent
LAZY = ("landscape", "robustness", "training", "reports")
HEAVY = ("torch", "numpy", "pandas", "scipy", "matplotlib", "cv2", "sklearn")


def _stub_names(package: str) -> set[str]:
    """Return ``__all__`` of a package's stub: what type checkers and editors see."""
    tree = ast.parse((ROOT / package / "__init__.pyi").read_text(encoding="utf-8"))
    (names,) = (ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign))
    return set(names)


@pytest.mark.parametrize("package", LAZY)
def test_stub_and_package_export_the_same_names(package):
    assert _stub_names(package) == set(importlib.import_module(package).__all__)


@pytest.mark.parametrize("package", LAZY)
def test_every_name_resolves_in_a_fresh_process(package):
    """With EAGER_IMPORT the names are loaded at the import: a name that its module does not have is an error."""
    env = {**os.environ, "EAGER_IMPORT": "1"}
    subprocess.run([sys.executable, "-c", f"import {package}"], cwd=ROOT, env=env, check=True)


LIGHT = [name for name in PACKAGES if name != "reports.figures"]  # which draws


@pytest.mark.parametrize("package", [*LIGHT, "training.config", "training.rule_list", "training.store.run_store"])
def test_importing_a_package_imports_nothing_heavy(package):
    code = f"import sys, {package}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_name_hides_a_module(package):
    module = importlib.import_module(package)
    assert [name for name in public(package) if is_submodule(module, name)] == []


def _documented_names(package: str) -> list[str]:
    """Return the names in the first column of the tables under the heading of ``package`` in docs/api.md."""
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    under = text.split(f"\n## {package}\n")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in under.splitlines() if line.startswith("| `")]
    return [name.strip(" `") for cell in cells for name in cell.split(",")]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_page_lists_every_public_name_once(package):
    names = _documented_names(package)
    assert len(names) == len(set(names))
    assert set(names) == set(public(package))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_function_and_class_has_an_example(package):
    without = [name for name, found in documented(package).items() if ">>>" not in (found.__doc__ or "")]
    assert without == []


@pytest.mark.parametrize("package", PACKAGES)
def test_attributes_are_described_in_one_way(package):
    """Every field of a public class is a line of ``Attributes:``; settings describe themselves."""
    classes = {name: found for name, found in documented(package).items() if isinstance(found, type)}
    classes = {n: cls for n, cls in classes.items() if not (dataclasses.is_dataclass(cls) and settings_of(cls))}
    missing = {
        name: [field for field in fields(cls) if f"\n{field}:" not in f"\n{section(cls.__doc__, 'Attributes')}"]
        for name, cls in classes.items()
    }
    assert {name: absent for name, absent in missing.items() if absent} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_argument_of_a_function_is_described(package):
    """Under ``Args:``, unless there is one argument, or the docstring says where the arguments are described."""
    for name, function in documented(package).items():
        if isinstance(function, type):
            continue
        arguments = list(inspect.signature(function).parameters.values())
        described = section(function.__doc__, "Args")
        if described or (len(arguments) > 1 and "See :func:" not in function.__doc__):
            names = [one.name for one in arguments if one.kind is not one.VAR_KEYWORD]
            assert [arg for arg in names if f"\n{arg}:" not in f"\n{described}"] == [], f"{package}.{name}"


def test_every_package_says_that_it_is_typed():
    """The wheel holds whatever lies in the packages' folders (``packages`` in pyproject.toml)."""
    for package in ("alignscape", "training", "landscape", "robustness", "reports"):
        assert (ROOT / package / "py.typed").is_file()


SCRIPT = """
import torch
from landscape import HessianOperator, Surface, surface, top_eigenpairs
from robustness import AttackCurve, attack_curve, pgd, wilson
from training import RunFolder, TrainConfig, load_checkpoint, load_dataset, train

config = TrainConfig(rule="fa", hidden=(16,))
run: RunFolder = train(config, load_dataset("digits"), "runs/fa")
model: torch.nn.Module = load_checkpoint(run.checkpoint).plain_model()
data = torch.zeros(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64)
pairs = top_eigenpairs(model, torch.nn.CrossEntropyLoss(), data, k=2)
plane: Surface = surface(model, torch.nn.CrossEntropyLoss(), data, pairs.vectors)
image: torch.Tensor = HessianOperator(model, torch.nn.CrossEntropyLoss(), data) @ pairs.vectors[0]
curve: AttackCurve = attack_curve(model, *data, [0.0, 0.1], pgd(steps=5))
low: float = wilson(9, 10)[0]
wilson("nine", 10)  # type: ignore[arg-type]  # unused, and so an error, where mypy does not see the types
"""


@pytest.mark.slow
def test_a_user_s_script_passes_mypy_strictly(tmp_path):
    """From a folder of the user's, with the packages on the path as installed ones are."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}/cache", str(script)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
