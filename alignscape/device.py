"""The choice of device, and its name for a result's record."""

import torch

from alignscape.errors import InputError

DEVICES = ("auto", "cpu", "cuda")


def resolve_device(name: str) -> torch.device:
    """Return the device called ``name``; ``auto`` is CUDA where there is one.

    Raises:
        InputError: ``cuda`` was asked for and there is none; the name is unknown.
    """
    if name not in DEVICES:
        raise InputError(f"unknown device {name!r}; known: {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine or this torch has no CUDA; use --device cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def describe_device(device: torch.device) -> str:
    """Return the name of the hardware, e.g. ``cpu (2 threads)`` or ``NVIDIA H100``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({torch.get_num_threads()} threads)"


def synchronise(device: torch.device) -> None:
    """Wait for the steps that a GPU still has to do: they are no part of the time of what comes next."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
