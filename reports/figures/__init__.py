"""One figure per analysis, drawn from the table that the analysis writes.

Every function takes a DataFrame whose columns are those of the CSV file of the same name and returns a matplotlib
``Figure`` that is ready for a paper; :func:`reports.style.save` writes it as PDF and PNG. The first column is
``checkpoint``; the optional columns ``rule, angle, seed, epoch`` (angle in degrees) give a series its colour and name.
Checkpoints that differ in ``seed`` only are drawn as their mean with one standard deviation.

| function | reads (more columns may follow) |
|---|---|
| ``metrics`` | ``checkpoint, epoch, train_loss, test_loss, train_accuracy, test_accuracy`` |
| ``alignment`` | ``checkpoint, epoch``, and ``angle_<layer>`` in degrees or ``layer, quantity, value`` |
| ``noise_pretraining`` | ``checkpoint, epoch, test_accuracy``, and ``angle_<layer>`` in degrees |
| ``gap`` | ``quantity, gap, over, tau, ci_low, ci_high`` |
| ``monitored`` | ``checkpoint, step, eigenvalue, trace, ci_low, ci_high, gradient_norm, alignment, threshold`` |
| ``hessian`` | ``checkpoint, quantity, index, value, ci_low, ci_high`` |
| ``hessian_groups`` | the same, with ``trace:GROUP`` and ``eigenvalue:GROUP`` (``--by``) |
| ``sharpness`` | ``checkpoint, measure, radius, layer, value, ci_low, ci_high`` |
| ``spectrum`` | ``checkpoint, probe, node, weight`` |
| ``surface``, ``surface_3d`` | ``checkpoint, alpha, beta, loss`` |
| ``trajectory`` | path: ``checkpoint, step, alpha, beta, off_plane, loss, plane_loss``; surface as above |
| ``attack`` | ``checkpoint, attack, gradient, eps, accuracy, ci_low, ci_high`` |
| ``radius`` | ``checkpoint, attack, gradient, images, quantile, radius, ci_low, ci_high`` |
| ``masking`` | ``checkpoint, source, attack, gradient, eps, accuracy, ci_low, ci_high``; attack as above |
| ``against_angle`` | ``rule, angle, seed, quantity, value`` |
| ``corruptions``, ``corruption_heatmap`` | ``checkpoint, corruption, category, severity, accuracy, ci_low, ci_high`` |

``trajectory_gif`` replays the trajectory as an animation.
Accuracies are fractions in the tables and percentages in the figures.
"""

from reports.figures.accuracy import attack, corruption_heatmap, corruptions, radius
from reports.figures.angles import against_angle
from reports.figures.animation import trajectory_gif
from reports.figures.curvature import hessian
from reports.figures.curves import alignment, metrics
from reports.figures.density import spectrum
from reports.figures.flatness import sharpness
from reports.figures.gaps import gap
from reports.figures.groups import hessian_groups
from reports.figures.noise import noise_pretraining
from reports.figures.paths import trajectory
from reports.figures.planes import surface, surface_3d
from reports.figures.ways import masking
from reports.figures.while_training import monitored

__all__ = [
    "against_angle",
    "alignment",
    "attack",
    "corruption_heatmap",
    "corruptions",
    "gap",
    "hessian",
    "hessian_groups",
    "masking",
    "metrics",
    "monitored",
    "noise_pretraining",
    "radius",
    "sharpness",
    "spectrum",
    "surface",
    "surface_3d",
    "trajectory",
    "trajectory_gif",
]
