"""How a job ended, in words for a person: what happened, with the numbers, and what to change."""

from dataclasses import dataclass

from dagster_slurm_components.jobs.events import Ended
from dagster_slurm_components.jobs.outputs import FAILED, Made, failure_of
from dagster_slurm_components.jobs.reconcile import LOST
from dagster_slurm_components.jobs.status import StatusRecord
from dagster_slurm_components.slurm.outcome import outcome as slurm_outcome
from dagster_slurm_components.slurm.outcome import signal_name
from dagster_slurm_components.slurm.states import Phase, state


@dataclass(frozen=True)
class JobOutcome:
    """How a job ended.

    Attributes:
        success: Whether the payload did its work: exit status 0, whatever it reported.
        options: The resources that could be changed, the likeliest first.
        retryable: Whether the same job may well succeed when it is submitted again, unchanged.
        kind: The end's name in a retry policy, if it has one.
    """

    success: bool
    message: str
    advice: str = ""
    options: tuple[str, ...] = ()
    retryable: bool = False
    kind: str | None = None


_LOST = JobOutcome(
    False,
    "The job left no trace: it is neither running nor in the accounting, and it wrote no exit code.",
    "Was the node rebooted, or the process killed with SIGKILL?",
    retryable=True,
    kind="lost",
)

_EXIT_ADVICE = {
    126: "The payload, or the program of `command`, can't be executed.",
    127: "The program was not found in the environment.",
    137: "Something killed it; most often it used more memory than the node had to give.",
}

_STDERR = "The last lines of its stderr say why."
_RANKS = {"agent": "torchrun's agent", "head": "Ray's head", "worker": "Ray's worker"}


def judge(ended: Ended) -> JobOutcome:
    """Return how a job ended."""
    observation = ended.observation
    if observation.state == "COMPLETED" and not observation.exit_code:
        return JobOutcome(True, "The payload ended with exit code 0.")
    if observation.state == LOST:
        return _LOST
    row = state(observation.state)
    accounting = ended.evidence.accounting
    if accounting is not None:
        by_accounting = slurm_outcome(accounting, ended.evidence.words)
        # An accounting that lags behind says less than what ended the watching.
        row = by_accounting if by_accounting.phase is Phase.TERMINAL else row
    if row.name in ("FAILED", "COMPLETED") and observation.exit_code:
        return _payload_failed(observation.exit_code, ended.evidence.status, ended.made)
    return JobOutcome(False, row.explanation, row.advice, row.options, row.retryable, row.kind or None)


def end_word(ended: Ended) -> str:
    """Return the word for a job's end in its lease. A payload may fail where Slurm sees none: its exit code tells."""
    word = ended.observation.state
    return "FAILED" if word == "COMPLETED" and not judge(ended).success else word


def _payload_failed(code: int, status: StatusRecord | None, made: tuple[Made, ...] = ()) -> JobOutcome:
    status = status or StatusRecord()
    where = f" on {status.host}" if status.host else ""
    if status.phase == "environment":
        return JobOutcome(False, f"The environment could not be activated{where} (exit code {code}).")
    if status.phase == "staging":
        message = f"What the payload works on could not be copied to the node{where} (exit code {code})."
        return JobOutcome(False, message, _STDERR)
    lost = " Not all that it made could be copied back." if status.get("staged") == FAILED else ""
    if lost and code == 93:
        return JobOutcome(False, f"The payload ended well{where}.{lost}", _STDERR)
    if status.get("outputs") == FAILED and code == 94:
        message = f"The payload ended well{where}, but not all of its outputs are there."
        return JobOutcome(False, message, failure_of(made))
    # A shell reports death by a signal as 128 plus its number.
    name = signal_name(code - 128)
    ended = f"ended with exit code {code}{f' (signal {name})' if name else ''}"
    message = f"The payload {ended}{where}.{lost}"
    # A launcher of several processes noted who failed first: `WHO NODE CODE`.
    words = (status.get("failed_rank") or "").split(" ")
    if len(words) == 3:
        rank = _RANKS.get(words[0], f"Rank {words[0]}")
        message = f"{rank} on {words[1]} {ended}, which ended the job.{lost}"
    return JobOutcome(False, message, _EXIT_ADVICE.get(code, ""))
