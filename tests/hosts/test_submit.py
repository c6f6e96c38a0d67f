import io
import os
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from satellite_fixture import HOSTILE, FakeSlurm, bundle
from subprocess_dialer import SubprocessDialer
from waiting import eventually

from dagster_slurm_components.errors import HostUnreachableError, SatelliteError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.hosts.remote import RemoteHost
from dagster_slurm_components.hosts.satellite import commands, locks, submission
from dagster_slurm_components.hosts.satellite.files import make_folder
from dagster_slurm_components.hosts.satellite.leases import lock_of
from dagster_slurm_components.hosts.satellite.ledger import Ledger
from dagster_slurm_components.hosts.satellite.locks import acquire, locked
from dagster_slurm_components.hosts.satellite.protocol import native
from dagster_slurm_components.hosts.satellite.queries import ids_in
from dagster_slurm_components.hosts.satellite.submission import JOB_ID_LINE

BUNDLE = bundle({"job.sh": "true", "payload/train.py": "pass"}, executable=("job.sh",))


def ledger(request) -> list[str]:
    """Return the ledger's keys."""
    return [line.partition("=")[0] for line in (Path(request.run_dir) / "ledger").read_text().splitlines()]


def write_ledger(request, *lines: str) -> None:
    Path(request.run_dir).mkdir(parents=True, exist_ok=True)
    (Path(request.run_dir) / "ledger").write_text("".join(f"{line}\n" for line in lines))


def test_a_submission_makes_the_run_directory_and_one_job(satellite, slurm, workdir):
    request = slurm.request(workdir)
    reply = satellite.submit(request, BUNDLE)
    assert reply.outcome == "submitted"
    assert slurm.jobs() == [reply.job_id]
    run_dir = Path(request.run_dir)
    modes = {path.name: path.stat().st_mode & 0o777 for path in run_dir.rglob("*")}
    assert modes == {"job.sh": 0o700, "payload": 0o700, "train.py": 0o600, "ledger": 0o600}
    assert run_dir.stat().st_mode & 0o777 == 0o700
    assert workdir.stat().st_mode & 0o777 == 0o700
    assert ledger(request) == ["token", "intent", "job_id", "submitted"]
    assert sorted(os.listdir(run_dir.parent)) == [".lock", "1"]


def test_the_command_runs_in_the_run_directory_with_umask_077(local, slurm, workdir):
    slurm.script("sbatch", 'cd "$HERE"; umask >umask; cat job.sh >seen; echo 7')
    request = slurm.request(workdir)
    assert local.submit(request, BUNDLE).job_id == "7"
    assert (Path(request.run_dir) / "umask").read_text() == "0077\n"
    assert (Path(request.run_dir) / "seen").read_text() == "true"


def test_without_what_it_needs_nothing_is_submitted_but_a_job_that_exists_is_found(satellite, slurm, workdir):
    mark = workdir / "envs" / "it's $(one)" / ".ready"
    request = slurm.request(workdir, needs=[str(mark)])
    refused = satellite.submit(request, BUNDLE)
    assert (refused.outcome, refused.job_id, refused.detail) == ("lacking", None, str(mark))
    assert slurm.jobs() == []
    assert not Path(request.run_dir).exists()
    mark.parent.mkdir(parents=True)
    mark.touch()
    made = satellite.submit(request, BUNDLE)
    assert made.outcome == "submitted"
    mark.unlink()
    assert satellite.submit(request, BUNDLE).job_id == made.job_id
    assert slurm.jobs() == [made.job_id]


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "-rf"])
def test_hostile_names_stand_in_run_directories_and_bundles(satellite, slurm, workdir, name):
    request = slurm.request(workdir, run_dir=f"{workdir}/{name}/1")
    assert satellite.submit(request, bundle({f"payload/{name}/{name}": "content"})).outcome == "submitted"
    found = os.path.join(native(request.run_dir), b"payload", native(name), native(name))
    assert Path(os.fsdecode(found)).read_text() == "content"


def test_the_same_call_again_knows_the_job(satellite, slurm, workdir):
    request = slurm.request(workdir)
    first = satellite.submit(request, BUNDLE)
    slurm.script("squeue", "exit 1")  # not even asked
    replies = [satellite.submit(request, BUNDLE) for _ in range(3)]
    assert [(reply.outcome, reply.job_id) for reply in replies] == [("known", first.job_id)] * 3
    assert len(slurm.jobs()) == 1


@pytest.mark.parametrize(
    "said",
    [
        "99",
        " 99",
        "99 ",
        "99;lab-2.x",
        "Submitted batch job 99",
        "Submitted batch job 99 on cluster lab",
        "site: Submitted batch job 99 ",
        "Welcome to 2 clusters\n7\n42 is the answer\n99\nbye, it is 12:00\n3 on cluster lab\n0",
    ],
)
def test_the_id_is_found_in_every_form_and_among_banners(satellite, slurm, workdir, said):
    slurm.script("sbatch", f"cat <<'.'\n{said}\n.")
    assert satellite.submit(slurm.request(workdir), BUNDLE).job_id == "99"


@pytest.mark.parametrize("said", ["", "0", "welcome", "7 of 9 nodes", "job 7", "-7", "7;", "1.5"])
def test_a_stray_number_is_no_id(local, slurm, workdir, said):
    slurm.script("sbatch", f"echo '{said}'")
    reply = local.submit(slurm.request(workdir), BUNDLE)
    assert (reply.outcome, reply.job_id) == ("uncertain", None)


@given(st.binary())
def test_no_output_breaks_the_rule(output):
    assert all(found[0] in "123456789" and found.isdigit() for found in ids_in(JOB_ID_LINE, output))


def test_a_rejection_is_told_and_may_be_tried_again(satellite, slurm, workdir):
    request = slurm.request(workdir)
    slurm.script("sbatch", "echo 'sbatch: error: invalid partition' >&2; exit 1")
    reply = satellite.submit(request, BUNDLE)
    assert (reply.outcome, reply.job_id, reply.returncode) == ("rejected", None, 1)
    assert "invalid partition" in reply.stderr
    slurm.script("squeue", "exit 1")  # a rejected intent needs no lookup
    slurm.script("sbatch", "echo $$ >>jobs; echo $$")
    again = satellite.submit(request, bundle({"job.sh": "changed"}))
    assert again.outcome == "submitted"
    assert (Path(request.run_dir) / "job.sh").read_text() == "changed"
    assert ledger(request) == ["token", "intent", "rejected", "token", "intent", "job_id", "submitted"]


@pytest.mark.parametrize(
    ("script", "detail"),
    [
        ("echo $$ >>jobs; echo 'Socket timed out on send/recv' >&2; exit 1", "may exist"),
        ("echo $$ >>jobs; echo 'a banner, no id'", "no job id"),
        ("echo $$ >>jobs; echo $$; echo 'wrapper: cannot write the log' >&2; exit 1", "may exist"),
        ("echo $$ >>jobs; kill -KILL $$", "may exist"),
        ("echo $$ >>jobs; sleep 300", "in time"),
    ],
)
def test_an_unclear_end_is_uncertain_and_then_the_job_is_found(satellite, slurm, workdir, script, detail):
    request = slurm.request(workdir)
    slurm.script("sbatch", script)
    hasty = request._replace(command_timeout=3) if detail == "in time" else request
    reply = satellite.submit(hasty, BUNDLE)
    assert reply.outcome == "uncertain"
    assert detail in reply.detail
    again = satellite.submit(request, BUNDLE)
    assert (again.outcome, again.job_id) == ("adopted", slurm.jobs()[0])
    assert satellite.submit(request, BUNDLE).outcome == "known"
    assert len(slurm.jobs()) == 1


def test_a_failed_lookup_proves_nothing(satellite, slurm, workdir):
    request = slurm.request(workdir)
    write_ledger(request, "token=t1", "intent=1")
    slurm.script("squeue", "echo 'slurm_load_jobs error' >&2; exit 1")
    reply = satellite.submit(request, BUNDLE)
    assert (reply.outcome, reply.returncode) == ("uncertain", 1)
    assert "slurm_load_jobs" in reply.stderr
    assert slurm.jobs() == []


def test_one_failed_lookup_of_two_proves_nothing_but_a_found_job_counts(local, slurm, workdir):
    request = slurm.request(workdir, lookups=(("false",), (slurm.squeue,)))
    write_ledger(request, "token=t1", "intent=1")
    assert local.submit(request, BUNDLE).outcome == "uncertain"
    slurm.jobs_file.write_text("41\n42\n")
    reply = local.submit(request, BUNDLE)
    assert (reply.outcome, reply.job_id, list(reply.others)) == ("adopted", "41", ["42"])


def sacct(text: str) -> tuple[str, ...]:
    return ("sh", "-c", f"echo 'sacct: {text}' >&2; exit 1")


DISABLED = "Slurm accounting storage is disabled"


def test_without_accounting_the_queue_decides_within_its_window(local, slurm, workdir):
    lookups = ((slurm.squeue,), sacct(DISABLED))
    request = slurm.request(workdir, lookups=lookups, no_lookup="storage is disabled", window=60)
    write_ledger(request, "token=t1", f"intent={int(time.time()) - 30}")
    waits = local.submit(request, BUNDLE)
    assert (waits.outcome, slurm.jobs()) == ("uncertain", [])
    assert 0 < waits.retry_after <= 31
    write_ledger(request, "token=t1", f"intent={int(time.time()) - 90}")
    assert local.submit(request, BUNDLE).outcome == "submitted"
    assert len(slurm.jobs()) == 1


def test_while_the_accounting_fails_the_queue_decides_after_a_longer_window(local, slurm, workdir):
    lookups = ((slurm.squeue,), sacct("Problem talking to the database"))
    request = slurm.request(workdir, lookups=lookups, no_lookup="storage is disabled", window=60)
    write_ledger(request, "token=t1", f"intent={int(time.time()) - 800}")
    waits = local.submit(request, BUNDLE)
    assert (waits.outcome, waits.detail, slurm.jobs()) == ("uncertain", "sh failed", [])
    assert "talking to the database" in waits.stderr
    assert 0 < waits.retry_after <= 101
    write_ledger(request, "token=t1", "intent=1")
    assert local.submit(request, BUNDLE).outcome == "submitted"
    assert len(slurm.jobs()) == 1


def test_a_job_that_has_begun_says_so_itself(local, slurm, workdir):
    request = slurm.request(workdir, lookups=(("false",), ("false",)))
    write_ledger(request, "token=t1", "intent=1")
    (Path(request.run_dir) / "status").write_text("restart=0\nstarted=1\npid=7\njob_id=4711\nphase=payload\n")
    reply = local.submit(request, BUNDLE)
    assert (reply.outcome, reply.job_id, slurm.jobs()) == ("adopted", "4711", [])
    assert ledger(request) == ["token", "intent", "job_id", "adopted"]


def test_an_array_is_told_by_any_element_that_has_begun(local, slurm, workdir):
    """Without accounts, and with all its tasks over and forgotten by Slurm, it was submitted again."""
    request = slurm.request(
        workdir, lookups=((slurm.squeue,), sacct(DISABLED)), no_lookup="storage is disabled"
    )
    write_ledger(request, "token=t1", "intent=1")
    for number, record in {"0": "", "7": "restart=0\njob_id=4713\narray_job_id=4711\nexit=0\n"}.items():
        (Path(request.run_dir) / "elements" / number).mkdir(parents=True)
        (Path(request.run_dir) / "elements" / number / "status").write_text(record)
    reply = local.submit(request, BUNDLE)
    assert (reply.outcome, reply.job_id, slurm.jobs()) == ("adopted", "4711", [])


def test_a_hanging_lookup_proves_nothing(local, slurm, workdir):
    request = slurm.request(workdir, lookups=(("sleep", "300"),), command_timeout=0.3)
    write_ledger(request, "token=t1", "intent=1")
    assert local.submit(request, BUNDLE).outcome == "uncertain"


def test_a_missing_lookup_program_is_an_error_and_nothing_is_submitted(local, slurm, workdir):
    request = slurm.request(workdir, lookups=(("/no/squeue",),))
    write_ledger(request, "token=t1", "intent=1")
    with pytest.raises(SatelliteError, match="/no/squeue"):
        local.submit(request, BUNDLE)
    assert slurm.jobs() == []


def test_a_young_intent_waits_and_an_old_one_is_submitted_again(satellite, slurm, workdir):
    request = slurm.request(workdir, window=300)
    now = int(time.time())
    write_ledger(request, "token=t1", f"intent={now - 100}")
    reply = satellite.submit(request, BUNDLE)
    assert reply.outcome == "uncertain"
    assert reply.retry_after == pytest.approx(200, abs=5)
    assert slurm.jobs() == []
    write_ledger(request, "token=t1", f"intent={now - 301}")
    assert satellite.submit(request, BUNDLE).outcome == "submitted"


def test_a_clock_set_back_makes_nobody_wait_for_ever(local, slurm, workdir):
    request = slurm.request(workdir, window=300)
    write_ledger(request, "token=t1", f"intent={int(time.time()) + 10**6}")
    reply = local.submit(request, BUNDLE)
    assert reply.outcome == "uncertain"
    assert reply.retry_after == pytest.approx(300, abs=5)
    assert local.submit(request, BUNDLE).retry_after == pytest.approx(300, abs=5)
    assert ledger(request) == ["token", "intent", "intent"]


def test_another_token_is_another_job(local, slurm, workdir):
    local.submit(slurm.request(workdir), BUNDLE)
    with pytest.raises(SatelliteError, match="belongs to t1, not t2") as caught:
        local.submit(slurm.request(workdir, token="t2"), BUNDLE)
    assert caught.value.code == "token_mismatch"


@pytest.mark.parametrize(
    "changes",
    [
        {"lookups": ()},
        {"mode": "other"},
        {"run_dir": "{workdir}"},
        {"run_dir": "{workdir}/../x"},
        {"run_dir": "/etc/x"},
    ],
)
def test_a_wrong_request_submits_nothing(local, slurm, workdir, changes):
    changes = {
        name: value.format(workdir=workdir) if isinstance(value, str) else value
        for name, value in changes.items()
    }
    with pytest.raises(SatelliteError):
        local.submit(slurm.request(workdir, **changes), BUNDLE)
    assert slurm.jobs() == []


def test_a_missing_sbatch_leaves_no_intent(local, slurm, workdir):
    request = slurm.request(workdir, argv=("no-sbatch-here",))
    with pytest.raises(SatelliteError, match="no-sbatch-here"):
        local.submit(request, BUNDLE)
    assert not Path(request.run_dir).exists()


def test_f51_only_a_command_that_did_not_begin_made_surely_no_job(local, slurm, workdir, monkeypatch):
    popen, conversed = subprocess.Popen, commands._converse

    def no_process(*args, **how):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    def no_file(*args):
        conversed(*args)
        raise OSError(24, "Too many open files")

    request = slurm.request(workdir, window=300)
    monkeypatch.setattr(commands.subprocess, "Popen", no_process)
    with pytest.raises(HostUnreachableError, match="is left for this user there"):
        local.submit(request, BUNDLE)
    assert ledger(request) == ["token", "intent", "rejected"]
    monkeypatch.setattr(commands.subprocess, "Popen", popen)
    monkeypatch.setattr(commands, "_converse", no_file)
    with pytest.raises(HostUnreachableError, match="is left for this user there"):
        local.submit(request, BUNDLE)
    monkeypatch.setattr(commands, "_converse", conversed)
    assert local.submit(request, BUNDLE).outcome == "adopted"
    assert len(slurm.jobs()) == 1


def test_many_at_once_make_one_job(slurm: FakeSlurm, workdir):
    slurm.script("sbatch", "echo $$ >>jobs; sleep 0.2; echo $$")
    request = slurm.request(workdir)
    hosts = [InProcessHost()] * 4 + [RemoteHost(SubprocessDialer()), RemoteHost(SubprocessDialer())]
    with ThreadPoolExecutor(len(hosts)) as pool:
        replies = list(pool.map(lambda host: Satellite(host).submit(request, BUNDLE), hosts))
    for host in hosts:
        host.close()
    assert sorted(reply.outcome for reply in replies) == ["known"] * 5 + ["submitted"]
    assert {reply.job_id for reply in replies} == set(slurm.jobs())
    assert len(slurm.jobs()) == 1


def test_who_waits_in_vain_for_another_submission_is_told(local, slurm, workdir):
    request = slurm.request(workdir, lock_timeout=0.2)
    make_folder(os.fsencode(Path(request.run_dir).parent))
    with locked(lock_of(os.fsencode(request.run_dir)), 1), pytest.raises(SatelliteError) as caught:
        local.submit(request, BUNDLE)
    assert caught.value.code == "locked"


class TestLedger:
    def test_a_torn_line_is_not_a_job_id(self, local, slurm, workdir):
        request = slurm.request(workdir)
        write_ledger(request, "token=t1", "intent=1")
        with open(Path(request.run_dir) / "ledger", "a") as file:
            file.write("job_id=123")  # of 12345: the machine stopped here
        reply = local.submit(request, BUNDLE)
        assert reply.outcome == "submitted"
        assert "job_id=123\n" not in (Path(request.run_dir) / "ledger").read_text()

    def test_a_line_that_makes_no_sense_is_told_with_its_place(self, local, slurm, workdir):
        request = slurm.request(workdir)
        write_ledger(request, "token=t1", "intent=yesterday")
        with pytest.raises(SatelliteError, match="ledger:2: can't read 'intent=yesterday'") as caught:
            local.submit(request, BUNDLE)
        assert caught.value.code == "bad_ledger"

    def test_unknown_lines_are_for_later_readers(self, tmp_path):
        (tmp_path / "ledger").write_text("token=t\nfuture=1\nintent=5\njob_id=a=b\nsubmitted=6\n")
        found = Ledger(os.fsencode(tmp_path))
        assert (found.token, found.intent, found.job_id) == ("t", 5, "a=b")


class TestBundle:
    def unpack(self, local, slurm, workdir, data):
        return local.submit(slurm.request(workdir), data)

    def tar(self, *members: tarfile.TarInfo, content: bytes = b"") -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for member in members:
                tar.addfile(member, io.BytesIO(content) if member.isreg() else None)
        return buffer.getvalue()

    @pytest.mark.parametrize(
        "name",
        [
            "/etc/passwd",
            "../evil",
            "a/../../evil",
            "..",
            "a/..",
            "./../x",
            "ledger",
            "./ledger",
            "lease",
            "./lease",
            ".",
        ],
    )
    def test_a_file_may_not_lie_elsewhere(self, local, slurm, workdir, tmp_path, name):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SatelliteError) as caught:
            self.unpack(local, slurm, workdir, bundle({name: "x"}))
        assert caught.value.code == "unsafe_bundle"
        after = sorted(tmp_path.rglob("*"))
        made = {path.name for path in set(after) - set(before)}
        assert made <= {"work dir", "runs", "r1", "step", ".lock"}
        assert slurm.jobs() == []

    @pytest.mark.parametrize(
        "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
    )
    def test_links_and_devices_are_refused(self, local, slurm, workdir, kind):
        member = tarfile.TarInfo("x")
        member.type = kind
        member.linkname = "/etc/passwd"
        with pytest.raises(SatelliteError) as caught:
            self.unpack(local, slurm, workdir, self.tar(member))
        assert caught.value.code == "unsafe_bundle"

    def test_a_name_twice_is_refused(self, local, slurm, workdir):
        with pytest.raises(SatelliteError, match="twice"):
            self.unpack(local, slurm, workdir, self.tar(tarfile.TarInfo("x"), tarfile.TarInfo("x")))

    def test_a_bomb_is_refused_before_it_bursts(self, local, slurm, workdir, monkeypatch):
        monkeypatch.setattr(submission, "MAX_UNPACKED", 1000)
        with pytest.raises(SatelliteError, match="more than 1000 bytes"):
            self.unpack(local, slurm, workdir, bundle({"a": b"0" * 600, "b": b"0" * 600}, mode="w:gz"))

    @pytest.mark.parametrize(
        "data",
        [b"", b"not a tar", b"\x1f\x8bnot gzip", BUNDLE[:700], bundle({"a": b"x" * 5000}, mode="w:gz")[:60]],
        ids=[
            "empty",
            "text",
            "no gzip",
            "cut tar",
            "cut gzip",
        ],  # gzip holds the time: its bytes make no stable name
    )
    def test_a_damaged_bundle_is_told(self, satellite, slurm, workdir, data):
        with pytest.raises(SatelliteError) as caught:
            self.unpack(satellite, slurm, workdir, data)
        assert caught.value.code == "bad_bundle"
        assert slurm.jobs() == []

    def test_gzip_is_understood(self, satellite, slurm, workdir):
        assert (
            self.unpack(satellite, slurm, workdir, bundle({"job.sh": "x"}, mode="w:gz")).outcome
            == "submitted"
        )


class TestFolderLock:
    """The lock of file systems without flock."""

    @pytest.fixture(autouse=True)
    def no_flock(self, monkeypatch):
        def refuse(descriptor, operation):
            raise OSError(38, "Function not implemented")

        monkeypatch.setattr(locks.fcntl, "flock", refuse)

    def test_it_excludes_and_is_released(self, tmp_path):
        path = os.fsencode(tmp_path / "lock")
        release = acquire(path)
        assert release is not None
        assert acquire(path) is None
        release()
        again = acquire(path)
        assert again is not None
        again()
        assert os.listdir(tmp_path) == ["lock"]

    def leave(self, tmp_path, monkeypatch, node: str, pid: int) -> bytes:
        """Take a lock as another process would, and never release it."""
        path = os.fsencode(tmp_path / "lock")
        with monkeypatch.context() as patch:
            patch.setattr(locks.os, "getpid", lambda: pid)
            patch.setattr(locks, "identify", lambda pids: {pid: "1-00000000"})
            patch.setattr(locks.os, "uname", lambda: type("Uname", (), {"nodename": node}))
            assert acquire(path) is not None
        return path

    def test_a_dead_owner_on_this_machine_loses_it_at_once(self, tmp_path, monkeypatch):
        path = self.leave(tmp_path, monkeypatch, os.uname().nodename, os.getpid())
        release = acquire(path)
        assert release is not None
        release()

    def test_an_owner_in_a_container_that_has_this_machine_s_name_keeps_it(self, tmp_path, unshare):
        """Its number means another process here, or none."""
        path, root = os.fsencode(tmp_path / "lock"), Path(__file__).parents[2]
        program = """if True:
            import fcntl, os, sys
            def refuse(descriptor, operation):
                raise OSError(38, "Function not implemented")
            fcntl.flock = refuse
            from dagster_slurm_components.hosts.satellite.locks import acquire
            print(acquire(os.fsencode(sys.argv[1])) is not None, flush=True)
            sys.stdin.read()
        """
        with subprocess.Popen(
            [*unshare, sys.executable, "-c", program, path],
            env={**os.environ, "PYTHONPATH": str(root)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as holder:
            assert holder.stdout.readline() == b"True\n"
            assert acquire(path) is None
            holder.stdin.close()

    def test_an_owner_on_another_machine_keeps_it_for_a_while(self, tmp_path, monkeypatch):
        path = self.leave(tmp_path, monkeypatch, "login2", 4)
        assert acquire(path) is None
        old = time.time() - locks.STALE_LOCK - 10
        os.utime(path + b".d", (old, old))
        assert acquire(path) is not None

    def test_it_is_released_where_no_thread_could_keep_it(self, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(
                locks.threading.Thread, "start", lambda thread: (_ for _ in ()).throw(RuntimeError("none"))
            )
            release = acquire(native(str(tmp_path / "lock")))
        assert acquire(native(str(tmp_path / "lock"))) is None
        release()
        acquire(native(str(tmp_path / "lock")))()

    def test_what_is_kept_is_touched(self, tmp_path, monkeypatch):
        monkeypatch.setattr(locks, "_TOUCH", 0.01)
        folder = tmp_path / "lock.d"
        with locks.locked(os.fsencode(tmp_path / "lock"), 1):
            before = time.time()
            os.utime(folder, (0, 0))
            eventually(lambda: folder.stat().st_mtime, "it is touched")
            assert before - 1 <= folder.stat().st_mtime <= time.time() + 1
        assert not folder.exists()

    def test_two_breakers_do_not_both_get_it(self, tmp_path, monkeypatch):
        path = self.leave(tmp_path, monkeypatch, os.uname().nodename, os.getpid())
        stale = locks._lock_owner(path + b".d")
        first = acquire(path)
        assert first is not None
        with monkeypatch.context() as patch:  # a second breaker that still sees the old owner
            patch.setattr(locks, "_lock_owner", lambda path: stale)
            locks._break_abandoned(path + b".d")
        assert acquire(path) is None
        first()

    def test_a_late_owner_does_not_release_its_successors_lock(self, tmp_path, monkeypatch):
        path = os.fsencode(tmp_path / "lock")
        late = acquire(path)
        assert late is not None
        os.rename(path + b".d", path + b".gone")
        successor = acquire(path)
        assert successor is not None
        late()
        assert acquire(path) is None
        successor()

    def test_submissions_are_one_under_it(self, local, slurm, workdir):
        slurm.script("sbatch", "echo $$ >>jobs; sleep 0.1; echo $$")
        request = slurm.request(workdir)
        with ThreadPoolExecutor(4) as pool:
            replies = list(pool.map(lambda _: local.submit(request, BUNDLE), range(4)))
        assert sorted(reply.outcome for reply in replies) == ["known"] * 3 + ["submitted"]
