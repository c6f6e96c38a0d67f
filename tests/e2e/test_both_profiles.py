"""The same YAML, on the laptop's profile and on a real Slurm over ssh."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import dagster as dg
import pytest
from project_fixture import Project, failure_text

import slurm_testcluster as slurm

pytestmark = pytest.mark.slurm

PROFILES = ["local", "staging"]

REPORTS = """
    import json, os, sys
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        print("on stdout")
        print("on stderr", file=sys.stderr)
        pipes.log.info("said through pipes")
        pipes.report_custom_message({"answer": 42})
        pipes.report_asset_materialization(asset_key="first", metadata={"args": json.dumps(sys.argv[1:])})
        pipes.report_asset_materialization(asset_key="second", metadata={"env": os.environ["GREETING"]})
        pipes.report_asset_check(asset_key="first", check_name="is_good", passed=True)
"""

HOSTILE = [
    "a b",
    "it's",
    'say "hi"',
    "$(touch /tmp/hacked)",
    "`id`; true",
    "two\nlines",
    "ünïcödé ☃",
    "-n",
    "*",
    "\\back",
    "a\tb",
    "",
]


def prepare(project: Project, cluster: slurm.Cluster) -> None:
    project.staging(cluster)
    project.write("reports.py", REPORTS)
    project.scripts(
        """
        scripts:
          - payload: reports.py
            args: ["--epochs", "3"]
            env: {GREETING: "hello"}
            resources: {nodes: 1, cpus_per_task: 1, time: "00:05:00"}
            assets: [{key: first}, {key: second}]
            checks: [{name: is_good, asset: first}]
        """
    )


def run_directory(result: dg.ExecuteInProcessResult) -> Path:
    node = next(iter(result.get_step_success_events())).step_key or ""
    value = result.asset_materializations_for_node(node)[0].metadata["job/run_directory"].value
    return Path(str(value))


@pytest.mark.parametrize("profile", PROFILES)
def test_results_checks_logs_and_messages_arrive(
    project: Project,
    cluster: slurm.Cluster,
    instance: dg.DagsterInstance,
    profile: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    prepare(project, cluster)
    result = project.run(profile, instance=instance)
    assert result.success
    found = {
        m.asset_key.to_user_string(): m.metadata
        for m in (e.materialization for e in result.get_asset_materialization_events())
    }
    assert found["first"]["args"].value == json.dumps(["--epochs", "3"])
    assert found["second"]["env"].value == "hello"
    assert found["first"]["job/exit_code"].value == 0
    assert found["first"]["job/profile"].value == profile
    assert [e.passed for e in result.get_asset_check_evaluations()] == [True]
    out, err = capfd.readouterr()
    assert out.count("on stdout\n") == 1
    assert err.count("on stderr\n") == 1
    logged = [record.user_message for record in instance.all_logs(result.run_id)]
    assert sum("said through pipes" in text for text in logged) == 1


@pytest.mark.smoke
def test_the_two_profiles_make_the_same_results_and_run_directory(
    project: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance
) -> None:
    prepare(project, cluster)
    runs = [project.run(profile, instance=instance) for profile in PROFILES]
    listings = []
    for result in runs:
        folder = run_directory(result)
        # Whether Python keeps bytecode is the payload's environment's affair.
        files = {str(path.relative_to(folder)) for path in folder.rglob("*")}
        listings.append({name for name in files if "__pycache__" not in name})
        assert json.loads((folder / "lease").read_text())["state"] == "collected"
        for path in [folder, *folder.rglob("*")]:
            if "__pycache__" not in path.parts:  # the payload's umask is the login's
                mode = stat.S_IMODE(path.stat().st_mode)
                assert mode == (0o700 if path.is_dir() else 0o600), path
    assert listings[0] == listings[1]
    assert {
        "job.sh",
        "launch.sh",
        "launch.args",
        "activate.sh",
        "context.json",
        "ledger",
        "lease",
        "status",
        "messages.jsonl",
        "stdout.log",
        "stderr.log",
        "lib/dagster_pipes.py",
        "payload/reports.py",
    } <= listings[0]
    own = [
        {
            key: {name: value.value for name, value in m.metadata.items() if not name.startswith("job/")}
            for key, m in (
                (e.materialization.asset_key.to_user_string(), e.materialization)
                for e in result.get_asset_materialization_events()
            )
        }
        for result in runs
    ]
    assert own[0] == own[1]


@pytest.mark.parametrize("profile", PROFILES)
def test_hostile_arguments_and_values_arrive_unchanged(
    project: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance, profile: str
) -> None:
    project.staging(cluster)
    name = "it's a $(payload); `x`.py"
    project.write(
        name,
        """
        import json, os, sys
        from dagster_pipes import open_dagster_pipes

        with open_dagster_pipes() as pipes:
            values = [os.environ[f"VALUE_{i}"] for i in range(int(os.environ["COUNT"]))]
            found = {"args": json.dumps(sys.argv[1:]), "values": json.dumps(values)}
            pipes.report_asset_materialization(metadata=found)
        """,
    )
    env = {"COUNT": str(len(HOSTILE)), **{f"VALUE_{i}": value for i, value in enumerate(HOSTILE)}}
    project.scripts(
        f"scripts:\n  - payload: {json.dumps(name)}\n    args: {json.dumps(HOSTILE)}\n    env: {json.dumps(env)}\n"
        '    assets: [{key: "hostile"}]\n'
    )
    result = project.run(profile, instance=instance)
    assert result.success, failure_text(result)
    metadata = result.get_asset_materialization_events()[0].materialization.metadata
    assert json.loads(str(metadata["args"].value)) == HOSTILE
    assert json.loads(str(metadata["values"].value)) == HOSTILE
    assert not Path("/tmp/hacked").exists()


FAILURES = [
    (
        "raise ValueError('boom at last')",
        ["ValueError: boom at last", "exit code 1", "raise ValueError", "dg-slurm jobs logs "],
    ),
    ("import sys; print('parting words', file=sys.stderr); sys.exit(3)", ["exit code 3", "parting words"]),
    ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", ["exit code 137 (signal SIGKILL)"]),
]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("code", "said"), FAILURES, ids=["raises", "exits", "killed"])
def test_a_failing_payload_says_how(
    project: Project,
    cluster: slurm.Cluster,
    instance: dg.DagsterInstance,
    profile: str,
    code: str,
    said: list[str],
) -> None:
    project.staging(cluster)
    body = f"from dagster_pipes import open_dagster_pipes\nwith open_dagster_pipes():\n    {code}\n"
    project.write("fails.py", body)
    project.scripts("scripts:\n  - payload: fails.py\n    assets: [{key: failing}]\n")
    result = project.run(profile, instance=instance)
    assert not result.success
    text = failure_text(result)
    for words in said:
        assert words in text


@pytest.mark.parametrize("profile", PROFILES)
def test_a_payload_that_reports_nothing_still_materializes(
    project: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance, profile: str
) -> None:
    project.staging(cluster)
    project.scripts("scripts:\n  - command: ['true']\n    assets: [{key: quiet}]\n")
    result = project.run(profile, instance=instance)
    assert result.success
    assert len(result.get_asset_materialization_events()) == 1
