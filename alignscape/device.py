"""The choice of device, and its name for a result's record."""

import argparse
import re
from typing import TYPE_CHECKING

from alignscape.errors import InputError

if TYPE_CHECKING:
    import torch

DEVICES = "auto, cpu, cuda, cuda:N or mps"
_FORM = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")


def device_name(text: str) -> str:
    """Parse the name of a device, which may not be there.

    Raises:
        ArgumentTypeError: it is none.
    """
    if not _FORM.fullmatch(text):
        raise argparse.ArgumentTypeError(f"unknown device {text!r}; known: {DEVICES}")
    return text


def resolve_device(name: str) -> "torch.device":
    """Return the device called ``name``; ``auto`` is CUDA where there is one.

    Raises:
        InputError: a device was asked for and is not there; the name is unknown.
    """
    import torch

    if not _FORM.fullmatch(name):
        raise InputError(f"unknown device {name!r}; known: {DEVICES}")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"--device {name}: this machine or this torch has no CUDA; use --device cpu or auto")
    if name.startswith("cuda:") and int(name[5:]) >= (count := torch.cuda.device_count()):
        there = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise InputError(f"--device {name}: this machine has {there}")
    if name == "mps" and not torch.backends.mps.is_available():
        raise InputError("--device mps: this machine or this torch has no Apple GPU (Metal); use --device cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def describe_device(device: "torch.device") -> str:
    """Return the name of the hardware, e.g. ``cpu (2 threads)`` or ``NVIDIA H100``."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({torch.get_num_threads()} threads)"


def synchronise(device: "torch.device") -> None:
    """Wait for the steps that a GPU still has to do: they are no part of the time of what comes next."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
