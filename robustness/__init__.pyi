from .approximations import Approximated
from .attacks import Attack, Batch, GradientAttack, SingleAttack, bim, fgsm, perturb, pgd
from .auto_pgd import ApgdAttack, apgd, apgd_targeted
from .cifar10c import CorruptedFile, CorruptedSet, open_corrupted_set
from .comparison import PairedTest, RankSumTest, holm, mcnemar, rank_sum
from .corruption_accuracy import (
    CorruptionAccuracy,
    evaluate_corruptions,
    mean_corruption_error,
    pixels_to_unit,
    relative_mean_corruption_error,
)
from .corruptions import Corruption, Definition, FrostTextures, cifar_c, load_frost_textures, small_images
from .curves import AttackCurve, attack_curve, worst_case
from .ensembles import Ensemble, auto_attack, strong
from .external import TorchattacksAttack
from .fast_boundary import FabAttack, fab
from .functions import FunctionAttack
from .generate import make_corrupted_set
from .intervals import bootstrap_mean, bootstrap_quantile, paired_bootstrap, wilson
from .masking import Audit, audit
from .radius import Radii, minimal_radii
from .square import SquareAttack
from .symptoms import AuditLine

__all__ = [
    "ApgdAttack",
    "Approximated",
    "Attack",
    "AttackCurve",
    "Audit",
    "AuditLine",
    "Batch",
    "CorruptedFile",
    "CorruptedSet",
    "Corruption",
    "CorruptionAccuracy",
    "Definition",
    "Ensemble",
    "FabAttack",
    "FrostTextures",
    "FunctionAttack",
    "GradientAttack",
    "PairedTest",
    "Radii",
    "RankSumTest",
    "SingleAttack",
    "SquareAttack",
    "TorchattacksAttack",
    "apgd",
    "apgd_targeted",
    "attack_curve",
    "audit",
    "auto_attack",
    "bim",
    "bootstrap_mean",
    "bootstrap_quantile",
    "cifar_c",
    "evaluate_corruptions",
    "fab",
    "fgsm",
    "holm",
    "load_frost_textures",
    "make_corrupted_set",
    "mcnemar",
    "mean_corruption_error",
    "minimal_radii",
    "open_corrupted_set",
    "paired_bootstrap",
    "perturb",
    "pgd",
    "pixels_to_unit",
    "rank_sum",
    "relative_mean_corruption_error",
    "small_images",
    "strong",
    "wilson",
    "worst_case",
]
