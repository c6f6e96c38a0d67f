"""Whole steps whose login node goes away: at the start, while they submit, while they run. None fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from fault_proxy import FaultProxy
from project_fixture import Project, failure_text
from sshd_fixture import Sshd
from waiting import PATIENCE

from dagster_slurm_components.errors import HostUnreachableError, ParkedTooLongError
from dagster_slurm_components.hosts import ssh
from dagster_slurm_components.hosts.parked import Parking
from dagster_slurm_components.jobs.target import target
from dagster_slurm_components.spec.profile import Profile
from dagster_slurm_components.spec.profiles import LoadedProfile

pytestmark = pytest.mark.ssh


@pytest.fixture
def sshd(sshd_factory: Callable[..., Sshd], tmp_path: Path) -> Sshd:
    """An sshd whose sessions know where to write."""
    return sshd_factory(f"SetEnv TEST_SCRATCH={tmp_path}")


@pytest.fixture
def proxy(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    # A process without an agent tries a few times within seconds; here each refusal is told at once.
    monkeypatch.setattr(ssh, "PAUSES", ())
    made = FaultProxy(sshd.port)
    key = sshd.host_key.with_suffix(".pub").read_text()
    sshd.known_hosts.write_text(f"[127.0.0.1]:{made.port} {key}")
    yield made
    made.close()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def loaded(sshd: Sshd, proxy: FaultProxy, folder: Path, workdir: str) -> LoadedProfile:
    host = sshd.spec(port=proxy.port, reconnect_interval=0.2, agent=False)
    return LoadedProfile("far", Profile(host=host, workdir=workdir), (), folder)


def test_f02_a_target_whose_workdir_has_to_be_asked_for_waits_for_its_host(
    sshd: Sshd, proxy: FaultProxy, tmp_path: Path
) -> None:
    profile = loaded(sshd, proxy, tmp_path, "$TEST_SCRATCH/jobs")
    proxy.refuse = True
    with pytest.raises(HostUnreachableError):
        target(profile)
    told: list[str] = []

    def sleep(seconds: float) -> None:
        proxy.refuse = len(told) == 0
        time.sleep(min(seconds, 0.2))

    place = target(profile, Parking(60, told.append, sleep=sleep))
    assert place.workdir == f"{tmp_path}/jobs"
    assert "This step waits" in told[0]
    assert "answers again" in told[-1]
    place.direct.satellite.host.close()


def test_f02_after_park_timeout_a_step_ends(sshd: Sshd, proxy: FaultProxy, tmp_path: Path) -> None:
    profile = loaded(sshd, proxy, tmp_path, "~/jobs")
    proxy.refuse = True
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    parking = Parking(1800, lambda text: None, sleep=sleep, clock=lambda: now[0])
    with pytest.raises(ParkedTooLongError, match=r"0\.5 h"):
        target(profile, parking)


def test_f02_a_step_waits_wherever_it_is_when_its_host_goes_away(
    sshd: Sshd, proxy: FaultProxy, project: Project, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    host = sshd.spec(type="ssh", port=proxy.port, reconnect_interval=0.2, agent=False)
    begun, done = tmp_path / "begun", tmp_path / "done"
    project.profile(
        "far",
        f"host: {host.model_dump_json(exclude_unset=True, exclude_none=True)}\n"
        'workdir: "${TEST_SCRATCH}/jobs"\n',
    )
    project.scripts(
        f"""
        scripts:
          - command: ["sh", "-c", "echo x >>'{begun}'; until [ -e '{done}' ]; do sleep 0.1; done; echo finished"]
            assets: [{{key: far}}]
        """
    )

    def weather() -> None:
        # Refused before the first call; cut at several moments around the submission; gone while the job runs.
        until(lambda: proxy.accepted > 1)
        proxy.refuse = False
        for moment in (0.2, 0.6, 1.2):
            before = proxy.accepted
            until(lambda before=before: proxy.accepted > before or begun.exists())
            time.sleep(moment)
            proxy.cut()
        until(begun.exists)
        proxy.refuse = True
        proxy.cut()
        before = proxy.accepted
        until(lambda: proxy.accepted > before)
        done.touch()
        time.sleep(0.5)
        proxy.refuse = False

    proxy.refuse = True
    thread = threading.Thread(target=weather, daemon=True)
    thread.start()
    result = project.run("far", instance=instance)
    thread.join(PATIENCE)
    assert result.success, failure_text(result)
    assert begun.read_text() == "x\n", "one job"
    logged = "\n".join(record.user_message for record in instance.all_logs(result.run_id))
    assert "This step waits for the host" in logged
    assert "The job goes on; this step waits for the host." in logged
    assert "answers again" in logged
