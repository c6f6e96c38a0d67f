"""`slurm_executor`: what Dagster promises of its executors holds for steps that are threads of one process."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.storage.compute_log_manager import ComputeIOType
from ownership.work import SOON, Run, Work, everywhere
from waiting import eventually

STATUS = dg.DagsterRunStatus
THREADS: Mapping[str, Any] = {}
SCRIPTS = """
type: dagster_slurm_components.SlurmScriptComponent
attributes:
  scripts:
"""
SCRIPT = """
    - payload: {payload}
      args: [{name}]
      assets: [{{key: {name}{deps}}}]
"""
RESUMING = """
telemetry: {enabled: false}
run_launcher: {module: ownership.launcher, class: ResumingRunLauncher}
run_monitoring: {enabled: true, max_resume_run_attempts: 1}
"""
THREADED = """
import os

THREAD = {"slurm/step": "thread"}


def wait(context, compute, name):
    print(f"before {name} in {os.getpid()}")
    yield from compute.run(context=context, payload_path=ACT, args=[name]).get_results()
    print(f"after {name}")
"""


def scripts(work: Work, *names: str, deps: Mapping[str, str] | None = None) -> None:
    """Write scripts, one a name, whose payloads wait at their gates."""
    texts = [
        SCRIPT.format(
            payload=work.act,
            name=name,
            deps=f", deps: [{(deps or {})[name]}]" if name in (deps or {}) else "",
        )
        for name in names
    ]
    (work.project.defs / "defs.yaml").write_text(SCRIPTS + "".join(texts))


def output(work: Work, run: Run, step: str, kind: ComputeIOType = ComputeIOType.STDOUT) -> str:
    """Return what Dagster's UI shows as a step's output."""
    manager = work.instance.compute_log_manager
    for entry in reversed(work.instance.all_logs(run.id, of_type=dg.DagsterEventType.LOGS_CAPTURED)):
        event = entry.dagster_event
        if event is not None and step in (event.logs_captured_data.step_keys or ()):
            key = manager.build_log_key_for_run(run.id, event.logs_captured_data.file_key)
            assert manager.is_capture_complete(key)
            data = manager.get_log_data(key)
            text = data.stdout if kind is ComputeIOType.STDOUT else data.stderr
            return (text or b"").decode()
    raise AssertionError(f"no output of {step} was captured")


@everywhere
def test_scripts_wait_side_by_side_in_one_process_and_each_has_its_own_output(
    work: Work, profile: str
) -> None:
    names = [f"s{number}" for number in range(6)]
    work.file("say.sh", f'echo "out of $1"; echo "err of $1" >&2; . "{work.act}"')
    texts = [SCRIPT.format(payload=work.project.root / "say.sh", name=name, deps="") for name in names]
    (work.project.defs / "defs.yaml").write_text(SCRIPTS + "".join(texts))
    run = work.start(executor=THREADS)
    for name in names:
        work.begins(name)
    assert len(work.live()) == 6  # no step waits for another's end
    work.open()
    run.ends()
    for name in names:
        assert output(work, run, name) == f"out of {name}\n"
        # Dagster's own log lines are there too, as in any step's stderr.
        errors = output(work, run, name, ComputeIOType.STDERR).splitlines()
        assert [line for line in errors if line.startswith("err of")] == [f"err of {name}"]
    assert "Launching subprocess" not in work.said(run.id)


@everywhere
def test_a_run_ends_with_its_jobs_over_time(work: Work, profile: str) -> None:
    bad = work.file("bad.sh", "exit 3")
    more = f"""
    - payload: {bad}
      assets: [{{key: bad}}]
    - payload: {work.act}
      args: ["{{{{ partition_key }}}}"]
      array: {{}}
      op: {{backfill_policy: {{type: single_run}}}}
      assets: [{{key: days, partitions_def: {{type: static, partition_keys: [x, y]}}}}]
"""
    scripts(work, "a")
    file = work.project.defs / "defs.yaml"
    file.write_text(file.read_text() + more)
    work.open()
    run = work.start(select=["a", "bad"], executor=THREADS)
    run.ends(STATUS.FAILURE)
    assert {(row[1], row[-1]) for row in timeline(work, run)} == {("a", "COMPLETED"), ("bad", "FAILED")}
    tags = {"dagster/asset_partition_range_start": "x", "dagster/asset_partition_range_end": "y"}
    run = work.start(select=["days"], executor=THREADS, tags=tags)
    run.ends()
    assert [(row[1], row[-1]) for row in timeline(work, run)] == [("days x...y (2 elements)", "COMPLETED")]


def timeline(work: Work, run: Run) -> list[list[str]]:
    """Return the rows of the one event in a run's log that tells of its jobs over time."""
    entries = work.instance.all_logs(run.id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    events = [entry.dagster_event.engine_event_data.metadata for entry in entries if entry.dagster_event]
    (told,) = (metadata for metadata in events if "run/timeline" in metadata)
    assert str(told["run/timeline"].value).startswith("![jobs over time](data:image/svg+xml;base64,")
    rows = [re.split("  +", line) for line in str(told["run/jobs"].value).splitlines()[2:-2]]
    for _, _, _, waited, ran, _ in rows:
        assert all(re.fullmatch("[0-9]{2}:[0-9]{2}:[0-9]{2}", each) for each in (waited, ran))
    return rows


def test_python_assets_join_by_a_tag_and_any_other_step_is_a_process(work: Work) -> None:
    work.assets(
        THREADED
        + """
@dg.asset(op_tags=THREAD)
def a(context: dg.AssetExecutionContext, compute: ComputeResource):
    yield from wait(context, compute, "a")


@dg.asset(op_tags=THREAD)
def b(context: dg.AssetExecutionContext, compute: ComputeResource):
    yield from wait(context, compute, "b")


@dg.asset(deps=[a])
def c():
    print(f"before c in {os.getpid()}")
"""
    )
    run = work.start(executor=THREADS)
    work.begins("a")
    work.begins("b")
    work.open()
    assert run.process is not None
    run.ends()
    pid = run.process.pid
    for name in "ab":
        assert output(work, run, name).splitlines() == [f"before {name} in {pid}", f"after {name}"]
    (line,) = output(work, run, "c").splitlines()
    assert line.startswith("before c in ")
    assert line != f"before c in {pid}"


@everywhere
def test_termination_ends_all_jobs_and_processes(work: Work, profile: str) -> None:
    names = [f"s{number}" for number in range(4)]
    scripts(work, *names)
    work.assets(
        THREADED
        + """
import time


@dg.asset
def slow():
    (ROOT / "slow").touch()
    time.sleep(300)


@dg.asset(op_tags=THREAD)
def a(context: dg.AssetExecutionContext, compute: ComputeResource):
    yield from wait(context, compute, "a")
"""
    )
    run = work.start(executor=THREADS)
    for name in (*names, "a"):
        work.begins(name)
    eventually((work.project.root / "slow").exists, "the process runs", SOON)
    work.terminate(run)
    assert not work.trace("end")
    assert 'Execution of step "slow" failed.' in work.said(run.id)


@everywhere
def test_jobs_of_a_killed_process_are_taken_up(work: Work, profile: str) -> None:
    names = [f"s{number}" for number in range(4)]
    scripts(work, *names)
    run = work.start(executor=THREADS)
    for name in names:
        work.begins(name)
    jobs = work.jobs()
    run.kill()
    work.instance.report_run_failed(work.run(run.id))
    again = work.start(parent=run.id, executor=THREADS)
    for job in jobs:
        work.hears(again, f"Job {job} taken up again")
    work.open()
    again.ends()
    assert work.jobs() == jobs
    assert work.trace("begin") == work.trace("end") == dict.fromkeys(names, 1)


def test_a_run_goes_on_after_its_process_died(work: Work) -> None:
    """As Dagster's run monitoring does it where a launcher can resume runs."""
    scripts(work, "a", "b", deps={"b": "a"})
    run = work.start(executor=THREADS)
    work.begins("a")
    jobs = work.jobs()
    run.kill()
    Path(work.instance.root_directory, "dagster.yaml").write_text(RESUMING)
    resumed = work.start(resume=run.id, executor=THREADS)
    work.open()
    eventually(lambda: resumed.process is not None and resumed.process.poll() is not None, "it ends", SOON)
    assert work.status(run.id) is STATUS.SUCCESS, work.said(run.id) + resumed.log
    assert jobs[0] in work.jobs()
    assert work.trace("begin") == work.trace("end") == {"a": 1, "b": 1}


def test_no_more_jobs_wait_at_once_than_max_jobs(work: Work) -> None:
    names = [f"s{number}" for number in range(5)]
    scripts(work, *names)
    run = work.start(executor={"max_jobs": 2})
    eventually(lambda: len(work.live()) == 2, "two jobs run", SOON)
    for name in names:
        work.open(name)
    run.ends()
    assert work.trace("end") == dict.fromkeys(names, 1)


def test_a_step_is_tried_again_by_its_policy_whatever_it_is(work: Work) -> None:
    work.assets(
        THREADED
        + """
POLICY = dg.RetryPolicy(max_retries=1, delay=0.1)


def first(context, name):
    mark = ROOT / f"tried {name}"
    tried = mark.exists()
    mark.touch()
    return not tried


@dg.asset(op_tags=THREAD, retry_policy=POLICY)
def a(context: dg.AssetExecutionContext):
    if first(context, "a"):
        raise RuntimeError("the first try")


@dg.asset(op_tags=THREAD)
def b(context: dg.AssetExecutionContext):
    if first(context, "b"):
        raise dg.RetryRequested(max_retries=1)


@dg.asset(retry_policy=POLICY)
def c(context: dg.AssetExecutionContext):
    if first(context, "c"):
        os._exit(7)


@dg.asset(op_tags=THREAD)
def d(context: dg.AssetExecutionContext):
    raise dg.Failure("the only try")


@dg.asset(deps=[d])
def e():
    raise AssertionError("never executed")
"""
    )
    run = work.start(executor=THREADS)
    run.ends(STATUS.FAILURE)
    said = work.said(run.id)
    events = work.instance.all_logs(run.id)
    kinds = [
        (each.dagster_event.event_type_value, each.dagster_event.step_key)
        for each in events
        if each.dagster_event
    ]
    for name in "abc":
        assert ("STEP_RESTARTED", name) in kinds, said
        assert ("STEP_SUCCESS", name) in kinds
    assert ("STEP_FAILURE", "d") in kinds
    assert ("STEP_START", "e") not in kinds
    assert "The process of step c ended with exit code 7." in said
    assert "the only try" in said


def test_dynamic_outputs_hooks_and_skips(work: Work) -> None:
    (work.project.root / "src" / work.project.package / "job.py").write_text(
        """
import dagster as dg

from dagster_slurm_components import slurm_executor

THREAD = {"slurm/step": "thread"}


@dg.success_hook
def cheers(context):
    context.log.info(f"hook of {context.step_key}")


@dg.op(out=dg.DynamicOut(), tags=THREAD)
def split():
    for each in "xyz":
        yield dg.DynamicOutput(each, each)


@dg.op(tags=THREAD, hooks=None) if False else dg.op(tags=THREAD)
def double(part):
    return part * 2


@dg.op(tags=THREAD)
def join(parts):
    return "".join(parts)


@dg.op(out={"yes": dg.Out(is_required=False), "no": dg.Out(is_required=False)}, tags=THREAD)
def choose(text):
    assert text == "xxyyzz"
    yield dg.Output(text, "yes")


@dg.op(tags=THREAD)
def taken(text):
    return text


@dg.op
def left_out(text):
    raise AssertionError("skipped")


@dg.job(executor_def=slurm_executor, hooks={cheers})
def threads():
    yes, no = choose(join(split().map(double).collect()))
    taken(yes)
    left_out(no)
"""
    )
    run = work.start(executor=THREADS)
    run.ends()
    said = work.said(run.id)
    assert {f"hook of double[{each}]" for each in "xyz"} <= set(said.splitlines())
    events = work.instance.all_logs(run.id, of_type=dg.DagsterEventType.STEP_SKIPPED)
    assert [entry.dagster_event.step_key for entry in events if entry.dagster_event] == ["left_out"]


def test_a_pool_and_a_tag_limit_hold_back_threads_too(work: Work) -> None:
    work.instance.event_log_storage.set_concurrency_slots("narrow", 1)
    texts = [
        SCRIPT.format(payload=work.act, name=name, deps="") + "      op: {pool: narrow}\n"
        for name in ("a", "b", "c")
    ]
    (work.project.defs / "defs.yaml").write_text(SCRIPTS + "".join(texts))
    run = work.start(executor=THREADS)
    eventually(lambda: len(work.live()) == 1, "one runs", SOON)
    eventually(lambda: "blocked by limit for pool narrow" in work.said(run.id), "the others wait", SOON)
    assert len(work.live()) == 1
    work.open()
    run.ends()


def test_wrong_limits_are_refused(work: Work) -> None:
    scripts(work, "a")
    run = work.start(executor={"max_jobs": 0})
    run.ends(STATUS.FAILURE)
    assert "`max_jobs` of the executor `slurm` is 0" in work.said(run.id) + run.log
    assert not work.jobs()


def test_a_resource_that_fails_fails_its_steps_alone(work: Work) -> None:
    work.assets(
        THREADED
        + """
class Broken(dg.ConfigurableResource):
    def setup_for_execution(self, context):
        raise RuntimeError("no such database")


@dg.asset(op_tags=THREAD, resource_defs={"broken": Broken()})
def a(broken: Broken):
    raise AssertionError("never executed")


@dg.asset
def b():
    pass
"""
    )
    run = work.start(executor=THREADS)
    run.ends(STATUS.FAILURE)
    kinds = {
        (each.dagster_event.event_type_value, each.dagster_event.step_key)
        for each in work.instance.all_logs(run.id)
        if each.dagster_event
    }
    assert ("STEP_SUCCESS", "b") in kinds
    assert ("STEP_FAILURE", "a") in kinds
    assert "no such database" in work.said(run.id)
