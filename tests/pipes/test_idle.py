"""A payload that hangs, in a real run: told with the numbers, and ended where its YAML says so."""

from __future__ import annotations

import os
import re
import threading

import dagster as dg
from project_fixture import Project, failure_text
from reports_fixture import warnings
from waiting import eventually


def test_the_step_fails_and_names_the_line(project: Project, instance: dg.DagsterInstance) -> None:
    project.write("hang.sh", "sleep 3600\n")
    project.scripts("""
        scripts:
          - payload: hang.sh
            assets: [{key: hangs}]
            idle:
              warn: 8s
              action: cancel
        """)
    text = failure_text(project.run("local", instance=instance))
    assert re.search(
        r"written nothing for 00:\d\d:\d\d, and for 00:\d\d:\d\d it has computed, read and written", text
    )
    assert re.search(r"nothing: memory \S+ .*CPU 0 of \d+\. It may hang\.", text)
    assert "It was cancelled: `idle.action: cancel` is written at" in text
    assert "defs.yaml:9:" in text


def test_the_log_tells_where_it_stands_and_the_job_goes_on(
    project: Project, instance: dg.DagsterInstance
) -> None:
    gate = project.root / "gate"
    os.mkfifo(gate)
    project.write("hang.sh", 'read -r _ <"$1"\n')
    project.scripts(f"""
        scripts:
          - payload: hang.sh
            args: ["{gate}"]
            assets: [{{key: hangs}}]
            idle: {{warn: 8s, action: stacks}}
        """)
    results: list[dg.ExecuteInProcessResult] = []
    run = threading.Thread(target=lambda: results.append(project.run("local", instance=instance)))
    run.start()

    def told() -> list[str]:
        logs = [each.user_message for run in instance.get_runs() for each in instance.all_logs(run.run_id)]
        return [text for text in logs if "processes of job" in text]

    (text,) = eventually(told, "where its processes stand")
    gate.write_text("go on\n")
    run.join()
    assert results[0].success, failure_text(results[0])
    assert f"bash hang.sh {gate}" in text


def test_without_samples_a_warning_says_that_nobody_can_tell(
    project: Project, instance: dg.DagsterInstance
) -> None:
    # No sampler can write where a file is in the place of its folder.
    project.write("hang.sh", 'cd "$DAGSTER_SLURM_RUN_DIR" && mv usage elsewhere && touch usage && sleep 20\n')
    project.scripts("""
        scripts: [{payload: hang.sh, assets: [{key: hangs}], idle: {warn: 2s, action: cancel}}]
        """)
    result = project.run("local", instance=instance)
    assert result.success
    (told,) = [text for text in warnings(instance, result) if "has written nothing" in text]
    assert "can't be told" in told
