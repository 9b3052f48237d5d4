"""The devices that a test runs on where nothing in it needs one of them: the CPU always, a GPU where there is one."""

import pytest
import torch

GPU = pytest.param(
    "cuda",
    marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
)
DEVICES = ["cpu", GPU]
