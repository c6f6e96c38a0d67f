"""From an ssh host's spec to what dials it."""

from __future__ import annotations

from dagster_slurm_components.hosts.answers import Answers
from dagster_slurm_components.hosts.channel import Dialer
from dagster_slurm_components.spec.hosts import SshHost


def ssh_dialer(spec: SshHost, answers: Answers, *, patient: bool = False) -> Dialer:
    """Return what reaches the host from this very process.

    Args:
        spec: The host.
        answers: What is known of the login's secrets.
        patient: Leave all pauses between attempts to the caller; else a host that drops newcomers is tried
            again within seconds.
    """
    if spec.dialer == "ssh":
        from dagster_slurm_components.hosts.ssh_program import SshProgramDialer  # noqa: PLC0415

        return SshProgramDialer(spec)
    from dagster_slurm_components.hosts.ssh import PAUSES, SshDialer  # noqa: PLC0415 - paramiko on use only

    return SshDialer(spec, answers, pauses=() if patient else PAUSES)
