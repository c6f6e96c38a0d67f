"""The corpus of inputs that were seen in the wild: each `NAME.yaml` beside this file is one case.

```yaml
source: rslurm#84, or a sentence           # where such an input was seen
attributes: {scripts: [...]}               # of the component; or `defs`, the whole text of `defs.yaml`
profiles: {production: {scheduler: slurm}} # of the project, by name; `local` is there
files:                                     # beside `defs.yaml`; `../x` lies above it
  t.sh: "text"                             # or one of the forms below, where `mode` may be added
  other: {text: "text", mode: "0755"}
  bytes: {base64: 77u/ZQ==}
  big: {size: 3G}                          # sparse
  link: {link: ../elsewhere}
check: ["defs.yaml:5: warning: a part"]    # all that `dg-slurm check` says, in order; without a word it is an error
run:                                       # only where the case needs a run, which is under the profile `local`
  outcome: success                         # or failure
  partition: "2026-01-01"
  says: ["a part of what the run or its failure says"]
  never_says: []
  metadata: {a/b: {loss: nan}}             # what is in the asset's materialization, among other entries
  checks: {a/b: {is_sorted: true}}         # whether it passed
```

What `dg-slurm check` finds no error in must load in Dagster, each case with its execution plan.
"""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Any, Literal

import dagster as dg
import pytest
import yaml
from dagster._core.execution.api import create_execution_plan
from project_fixture import Project, failure_text
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dagster_slurm_components.spec.project import check_project

HERE = Path(__file__).parent
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
TYPE = "dagster_slurm_components.SlurmScriptComponent"


class Part(BaseModel):
    """A part of a case: what it does not know is a slip in the corpus."""

    model_config = ConfigDict(extra="forbid")


class File(Part):
    text: str | None = None
    base64: str | None = None
    size: str | None = None
    link: str | None = None
    mode: str = "0644"

    @model_validator(mode="after")
    def _is_one_kind(self) -> File:
        assert len({"text", "base64", "size", "link"} & self.model_fields_set) == 1, "one of the four kinds"
        return self

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.link is not None:
            path.symlink_to(self.link)
            return
        path.write_bytes(base64.b64decode(self.base64 or "") or (self.text or "").encode())
        if self.size is not None:
            os.truncate(path, int(self.size[:-1]) * UNITS[self.size[-1]])
        path.chmod(int(self.mode, 8))


class Run(Part):
    outcome: Literal["success", "failure"]
    partition: str | None = None
    says: list[str] = []
    never_says: list[str] = []
    metadata: dict[str, dict[str, Any]] = {}
    checks: dict[str, dict[str, bool]] = {}


class Case(Part):
    source: str
    attributes: dict[str, Any] | None = None
    defs: str | None = None
    files: dict[str, str | File] = {}
    profiles: dict[str, dict[str, Any]] = {}
    # `FILE:LINE: `, perhaps `warning: `, and a part of the message or of its advice.
    told: list[str] = Field(alias="check")
    run: Run | None = None

    @model_validator(mode="after")
    def _has_one_component(self) -> Case:
        assert (self.attributes is None) != (self.defs is None), "`attributes` or `defs`"
        return self

    def write(self, project: Project) -> None:
        document = {"type": TYPE, "attributes": self.attributes}
        text = self.defs or yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000)
        (project.defs / "defs.yaml").write_text(text)
        for name, file in self.files.items():
            (File(text=file) if isinstance(file, str) else file).write(project.defs / name)
        for name, profile in self.profiles.items():
            project.profile(name, yaml.safe_dump(profile))


CASES = sorted(HERE.glob("*.yaml"))


def read(file: Path) -> Case:
    try:
        return Case.model_validate(yaml.safe_load(file.read_text()))
    except ValueError as exc:
        raise ValueError(f"{file.name}: {exc}") from None


@pytest.fixture
def case(request: pytest.FixtureRequest, project: Project, monkeypatch: pytest.MonkeyPatch) -> Case:
    """The case, whose files lie in the project."""
    monkeypatch.delenv("DAGSTER_SLURM_PROFILE", raising=False)
    made = read(request.param)
    made.write(project)
    return made


def cases(which: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", which, ids=[file.stem for file in which], indirect=True)


@cases(CASES)
def test_check(case: Case, project: Project) -> None:
    report = check_project([project.root])
    said = []
    for problem in report.problems:
        assert problem.position is not None, f"no line: {problem}"
        file = Path(problem.position.file)
        near = os.path.relpath(file, project.defs if project.defs in file.parents else project.root)
        level = "" if problem.level == "error" else f"{problem.level}: "
        said.append((f"{near}:{problem.position.line}: {level}", f"{problem.message}; {problem.hint}"))
    everything = "\n".join(map("".join, said))
    expected = [
        re.fullmatch(r"(\S+:\d+: (?:warning: )?)(.*)", told, re.DOTALL).groups() for told in case.told
    ]
    assert [place for place, _ in said] == [place for place, _ in expected], everything
    for (_, line), (_, part) in zip(said, expected, strict=True):
        assert part in line, everything
    if not report.count("error"):
        with project.definitions() as definitions:
            dg.Definitions.validate_loadable(definitions)
            create_execution_plan(definitions.resolve_implicit_global_asset_job_def())


@cases([file for file in CASES if read(file).run])
def test_run(
    case: Case, project: Project, instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    run = case.run
    assert run is not None
    done = project.run("local", instance=instance, partition_key=run.partition)
    printed = capfd.readouterr()
    messages = [entry.user_message for entry in instance.all_logs(done.run_id)]
    said = "\n".join([*messages, printed.out, printed.err, "" if done.success else failure_text(done)])
    assert done.success == (run.outcome == "success"), said
    for part in run.says:
        assert part in said
    for part in run.never_says:
        assert part not in said
    stored = {
        event.asset_key.to_user_string(): event.materialization.metadata
        for event in done.get_asset_materialization_events()
    }
    for key, expected in run.metadata.items():
        assert {name: stored[key][name].value for name in expected} == expected
    passed = {
        (each.asset_key.to_user_string(), each.check_name): each.passed
        for each in done.get_asset_check_evaluations()
    }
    for key, results in run.checks.items():
        assert {name: passed[key, name] for name in results} == results
