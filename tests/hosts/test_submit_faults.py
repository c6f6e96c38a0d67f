import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from satellite_fixture import bundle
from subprocess_dialer import SubprocessDialer
from waiting import PATIENCE

from dagster_slurm_components.errors import HostUnreachableError
from dagster_slurm_components.hosts.bootstrap import SubprocessPipe
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.remote import RemoteHost
from dagster_slurm_components.hosts.satellite.calls import Process, SubmitRequest
from dagster_slurm_components.hosts.satellite.processes import identify
from dagster_slurm_components.hosts.satellite.protocol import encode_frame

DRIVER = Path(__file__).with_name("submit_faults_driver.py")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="waits for orphans with prctl(2), which only Linux has"
)


def drive(mode: str, folder: Path, step: int) -> dict:
    paths = [str(BENCHMARKS), *filter(None, sys.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-W", "ignore", str(DRIVER), mode, str(folder), "1", str(step)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@LINUX
@pytest.mark.parametrize("mode", ["command", "process"])
def test_killed_at_any_line_and_tried_again_it_is_one_job(tmp_path, mode):
    summary = drive(mode, tmp_path, 3)
    assert summary["wrong"] == []
    assert summary["lines"] > 150, "the trace must have followed the whole submission"
    expected = {"command": {"submitted", "adopted", "known"}, "process": {"submitted", "known"}}
    assert set(summary["outcomes"]) == expected[mode]


@LINUX
def test_a_lease_whose_change_was_killed_at_any_line_is_changed_once_by_the_next_try(tmp_path):
    summary = drive("change", tmp_path, 1)
    assert summary["wrong"] == []
    assert summary["lines"] > 30, "the trace must have followed the whole change"
    assert set(summary["outcomes"]) == {"changed"}


class Recording(SubprocessDialer):
    """Remembers the satellite's process."""

    pipe: SubprocessPipe

    def dial(self):
        self.pipe = super().dial()
        return self.pipe


def test_a_satellite_killed_while_sbatch_runs_loses_nothing(slurm, workdir):
    slurm.script(
        "sbatch", "touch asked; while [ ! -e go ]; do sleep 0.02; done; echo $$ >>jobs; touch made; echo $$"
    )
    dialer = Recording()
    host = RemoteHost(dialer, clock=iter(range(0, 10**6, 100)).__next__)
    satellite = Satellite(host)
    request = slurm.request(workdir, window=300)
    data = bundle({"job.sh": "x"})
    errors = []

    def first():
        try:
            satellite.submit(request, data)
        except HostUnreachableError as error:
            errors.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    wait_for(slurm.folder / "asked")
    os.kill(dialer.pipe.process.pid, signal.SIGKILL)
    thread.join(PATIENCE)
    assert len(errors) == 1, "the waiting call is woken"
    assert satellite.submit(request, data).outcome == "uncertain", "sbatch may still be at work"
    (slurm.folder / "go").touch()
    wait_for(slurm.folder / "made")
    reply = satellite.submit(request, data)
    host.close()
    assert (reply.outcome, [reply.job_id]) == ("adopted", slurm.jobs())


def test_a_closed_connection_lets_the_submission_finish_its_ledger(slurm, workdir):
    slurm.script("sbatch", "touch asked; while [ ! -e go ]; do sleep 0.02; done; echo $$ >>jobs; echo $$")
    dialer = Recording()
    pipe = dialer.dial()
    request = slurm.request(workdir)
    params = request._asdict()
    pipe.write(encode_frame({"id": 1, "op": "submit", "params": params}, bundle({"job.sh": "x"})))
    wait_for(slurm.folder / "asked")
    dialer.pipe._stdin.close()
    (slurm.folder / "go").touch()
    assert dialer.pipe.process.wait(PATIENCE) == 0
    assert f"job_id={slurm.jobs()[0]}\n" in (Path(request.run_dir) / "ledger").read_text()


def test_a_process_whose_starter_died_before_the_word_never_runs(local, workdir):
    request = SubmitRequest(
        run_dir=f"{workdir}/runs/1",
        workdir=str(workdir),
        token="t",
        mode="process",
        argv=("/bin/sh", "job.sh"),
    )
    data = bundle({"job.sh": "echo ran >>ran; sleep 300"})
    orphan = subprocess.Popen(
        ["sleep", "0.3"]
    )  # stands for the process at its gate, which is about to give up
    mark = identify([orphan.pid])[orphan.pid]
    Path(request.run_dir).mkdir(parents=True)
    (Path(request.run_dir) / "ledger").write_text(f"token=t\nintent=1\njob_id={orphan.pid}:{mark}\n")
    thread = threading.Thread(target=orphan.wait)
    thread.start()
    reply = local.submit(request, data)
    thread.join()
    assert reply.outcome == "submitted"
    assert not str(reply.job_id).startswith(f"{orphan.pid}:")
    wait_for(Path(request.run_dir) / "ran")
    local.kill(Process.parse(str(reply.job_id)), "KILL")


def wait_for(path: Path) -> None:
    for _ in range(6000):
        if path.exists():
            return
        time.sleep(0.01)
    raise AssertionError(f"{path} did not come within a minute")
