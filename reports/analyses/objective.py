"""The loss whose landscape is meant: a setting that the analyses of curvature and of surfaces share."""

from typing import Any

from alignscape.losses import FORMS
from alignscape.settings import setting


def objective_setting(group: str = "") -> Any:
    """Return the setting ``loss``; None is that of the run, and for other networks the cross-entropy."""
    return setting(
        None,
        f"loss whose landscape is meant: {FORMS}, called with outputs and labels of a batch for their mean",
        metavar="NAME",
        default_text="that of the run, else cross-entropy",
        group=group,
    )
