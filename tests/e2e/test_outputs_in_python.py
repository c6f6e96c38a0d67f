"""Outputs of scripts as arguments of Python assets, under both schedulers, whatever the profile is by then."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from fault_proxy import FaultProxy
from project_fixture import Project, failure_text
from upath import UPath
from waiting import PATIENCE, eventually

import slurm_testcluster as slurm
from dagster_slurm_components import HostPathIOManager
from dagster_slurm_components.errors import DagsterSlurmError, HostUnreachableError
from dagster_slurm_components.hosts import ssh
from dagster_slurm_components.pipes import bring as bringing
from dagster_slurm_components.pipes.call import INTERRUPTION

PROFILES = ["local", pytest.param("staging", marks=[pytest.mark.slurm, pytest.mark.slow])]
MAKE = """
import os, sys
from pathlib import Path

for name in sys.argv[1:]:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text('{"name": "%s"}' % os.path.basename(name))
"""


@pytest.fixture(params=PROFILES)
def profile(request: pytest.FixtureRequest, project: Project) -> str:
    if request.param == "staging":
        project.staging(request.getfixturevalue("cluster"))
    project.write("make.py", MAKE)
    return str(request.param)


def run(
    project: Project,
    profile: str,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    *assets: Any,
) -> dg.ExecuteInProcessResult:
    """Materialize the project's scripts in a profile, or Python assets that take what these have made."""
    monkeypatch.setenv("DAGSTER_SLURM_PROFILE", profile)
    with project.definitions() as scripts:
        resources = {"files": HostPathIOManager()}
        rest = dg.Definitions(assets, resources=resources)
        job = dg.Definitions.merge(scripts, rest).resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            instance=instance,
            raise_on_error=False,
            asset_selection=[each.key for each in assets] or None,
        )


def made(project: Project, profile: str, instance: dg.DagsterInstance, key: str = "a") -> dict[str, Any]:
    """Make a script's asset; return what is told of it."""
    result = project.run(profile, instance=instance)
    assert result.success, failure_text(result)
    event = instance.get_latest_materialization_event(dg.AssetKey(key))
    assert event is not None
    assert event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def taking(kind: Any, got: list[Any], **words: Any) -> dg.AssetsDefinition:
    """Return a Python asset that takes an asset, `a`, as an argument of a type, and puts it into a list."""

    def takes(value):
        got.append(value)

    takes.__annotations__ = {"value": kind, "return": None}
    return dg.asset(ins={"value": dg.AssetIn(**{"key": "a", **words})})(takes)


Take = Callable[..., Any]


@pytest.fixture
def take(project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Take:
    """Return what gives an asset's argument, or what its step is told."""

    def take(kind: Any, profile: str = "local", **words: Any) -> Any:
        got: list[Any] = []
        result = run(project, profile, instance, monkeypatch, taking(kind, got, **words))
        return got[0] if result.success else failure_text(result)

    return take


def named(name: str, **words: Any) -> dict[str, Any]:
    return {"metadata": {"output": name}, **words}


def test_an_output_is_what_the_argument_says(
    project: Project, instance: dg.DagsterInstance, profile: str, take: Take
) -> None:
    project.scripts("""
scripts:
  - payload: make.py
    args: [r.json, "w/a b;$(x)", w/deep/b, "w/\\u00e9\\n", out/1.txt, out/2.txt, out/1.log]
    outputs:
      report: r.json
      weights: {path: w, pull: true}
      texts: "out/*.txt"
      maybe: {path: none, optional: true}
    assets: [{key: a}]
""")
    told = made(project, profile, instance)
    report = take(Path, **named("report"))
    cache = project.root / ".dagster-slurm/outputs/cache"
    assert report.is_relative_to(cache)
    assert (report.name, report.read_text()) == ("r.json", '{"name": "r.json"}')
    on_host = Path(told["output/report/path"])
    assert (report.stat().st_ino == on_host.stat().st_ino) == (profile == "local")
    assert take(dict, **named("report")) == {"name": "r.json"}
    assert take(str, **named("report")) == '{"name": "r.json"}'
    assert take(bytes, **named("report")) == b'{"name": "r.json"}'
    assert isinstance(take(UPath, **named("report")), UPath)
    weights = take(Path, **named("weights"))
    assert str(weights) == told["output/weights/pulled"]
    assert (weights / "a b;$(x)").read_text() == '{"name": "a b;$(x)"}'
    shutil.rmtree(weights)
    again = take(Path, **named("weights"))
    assert again.is_relative_to(cache)
    assert sorted(each.name for each in again.rglob("*")) == ["a b;$(x)", "b", "deep", "\u00e9\n"]
    texts = take(Path, **named("texts"))
    assert sorted(each.name for each in texts.iterdir()) == ["1.txt", "2.txt"]
    assert "Output `texts` of `a` has 2 files, and no single `str`: take it as a `Path`." in take(
        str, **named("texts")
    )
    assert take(Path | None, **named("maybe")) is None
    gone = (
        "Output `maybe` is asked for of `a`, whose newest materialization has `report`, `weights`, `texts`."
    )
    assert gone in take(Path, **named("maybe"))
    several = '`a` has the outputs `report`, `weights`, `texts`. Name one, by `dg.AssetIn(metadata={"output": NAME})`.'
    assert several in take(Path)
    assert several in take(dict, input_manager_key="files")
    assert take(dict) == {}, "what was reported"
    both = {"metadata": {"output": "report", "value": "x"}}
    assert "names a `value` and an `output`: it can be one of both." in take(Path, **both)


def test_the_only_output_needs_no_name(
    project: Project, instance: dg.DagsterInstance, profile: str, take: Take
) -> None:
    project.scripts("""
scripts:
  - {payload: make.py, args: [r.json], outputs: {report: r.json}, assets: [{key: a}]}
  - {payload: make.py, outputs: {r: {path: none, optional: true}}, assets: [{key: b}]}
""")
    made(project, profile, instance)
    assert take(Path).name == "r.json"
    assert take(dict) == {}, "what was reported"
    of_files = {"input_manager_key": "files"}
    assert take(dict, **of_files) == {"name": "r.json"}
    assert take(Path, **of_files) == take(Any, **of_files) == take(Path)
    assert take(str, metadata={"value": "job/state"}, **of_files) == "COMPLETED"
    assert "can't be had as `int`. It can be `Path`, `UPath`, `str`," in take(int, **of_files)
    with project.definitions() as definitions:  # as in a notebook
        path = definitions.load_asset_value("a", instance=instance, python_type=Path)
    assert path == take(Path)
    assert "One Path is asked for of `b`, whose newest materialization reports nothing." in take(
        Path, key="b"
    )
    none = "An output is asked for of `b`, whose newest materialization has no outputs."
    assert none in take(Path, key="b", **of_files)


def test_each_partition_has_its_own(
    project: Project, instance: dg.DagsterInstance, profile: str, take: Take
) -> None:
    project.scripts("""
scripts:
  - payload: make.py
    args: ["{{ partition_key }}.json"]
    outputs: {made: "{{ partition_key }}.json"}
    array: {max_parallel: 2}
    op: {backfill_policy: {type: single_run}}
    assets: [{key: a, io_manager_key: files, partitions_def: {type: static, partition_keys: [x, y]}}]
""")
    package = project.defs.parent / "python.py"
    package.write_text(
        "import dagster as dg\nfrom dagster_slurm_components import HostPathIOManager\n\n\n"
        "@dg.definitions\ndef resources():\n"
        "    return dg.Definitions(resources={'files': HostPathIOManager()})\n"
    )
    ends = {"dagster/asset_partition_range_start": "x", "dagster/asset_partition_range_end": "y"}
    result = project.run(profile, instance=instance, tags=ends)
    assert result.success, failure_text(result)
    package.write_text("")
    assert take(dict[str, dict]) == {"x": {"name": "x.json"}, "y": {"name": "y.json"}}
    assert {key: path.name for key, path in take(dict[str, Path]).items()} == {"x": "x.json", "y": "y.json"}


def test_what_has_changed_on_the_host_is_told(
    project: Project, instance: dg.DagsterInstance, profile: str, take: Take
) -> None:
    project.scripts("scripts: [{payload: make.py, args: [r.json], outputs: {r: r.json}, assets: [{key: a}]}]")
    on_host = Path(made(project, profile, instance)["output/r/path"])
    (on_host.parent / "other").write_text('{"name": "x.json"}')
    shutil.move(on_host.parent / "other", on_host)
    told = take(Path)
    assert f"{on_host} is not what it was when its job ended" in told
    on_host.write_text('{"name": "r.json"}')
    take(Path).write_bytes(b"mine")
    if profile == "staging":
        assert take(str, **named("r")) == '{"name": "r.json"}', "brought again"
    else:
        assert f"{on_host} is not what it was when its job ended" in take(str, **named("r")), (
            "one file, two names"
        )


def test_what_was_published_outlives_its_run_directory(
    project: Project, instance: dg.DagsterInstance, profile: str, take: Take
) -> None:
    data = project.root / "data"
    project.scripts(f"""
scripts:
  - payload: make.py
    args: [r.json, w/a, "w/deep/b\\n;"]
    outputs:
      one: {{path: r.json, to: "{data}/other name.json"}}
      all: {{path: w, to: "{data}/w"}}
      left: r.json
    assets: [{{key: a}}]
""")
    run_dir = made(project, profile, instance)["job/run_directory"]
    shutil.rmtree(run_dir)
    assert take(dict, **named("one")) == {"name": "r.json"}
    weights = take(Path, **named("all"))
    assert sorted(each.name for each in weights.rglob("*")) == ["a", "b\n;", "deep"]
    removed = f"output `left` can't be brought any more: the run directory {run_dir} was removed"
    assert removed in take(Path, **named("left"))
    shutil.rmtree(data)
    assert take(dict, **named("one")) == {"name": "r.json"}, "it is here"
    cache = project.root / ".dagster-slurm/outputs/cache"
    shutil.rmtree(cache)
    assert f"{data}/other name.json and the run directory {run_dir} were removed" in take(
        Path, **named("one")
    )
    data.mkdir()
    (data / "other name.json").write_text("another")
    assert "other name.json is not what it was when its job ended" in take(Path, **named("one"))
    assert list(cache.rglob("*.json")) == []


@pytest.mark.slurm
@pytest.mark.slow
def test_it_comes_from_where_it_was_made(
    project: Project, instance: dg.DagsterInstance, cluster: slurm.Cluster, take: Take
) -> None:
    project.staging(cluster)
    project.write("make.py", MAKE)
    project.scripts(
        "scripts: [{payload: make.py, args: [r.json, s.json], outputs: {r: r.json, s: s.json}, assets: [{key: a}]}]"
    )
    made(project, "staging", instance)
    first = take(Path, **named("r"))
    assert first.read_text() == '{"name": "r.json"}'
    file = project.root / "profiles/staging.yaml"
    words = yaml.safe_load(file.read_text())
    words["host"] |= {"port": 1, "agent": False}
    file.write_text(yaml.safe_dump(words))
    assert take(Path, **named("r")) == first, "which needs no host"
    assert HostUnreachableError.__name__ in take(Path, **named("s"))
    file.unlink()
    assert "unknown profile `staging`" in take(Path, **named("s"))


@pytest.fixture
def far(project: Project, cluster: slurm.Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """What lies between us and the cluster, once `staging` goes through it."""
    monkeypatch.setattr(ssh, "PAUSES", ())
    project.staging(cluster)
    proxy = FaultProxy(cluster.ssh_port)
    yield proxy
    proxy.close()


def through(proxy: FaultProxy, project: Project) -> None:
    """Let the profile `staging` go through a proxy."""
    file = project.root / "profiles/staging.yaml"
    words = yaml.safe_load(file.read_text())
    host = words["host"]
    known = Path(host["known_hosts_file"]).read_text()
    mine = project.root / "known_hosts"
    mine.write_text(known.replace(f":{host['port']} ", f":{proxy.port} "))
    host |= {
        "port": proxy.port,
        "known_hosts_file": str(mine),
        "agent": False,
        "reconnect_interval": 0.2,
    }
    file.write_text(yaml.safe_dump(words))


@pytest.mark.slurm
@pytest.mark.slow
def test_a_cut_connection_is_waited_for_and_what_has_come_stays(
    project: Project, instance: dg.DagsterInstance, far: FaultProxy, take: Take
) -> None:
    size = 64 * 2**20
    project.write("big.py", f"import os; open('big', 'wb').write(os.urandom({size}))")
    project.scripts("scripts: [{payload: big.py, outputs: {big: big}, assets: [{key: a}]}]")
    on_host = Path(made(project, "staging", instance)["output/big/path"])
    through(far, project)
    far.delay = 0.001
    cache = project.root / ".dagster-slurm/outputs/cache"

    def here() -> int:
        return sum(each.stat().st_size for each in cache.rglob("*.part") if each.is_file())

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(take, Path)
        eventually(lambda: waiting.done() or here() > 2**20, "some of it is here", pause=0.01)
        before, accepted = here(), far.accepted
        assert 0 < before < size
        far.cut()
        far.delay = 0.0
        path = waiting.result(PATIENCE)
    assert far.accepted > accepted
    assert path.read_bytes() == on_host.read_bytes()


@pytest.mark.slurm
@pytest.mark.slow
def test_who_is_interrupted_while_the_host_is_away_ends_and_the_next_goes_on(
    project: Project, instance: dg.DagsterInstance, far: FaultProxy
) -> None:
    size = 64 * 2**20
    project.write("big.py", f"import os; open('big', 'wb').write(os.urandom({size}))")
    project.scripts("scripts: [{payload: big.py, outputs: {big: big}, assets: [{key: a}]}]")
    output, told = output_of(project, "staging", instance), list[str]()
    through(far, project)
    far.delay = 0.001
    cache = project.root / ".dagster-slurm/outputs/cache"

    def here() -> int:
        return sum(each.stat().st_size for each in cache.rglob("*.part") if each.is_file())

    def bring(interruption: Future[None]) -> Path:
        INTERRUPTION.set(interruption)
        return bringing.bring(output, project.root, told.append)

    interruption: Future[None] = Future()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(copy_context().run, bring, interruption)
        eventually(lambda: first.done() or here() > 2**20, "some of it is here", pause=0.01)
        second = pool.submit(copy_context().run, bring, interruption)
        far.refuse = True
        far.cut()
        eventually(lambda: any("This step waits" in line for line in told), "it waits")
        assert not second.done()
        interruption.set_result(None)
        for waiting in (first, second):
            with pytest.raises(dg.DagsterExecutionInterruptedError):
                waiting.result(PATIENCE)
    before = here()
    assert before > 2**20
    far.refuse, far.delay = False, 0.0
    path = eventually(
        lambda: reached(lambda: bringing.bring(output, project.root, told.append)), "the host is there again"
    )
    assert path.read_bytes() == Path(output.path or "").read_bytes()
    assert here() == 0


def reached(ask: Callable[[], Path]) -> Path | None:
    """Return what comes, or nothing while no new connection is tried: there is a pause after one that failed."""
    try:
        return ask()
    except HostUnreachableError:
        return None


def output_of(project: Project, profile: str, instance: dg.DagsterInstance) -> bringing.Output:
    """Make the asset `a`; return its one output."""
    made(project, profile, instance)
    event = instance.get_latest_materialization_event(dg.AssetKey("a"))
    assert event is not None
    assert event.asset_materialization is not None
    (output,) = bringing.outputs_of(event.asset_materialization.metadata).values()
    return output


def test_of_several_steps_that_ask_at_once_one_brings_it(
    project: Project, instance: dg.DagsterInstance, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.scripts("scripts: [{payload: make.py, args: [w/a, w/b], outputs: {w: w}, assets: [{key: a}]}]")
    output = output_of(project, profile, instance)
    brought: list[str] = []
    read = bringing.read_outputs

    def counted(*args: Any) -> Any:
        brought.append(args[1])
        return read(*args)

    monkeypatch.setattr(bringing, "read_outputs", counted)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(bringing.bring, output, project.root, lambda line: None) for _ in range(8)]
        (path,) = {each.result(PATIENCE) for each in asked}
    assert sorted(each.name for each in path.iterdir()) == ["a", "b"]
    assert brought == [output.run_dir]


def test_there_has_to_be_room(
    project: Project, instance: dg.DagsterInstance, profile: str, take: Take
) -> None:
    project.scripts("scripts: [{payload: make.py, args: [r], outputs: {r: r}, assets: [{key: a}]}]")
    made(project, profile, instance)
    (project.root / ".dagster-slurm").mkdir(exist_ok=True)
    (project.root / ".dagster-slurm/outputs").write_text("in the way")
    told = take(Path)
    assert DagsterSlurmError.__name__ in told
    assert "can't be made: Not a directory" in told
    assert "`pull_to` of the profile says where." in told


def test_from_a_script_to_python_and_back(
    project: Project, instance: dg.DagsterInstance, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write(
        "read.sh", '. pipes.sh\npipes_materialize b "read=$(cat "$DAGSTER_SLURM_INPUT_TABLE")" "from=$1"\n'
    )
    scripts = "{payload: make.py, args: [r.json], outputs: {r: r.json}, assets: [{key: a}]}"
    project.scripts(f"scripts: [{scripts}]")
    made(project, profile, instance)

    @dg.asset(ins={"report": dg.AssetIn("a", metadata={"output": "r"})}, io_manager_key="files")
    def table(report: dict) -> dict:
        return {**report, "rows": 3}

    @dg.asset
    def after(table: dict) -> None:
        assert table == {"name": "r.json", "rows": 3}

    result = run(project, profile, instance, monkeypatch, table, after)
    assert result.success, failure_text(result)
    project.scripts(f"""
scripts:
  - {scripts}
  - {{payload: read.sh, inputs: {{table: asset:table}}, args: ["{{{{ inputs.table }}}}"], assets: [{{key: b}}]}}
""")
    result = project.run(profile, instance=instance, select=["b"])
    assert result.success, failure_text(result)
    (event,) = result.get_asset_materialization_events()
    read = {name: value.value for name, value in event.materialization.metadata.items()}
    assert read["read"] == '{"name": "r.json", "rows": 3}'
    stored = str(project.root / ".dagster-slurm/assets/table/value.json")
    assert (read["from"] == stored) == (profile == "local")
