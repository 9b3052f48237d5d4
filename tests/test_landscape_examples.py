"""The examples in the docstrings of ``landscape`` run and give what they show."""

import doctest
import importlib
import pkgutil

import pytest

import landscape

MODULES = [module.name for module in pkgutil.iter_modules(landscape.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(f"landscape.{name}")
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_the_public_functions_have_examples():
    for function in (landscape.HessianOperator, landscape.top_eigenpairs, landscape.trace, landscape.spectral_density):
        assert ">>>" in function.__doc__
