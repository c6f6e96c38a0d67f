"""Payloads that work on the node's own disk, under both schedulers, and what Slurm does to them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from project_fixture import Project, failure_text
from waiting import eventually

import slurm_testcluster as slurm

ON_SLURM = [pytest.mark.slurm, pytest.mark.slow]
MAKE = """
    import os, pathlib, sys

    where = pathlib.Path.cwd()
    assert where == pathlib.Path(os.environ["DAGSTER_SLURM_STAGE"], "payload")
    assert where.is_relative_to(os.environ["DISK"])
    for name in sys.argv[1:]:
        name = name.replace("RANK", os.environ.get("SLURM_PROCID", "0"))
        pathlib.Path(name).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(name).write_text(str(where))
    print("stage is", where)
"""
READ = """
    import os, pathlib, sys

    paths = [pathlib.Path(os.environ["DAGSTER_SLURM_INPUT_TABLE"]), *map(pathlib.Path, sys.argv[1:])]
    assert all(path.is_relative_to(os.environ["DAGSTER_SLURM_STAGE"]) for path in paths), paths
    pathlib.Path("read").write_text(" ".join(path.read_text() for path in paths))
"""
WAIT = """
    import os, pathlib, signal, sys, time

    restart = os.environ["DAGSTER_SLURM_RESTART_COUNT"]
    pathlib.Path("made." + restart).write_text("half")
    asked = []
    for name in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(name, lambda *_: asked.append(1))
    beside = pathlib.Path(os.environ["DISK"] + ".began." + restart)
    beside.write_text(os.environ["SLURM_JOB_ID"])
    while not asked and not pathlib.Path(os.environ["DISK"] + ".gate").exists():
        time.sleep(0.05)
    pathlib.Path("made." + restart).write_text("whole")
    if asked:
        pathlib.Path(os.environ["DAGSTER_SLURM_CHECKPOINT"], "state").write_text("7")
        sys.exit(75)
"""


@pytest.fixture(params=["local", pytest.param("staging", marks=ON_SLURM)])
def profile(request: pytest.FixtureRequest, project: Project) -> str:
    if request.param == "staging":
        project.staging(request.getfixturevalue("cluster"))
    project.write("make.py", MAKE)
    disk(project)
    return str(request.param)


def disk(project: Project) -> Path:
    """Return the folder that is a node's own."""
    folder = project.root / "disk of the node"
    folder.mkdir(exist_ok=True)
    return folder


def scripts(project: Project, text: str) -> Path:
    defaults = f"{{stage: $DISK, env: {{DISK: '{disk(project)}'}}}}"
    return project.scripts(f"defaults: {defaults}\nscripts:\n  - {text}\n    assets: [{{key: a}}]\n")


def run_directory(result: dg.ExecuteInProcessResult) -> Path:
    (event,) = result.get_asset_materialization_events()
    return Path(str(event.materialization.metadata["job/run_directory"].value))


@pytest.mark.parametrize(
    "launcher",
    ["{type: bash}", "{type: srun}"],
)
def test_what_is_made_on_the_node_is_an_output(
    project: Project, instance: dg.DagsterInstance, profile: str, launcher: str
) -> None:
    scripts(
        project,
        f"""payload: make.py
    args: ["out/a b.RANK", "$(id)"]
    launcher: {launcher}
    resources: {{nodes: 1, ntasks: 2}}
    outputs: {{all: "out/*", odd: "[$](id)"}}""",
    )
    result = project.run(profile, instance=instance)
    assert result.success, failure_text(result)
    payload = run_directory(result) / "payload"
    ranks = 2 if profile == "staging" and "srun" in launcher else 1
    assert sorted(each.name for each in (payload / "out").iterdir()) == [f"a b.{n}" for n in range(ranks)]
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["output/all"].value.splitlines()[0] == f"* `{payload}/out`"
    assert not list(disk(project).iterdir())


def test_each_element_of_an_array_has_a_copy_of_its_own(
    project: Project, instance: dg.DagsterInstance, profile: str
) -> None:
    project.scripts(f"""
scripts:
  - payload: make.py
    args: ["out/{{{{ partition_key }}}}"]
    stage: $DISK
    env: {{DISK: '{disk(project)}'}}
    outputs: {{all: out}}
    array: {{keys_per_task: 2}}
    op: {{backfill_policy: {{type: single_run}}}}
    assets: [{{key: a, partitions_def: {{type: static, partition_keys: [x, y, zz]}}}}]
""")
    tags = {"dagster/asset_partition_range_start": "x", "dagster/asset_partition_range_end": "zz"}
    result = project.run(profile, instance=instance, tags=tags)
    assert result.success, failure_text(result)
    made = [event.materialization.metadata for event in result.get_asset_materialization_events()]
    files = [
        file for each in made for file in Path(str(each["job/run_directory"].value)).glob("payload/out/*")
    ]
    assert sorted(file.name for file in files) == ["x", "y", "zz"]
    assert len({file.read_text() for file in files}) == 3
    assert not list(disk(project).iterdir())


def test_inputs_are_read_on_the_node(project: Project, instance: dg.DagsterInstance, profile: str) -> None:
    project.write("data.csv", "1,2")
    project.write("images/a b/x", "3")
    project.write("read.py", READ)
    scripts(
        project,
        """payload: read.py
    args: ["{{ inputs.table }}", "{{ inputs.images }}/a b/x"]
    inputs: {table: "file:data.csv", images: "file:images"}
    outputs: {read: read}""",
    )
    result = project.run(profile, instance=instance)
    assert result.success, failure_text(result)
    assert (run_directory(result) / "payload/read").read_text() == "1,2 1,2 3"
    assert (project.defs / "data.csv").read_text() == "1,2"
    assert not list(disk(project).iterdir())


def test_what_the_node_cannot_give_fails_the_step_before_the_payload(
    project: Project, instance: dg.DagsterInstance, profile: str
) -> None:
    scripts(project, "payload: make.py\n    stage: $DISK/absent")
    result = project.run(profile, instance=instance)
    assert not result.success
    text = failure_text(result)
    assert "What the payload works on could not be copied to the node on " in text
    assert f"there is no folder {disk(project)}/absent, which `stage` names" in text


def test_what_cannot_be_brought_back_fails_the_step(
    project: Project, instance: dg.DagsterInstance, profile: str
) -> None:
    project.write("vanish.py", 'import os, shutil; shutil.rmtree(os.environ["DAGSTER_SLURM_STAGE"])')
    scripts(project, "payload: vanish.py")
    result = project.run(profile, instance=instance)
    assert not result.success
    text = failure_text(result)
    assert "The payload ended well on " in text
    assert "Not all that it made could be copied back." in text


@pytest.fixture
def waiting(project: Project, cluster: slurm.Cluster) -> Path:
    """A payload on the cluster that waits for a signal, or for a file; return the folder that is the node's own."""
    project.staging(cluster)
    project.write("wait.py", WAIT)
    return disk(project)


def began(node: Path, restart: int = 0) -> str:
    """Wait for a start of the payload; return its job."""
    file = node.with_name(f"{node.name}.began.{restart}")
    return eventually(lambda: file.exists() and file.read_text(), f"start {restart}")


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()


def payload_of(project: Project) -> Path:
    (ledger,) = (project.root / "cluster work" / "runs").rglob("ledger")
    return ledger.parent / "payload"


@pytest.mark.slurm
@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["scancel", "JOB"], "was cancelled"),
        (["scontrol", "update", "JobId=JOB", "TimeLimit=0:01"], "time limit"),
    ],
    ids=["scancel", "time limit"],
)
def test_what_was_made_comes_back_when_slurm_ends_the_job(
    project: Project,
    instance: dg.DagsterInstance,
    cluster: slurm.Cluster,
    waiting: Path,
    command: list[str],
    told: str,
) -> None:
    scripts(project, 'payload: wait.py\n    resources: {time: "00:10:00"}')

    def act() -> None:
        job = began(waiting)
        cluster.run([word.replace("JOB", job) for word in command])

    with meanwhile(act):
        result = project.run("staging", instance=instance)
    assert not result.success
    assert told in failure_text(result)
    assert (payload_of(project) / "made.0").read_text() == "whole"
    assert not list(waiting.iterdir())


@pytest.mark.slurm
@pytest.mark.slow
@pytest.mark.parametrize("how", ["checkpoint", "scontrol requeue"])
def test_a_requeued_job_begins_with_what_came_back(
    project: Project, instance: dg.DagsterInstance, cluster: slurm.Cluster, waiting: Path, how: str
) -> None:
    scripts(
        project,
        "payload: wait.py\n    requeue_on_timeout: 1\n"
        '    resources: {time: "00:10:00", signal: USR1@60}\n    outputs: {made: "made.*"}',
    )

    def act() -> None:
        job = began(waiting)
        if how == "checkpoint":
            cluster.run(["scancel", "--batch", "--signal=USR1", job])
        else:
            cluster.run(["scontrol", "requeue", job])
        assert began(waiting, 1) == job
        waiting.with_name(f"{waiting.name}.gate").touch()

    with meanwhile(act):
        result = project.run("staging", instance=instance)
    assert result.success, failure_text(result)
    assert sorted(each.read_text() for each in payload_of(project).glob("made.*")) == ["whole", "whole"]
    assert not list(waiting.iterdir())


@pytest.mark.slurm
@pytest.mark.slow
def test_a_run_that_asks_for_several_nodes_submits_nothing(
    project: Project, instance: dg.DagsterInstance, cluster: slurm.Cluster
) -> None:
    project.staging(cluster)
    project.write("make.py", MAKE)
    file = scripts(project, "payload: make.py\n    resources: {nodes: 1}")
    result = project.run(
        "staging", instance=instance, run_config={"ops": {"a": {"config": {"resources": {"nodes": "2"}}}}}
    )
    assert not result.success
    text = failure_text(result)
    assert f"{file}:3:" in text
    assert "`stage` copies to one node, and 2 nodes are asked for" in text
    assert not list((project.root / "cluster work" / "runs").rglob("ledger"))
