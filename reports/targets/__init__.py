"""The figures and tables of the paper as declarations; nothing here imports torch, pandas or matplotlib."""

from reports.targets.catalogue import TARGETS
from reports.targets.profile import PROFILES, Profile
from reports.targets.target import Drawn, Source, Target

__all__ = ["PROFILES", "TARGETS", "Drawn", "Profile", "Source", "Target"]
