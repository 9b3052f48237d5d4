from .angles import Alignment, alignment
from .checkpoint import Checkpoint, DataInfo, load_checkpoint, load_weights, save_checkpoint
from .config import TrainConfig
from .data import SOURCES, Dataset, Normalise, Split, load_dataset, load_split
from .evaluation import evaluate
from .foreign import load_state_dict
from .gradient_angles import GradientAlignment, gradient_alignment
from .loop import Standing, train, train_many
from .models import MODELS, build_model, import_model
from .rules import RULES, Rule, Step, make_rule
from .run_folder import RunFolder
from .store import AnalysisJob, RunStore, TrainJob, execute

__all__ = [
    "MODELS",
    "RULES",
    "SOURCES",
    "Alignment",
    "AnalysisJob",
    "Checkpoint",
    "DataInfo",
    "Dataset",
    "GradientAlignment",
    "Normalise",
    "Rule",
    "RunFolder",
    "RunStore",
    "Split",
    "Standing",
    "Step",
    "TrainConfig",
    "TrainJob",
    "alignment",
    "build_model",
    "evaluate",
    "execute",
    "gradient_alignment",
    "import_model",
    "load_checkpoint",
    "load_dataset",
    "load_split",
    "load_state_dict",
    "load_weights",
    "make_rule",
    "save_checkpoint",
    "train",
    "train_many",
]
