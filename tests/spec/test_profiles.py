"""Profiles: found, rendered, checked, turned into layers."""

from __future__ import annotations

from pathlib import Path

import pytest

from dagster_slurm_components.spec.hosts import JumpHost, LocalHost, SshHost
from dagster_slurm_components.spec.problems import SpecError
from dagster_slurm_components.spec.profiles import (
    PROFILE_VARIABLE,
    PROFILES_DIR_VARIABLE,
    load_profile,
    load_profile_file,
    profile_names,
)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    monkeypatch.delenv(PROFILE_VARIABLE, raising=False)
    monkeypatch.delenv(PROFILES_DIR_VARIABLE, raising=False)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "defs" / "deep").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("")
    return tmp_path


def write(project: Path, name: str, text: str) -> Path:
    file = project / "profiles" / f"{name}.yaml"
    file.write_text(text)
    return file


def test_local_needs_no_file(project):
    loaded = load_profile(start=project / "defs" / "deep")
    assert loaded.name == "local"
    assert isinstance(loaded.profile.host, LocalHost)
    assert loaded.profile.scheduler == "process"
    assert loaded.profile.workdir == str(project / ".dagster-slurm")
    assert loaded.layers == ()
    assert loaded.folder == project


def test_the_name_comes_from_the_argument_then_the_variable_then_local(project, monkeypatch):
    for name in ("a", "b", "local"):
        write(project, name, f"workdir: /{name}\n")
    assert load_profile(start=project).profile.workdir == "/local"
    monkeypatch.setenv(PROFILE_VARIABLE, "a")
    assert load_profile(start=project).profile.workdir == "/a"
    assert load_profile("b", start=project / "defs").profile.workdir == "/b"
    assert profile_names(project / "defs") == ("a", "b", "local")


def test_the_variable_names_another_folder(project, tmp_path_factory, monkeypatch):
    other = tmp_path_factory.mktemp("other") / "profiles"
    other.mkdir()
    (other / "x.yaml").write_text("workdir: w\n")
    monkeypatch.setenv(PROFILES_DIR_VARIABLE, str(other))
    loaded = load_profile("x", start=project)
    assert loaded.profile.workdir == str(other.parent / "w")


def test_a_whole_profile(project, monkeypatch):
    monkeypatch.setenv("HPC_USER", "ada")
    write(
        project,
        "production",
        """\
host: {type: ssh, hostname: login.example.org, user: "{{ env('HPC_USER') }}", login: [key, otp],
       jump: [bastion.example.org, "me@second:2222", {hostname: third, user: you}]}
scheduler: slurm
workdir: /scratch/project/dagster
resources: {partition: gpu, account: 4711}
environment: {build: deployed, modules: [gcc]}
env: {DATA_DIR: "{{ project_root }}/data"}
limits: {queries_per_minute: 2, max_submit_jobs: 100}
retention: {success: 0d, failure: 14d}
on_shutdown: detach
pool: slurm
""",
    )
    loaded = load_profile("production", start=project / "defs")
    host = loaded.profile.host
    assert isinstance(host, SshHost)
    assert host.user == "ada"
    assert host.jump == [
        JumpHost(hostname="bastion.example.org"),
        JumpHost(hostname="second", user="me", port=2222),
        JumpHost(hostname="third", user="you"),
    ]
    assert loaded.profile.environment.build == "deployed"
    (layer,) = loaded.layers
    assert layer.name == "profile production"
    assert layer.data == {
        "resources": {"partition": "gpu", "account": 4711},
        "environment": {"modules": ["gcc"]},
        "env": {"DATA_DIR": f"{project}/data"},
    }
    assert layer.position(("resources", "account")).line == 5


def test_unset_variables_are_named_with_their_line(project, monkeypatch):
    monkeypatch.delenv("NOPE", raising=False)
    write(project, "x", 'workdir: /x\nenv:\n  A: "{{ env(\'NOPE\') }}"\n  B: "{{ env.NOPE }}/b"\n')
    with pytest.raises(SpecError) as caught:
        load_profile("x", start=project)
    assert [(p.position.line, p.message) for p in caught.value.problems] == [
        (3, "the environment variable `NOPE` is not set"),
        (4, "the environment variable `NOPE` is not set"),
    ]


@pytest.mark.parametrize("name", ["prodution", "../profiles/production", "", "a b", "x/y"])
def test_unknown_profiles(project, name):
    write(project, "production", "workdir: /x\n")
    if not name:
        assert load_profile(name, start=project).name == "local"
        return
    with pytest.raises(SpecError, match="unknown profile"):
        load_profile(name, start=project)


def test_unknown_profile_says_the_nearest(project):
    write(project, "production", "workdir: /x\n")
    with pytest.raises(SpecError, match="did you mean `production`"):
        load_profile("prodution", start=project)


def test_without_a_folder_it_says_how_to_make_one(tmp_path, monkeypatch):
    monkeypatch.delenv(PROFILES_DIR_VARIABLE, raising=False)
    with pytest.raises(SpecError, match="dg-slurm init profile production"):
        load_profile("production", start=tmp_path)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("hst: {type: local}", 1, "unknown key `hst`"),
        ("host: {type: shh}", 1, "unknown host type `shh`"),
        ("host: {}", 1, "the host has no `type`"),
        ("host: {type: ssh}", 1, "`hostname` is missing"),
        ("host: {type: ssh, hostname: a, port: 70000}", 1, "expected a number less than or equal to 65535"),
        ("name: x", 1, "`name` can't be set here"),
        ("a: 1\n---\nb: 2\n", 3, "expected one document"),
        ("- a\n", 1, "expected a mapping"),
        ("scheduler: slrum", 1, "`slrum` is not known here"),
        ("environment: {build: deployed, type: path}", 1, "`path` is missing"),
        (
            "environment: {build: deployed, path: /x}",
            1,
            "unknown key `path` in an environment without a `type`",
        ),
        ("resources:\n  time: 12:00:00\n", 2, "expected a time in quotes"),
        ("site: atlantis", 1, "unknown site `atlantis`"),
        ("limits: {queries_per_minute: 0}", 1, "expected a number greater than 0"),
        ('env: {A: "{{ nope }}"}', 1, "the template can't be rendered"),
        ("env: {A: \"{{ 'a' * 10**15 }}\"}", 1, "the template can't be rendered"),
        ('env: {A: "{{ 1 + }}"}', 1, "the template can't be rendered"),
        ("env: {A: \"{{ ''.__class__.__mro__ }}\"}", 1, "the template can't be rendered"),
    ],
)
def test_mistakes_have_a_line(project, text, line, message):
    with pytest.raises(SpecError) as caught:
        load_profile_file(write(project, "x", text))
    (problem,) = caught.value.problems
    assert problem.position.line == line
    assert problem.message.startswith(message)


def test_site_facts_lie_below_the_profile(project):
    (project / "sites").mkdir()
    (project / "sites" / "atlantis.yaml").write_text(
        "resources: {partition: deep, time: '10'}\nlimits: {queries_per_minute: 1, burst: 3}\n"
        "partitions: {deep: {max_nodes: 4}}\nlauncher: {type: bash}\n"
    )
    write(project, "x", "site: atlantis\nresources: {partition: shallow}\nlimits: {burst: 5}\n")
    loaded = load_profile("x", start=project)
    assert [layer.name for layer in loaded.layers] == ["site atlantis", "profile x"]
    assert loaded.layers[0].data == {
        "resources": {"partition": "deep", "time": "10"},
        "launcher": {"type": "bash"},
    }
    assert (loaded.profile.limits.queries_per_minute, loaded.profile.limits.burst) == (1, 5)
    assert loaded.site.partitions["deep"].max_nodes == 4


def test_mistakes_of_a_site_are_told_in_its_file(project):
    (project / "sites").mkdir()
    site = project / "sites" / "atlantis.yaml"
    site.write_text("partitions:\n  deep: {max_nods: 4}\n")
    with pytest.raises(SpecError) as caught:
        load_profile_file(write(project, "x", "site: atlantis\n"))
    assert caught.value.problems[0].position.file == str(site)
    assert caught.value.problems[0].position.line == 2


def test_values_from_the_environment_keep_their_spelling(project, monkeypatch):
    for name, value in {"ACCOUNT": "007", "TIME": "12:00:00", "CPUS": "4", "REQUEUE": "false"}.items():
        monkeypatch.setenv(name, value)
    write(
        project,
        "x",
        "resources:\n  account: \"{{ env('ACCOUNT') }}\"\n  time: \"{{ env('TIME') }}\"\n"
        "  cpus_per_task: \"{{ env('CPUS') }}\"\n  requeue: \"{{ env('REQUEUE') }}\"\n",
    )
    assert load_profile("x", start=project).profile.resources.sbatch_options() == (
        ("account", "007"),
        ("cpus-per-task", "4"),
        ("time", "12:00:00"),
        ("no-requeue", ""),
    )


def test_profiles_are_checked_without_their_variables(project, monkeypatch):
    monkeypatch.delenv("NOPE", raising=False)
    file = write(project, "x", "workdir: \"{{ env('NOPE') }}\"\nlimits: {burst: \"{{ env('NOPE') }}\"}\n")
    assert load_profile_file(file, unrendered=True).profile.limits.burst == 10
    file.write_text("limits: {brust: \"{{ env('NOPE') }}\"}\n")
    with pytest.raises(SpecError, match="did you mean `burst`"):
        load_profile_file(file, unrendered=True)
