"""What is wrong is said at once: at load with file and line, or in Slurm's words with the YAML line."""

from __future__ import annotations

import time

import dagster as dg
import pytest
from dagster.components.core.component_tree import ComponentTreeException
from project_fixture import Project, failure_text
from waiting import PATIENCE

import slurm_testcluster as slurm

REFUSED = [
    ("partition: nonexistent", "partition", "invalid partition"),
    ("account: nobody_has_this", "account", "Invalid account"),
    ("mem: 900G", "mem", "Memory specification can not be satisfied"),
    ("qos: no_such_qos", "qos", "Invalid qos"),
]


@pytest.mark.slurm
@pytest.mark.parametrize(("line", "option", "words"), REFUSED, ids=[row[1] for row in REFUSED])
def test_slurms_no_comes_at_once_with_the_yaml_line(
    project: Project,
    cluster: slurm.Cluster,
    instance: dg.DagsterInstance,
    line: str,
    option: str,
    words: str,
) -> None:
    project.staging(cluster)
    project.scripts(
        f"""\
        scripts:
          - command: ["true"]
            resources:
              {line}
            assets: [{{key: refused}}]
        """
    )
    began = time.monotonic()
    result = project.run("staging", instance=instance)
    assert time.monotonic() - began < PATIENCE
    said = "\n".join(record.user_message for record in instance.all_logs(result.run_id))
    assert "tried again" not in said
    text = failure_text(result)
    assert words in text
    assert "defs.yaml:6:" in text
    assert f"`{line}`" in text


@pytest.mark.slurm
def test_the_line_is_the_profiles_where_the_profile_wrote_it(
    project: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance
) -> None:
    project.staging(cluster)
    path = project.root / "profiles" / "staging.yaml"
    path.write_text(path.read_text().replace("partition: debug", "partition: nonexistent"))
    project.scripts("scripts:\n  - command: ['true']\n    assets: [{key: refused}]\n")
    text = failure_text(project.run("staging", instance=instance))
    line = path.read_text().splitlines().index("  partition: nonexistent") + 1
    assert f"staging.yaml:{line}:" in text


def load_error(project: Project) -> str:
    """Return what Dagster and we say when a project can't be loaded: its error wraps ours."""
    with pytest.raises(ComponentTreeException) as caught, project.definitions():
        pass
    texts = []
    error: BaseException | None = caught.value
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


def test_a_missing_payload_is_an_error_at_load(project: Project) -> None:
    project.scripts("scripts:\n  - payload: nowhere.py\n    assets: [{key: a}]\n")
    text = load_error(project)
    assert "defs.yaml:4:" in text
    assert "nowhere.py" in text


def test_an_unknown_key_is_an_error_at_load(project: Project) -> None:
    project.write("a.py", "")
    project.scripts("scripts:\n  - payload: a.py\n    resorces: {nodes: 1}\n    assets: [{key: a}]\n")
    text = load_error(project)
    assert "defs.yaml:5:" in text
    assert "did you mean `resources`?" in text


def test_a_newline_in_an_sbatch_value_is_refused(project: Project) -> None:
    project.write("a.py", "")
    project.scripts(
        'scripts:\n  - payload: a.py\n    resources: {partition: "a\\n#SBATCH --uid=0"}\n    assets: [{key: a}]\n'
    )
    text = load_error(project)
    assert "defs.yaml:5:" in text
    assert "one line" in text


def test_an_unknown_profile_is_named(project: Project, instance: dg.DagsterInstance) -> None:
    project.scripts("scripts:\n  - command: ['true']\n    assets: [{key: a}]\n")
    text = failure_text(project.run("lokal", instance=instance))
    assert "unknown profile `lokal`" in text
    assert "did you mean `local`?" in text
