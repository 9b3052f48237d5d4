"""The choice of device, and what a result should say of the machine."""

import platform
import subprocess
from pathlib import Path

import torch

from training.errors import InputError

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


def versions() -> dict[str, str | None]:
    """Return the versions that a number may depend on, and the git commit of this source if it is a checkout."""
    import numpy as np

    return {
        "alignscape": _distribution_version(),
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def _distribution_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("alignscape")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "uninstalled"


def _git_commit() -> str | None:
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return None
    command = ["git", "-C", str(here), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
