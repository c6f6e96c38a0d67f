"""Every combination of answers gives a project that is right."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import permutations, product
from pathlib import Path
from typing import Any

import dagster as dg
import jsonschema
import pytest
import yaml
from template_fixture import FACTORS, ROOT, answers, is_allowed, pairwise, render, run, template_copy

from dagster_slurm_components.spec.profiles import known_site, load_profile, load_profile_file
from dagster_slurm_components.spec.project import check_project
from dagster_slurm_components.spec.schemas import schemas

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

COMBINATIONS = pairwise(FACTORS)
LEFT_OVER = re.compile(r"\{%|%\}|<<<<<<<|jinja")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return template_copy(tmp_path_factory.mktemp("template"))


def name_of(row: dict[str, str]) -> str:
    return "-".join(str(row[name]).replace(", ", "+") for name in list(FACTORS)[:5])


@cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(schemas()[f"{name}.schema.json"]))


def test_each_two_answers_meet() -> None:
    seen = {(a, row[a], b, row[b]) for row in COMBINATIONS for a in row for b in row}
    wanted = {
        (a, x, b, y)
        for a, b in permutations(FACTORS, 2)
        for x, y in product(FACTORS[a], FACTORS[b])
        if is_allowed({a: x, b: y})
    }
    assert wanted <= seen
    assert len(COMBINATIONS) < 64


@pytest.mark.parametrize("row", COMBINATIONS, ids=name_of)
def test_a_combination_is_right(row: dict[str, str], source: Path, tmp_path: Path) -> None:
    project = render(tmp_path / "my project", source=source, **row)
    report = check_project([project])
    # Locks are made by the commands of the project's README.
    assert [str(problem) for problem in report.problems if problem.kind != "no_lock"] == []
    assert report.scripts == (0 if row["workload"] == "none" else 1)
    for file in project.glob("profiles/*.yaml"):
        validator("profile").validate(yaml.safe_load(file.read_text()))
    for file in project.rglob("defs.yaml"):
        validator("defs").validate(yaml.safe_load(file.read_text()))
    for file in project.rglob("*"):
        if file.is_file() and file.name not in ("uv.lock",):
            check_text(file)


def check_text(file: Path) -> None:
    """Nothing of the template's own language is left, and each file can be read by those it is for."""
    text = file.read_text()
    assert not LEFT_OVER.search(text), file
    assert file.suffix == ".py" or not re.search(r"\bNone\b", text), file
    assert "\n\n\n\n" not in text, file
    assert text == "" or text.endswith("\n"), file
    if file.suffix in (".yaml", ".yml"):
        yaml.safe_load(text)
    elif file.suffix == ".toml":
        tomllib.loads(text)
    elif file.suffix == ".py":
        compile(text, str(file), "exec")


@contextmanager
def definitions(
    project: Path, monkeypatch: pytest.MonkeyPatch, profile: str = "local"
) -> Iterator[dg.Definitions]:
    """Load a project's definitions in this process."""
    package = answers(project)["package_name"]
    monkeypatch.syspath_prepend(str(project / "src"))
    monkeypatch.setenv("DAGSTER_SLURM_PROFILE", profile)
    monkeypatch.chdir(project)
    try:
        yield importlib.import_module(f"{package}.definitions").defs()
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            del sys.modules[name]


@pytest.mark.parametrize("workload", FACTORS["workload"])
def test_definitions_load(
    workload: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = render(tmp_path / "p", source=source, workload=workload, package_name=f"loads_{workload}")
    with definitions(project, monkeypatch) as loaded:
        dg.Definitions.validate_loadable(loaded)
        keys = {key.to_user_string() for key in loaded.resolve_all_asset_keys()}
        assert keys == (set() if workload == "none" else {"first", "summary"})


@pytest.mark.parametrize("profile", ["local", "production"])
def test_what_is_over_is_removed_by_itself_in_production_alone(
    profile: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = render(tmp_path / "p", source=source, package_name=f"maintained_{profile}")
    for name in ("HPC_USER", "HPC_ACCOUNT"):
        monkeypatch.setenv(name, "ada")
    with definitions(project, monkeypatch, profile) as loaded:
        schedule = loaded.resolve_schedule_def("slurm_maintenance_schedule")
        assert schedule.default_status.name == ("RUNNING" if profile == "production" else "STOPPED")


@pytest.mark.parametrize("site", FACTORS["staging_site"])
@pytest.mark.parametrize("target", ["staging", "production"])
def test_profiles_load_and_agree_with_their_site(
    site: str, target: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the template says of a site is what the shipped facts say."""
    if (site, target) == ("cluster", "production"):
        return
    monkeypatch.setenv("HPC_USER", "ada")
    monkeypatch.setenv("HPC_ACCOUNT", "proj1")
    cluster = tmp_path / "cluster"
    cluster.mkdir()
    (cluster / "profile.yaml").write_text(
        "host: {type: ssh, hostname: 127.0.0.1, port: 17000}\nscheduler: slurm\nworkdir: /w\n"
    )
    monkeypatch.setenv("DAGSTER_SLURM_CLUSTER", str(cluster))
    project = render(tmp_path / "p", source=source, **{f"{target}_site": site})
    loaded = load_profile(target, start=project)
    host = loaded.profile.host.model_dump()
    assert loaded.profile.environment.build == ("on_demand" if target == "staging" else "deployed")
    assert loaded.profile.pool == target
    if site in ("cluster", "other"):
        assert loaded.site is None
        return
    facts = known_site(site, project).load()
    assert loaded.site == facts
    assert host["hostname"] in facts.login_nodes
    assert host["user"] == "ada"
    assert (host["port"], host["login"]) in [(way.port, way.login) for way in facts.logins]
    resources = loaded.profile.resources
    assert resources.account == ("proj1" if facts.account_required else None)
    assert resources.partition in facts.partitions
    assert resources.qos is None or resources.qos in facts.partitions[str(resources.partition)].qos


def test_the_choices_are_the_shipped_sites() -> None:
    questions = yaml.safe_load((ROOT / "copier.yml").read_text())
    shipped = {file.stem for file in (ROOT / "dagster_slurm_components" / "sites").glob("*.yaml")}
    assert set(questions["production_site"]["choices"].values()) == {*shipped, "other"}
    assert set(questions["staging_site"]["choices"].values()) == {*shipped, "other", "cluster"}
    assert set(yaml.safe_load(questions["site_facts"]["default"])) == {*shipped, "other", "cluster"}
    for name, values in FACTORS.items():
        if "choices" in questions[name]:
            assert set(values) == set(questions[name]["choices"].values()), name


def test_nobody_has_to_trust_the_template() -> None:
    questions = yaml.safe_load((ROOT / "copier.yml").read_text())
    assert not {"_tasks", "_migrations", "_jinja_extensions", "_external_data"} & set(questions)


def test_answers_reach_the_profile(source: Path, tmp_path: Path) -> None:
    project = render(
        tmp_path / "p",
        source=source,
        production_hostname="hpc.example.org",
        production_login="key, otp",
        production_user="ada",
        production_partition="gpu,cpu",
        production_account="proj1",
        production_folder="/work/proj1",
        environment="modules",
        modules="gcc/12.3, python/3.11",
    )
    loaded = load_profile_file(project / "profiles" / "production.yaml")
    host: dict[str, Any] = loaded.profile.host.model_dump()
    assert (host["hostname"], host["user"], host["login"]) == ("hpc.example.org", "ada", ["key", "otp"])
    assert loaded.profile.resources.partition == "gpu,cpu"
    assert loaded.profile.resources.account == "proj1"
    assert loaded.profile.workdir == "/work/proj1/dagster"
    assert loaded.profile.env["DATA_DIR"] == "/work/proj1/data"
    assert loaded.profile.environment.defaults() == {"type": "modules", "load": ["gcc/12.3", "python/3.11"]}


@pytest.mark.parametrize("number", ["0123", "12345", "1e3"])
def test_a_numeric_account_stays_text(source: Path, tmp_path: Path, number: str) -> None:
    project = render(tmp_path / "p", source=source, production_account=number, production_user="7")
    text = (project / "profiles" / "production.yaml").read_text()
    assert f'account: "{number}"' in text
    assert 'user: "7"' in text


@pytest.mark.parametrize("workload", ["python", "bash", "none"])
def test_the_lock_of_the_template_is_what_uv_writes(workload: str, source: Path, tmp_path: Path) -> None:
    project = render(tmp_path / "p", source=source, workload=workload, environment="uv")
    run(project, "uv", "lock", "--check", "--offline", "--project", "workloads")


def test_shell_payloads_pass_shellcheck(source: Path, tmp_path: Path) -> None:
    project = render(tmp_path / "p", source=source, workload="bash")
    run(project, "shellcheck", "workloads/hello.sh")


def test_python_files_pass_ruff(source: Path, tmp_path: Path) -> None:
    for workload in FACTORS["workload"]:
        project = render(tmp_path / f"{workload} project", source=source, workload=workload)
        run(project, "ruff", "check", "--isolated", "--line-length=120", "--select=E,F,I,B,UP", ".")


def test_the_github_workflow_has_its_steps(source: Path, tmp_path: Path) -> None:
    project = render(tmp_path / "p", source=source)
    jobs = yaml.safe_load((project / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    tests = [step.get("run", "") for step in jobs["test"]["steps"]]
    deploy = [step.get("run", "") for step in jobs["deploy"]["steps"]]
    assert "uv run dg-slurm check --format github" in tests
    assert "uv run dg check defs" in tests
    assert deploy[-1] == "uv run dg-slurm env deploy --profile production"
    assert jobs["deploy"]["env"] == {"HPC_USER": "${{ vars.HPC_USER }}"}


@pytest.mark.parametrize(
    ("data", "deploys"),
    [
        ({"environment": "uv"}, True),
        ({"environment": "pixi"}, True),
        ({"environment": "modules"}, False),
        ({"environment": "container"}, False),
        ({"environment": "container", "image": "/shared/my.sif"}, False),
        ({"environment": "container", "image": "images/my.sif"}, True),
    ],
)
def test_only_what_is_sent_is_deployed(
    source: Path, tmp_path: Path, data: dict[str, str], deploys: bool
) -> None:
    project = render(tmp_path / "p", source=source, **data)
    jobs = yaml.safe_load((project / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert ("deploy" in jobs) is deploys
    assert ("env deploy" in (project / "README.md").read_text()) is deploys
