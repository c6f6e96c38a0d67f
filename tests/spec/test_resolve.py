"""Scripts, resolved through all layers; matrices; files; components."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from pydantic import ValidationError

from dagster_slurm_components.spec.component import ComponentSpec, read_component
from dagster_slurm_components.spec.environments import ModulesEnvironment
from dagster_slurm_components.spec.hosts import SshHost
from dagster_slurm_components.spec.matrix import expand
from dagster_slurm_components.spec.merge import Layer
from dagster_slurm_components.spec.model import validate_unrendered
from dagster_slurm_components.spec.place import KEY
from dagster_slurm_components.spec.problems import SpecError
from dagster_slurm_components.spec.profiles import load_profile_file
from dagster_slurm_components.spec.resolve import ScriptEntry, resolve_script
from dagster_slurm_components.spec.script import Script
from dagster_slurm_components.spec.source import Document, load_documents, parse_documents
from dagster_slurm_components.spec.templates import keep, render


def validate_component(document: Document, **options: Any) -> ComponentSpec:
    """Read a component that must be without mistakes."""
    spec = read_component(document, **options)
    if spec.problems:
        raise SpecError(spec.problems)
    return spec


@pytest.fixture
def profile(tmp_path):
    (tmp_path / "profiles").mkdir()
    file = tmp_path / "profiles" / "staging.yaml"
    file.write_text(
        "resources: {partition: gpu, mem: 1G}\nenv: {A: profile, B: profile}\nlauncher: {type: bash}\n"
    )
    return load_profile_file(file)


def script_layer(text: str, folder: Path) -> Layer:
    (document,) = parse_documents(text, "s.yaml")
    return Layer("script", document.data, document.position, folder)


def test_precedence_and_places(profile, tmp_path):
    (defaults,) = parse_documents("env: {B: defaults, C: defaults}\nresources: {nodes: 2}\n", "d.yaml")
    script = script_layer(
        "payload: a.py\nenv: {C: script, D: script}\nresources: {mem_per_cpu: 2G}\n"
        "profiles:\n  staging: {env: {D: override}}\n  other: {env: {D: never}}\n",
        tmp_path,
    )
    resolved = resolve_script(
        ScriptEntry(script, Layer("defaults", defaults.data, defaults.position), tmp_path), profile
    )
    assert resolved.script.env == {"A": "profile", "B": "defaults", "C": "script", "D": "override"}
    assert resolved.script.resources.sbatch_options() == (
        ("partition", "gpu"),
        ("nodes", "2"),
        ("mem-per-cpu", "2G"),
    )
    assert str(resolved.position("env", "B")) == "d.yaml:1:10"
    assert str(resolved.position("env", "D")) == "s.yaml:5:22"
    assert resolved.position("resources", "partition").file.endswith("staging.yaml")


def test_mistakes_are_told_where_the_winning_value_was_written(profile, tmp_path):
    script = script_layer("payload: a.py\nprofiles:\n  staging: {resources: {nodes: 2}}\n", tmp_path)
    wrong = Layer("defaults", {"resources": {"time": 5}}, lambda path: None)
    with pytest.raises(SpecError, match="time in quotes"):
        resolve_script(ScriptEntry(script, wrong, tmp_path), profile)


def test_relative_paths_start_beside_the_file_that_wrote_them(profile, tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "common.txt").write_text("c")
    (tmp_path / "jobs" / "a.py").write_text("a")
    defaults = Layer("defaults", {"files": ["common.txt"]}, lambda path: None, tmp_path)
    script = script_layer("payload: a.py\n", tmp_path / "jobs")
    resolved = resolve_script(ScriptEntry(script, defaults, tmp_path / "jobs"), profile)
    assert resolved.payload_file() == tmp_path / "jobs" / "a.py"
    assert resolved.base("files", 0) == tmp_path
    assert resolved.base("env", "A") == tmp_path
    assert resolved.base("name") == tmp_path / "jobs"
    assert resolved.payload_files() == {
        PurePosixPath("a.py"): tmp_path / "jobs" / "a.py",
        PurePosixPath("common.txt"): tmp_path / "common.txt",
    }


def test_missing_files_are_told_with_their_line(profile, tmp_path):
    script = script_layer("payload: no.py\nfiles:\n  - no/*.yaml\n", tmp_path)
    resolved = resolve_script(ScriptEntry(script, None, tmp_path), profile)
    with pytest.raises(SpecError) as caught:
        resolved.payload_files()
    assert [(p.position.line, p.kind) for p in caught.value.problems] == [(1, "no_file"), (3, "no_file")]


def test_two_files_for_one_place(profile, tmp_path):
    (tmp_path / "jobs").mkdir()
    for file in (tmp_path / "a.py", tmp_path / "jobs" / "a.py"):
        file.write_text("x")
    script = script_layer("payload: a.py\nfiles: [../a.py]\n", tmp_path / "jobs")
    resolved = resolve_script(ScriptEntry(script, None, tmp_path / "jobs"), profile)
    with pytest.raises(SpecError, match=r"would travel as a\.py"):
        resolved.payload_files()


def test_the_content_digest_follows_content_and_not_resources(profile, tmp_path):
    (tmp_path / "a.py").write_text("1")

    def digest(text: str) -> str:
        layer = script_layer(text, tmp_path)
        resolved = resolve_script(ScriptEntry(layer, None, tmp_path), profile)
        return resolved.content_digest()

    first = digest("payload: a.py\n")
    assert first == digest("payload: a.py\nresources: {nodes: 2}\ndescription: x\n")
    assert first != digest("payload: a.py\nargs: [x]\n")
    assert first != digest("payload: a.py\nenvironment: {type: path, path: /x}\n")
    assert first != digest("payload: a.py\nenv: {A: x}\n")
    (tmp_path / "a.py").write_text("2")
    assert first != digest("payload: a.py\n")


def test_matrix_is_the_product_and_keeps_types_and_places(tmp_path):
    text = """\
matrix: {n: [1, 2], name: [a]}
command: ["run-{{ matrix.name }}", "{{ matrix.n }}", "{{ env('X') }}"]
resources: {nodes: "{{ matrix.n }}"}
assets: [{key: "m/{{ matrix.name }}/{{ matrix.n }}"}]
"""
    cells = expand(script_layer(text, tmp_path))
    assert [cell.name for cell in cells] == ["script [n=1, name=a]", "script [n=2, name=a]"]
    assert cells[1].data == {
        "command": ["run-a", 2, "{{ env('X') }}"],
        "resources": {"nodes": 2},
        "assets": [{"key": "m/a/2"}],
    }
    assert cells[1].position(("resources", "nodes")).line == 3
    assert cells[0].folder == tmp_path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("matrix: [1]", "expected a mapping of lists"),
        ("matrix: {}", "expected a mapping of lists"),
        ("matrix: {n: 1}", "expected a list of values"),
        ("matrix: {n: []}", "expected a list of values"),
        ("matrix: {n: [{a: 1}]}", "expected text, a number, true or false"),
        ("matrix: {a-b: [1]}", "'a-b' can't be the name of a matrix variable"),
        ("matrix: {n: [1]}\npayload: '{{ matrix.m }}'", "`matrix.m` is not in the matrix"),
        ("matrix: {n: [1]}\npayload: '{{ matrix.n + 1 }}'", "{{ matrix.n + 1 }} is more than a reference"),
        (f"matrix: {{a: {list(range(200))}, b: {list(range(200))}}}", "the matrix has 40000 cells"),
    ],
)
def test_wrong_matrices(text, message, tmp_path):
    with pytest.raises(SpecError) as caught:
        expand(script_layer(text, tmp_path))
    assert caught.value.problems[0].message.startswith(message)
    assert caught.value.problems[0].position is not None


@pytest.fixture
def component(tmp_path):
    def write(text: str, **files: str):
        for name, content in files.items():
            file = tmp_path / name.replace("__", "/")
            file.parent.mkdir(exist_ok=True)
            file.with_suffix(".yaml").write_text(content)
        file = tmp_path / "defs.yaml"
        file.write_text(text)
        return load_documents(file)[0].child(("attributes",))

    return write


def test_component_reads_its_own_scripts_and_included_ones(component, tmp_path, profile):
    document = component(
        "attributes:\n  defaults: {env: {A: d}}\n  scripts:\n    - {command: [x], matrix: {n: [1, 2]}}\n"
        "  include: [jobs/*.yaml]\n  external: [raw/a, [raw, b]]\n",
        jobs__a="command: [y]\n---\ncommand: [z]\n",
    )
    spec = validate_component(document)
    assert spec.external == ("raw/a", "raw/b")
    assert [entry.script.data["command"] for entry in spec.entries] == [["x"], ["x"], ["y"], ["z"]]
    assert [entry.folder for entry in spec.entries] == [tmp_path] * 2 + [tmp_path / "jobs"] * 2
    assert spec.entries[3].script.position(("command",)).line == 3
    assert spec.entries[3].resolve(profile).script.env["A"] == "d"


@pytest.mark.parametrize(
    "text",
    [
        "attributes: {scripts: [{command: [x], env: {TOKEN: TEMPLATE}}]}\n",
        "attributes: {defaults: {env: {TOKEN: TEMPLATE}}, scripts: [{command: [x]}]}\n",
        "attributes: {scripts: [{command: [x], profiles: {staging: {env: {TOKEN: TEMPLATE}}}}]}\n",
    ],
    ids=["script", "defaults", "override"],
)
def test_a_variable_counts_in_the_digest_as_it_was_written(component, profile, text):
    """D7: a token that was renewed made a second job beside the one that ran."""

    def digest(name: str, token: str) -> str:
        document = component(text.replace("TEMPLATE", f"\"{{{{ env('{name}') }}}}\""))
        spec = validate_component(document, render=lambda tree, at: render(tree, at, variables={name: token}))
        resolved = spec.entries[0].resolve(profile)
        assert resolved.script.env["TOKEN"] == token
        return resolved.content_digest()

    assert digest("TOK", "of this hour") == digest("TOK", "of the next")
    assert digest("TOK", "of this hour") != digest("OTHER", "of this hour")


def test_a_variable_of_the_profile_counts_as_it_was_written(tmp_path, monkeypatch):
    file = tmp_path / "profiles" / "staging.yaml"
    file.parent.mkdir()

    def digest(name: str, token: str) -> str:
        file.write_text(f"env: {{TOKEN: \"{{{{ env('{name}') }}}}\"}}\n")
        monkeypatch.setenv(name, token)
        resolved = resolve_script(
            ScriptEntry(script_layer("command: [x]\n", tmp_path), None, tmp_path), load_profile_file(file)
        )
        assert resolved.script.env == {"TOKEN": token}
        return resolved.content_digest()

    assert digest("TOK", "of this hour") == digest("TOK", "of the next")
    assert digest("TOK", "of this hour") != digest("OTHER", "of this hour")


def test_component_tells_all_mistakes_with_their_files(component):
    document = component(
        "attributes:\n  defaults: {name: x, resources: {nods: 1}}\n  scripts:\n    - {matrix: {n: 1}}\n"
        "    - 5\n  include: [jobs/*.yaml, no/*]\n",
        jobs__a="command: [y\n",
        jobs__b="- x\n",
    )
    found = [(Path(p.position.file).name, p.position.line) for p in read_component(document).problems]
    assert found == [("defs.yaml", 5)]
    document = component(
        "attributes:\n  defaults: {name: x, resources: {nods: 1}}\n  scripts:\n    - {matrix: {n: 1}}\n"
        "  include: [jobs/*.yaml, no/*]\n",
    )
    found = [(Path(p.position.file).name, p.position.line) for p in read_component(document).problems]
    assert found == [
        ("defs.yaml", 2),
        ("defs.yaml", 2),
        ("defs.yaml", 4),
        ("defs.yaml", 5),
        ("a.yaml", 2),
        ("b.yaml", 1),
    ]
    with pytest.raises(SpecError):
        validate_component(document)


def test_component_renders_each_script_after_its_matrix(component):
    document = component(
        "attributes:\n  scripts:\n    - {command: ['{{ env(\"N\") }}{{ matrix.n }}'], matrix: {n: [1, 2]}}\n"
    )
    spec = validate_component(document, render=lambda tree, where: render(tree, where, variables={"N": "v"}))
    assert [entry.script.data["command"] for entry in spec.entries] == [["v1"], ["v2"]]


def test_rendering():
    tree = {"a": "{{ env('N', 5) }}", "b": ["x{{ env.N }}"], "{{ env.N }}": 1, "c": 2, "d": "{ {x} }"}
    assert render(tree, lambda path: None, variables={"N": "7"}) == {
        "a": "7",
        "b": ["x7"],
        "7": 1,
        "c": 2,
        "d": "{ {x} }",
    }
    assert render("{{ env('M', 5) }}", lambda path: None, variables={}) == 5
    assert keep(tree, lambda path: None) is tree


def test_unrendered_trees():
    data = {
        "payload": "{{ x }}",
        "launcher": "{{ x }}",
        "resources": {"nodes": "{{ n }}", "mem": "{{ m }}", "mem_per_cpu": "{{ m }}"},
        "assets": [
            "{{ a }}",
            {"key": "b", "partitions_def": {"type": "daily", "start_date": "{{ d }}"}},
            {"key": "c/{{ d }}", "group_name": "{{ g }}", "code_version": "{{ v }}"},
        ],
    }
    script = validate_unrendered(Script, data)
    assert script.payload == "{{ x }}"
    assert script.resources.nodes is None
    assert [(asset.key, asset.partitions_def) for asset in script.assets] == [
        ("b", None),
        ("c/{{ d }}", None),
    ]
    assert validate_unrendered(Script, "{{ all }}") is None
    assert validate_unrendered(SshHost, {"type": "ssh", "hostname": "a", "port": "{{ p }}"}).port == 22
    assert validate_unrendered(ModulesEnvironment, {"type": "modules", "load": "{{ m }}"}) is None


@pytest.mark.parametrize(
    ("data", "loc"),
    [
        ({"payload": "{{ x }}", "nope": 1}, ("nope", KEY)),
        ({"payload": "a", "assets": ["{{ a }}", {"kye": 1}]}, ("assets", 1, "key")),
        ({"payload": "a", "launcher": {"type": "{{ t }}"}, "env": {"A": None}}, ("env", "A")),
    ],
)
def test_what_is_wrong_beside_templates(data, loc):
    with pytest.raises(ValidationError) as caught:
        validate_unrendered(Script, data)
    assert loc in [error["loc"] for error in caught.value.errors()]
