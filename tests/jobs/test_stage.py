"""`stage`: a payload that works on the node's own disk, by job.sh and stage.sh as they are shipped."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from outputs_fixture import RunDirectory
from waiting import PATIENCE, eventually

from dagster_slurm_components.environments.base import Activation
from dagster_slurm_components.jobs.bundle import run_files
from dagster_slurm_components.jobs.job_spec import job_spec
from dagster_slurm_components.jobs.model import JobIdentity
from dagster_slurm_components.jobs.status import StatusRecord, parse_status
from dagster_slurm_components.spec.merge import Layer
from dagster_slurm_components.spec.outputs import Output
from dagster_slurm_components.spec.profile import Profile
from dagster_slurm_components.spec.profiles import LoadedProfile
from dagster_slurm_components.spec.resolve import ScriptEntry, resolve_script

HOSTILE = [
    "a b",
    "it's",
    "$(touch hacked)",
    "two\nlines",
    "-n",
    "ünï",
    ".hidden",
    "*",
    "[a]",
    "back\\slash",
    "x;y",
]


@dataclass
class Job:
    """A run directory of a payload that is staged, and the node's folder."""

    folder: Path
    node: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def payload(self) -> Path:
        return self.folder / "payload"

    def start(
        self, *words: str, stage: str = "$NODE", requeues: int = 0, **extra: str
    ) -> subprocess.Popen[bytes]:
        """Write the run directory as it travels, and run its job."""
        layer = Layer("script", {"command": list(words), "stage": stage}, lambda path: None)
        resolved = resolve_script(
            ScriptEntry(layer, None, self.folder), LoadedProfile("local", Profile(), (), self.folder)
        )
        spec = job_spec(resolved, JobIdentity("run", "step"), activation=Activation(), env=self.own)
        for name, content in run_files(spec).items():
            if name not in ("status", "messages.jsonl"):
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / name).write_bytes(content)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        return subprocess.Popen(
            ["bash", str(self.folder / "job.sh"), str(self.folder), str(requeues)],
            env={**environment, **extra},
            stdin=subprocess.DEVNULL,
            stdout=(self.folder / "stdout.log").open("ab"),
            stderr=(self.folder / "stderr.log").open("ab"),
        )

    @property
    def own(self) -> dict[str, str]:
        return {"NODE": str(self.node), **self.env}

    def run(self, *words: str, code: int = 0, stage: str = "$NODE", **extra: str) -> StatusRecord:
        """Run the job to its end, after which nothing is left on the node."""
        job = self.start(*words, stage=stage, **extra)
        assert (job.wait(PATIENCE), self.errors) == (code, self.errors)
        assert not self.node.exists() or not list(self.node.iterdir())
        assert not [*self.folder.glob("stag*.[0-9]*"), *self.folder.glob(".staged*")]
        assert self.record.exit_code == code
        return self.record

    @property
    def record(self) -> StatusRecord:
        found = parse_status((self.folder / "status").read_bytes())
        assert found is not None
        return found

    @property
    def output(self) -> str:
        return (self.folder / "stdout.log").read_text()

    @property
    def errors(self) -> str:
        return (self.folder / "stderr.log").read_text()

    def working_folder(self) -> Path | None:
        """Return where the payload works by now."""
        return next(self.node.glob("dg-slurm-*/payload/ready"), None)


@pytest.fixture(params=["run", "a b;$(x)\n'"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Job:
    (tmp_path / request.param / "payload").mkdir(parents=True)
    node = tmp_path / f"node {request.param}"
    node.mkdir()
    return Job(tmp_path / request.param, node)


def test_the_payload_works_on_the_node_and_its_work_comes_back(job: Job) -> None:
    for name in ("changed", "removed", "kept"):
        (job.payload / name).write_text("old\n")
    (job.payload / "tool").write_text("#!/bin/sh\necho tool")
    (job.payload / "tool").chmod(0o700)
    inode = (job.payload / "kept").stat().st_ino
    job.run(
        "bash",
        "-c",
        'printf "%s\\0" "$PWD" "$DAGSTER_SLURM_STAGE" "$DAGSTER_SLURM_RUN_DIR" "$(./tool)"; echo new >changed; '
        "rm removed; mkdir -p deep/er; echo x >deep/er/file; ln -s er/file deep/link; ln -s /nowhere broken; "
        "echo run >made.sh; chmod 750 made.sh; mkfifo pipe; ls -ld .. >mode",
    )
    where, stage, run_dir, tool = job.output.split("\0")[:-1]
    assert (where, run_dir, tool) == (f"{stage}/payload", str(job.folder), "tool")
    assert stage.startswith(f"{job.node}/dg-slurm-")
    assert (job.payload / "mode").read_text().startswith("drwx------")
    assert (job.payload / "changed").read_text() == "new\n"
    assert not (job.payload / "removed").exists()
    assert (job.payload / "kept").stat().st_ino == inode
    assert (job.payload / "deep/link").read_text() == "x\n"
    assert os.readlink(job.payload / "deep/link") == "er/file"
    assert os.readlink(job.payload / "broken") == "/nowhere"
    assert stat.S_IMODE((job.payload / "made.sh").stat().st_mode) == 0o750
    assert not (job.payload / "pipe").exists()


def test_any_name_sparse_files_and_ten_thousand_small_ones(job: Job) -> None:
    (job.payload / "many").mkdir()
    code = f"""
import os
for name in {HOSTILE!r}:
    open("many/" + name, "w").write(name)
    os.makedirs("new/" + name + "/" + name)
    open("new/" + name + "/" + name + "/" + name, "w").write(name)
open(b"bytes\\xff", "w").close()
with open("sparse", "wb") as file:
    file.seek(2**30)
    file.write(b"end")
open("new/one", "w").write("both")
os.link("new/one", "new/two")
for number in range(10_000):
    open("many/" + str(number), "w").write(str(number))
"""
    job.run("@python", "-c", code)
    for name in HOSTILE:
        assert (job.payload / "many" / name).read_text() == name
        assert (job.payload / "new" / name / name / name).read_text() == name
    assert sorted(each.name for each in (job.payload / "many").iterdir()) == sorted(
        [*HOSTILE, *map(str, range(10_000))]
    )
    assert b"bytes\xff" in os.listdir(os.fsencode(job.payload))
    sparse = (job.payload / "sparse").stat()
    assert (sparse.st_size, sparse.st_blocks < 2**14) == (2**30 + 3, True)
    assert (job.payload / "new/one").samefile(job.payload / "new/two")
    assert not [*job.folder.rglob("hacked")]


def test_every_kind_of_change_is_seen(job: Job) -> None:
    for name in ("same_size", "same_time", "a", "was_file", "was_folder/x", "old/x", "older/x"):
        file = job.payload / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("1")
    os.utime(job.payload / "older/x", (1, 1))
    job.run(
        "bash",
        "-c",
        "printf 2 >same_size; touch -r same_time kept; printf 2 >same_time; touch -r kept same_time; rm kept; "
        "mv a b; rm was_file; mkdir was_file; printf 2 >was_file/x; rm -r was_folder; printf 2 >was_folder; "
        "chmod 500 same_size; rm -r old; mv older old",  # its files are as they were, and older
    )
    for name in ("same_size", "same_time", "was_file/x", "was_folder"):
        assert (job.payload / name).read_text() == "2", name
    assert stat.S_IMODE((job.payload / "same_size").stat().st_mode) == 0o500
    assert (job.payload / "b").read_text() == "1"
    assert (job.payload / "old/x").stat().st_mtime == 1
    gone = ("a", "kept", "older/x")
    assert not [name for name in gone if (job.payload / name).exists()]


def test_a_change_right_at_the_beginning_is_seen(job: Job) -> None:
    for number in range(10):
        (job.payload / "file").write_text("old")
        job.run("sh", "-c", f"printf {number:03} >file")
        assert (job.payload / "file").read_text() == f"{number:03}"


@pytest.mark.parametrize(("end", "code"), [("exit 3", 3), ("kill -9 $$", 137)])
def test_what_a_payload_made_before_it_failed_comes_back(job: Job, end: str, code: int) -> None:
    found = job.run("sh", "-c", f"echo x >made; {end}", code=code)
    assert (job.payload / "made").read_text() == "x\n"
    assert found.get("staged") is None


def test_folders_that_nobody_may_write_to(job: Job) -> None:
    job.run("sh", "-c", "mkdir -p sealed/in; echo x >sealed/in/file; chmod 555 sealed/in sealed")
    assert (job.payload / "sealed/in/file").read_text() == "x\n"
    for folder in ("sealed", "sealed/in"):
        (job.payload / folder).chmod(0o700)


def test_inputs_are_copied_and_their_variables_name_the_copies(job: Job, tmp_path: Path) -> None:
    (tmp_path / "data set").mkdir()
    (tmp_path / "data set/1.csv").write_text("1")
    (tmp_path / "data set/link").symlink_to("1.csv")
    (tmp_path / "data set").chmod(0o555)
    (tmp_path / "current.csv").symlink_to("data set/1.csv")
    job.env |= {
        "DAGSTER_SLURM_INPUT_IMAGES": f"{tmp_path}/data set//",
        "DAGSTER_SLURM_INPUT_TABLE": f"{tmp_path}/current.csv",
        "DAGSTER_SLURM_INPUT_OTHER": "s3://bucket/x",
        "DAGSTER_SLURM_INPUT_ABSENT": f"{tmp_path}/absent",
    }
    names = ("IMAGES", "TABLE", "OTHER", "ABSENT")
    printed = " ".join(f'"$DAGSTER_SLURM_INPUT_{name}"' for name in names)
    job.run(
        "bash",
        "-c",
        'printf "%s\\0" "$@"; '
        f'printf "%s\\0" {printed} "$(cat "$DAGSTER_SLURM_INPUT_IMAGES/link" "$DAGSTER_SLURM_INPUT_TABLE")"; '
        # What runs beside the payload begins with the variables as they were.
        f'copy=$DAGSTER_SLURM_INPUT_IMAGES; DAGSTER_SLURM_INPUT_IMAGES="{tmp_path}/data set/"; '
        '. "$DAGSTER_SLURM_RUN_DIR/stage.sh" into; [ "$work" = "$PWD" ] && [ "$DAGSTER_SLURM_INPUT_IMAGES" = "$copy" ]',
        "bash",
        *(f"{tmp_path}/{name}" for name in ("data set/1.csv", "current.csv", "current.csv.old")),
        f"--in={tmp_path}/current.csv",
    )
    first, second, *same, images, table, other, absent, content = job.output.split("\0")[:-1]
    # What templates made of arguments, if it is the path of an input or begins with it.
    assert (first, second) == (f"{images}/1.csv", table)
    assert same == [f"{tmp_path}/current.csv.old", f"--in={tmp_path}/current.csv"]
    assert [Path(images).name, Path(table).name, content] == ["data set", "current.csv", "11"]
    assert images.startswith(f"{job.node}/dg-slurm-")
    assert table.startswith(f"{job.node}/dg-slurm-")
    assert (other, absent) == ("s3://bucket/x", f"{tmp_path}/absent")
    (tmp_path / "data set").chmod(0o755)


@pytest.mark.parametrize(
    ("stage", "told"),
    [
        ("$NO_SUCH", "`stage` names the variable NO_SUCH, which the payload does not have"),
        ("$NODE/absent", "there is no folder {node}/absent, which `stage` names"),
        ("$RELATIVE/x", "`stage` is no absolute path here: tmp/x"),
        (r"$NODE/\$HOME", "there is no folder {node}/$HOME"),
    ],
)
def test_a_folder_that_cannot_be(job: Job, stage: str, told: str) -> None:
    job.env["RELATIVE"] = "tmp"
    found = job.run("sh", "-c", "echo x >made", stage=stage, code=93)
    assert told.format(node=job.node) in job.errors
    assert found.phase == "staging"
    assert [*job.payload.iterdir()] == []


def test_too_little_room_is_told_with_sizes_before_anything_is_copied(job: Job, tmp_path: Path) -> None:
    (job.payload / "large").write_bytes(b"x" * 3 * 2**20)
    df = "echo Filesystem 1024-blocks Used Available Capacity Mounted; echo tmpfs 4096 2048 2048 10% /x"
    found = job.run("true", code=93, PATH=tools(tmp_path, df=df))
    assert found.phase == "staging"
    said = job.errors
    assert "payload and inputs have 4 MiB, and " in said or "payload and inputs have 3 MiB, and " in said
    assert "has room for 2 MiB: ask for a node with more" in said


def test_what_cannot_be_copied_back_fails_the_job_and_takes_nothing_with_it(job: Job, tmp_path: Path) -> None:
    (job.payload / "unlucky").write_text("old")
    cp = 'for each; do case $each in */unlucky) echo "no space" >&2; exit 1 ;; esac; done; exec /bin/cp "$@"'
    payload = "for name in a b unlucky c; do echo new >$name; done; mkdir f; echo x >f/x; echo x >f/unlucky"
    path = tools(tmp_path, cp=cp)
    found = job.run("sh", "-c", payload, code=93, PATH=path)
    assert (found.phase, found.get("staged")) == ("payload", "failed")
    assert [(job.payload / name).read_text() for name in ("a", "b", "c")] == ["new\n"] * 3
    assert (job.payload / "f/x").read_text() == "x\n"
    assert (job.payload / "unlucky").read_text() == "old"
    assert "not all that the payload made in " in job.errors
    found = job.run("sh", "-c", f"{payload}; exit 4", code=4, PATH=path)
    assert found.get("staged") == "failed"


def test_a_working_folder_that_is_gone_is_no_success(job: Job) -> None:
    (job.payload / "kept").write_text("old")
    found = job.run("sh", "-c", 'rm -rf "$DAGSTER_SLURM_STAGE"', code=93)
    assert found.get("staged") == "failed"
    assert (job.payload / "kept").read_text() == "old"


WAITS = "trap 'echo stopped >made; exit 5' TERM; echo $$ >new; mv new ready; while :; do sleep 0.05; done"


def test_a_signal_ends_the_payload_and_not_the_copying(job: Job, tmp_path: Path) -> None:
    gate, copying = tmp_path / "gate", tmp_path / "copying"
    cp = (
        f"case $* in *dg-slurm-*/made*) touch {copying}; while [ ! -e {gate} ]; do sleep 0.05; done ;; esac; "
        'exec /bin/cp "$@"'
    )
    running = job.start("bash", "-c", WAITS, PATH=tools(tmp_path, cp=cp))
    eventually(job.working_folder, "the payload runs")
    running.send_signal(signal.SIGTERM)
    eventually(copying.exists, "its work is copied")
    running.send_signal(signal.SIGTERM)
    for pid in children(running.pid):  # as Slurm does: to all processes of the job
        for name in (signal.SIGTERM, signal.SIGUSR1):
            os.kill(pid, name)
    gate.touch()
    assert running.wait(PATIENCE) == 5
    assert (job.payload / "made").read_text() == "stopped\n"
    assert job.record.signals == ("TERM", "TERM")
    assert list(job.node.iterdir()) == []


def test_what_was_copied_back_before_a_kill_is_there(job: Job, tmp_path: Path) -> None:
    code = """
import os
os.umask(0o022)
os.makedirs("large/deep")
os.umask(0o077)
for name in ("large/one", "large/two", "large/deep/three"):
    with open(name, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 150 * 2**20)
        file.seek(-3, 2)
        file.write(b"end")
"""
    cp = (
        f'case $* in */large/*) ;; *) exec /bin/cp "$@" ;; esac; if mkdir {tmp_path}/first; then '
        f'exec /bin/cp "$@"; fi; echo $$ >{tmp_path}/pid; mv {tmp_path}/pid {tmp_path}/second; exec sleep 300'
    )
    running = job.start("@python", "-c", code, PATH=tools(tmp_path, cp=cp))
    eventually((tmp_path / "second").exists, "one large file is back")
    copying = children(running.pid)
    for pid in (running.pid, *copying, int((tmp_path / "second").read_text())):
        os.kill(pid, signal.SIGKILL)
    running.wait(PATIENCE)
    (back,) = [file for file in job.payload.rglob("*") if file.is_file()]
    assert back.stat().st_size == 150 * 2**20
    assert back.read_bytes().endswith(b"end")
    # All of it comes back if nothing hinders it.
    shutil.rmtree(job.payload)
    job.payload.mkdir()
    job.run("@python", "-c", code, SLURM_RESTART_COUNT="1")
    found = sorted(str(file.relative_to(job.payload)) for file in job.payload.rglob("*") if file.is_file())
    assert found == ["large/deep/three", "large/one", "large/two"]
    modes = {stat.S_IMODE((job.payload / name).stat().st_mode) for name in ("large", "large/deep")}
    assert modes == {0o755}


def test_a_signal_while_the_copies_are_made(job: Job, tmp_path: Path) -> None:
    copying = tmp_path / "copying"
    running = job.start("touch", "made", PATH=tools(tmp_path, cp=f"touch {copying}; sleep 300"))
    eventually(copying.exists, "the payload's folder is copied")
    running.send_signal(signal.SIGTERM)
    assert running.wait(PATIENCE) == 143
    assert list(job.node.iterdir()) == []
    assert not (job.payload / "made").exists()


def test_what_is_made_is_back_before_the_job_goes_into_the_queue_again(job: Job, tmp_path: Path) -> None:
    scontrol = f'cat "{tmp_path}"/*/payload/made >{tmp_path}/seen; echo "$@" >>{tmp_path}/seen'
    payload = (
        "trap 'echo 7 >\"$DAGSTER_SLURM_CHECKPOINT/state\"; echo half >made; exit 75' USR1; echo x >ready; "
        "while :; do sleep 0.05; done"
    )
    extra = {"PATH": tools(tmp_path, scontrol=scontrol), "SLURM_JOB_ID": "12"}
    running = job.start("bash", "-c", payload, requeues=1, **extra)
    eventually(job.working_folder, "the payload runs")
    running.send_signal(signal.SIGUSR1)
    assert running.wait(PATIENCE) == 75
    assert (tmp_path / "seen").read_text() == "half\nrequeue 12\n"
    assert job.record.get("checkpointed") == "75"
    # The next start goes on from there.
    job.run("sh", "-c", "cat made; rm ready", SLURM_RESTART_COUNT="1")
    assert job.output == "half\n"
    assert [each.name for each in job.payload.iterdir()] == ["made"]


def test_what_a_killed_start_left_on_the_node_is_removed_by_the_next(job: Job) -> None:
    running = job.start("bash", "-c", WAITS)
    work = eventually(job.working_folder, "the payload runs")
    running.kill()
    running.wait(PATIENCE)
    payload = int(work.read_text())
    job.run("sh", "-c", "exit 0", SLURM_RESTART_COUNT="1")
    assert not work.exists()
    os.kill(payload, signal.SIGKILL)


def test_a_start_that_slurm_gave_up_brings_nothing_back(job: Job) -> None:
    """A node that is not heard of goes on working, while the job begins anew on another one."""
    running = job.start("bash", "-c", WAITS)
    eventually(job.working_folder, "the payload runs")
    with (job.folder / "status").open("a") as status:
        status.write("restart=1\nstarted=7\n")
    running.send_signal(signal.SIGTERM)
    assert running.wait(PATIENCE) == 5
    assert list(job.payload.iterdir()) == []
    assert list(job.node.iterdir()) == []


def test_outputs_are_looked_for_once_they_are_back(job: Job) -> None:
    directory = RunDirectory(job.folder)
    directory.declare({"model": Output(path="out/*.pt")})
    found = job.run("sh", "-c", "mkdir out; echo x >out/a.pt")
    assert found.get("outputs") == "made"
    (made,) = directory.made()
    assert (made.root, made.bytes) == (f"{job.payload}/out", 2)


def test_a_job_of_several_nodes_is_refused(job: Job) -> None:
    job.run("true", code=93, SLURM_JOB_NUM_NODES="2")
    assert "and the job has 2: write `nodes: 1` under `resources`" in job.errors


def test_a_laptop_without_tmpdir_has_tmp(job: Job) -> None:
    environment = {"TMPDIR": ""}
    job.run("sh", "-c", "pwd", stage="$TMPDIR", **environment)
    assert job.output.startswith("/tmp/dg-slurm-")
    assert not Path(job.output.strip()).exists()
    job.run("sh", "-c", "pwd", stage="$TMPDIR", code=93, SLURM_JOB_ID="7", **environment)


def test_programs_beside_the_payload_s_folder_are_found(job: Job) -> None:
    (job.folder / "launch").mkdir()
    (job.folder / "launch/own.py").write_text("print('here')")
    job.run("@python", "../launch/own.py")
    assert job.output == "here\n"


def children(pid: int) -> list[int]:
    """Return the processes that one has started."""
    listed = subprocess.run(["ps", "-A", "-o", "ppid=,pid="], capture_output=True, text=True, check=True)
    pairs = (map(int, line.split()) for line in listed.stdout.splitlines())
    return [child for parent, child in pairs if parent == pid]


def tools(folder: Path, **scripts: str) -> str:
    """Return a PATH with stand-ins for programs."""
    place = folder / "tools"
    place.mkdir(exist_ok=True)
    for name, script in scripts.items():
        (place / name).write_text(f"#!/bin/sh\n{script}\n")
        (place / name).chmod(0o700)
    return f"{place}:{os.environ['PATH']}"
