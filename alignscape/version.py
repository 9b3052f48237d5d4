"""The versions that a number may depend on."""

import platform
import subprocess
from pathlib import Path


def versions() -> dict[str, str | None]:
    """Return the versions that a number may depend on, and the git commit of this source if it is a checkout."""
    import numpy as np
    import torch

    return {
        "alignscape": distribution_version(),
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def distribution_version() -> str:
    """Return the version of the installed distribution."""
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
