import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from satellite_fixture import HOSTILE, bundle
from subprocess_dialer import SubprocessDialer
from waiting import PATIENCE

from dagster_slurm_components.errors import SatelliteError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.hosts.remote import RemoteHost
from dagster_slurm_components.hosts.satellite import processes, queries
from dagster_slurm_components.hosts.satellite.calls import Process, QueueQuery, SubmitRequest
from dagster_slurm_components.hosts.satellite.commands import OUTPUT_CAP
from dagster_slurm_components.hosts.satellite.locks import acquire
from dagster_slurm_components.hosts.satellite.processes import identify
from dagster_slurm_components.hosts.satellite.protocol import native


def gone(pid: int) -> bool:
    """Return whether a process ends within a moment."""
    for _ in range(3000):
        if not identify([pid]):
            return True
        time.sleep(0.02)
    return False


def test_arguments_input_and_output_arrive_byte_for_byte(satellite):
    data = bytes(range(256)) * 5000
    assert satellite.run(["cat"], input=data).stdout == data
    done = satellite.run(["printf", "%s\\0", *HOSTILE])
    assert done.stdout == b"".join(native(word) + b"\0" for word in HOSTILE)
    assert (done.returncode, done.timed_out, done.truncated) == (0, False, False)


def test_the_exit_status_and_both_outputs_are_told(satellite, tmp_path):
    done = satellite.run(
        ["sh", "-c", "pwd; echo err >&2; echo $WORD; umask; exit 3"], cwd=str(tmp_path), env={"WORD": "x y"}
    )
    assert done.returncode == 3
    assert done.stdout.decode().split("\n") == [str(tmp_path), "x y", "0077", ""]
    assert done.stderr == b"err\n"


def test_a_command_that_reads_no_input_is_no_error(satellite):
    assert satellite.run(["true"], input=b"x" * 1_000_000).returncode == 0


def test_user_options_of_slurm_do_not_reach_commands(monkeypatch):
    dropped = [
        "SBATCH_PARTITION",
        "SLURM_JOB_ID",
        "SQUEUE_FORMAT",
        "SACCT_FORMAT",
        "SCANCEL_USER",
        "SALLOC_X",
        "SRUN_Y",
    ]
    for name in dropped:
        monkeypatch.setenv(name, "x")
    for name, value in {
        "SLURM_CONF": "/etc/slurm/slurm.conf",
        "TZ": "Asia/Tokyo",
        "LC_ALL": "de_DE.UTF-8",
    }.items():
        monkeypatch.setenv(name, value)
    for host in (InProcessHost(), RemoteHost(SubprocessDialer())):
        lines = Satellite(host).run(["env"]).stdout.decode().splitlines()
        host.close()
        names = {line.partition("=")[0] for line in lines}
        assert not names & set(dropped)
        assert {
            "SLURM_CONF=/etc/slurm/slurm.conf",
            "TZ=Asia/Tokyo",
            "LC_ALL=C",
            "SLURM_TIME_FORMAT=%s",
        } <= set(lines)
    assert os.environ["LC_ALL"] == "de_DE.UTF-8"


def test_the_timeout_kills_the_whole_group(satellite, tmp_path):
    started = time.monotonic()
    done = satellite.run(
        ["sh", "-c", "echo early; sleep 3600 & echo $! >child; wait"], cwd=str(tmp_path), timeout=3.0
    )
    assert time.monotonic() - started < PATIENCE
    assert done.timed_out
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == b"early\n"
    assert gone(int((tmp_path / "child").read_text()))


def test_a_daemon_that_holds_the_output_open_does_not_hold_the_answer(satellite, tmp_path):
    started = time.monotonic()
    done = satellite.run(
        ["sh", "-c", "sleep 3600 & echo $! >child; echo done"], cwd=str(tmp_path), timeout=PATIENCE
    )
    assert (done.stdout, done.returncode, done.timed_out) == (b"done\n", 0, False)
    assert time.monotonic() - started < PATIENCE
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_endless_output_is_cut(satellite):
    done = satellite.run(["head", "-c", str(OUTPUT_CAP + 1000), "/dev/zero"])
    assert done.truncated
    assert len(done.stdout) == OUTPUT_CAP


@pytest.mark.parametrize(
    "argv", [["no-such-program-anywhere", "x"], ["/no/such/program"], ["/etc/passwd"], ["/"]]
)
def test_a_missing_program_is_named(satellite, argv):
    with pytest.raises(SatelliteError, match=argv[0]) as caught:
        satellite.run(argv)
    assert caught.value.code == "no_such_program"


def test_programs_are_found_on_the_login_shells_path(tmp_path):
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "only-at-login"
    program.write_text('#!/bin/sh\necho "$SLURM_CONF"\n')
    program.chmod(0o755)
    profile = f"""
        echo "a banner"
        export PATH="$PATH:{tmp_path}/bin" SLURM_CONF=/opt/slurm.conf
        echo asked >>"$HOME/asked"
    """
    (tmp_path / ".bash_profile").write_text(profile)
    host = RemoteHost(SubprocessDialer(env={**os.environ, "HOME": str(tmp_path)}))
    try:
        for _ in range(2):
            assert Satellite(host).run(["only-at-login"]).stdout == b"/opt/slurm.conf\n"
        assert (tmp_path / "asked").read_text() == "asked\n", "the login shell is asked once"
        with pytest.raises(SatelliteError, match="only-at-login-too"):
            Satellite(host).run(["only-at-login-too"])
    finally:
        host.close()


def test_a_login_shell_that_gave_no_answer_is_asked_again(tmp_path):
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "only-at-login"
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    profile = f'mkdir "$HOME/busy" 2>/dev/null && exit 1\nexport PATH="$PATH:{tmp_path}/bin"\n'
    (tmp_path / ".bash_profile").write_text(profile)
    host = RemoteHost(SubprocessDialer(env={**os.environ, "HOME": str(tmp_path)}))
    try:
        with pytest.raises(SatelliteError, match="only-at-login"):
            Satellite(host).run(["only-at-login"])
        assert Satellite(host).run(["only-at-login"]).stdout == b"found\n"
    finally:
        host.close()


def test_hello_tells_only_the_asked_variables(monkeypatch, local):
    monkeypatch.setenv("ASKED", "1")
    before = time.time()
    facts = local.hello(["ASKED", "NOT_SET"])
    assert facts.environment == {"ASKED": "1"}
    assert before - 1 <= facts.time <= time.time() + 1


class TestSnapshot:
    @pytest.fixture
    def query(self, tmp_path):
        script = tmp_path / "query"
        script.write_text('#!/bin/sh\necho asked >>"$1"\necho answer\necho trouble >&2\nexit "${2:-0}"\n')
        script.chmod(0o755)
        return [str(script), str(tmp_path / "log")]

    def asked(self, query) -> int:
        return len(Path(query[1]).read_text().splitlines())

    def test_a_young_answer_is_shared_and_an_old_one_is_not(self, satellite, query, tmp_path):
        path = str(tmp_path / "queue" / "snapshot")
        first = satellite.snapshot(QueueQuery(path, query, max_age=60))
        second = satellite.snapshot(QueueQuery(path, query, max_age=60))
        assert (first.stdout, first.stderr, first.returncode, first.fresh) == (
            "answer\n",
            "trouble\n",
            0,
            True,
        )
        assert (second.stdout, second.asked, second.fresh) == ("answer\n", first.asked, False)
        assert satellite.snapshot(QueueQuery(path, query, max_age=0)).fresh
        assert self.asked(query) == 2
        assert os.stat(path).st_mode & 0o777 == 0o600

    def test_failures_are_shared_too(self, satellite, query, tmp_path):
        query = [*query, "9"]
        snapshots = [
            satellite.snapshot(QueueQuery(str(tmp_path / "snapshot"), query, max_age=60)) for _ in range(3)
        ]
        assert [shot.returncode for shot in snapshots] == [9, 9, 9]
        assert self.asked(query) == 1

    def test_another_querys_answer_is_none(self, satellite, query, tmp_path):
        satellite.snapshot(QueueQuery(str(tmp_path / "snapshot"), query, max_age=60))
        assert satellite.snapshot(QueueQuery(str(tmp_path / "snapshot"), [*query, "0"], max_age=60)).fresh

    @pytest.mark.parametrize("shift", [-3600, 3600])
    def test_an_answer_of_another_time_is_none_when_the_clock_was_set(self, local, query, tmp_path, shift):
        path = tmp_path / "snapshot"
        local.snapshot(QueueQuery(str(path), query, max_age=60))
        stored = json.loads(path.read_text())
        path.write_text(json.dumps({**stored, "asked": stored["asked"] + shift}))
        assert local.snapshot(QueueQuery(str(path), query, max_age=60)).fresh

    def test_a_hanging_query_is_ended_and_its_end_is_shared(self, satellite, tmp_path):
        path = str(tmp_path / "snapshot")
        shot = satellite.snapshot(QueueQuery(path, ["sleep", "300"], max_age=60, query_timeout=0.3))
        assert shot.timed_out
        assert shot.returncode != 0
        assert not satellite.snapshot(QueueQuery(path, ["sleep", "300"], max_age=60, query_timeout=0.3)).fresh

    def test_many_processes_ask_once(self, tmp_path):
        script = tmp_path / "slow"
        script.write_text(f'#!/bin/sh\necho asked >>"{tmp_path}/log"\nsleep 0.5\necho answer\n')
        script.chmod(0o755)
        hosts = [
            InProcessHost(),
            InProcessHost(),
            RemoteHost(SubprocessDialer()),
            RemoteHost(SubprocessDialer()),
        ]
        for host in hosts:
            host.call("ping", {})
        with ThreadPoolExecutor(len(hosts)) as pool:
            shots = pool.map(
                lambda host: Satellite(host).snapshot(
                    QueueQuery(str(tmp_path / "shot"), [str(script)], max_age=60)
                ),
                hosts,
            )
            assert [shot.stdout for shot in shots] == ["answer\n"] * 4
        for host in hosts:
            host.close()
        assert (tmp_path / "log").read_text() == "asked\n"

    def test_who_waits_in_vain_for_another_query_is_told(self, local, query, tmp_path):
        path = tmp_path / "snapshot"
        release = acquire(os.fsencode(path) + b".lock")
        assert release is not None
        with pytest.raises(SatelliteError) as caught:
            local.snapshot(QueueQuery(str(path), query, max_age=60, query_timeout=0.2))
        assert caught.value.code == "locked"
        release()
        assert local.snapshot(QueueQuery(str(path), query, max_age=60)).fresh

    def test_a_cut_answer_is_an_error_as_missing_rows_would_lie(self, local, tmp_path, monkeypatch):
        monkeypatch.setattr(queries, "SNAPSHOT_CAP", 100)
        with pytest.raises(SatelliteError) as caught:
            local.snapshot(
                QueueQuery(str(tmp_path / "snapshot"), ["head", "-c", "200", "/dev/zero"], max_age=60)
            )
        assert caught.value.code == "output_too_long"


def start(local, workdir, script: str, number: int = 1):
    run_dir = f"{workdir}/runs/{number}"
    argv = ("/bin/bash", "job.sh", run_dir)
    request = SubmitRequest(
        run_dir=run_dir, workdir=str(workdir), token=f"t{number}", mode="process", argv=argv
    )
    reply = local.submit(request, bundle({"job.sh": script}))
    assert reply.outcome == "submitted"
    return Process.parse(reply.job_id)


def until(condition) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen in a minute")


class TestProcesses:
    def test_a_job_runs_detached_and_leaves_no_zombie(self, local, tmp_path):
        process = start(
            local,
            tmp_path,
            'echo out; echo err >&2; ps -o sid= -p $$ >sid; read x || echo "no input"; exit 3',
        )
        until(lambda: not local.alive([process])[0])
        until(lambda: not os.path.exists(f"/proc/{process.pid}"))
        run_dir = tmp_path / "runs" / "1"
        assert (run_dir / "stdout.log").read_text() == "out\nno input\n"
        assert (run_dir / "stderr.log").read_text() == "err\n"
        assert int((run_dir / "sid").read_text()) == process.pid, "it leads its own session"

    def test_a_job_outlives_the_satellite(self, tmp_path, local):
        dialer = SubprocessDialer()
        host = RemoteHost(dialer)
        process = start(Satellite(host), tmp_path, "sleep 300")
        host.close()
        assert local.alive([process]) == [True]
        assert local.kill(process, "KILL")
        until(lambda: not local.alive([process])[0])
        assert not local.kill(process), "it is gone"

    def test_a_job_inherits_the_login_alone(self, local, tmp_path, monkeypatch):
        dropped = ["SLURM_JOB_ID", "SLURM_CONF", "SBATCH_ACCOUNT", "SLURM_JWT", "AWS_SECRET_ACCESS_KEY"]
        dropped += [
            "PYTHONPATH",
            "VIRTUAL_ENV",
            "CONDA_PREFIX",
            "UV_INDEX_URL",
            "PIXI_PROJECT_ROOT",
            "TMPDIR",
        ]
        dropped += ["DAGSTER_HOME", "OMP_NUM_THREADS", "LOADEDMODULES"]
        for name in dropped:
            monkeypatch.setenv(name, "x")
        monkeypatch.setenv("LC_ALL", "C.UTF-8")
        process = start(local, tmp_path, "env")
        until(lambda: not local.alive([process])[0])
        lines = (tmp_path / "runs" / "1" / "stdout.log").read_text().splitlines()
        assert "LC_ALL=C.UTF-8" in lines
        assert not {line.partition("=")[0] for line in lines} & set(dropped)

    def test_signals_reach_the_group_and_kill_the_whole_session(self, local, tmp_path):
        # As job.sh does: the payload in a group of its own, TERM noted and not passed on.
        script = """
            set -m
            sleep 300 & echo $! >child
            trap 'echo term >>got' TERM
            touch ready
            while :; do sleep 0.05; done
        """
        process = start(local, tmp_path, script)
        run_dir = tmp_path / "runs" / "1"
        until((run_dir / "ready").exists)
        assert local.kill(process, "TERM")
        until((run_dir / "got").exists)
        child = int((run_dir / "child").read_text())
        assert identify([child])
        assert local.kill(process, "KILL")
        until(lambda: not local.alive([process])[0])
        assert gone(child)

    def test_another_process_with_the_same_number_is_neither_alive_nor_killed(self, local):
        bystander = subprocess.Popen(["sleep", "300"], start_new_session=True)
        try:
            impostor = Process(bystander.pid, "1-00000000")
            assert local.alive([impostor]) == [False]
            assert not local.kill(impostor, "KILL")
            assert bystander.poll() is None
        finally:
            bystander.kill()
            bystander.wait()

    def test_an_unknown_signal_is_an_error(self, local, tmp_path):
        with pytest.raises(SatelliteError, match="no signal 'NOPE'"):
            local.kill(Process(os.getpid(), "x"), "NOPE")

    def test_without_proc_ps_tells_the_same(self, local, tmp_path, monkeypatch):
        monkeypatch.setattr(processes, "_HAS_PROC", False)
        process = start(local, tmp_path, "sleep 300 & echo $! >new; mv new child; wait")
        until((tmp_path / "runs" / "1" / "child").exists)
        child = int((tmp_path / "runs" / "1" / "child").read_text())
        assert "_" in process.start
        assert local.alive([process]) == [True]
        zombie = subprocess.Popen(["true"])
        until(lambda: Path(f"/proc/{zombie.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
        assert identify([zombie.pid]) == {}
        zombie.wait()
        assert local.kill(process, "KILL")
        until(lambda: not local.alive([process])[0])
        assert gone(child)
