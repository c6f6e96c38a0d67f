"""Growing files come here while their job runs, under both schedulers, and nothing of that can harm the job."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from fault_proxy import FaultProxy
from project_fixture import BIN, Project, failure_text
from reports_fixture import log, warnings
from sshd_fixture import Sshd, own_home, sshd_factory  # noqa: F401
from waiting import PATIENCE, eventually

from dagster_slurm_components import ComputeResource
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.hosts import ssh
from dagster_slurm_components.pipes import relays
from slurm_testcluster.process import descendants

PROFILES = ["local", pytest.param("staging", marks=[pytest.mark.slurm, pytest.mark.slow])]
PAYLOAD = f"""
import os, sys, time
from pathlib import Path

def wait_for(file, text=""):
    until = time.monotonic() + {PATIENCE}
    while not (file and file.exists() and text in file.read_text()):
        assert time.monotonic() < until, file
        time.sleep(0.05)

def copy():
    return next(Path(os.environ["HERE"]).rglob("events"), None)

def wait_for_copy(text):
    until = time.monotonic() + {PATIENCE}
    while not (copy() and text in copy().read_text()):
        assert time.monotonic() < until, text
        time.sleep(0.05)

Path("logs/run 1").mkdir(parents=True)
events = Path("logs/run 1/events")
events.write_text("one\\n")
"""
"""Writes, and may wait until what it wrote is on Dagster's machine, which is this one, too."""
NOTE = """
import json, os, sys
from pathlib import Path

with open(os.environ["NOTES"], "a") as notes:
    print(json.dumps([os.getcwd(), *sys.argv[1:]]), file=notes)
print("noted", len(sys.argv) - 1)
"""


@pytest.fixture(params=PROFILES)
def profile(request: pytest.FixtureRequest, project: Project, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "staging":
        project.staging(request.getfixturevalue("cluster"))
    monkeypatch.setenv("NOTES", str(project.root / "notes"))
    project.write("note.py", NOTE)
    return str(request.param)


def write(project: Project, relay: str, payload: str, more: str = "") -> None:
    """Write one script; its payload goes on after ``PAYLOAD``."""
    project.write("train.py", f"{PAYLOAD}\n{payload}\n")
    project.scripts(f"""
defaults: {{env: {{HERE: '{here(project)}'}}}}
scripts:
  - payload: train.py
    relay: {relay}
    assets: [{{key: a}}]
    {more}
""")


def here(project: Project) -> Path:
    return project.root / ".dagster-slurm/outputs"


def note(project: Project) -> str:
    """Return the words of a command that notes what it is told."""
    return json.dumps([sys.executable, str(project.defs / "note.py"), "{}"])


def copies(project: Project) -> dict[str, str]:
    found = (each for each in here(project).rglob("*") if each.is_file())
    return {str(each.relative_to(here(project))).partition("/0/")[2]: each.read_text() for each in found}


def test_files_come_while_the_job_runs(project: Project, instance: dg.DagsterInstance, profile: str) -> None:
    relay = f"{{live: {{path: 'logs/run*', run: {note(project)}}}, every: 1s, plain: 'logs/*/ev*'}}"
    write(
        project,
        relay,
        'wait_for_copy("one"); wait_for(Path(os.environ["HERE"], "../../notes"), "run 1")\n'
        'events.open("a").write("two\\n"); wait_for_copy("two"); events.open("a").write("three\\n")',
    )
    result = project.run(profile, instance=instance)
    assert result.success, failure_text(result)
    text = "one\ntwo\nthree\n"
    assert copies(project) == {"live/run 1/events": text, "plain/run 1/events": text}
    (folder,) = here(project).rglob("live")
    notes = [json.loads(line) for line in (project.root / "notes").read_text().splitlines()]
    assert notes == [[str(folder), str(folder / "run 1")]] * len(notes)
    assert len(notes) >= 2, "while it grew, and at the end"
    assert warnings(instance, result) == []
    said = log(instance, result)
    assert f"Relay `live`: 1 files, {len(text)} B, are here: {folder}" in said
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["relay/live/pulled"] == dg.MetadataValue.path(str(folder))


END = {
    "fails": "sys.exit(3)",
    "killed": "import signal; os.kill(os.getpid(), signal.SIGKILL)",
    "cancelled": 'import subprocess; subprocess.run(["scancel", os.environ["SLURM_JOB_ID"]]); time.sleep(600)',
}


@pytest.mark.parametrize("end", END)
def test_what_there_was_comes_after_a_bad_end(
    project: Project, instance: dg.DagsterInstance, profile: str, end: str
) -> None:
    if (end, profile) == ("cancelled", "local"):
        pytest.skip("there is no scancel")
    write(project, "{live: logs, every: 1h}", f'events.open("a").write("last\\n")\n{END[end]}')
    result = project.run(profile, instance=instance)
    assert not result.success
    assert copies(project) == {"live/run 1/events": "one\nlast\n"}
    (event,) = result.get_step_failure_events()
    data = event.step_failure_data.user_failure_data
    assert data is not None
    assert Path(str(data.metadata["relay/live/pulled"].value)).is_dir()


COMMANDS = {
    "missing": (
        '["no-such-program", "{}"]',
        "`no-such-program` can't be started: No such file or directory.",
    ),
    "fails": ('["sh", "-c", "echo no luck; exit 7"]', "`sh` ended with 7.\nno luck\n"),
    "hangs": (
        "{run: \"sh -c 'echo begun; sleep 1000; true'\", timeout: 1s}",
        "`sh` had not ended after 1 s.\nbegun",
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_does_not_work_is_a_warning(
    project: Project, instance: dg.DagsterInstance, profile: str, command: str
) -> None:
    words, told = COMMANDS[command]
    run = words.strip("{}") if words.startswith("{") else f"run: {words}"
    write(
        project,
        f"{{live: {{path: logs, {run}}}, every: 1s}}",
        'wait_for_copy("one"); events.open("a").write("two\\n"); wait_for_copy("two")',
    )
    result = project.run(profile, instance=instance)
    assert result.success, failure_text(result)
    found = warnings(instance, result)
    assert 1 <= len(found) <= 2, "once while it runs, and once at the end"
    for text in found:
        assert text.startswith(f"Relay `live` ({project.defs / 'defs.yaml'}:")
        assert told in text
        assert "The job is not concerned." in text
    assert copies(project) == {"live/run 1/events": "one\ntwo\n"}
    assert not [pid for pid in descendants([os.getpid()]) if b"sleep\x001000" in _command_line(pid)]


def test_wandb_is_run_by_its_name_and_believed_by_its_words(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real one (0.31) ends with 0 whatever happens, and complains of runs that go on."""
    program = project.root / "bin/wandb"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@" >>"$NOTES"\necho "wandb: ERROR no record"\n')
    program.chmod(0o755)
    monkeypatch.setenv("NOTES", str(project.root / "notes"))
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    write(
        project,
        "{wandb: 'logs/run*', every: 1s}",
        'wait_for(Path(os.environ["HERE"], "../../notes"), "run 1"); wait_for_copy("one")',
    )
    result = project.run("local", instance=instance)
    assert result.success, failure_text(result)
    (folder,) = here(project).rglob("wandb")
    calls = (project.root / "notes").read_text().splitlines()
    assert calls == [f"sync --include-synced {folder}/run 1"] * len(calls)
    (warning,) = warnings(instance, result)
    assert "`wandb` did not work.\nwandb: ERROR no record\n" in warning, "once, of what remains at the end"


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_no_more_than_max_comes(project: Project, instance: dg.DagsterInstance, profile: str) -> None:
    write(
        project,
        "{live: {path: logs, max: 1K}, every: 1s}",
        'events.write_text("x" * 600)\nwait_for_copy("x")\nevents.open("a").write("y" * 600); wait_for_copy("y")',
    )
    result = project.run(profile, instance=instance)
    assert result.success, failure_text(result)
    (text,) = copies(project).values()
    assert len(text) <= 1024
    assert text == ("x" * 600 + "y" * 600)[: len(text)]
    found = warnings(instance, result)
    assert 1 <= len(found) <= 2
    assert all("more than `max` 1K was there, and the rest is not brought" in each for each in found)


def test_no_place_for_copies_is_a_warning(project: Project, instance: dg.DagsterInstance) -> None:
    project.profile("local", "host: {type: local}\nscheduler: process\npull_to: taken\n")
    (project.root / "taken").write_text("a file")
    write(project, "{live: logs, every: 1h}", "")
    result = project.run("local", instance=instance)
    assert result.success, failure_text(result)
    (found,) = warnings(instance, result)
    assert found.startswith("Relay `live` (")
    assert f"'{project.root}/taken" in found
    assert (project.root / "taken").read_text() == "a file"


@pytest.mark.ssh
def test_a_lost_connection_is_waited_for(
    project: Project,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    sshd_factory: Callable[..., Sshd],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ssh, "PAUSES", ())
    sshd = sshd_factory()
    proxy = FaultProxy(sshd.port)
    key = sshd.host_key.with_suffix(".pub").read_text()
    sshd.known_hosts.write_text(f"[127.0.0.1]:{proxy.port} {key}")
    host = sshd.spec(type="ssh", port=proxy.port, reconnect_interval=0.2, agent=False)
    project.profile(
        "far",
        f"host: {host.model_dump_json(exclude_unset=True, exclude_none=True)}\nworkdir: {tmp_path / 'jobs'}\n",
    )
    write(
        project,
        "{live: logs, every: 1s}",
        f'wait_for_copy("one"); Path({str(tmp_path / "came")!r}).touch(); wait_for(Path({str(tmp_path / "cut")!r}))\n'
        'events.open("a").write("two\\n")',
    )

    def weather() -> None:
        eventually((tmp_path / "came").exists, "the first line has come")
        proxy.refuse = True
        proxy.cut()
        (tmp_path / "cut").touch()
        refused = proxy.accepted
        eventually(lambda: proxy.accepted > refused + 1, "the host is tried in vain")
        proxy.refuse = False

    thread = threading.Thread(target=weather, daemon=True)
    thread.start()
    result = project.run("far", instance=instance)
    thread.join(PATIENCE)
    proxy.close()
    assert result.success, failure_text(result)
    assert copies(project) == {"live/run 1/events": "one\ntwo\n"}
    assert not [text for text in warnings(instance, result) if "Relay" in text]


EXECUTOR = """
import dagster as dg
from dagster_slurm_components import slurm_executor

@dg.definitions
def executor():
    return dg.Definitions(executor=slurm_executor)
"""


@pytest.mark.slow
def test_another_dagster_goes_on_where_a_killed_one_stopped(project: Project, profile: str) -> None:
    (project.defs.parent / "python.py").write_text(EXECUTOR)
    gate = project.root / "gate"
    write(
        project,
        f"{{live: {{path: logs, run: {note(project)}}}, every: 1s}}",
        f'wait_for(Path({str(gate)!r}))\nevents.open("a").write("two\\n"); wait_for_copy("two")',
    )
    home = project.root / "dagster home"
    home.mkdir()
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "DAGSTER_SLURM_PROFILE": profile,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": f"{project.root / 'src'}:{Path(__file__).parents[2]}",
    }
    launched = subprocess.Popen(
        [str(BIN / "dg"), "launch", "--assets", "a"],
        cwd=project.root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        eventually(lambda: "one\n" in copies(project).values(), "the first line has come")
    finally:
        os.killpg(launched.pid, signal.SIGKILL)
        launched.wait(PATIENCE)
    (copy,) = here(project).rglob("events")
    before = copy.stat().st_ino
    gate.touch()
    said = project.dg("launch", "--assets", "a", profile=profile)
    assert "taken up again" in said.stdout + said.stderr
    assert copies(project) == {"live/run 1/events": "one\ntwo\n"}
    assert copy.stat().st_ino == before, "no other copy was begun"


def test_from_python(project: Project, instance: dg.DagsterInstance) -> None:
    payload = project.write("train.py", PAYLOAD)

    @dg.asset
    def a(context: dg.AssetExecutionContext, compute: ComputeResource) -> Any:
        ways: dict[str, Any] = {"context": context, "payload_path": str(payload), "relay": {"live": "logs/*"}}
        with pytest.raises(DagsterSlurmError, match="no `relay` brings the files of many jobs here"):
            compute.map(items=[1], **ways)
        yield from compute.run(**ways).get_results()

    resource = ComputeResource(project=str(project.root), profile="local")
    assert dg.materialize([a], instance=instance, resources={"compute": resource}).success
    assert copies(project) == {"live/run 1/events": "one\n"}


def test_after_a_cancelled_job_the_rest_comes_and_no_command_is_waited_for(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "_HURRY", 2.0)
    gate, pid = project.root / "gate", project.root / "pid"
    payload = project.write(
        "train.py",
        f"""{PAYLOAD}
wait_for_copy("one"); wait_for(Path({str(pid)!r}))
events.open("a").write("two\\n"); Path({str(gate)!r}).touch(); time.sleep(600)
""",
    )
    run = ["sh", "-c", f"echo $$ >'{pid}'; exec sleep 1000"]
    live = {"path": "logs/*", "run": run, "timeout": "1h"}

    @dg.asset
    def a(context: dg.AssetExecutionContext, compute: ComputeResource) -> dg.MaterializeResult[Any]:
        env = {"HERE": str(here(project))}
        ways: dict[str, Any] = {"payload_path": str(payload), "extra_env": env}
        job = compute.submit(context=context, relay={"live": live, "every": "1s"}, **ways)
        eventually(gate.exists, "the payload has written more, while the command runs")
        job.cancel()
        with pytest.raises(dg.Failure, match="was cancelled by the code that submitted it"):
            job.result()
        return dg.MaterializeResult()

    resource = ComputeResource(project=str(project.root), profile="local")
    assert dg.materialize([a], instance=instance, resources={"compute": resource}).success
    assert copies(project) == {"live/run 1/events": "one\ntwo\n"}
    eventually(lambda: not _command_line(int(pid.read_text())), "the command has ended")
