"""What all tests share: one thread (there are more workers than cores), quiet libraries, real data if it is there."""

import os
from pathlib import Path

import pytest
import torch

SHARED_DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


def pytest_configure() -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the commands that tests start


@pytest.fixture(autouse=True)
def _global_state_is_left_alone():
    """No test, and nothing it calls, may draw from torch's global generator or change its default dtype."""
    state, dtype = torch.random.get_rng_state(), torch.get_default_dtype()
    yield
    assert torch.get_default_dtype() == dtype
    torch.random.set_rng_state(state)


@pytest.fixture
def cifar_root() -> Path:
    """The folder with real CIFAR-10, or a skip that names what is missing."""
    if not (SHARED_DATA / "cifar-10-batches-py").is_dir():
        pytest.skip("real CIFAR-10 is not at ../shared/data/cifar-10-batches-py")
    return SHARED_DATA


@pytest.fixture
def mnist_root() -> Path:
    """The folder with real MNIST, or a skip that names what is missing."""
    if not (SHARED_DATA / "MNIST").is_dir():
        pytest.skip("real MNIST is not at ../shared/data/MNIST")
    return SHARED_DATA
