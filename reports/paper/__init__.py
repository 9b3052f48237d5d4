"""The figures and tables of the paper as declarations; nothing here imports torch, pandas or matplotlib."""

from reports.paper.catalogue import TARGETS
from reports.paper.profile import PROFILES, Profile
from reports.paper.target import Drawn, Source, Target

__all__ = ["PROFILES", "TARGETS", "Drawn", "Profile", "Source", "Target"]
