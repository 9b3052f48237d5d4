"""Many runs: a store of results by what they depend on, jobs that describe them, sweeps that carry jobs out.

Nothing here imports torch before there is work to do.
"""

from training.store.cluster import execute
from training.store.inventory import Inventory
from training.store.jobs import AnalysisJob, DataFiles, Job, JobFile, TrainJob
from training.store.run_store import Entry, RunStore
from training.store.sweep import Failure, Summary

__all__ = [
    "AnalysisJob",
    "DataFiles",
    "Entry",
    "Failure",
    "Inventory",
    "Job",
    "JobFile",
    "RunStore",
    "Summary",
    "TrainJob",
    "execute",
]
