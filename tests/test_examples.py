"""The examples in the docstrings run, give what they show, and leave nothing behind."""

import doctest
import importlib
import importlib.util
import pkgutil

import pytest

PACKAGES = ("alignscape", "landscape", "robustness", "training", "reports")


def _with_examples():
    """Yield the names of the modules that hold an example, found in their sources: nothing is imported for it."""
    for package in PACKAGES:
        folders = importlib.util.find_spec(package).submodule_search_locations
        for module in pkgutil.walk_packages(folders, f"{package}."):
            source = importlib.util.find_spec(module.name).loader.get_source(module.name)
            if ">>>" in source:
                yield module.name


@pytest.mark.parametrize("name", list(_with_examples()))
def test_examples(name, tmp_path, monkeypatch):
    if name == "robustness.external":
        pytest.importorskip("torchattacks", reason="the extra `peers` is not installed")
    monkeypatch.chdir(tmp_path)
    outcome = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert outcome.attempted > 0
    assert outcome.failed == 0
    assert list(tmp_path.iterdir()) == []
