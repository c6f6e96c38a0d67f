"""The examples of "Report from a payload": each runs as it is written."""

import re
import shutil
from pathlib import Path

import dagster as dg
import pytest
from project_fixture import Project, failure_text
from reports_fixture import evaluations, warnings

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "report-from-a-payload.md"
BLOCKS = {
    title: text
    for text, title in re.findall(r"^```\w+\n(# (\S+)\n.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
}
INTERPRETERS = {"count.R": "Rscript", "count.jl": "julia"}


def test_the_page_has_these_examples() -> None:
    assert set(BLOCKS) == {"defs.yaml", "count.sh", "count.py", "count.R", "count.jl", "plain.sh"}


@pytest.mark.parametrize("name", sorted(set(BLOCKS) - {"defs.yaml"}))
def test_the_examples_report_the_same(project: Project, instance: dg.DagsterInstance, name: str) -> None:
    interpreter = INTERPRETERS.get(name, "bash")
    if shutil.which(interpreter) is None:
        pytest.skip(f"there is no {interpreter} on this machine")
    table = project.write("table.csv", "a\nb\nc\n")
    project.write(name, BLOCKS[name])
    yaml = BLOCKS["defs.yaml"].replace("count.sh #", f"{name} #").replace("/data/table.csv", f"'{table}'")
    if name == "plain.sh":
        yaml = "".join(line for line in yaml.splitlines(True) if "checks:" not in line)
    project.write("defs.yaml", yaml)
    result = project.run("local", instance=instance)
    assert result.success, failure_text(result)
    (event,) = result.get_asset_materialization_events()
    metadata = {
        key: value for key, value in event.materialization.metadata.items() if not key.startswith("job/")
    }
    assert metadata["rows"] == dg.IntMetadataValue(3)
    if name != "plain.sh":
        assert metadata["share"] == dg.FloatMetadataValue(0.5)
        assert metadata["about"] == dg.MarkdownMetadataValue("The *rows* of a table.")
        assert evaluations(instance, result) == {"not_empty": True}
    assert warnings(instance, result) == []
