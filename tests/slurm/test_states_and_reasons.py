"""The tables: every state and every pending reason of Slurm."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_slurm_components.slurm.reasons import explain
from dagster_slurm_components.slurm.states import STATES, Phase, state
from dagster_slurm_components.spec.retry import Retry

# All words of job_state_string() and job_state_string_compact(), 20.11 to 25.11.
COMPACT = {
    "BF": "BOOT_FAIL",
    "CA": "CANCELLED",
    "CD": "COMPLETED",
    "CF": "CONFIGURING",
    "CG": "COMPLETING",
    "DL": "DEADLINE",
    "F": "FAILED",
    "NF": "NODE_FAIL",
    "OOM": "OUT_OF_MEMORY",
    "PD": "PENDING",
    "PR": "PREEMPTED",
    "R": "RUNNING",
    "RD": "RESV_DEL_HOLD",
    "RF": "REQUEUE_FED",
    "RH": "REQUEUE_HOLD",
    "RQ": "REQUEUED",
    "RS": "RESIZING",
    "RV": "REVOKED",
    "S": "SUSPENDED",
    "SE": "SPECIAL_EXIT",
    "SI": "SIGNALING",
    "SO": "STAGE_OUT",
    "ST": "STOPPED",
    "TO": "TIMEOUT",
}
WITHOUT_CODE = {"LAUNCH_FAILED", "RECONFIG_FAIL", "POWER_UP_NODE", "GETENV_FAILED", "EXPEDITING", "UPDATE_DB"}


def test_the_table_is_complete() -> None:
    assert set(STATES) == set(COMPACT.values()) | WITHOUT_CODE


@pytest.mark.parametrize(("code", "name"), COMPACT.items())
def test_compact_codes(code: str, name: str) -> None:
    assert state(code) is STATES[name]
    assert state(name) is STATES[name]
    assert state(name.lower()) is STATES[name]


@pytest.mark.parametrize("row", STATES.values(), ids=STATES)
def test_each_row_makes_sense(row) -> None:
    assert row.known
    assert row.explanation.endswith(".")
    assert row.phase is Phase.TERMINAL or not (row.retryable or row.kind or row.options)
    if row.phase is Phase.TERMINAL and row.name not in ("COMPLETED", "CANCELLED"):
        assert row.advice


def test_the_ends_that_a_retry_policy_answers() -> None:
    assert {row.kind for row in STATES.values() if row.kind} | {"lost"} == set(Retry.model_fields)


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("CANCELLED by 1000", "CANCELLED"),
        ("CANCELLED+", "CANCELLED"),
        ("OUT_OF_ME+", "OUT_OF_MEMORY"),
        ("NODE_F+", "NODE_FAIL"),
        ("COMPLETED+", "COMPLETED"),
        ("COMPLETIN+", "COMPLETING"),
        (" RUNNING ", "RUNNING"),
    ],
)
def test_words_as_sacct_writes_them(word: str, name: str) -> None:
    assert state(word) is STATES[name]


@pytest.mark.parametrize(
    "word", ["COMPLET+", "COMP+", "C+", "+", "RE+", "S+", "?", "FOO", "", "COMPLETED,COMPLETING"]
)
def test_doubtful_words_are_never_terminal(word: str) -> None:
    row = state(word)
    assert row.phase is not Phase.TERMINAL
    assert not row.known
    assert "unknown" in row.explanation


@given(st.text())
def test_no_word_breaks_the_table(word: str) -> None:
    assert state(word).explanation


@pytest.mark.parametrize(
    ("reason", "permanence", "option"),
    [
        ("Priority", "wait", None),
        ("Resources", "wait", None),
        ("Licenses", "wait", "licenses"),
        ("PartitionTimeLimit", "never", "time"),
        ("PartitionNodeLimit", "held", "nodes"),
        ("PartitionConfig", "held", "partition"),
        ("PartitionDown", "held", "partition"),
        ("BadConstraints", "never", "constraint"),
        ("DependencyNeverSatisfied", "never", "dependency"),
        ("InvalidAccount", "never", "account"),
        ("InvalidQOS", "never", "qos"),
        ("JobHeldUser", "held", None),
        ("JobHeldAdmin", "held", None),
        ("QOSMaxJobsPerUserLimit", "wait", "qos"),
        ("AssocMaxJobsLimit", "wait", "account"),
        ("AssocGrpCPUMinutesLimit", "wait", "account"),
        ("AssocGrpGRES", "wait", "gres"),
        ("QOSMaxWallDurationPerJobLimit", "never", "time"),
        ("QOSMaxCpuPerJobLimit", "never", "ntasks"),
        ("QOSMaxCpuMinutesPerJobLimit", "never", "time"),
        ("QOSMaxNodePerUserLimit", "wait", "nodes"),
        ("QOSMaxMemoryPerNode", "never", "mem"),
        ("QOSMinGRES", "never", "gres"),
        ("MaxCpuPerAccount", "wait", "ntasks"),
        ("MaxGRESRunMinsPerUser", "wait", "gres"),
        # as they are really printed
        ("ReqNodeNotAvail, UnavailableNodes:node1", "wait", None),
        ("(ReqNodeNotAvail, May be reserved for other job)", "wait", None),
        ("ReqNodeNotAvail(Unavailable:node[1-3])", "wait", None),
        ("launch failed requeued held", "held", None),
        ("launch_failed_requeued_held", "held", None),
        ("user env retrieval failed requeued held", "held", None),
        (
            "Nodes_required_for_job_are_DOWN,_DRAINED_or_reserved_for_jobs_in_higher_priority_partitions",
            "wait",
            None,
        ),
        (
            "Job's account not permitted to use this partition (closed allows nobody not lab)",
            "never",
            "account",
        ),
        ("Job's QOS not permitted to use this partition (gpu allows long not normal)", "never", "qos"),
        ("Job is at or exceeds QOS gpu's group wall limit of 10 with 20", "wait", "qos"),
    ],
)
def test_reasons(reason: str, permanence: str, option: str | None) -> None:
    found = explain(reason)
    assert (found.permanence, found.option, found.known) == (permanence, option, True)


@pytest.mark.parametrize(
    ("reason", "budget"),
    [
        ("AssocGrpCPUMinutesLimit", True),
        ("AssocGrpGRESMinutes", True),
        ("AssocGrpBillingMinutes", True),
        ("AssocGrpCPURunMinutesLimit", False),
        ("AssocGrpCpuLimit", False),
        ("AssocMaxCpuMinutesPerJobLimit", False),
        ("QOSGrpCPUMinutesLimit", False),
        ("Priority", False),
    ],
)
def test_which_reasons_are_an_accounts_budget(reason: str, budget: bool) -> None:
    found = explain(reason)
    assert (found.budget, found.known) == (budget, True)


def test_details_are_kept() -> None:
    assert "UnavailableNodes:node[1-3]" in explain("ReqNodeNotAvail, UnavailableNodes:node[1-3]").text
    assert (
        "(closed allows nobody not lab)"
        in explain("Job's account not permitted to use this partition (closed allows nobody not lab)").text
    )


@pytest.mark.parametrize("whose", ["Assoc", "QOS"])
@pytest.mark.parametrize("what", ["BB", "Billing", "CPU", "Energy", "GRES", "License", "Node"])
@pytest.mark.parametrize("how", ["", "Minutes", "RunMinutes", "PerJob", "PerNode", "PerUser"])
def test_limits_follow_a_scheme(whose: str, what: str, how: str) -> None:
    reason = explain(f"{whose}{'Max' if how.startswith('Per') else 'Grp'}{what}{how}")
    assert reason.known
    assert {"Assoc": "account", "QOS": "QOS"}[whose] in reason.text
    assert reason.permanence == ("never" if how in ("PerJob", "PerNode") else "wait")


@pytest.mark.parametrize(
    "text", ["WaitingForGodot, act 2", "Resources are being moved", "None of your business"]
)
def test_unknown_reasons_pass_through(text: str) -> None:
    reason = explain(text)
    assert (reason.name, reason.permanence, reason.known) == (text, "wait", False)
    assert text in reason.text


@given(st.text())
def test_no_text_breaks_the_reasons(text: str) -> None:
    assert explain(text).text
