"""`dg-slurm shell`: on a real terminal, in a job of a real Slurm behind a login of two factors, and on this machine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from threading import Thread

import pytest
from into.conftest import PAYLOAD, Place, call, command
from into.terminals import Terminal
from waiting import PATIENCE, eventually


def about(text: str, name: str) -> str:
    """Return what a shell echoed as ``NAME=...``, between bars."""
    return text.split(f"{name}=|")[1].split("|", maxsplit=1)[0]


def sleepers(seconds: str) -> list[str]:
    """Return the processes that sleep so long: a mark that nothing else here has."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sleep", seconds.encode()]:
            found.append(folder.name)
    return found


@pytest.mark.slow
def test_a_terminal_in_a_job_behind_two_factors(far: Place) -> None:
    job = far.begun(far.submit(env={"COLOUR": "sea green; $(id)"}))
    with Terminal(command("shell", "works"), rows=31, columns=97) as terminal:
        assert f"Job {job} runs" in terminal.until("(step works)")
        terminal.until(f"[job {job} ")
        terminal.type(
            'echo "job=|$SLURM_JOB_ID|" "colour=|$COLOUR|" "here=|$PWD|"'
            ' "pipes=|${DAGSTER_PIPES_MESSAGES-}|" "term=|$TERM|"\n'
        )
        terminal.type("stty size; tty; echo do''ne\n")
        said = terminal.until("done\r")
        assert about(said.split("\n", 1)[1], "job") == job
        assert about(said.split("\n", 1)[1], "colour") == "sea green; $(id)"
        assert about(said.split("\n", 1)[1], "here").endswith("/works/0/payload")
        assert about(said.split("\n", 1)[1], "pipes") == ""
        assert about(said.split("\n", 1)[1], "term") == "vt220"
        assert "31 97" in said
        terminal.resize(40, 120)
        terminal.type("until [ \"$(stty size)\" = '40 120' ]; do sleep 0.1; done; echo re''sized\n")
        terminal.until("resized\r")
        terminal.type("echo slee''ps; sleep 1000\n")
        terminal.until("sleeps\r")
        terminal.type("\x03")  # Ctrl-C ends what runs there, not us
        terminal.until("^C")
        terminal.until("payload]")
        terminal.type("exit 7\n")
        assert terminal.ended() == 7, terminal.seen
    assert far.one_login()
    far.ended_well(job)


@pytest.mark.slow
def test_a_killed_client_leaves_the_job_alone_and_nothing_on_the_node(far: Place) -> None:
    job = far.begun(far.submit())
    with Terminal(command("shell", job, "--", "sleep", "86399")) as terminal:
        eventually(lambda: sleepers("86399"), "the program runs")
        terminal.kill()
    eventually(lambda: not sleepers("86399"), "it has ended")
    with Terminal(command("shell", job, "--", "sleep", "86398")) as terminal:
        eventually(lambda: sleepers("86398"), "the program runs")
        assert far.server is not None
        far.server.cut()
        assert terminal.ended() == 1
        assert "the connection was lost; the job goes on" in terminal.seen
    eventually(lambda: not sleepers("86398"), "it has ended")
    log = far.project.root / "far work"
    (output,) = log.glob("runs/*/works/0/stdout.log")
    assert output.read_text() == "begun \n", "no signal reached the payload"
    far.gate.touch()
    eventually(lambda: output.read_text() == "begun \nended\n", "the payload does its work")


@pytest.mark.slow
def test_a_command_without_a_terminal_and_the_node_of_a_rank(far: Place) -> None:
    launcher = {"type": "srun", "output": "all"}
    job = far.begun(far.submit(launcher=launcher, resources={"nodes": 2, "ntasks_per_node": 1}))
    eventually(lambda: call("logs", job).stdout.count("begun") == 2, "both ranks run")
    nodes = []
    for rank in "01":
        done = subprocess.run(
            command(
                "shell",
                job,
                "--rank",
                rank,
                "--",
                "sh",
                "-c",
                'cat; echo "$SLURMD_NODENAME"; echo no >&2; exit 3',
            ),
            input=b"a\0\xff\n",
            capture_output=True,
            check=False,
        )
        assert done.returncode == 3, done.stderr
        assert b"\nno\n" in done.stderr
        assert done.stdout.startswith(b"a\0\xff\n")
        nodes.append(done.stdout.split()[-1])
    assert len(set(nodes)) == 2
    assert "has no rank 2" in call("shell", job, "--rank", "2", "--", "true", status=1).output
    assert far.one_login()
    far.ended_well(job)


def test_on_this_machine(near: Place) -> None:
    near.begun(near.submit())
    done = subprocess.run(
        command("shell", "works", "--", "@python", "-c", "import os; print(os.getcwd(), os.environ['GATE'])"),
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(f"/works/0/payload {near.gate}")
    with Terminal(command("shell", "works")) as terminal:
        terminal.until("payload]")
        terminal.type("exit 5\n")
        assert terminal.ended() == 5
    job = str(near.jobs()[0]["job_id"])
    near.ended_well(job)
    told = call("shell", job, status=1).output
    assert "has ended already: COMPLETED" in told


def test_it_begins_where_the_payload_works_on_the_node(near: Place) -> None:
    disk = near.project.root / "disk"
    disk.mkdir()
    job = near.begun(near.submit(stage=str(disk)))
    (node,) = disk.iterdir()
    print_them = "import os; print(os.getcwd(), os.environ['DAGSTER_SLURM_STAGE'])"
    done = subprocess.run(
        command("shell", "works", "--", "@python", "-c", print_them),
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.stdout.strip() == f"{node}/payload {node}", done.stderr
    near.ended_well(job)


@pytest.mark.slow
def test_a_job_that_waits_says_so_and_is_waited_for(far: Place) -> None:
    job = far.submit(resources={"begin": "now+1hour"})
    told = call("shell", job, status=1).output.replace("\n", " ")
    assert "PENDING" in told
    assert "Expected start" in told
    assert "--wait" in told
    with Terminal(command("shell", job, "--wait", "--", "echo", "in")) as terminal:
        terminal.until("PENDING")
        subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)
        terminal.until("in\r")
        assert terminal.ended() == 0
    far.ended_well(job)


@pytest.mark.slow
def test_an_element_of_an_array(far: Place) -> None:
    far.project.write("waits.py", PAYLOAD)
    keys = '{type: static, partition_keys: ["x", "y", "z"]}'
    far.project.scripts(
        f"scripts: [{{payload: waits.py, array: {{}}, env: {{GATE: {json.dumps(str(far.gate))}}}, "
        f"assets: [{{key: works, partitions_def: {keys}}}]}}]"
    )
    tags = {"dagster/asset_partition_range_start": "x", "dagster/asset_partition_range_end": "z"}
    runs: list[bool] = []
    run = Thread(target=lambda: runs.append(far.project.run("far", instance=far.instance, tags=tags).success))
    run.start()
    try:
        array = eventually(lambda: far.jobs() and str(far.jobs()[0]["job_id"]), "the array is submitted")
        assert f"name one of {array}_[0-2]" in call("shell", array, status=1).output
        far.begun(f"{array}_1")
        words = ("--", "sh", "-c", 'echo "$SLURM_ARRAY_JOB_ID $PWD"')
        done = subprocess.run(
            command("shell", f"{array}_1", *words),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().endswith("/elements/1/payload")
    finally:
        far.gate.touch()
        run.join(PATIENCE)
    assert runs == [True]
    assert far.one_login()
