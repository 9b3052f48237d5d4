"""The sections of the page: one for training, and those that the analyses declare."""

from pandas import DataFrame

from reports.analyses import all_analyses
from reports.analyses.section import Drawing, Section, has


def _has_angles(frame: DataFrame) -> bool:
    angles = [name for name in frame if str(name).startswith("angle_")]
    return bool(angles) and bool(frame[angles].notna().any(axis=None))


def _has_noise(frame: DataFrame) -> bool:
    return _has_angles(frame) and bool((frame["epoch"] < 0).any())


TRAINING = Section(
    heading="Training",
    text="Loss and accuracy after every epoch. Training values are means over the epoch as it went, test values "
    "are measured after it.",
    drawings=(
        Drawing(
            title="Learning curves",
            caption="The lower the loss and the higher the accuracy, the better.",
            remarks=(
                (
                    "The gap between training and test set is what the network does not carry over to new samples.",
                    lambda table: (
                        has("train_loss", "test_loss")(table) or has("train_accuracy", "test_accuracy")(table)
                    ),
                ),
            ),
            draw="reports.figures:metrics",
            stem="metrics",
            derived=True,
        ),
        Drawing(
            title="Alignment",
            caption="Angle between the forward weights and the feedback weights that carry the error down, per "
            "layer. At 90° they are independent; a fall means that forward weights align with the feedback.",
            draw="reports.figures:alignment",
            stem="angles",
            applies=lambda frame: _has_angles(frame) and not _has_noise(frame),  # which is drawn with the angles
            derived=True,
        ),
        Drawing(
            title="Learning from noise",
            caption="Epochs below 0 are on noise, whose labels say nothing: what they can change is how well forward "
            "weights agree with the feedback. The lower the angle at epoch 0, the faster the data are learnt.",
            draw="reports.figures:noise_pretraining",
            stem="noise_pretraining",
            applies=_has_noise,
            derived=True,
        ),
    ),
)


CURVATURE = Section(
    heading="Curvature while training",
    text="Leading eigenvalue and trace of the Hessian, and the gradient, of the true loss on samples that stay the "
    "same (`analyze train --monitor hessian`).",
    drawings=(
        Drawing(
            title="Curvature while training",
            caption="",
            remarks=(
                ("Dashed: the edge of stability, above which steps down the gradient overshoot.", has("threshold")),
                (
                    "It is 38 / lr for Adam, whose eigenvalue is the preconditioned one.",
                    has("threshold", "preconditioned_eigenvalue"),
                ),
                (
                    "It is 2 / lr for gradient descent, (2 + 2 m) / lr with momentum m.",
                    lambda table: has("threshold")(table) and not has("preconditioned_eigenvalue")(table),
                ),
                ("Full-batch training climbs up to it and stays there; small batches stay below.", has("threshold")),
                (
                    "Rules other than backpropagation do not step down the gradient, so for them it is no bound.",
                    lambda table: has("threshold", "rule")(table) and bool((table["rule"] != "bp").any()),
                ),
            ),
            draw="reports.figures:monitored",
            stem="curvature",
            derived=True,
        ),
    ),
)


def sections() -> dict[str, Section]:
    """Return the sections by the kind of table that each is about, in their order on the page."""
    own = {"metrics": TRAINING, "curvature": CURVATURE}
    return {**own, **{name: analysis.section for name, analysis in all_analyses().items()}}


def companions(kind: str) -> list[str]:
    """Return the kinds of tables that are shown in the section of ``kind``, beside its own."""
    analysis = all_analyses().get(kind)
    return [] if analysis is None else [table.name for table in analysis.tables[1:]]
