"""`dg-slurm render` shows what would be submitted, and keeps secrets to itself."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from dagster_slurm_components.cli.main import main
from dagster_slurm_components.cli.preview import MASK, Mask

STAGING = """
host: {type: ssh, hostname: login.example.org, user: ada}
scheduler: slurm
workdir: /scratch/ada
resources: {partition: gpu, account: proj1}
env: {HF_TOKEN: "{{ env('MY_SECRET') }}", PLAIN: "{{ env('MY_PLAIN') }}"}
"""
SCRIPTS = """
defaults: {resources: {mem: 8G}}
scripts:
  - payload: train.sh
    args: ["--token", "{{ env('MY_SECRET') }}", "a b;$(x)"]
    env: {API_KEY: "12345678", GREETING: "it's me"}
    files: ["config/*.txt"]
    environment: {type: modules, load: [gcc/12]}
    resources: {nodes: 2, partition: long}
    assets: [{key: models/digits}, {key: models/report}]
    profiles: {staging: {resources: {time: "01:00:00"}}}
"""


@pytest.fixture
def ready(project, monkeypatch):
    monkeypatch.setenv("MY_SECRET", "hunter2hunter2")
    monkeypatch.setenv("MY_PLAIN", "in the open")
    monkeypatch.delenv("DAGSTER_SLURM_PROFILE", raising=False)
    project.profile("staging", STAGING)
    project.write("train.sh", "echo trained\n")
    project.write("config/a.txt", "abc")
    project.scripts(SCRIPTS)
    return project


def render(*args: str) -> str:
    done = CliRunner().invoke(main, ["render", *args])
    assert done.exit_code == 0, done.output
    return done.output


def test_what_would_be_submitted(ready):
    seen = json.loads(render("models/digits", "--profile", "staging", "--json"))
    assert seen["header"].splitlines() == [
        "#!/bin/bash",
        "#SBATCH --partition=long",
        "#SBATCH --account=proj1",
        "#SBATCH --nodes=2",
        "#SBATCH --mem=8G",
        "#SBATCH --time=01:00:00",
        "#SBATCH --job-name=models__digits-TOKEN",
        '#SBATCH --comment="dagster TOKEN"',
        "#SBATCH --chdir=/scratch/ada/runs/RUN-ID/models__digits/0",
        "#SBATCH --output=/scratch/ada/runs/RUN-ID/models__digits/0/stdout.log",
        "#SBATCH --error=/scratch/ada/runs/RUN-ID/models__digits/0/stderr.log",
        "#SBATCH --open-mode=append",
    ]
    assert seen["payload"][-3:] == ["--token", MASK, "a b;$(x)"]
    assert seen["activation"] == [["modules", "gcc/12"]]
    assert [(file["place"], file["size"]) for file in seen["files"]] == [
        ("payload/train.sh", 13),
        ("payload/config/a.txt", 3),
    ]
    assert (seen["assets"], seen["host"]) == (["models/digits", "models/report"], "login.example.org")
    assert seen["job_script"].startswith(seen["header"])
    assert len(seen["job_script"]) > len(seen["header"]) + 1000


def test_each_value_says_where_it_was_written(ready):
    seen = json.loads(render("models/report", "--profile", "staging", "--json"))
    values = {value["path"]: value for value in seen["values"]}
    told = {path: (value["value"], value["layer"]) for path, value in values.items()}
    assert told["resources.partition"] == ("long", "script")
    assert told["resources.account"] == ("proj1", "profile staging")
    assert told["resources.mem"] == ("8G", "defaults")
    assert told["resources.time"] == ("01:00:00", "script, staging")
    assert values["resources.account"]["position"] == "profiles/staging.yaml:5:38"
    assert values["resources.partition"]["position"].endswith("defs.yaml:11:40")


def asked(**values: object) -> str:
    return json.dumps({"ops": {"models__digits": {"config": values}, "other": {"config": {"args": ["x"]}}}})


def test_what_a_run_asks_for(ready):
    tags = ("--tag", "dagster-slurm/resources.mem=1G", "--tag", "dagster-slurm/args=[a, b=c]")
    config = ready.root / "run.yaml"
    config.write_text(asked(resources={"mem": "64G", "time": None}))
    seen = json.loads(
        render("models/digits", "--profile", "staging", "--config", str(config), *tags, "--json")
    )
    assert "#SBATCH --mem=64G" in seen["header"]
    assert "--time" not in seen["header"]
    assert seen["payload"][-2:] == ["a", "b=c"]
    values = {value["path"]: (value["layer"], value["position"]) for value in seen["values"]}
    assert values["resources.mem"] == ("the run's config", "")
    assert values["args"][0] == "the run's tag"
    assert values["resources.partition"][0] == "script"
    # What is asked of another op is not asked of this one.
    seen = json.loads(
        render("models/report", "--config", '{"ops": {"other": {"config": {"args": ["x"]}}}}', "--json")
    )
    assert seen["payload"][-3] == "--token"


def test_the_profile_that_a_run_asks_for_wins(ready):
    seen = json.loads(render("models/digits", "--config", asked(profile="staging"), "--json"))
    assert (seen["profile"], seen["scheduler"]) == ("staging", "slurm")
    seen = json.loads(
        render("models/digits", "--profile", "staging", "--tag", "dagster-slurm/profile=local", "--json")
    )
    assert (seen["profile"], seen["scheduler"]) == ("local", "process")


def test_secrets_are_masked_everywhere(ready):
    for form in ((), ("--json",), ("--script",)):
        text = render("models__digits", "--profile", "staging", *form)
        assert "hunter2" not in text
        assert "12345678" not in text
        assert not form or "in the open" in text or form == ("--script",)


def test_plain_text(ready):
    text = render("models/digits", "--profile", "staging")
    assert "#SBATCH --partition=long" in text
    assert f"HF_TOKEN='{MASK}'" in text
    assert "PLAIN='in the open'" in text
    assert "resources.mem\t8G\tdefaults\t" in text


def test_here(ready):
    seen = json.loads(render("models/digits", "--json"))
    assert (seen["profile"], seen["scheduler"], seen["header"]) == ("local", "process", "#!/bin/bash\n")
    assert seen["run_directory"].startswith(str(ready.root / ".dagster-slurm" / "runs"))


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (
            ("--config", asked(resources={"memm": "1G"})),
            1,
            "the run's config, `resources.memm`: unknown key `memm`",
        ),
        (
            ("--config", asked(resources={"mem": "8 GB"})),
            1,
            "the run's config, `resources.mem`: '8 GB' is not a memory size",
        ),
        (("--config", asked(payload="other.sh")), 1, "`payload`"),
        (
            ("--tag", "dagster-slurm/resources.memm=1G"),
            1,
            "the run's tag `dagster-slurm/resources.memm`: unknown key",
        ),
        (("--tag", "resources.mem=1G"), 2, "a tag that asks for something is dagster-slurm/KEY=VALUE"),
        (
            ("--config", '{"ops": ["models__digits"]}'),
            2,
            "expected a mapping in which `models__digits` is a key",
        ),
        (("--config", "{"), 1, "--config:2:1: not valid YAML"),
        (("--config", "nowhere.yaml"), 1, "nowhere.yaml"),
    ],
)
def test_what_a_run_asks_for_is_refused_as_its_step_would(ready, args, status, message):
    done = CliRunner().invoke(main, ["render", "models/digits", *args])
    assert done.exit_code == status, done.output
    assert message in " ".join(done.output.split())
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("models/digit",), "did you mean `models/digits`?"),
        (("in_python",), "no script in YAML makes `in_python` (`dg-slurm jobs show` shows"),
        (("models/digits", "--profile", "stagin"), "did you mean `staging`?"),
        (("models/digits", "--test-only"), "has no Slurm to ask"),
    ],
)
def test_errors(ready, args, message):
    done = CliRunner().invoke(main, ["render", *args])
    assert done.exit_code == 1
    assert message in done.output
    assert "Traceback" not in done.output


def test_mistakes_of_the_yaml(ready):
    ready.scripts("scripts: [{payload: nothing.sh, assets: [{key: a}]}]")
    done = CliRunner().invoke(main, ["render", "a"])
    assert done.exit_code == 1
    assert "defs.yaml:3:23: no file matches 'nothing.sh'" in done.output


def test_no_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["render", "a"])
    assert done.exit_code == 1
    assert "Run this in a project of `dg`" in done.output


def test_mask():
    mask = Mask({"MY_PASSWORD": "long enough", "TOKEN": "abc", "PATH": "/usr/bin"})
    assert mask("x long enough y abc /usr/bin") == f"x {MASK} y abc /usr/bin"
    assert mask.variable("AWS_SECRET_ACCESS_KEY", "v") == MASK
    assert mask.variable("PLAIN", "long enough") == MASK
    assert mask.tree(["long enough", 3]) == [MASK, 3]


@pytest.mark.slurm
def test_the_cluster_is_asked(ready, cluster):
    ready.staging(cluster)
    ready.scripts(
        """
        scripts:
          - {payload: train.sh, assets: [{key: right}]}
          - {payload: train.sh, assets: [{key: wrong}], resources: {partition: nothing}}
        """
    )
    assert "sbatch --test-only: accepted" in render("right", "--profile", "staging", "--test-only")
    done = CliRunner().invoke(main, ["render", "wrong", "--profile", "staging", "--test-only"])
    assert done.exit_code == 1
    assert "sbatch --test-only: refused" in done.output
    assert "`partition` is written at" in done.output
