"""``attack``: accuracy against the size of an adversarial perturbation, and whether to believe it."""

import dataclasses
import functools
import json
import statistics
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from alignscape.errors import InputError
from alignscape.settings import Only, at_least, setting
from reports.analyses.analysis import (
    Analysis,
    Found,
    Show,
    batch_setting,
    labelled,
    samples_setting,
    silent,
    split_setting,
)
from reports.analyses.attack_settings import Attacks, check_epsilons, loss_setting, pixels, steps_setting
from reports.analyses.section import Drawing, Section
from reports.schema import N_SAMPLES, Column, Table, columns, interval

if TYPE_CHECKING:
    from pandas import DataFrame

    from reports.subjects import Subject
    from robustness.attacks import Attack as AnyAttack
    from robustness.curves import AttackCurve
    from robustness.masking import Audit


def _follows_any(one: Any) -> bool:
    """Whether an analysis of these settings follows a gradient at all."""
    curves = set(one.gradients) != {"none"} and tuple(one.attacks) != ("square",)
    return bool(one.audit or curves or one.transfer_matrix)


_HOW = (
    Column("steps", "int", "gradients, or queries, an image; empty: not one number", role="setting"),
    Column("loss", "text", "of the attack", role="setting"),
    Column("restarts", "int", "random starts", role="setting"),
    Column("step_size", "float", "as in attack.csv; empty: it goes with eps", "pixels in [0, 1]", role="setting"),
    Column("eot", "int", "as in attack.csv", role="setting"),
    Column("bpda", "bool", "as in attack.csv", role="setting"),
)
_FOLLOWED = Only("an attack that follows a gradient", lambda one: _follows_any(one))


@dataclass(frozen=True, kw_only=True)
class Attack(Attacks, Analysis):
    """Accuracy against eps under adversarial attacks, nested in eps, with an audit of masked gradients.

    >>> Attack(attacks=("pgd",), eps=(0, 0.1), steps=20).eps
    (0.0, 0.1)
    """

    name: ClassVar[str] = "attack"
    version: ClassVar[int] = 5  # Square in L2, as a part of `auto` and in the audit; a stronger yardstick
    summary: ClassVar[str] = "accuracy against epsilon under adversarial attacks, and whether to believe it"
    tables: ClassVar[tuple[Table, ...]] = (
        Table(
            "attack",
            (
                Column("attack", "text", "its name; worst case: the least of several", role="key"),
                Column("gradient", "text", "true, feedback, transfer or none", role="key"),
                Column("eps", "float", "radius of the ball", "pixels in [0, 1]", role="key"),
                Column("accuracy", "float", "share of images that stay right", role="value"),
                *interval("the accuracy (Wilson)"),
                N_SAMPLES,
                Column("steps", "int", "gradients, or queries, an image; empty: not one number", role="setting"),
                Column("seconds", "float", "of the whole curve", "s", role="cost"),
                *columns("text", "norm loss", "of the attack", role="setting"),
                Column("restarts", "int", "random starts", role="setting"),
                Column(
                    "step_size",
                    "float",
                    "of one step at this eps, if it has steps of one size",
                    "pixels in [0, 1]",
                    role="setting",
                ),
                Column(
                    "curve",
                    "text",
                    "nested: is there a fooling image within eps? raw: of the last iterate",
                    role="setting",
                ),
                Column("rejected", "int", "images that did not stand the re-check"),
                Column(
                    "first_layer",
                    "text",
                    "of the feedback gradient: the first layer's feedback matrix, or its forward weights",
                    role="setting",
                ),
                Column("eot", "int", "passes that the gradient is averaged over", role="setting"),
                Column(
                    "bpda", "bool", "whether the gradient goes through rounding as if it were not there", role="setting"
                ),
            ),
        ),
        Table(
            "audit",
            (
                Column("gradient", "text", "that was followed"),
                Column("eps", "float", "radius of the ball", "pixels in [0, 1]"),
                *columns("text", "check verdict", "what was looked at; pass, warn, inconclusive or skipped"),
                Column("value", "float", "what was found"),
                *interval("the value, where it is a gap in accuracy (bootstrap over images)"),
                Column("threshold", "float", "from where on it warns"),
                Column("message", "text", "in words"),
                Column("means", "text", "what a failure of the check would mean"),
                N_SAMPLES,
                Column("first_layer", "text", "of the feedback gradient, as in attack.csv"),
            ),
            optional=True,
        ),
        Table(
            "radius",
            (
                Column("attack", "text", "its name", role="key"),
                Column("gradient", "text", "true, feedback, transfer or none", role="key"),
                Column("images", "text", "all, wrong ones with radius 0; or right, those that are right", role="key"),
                Column("statistic", "text", "mean (of all: area under accuracy over eps), or quantile Q", role="key"),
                Column("quantile", "float", "share of the images that the radius leaves below it"),
                Column("radius", "float", "smallest eps that fools an image", "pixels in [0, 1]", role="value"),
                *interval("the radius (bootstrap over images)"),
                N_SAMPLES,
                Column("norm", "text", "of the attack", role="setting"),
                Column("tolerance", "float", "the attack failed at most this share below a radius"),
                Column("floor", "float", "smaller radii were sought no closer", "pixels in [0, 1]"),
                Column("ceiling", "float", "what nothing fools counts as this", "pixels in [0, 1]"),
                Column("seconds", "float", "of all images", "s", role="cost"),
                Column("first_layer", "text", "of the feedback gradient, as in attack.csv", role="setting"),
                *_HOW,
            ),
            optional=True,
        ),
        Table(
            "transfer",
            (
                Column("source", "text", "the network whose gradient was followed", role="key"),
                Column("source_rule", "text", "its learning rule"),
                Column("source_angle", "float", "between its weights at the start (ifa)", "degrees"),
                Column("source_seed", "int", "its seed"),
                Column("attack", "text", "its name", role="key"),
                Column("gradient", "text", "transfer, or true where a network is its own source", role="key"),
                Column("eps", "float", "radius of the ball", "pixels in [0, 1]", role="key"),
                Column("accuracy", "float", "share of images that stay right", role="value"),
                *interval("the accuracy (Wilson)"),
                N_SAMPLES,
                Column("norm", "text", "of the attack", role="setting"),
                Column("curve", "text", "nested or raw, as in attack.csv", role="setting"),
                Column("first_layer", "text", "as in attack.csv; empty: no feedback is followed", role="setting"),
                *_HOW,
            ),
            optional=True,
        ),
    )
    section: ClassVar[Section] = Section(
        heading="Adversarial attacks",
        text="Accuracy when every image may be changed by ε to fool the network. Only attacks through the true "
        "gradient, or without one, measure robustness; feedback and transferred gradients are labelled. Where an "
        "audit warns, do not trust the curve.",
        drawings=(
            Drawing(
                title="Accuracy against epsilon",
                caption="A robust network's curve falls late.",
                remarks=(
                    (
                        "A curve that stays high under the feedback gradient only shows that this gradient points "
                        "nowhere.",
                        lambda table: bool((table["gradient"] == "feedback").any()),
                    ),
                ),
                draw="reports.figures:attack",
                stem="attack",
            ),
            Drawing(
                title="Smallest eps that fools an image",
                caption="Of the images that a network gets right: the share that withstands an attack of this size. "
                "Further right is more robust.",
                draw="reports.figures:radius",
                stem="radius",
                of="radius",
                applies=lambda table: bool(((table["images"] == "right") & table["quantile"].notna()).any()),
            ),
            Drawing(
                title="Robust or masked",
                caption="Each network under every way of attacking it that was tried. Robust is what withstands all "
                "of them; a line that stays far above another shows a weak attack and not a robust network.",
                draw="reports.figures:masking",
                stem="masking",
                of="transfer",
                beside=("attack",),
            ),
        ),
    )

    split: Literal["train", "test"] = split_setting("test")
    samples: int | None = samples_setting(1000)
    batch_size: int | None = batch_setting(1000)
    steps: int | None = steps_setting(", or --audit")
    loss: Literal["ce", "dlr", "ce-saturating"] = loss_setting(", or --audit")
    gradients: tuple[Literal["true", "feedback", "transfer", "none"], ...] = setting(
        ("true",),
        "whose gradient the attack follows: true, the network's own (the only one that measures robustness); feedback, "
        "what the learning rule's backward path sends to the pixels; transfer, that of --surrogate; none, only attacks "
        "that use no gradient (square). Several give one curve each",
        flags=("--gradient",),
        group="attack",
    )
    surrogate: Path | None = setting(
        None,
        "the network whose gradient is tried on the others",
        default_text="for --audit another network of the call, else a substitute that is trained on the answers",
        metavar="CKPT",
        only=Only("--gradient transfer or --audit", lambda one: "transfer" in one.gradients or one.audit),
        group="attack",
        in_key=False,
    )
    first_layer: tuple[Literal["feedback", "forward"], ...] = setting(
        ("feedback",),
        "what the feedback gradient takes for the first layer's weights on its way to the pixels, where training sends "
        "nothing: feedback, the matrix that fa, ifa and dfa draw for it and never use; forward, its own weights, as "
        "the other rules have it. Both give one curve each",
        only=Only("--gradient feedback", lambda one: "feedback" in one.gradients),
        group="attack",
    )
    eot: int = setting(
        1,
        "passes whose logits are averaged for each gradient (expectation over transformation): for networks that draw "
        "at random",
        metavar="N",
        check=at_least(1),
        only=_FOLLOWED,
        group="attack",
    )
    bpda: bool = setting(
        False,
        "let the gradient pass through round, floor, ceil, trunc and sign as if they were not there: for networks that "
        "quantise",
        only=_FOLLOWED,
        group="attack",
    )
    raw: bool = setting(
        False,
        "curves of each eps by itself (of bim and pgd the last iterate), which may rise, as other tools draw them, "
        "instead of nested curves: is there a fooling image within eps?",
        group="results",
    )
    radius: bool = setting(
        False,
        "also the smallest eps that fools each image, by bisection on each attack (strong, if only the default attacks "
        "are made), with quantiles and their intervals; writes radius.csv",
        group="results",
    )
    transfer_matrix: bool = setting(
        False,
        "also attack each network with the gradient of each other one that is given; writes transfer.csv, and a figure "
        "of all ways that were tried",
        group="results",
    )
    audit: bool = setting(
        False,
        "also look for masked gradients, in thirteen checks of these attacks with each gradient that is asked for; "
        "writes audit.csv",
        group="results",
    )
    audit_eps: float | None = setting(
        None,
        "eps of the audit, pixel units",
        metavar="E",
        parse=pixels,
        default_text="the median of --eps above 0",
        only=Only("--audit", lambda one: one.audit),
        group="results",
    )
    save_examples: bool = setting(
        False,
        "also store the fooling images and each image's smallest fooling eps, in examples/*.npz",
        group="results",
        in_key=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_attacks()
        if self.audit_eps is not None and self.norm == "linf":
            check_epsilons((self.audit_eps,))
        if "transfer" in self.gradients and self.surrogate is None:
            raise InputError("--gradient transfer needs --surrogate CKPT: the network whose gradient is followed")

    @property
    def modes(self) -> list[tuple[str, str]]:
        """The gradients that attacks with a gradient follow, each with what it takes for the first layer's weights
        (empty but for ``feedback``)."""
        modes = [mode for mode in dict.fromkeys(self.gradients) if mode != "none"]
        return [(m, layer) for m in modes for layer in (dict.fromkeys(self.first_layer) if m == "feedback" else ("",))]

    @property
    def asked_for(self) -> tuple[str, ...]:
        return ("radius",) if self.radius else ()

    @classmethod
    def settings_of_inputs(cls, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Return the network whose gradient is followed, where a job has one."""
        return {"surrogate": inputs["surrogate"]} if "surrogate" in inputs else {}

    def compute(self, subject: "Subject", show: Show = silent) -> Found:
        """Attack one network.

        Raises:
            InputError: a matrix of transfers, which needs several.
        """
        if self.transfer_matrix:
            raise InputError("--transfer-matrix needs several networks: each is attacked with the others' gradients")
        return self._compute(subject, show)

    def compute_all(self, subjects: "Iterable[Subject]", show: Show = silent) -> Found:
        """Attack several networks; to audit one, the gradient of another of them is tried on it.

        Raises:
            InputError: a matrix of transfers between networks that do not answer the same question.
        """
        if not self.transfer_matrix and (not self.audit or self.surrogate is not None):
            return super().compute_all(subjects, show)
        subjects = list(subjects)
        sources = self._sources(subjects)
        others = [next((s for s in subjects if _can_transfer(s, one)), None) for one in subjects]
        return labelled(
            [
                (one, self._compute(one, show, None if self.surrogate is not None else other, sources))
                for one, other in zip(subjects, others, strict=True)
            ]
        )

    def _sources(self, subjects: "Sequence[Subject]") -> "Sequence[Subject]":
        """Return the networks of the matrix of transfers, none where it was not asked for."""
        if not self.transfer_matrix:
            return ()
        if len(subjects) < 2:
            raise InputError("--transfer-matrix needs several networks: each is attacked with the others' gradients")
        for one in subjects[1:]:
            if not _can_transfer(one, subjects[0]):
                raise InputError(
                    f"{one.name} is {subjects[0].name} again, or has other images: no gradient to transfer"
                )
        if not any(_follows(attack, "transfer") for attack in self.made()):
            raise InputError(
                "--transfer-matrix needs an attack that follows a gradient throughout: add --attack strong"
            )
        return subjects

    def _compute(
        self, subject: "Subject", show: Show, other: "Subject | None" = None, sources: "Sequence[Subject]" = ()
    ) -> Found:
        import pandas as pd

        from reports.analyses.attacked import example_files

        attacks = self.made()
        if not self.modes and all(attack.needs_gradient for attack in attacks):
            raise InputError("--gradient none leaves no attack: add --attack square")
        surrogate = None if self.surrogate is None else subject.beside(self.surrogate)
        audits = self._audits(subject, attacks, surrogate, surrogate or other, show) if self.audit else []
        curves = self.curves(subject, attacks, surrogate, show)
        tables = {"attack": pd.concat([self._frame(curve, layer) for curve, layer in curves], ignore_index=True)}
        if self.audit:
            parts = [one.frame().assign(first_layer=layer) for one, layer in audits]
            tables["audit"] = pd.concat(parts, ignore_index=True)
        if self.radius:
            tables["radius"] = pd.concat(self._radii(subject, attacks, surrogate, show), ignore_index=True)
        if sources:
            parts = [self._transfers(subject, source, attacks, show) for source in sources]
            tables["transfer"] = pd.concat(parts, ignore_index=True)
        return Found(
            tables=tables,
            record={"attacks": [describe(attack) for attack in attacks]},
            sources=() if surrogate is None else (surrogate,),
            files=example_files(subject, curves) if self.save_examples else {},
            text="\n\n".join(_audit_text(subject, one, layer) for one, layer in audits),
        )

    def _frame(self, curve: "AttackCurve", layer: str) -> "DataFrame":
        followed = curve.gradient != "none"
        return curve.frame().assign(
            first_layer=layer, eot=self.eot if followed else 1, bpda=self.bpda if followed else False
        )

    def curves(
        self,
        subject: "Subject",
        attacks: "Sequence[AnyAttack]",
        surrogate: "Subject | None" = None,
        show: Show = silent,
    ) -> "list[tuple[AttackCurve, str]]":
        """Return a curve for each attack and gradient mode, then each mode's worst case where it has several, each with
        what the mode takes for the first layer's weights; an attack without a gradient runs once."""
        from reports.analyses.attacked import gradient_model, with_worst_cases
        from robustness.curves import attack_curve

        blind = [(("none", ""), attack) for attack in attacks if not attack.needs_gradient]
        guided = self._guided(attacks)
        run = functools.partial(
            attack_curve, subject.pixel_model(), subject.pixels(), subject.labels, self.eps, raw=self.raw,
            batch_size=self.batch_size or len(subject.labels), seed=self.seed, keep_examples=self.save_examples,
        )  # fmt: skip
        curves = [
            (
                run(
                    attack,
                    gradient_model=gradient_model(subject, mode, surrogate, layer, eot=self.eot, bpda=self.bpda),
                    gradient=mode,
                    progress=show(f"{subject.name}: {attack.name}, gradient {mode} {layer}".rstrip(), "image"),
                ),
                layer,
            )
            for (mode, layer), attack in blind + guided
        ]
        for curve, _ in curves:
            if curve.rejected:
                outside = f"{curve.rejected} images of {curve.attack} fooled outside of the ball or of [0, 1]"
                warnings.warn(f"{subject.name}: {outside}, and do not count", stacklevel=2)
        return with_worst_cases(curves, list(dict.fromkeys(mode for mode, _ in guided)))

    def _guided(self, attacks: "Sequence[AnyAttack]") -> "list[tuple[tuple[str, str], AnyAttack]]":
        """Return the attacks that follow a gradient with each mode that they can follow: AutoAttack, of which a part
        follows none, beside other attacks only the true one."""
        guided = [(mode, attack) for mode in self.modes for attack in attacks if attack.needs_gradient]
        able = [(mode, attack) for mode, attack in guided if _follows(attack, mode[0])]
        return able if {mode for mode, _ in able} == set(self.modes) else guided

    def _transfers(
        self, subject: "Subject", source: "Subject", attacks: "Sequence[AnyAttack]", show: Show
    ) -> "DataFrame":
        """Return the rows of ``transfer.csv`` of one network and one whose gradient is followed."""
        import pandas as pd

        from reports.analyses.attacked import gradient_model
        from robustness.curves import attack_curve

        mode = "true" if source is subject else "transfer"
        curves = [
            attack_curve(
                subject.pixel_model(),
                subject.pixels(),
                subject.labels,
                self.eps,
                attack,
                gradient_model=gradient_model(subject, mode, source, eot=self.eot, bpda=self.bpda),
                gradient=mode,
                raw=self.raw,
                batch_size=self.batch_size or len(subject.labels),
                seed=self.seed,
                progress=show(f"{subject.name}: {attack.name}, gradient of {source.name}", "image"),
            )
            for attack in attacks
            if _follows(attack, "transfer")
        ]
        of: dict[str, Any] = {"source": source.name}
        of |= {f"source_{name}": source.columns.get(name) for name in ("rule", "angle", "seed")}
        names = next(table for table in self.tables if table.name == "transfer").names()
        return pd.concat([self._frame(curve, "") for curve in curves], ignore_index=True).assign(**of)[names]

    def _radii(
        self, subject: "Subject", attacks: "Sequence[AnyAttack]", surrogate: "Subject | None", show: Show
    ) -> "list[DataFrame]":
        """Return the statistics of the radii for each attack, gradient mode and first layer."""
        import torch

        from reports.analyses.attacked import gradient_model
        from robustness.ensembles import strong
        from robustness.radius import minimal_radii

        default = self.attacks == type(self).__dataclass_fields__["attacks"].default
        chosen = [strong(norm=self.norm)] if default else attacks
        pairs = [(("none", ""), one) for one in chosen if not one.needs_gradient]
        pairs += self._guided(chosen)
        names = next(table for table in self.tables if table.name == "radius").names()
        with torch.no_grad():
            classes = subject.pixel_model()(subject.pixels()[:2]).shape[1]
        return [
            minimal_radii(
                subject.pixel_model(),
                subject.pixels(),
                subject.labels,
                one,
                gradient_model=gradient_model(subject, mode, surrogate, layer, eot=self.eot, bpda=self.bpda),
                gradient=mode,
                batch_size=self.batch_size or len(subject.labels),
                seed=self.seed,
                progress=show(f"{subject.name}: radii under {one.name}, gradient {mode} {layer}".rstrip(), "image"),
            )
            .frame(seed=self.seed)
            .assign(first_layer=layer, **self._how(one, classes))
            .astype({"steps": "Int64"})[names]
            for (mode, layer), one in pairs
        ]

    def _how(self, attack: "AnyAttack", classes: int) -> dict[str, Any]:
        """Return the columns of ``radius.csv`` that say how an attack was made."""
        from robustness.curves import starts, steps_an_image

        return {
            "steps": steps_an_image(attack, classes),
            "loss": attack.loss,
            "restarts": starts(attack),
            "step_size": getattr(attack, "step_size", None) or float("nan"),
            "eot": self.eot if attack.needs_gradient else 1,
            "bpda": self.bpda and attack.needs_gradient,
        }

    def _audits(
        self,
        subject: "Subject",
        attacks: "Sequence[AnyAttack]",
        surrogate: "Subject | None",
        other: "Subject | None",
        show: Show,
    ) -> "list[tuple[Audit, str]]":
        """Return the audit of the attacks in each gradient mode, at ``audit_eps`` or the median of ``eps`` above 0."""
        from reports.analyses.attacked import gradient_model
        from robustness.attacks import pgd
        from robustness.masking import audit
        from robustness.square import SquareAttack

        positive = [value for value in self.eps if value > 0]
        if self.audit_eps is None and not positive:
            raise InputError("--audit needs an eps above 0: give one with --eps or --audit-eps")
        modes = self.modes or [("true", "")]
        able = {mode: [one for one in attacks if not one.needs_gradient or _follows(one, mode)] for mode, _ in modes}
        for mode, left in able.items():
            if any(one.needs_gradient for one in attacks) and not any(one.needs_gradient for one in left):
                raise InputError(f"--audit with --gradient {mode} needs an attack that follows it: add --attack strong")
        varied = pgd(steps=self.steps or 10, step_size=self.step_size, loss=self.loss, norm=self.norm)
        return [
            (
                audit(
                    subject.pixel_model(),
                    subject.pixels(),
                    subject.labels,
                    eps=statistics.median_low(positive) if self.audit_eps is None else self.audit_eps,
                    attacks=able[mode],
                    varied=varied,
                    radii=positive,
                    raw=self.raw,
                    gradient_model=gradient_model(subject, mode, surrogate, layer, eot=self.eot, bpda=self.bpda),
                    gradient=mode,
                    surrogate=None if other is None else other.pixel_model(),
                    surrogate_name="" if other is None else other.name,
                    queries=self.queries or SquareAttack().queries,
                    batch_size=self.batch_size or len(subject.labels),
                    seed=self.seed,
                    progress=show(f"{subject.name}: audit, gradient {mode} {layer}".rstrip(), "check"),
                ),
                layer,
            )
            for mode, layer in modes
        ]

    def text(self, found: Found) -> str:
        """Return one line a curve, one column an eps, accuracies in percent, as the header says; then what the audits
        say."""
        from reports.tables import render, wrapped

        frame = found.tables["attack"]
        percent = frame.assign(accuracy=(100 * frame.accuracy).round(1), eps=frame.eps.map("eps {:g}".format))
        keys = ["checkpoint", "attack", "gradient", *(["first_layer"] if frame.first_layer.any() else [])]
        wide = percent.pivot_table(index=keys, columns="eps", values="accuracy", sort=False)
        kind = "each eps by itself" if self.raw else "nested in eps: what fools within less counts too"
        header = f"% of images that stay right ({kind}; a share of 1 in attack.csv), {self.norm}"
        parts = (
            f"{wrapped(header)}\n{render(wide.reset_index())}",
            _transfers_text(found),
            _radii_text(found),
            found.text,
        )
        return "\n\n".join(part for part in parts if part)

    @classmethod
    def merits(cls, table: "DataFrame") -> "DataFrame | None":
        """Return the lowest accuracy over attacks at the eps that halves the accuracy of the networks, on average."""
        true = table[table["gradient"].isin(["true", "none"])]
        if true.empty:
            return None
        lowest = true.assign(accuracy=100 * true["accuracy"]).pivot_table(
            index=true.index.name, columns="eps", values="accuracy", aggfunc="min"
        )
        lowest = lowest.dropna(axis=1)
        if lowest.empty:
            return None
        mean = lowest.mean()
        eps = float((mean - mean.iloc[0] / 2).abs().idxmin())
        return lowest[eps].to_frame(f"accuracy under attack, ε = {eps:g} (%)")


def _radii_text(found: Found) -> str:
    """Return the mean over all images and the median of the right ones, a line a network and attack."""
    from reports.tables import render

    if "radius" not in found.tables:
        return ""
    table = found.tables["radius"]
    keys = ["checkpoint", "attack", "gradient", *(["first_layer"] if table.first_layer.any() else [])]
    shown = table[((table.images == "all") & (table.statistic == "mean")) | (table["quantile"] == 0.5)]
    shown = shown.assign(
        statistic=shown.statistic.map({"mean": "mean radius, all images"}).fillna("median, right ones")
    )
    return render(shown.pivot_table(index=keys, columns="statistic", values="radius", sort=False).reset_index())


def _transfers_text(found: Found) -> str:
    """Return the matrix of transfers at the middle eps, a row a network and a column a source."""
    from reports.tables import render

    if "transfer" not in found.tables:
        return ""
    frame = found.tables["transfer"]
    eps = statistics.median_low(sorted({value for value in frame.eps if value > 0} or {0.0}))
    rows = frame[frame.eps == eps].assign(accuracy=(100 * frame.accuracy).round(1))
    wide = rows.pivot_table(index=["checkpoint", "attack"], columns="source", values="accuracy", sort=False)
    return f"% that stay right at eps {eps:g} with the gradient of (diagonal: its own)\n{render(wide.reset_index())}"


def _follows(attack: "AnyAttack", mode: str) -> bool:
    """Whether all of an attack follows a gradient in this mode; AutoAttack, with Square in it, only the true one."""
    return attack.needs_gradient and (mode == "true" or all(member.needs_gradient for member in attack.members))


def _can_transfer(one: "Subject", to: "Subject") -> bool:
    """Whether the gradient of ``one`` can be tried on ``to``: another network that answers the same question."""
    import torch

    alike = one.dataset == to.dataset and one.images.shape == to.images.shape and torch.equal(one.labels, to.labels)
    return alike and one.digest != to.digest


def _audit_text(subject: "Subject", audit: Any, layer: str) -> str:
    """Return an audit as one entry a check, its number, what it means where it fails, and a line that sums up."""
    from reports.tables import wrapped

    rows = []
    for line in audit.lines:
        rows.append(f"  {line.verdict:12s} {line.check}: {line.message}")
        if line.verdict == "warn":
            rows.append(f"  {'':12s}   that is: {line.means}")
    gradient = f"{audit.gradient}, first layer {layer}" if layer else audit.gradient
    lines = [f"{subject.name}: audit of the gradient {gradient}", *rows, audit.summary]
    return "\n".join(wrapped(line, " " * 15) for line in lines)


def describe(attack: "AnyAttack") -> dict[str, Any]:
    """Return an attack's parameters as JSON; of one that is not ours, what JSON cannot say as text."""
    fields: Any = dataclasses.fields(attack) if dataclasses.is_dataclass(attack) else ()
    values = {field.name: _as_json(getattr(attack, field.name)) for field in fields if field.repr}
    return {"name": attack.name, **values}


def _as_json(value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return repr(value)
    return value
