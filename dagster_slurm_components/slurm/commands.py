"""The commands and their parsers under one name; see the modules they come from."""

from .accounting import MAX_IDS, AccountingRow, StepRow, parse_sacct, sacct, sacct_by_name
from .control import (
    CancelReply,
    ControlRow,
    is_unknown_job,
    parse_scancel,
    parse_scontrol,
    scancel,
    scontrol_show_job,
)
from .environment import ENVIRONMENT, foreign_variables
from .queue import QueueRow, parse_squeue, squeue, squeue_by_name
from .rejections import AMBIGUOUS, Rejection, classify_rejection
from .replies import query_failure
from .submit import SubmitReply, parse_sbatch, sbatch

__all__ = [
    "AMBIGUOUS",
    "ENVIRONMENT",
    "MAX_IDS",
    "AccountingRow",
    "CancelReply",
    "ControlRow",
    "QueueRow",
    "Rejection",
    "StepRow",
    "SubmitReply",
    "classify_rejection",
    "foreign_variables",
    "is_unknown_job",
    "parse_sacct",
    "parse_sbatch",
    "parse_scancel",
    "parse_scontrol",
    "parse_squeue",
    "query_failure",
    "sacct",
    "sacct_by_name",
    "sbatch",
    "scancel",
    "scontrol_show_job",
    "squeue",
    "squeue_by_name",
]
