"""Jobs to go into: on a Slurm behind a login of two factors that is made once, and as processes of this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner, Result
from pam_fixture import PASSWORD, Pam, pam_sshd  # noqa: F401
from project_fixture import Project
from sshd_fixture import Sshd, own_home  # noqa: F401
from waiting import eventually

import slurm_testcluster as slurm
from dagster_slurm_components.cli.main import main
from dagster_slurm_components.hosts.agent import client

ROOT = Path(__file__).parents[2]
PAYLOAD = """
    import os, signal, socket, sys, threading
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: print("signal", number, flush=True))
    print("begun", os.environ.get("RANK", ""), flush=True)
    while not os.path.exists(os.environ["GATE"]):
        threading.Event().wait(0.2)
    print("ended", flush=True)
"""


def call(*args: str, status: int = 0) -> Result:
    """Run a command of `dg-slurm` in this process."""
    done = CliRunner().invoke(main, list(args))
    assert done.exit_code == status, done.output + str(done.exception)
    return done


def command(*args: str) -> list[str]:
    """Return the command line of `dg-slurm` in a process of its own."""
    return [sys.executable, "-m", "dagster_slurm_components.cli.main", *args]


@dataclass(frozen=True)
class Place:
    """A project whose jobs run somewhere.

    Attributes:
        profile: Its only profile.
        server: The sshd in between, if there is one.
    """

    project: Project
    profile: str
    instance: dg.DagsterInstance
    server: Sshd | None = None
    submitted: list[str] = field(default_factory=list)

    @property
    def gate(self) -> Path:
        """The file for which payloads wait."""
        return self.project.root / "gate"

    def submit(self, *, key: str = "works", **script: object) -> str:
        """Submit a job whose payload waits for the gate, and leave it; return its id once the payload runs."""
        self.project.write("waits.py", PAYLOAD)
        made = {"payload": "waits.py", "leave": True, "assets": [{"key": key}], **script}
        environment = {"GATE": str(self.gate), **dict(made.pop("env", {}))}  # type: ignore[call-overload]
        self.project.scripts(f"scripts: {json.dumps([{**made, 'env': environment}])}")
        result = self.project.run(self.profile, instance=self.instance)
        assert result.success
        (job,) = self.jobs()
        self.submitted.append(str(job["job_id"]))
        return self.submitted[-1]

    def begun(self, job: str) -> str:
        """Wait until the payload of a job runs; return its id."""
        eventually(lambda: "begun" in call("logs", job).stdout, "the payload runs")
        return job

    def jobs(self) -> list[Mapping[str, object]]:
        """Return the jobs that wait or run."""
        # In a process of its own: a run beside it in this one prints what its payloads do.
        done = subprocess.run(command("jobs", "list", "--json"), stdout=subprocess.PIPE, check=True)
        found: list[Mapping[str, object]] = json.loads(done.stdout)
        return found

    def ended_well(self, job: str) -> None:
        """Open the gate, and see the payload end with all that it had to do."""
        self.gate.touch()
        eventually(
            lambda: json.loads(call("jobs", "show", job, "--json").stdout)["exit_code"] == 0, "its end"
        )
        assert call("logs", job).stdout.splitlines()[-1] == "ended"

    def one_login(self) -> bool:
        """Whether one login has been made, if any is needed."""
        return self.server is None or self.server.logins() == 1

    def close(self) -> None:
        """End what is left."""
        self.gate.touch()
        if self.server is None:
            for job in self.jobs():
                call("jobs", "cancel", str(job["job_id"]))
        else:  # whose connection the test may have cut
            subprocess.run(["scancel", *self.submitted], check=bool(self.submitted))


@pytest.fixture
def far(
    project: Project,
    cluster: slurm.Cluster,
    pam_sshd: Callable[..., tuple[Sshd, Pam]],  # noqa: F811
    agent_folder: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Place]:
    """A Slurm behind a login with a password and a one-time password, which has been made."""
    server, pam = pam_sshd(
        "password otp",
        "AuthenticationMethods keyboard-interactive",
        f"SetEnv SLURM_CONF={cluster.slurm_conf}",
    )
    host = {
        "type": "ssh",
        "hostname": "127.0.0.1",
        "port": server.port,
        "login": ["password", "otp"],
        "known_hosts_file": str(server.known_hosts),
        "reconnect_interval": 0.2,
    }
    profile = {"host": host, "scheduler": "slurm", "workdir": str(project.root / "far work")}
    project.profile("far", json.dumps(profile))
    monkeypatch.setenv("DAGSTER_SLURM_PROFILE", "far")
    monkeypatch.setenv("SLURM_CONF", str(cluster.slurm_conf))  # for the test's own commands
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    client.login(
        server.spec(login=host["login"], key_file=None, user=None),
        lambda prompt: PASSWORD if prompt.kind == "password" else pam.otp(),
    )
    made = Place(project, "far", instance, server)
    yield made
    made.close()


@pytest.fixture
def near(project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """This machine, where jobs are plain processes."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("DAGSTER_SLURM_PROFILE", "local")
    made = Place(project, "local", instance)
    yield made
    made.close()
