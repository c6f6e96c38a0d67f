"""sbatch: the command, and why it refuses; the messages are a real Slurm 22.05's unless noted."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.slurm.commands import sbatch
from dagster_slurm_components.slurm.rejections import classify_rejection
from dagster_slurm_components.slurm.replies import AMBIGUOUS

FAILED = "sbatch: error: Batch job submission failed: "
UNAVAILABLE = FAILED + "Requested node configuration is not available\n"
POLICY = FAILED + "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)\n"


def test_the_command() -> None:
    assert sbatch("/w/job.sh", ["/w"]) == ["sbatch", "--parsable", "/w/job.sh", "/w"]
    with pytest.raises(DagsterSlurmError, match="not absolute"):
        sbatch("-job.sh")


@pytest.mark.parametrize(
    "err",
    [
        FAILED + "Socket timed out on send/recv operation\n",
        FAILED + "Unable to contact slurm controller (connect failure)\n",
        FAILED + "Zero Bytes were transmitted or received\n",
        FAILED + "Unexpected message received\n",
        FAILED + "Slurm backup controller in standby mode\n",
        FAILED + "Rate limit exceeded, please retry momentarily\n",
        FAILED + "Resource temporarily unavailable\n",
        FAILED + "Protocol authentication error\n",
        "sbatch: error: Unable to allocate resources: Zero Bytes were transmitted or received\n",
        FAILED + "Unexpected missing socket error\n",
        FAILED + "Received zero length message\n",
        FAILED + "Received message length < 0\n",
        FAILED + "Failed to send entire message\n",
        FAILED + "Cannot unpack credential\n",
        # of later versions
        FAILED + "Process is shutting down and closing all communications\n",
        FAILED + "Kernel reported delayed socket error after successful write(), client side likely closed\n",
        FAILED + "Unable to process incoming file descriptor\n",
        FAILED + "Unable to query kernel for socket peer credential\n",
        FAILED + "Token Generation failed.\n",
        "sbatch: error: If munged is up, restart with --num-threads=10\n",
        "sbatch: fatal: Could not establish a configuration source\n",
    ],
)
def test_ambiguous(err: str) -> None:
    assert any(re.search(pattern, err, re.IGNORECASE) for pattern in AMBIGUOUS)


@pytest.mark.parametrize(
    ("err", "option"),
    [
        (
            "sbatch: error: invalid partition specified: nope\n"
            + FAILED
            + "Invalid partition name specified\n",
            "partition",
        ),
        (FAILED + "Invalid account or account/partition combination specified\n", "account"),
        (FAILED + "Invalid qos specification\n", "qos"),
        ("sbatch: error: Memory specification can not be satisfied\n" + UNAVAILABLE, "mem"),
        (FAILED + "Invalid feature specification\n", "constraint"),
        (UNAVAILABLE, None),
        ("sbatch: error: Invalid generic resource (gres) specification\n", "gres"),
        (FAILED + "Requested reservation is invalid\n", "reservation"),
        ("sbatch: error: Invalid --time specification\n", "time"),
        (FAILED + "Invalid node name specified\n", "nodelist"),
        (FAILED + "Job dependency problem\n", "dependency"),
        ("sbatch: fatal: --mem, --mem-per-cpu, and --mem-per-gpu are mutually exclusive.\n", "mem"),
        ("sbatch: error: Invalid --mem specification\n", "mem"),
        ('sbatch: error: Invalid numeric value "0" for --ntasks.\n', "ntasks"),
        ('sbatch: error: "x" is not a valid node count\n', "nodes"),
        ("sbatch: unrecognized option '--foo=1'\nTry \"sbatch --help\" for more information\n", "foo"),
        (FAILED + "Invalid job array specification\n", "array"),
        (FAILED + "Invalid license specification\n", "licenses"),
        (
            "Invalid time specification (pos=0): never\nsbatch: error: Invalid --begin specification\n",
            "begin",
        ),
        ("sbatch: error: No cluster 'nope' known by database.\n", "clusters"),
        ("sbatch: error: Invalid --signal specification\n", "signal"),
        (FAILED + "Invalid time-min specification (exceeds job's time or other limits)\n", "time_min"),
        (FAILED + "Job --batch option is invalid or not a subset of --constraints\n", "batch"),
        ("sbatch: error: Invalid --exclusive specification\n", "exclusive"),
        ('sbatch: error: Invalid numeric value "x" for --switches.\n', "switches"),
        (
            "sbatch: error: Failed to validate job spec. --gpus-per-task used without either --gpus or "
            "-n/--ntasks is not allowed.\nsbatch: error: Invalid generic resource (gres) specification\n",
            "gpus_per_task",
        ),
        # texts of slurm_strerror() that this cluster can't be brought to say
        (FAILED + "User's group not permitted to use this partition\n", "partition"),
        (FAILED + "No partition specified or system default partition\n", "partition"),
        (FAILED + "Requested time limit is invalid (missing or exceeds some limit)\n", "time"),
        (FAILED + "Time limit specification required, but not provided\n", "time"),
        (FAILED + "Node count specification invalid\n", "nodes"),
        (FAILED + "More processors requested than permitted\n", "cpus_per_task"),
        (FAILED + "Access denied to requested reservation\n", "reservation"),
        (FAILED + "Invalid wckey specification\n", "wckey"),
        (FAILED + "Partition in DOWN state\n", "partition"),
        (FAILED + "Access/permission denied\n", None),
        (FAILED + "Invalid accounting frequency requested\n", "acctg_freq"),
        (FAILED + "Invalid mcs_label specified\n", "mcs_label"),
        (FAILED + "No eligible clusters for federated job\n", "clusters"),
        (FAILED + "Incompatible versions of client and server code\n", None),
        (FAILED + "Plugin initialization failed\n", None),
        # of later versions
        (FAILED + "Invalid or unknown association\n", "account"),
        (FAILED + "Unable to resolve user ID to user name\n", None),
        (FAILED + "Requested topology configuration is not available\n", None),
    ],
)
def test_permanent_rejections(err: str, option: str | None) -> None:
    rejection = classify_rejection(err)
    assert not any(re.search(pattern, err, re.IGNORECASE) for pattern in AMBIGUOUS)
    assert (rejection.kind, rejection.option) == ("permanent", option)
    assert "sbatch: error" not in rejection.message


@pytest.mark.parametrize(
    ("err", "kind", "option"),
    [
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit\n" + POLICY, "limit", "qos"),
        ("sbatch: error: AssocMaxSubmitJobLimit\n" + POLICY, "limit", "account"),
        ("sbatch: error: AssocGrpSubmitJobsLimit\n" + POLICY, "limit", "account"),
        ("sbatch: error: QOSMaxWallDurationPerJobLimit\n" + POLICY, "permanent", "time"),
        ("sbatch: error: QOSMaxCpuPerJobLimit\n" + POLICY, "permanent", "ntasks"),
        ("sbatch: error: QOSMinGRES\n" + POLICY, "permanent", "gres"),
        (POLICY, "unknown", None),
        (FAILED + "MaxJobCount limit reached\n", "limit", None),
        ("sbatch: error: Slurm job queue full, sleeping and retrying.\n" + FAILED + "x\n", "limit", None),
        (FAILED + "System submissions disabled\n", "limit", None),
        (FAILED + "I/O error writing script/environment to file\n", "limit", None),
        (
            "sbatch: error: spank: x11.so: Plugin file not found\n"
            + FAILED
            + "I/O error writing script/environment to file\n",
            "limit",
            None,
        ),
        ("sbatch: error: QOSGrpGRES\n" + POLICY, "limit", "gres"),
        (FAILED + "No space left on device\n", "limit", None),
        (FAILED + "Required node not available (down, drained or reserved)\n", "limit", None),
        (FAILED + "Unable to connect to database\n", "limit", None),
        (FAILED + "Max powered up nodes reached\n", "limit", None),
        (FAILED + "Unspecified error\n", "unknown", None),
        ("", "unknown", None),
    ],
)
def test_limits(err: str, kind: str, option: str | None) -> None:
    rejection = classify_rejection(err)
    assert (rejection.kind, rejection.option) == (kind, option)


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("I/O error writing script/environment to file", "its disk is full"),
        ("MaxJobCount limit reached", "queue is full"),
        ("System submissions disabled", "has closed the queue"),
        ("Unable to connect to database", "database does not answer"),
        ("Incompatible versions of client and server code", "tell the site"),
        ("Access/permission denied", "Ask the site"),
        ("Invalid account or account/partition combination specified", "sacctmgr show assoc"),
        ("Requested node configuration is not available", "sinfo -Nel"),
        ("Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)", "which"),
    ],
)
def test_what_to_do_is_said_beside_slurms_words(said: str, hint: str) -> None:
    rejection = classify_rejection(FAILED + said + "\n")
    assert rejection.message == said
    assert hint in rejection.hint


@pytest.mark.parametrize(
    ("err", "option", "message"),
    [
        (
            "sbatch: error: lua: You must name an account with -A\n" + FAILED + "Unspecified error\n",
            "account",
            "lua: You must name an account with -A",
        ),
        (
            "sbatch: error: GPU jobs need --gres=gpu:TYPE:N\n" + FAILED + "Unspecified error\n",
            "gres",
            "GPU jobs need --gres=gpu:TYPE:N",
        ),
        (
            "sbatch: error: Your project has ended. Write to the help desk.\n"
            + FAILED
            + "Unspecified error\n",
            None,
            "Your project has ended. Write to the help desk.",
        ),
    ],
)
def test_a_sites_own_words_come_first(err: str, option: str | None, message: str) -> None:
    rejection = classify_rejection(err)
    assert (rejection.kind, rejection.option, rejection.message) == ("permanent", option, message)


@given(st.text())
def test_no_answer_breaks_the_parser(err: str) -> None:
    assert classify_rejection(err).kind in ("permanent", "limit", "unknown")
