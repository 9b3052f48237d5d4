"""Loss landscapes and robustness of networks trained without weight transport::

    import alignscape

    runs = alignscape.train(rule="fa", seed=[0, 1, 2])
    found = runs.hessian(k=3)
    found.plot()

:func:`train` and :func:`load` give :class:`Networks`, with every analysis as a method. They are loaded when first used:
this package is the base of the others (``training``, ``landscape``, ``robustness``, ``reports``), whose parts import
its modules and nothing else of it.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from alignscape.errors import DamagedError, DivergedError, InputError

if sys.platform == "win32":
    raise ImportError("alignscape locks files as Linux and macOS do (fcntl), which Windows cannot; run it in WSL 2")

if TYPE_CHECKING:
    from reports.python import Networks, Runs, load, train
    from reports.runner import Result

_PLACES = {
    **dict.fromkeys(("Networks", "Runs", "load", "train"), "reports.python"),
    "Result": "reports.runner",
}
__all__ = ["DamagedError", "DivergedError", "InputError", "Networks", "Result", "Runs", "load", "train"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from alignscape.version import distribution_version

        return distribution_version()
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from alignscape.imports import protect, refuse_others

    protect()  # our own `reports`, whatever the current folder has of that name
    refuse_others()
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
