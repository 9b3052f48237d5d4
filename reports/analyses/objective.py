"""The loss whose landscape is meant: a setting that the analyses of curvature and of surfaces share."""

from typing import Any

from alignscape.settings import setting


def objective_setting(group: str = "") -> Any:
    """Return the setting ``loss``; None is that of the run, and for other networks the cross-entropy."""
    return setting(
        None,
        "loss whose landscape is meant: cross-entropy, mse (of one-hot targets, or of labels that are floats), or "
        "package.module:function, called with outputs and labels of a batch for their mean",
        metavar="NAME",
        default_text="that of the run, else cross-entropy",
        group=group,
    )
