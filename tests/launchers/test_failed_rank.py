"""The rank that failed first, as the step's error names it."""

from __future__ import annotations

import pytest

from dagster_slurm_components.jobs.outcome import _payload_failed
from dagster_slurm_components.jobs.status import parse_status


@pytest.mark.parametrize(
    ("noted", "message"),
    [
        ("3 node2 7", "Rank 3 on node2 ended with exit code 7, which ended the job."),
        ("agent node2 7", "torchrun's agent on node2 ended with exit code 7, which ended the job."),
        ("head node1 7", "Ray's head on node1 ended with exit code 7, which ended the job."),
        ("worker node1 7", "Ray's worker on node1 ended with exit code 7, which ended the job."),
        ("garbage", "The payload ended with exit code 7 on node1."),
        ("", "The payload ended with exit code 7 on node1."),
    ],
)
def test_the_rank_that_failed_is_named(noted: str, message: str):
    status = parse_status(f"restart=0\nhost=node1\nphase=payload\nfailed_rank={noted}\nexit=7\n".encode())
    assert _payload_failed(7, status).message == message
